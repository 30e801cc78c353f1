//! What is on disk about volumes of drivers: which pod uses which, and which are staged. As upstream writes it, beside
//! the mounts.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::VolumeId;
use super::wish::{DEVICES, POD_DEVICES, STAGED, VOLUMES, Wish};
use crate::files::Files;
use crate::places::Root;

/// The file of a record.
const FILE: &str = "vol_data.json";

/// What is known of a volume without the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    /// The driver.
    pub driver_name: String,
    /// The volume, in the driver's words.
    pub volume_handle: String,
    /// The name of the PersistentVolume, or that of the volume in the pod.
    #[serde(rename = "specVolID")]
    pub name: String,
    /// `Persistent` or `Ephemeral`.
    pub volume_lifecycle_mode: String,
    /// The node.
    pub node_name: String,
    /// Its VolumeAttachment; empty when it has none.
    #[serde(rename = "attachmentID")]
    pub attachment: String,
    /// Whether it is a device.
    pub is_block: bool,
    /// Whether its file system was shut down, and is to be made anew before anything else is done with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_shut: bool,
}

impl Record {
    /// The volume.
    pub fn id(&self) -> VolumeId {
        (self.driver_name.clone(), self.volume_handle.clone())
    }

    /// As a wish, as far as that is known: enough for its paths.
    pub fn wish(&self) -> Wish {
        Wish {
            driver: self.driver_name.clone(),
            handle: self.volume_handle.clone(),
            name: self.name.clone(),
            is_block: self.is_block,
            is_inline: self.volume_lifecycle_mode == "Ephemeral",
            ..Wish::default()
        }
    }
}

/// The record of a pod's use of a volume.
pub fn of_pod(root: &Root, pod_uid: &str, name: &str, is_block: bool) -> PathBuf {
    let kind = if is_block { POD_DEVICES } else { VOLUMES };
    root.pods().join(pod_uid).join(kind).join(name).join(FILE)
}

/// The record of a staged volume.
pub fn of_stage(root: &Root, wish: &Wish) -> PathBuf {
    match wish.is_block {
        true => root.dir().join(DEVICES).join(&wish.name).join("data").join(FILE),
        false => root.here(&wish.staging()).with_file_name(FILE),
    }
}

/// Writes a record, for good.
pub fn write(files: &dyn Files, path: &Path, record: &Record) -> io::Result<()> {
    let bytes = serde_json::to_vec(record)?;
    if let Some(dir) = path.parent() {
        files.make_dir(dir, 0o750)?;
    }
    if files.read(path).ok().as_deref() == Some(bytes.as_slice()) {
        return Ok(());
    }
    files.write_durable(path, &bytes)
}

/// Reads a record.
pub fn read(files: &dyn Files, path: &Path) -> io::Result<Option<Record>> {
    match files.read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The volumes of a pod.
pub fn used_by(files: &dyn Files, root: &Root, pod_uid: &str) -> io::Result<Vec<Record>> {
    let mut all = Vec::new();
    for kind in [VOLUMES, POD_DEVICES] {
        let dir = root.pods().join(pod_uid).join(kind);
        for name in files.list(&dir)? {
            all.extend(read(files, &dir.join(name).join(FILE))?);
        }
    }
    Ok(all)
}

/// The volumes that pods here use.
pub fn used(files: &dyn Files, root: &Root) -> io::Result<Vec<Record>> {
    let mut all = Vec::new();
    for uid in files.list(&root.pods())? {
        all.extend(used_by(files, root, &uid)?);
    }
    Ok(all)
}

/// The pods that use a volume, and how.
pub fn users(files: &dyn Files, root: &Root, id: &VolumeId) -> io::Result<Vec<(String, Record)>> {
    let mut all = Vec::new();
    for uid in files.list(&root.pods())? {
        let of_pod = used_by(files, root, &uid)?;
        all.extend(of_pod.into_iter().filter(|one| one.id() == *id).map(|one| (uid.clone(), one)));
    }
    Ok(all)
}

/// Notes for all pods that use a volume that its file system was shut down: each has to let go of it.
pub fn mark_shut(files: &dyn Files, root: &Root, id: &VolumeId) -> io::Result<()> {
    for (uid, record) in users(files, root, id)? {
        let path = of_pod(root, &uid, &record.name, record.is_block);
        write(files, &path, &Record { is_shut: true, ..record })?;
    }
    Ok(())
}

/// The volumes that are staged here.
pub fn staged(files: &dyn Files, root: &Root) -> io::Result<Vec<Record>> {
    let mut all = Vec::new();
    let stages = root.dir().join(STAGED);
    for driver in files.list(&stages)? {
        let dir = stages.join(&driver);
        for name in files.list(&dir)? {
            let inside = dir.join(name);
            let record = if dir == root.dir().join(DEVICES) {
                inside.join("data").join(FILE)
            } else {
                inside.join(FILE)
            };
            all.extend(read(files, &record)?);
        }
    }
    Ok(all)
}

/// Forgets a record, and the folders that were made for it alone.
pub fn forget(files: &dyn Files, root: &Root, wish: &Wish, pod_uid: Option<&str>) -> io::Result<()> {
    match pod_uid {
        Some(uid) => {
            let record = of_pod(root, uid, &wish.name, wish.is_block);
            files.remove(record.parent().unwrap_or(&record))
        }
        None => {
            let record = of_stage(root, wish);
            files.remove(&root.here(&wish.staging()))?;
            files.remove(record.parent().unwrap_or(&record))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::SimFiles;

    #[test]
    fn what_was_written_is_found_again() {
        let (files, root) = (SimFiles::new(), Root::new(Path::new("/data")));
        let record = |name: &str, is_block: bool| Record {
            driver_name: "d".into(),
            volume_handle: format!("h-{name}"),
            name: name.into(),
            is_block,
            ..Record::default()
        };
        for (name, is_block) in [("files", false), ("device", true)] {
            let record = record(name, is_block);
            write(&files, &of_pod(&root, "u", name, is_block), &record).expect("a write");
            write(&files, &of_stage(&root, &record.wish()), &record).expect("a write");
        }
        let names = |all: Vec<Record>| all.into_iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(used(&files, &root).expect("a list")), ["files", "device"]);
        let mut staged_now = names(staged(&files, &root).expect("a list"));
        staged_now.sort();
        assert_eq!(staged_now, ["device", "files"]);
        mark_shut(&files, &root, &("d".into(), "h-files".into())).expect("a write");
        let shut: Vec<bool> = used(&files, &root).expect("a list").iter().map(|one| one.is_shut).collect();
        assert_eq!(shut, [true, false]);
        for (name, is_block) in [("files", false), ("device", true)] {
            let wish = record(name, is_block).wish();
            forget(&files, &root, &wish, Some("u")).expect("a removal");
            forget(&files, &root, &wish, None).expect("a removal");
        }
        assert!(used(&files, &root).expect("a list").is_empty());
        assert!(staged(&files, &root).expect("a list").is_empty());
    }
}
