//! Where things are in the data directory. One home for every path.
//!
//! Never touches the disk.

use std::path::{Path, PathBuf};

use crate::RuntimeError;

/// Bytes in a pod's uid at most; a uid is a UUID of 36 or (static pods) a hash of 32.
const UID_LEN_MAX: usize = 64;
/// Bytes in a container's name at most: a DNS label.
const NAME_LEN_MAX: usize = 63;

/// The paths below one data directory.
#[derive(Debug, Clone)]
pub struct Layout {
    data_dir: PathBuf,
}

impl Layout {
    /// The paths below `data_dir`, which is to be absolute.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_path_buf() }
    }

    /// The data directory itself.
    pub fn root(&self) -> &Path {
        &self.data_dir
    }

    /// Images.
    pub fn images(&self) -> PathBuf {
        self.data_dir.join("images")
    }
    /// Unpacked layers.
    pub fn layers(&self) -> PathBuf {
        self.images().join("layers")
    }
    /// All sandboxes.
    pub fn pods(&self) -> PathBuf {
        self.data_dir.join("run/pods")
    }
    /// All network namespaces.
    pub fn netns_dir(&self) -> PathBuf {
        self.data_dir.join("run/netns")
    }
    /// A pod's network namespace.
    pub fn netns(&self, pod_uid: &str) -> PathBuf {
        self.netns_dir().join(pod_uid)
    }
    /// A pod's sandbox.
    pub fn pod(&self, pod_uid: &str) -> Pod {
        Pod { dir: self.pods().join(pod_uid) }
    }
    /// The name of the cgroup that holds everything of this data directory.
    pub fn cgroup_name(&self) -> String {
        use sha2::{Digest, Sha256};
        let hash = Sha256::digest(self.data_dir.as_os_str().as_encoded_bytes());
        format!("kintsugi-{}", hex(&hash[..6]))
    }
}

/// The paths of one sandbox.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its folder.
    pub dir: PathBuf,
}

impl Pod {
    /// What it was made of.
    pub fn spec(&self) -> PathBuf {
        self.dir.join("sandbox.json")
    }
    /// Where its monitor listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("monitor.sock")
    }
    /// What its monitor wrote about itself.
    pub fn monitor(&self) -> PathBuf {
        self.dir.join("monitor.json")
    }
    /// Complaints of its monitor.
    pub fn complaints(&self) -> PathBuf {
        self.dir.join("monitor.log")
    }
    /// Its shared memory.
    pub fn shm(&self) -> PathBuf {
        self.dir.join("shm")
    }
    /// All its containers.
    pub fn containers(&self) -> PathBuf {
        self.dir.join("containers")
    }
    /// One of its containers.
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }
    /// The logs of all its containers.
    pub fn all_logs(&self) -> PathBuf {
        self.dir.join("logs")
    }
    /// The logs of a container, all runs.
    pub fn logs(&self, name: &str) -> PathBuf {
        self.all_logs().join(name)
    }
    /// The log of one run of a container.
    pub fn log(&self, name: &str, attempt: u32) -> PathBuf {
        self.logs(name).join(format!("{attempt}.log"))
    }
}

/// Refuses a uid that could leave its folder.
pub fn check_uid(uid: &str) -> Result<(), RuntimeError> {
    check_name(uid, UID_LEN_MAX, "pod uid")
}

/// Refuses a container name that could leave its folder.
pub fn check_container_name(name: &str) -> Result<(), RuntimeError> {
    check_name(name, NAME_LEN_MAX, "container name")
}

/// Refuses an id that is not one of ours: 64 hex digits.
pub fn check_id(id: &str) -> Result<(), RuntimeError> {
    let fits = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(()) } else { Err(RuntimeError::NotFound(format!("container {id:?}"))) }
}

fn check_name(name: &str, len_max: usize, what: &str) -> Result<(), RuntimeError> {
    let fits = !name.is_empty()
        && name.len() <= len_max
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if fits { Ok(()) } else { Err(RuntimeError::Config(format!("invalid {what} {name:?}"))) }
}

/// Bytes as lower-case hex digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_folder() {
        for bad in ["", "..", "a/b", ".hidden", "a b", "a\0"] {
            assert!(check_uid(bad).is_err(), "{bad:?}");
        }
        assert!(check_uid("0b5dd3e4-8a35-4a42-9be5-6b1bf7a4c7aa").is_ok());
    }
}
