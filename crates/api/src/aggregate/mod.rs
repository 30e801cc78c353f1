//! API servers behind this one: which groups they serve, whether they answer, and what they say of themselves.
//!
//! `availability` and `local` decide and are pure; `watcher` looks and writes down; `service/away` passes requests on.

mod availability;
mod local;
mod merged;
mod watcher;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::tree::{items, text, whole};
use model::{Tree, kinds};
use serde_json::{Value, json};
use store::{Range, Store, StoreError, Watch};

use crate::outbound::Callee;
use crate::registry::Registry;

pub use merged::{Group, aggregated_entry, openapi_two};
#[cfg(test)]
pub use watcher::look;
pub use watcher::watch;

/// A group's version that another server serves.
#[derive(Debug, Clone)]
pub struct Extension {
    /// The APIService's name.
    pub name: String,
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// How early the group is shown; higher first.
    pub group_priority: i64,
    /// How early the version is shown in its group; higher first.
    pub version_priority: i64,
    /// Where the server is; or why it is nowhere.
    pub callee: Result<Callee, String>,
    /// Whether it answered when it was last asked.
    pub available: bool,
}

/// What an extension server says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// Its `APIResourceList`.
    pub resources: Tree,
    /// Whether that is from the last look.
    pub current: bool,
    /// Its entry in the index of OpenAPI v3; null when it has none.
    pub openapi_three: Tree,
    /// Its OpenAPI v2 document; null when it has none.
    pub openapi_two: Arc<Tree>,
}

impl Said {
    /// Whether it describes itself in OpenAPI v2 and not in v3.
    pub fn speaks_two_alone(&self) -> bool {
        !self.openapi_three.is_object() && self.openapi_two.is_object()
    }
}

/// All groups, and what other servers say of theirs.
#[derive(Debug, Default)]
pub struct Seen {
    /// The groups, in the order in which they are shown.
    pub groups: Vec<Group>,
    /// What was said, by the APIService's name.
    pub said: BTreeMap<String, Said>,
}

/// The servers behind this one.
pub struct Extensions {
    /// Guards what is registered and said, for as long as it takes to look for news and clone a snapshot.
    state: Mutex<State>,
}

struct State {
    watch: Watch,
    known: Arc<[Extension]>,
    /// By the APIService's name.
    said: BTreeMap<String, Said>,
}

impl Extensions {
    /// Those that a store's APIServices name.
    pub fn new(store: &Store) -> Result<Self, StoreError> {
        let (known, watch) = read(store)?;
        Ok(Self { state: Mutex::new(State { watch, known, said: BTreeMap::new() }) })
    }

    /// Those that are registered at this moment, the earliest to be shown first.
    pub fn now(&self, store: &Store) -> Arc<[Extension]> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing to be read means that nothing changed; anything else, an error too, is a reason to look.
        if !matches!(state.watch.try_next(), Ok(None))
            && let Ok((known, watch)) = read(store)
        {
            state.said.retain(|name, _| known.iter().any(|extension| extension.name == *name));
            (state.known, state.watch) = (known, watch);
        }
        state.known.clone()
    }

    /// Who serves a group's version, if that is another server.
    pub fn find(&self, group: &str, version: &str, store: &Store) -> Option<Extension> {
        let known = self.now(store);
        known.iter().find(|extension| extension.group == group && extension.version == version).cloned()
    }

    /// All groups, and what other servers say of theirs: what discovery shows.
    pub fn seen(&self, registry: &Registry, store: &Store) -> Seen {
        let groups = merged::groups(registry, &self.now(store));
        let said = self.state.lock().unwrap_or_else(PoisonError::into_inner).said.clone();
        Seen { groups, said }
    }

    /// What a server said last.
    pub fn said(&self, name: &str) -> Option<Said> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).said.get(name).cloned()
    }

    /// Keeps what a server says.
    pub fn hear(&self, name: &str, said: Said) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).said.insert(name.to_owned(), said);
    }
}

fn read(store: &Store) -> Result<(Arc<[Extension]>, Watch), StoreError> {
    let range = Range { prefix: format!("/{}/", kinds::API_SERVICE), ..Range::default() };
    let page = store.list(&range)?;
    let watch = store.watch(&range.prefix, page.revision)?;
    let all = page.records.iter().filter_map(|record| serde_json::from_slice::<Tree>(&record.value).ok());
    let mut known: Vec<Extension> = all.filter_map(|object| extension(&object)).collect();
    known.sort_by(|a, b| {
        let order = |one: &Extension| {
            (-one.group_priority, one.group.clone(), -one.version_priority, one.version.clone())
        };
        order(a).cmp(&order(b))
    });
    Ok((known.into(), watch))
}

/// What an APIService registers; `None` when it is one of our own groups.
fn extension(object: &Tree) -> Option<Extension> {
    let group = text(object, "spec.group");
    // The core group is ours: without it nothing could be reached any more.
    if !object["spec"]["service"].is_object() || group.is_empty() {
        return None;
    }
    Some(Extension {
        name: text(object, "metadata.name").to_owned(),
        group: group.to_owned(),
        version: text(object, "spec.version").to_owned(),
        group_priority: whole(object, "spec.groupPriorityMinimum").unwrap_or(0),
        version_priority: whole(object, "spec.versionPriority").unwrap_or(0),
        callee: Callee::of_api_service(object),
        available: is_available(object),
    })
}

/// Whether an APIService's condition says so.
fn is_available(object: &Tree) -> bool {
    let conditions = items(object, "status.conditions").iter();
    conditions.into_iter().any(|one| text(one, "type") == "Available" && text(one, "status") == "True")
}

/// An object with another `Available` condition; `None` when it has that one already.
fn with_condition(object: &Tree, condition: &availability::Condition, now: &Value) -> Option<Tree> {
    let all = items(object, "status.conditions");
    let known = all.iter().position(|one| text(one, "type") == "Available");
    let field = |name: &str| known.map_or("", |at| text(&all[at], name));
    let same_status = field("status") == condition.status;
    if same_status && field("reason") == condition.reason && field("message") == condition.message {
        return None;
    }
    let since = if same_status { json!(field("lastTransitionTime")) } else { now.clone() };
    let new = json!({"type": "Available", "status": condition.status, "reason": condition.reason,
        "message": condition.message, "lastTransitionTime": since});
    let mut all = all.to_vec();
    match known {
        Some(at) => all[at] = new,
        None => all.push(new),
    }
    let mut object = object.clone();
    object["status"] = json!({"conditions": all});
    Some(object)
}
