//! What the claims of a pod lead to on this node: looked up in the API each time, never from an old picture.

use std::collections::BTreeMap;
use std::path::Path;

use model::fit::NodeFacts;
use model::kinds as gvr;
use model::storage::{self, LOCAL, SHARED};
use model::{Key, Object, Tree, World};

use super::{Claimed, VolumeTrouble};
use crate::agent::Agent;
use crate::jobs::spelled;
use crate::pod::PodView;
use crate::run::node_key;
use crate::storage::{folder, shared};

/// The volume that a claim of a pod has.
pub struct Had {
    /// It.
    pub object: Object,
    /// The same as a tree.
    pub volume: Tree,
}

/// What all claims of a pod lead to, by volume.
pub async fn resolve(agent: &Agent, pod: &PodView) -> Result<BTreeMap<String, Claimed>, VolumeTrouble> {
    let mut all = BTreeMap::new();
    for (volume, claim) in super::claimed(pod) {
        let wrong = |why: String| VolumeTrouble { volume: volume.clone(), why };
        let had = had(agent, pod, claim).await.map_err(wrong)?;
        let leads = one(agent, pod, &had).await.map_err(wrong)?;
        all.insert(volume, leads);
    }
    Ok(all)
}

/// The volume of a claim, where the pod may have it.
async fn had(agent: &Agent, pod: &PodView, claim: String) -> Result<Had, String> {
    let read = async |key: &Key| {
        let object = agent.means.client.get(key).await.map_err(|error| spelled(&error))?;
        let tree = object.tree().map_err(|error| spelled(&error))?;
        Ok::<_, String>((object, tree))
    };
    let key = Key::new(&gvr::PERSISTENT_VOLUME_CLAIM, pod.namespace.clone(), claim.clone());
    let (object, tree) = read(&key).await?;
    let name = tree["spec"]["volumeName"].as_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| format!("claim {claim:?} is not bound"))?;
    let modes = tree["spec"]["accessModes"].as_array();
    if modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod")
        && is_used_by_another(agent, pod, &claim)
    {
        return Err(
            "volume uses the ReadWriteOncePod access mode and is already in use by another pod".into()
        );
    }
    let (volume_object, volume) = read(&Key::new(&gvr::PERSISTENT_VOLUME, "", name)).await?;
    if volume["spec"]["claimRef"]["uid"] != object.uid() {
        return Err(format!("persistent volume {name:?} is bound to another claim"));
    }
    let node = agent.means.caches.get(&node_key(agent)).and_then(|node| node.seen::<NodeFacts>());
    if node.is_some_and(|node| !storage::reaches(&volume, &node)) {
        return Err(format!(
            "persistent volume {name:?} cannot be reached from this node: its nodeAffinity forbids it"
        ));
    }
    Ok(Had { object: volume_object, volume })
}

fn is_used_by_another(agent: &Agent, pod: &PodView, claim: &str) -> bool {
    let ends =
        |shown: &crate::agent::Shown| matches!(shown.status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let uses = |other: &PodView| super::claimed(other).values().any(|used| used == claim);
    let all = agent.registry.all();
    all.iter().any(|shown| {
        shown.pod.uid != pod.uid && shown.pod.namespace == pod.namespace && !ends(shown) && uses(&shown.pod)
    })
}

async fn one(agent: &Agent, pod: &PodView, had: &Had) -> Result<Claimed, String> {
    let spec = &had.volume["spec"];
    let text = |source: &str, field: &str| spec[source][field].as_str().unwrap_or_default().to_owned();
    match () {
        () if !spec["hostPath"].is_null() => Ok(Claimed {
            path: text("hostPath", "path").into(),
            host_type: text("hostPath", "type"),
            is_owned: false,
            is_readonly: false,
        }),
        () if !spec["local"].is_null() => Ok(Claimed {
            path: text("local", "path").into(),
            host_type: "Directory".into(),
            is_owned: true,
            is_readonly: false,
        }),
        () if spec["csi"]["driver"] == LOCAL => Ok(owned(&folder::local(agent, had).await?, spec)),
        () if spec["csi"]["driver"] == SHARED => Ok(owned(&shared::mount(agent, &pod.uid, had).await?, spec)),
        () => {
            Err(format!("this node cannot mount persistent volume {:?}: no driver for it", had.object.name()))
        }
    }
}

fn owned(path: &Path, spec: &Tree) -> Claimed {
    Claimed {
        path: path.to_path_buf(),
        host_type: "Directory".into(),
        is_owned: true,
        is_readonly: spec["csi"]["readOnly"] == true,
    }
}
