//! The folders behind the volumes of the built-in drivers: made once, found again, removed for good.

use std::path::{Path, PathBuf};

use client::{ClientError, PatchKind};
use model::kinds as gvr;
use model::storage::MADE;
use model::{Key, Precondition};
use serde_json::json;

use super::ANSWER_MAX;
use crate::agent::Agent;
use crate::files::{FileKind, Files};
use crate::jobs::spelled;
use crate::volumes::claims::Had;

/// Where the local volumes of a node are, below its own folder.
pub fn local_root(agent: &Agent) -> PathBuf {
    agent.settings.data_dir.join("volumes")
}

/// The folder of a local volume; it is made when it never was.
pub async fn local(agent: &Agent, had: &Had) -> Result<PathBuf, String> {
    let handle = plain(had.volume["spec"]["csi"]["volumeHandle"].as_str().unwrap_or_default())?;
    have(agent, had, &local_root(agent), Path::new(handle)).await
}

/// The folder `inside` of the storage at `root`, for a volume's data; it is made when it never was.
///
/// One that was made and is not there any more is lost data: that is said, and no empty folder takes its place.
pub async fn have(agent: &Agent, had: &Had, root: &Path, inside: &Path) -> Result<PathBuf, String> {
    let folder = root.join(inside);
    let was_made = had.object.meta().annotations.contains_key(MADE);
    let (files, path) = (agent.means.files.clone(), folder.clone());
    let work = move || make(&*files, &path, was_made);
    let asked = agent.patience.ask(&agent.means.host, root, ANSWER_MAX, work).await;
    asked.map_err(|silent| silent.to_string())??;
    if !was_made {
        let key = Key::new(&gvr::PERSISTENT_VOLUME, "", had.object.name());
        let patch = json!({"metadata": {"annotations": {MADE: agent.settings.node_name}}});
        let when = Precondition::same(&had.object);
        let done = agent.means.client.patch(&key, "", PatchKind::Merge, &patch, &when).await;
        done.map_err(|error| spelled(&error))?;
    }
    Ok(folder)
}

fn make(files: &dyn Files, path: &Path, was_made: bool) -> Result<(), String> {
    let shown = path.display();
    match files.kind(path).map_err(|error| format!("{shown}: {error}"))? {
        Some(FileKind::Dir) => Ok(()),
        Some(_) => Err(format!("{shown} is no folder")),
        None if was_made => Err(format!(
            "the data of this volume are gone: {shown} was here and is not any more. Bring it back from a copy, or \
             delete the claim to begin with an empty volume"
        )),
        None => files.make_dir(path, 0o777).map_err(|error| format!("{shown} cannot be made: {error}")),
    }
}

/// Removes a volume's folder: first out of sight in one step, then for good.
pub fn remove(files: &dyn Files, root: &Path, handle: &str) -> Result<(), String> {
    let (folder, aside) = (root.join(plain(handle)?), root.join(format!(".removed-{handle}")));
    let wrong = |error: std::io::Error| format!("{}: {error}", folder.display());
    if files.kind(&folder).map_err(wrong)?.is_some() {
        files.remove(&aside).map_err(wrong)?;
        files.rename(&folder, &aside).map_err(wrong)?;
    }
    files.remove(&aside).map_err(wrong)
}

/// A handle that is the name of a folder and nothing else.
pub fn plain(handle: &str) -> Result<&str, String> {
    let is_plain = !handle.is_empty() && !handle.starts_with('.') && !handle.contains(['/', '\0']);
    if is_plain { Ok(handle) } else { Err(format!("{handle:?} is no volume handle of this driver")) }
}

/// Whether a refusal means that somebody else was faster: then there is nothing left to do.
pub fn is_done_elsewhere(error: &ClientError) -> bool {
    matches!(error, ClientError::NotFound { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::SimFiles;

    #[test]
    fn a_folder_is_made_once_and_its_loss_is_said() {
        let files = SimFiles::new();
        let path = Path::new("/data/volumes/pvc-1");
        assert_eq!(make(&files, path, false), Ok(()));
        assert_eq!(make(&files, path, true), Ok(()));
        assert_eq!(remove(&files, Path::new("/data/volumes"), "pvc-1"), Ok(()));
        assert_eq!(files.kind(path).expect("a look"), None);
        let said = make(&files, path, true).expect_err("nothing may take its place");
        assert!(said.starts_with("the data of this volume are gone"), "{said}");
        assert_eq!(files.kind(path).expect("a look"), None);
    }

    #[test]
    fn a_handle_cannot_lead_elsewhere() {
        for handle in ["", "..", "a/b", "../x", ".removed-x"] {
            assert!(plain(handle).is_err(), "{handle:?}");
        }
        assert_eq!(plain("pvc-1"), Ok("pvc-1"));
    }
}
