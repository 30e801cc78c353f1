//! Claims that ask for more than their volume has.

use model::kinds::PERSISTENT_VOLUME;
use model::storage::{self, amount};
use model::{Key, Object, Plan, Precondition, Tree};
use serde_json::json;

use super::about;

/// Whether a bound claim asks for more than its volume has.
pub(super) fn wants_more(claim: &Tree, volume: &Tree) -> bool {
    amount(&claim["spec"]["resources"]["requests"]) > amount(&volume["spec"]["capacity"])
}

/// Whether the volume is one of a built-in driver.
pub(super) fn is_ours(volume: &Tree) -> bool {
    volume["spec"]["csi"]["driver"].as_str().is_some_and(storage::is_built_in)
}

/// Grows a volume of a built-in driver, whose folder needs nothing done; says who is to do it for others. Says whether
/// anything is to be written.
pub(super) fn grow(plan: &mut Plan, claim: &Object, volume: &Object, wanted: &Tree, known: &Tree) -> bool {
    if !is_ours(known) {
        let message = "waiting for an external controller to expand this PVC";
        plan.say(about(claim, "ExternalExpanding", message));
        return false;
    }
    if known["spec"]["volumeMode"] == "Block" {
        let message = format!("volume {} is a block device, which this driver cannot expand", volume.name());
        plan.say(about(claim, "VolumeResizeFailed", message).warning());
        return false;
    }
    let size = &wanted["spec"]["resources"]["requests"]["storage"];
    let patch = json!({"spec": {"capacity": {"storage": size}}});
    let key = Key::new(&PERSISTENT_VOLUME, "", volume.name());
    plan.patch(key, "", patch, Precondition::exactly(volume), "its claim asks for more");
    plan.tell(about(claim, "VolumeResizeSuccessful", "Resize volume succeeded"));
    true
}
