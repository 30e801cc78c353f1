//! Volumes and claims do not go while somebody uses them: a finalizer holds them until their controller lets go.

use model::tree::items;
use model::{Tree, kinds};
use serde_json::json;

use super::service_account::push;
use super::{Asked, Extra};
use crate::refusal::Refusal;

/// Puts the finalizer on new volumes and claims.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    let name = if asked.creates(&kinds::PERSISTENT_VOLUME_CLAIM) {
        "kubernetes.io/pvc-protection"
    } else if asked.creates(&kinds::PERSISTENT_VOLUME) {
        "kubernetes.io/pv-protection"
    } else {
        return Ok(());
    };
    if !items(object, "metadata.finalizers").iter().any(|known| known == name) {
        push(&mut object["metadata"], "finalizers", json!(name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_new_claim_is_held_once() {
        let claim = json!({"metadata": {"name": "c", "namespace": "d"}});
        let made = check(&[], &kinds::PERSISTENT_VOLUME_CLAIM, admit, claim).expect("nothing against it");
        let again =
            check(&[], &kinds::PERSISTENT_VOLUME_CLAIM, admit, made.clone()).expect("nothing against it");
        assert_eq!((&again, items(&made, "metadata.finalizers").len()), (&made, 1));
    }
}
