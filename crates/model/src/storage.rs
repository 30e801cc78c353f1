//! What those who make, attach, place and mount volumes agree on: names, and whether a volume fits a claim.

use sha2::{Digest, Sha256};

use crate::fit::{NodeFacts, Term};
use crate::{Object, Quantity, Selector, Tree};

/// The built-in driver whose volumes are folders on one node.
pub const LOCAL: &str = "local.kintsugi.dev";
/// The built-in driver whose volumes are folders on storage that all nodes reach.
pub const SHARED: &str = "shared.kintsugi.dev";

/// The annotation by which the scheduler tells where a claim will be used first.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The annotation that says which driver made a volume.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The provisioner of classes whose volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The finalizer of a volume whose data are on a node's disk or on shared storage: whoever removes the data takes it.
pub const DATA_FINALIZER: &str = "volumes.kintsugi.dev/data";
/// The finalizer of an attachment by a built-in driver: whoever knows that nobody writes any more takes it.
pub const ATTACHED_FINALIZER: &str = "volumes.kintsugi.dev/attached";
/// The finalizer that keeps a volume from going while a claim is bound to it.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The annotation of a volume whose folder was made. A folder that is missing afterwards is lost data, not a new volume.
pub const MADE: &str = "volumes.kintsugi.dev/made";
/// The attribute of a local volume that names its node.
pub const NODE: &str = "node";

/// Whether a driver is one of ours.
pub fn is_built_in(driver: &str) -> bool {
    driver == LOCAL || driver == SHARED
}

/// How the names of attachments begin that were made for pods, as upstream's.
pub const ATTACHMENT_PREFIX: &str = "csi-";

/// The name of the attachment of a volume to a node, as upstream's.
pub fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    let hash = Sha256::digest(format!("{handle}{driver}{node}"));
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{ATTACHMENT_PREFIX}{hex}")
}

/// The name of a volume in a node's status, as upstream's.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

/// An amount of storage, of `capacity` or `requests`.
pub fn amount(amounts: &Tree) -> Quantity {
    amounts["storage"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// How large a volume is, in bytes, as it says.
pub fn size(volume: &Tree) -> Option<i64> {
    let text = volume["spec"]["capacity"]["storage"].as_str()?;
    Some(text.parse::<Quantity>().ok()?.value())
}

/// Whether the volume is promised to the claim of this name.
pub fn is_promised_to(volume: &Tree, namespace: &str, name: &str) -> bool {
    let promised = &volume["spec"]["claimRef"];
    promised["namespace"] == namespace && promised["name"] == name
}

/// Whether the volume is promised to nobody else.
pub fn may_have(volume: &Tree, claim: &Object) -> bool {
    let promised = &volume["spec"]["claimRef"];
    let uid = promised["uid"].as_str().unwrap_or_default();
    promised.is_null()
        || (is_promised_to(volume, claim.namespace(), claim.name()) && (uid.is_empty() || uid == claim.uid()))
}

/// Whether a volume is what a claim asks for: class, mode, access, size, labels.
pub fn fits(volume: &Tree, object: &Object, claim: &Tree) -> bool {
    let (volume, claim) = (&volume["spec"], &claim["spec"]);
    let text = |tree: &Tree, field: &str, instead: &str| tree[field].as_str().unwrap_or(instead).to_owned();
    let modes = |tree: &Tree| tree["accessModes"].as_array().cloned().unwrap_or_default();
    let has = modes(volume);
    let selector = match &claim["selector"] {
        Tree::Null => Selector::everything(),
        selector => Selector::of_tree(Some(selector)).unwrap_or_else(|_| Selector::nothing()),
    };
    text(volume, "storageClassName", "") == text(claim, "storageClassName", "")
        && text(volume, "volumeMode", "Filesystem") == text(claim, "volumeMode", "Filesystem")
        && text(volume, "volumeAttributesClassName", "") == text(claim, "volumeAttributesClassName", "")
        && modes(claim).iter().all(|mode| has.contains(mode))
        && amount(&volume["capacity"]) >= amount(&claim["resources"]["requests"])
        && selector.matches(&object.meta().labels)
}

/// Whether a node can reach the volume.
pub fn reaches(volume: &Tree, node: &NodeFacts) -> bool {
    let required = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    let Some(terms) = required.as_array() else { return true };
    let read = terms.iter().filter_map(|term| serde_json::from_value(plain(term.clone())).ok());
    read.map(|term| Term::read(&term)).any(|term| term.matches(node))
}

fn plain(mut tree: Tree) -> Tree {
    match &mut tree {
        Tree::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(|value| *value = plain(value.take()));
        }
        Tree::Array(items) => items.iter_mut().for_each(|value| *value = plain(value.take())),
        _ => {}
    }
    tree
}

/// Whether nobody but one node (or one pod) may write to a volume with these access modes.
pub fn is_exclusive(modes: &Tree) -> bool {
    let shared = |mode: &Tree| mode == "ReadWriteMany" || mode == "ReadOnlyMany";
    !modes.as_array().into_iter().flatten().any(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_drivers_know() {
        let name = attachment_name("d", "h", "n");
        assert_eq!(name.len(), 4 + 64);
        assert!(name.starts_with("csi-"));
        assert_eq!(unique_name("d", "h"), "kubernetes.io/csi/d^h");
    }

    #[test]
    fn only_modes_for_one_writer_are_exclusive() {
        assert!(is_exclusive(&serde_json::json!(["ReadWriteOnce"])));
        assert!(is_exclusive(&serde_json::json!(["ReadWriteOncePod"])));
        assert!(!is_exclusive(&serde_json::json!(["ReadWriteOnce", "ReadWriteMany"])));
    }
}
