//! What is due on this node for volumes. Pure.

use std::sync::Arc;

use model::kinds as gvr;
use model::storage::{self, ATTACHED_FINALIZER, DATA_FINALIZER, LOCAL, MADE, SHARED, VOLUME_PROTECTION};
use model::{Key, Object, Tree, World};

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Duty {
    /// Remove the data of a volume that is given up.
    Remove {
        /// It.
        volume: Object,
    },
    /// Attach a shared volume to this node.
    Attach {
        /// By this.
        attachment: Object,
        /// The volume's folder.
        handle: String,
    },
    /// Let a shared volume go that nobody here uses.
    Detach {
        /// Whose deletion was asked for.
        attachment: Object,
    },
}

/// What is due on the node `me`; `in_use` says whether a pod here uses a volume.
pub fn due(world: &dyn World, me: &str, in_use: impl Fn(&str) -> bool) -> Vec<Duty> {
    let mut all = Vec::new();
    for volume in world.list(&gvr::PERSISTENT_VOLUME, "") {
        if volume.is_ending() && is_mine_to_remove(world, me, &volume) {
            all.push(Duty::Remove { volume });
        }
    }
    for attachment in world.list(&gvr::VOLUME_ATTACHMENT, "") {
        all.extend(with_attachment(world, me, attachment, &in_use));
    }
    all
}

fn is_mine_to_remove(world: &dyn World, me: &str, volume: &Object) -> bool {
    let held = |finalizer: &str| volume.meta().finalizers.iter().any(|one| one == finalizer);
    if !held(DATA_FINALIZER) || held(VOLUME_PROTECTION) {
        return false;
    }
    let source = &tree(volume)["spec"]["csi"];
    match source["driver"].as_str() {
        Some(LOCAL) => source["volumeAttributes"][storage::NODE] == me,
        Some(SHARED) => !is_attached(world, volume.name()) && is_first(world, me, volume),
        _ => false,
    }
}

fn is_attached(world: &dyn World, volume: &str) -> bool {
    world.list(&gvr::VOLUME_ATTACHMENT, "").iter().any(|attachment| volume_of(&tree(attachment)) == volume)
}

/// Whether the removal of what all nodes reach falls to this one: it made the folder, or, where that node is silent or
/// gone, it is the first that is ready.
fn is_first(world: &dyn World, me: &str, volume: &Object) -> bool {
    let ready = |node: &Object| {
        let tree = tree(node);
        let conditions = tree["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let maker = volume.meta().annotations.get(MADE);
    let maker = maker.and_then(|name| world.get(&Key::new(&gvr::NODE, "", name)));
    match maker.filter(ready) {
        Some(maker) => maker.name() == me,
        None => {
            world.list(&gvr::NODE, "").iter().find(|node| ready(node)).is_some_and(|node| node.name() == me)
        }
    }
}

fn with_attachment(
    world: &dyn World,
    me: &str,
    attachment: Object,
    in_use: impl Fn(&str) -> bool,
) -> Option<Duty> {
    let known = tree(&attachment);
    if known["spec"]["attacher"] != SHARED || known["spec"]["nodeName"] != me {
        return None;
    }
    let volume = world.get(&Key::new(&gvr::PERSISTENT_VOLUME, "", volume_of(&known)));
    let handle =
        volume.map(|volume| tree(&volume)["spec"]["csi"]["volumeHandle"].as_str().unwrap_or("").to_owned());
    let is_held = attachment.meta().finalizers.iter().any(|one| one == ATTACHED_FINALIZER);
    match attachment.is_ending() {
        true if is_held && !handle.as_deref().is_some_and(&in_use) => Some(Duty::Detach { attachment }),
        false if known["status"]["attached"] != true => Some(Duty::Attach { attachment, handle: handle? }),
        _ => None,
    }
}

fn volume_of(attachment: &Tree) -> &str {
    attachment["spec"]["source"]["persistentVolumeName"].as_str().unwrap_or_default()
}

fn tree(object: &Object) -> Arc<Tree> {
    object.seen::<Tree>().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use model::tiny::TinyWorld;

    use super::*;

    const NODES: &str = r#"nodes a status.conditions=[{"type":"Ready","status":"True"}]
        nodes b status.conditions=[{"type":"Ready","status":"True"}]
        "#;
    const LOCAL_ENDING: &str = r#"persistentvolumes v ending@3 metadata.finalizers=["volumes.kintsugi.dev/data"] spec.csi={"driver":"local.kintsugi.dev","volumeHandle":"v","volumeAttributes":{"node":"a"}}
        "#;
    const SHARED_VOLUME: &str = r#"persistentvolumes s metadata.finalizers=["volumes.kintsugi.dev/data"] spec.csi={"driver":"shared.kintsugi.dev","volumeHandle":"s"}
        "#;
    const ATTACHMENT: &str = r#"volumeattachments x metadata.finalizers=["volumes.kintsugi.dev/attached"] spec={"attacher":"shared.kintsugi.dev","nodeName":"a","source":{"persistentVolumeName":"s"}}
        "#;

    fn check(text: &str, me: &str, uses: &[&str], expected: &[&str]) {
        let world = TinyWorld::read(text);
        let due = due(&world, me, |handle| uses.contains(&handle));
        let told = |duty: &Duty| match duty {
            Duty::Remove { volume } => format!("remove {}", volume.name()),
            Duty::Attach { attachment, handle } => format!("attach {} {handle}", attachment.name()),
            Duty::Detach { attachment } => format!("detach {}", attachment.name()),
        };
        assert_eq!(due.iter().map(told).collect::<Vec<_>>(), expected, "{text} on {me}");
    }

    #[test]
    fn only_the_node_of_a_local_volume_removes_its_data_and_only_when_no_claim_has_it() {
        check(&format!("{NODES}{LOCAL_ENDING}"), "a", &[], &["remove v"]);
        check(&format!("{NODES}{LOCAL_ENDING}"), "b", &[], &[]);
        let bound = LOCAL_ENDING.replace(r#"["volumes"#, r#"["kubernetes.io/pv-protection","volumes"#);
        check(&format!("{NODES}{bound}"), "a", &[], &[]);
        check(&format!("{NODES}{}", LOCAL_ENDING.replace("ending@3 ", "")), "a", &[], &[]);
    }

    #[test]
    fn a_shared_volume_is_removed_by_its_maker_and_never_while_it_is_attached() {
        let ending = SHARED_VOLUME.replace("persistentvolumes s", "persistentvolumes s ending@3");
        check(&format!("{NODES}{ending}"), "a", &[], &["remove s"]);
        check(&format!("{NODES}{ending}"), "b", &[], &[]);
        let made =
            ending.replace(" metadata", " metadata.annotations.[volumes.kintsugi.dev/made]=b metadata");
        check(&format!("{NODES}{made}"), "a", &[], &[]);
        check(&format!("{NODES}{made}"), "b", &[], &["remove s"]);
        check(
            &format!("{NODES}{ending}{}", ATTACHMENT.replace("spec={", r#"status.attached=true spec={"#)),
            "a",
            &[],
            &[],
        );
    }

    #[test]
    fn an_attachment_is_made_on_its_node_and_let_go_when_nobody_there_uses_it() {
        check(&format!("{NODES}{SHARED_VOLUME}{ATTACHMENT}"), "a", &[], &["attach x s"]);
        check(&format!("{NODES}{SHARED_VOLUME}{ATTACHMENT}"), "b", &[], &[]);
        let ending = ATTACHMENT.replace("attachments x", "attachments x ending@5 status.attached=true");
        check(&format!("{NODES}{SHARED_VOLUME}{ending}"), "a", &["s"], &[]);
        check(&format!("{NODES}{SHARED_VOLUME}{ending}"), "a", &[], &["detach x"]);
        check(&format!("{NODES}{ending}"), "a", &[], &["detach x"]);
    }
}
