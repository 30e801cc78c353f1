//! What the claims of a pod lead to on this node: looked up in the API each time, never from an old picture.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::fit::NodeFacts;
use model::kinds as gvr;
use model::storage::{self, LOCAL, SHARED};
use model::{Key, Object, Tree, World};

use super::{Claimed, VolumeTrouble};
use crate::agent::Agent;
use crate::csi;
use crate::jobs::spelled;
use crate::pod::PodView;
use crate::run::node_key;
use crate::storage::{folder, shared};

/// The volume that a claim of a pod has.
pub struct Had {
    /// The claim's name.
    pub claim: String,
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
        let leads = one(agent, pod, &volume, &had).await.map_err(wrong)?;
        all.insert(volume, leads);
    }
    for (name, source) in super::inline(pod) {
        let wish = csi::Wish::inline(pod, name, source);
        let wrong = |why: String| VolumeTrouble { volume: name.to_owned(), why };
        all.insert(name.to_owned(), csi::set_up(agent, pod, &wish, None).await.map_err(wrong)?);
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
    Ok(Had { claim, object: volume_object, volume })
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

async fn one(agent: &Agent, pod: &PodView, volume: &str, had: &Had) -> Result<Claimed, String> {
    let spec = &had.volume["spec"];
    let text = |source: &str, field: &str| spec[source][field].as_str().unwrap_or_default().to_owned();
    let is_block = spec["volumeMode"] == "Block";
    let plain = |source: &str, kind: &str, is_owned: bool| Claimed {
        path: text(source, "path").into(),
        host_type: Some(if is_block { "BlockDevice" } else { kind }.to_owned()),
        is_owned: is_owned && !is_block,
        is_readonly: false,
        is_block,
        again_at: None,
        grows: None,
        driver: None,
    };
    if let Some(place) = place(agent, pod, had) {
        agent.health.uses(&pod.uid, place);
    }
    match () {
        () if !spec["hostPath"].is_null() => Ok(plain("hostPath", &text("hostPath", "type"), false)),
        () if !spec["local"].is_null() => Ok(plain("local", "Directory", true)),
        () if spec["csi"]["driver"] == LOCAL => Ok(owned(&folder::local(agent, had).await?, spec)),
        () if spec["csi"]["driver"] == SHARED => Ok(owned(&shared::mount(agent, &pod.uid, had).await?, spec)),
        () if !spec["csi"].is_null() => {
            let wish = csi::Wish::of_volume(had.object.name(), &had.volume, is_readonly(pod, volume));
            let behind = csi::Behind { claim: &had.claim, volume: &had.volume };
            csi::set_up(agent, pod, &wish, Some(behind)).await
        }
        () => {
            Err(format!("this node cannot mount persistent volume {:?}: no driver for it", had.object.name()))
        }
    }
}

/// The storage behind a volume, as it is asked for answers.
fn place(agent: &Agent, pod: &PodView, had: &Had) -> Option<PathBuf> {
    let spec = &had.volume["spec"];
    let path = |source: &str| spec[source]["path"].as_str().map(PathBuf::from);
    let is_block = spec["volumeMode"] == "Block";
    match spec["csi"]["driver"].as_str() {
        // A device is no file system that could be asked.
        _ if is_block => None,
        Some(LOCAL) => Some(folder::local_root(agent)),
        Some(SHARED) => shared::root(agent).ok(),
        Some(_) => {
            let wish = csi::Wish::of_volume(had.object.name(), &had.volume, false);
            Some(agent.settings.root().here(&wish.target(&pod.uid)))
        }
        None => path("local").or_else(|| path("hostPath")),
    }
}

/// Whether the pod asks to read its claim only.
fn is_readonly(pod: &PodView, volume: &str) -> bool {
    let mut all = pod.spec().volumes.iter().flatten();
    let found =
        all.find(|known| known.name == volume).and_then(|known| known.persistent_volume_claim.as_ref());
    found.is_some_and(|claim| claim.read_only.unwrap_or(false))
}

fn owned(path: &Path, spec: &Tree) -> Claimed {
    Claimed {
        path: path.to_path_buf(),
        host_type: Some("Directory".to_owned()),
        is_owned: true,
        is_readonly: spec["csi"]["readOnly"] == true,
        is_block: false,
        again_at: None,
        grows: None,
        driver: None,
    }
}
