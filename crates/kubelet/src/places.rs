//! The folder that pods know as the kubelet's own.
//!
//! Drivers of storage, made for any cluster, mount `/var/lib/kubelet` and what is below it. Here that is a folder of the
//! node's own, so several nodes share a machine, and another kubelet's folder is never touched: a hostPath at or below
//! [`KUBELET_DIR`] is led there, and paths that are told to drivers are those that they see.

use std::path::{Path, PathBuf};

/// The kubelet's folder, as pods see it.
pub const KUBELET_DIR: &str = "/var/lib/kubelet";

/// The kubelet's folder, where it really is.
#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    /// That of a node with this folder.
    pub fn new(data_dir: &Path) -> Root {
        Root(data_dir.join("kubelet"))
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Where the files of pods are.
    pub fn pods(&self) -> PathBuf {
        self.0.join("pods")
    }

    /// Where plugins have their sockets, and volumes are staged.
    pub fn plugins(&self) -> PathBuf {
        self.0.join("plugins")
    }

    /// Where drivers stage the file systems of volumes.
    pub fn stages(&self) -> PathBuf {
        self.0.join("plugins/kubernetes.io/csi")
    }

    /// Where plugins say that they are there.
    pub fn registry(&self) -> PathBuf {
        self.0.join("plugins_registry")
    }

    /// Where a path that pods know is on this machine.
    pub fn here(&self, path: &Path) -> PathBuf {
        path.strip_prefix(KUBELET_DIR).map_or_else(|_| path.to_path_buf(), |rest| self.0.join(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kubelets_own_folder_is_led_elsewhere() {
        let root = Root::new(Path::new("/data/node"));
        let check = |path: &str, expected: &str| {
            assert_eq!(root.here(Path::new(path)), Path::new(expected), "{path}");
        };
        check("/var/lib/kubelet", "/data/node/kubelet");
        check("/var/lib/kubelet/plugins/x/", "/data/node/kubelet/plugins/x");
        check("/var/lib/kubelet-two", "/var/lib/kubelet-two");
        check("/dev", "/dev");
    }
}
