//! Whose child an object is: adopting what matches and is nobody's, letting go what no longer matches.

use model::{Gvr, Key, Object, Owner, Plan, Precondition, Selector, Tree};
use serde_json::json;

/// What of the candidates is the owner's.
#[derive(Debug, Default)]
pub struct Claim {
    /// What is or becomes the owner's, in the order of the candidates.
    pub mine: Vec<Object>,
    /// Those of mine that have no owner reference yet.
    adopted: Vec<Object>,
    /// What was the owner's and no longer matches.
    released: Vec<Object>,
    /// The finalizer that the owner holds its children by.
    finalizer: &'static str,
}

/// Sorts the candidates.
pub fn claim(owner: &Object, selector: &Selector, candidates: Vec<Object>) -> Claim {
    let mut claim = Claim::default();
    for object in candidates {
        let matches = selector.matches(&object.meta().labels);
        match object.controller() {
            Some(named) if named.uid == owner.uid() => match matches {
                true => claim.mine.push(object),
                false if owner.is_ending() => {}
                false => claim.released.push(object),
            },
            Some(_) => {}
            None if !matches || owner.is_ending() || object.is_ending() => {}
            None => {
                claim.adopted.push(object.clone());
                claim.mine.push(object);
            }
        }
    }
    claim
}

impl Claim {
    /// The owner holds its children by a finalizer: what is let go is let go of that too.
    pub fn held_by(mut self, finalizer: &'static str) -> Self {
        self.finalizer = finalizer;
        self
    }

    /// Writes down who owns what.
    pub fn write(&self, plan: &mut Plan, gvr: &Gvr, owner: &Object, owner_gvr: &Gvr, owner_kind: &str) {
        for object in &self.adopted {
            let mut owners: Vec<Tree> = object.meta().owner_references.iter().map(written).collect();
            owners.push(reference(owner, owner_gvr, owner_kind));
            set_owners(plan, gvr, object, owners, "matches and has no owner");
        }
        for object in &self.released {
            let mut patch = owners_patch(without(object, owner.uid()));
            let held = &object.meta().finalizers;
            if held.iter().any(|held| held == self.finalizer) {
                let left = held.iter().filter(|held| *held != self.finalizer);
                patch["metadata"]["finalizers"] = left.cloned().collect();
            }
            let key = Key::new(gvr, object.namespace(), object.name());
            plan.patch(key, "", patch, Precondition::exactly(object), "no longer matches");
        }
    }
}

/// The reference by which a child names the owner that manages it.
pub fn reference(owner: &Object, gvr: &Gvr, kind: &str) -> Tree {
    json!({
        "apiVersion": gvr.api_version(), "kind": kind, "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The owner references of an object but the one to `uid`.
pub fn without(object: &Object, uid: &str) -> Vec<Tree> {
    object.meta().owner_references.iter().filter(|owner| owner.uid != uid).map(written).collect()
}

/// An owner reference as it stands in the object.
pub fn written(owner: &Owner) -> Tree {
    let mut tree = json!({
        "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
    });
    for (field, set) in [("controller", owner.controller), ("blockOwnerDeletion", owner.block_owner_deletion)]
    {
        if set {
            tree[field] = true.into();
        }
    }
    tree
}

/// Replaces the owner references of an object as it was seen.
pub fn set_owners(plan: &mut Plan, gvr: &Gvr, object: &Object, owners: Vec<Tree>, why: &str) {
    let key = Key::new(gvr, object.namespace(), object.name());
    plan.patch(key, "", owners_patch(owners), Precondition::exactly(object), why);
}

fn owners_patch(owners: Vec<Tree>) -> Tree {
    let owners = if owners.is_empty() { Tree::Null } else { Tree::Array(owners) };
    json!({"metadata": {"ownerReferences": owners}})
}
