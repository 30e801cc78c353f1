//! The built-in driver for storage that all nodes reach: a folder a volume, attached to one node at a time.
//!
//! Beside the data of a volume stands a file with the epoch of its newest attachment. An epoch is the revision of the
//! attachment's object as its node first saw it, so a later attachment always has a higher one. A node writes its
//! epoch, durably, before it says that the volume is attached, and looks again before each mount: one that was passed
//! over, and does not know it yet, is refused by the storage itself.

use std::path::{Path, PathBuf};

use client::{ClientError, PatchKind};
use model::kinds as gvr;
use model::storage::{self, ATTACHED_FINALIZER, SHARED};
use model::{Key, Object, Precondition, time};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ANSWER_MAX, folder, let_go};
use crate::agent::Agent;
use crate::files::Files;
use crate::jobs::spelled;
use crate::volumes::Paths;
use crate::volumes::claims::Had;

/// The file beside a volume's data that says whose it is.
const EPOCH_FILE: &str = "epoch";
/// The file that is locked while that is looked at and changed.
const LOCK_FILE: &str = "epoch.lock";
/// The folder with a volume's data.
const DATA: &str = "data";
/// The folder of a pod's files that names the shared volumes it uses, in a file each.
const USES: &str = "uses";
/// What such a file says while the pod waits for the volume: it has not been given it.
const ASKED: &[u8] = b"asked";
/// What it says from then on.
const USED: &[u8] = b"used";

/// Whose a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Grows with each attachment.
    pub epoch: u64,
    /// The uid of the attachment.
    pub attachment: String,
    /// The node.
    pub node: String,
}

/// Where the shared storage is on this node.
pub fn root(agent: &Agent) -> Result<PathBuf, String> {
    let none =
        "this node has no shared storage: start it with --shared-dir DIR, the same storage on every node";
    agent.settings.shared_dir.clone().ok_or_else(|| none.to_owned())
}

/// Attaches a volume to this node, and says so; or says why not.
pub async fn attach(agent: &Agent, attachment: &Object, handle: &str) -> bool {
    let done = try_attach(agent, attachment, handle).await;
    let now = time::seconds(agent.means.host.now());
    let status = match &done {
        Ok(epoch) => {
            json!({"attached": true, "attachError": null, "attachmentMetadata": {"epoch": epoch.to_string()}})
        }
        Err(why) => json!({"attached": false, "attachError": {"time": now, "message": why}}),
    };
    let key = Key::new(&gvr::VOLUME_ATTACHMENT, "", attachment.name());
    let patch = json!({ "status": status });
    let when = Precondition::same(attachment);
    match agent.means.client.patch(&key, "status", PatchKind::Merge, &patch, &when).await {
        Ok(_) => done.is_ok(),
        Err(error) => folder::is_done_elsewhere(&error),
    }
}

async fn try_attach(agent: &Agent, attachment: &Object, handle: &str) -> Result<u64, String> {
    let root = root(agent)?;
    let place = root.join(folder::plain(handle)?);
    let mine = Epoch {
        epoch: attachment.revision(),
        attachment: attachment.uid().to_owned(),
        node: agent.settings.node_name.clone(),
    };
    let files = agent.means.files.clone();
    let work = move || take(&*files, &place, &mine);
    let asked = agent.patience.ask(&agent.means.host, &root, ANSWER_MAX, work).await;
    asked.map_err(|silent| silent.to_string())?
}

/// Makes the volume ours, unless a newer attachment has it; gives the epoch that is ours now.
fn take(files: &dyn Files, place: &Path, mine: &Epoch) -> Result<u64, String> {
    let wrong = |error: std::io::Error| format!("{}: {error}", place.display());
    files.make_dir(place, 0o755).map_err(wrong)?;
    let _lock = files.lock(&place.join(LOCK_FILE)).map_err(wrong)?;
    match read(files, place)? {
        Some(known) if known.attachment == mine.attachment => Ok(known.epoch),
        Some(known) if known.epoch >= mine.epoch => Err(passed_over(&known)),
        _ => {
            let bytes = serde_json::to_vec(mine).map_err(|error| error.to_string())?;
            files.write_durable(&place.join(EPOCH_FILE), &bytes).map_err(wrong)?;
            Ok(mine.epoch)
        }
    }
}

fn passed_over(known: &Epoch) -> String {
    format!("node {} has this volume under the newer epoch {}", known.node, known.epoch)
}

fn read(files: &dyn Files, place: &Path) -> Result<Option<Epoch>, String> {
    let path = place.join(EPOCH_FILE);
    match files.read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| format!("{} says nothing that makes sense: {error}", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Lets a volume go, on this node's word that nobody here uses it.
pub async fn detach(agent: &Agent, attachment: &Object) -> bool {
    let key = Key::new(&gvr::VOLUME_ATTACHMENT, "", attachment.name());
    let done = let_go(agent, &key, attachment, ATTACHED_FINALIZER).await;
    if let Err(error) = &done {
        tracing::debug!(%error, attachment = attachment.name(), "a volume could not be let go");
    }
    done.is_ok()
}

/// The folder of a volume that is attached here, for a pod. That the pod uses it is written down first.
pub async fn mount(agent: &Agent, pod_uid: &str, had: &Had) -> Result<PathBuf, String> {
    let handle = folder::plain(had.volume["spec"]["csi"]["volumeHandle"].as_str().unwrap_or_default())?;
    let mark = Paths::new(&agent.settings.data_dir, pod_uid).root().join(USES).join(handle);
    let had_it = ask_for(agent, &mark).await?;
    // Only now is looked whether the volume is ours: who would let it go looks for the mark afterwards.
    let place = mount_marked(agent, had, handle).await;
    match &place {
        Ok(_) if !had_it => write_mark(agent, &mark, USED).await?,
        // A pod that waits does not use it: the attachment that it waits for is made when the old one is let go.
        Err(_) if !had_it => {
            let files = agent.means.files.clone();
            let removed = agent.means.host.blocking(move || files.remove(&mark)).await;
            removed.map_err(|error| error.to_string())?;
            agent.unused.notify_one();
        }
        _ => {}
    }
    place
}

/// Marks that a pod is about to use a volume; says whether it was given it before.
async fn ask_for(agent: &Agent, mark: &Path) -> Result<bool, String> {
    let (files, place) = (agent.means.files.clone(), mark.to_owned());
    let known = match agent.means.host.blocking(move || files.read(&place)).await {
        Ok(known) => Some(known),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error.to_string()),
    };
    if known.as_ref().is_some_and(|known| known != ASKED) {
        return Ok(true);
    }
    write_mark(agent, mark, ASKED).await?;
    Ok(false)
}

async fn write_mark(agent: &Agent, mark: &Path, word: &'static [u8]) -> Result<(), String> {
    let (files, mark) = (agent.means.files.clone(), mark.to_owned());
    let written = agent.means.host.blocking(move || files.write(&mark, word, 0o600)).await;
    written.map_err(|error| error.to_string())
}

async fn mount_marked(agent: &Agent, had: &Had, handle: &str) -> Result<PathBuf, String> {
    let root = root(agent)?;
    let attachment = attachment(agent, handle).await?;
    let (files, place) = (agent.means.files.clone(), root.join(handle));
    let uid = attachment.uid().to_owned();
    let is_exclusive = storage::is_exclusive(&had.volume["spec"]["accessModes"]);
    let check = move || match read(&*files, &place)? {
        Some(known) if is_exclusive && known.attachment != uid => Err(passed_over(&known)),
        None => Err(format!("{} has no epoch: the volume was removed", place.display())),
        _ => Ok(()),
    };
    let asked = agent.patience.ask(&agent.means.host, &root, ANSWER_MAX, check).await;
    asked.map_err(|silent| silent.to_string())??;
    folder::have(agent, had, &root, &Path::new(handle).join(DATA)).await
}

/// The attachment of a volume to this node, when it is in force.
async fn attachment(agent: &Agent, handle: &str) -> Result<Object, String> {
    let node = &agent.settings.node_name;
    let name = storage::attachment_name(SHARED, handle, node);
    let key = Key::new(&gvr::VOLUME_ATTACHMENT, "", name);
    let waits = || format!("volume {handle:?} is not attached to node {node:?} yet");
    let object = match agent.means.client.get(&key).await {
        Ok(object) => object,
        // A node may read its own attachments; one that is not there yet is nobody's.
        Err(ClientError::NotFound { .. } | ClientError::Refused { code: 403, .. }) => return Err(waits()),
        Err(error) => return Err(spelled(&error)),
    };
    let tree = object.tree().map_err(|error| spelled(&error))?;
    match tree["status"]["attachError"]["message"].as_str() {
        _ if object.is_ending() => Err(format!("volume {handle:?} is being detached from node {node:?}")),
        Some(why) if tree["status"]["attached"] != true => {
            Err(format!("volume {handle:?} could not be attached to node {node:?}: {why}"))
        }
        _ if tree["status"]["attached"] == true => Ok(object),
        _ => Err(waits()),
    }
}

/// Whether a pod of this node uses a volume: its files say so until they are removed, whatever became of the agent.
pub fn is_in_use(agent: &Agent, handle: &str) -> bool {
    let pods = agent.settings.root().pods();
    let files = &agent.means.files;
    // What cannot be read is not known to be unused.
    let Ok(uids) = files.list(&pods) else { return true };
    let uses = |uid: &String| !matches!(files.kind(&pods.join(uid).join(USES).join(handle)), Ok(None));
    uids.iter().any(uses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::SimFiles;

    fn epoch(epoch: u64, attachment: &str, node: &str) -> Epoch {
        Epoch { epoch, attachment: attachment.into(), node: node.into() }
    }

    #[test]
    fn a_writer_of_an_old_epoch_is_refused() {
        let files = SimFiles::new();
        let place = Path::new("/shared/pvc-1");
        let (first, second) = (epoch(7, "one", "a"), epoch(9, "two", "b"));
        assert_eq!(take(&files, place, &first), Ok(7));
        // Said twice, with whatever revision its object has by then.
        assert_eq!(take(&files, place, &epoch(8, "one", "a")), Ok(7));
        assert_eq!(take(&files, place, &second), Ok(9));
        let said = take(&files, place, &epoch(8, "one", "a")).expect_err("it was passed over");
        assert_eq!(said, "node b has this volume under the newer epoch 9");
        assert_eq!(read(&files, place), Ok(Some(second)));
    }

    #[test]
    fn an_epoch_that_cannot_be_read_is_nobodys() {
        let files = SimFiles::new();
        let place = Path::new("/shared/pvc-1");
        files.write(&place.join(EPOCH_FILE), b"{", 0o644).expect("a write");
        assert!(take(&files, place, &epoch(1, "one", "a")).is_err());
    }
}
