//! Objects of watch events in the forms that watchers ask for: made once for all who watch, not once for each.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::convert;
use crate::http::negotiate::{Form, Syntax, View};
use crate::proto;
use crate::registry::Resource;
use crate::table;

/// How many forms are kept: what watchers of many resources are told at one moment. At 2 kB each some 2 MB at most, and
/// nothing while everybody asks for whole objects in JSON, which are shared with the store.
const KEPT_MAX: usize = 1024;

/// Forms of objects that were made a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Guards the slots while one is looked at or filled; forms are made outside.
    slots: Mutex<Vec<Option<Slot>>>,
}

/// What was made of what. The stored bytes are held, so that their address is nobody else's meanwhile.
#[derive(Debug)]
struct Slot {
    stored: Bytes,
    resource: Arc<Resource>,
    form: Form,
    shown: Bytes,
}

impl Slot {
    fn is_of(&self, resource: &Arc<Resource>, form: Form, stored: &Bytes) -> bool {
        self.stored.as_ptr() == stored.as_ptr()
            && self.stored.len() == stored.len()
            && Arc::ptr_eq(&self.resource, resource)
            && self.form == form
    }
}

impl Shown {
    /// A stored object as watchers of a resource want it: whole or its metadata, as JSON or protobuf.
    pub fn of(&self, resource: &Arc<Resource>, form: Form, stored: &Bytes) -> Bytes {
        let served = || convert::served(resource, stored);
        if (form.view, form.syntax) == (View::Object, Syntax::Json) && convert::is_served_so(resource, stored)
        {
            return stored.clone();
        }
        let at = place(stored);
        if let Some(found) = self.kept(at, |slot| slot.is_of(resource, form, stored)) {
            return found;
        }
        let shown = show(form, &served());
        let slot = Slot { stored: stored.clone(), resource: resource.clone(), form, shown: shown.clone() };
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.resize_with(KEPT_MAX, || None);
        slots[at] = Some(slot);
        shown
    }

    fn kept(&self, at: usize, is_of: impl Fn(&Slot) -> bool) -> Option<Bytes> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(at)?.as_ref().filter(|slot| is_of(slot)).map(|slot| slot.shown.clone())
    }
}

/// Where the forms of an object are kept: a place drawn from its address.
fn place(stored: &Bytes) -> usize {
    let mixed = (stored.as_ptr() as usize >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as usize);
    (mixed >> 32) % KEPT_MAX
}

/// An object in a form; an object that is none of its kind, as it is.
pub(crate) fn show(form: Form, served: &Bytes) -> Bytes {
    let viewed = match form.view {
        View::Metadata => table::partial(served).unwrap_or_else(|_| served.clone()),
        View::Object | View::Table => served.clone(),
    };
    match form.syntax {
        Syntax::Protobuf => proto::from_json(&viewed).unwrap_or(viewed),
        _ => viewed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_made_once_for_all_who_watch() {
        let registry = crate::registry::Registry::built_in();
        let pods = registry.get(&model::kinds::POD).expect("pods are served").clone();
        let object = |name: &str| {
            Bytes::from(format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}}}}"#))
        };
        let (shown, a, b) = (Shown::default(), object("a"), object("b"));
        let protobuf = Form { view: View::Object, syntax: Syntax::Protobuf };
        let metadata = Form { view: View::Metadata, syntax: Syntax::Json };
        let first = shown.of(&pods, protobuf, &a);
        assert!(first.starts_with(b"k8s\0"));
        assert_eq!(shown.of(&pods, protobuf, &a).as_ptr(), first.as_ptr());
        assert!(shown.of(&pods, metadata, &a).starts_with(b"{\"kind\":\"PartialObjectMetadata\""));
        assert_ne!(shown.of(&pods, protobuf, &b), first);
        let whole = Form { view: View::Object, syntax: Syntax::Json };
        assert_eq!(shown.of(&pods, whole, &b).as_ptr(), b.as_ptr());
    }
}
