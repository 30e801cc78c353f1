//! The barrier: what the caches must show before a key is looked at again.

use std::collections::BTreeMap;

use client::{Caches, Outcome, Picture};
use model::{Act, Gvr, Key, World, Write};

/// Something that a write has done and that the caches are to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// Everything of the resource up to this revision.
    Revision(Gvr, u64),
    /// That the object has ended or is ending (or is another one by now).
    Ended {
        /// Which object.
        key: Key,
        /// Which incarnation; `None`: any.
        uid: Option<String>,
    },
    /// A newer state of the object than this revision (0: that it is there).
    Newer(Key, u64),
    /// More of the resource than up to this revision.
    Beyond(Gvr, u64),
}

/// How far the caches were when a plan was decided, for what the plan writes.
#[derive(Debug, Default)]
pub struct Decided {
    reached: BTreeMap<Gvr, u64>,
    revisions: BTreeMap<Key, u64>,
}

impl Decided {
    /// What the picture shows of what the acts write.
    pub fn by(acts: &[Act], picture: &Picture<'_>) -> Self {
        let mut decided = Self::default();
        for act in acts {
            match &act.write {
                Write::Create { gvr, .. } => decided.note(gvr, picture),
                Write::Absent { key, .. } => decided.note(&key.gvr, picture),
                Write::Votes { .. } | Write::Knock { .. } => {}
                Write::Patch { key, .. } | Write::Replace { key, .. } | Write::Delete { key, .. } => {
                    decided.note_object(key, picture);
                }
                Write::Bind { pod, .. } | Write::Evict { pod, .. } => decided.note_object(pod, picture),
            }
        }
        decided
    }

    fn note(&mut self, gvr: &Gvr, picture: &Picture<'_>) {
        self.reached.extend(picture.reached(gvr).map(|revision| (gvr.clone(), revision)));
    }

    fn note_object(&mut self, key: &Key, picture: &Picture<'_>) {
        self.revisions.extend(picture.get(key).map(|object| (key.clone(), object.revision())));
    }

    /// Later than what was seen of a resource.
    fn reached(&self, gvr: &Gvr) -> Option<Mark> {
        self.reached.get(gvr).map(|revision| Mark::Beyond(gvr.clone(), *revision))
    }

    /// Later than what was seen of an object; nothing when it was not seen.
    fn newer(&self, key: &Key) -> Option<Mark> {
        self.revisions.get(key).map(|revision| Mark::Newer(key.clone(), *revision))
    }
}

impl Mark {
    /// What the caches must show of a write that came to `outcome`; `before` is the revision of what it was about
    /// when the write was sent.
    pub fn of(write: &Write, outcome: &Outcome, before: u64) -> Option<Mark> {
        let gvr = match write {
            Write::Create { gvr, .. } => gvr,
            Write::Patch { key, .. } | Write::Replace { key, .. } => &key.gvr,
            Write::Delete { key, when, .. } => return Some(ended(key, when.uid.clone())),
            Write::Evict { pod, when } => return Some(ended(pod, when.uid.clone())),
            Write::Bind { pod, .. } => return Some(Mark::Newer(pod.clone(), before)),
            Write::Absent { .. } | Write::Votes { .. } | Write::Knock { .. } => return None,
        };
        outcome.revision().map(|revision| Mark::Revision(gvr.clone(), revision))
    }

    /// What the caches must show before a refused write is decided anew: more than the decision saw.
    pub fn of_refusal(write: &Write, decided: &Decided) -> Option<Mark> {
        match write {
            Write::Create { gvr, .. } => decided.reached(gvr),
            Write::Absent { key, .. } => decided.reached(&key.gvr),
            // A node whose lease is lost is refused as well, and its pod stays as it is: to wait for that would hold up every
            // pod of the cluster.
            Write::Votes { .. } | Write::Knock { .. } | Write::Bind { .. } => None,
            Write::Patch { key, .. } | Write::Replace { key, .. } | Write::Delete { key, .. } => {
                decided.newer(key)
            }
            Write::Evict { pod, .. } => decided.newer(pod),
        }
    }

    /// Whether the caches show it. What they do not follow they need not show.
    pub fn is_shown(&self, caches: &Caches) -> bool {
        match self {
            Mark::Revision(gvr, revision) => caches.reached(gvr).is_none_or(|reached| reached >= *revision),
            Mark::Beyond(gvr, revision) => caches.reached(gvr).is_none_or(|reached| reached > *revision),
            Mark::Newer(key, than) => {
                caches.reached(&key.gvr).is_none()
                    || caches.get(key).is_none_or(|object| object.revision() > *than)
            }
            Mark::Ended { key, uid } => caches.get(key).is_none_or(|object| {
                object.is_ending() || uid.as_ref().is_some_and(|uid| *uid != object.uid())
            }),
        }
    }
}

fn ended(key: &Key, uid: Option<String>) -> Mark {
    Mark::Ended { key: key.clone(), uid }
}
