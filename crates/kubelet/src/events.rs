//! Tells users what happened, as Events about this node's pods and volumes. The client counts, bounds and writes them.

use model::kinds as gvr;
use model::{EventNote, Key};

/// What an event is about: a pod, or one of its containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The field that it is about, such as `spec.containers{web}`; empty for the whole.
    pub field: String,
}

/// Takes events. Cheap to clone.
#[derive(Clone)]
pub struct Events(client::Events);

impl Events {
    /// Tells through the client's writer.
    pub fn new(events: client::Events) -> Self {
        Self(events)
    }

    /// Tells that something usual happened.
    pub fn normal(&self, about: About, reason: &str, message: impl Into<String>) {
        self.tell(about, false, reason, message.into());
    }

    /// Tells anything, such as what is about a volume.
    pub fn note(&self, note: EventNote) {
        self.0.tell(note);
    }

    /// Tells that something went wrong.
    pub fn warning(&self, about: About, reason: &str, message: impl Into<String>) {
        self.tell(about, true, reason, message.into());
    }

    fn tell(&self, about: About, is_warning: bool, reason: &str, message: String) {
        self.0.tell(EventNote {
            object: Key::new(&gvr::POD, about.namespace, about.name),
            kind: "Pod".to_owned(),
            uid: about.uid,
            field_path: about.field,
            is_warning,
            reason: reason.to_owned(),
            message,
        });
    }
}
