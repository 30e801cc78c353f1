//! What becomes of a volume whose claim is gone.

use model::kinds::{NODE, PERSISTENT_VOLUME};
use model::storage::{self, DATA_FINALIZER, LOCAL, PROVISIONED_BY};
use model::{Key, Object, Plan, Tree, World};

use super::{let_go, tree};

/// What becomes of a volume.
pub(super) enum Fate {
    /// It stays as it is: in use, kept by its policy, or in another driver's hands.
    Stay,
    /// It goes.
    Go,
    /// It should go, and nobody can remove its data.
    Fail {
        /// The reason of the event.
        reason: &'static str,
        /// What to tell.
        message: String,
    },
}

/// Decides on a volume in this phase.
pub(super) fn fate(object: &Object, volume: &Tree, phase: &str) -> Fate {
    let policy = volume["spec"]["persistentVolumeReclaimPolicy"].as_str().unwrap_or("Retain");
    let maker = object.meta().annotations.get(PROVISIONED_BY);
    match (phase, policy, maker) {
        ("Released", "Delete", Some(driver)) if storage::is_built_in(driver) => Fate::Go,
        // Whoever made it, or whoever serves its driver, removes it.
        ("Released", "Delete", Some(_)) => Fate::Stay,
        ("Released", "Delete", None) if !volume["spec"]["csi"].is_null() => Fate::Stay,
        ("Released", "Delete", None) => Fate::Fail {
            reason: "VolumeFailedDelete",
            message: format!(
                "error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched",
                object.name()
            ),
        },
        ("Released", "Recycle", _) => {
            let message = "No recycler plugin found for the volume!".to_owned();
            Fate::Fail { reason: "VolumeFailedRecycle", message }
        }
        _ => Fate::Stay,
    }
}

/// The data of a local volume went with its node: nobody is left to remove them.
pub(super) fn give_up(plan: &mut Plan, key: &Key, object: &Object, volume: &Tree, world: &dyn World) {
    let is_held = object.meta().finalizers.iter().any(|held| held == DATA_FINALIZER);
    if is_held && node_of(volume).is_some_and(|node| world.get(&Key::new(&NODE, "", node)).is_none()) {
        let_go(plan, key, object, DATA_FINALIZER, "the node that had its data is gone");
    }
}

/// The ending volumes of a node that is gone.
pub(super) fn volumes_of_node(node: &Object, world: &dyn World) -> Vec<Key> {
    if world.get(&Key::new(&NODE, "", node.name())).is_some() {
        return Vec::new();
    }
    let volumes = world.list(&PERSISTENT_VOLUME, "").into_iter();
    let here =
        volumes.filter(|volume| volume.is_ending() && node_of(&tree(volume)).as_deref() == Some(node.name()));
    here.map(|volume| Key::new(&PERSISTENT_VOLUME, "", volume.name())).collect()
}

/// The node of a local volume.
fn node_of(volume: &Tree) -> Option<String> {
    let source = &volume["spec"]["csi"];
    let node = source["volumeAttributes"][storage::NODE].as_str().filter(|_| source["driver"] == LOCAL);
    node.map(str::to_owned)
}
