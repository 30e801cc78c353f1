//! Where a cluster keeps its things, and who holds it: one server a data directory.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A cluster's data directory.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// The directory; made when it is missing, and always absolute: names of links and groups follow from its path.
    pub fn open(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?))
    }

    /// The directory itself.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The store's folder.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// The keys' folder.
    pub fn keys(&self) -> PathBuf {
        self.0.join("pki")
    }

    /// The keys by which what is secret is sealed in the store.
    pub fn store_keys(&self) -> PathBuf {
        self.keys().join("store.keys")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.0.join("kubeconfig")
    }

    /// What the operator lays down to have private registries trusted: `HOST[:PORT]/ca.crt`.
    pub fn registry_certs(&self) -> PathBuf {
        self.0.join("registry-certs")
    }

    /// The folder of a node, by its number from 1.
    pub fn node(&self, number: u8) -> PathBuf {
        self.0.join("nodes").join(node_name(number))
    }

    /// The folders of the nodes that are or were here.
    pub fn nodes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.join("nodes")).into_iter().flatten().flatten();
        let mut nodes: Vec<PathBuf> =
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        nodes.sort();
        nodes
    }

    /// Takes the directory for this process, until the file that is given back is dropped.
    pub fn hold(&self) -> Result<File> {
        let path = self.0.join("lock");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                bail!("{} is in use: another kintsugi runs on it", self.0.display())
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }
}

/// The name of a node, by its number from 1.
pub fn node_name(number: u8) -> String {
    format!("node-{number}")
}
