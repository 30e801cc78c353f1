//! What a decision returns: writes, each with its precondition and its reason, and perhaps a time to look again.

use crate::fence::VoterSet;
use crate::{Gvr, Key, Time, Tree};

/// The outcome of one pass. The engine carries the acts out in order and stops at the first refusal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// What to write, in this order.
    pub acts: Vec<Act>,
    /// When to look again even if nothing changes.
    pub wake_at: Option<Time>,
    /// What to tell users although nothing is written, such as why something waits: told once in a while only.
    pub news: Vec<EventNote>,
}

/// One write with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// What to write.
    pub write: Write,
    /// Why, in a few words; kept in the ledger and in the log.
    pub why: String,
    /// What to tell users when it has been done, as a Kubernetes Event.
    pub event: Option<EventNote>,
    /// What to write instead when it is refused (by a quota, by admission: not for a conflict or a lack of contact).
    ///
    /// `{refusal}` in its texts stands for the message of the refusal. The plan still stops there.
    pub otherwise: Option<Box<Write>>,
}

/// An Event to be written once its act has been done.
///
/// `{name}` in the message stands for the name of the object that the act wrote (as the server gave it). When the
/// act is refused, an event whose reason begins with `Successful` is told as a warning with `Failed` instead.
#[derive(Debug, Clone, PartialEq)]
pub struct EventNote {
    /// What the event is about.
    pub object: Key,
    /// The kind of that, such as `ReplicaSet`.
    pub kind: String,
    /// Its uid.
    pub uid: String,
    /// Which part of it, such as `spec.containers{web}`; empty for the whole.
    pub field_path: String,
    /// Whether something is wrong: `Warning` rather than `Normal`.
    pub is_warning: bool,
    /// The reason, such as `SuccessfulCreate`.
    pub reason: String,
    /// The message, such as `Created pod: {name}`.
    pub message: String,
}

impl EventNote {
    /// An event of type `Normal` about `object`.
    pub fn normal(
        object: &crate::Object,
        gvr: &Gvr,
        kind: &str,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            object: Key::new(gvr, object.namespace(), object.name()),
            kind: kind.into(),
            uid: object.uid().into(),
            field_path: String::new(),
            is_warning: false,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// The same, about a part of the object.
    pub fn about(self, field_path: impl Into<String>) -> Self {
        Self { field_path: field_path.into(), ..self }
    }

    /// The same, of type `Warning`.
    pub fn warning(self) -> Self {
        Self { is_warning: true, ..self }
    }
}

/// A write, with the precondition under which it was decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Make an object; "already exists" counts as done.
    Create {
        /// Of which resource.
        gvr: Gvr,
        /// In which namespace; empty for cluster-wide ones.
        namespace: String,
        /// The whole object, with `metadata.name` or `metadata.generateName`.
        object: Tree,
    },
    /// Change parts of an object by a JSON merge patch (RFC 7396).
    Patch {
        /// Which object.
        key: Key,
        /// Which part: `""` for the object itself, or `status`, `scale`, `finalize` …
        part: &'static str,
        /// The patch, without preconditions.
        patch: Tree,
        /// When it may be done.
        when: Precondition,
    },
    /// Replace an object or a part of it (the tree carries the resourceVersion, or the write is unconditional).
    Replace {
        /// Which object.
        key: Key,
        /// Which part, as in [`Write::Patch`].
        part: &'static str,
        /// The whole object.
        object: Tree,
    },
    /// Bind a pod to a node (`pods/binding`).
    Bind {
        /// The pod.
        pod: Key,
        /// The pod's uid, as a precondition.
        uid: String,
        /// The node's name.
        node: String,
    },
    /// Evict a pod (`pods/eviction`): a deletion that respects budgets.
    Evict {
        /// The pod.
        pod: Key,
        /// When it may be done.
        when: Precondition,
    },
    /// Go on only if no object of this key has this uid: asked of the server itself, since a cache may lag.
    ///
    /// It writes nothing. When the object is there, that is a refusal: the plan stops, and the key is looked at again.
    Absent {
        /// Which object must be gone.
        key: Key,
        /// Which incarnation of it.
        uid: String,
    },
    /// Go on only if a strict majority of the set votes against a node's lease at this revision, and whoever carries this
    /// out has itself seen that revision for longer than the node may run.
    ///
    /// It writes nothing here; each voter writes its vote down. Without the majority it is a refusal.
    Votes {
        /// The lease.
        lease: Key,
        /// Its revision.
        revision: u64,
        /// Who votes: the set in that lease.
        set: VoterSet,
    },
    /// Go on unless a node's machine refuses connections, and only if its lease is still as it was seen.
    ///
    /// It writes nothing. An agent that restarts is late with a renewal, but its machine's kernel says so at once: "refused".
    Knock {
        /// Which node.
        node: Key,
        /// Its lease.
        lease: Key,
        /// The lease's revision.
        revision: u64,
    },
    /// Delete an object; "not found" counts as done.
    Delete {
        /// Which object.
        key: Key,
        /// When it may be done.
        when: Precondition,
        /// How long it may take; `None` for the object's own default.
        grace_seconds: Option<i64>,
        /// What becomes of its children.
        propagation: Propagation,
    },
}

/// What must still hold when a write is carried out. Empty fields ask for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The uid that was seen.
    pub uid: Option<String>,
    /// The revision that was seen.
    pub resource_version: Option<String>,
}

/// What becomes of an object's children when it is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, its children after it.
    #[default]
    Background,
    /// The children go first.
    Foreground,
    /// The children stay.
    Orphan,
}

impl Plan {
    /// Adds a creation.
    pub fn create(&mut self, gvr: &Gvr, namespace: &str, object: Tree, why: impl Into<String>) {
        self.act(Write::Create { gvr: gvr.clone(), namespace: namespace.into(), object }, why);
    }

    /// Adds a merge patch of `part` (`""`: the object itself).
    pub fn patch(
        &mut self,
        key: Key,
        part: &'static str,
        patch: Tree,
        when: Precondition,
        why: impl Into<String>,
    ) {
        self.act(Write::Patch { key, part, patch, when }, why);
    }

    /// Adds a deletion in the background.
    pub fn delete(&mut self, key: Key, when: Precondition, why: impl Into<String>) {
        self.act(Write::Delete { key, when, grace_seconds: None, propagation: Propagation::Background }, why);
    }

    /// Adds any write.
    pub fn act(&mut self, write: Write, why: impl Into<String>) {
        self.acts.push(Act { write, why: why.into(), event: None, otherwise: None });
    }

    /// Attaches an event to the last act. Without an act nothing is told: a pass that does nothing has no news.
    pub fn tell(&mut self, event: EventNote) {
        if let Some(act) = self.acts.last_mut() {
            act.event = Some(event);
        }
    }

    /// Tells an event although nothing may be written: how things stand. The same is told again only after a while.
    pub fn say(&mut self, event: EventNote) {
        self.news.push(event);
    }

    /// Says what to write when the last act is refused.
    pub fn otherwise(&mut self, write: Write) {
        if let Some(act) = self.acts.last_mut() {
            act.otherwise = Some(Box::new(write));
        }
    }

    /// Asks to look again at `at`, or earlier if that was asked for already.
    pub fn wake(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    /// Whether nothing is to be written.
    pub fn is_quiet(&self) -> bool {
        self.acts.is_empty()
    }
}

impl Precondition {
    /// The object seen, whatever its revision.
    pub fn same(object: &crate::Object) -> Self {
        Self { uid: Some(object.uid().to_owned()), resource_version: None }
    }

    /// The object seen, at the revision seen.
    pub fn exactly(object: &crate::Object) -> Self {
        Self {
            uid: Some(object.uid().to_owned()),
            resource_version: Some(object.meta().resource_version().to_owned()),
        }
    }
}
