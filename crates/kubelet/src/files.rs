//! The files that an agent makes for its pods. Two real implementations: the machine's, and one in memory.
//!
//! All calls block and take absolute paths. What pods can write to is only ever looked into without following links
//! out of it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod real;

pub use real::RealFiles;

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A folder.
    Dir,
    /// A plain file.
    File,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Something else.
    Other,
}

/// What tells one file at a path from another that took its place.
pub type Stamp = (u64, i64, i64);

/// How large a disk is, in bytes and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// In all.
    pub total: u64,
    /// Of that, free to be written to.
    pub free: u64,
    /// How many inodes it has; 0 where it makes them as they are needed.
    pub inodes: u64,
    /// How many of them are free.
    pub inodes_free: u64,
}

/// What an agent needs of a file system.
pub trait Files: Send + Sync + 'static {
    /// What a path leads to, links followed; `None` when there is nothing.
    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>>;
    /// Makes a folder and its parents; a new one gets `mode`.
    fn make_dir(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Writes a file whole, with this mode; its parents are made.
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()>;
    /// Writes a file whole, in one step, so that it survives a loss of power; its parents are there.
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Locks a file, which is made, until what is given back is dropped; on shared storage against all machines.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>>;
    /// Reads a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// The names in a folder, sorted; none when it is missing.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes `path` a link to `target`, in one step where there was another.
    fn link(&self, target: &Path, path: &Path) -> io::Result<()>;
    /// Where a link leads; `None` when there is none.
    fn linked(&self, path: &Path) -> io::Result<Option<PathBuf>>;
    /// Renames a file or folder.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file, link or whole folder without following links; missing counts as done.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a tree to a group, which may then read it, and write to it if `may_write`.
    fn give_to_group(&self, path: &Path, group: i64, may_write: bool) -> io::Result<()>;
    /// Gives one file or folder to a user.
    fn give_to_user(&self, path: &Path, user: i64) -> io::Result<()>;
    /// Mounts memory at a folder, of at most `size` bytes; does nothing when it is mounted.
    fn mount_memory(&self, path: &Path, size: Option<u64>) -> io::Result<()>;
    /// Mounts what `inside` leads to below `base`, never leaving it, at `target`; a missing folder is made.
    fn pin(&self, base: &Path, inside: &Path, target: &Path) -> io::Result<()>;
    /// Unmounts everything at and below a folder.
    fn unmount_below(&self, path: &Path) -> io::Result<()>;
    /// Asks a file system whether it answers and takes changes, without making one. What it says of the path is no matter.
    fn touch(&self, path: &Path) -> io::Result<()>;
    /// Whether something is mounted at this very path.
    fn is_mounted(&self, path: &Path) -> io::Result<bool>;
    /// Shows what is mounted below a folder to all who look at it, wherever they see it.
    fn share(&self, dir: &Path) -> io::Result<()>;
    /// Becomes readable when a folder changes; `None` where nothing ever comes from outside.
    fn notices(&self, dir: &Path) -> io::Result<Option<OwnedFd>>;
    /// What tells the file at a path from others; `None` when there is none.
    fn stamp(&self, path: &Path) -> io::Result<Option<Stamp>>;
    /// Whether a folder belongs to a group that may write to it, as [`Files::give_to_group`] leaves it.
    fn is_groups(&self, path: &Path, group: i64) -> io::Result<bool>;
    /// How full the disk is that a folder is on.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// Files in memory.
#[derive(Debug, Clone, Default)]
pub struct SimFiles {
    own: Entries,
    /// What several machines share, below this path.
    shared: Option<(PathBuf, Entries)>,
}

type Entries = Arc<Mutex<BTreeMap<PathBuf, SimEntry>>>;

#[derive(Debug, Clone)]
enum SimEntry {
    Dir,
    File(Vec<u8>),
    Link(PathBuf),
}

impl SimFiles {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with the files of `other` below `path`.
    pub fn sharing(self, path: impl Into<PathBuf>, other: &SimFiles) -> Self {
        Self { own: self.own, shared: Some((path.into(), other.own.clone())) }
    }

    /// Guards the files for the length of one call.
    fn entries_at(&self, path: &Path) -> MutexGuard<'_, BTreeMap<PathBuf, SimEntry>> {
        let shared = self.shared.as_ref().filter(|(at, _)| path.starts_with(at));
        shared.map_or(&self.own, |(_, entries)| entries).lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

/// How many links are followed: as many as the kernel follows.
const LINKS_MAX: usize = 40;

fn followed(entries: &BTreeMap<PathBuf, SimEntry>, path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..LINKS_MAX {
        let link = path.ancestors().find_map(|at| match entries.get(at) {
            Some(SimEntry::Link(target)) => Some((at.to_path_buf(), target.clone())),
            _ => None,
        });
        let Some((at, target)) = link else { break };
        let rest = path.strip_prefix(&at).map(Path::to_path_buf).unwrap_or_default();
        path = at.parent().unwrap_or(Path::new("/")).join(target);
        if !rest.as_os_str().is_empty() {
            path = path.join(rest);
        }
    }
    path
}

impl Files for SimFiles {
    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        let entries = self.entries_at(path);
        Ok(entries.get(&followed(&entries, path)).map(|entry| match entry {
            SimEntry::Dir => FileKind::Dir,
            SimEntry::File(_) => FileKind::File,
            SimEntry::Link(_) => FileKind::Other,
        }))
    }
    fn make_dir(&self, path: &Path, _mode: u32) -> io::Result<()> {
        let mut entries = self.entries_at(path);
        for dir in path.ancestors() {
            entries.entry(dir.to_path_buf()).or_insert(SimEntry::Dir);
        }
        Ok(())
    }
    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.make_dir(parent, mode)?;
        }
        self.entries_at(path).insert(path.to_path_buf(), SimEntry::File(bytes.to_vec()));
        Ok(())
    }
    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write(path, bytes, 0o644)
    }
    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send>> {
        // One thread runs all of the simulation, and nothing here waits in between.
        Ok(Box::new(()))
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let entries = self.entries_at(path);
        match entries.get(&followed(&entries, path)) {
            Some(SimEntry::File(bytes)) => Ok(bytes.clone()),
            _ => Err(missing(path)),
        }
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = self.entries_at(dir);
        let here = entries.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }
    fn link(&self, target: &Path, path: &Path) -> io::Result<()> {
        self.entries_at(path).insert(path.to_path_buf(), SimEntry::Link(target.to_path_buf()));
        Ok(())
    }
    fn linked(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        Ok(match self.entries_at(path).get(path) {
            Some(SimEntry::Link(target)) => Some(target.clone()),
            _ => None,
        })
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut entries = self.entries_at(from);
        let moved: Vec<_> = entries.keys().filter(|path| path.starts_with(from)).cloned().collect();
        if moved.is_empty() {
            return Err(missing(from));
        }
        for path in moved {
            let rest = path.strip_prefix(from).map(Path::to_path_buf).unwrap_or_default();
            let new = if rest.as_os_str().is_empty() { to.to_path_buf() } else { to.join(rest) };
            if let Some(entry) = entries.remove(&path) {
                entries.insert(new, entry);
            }
        }
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.entries_at(path).retain(|known, _| !known.starts_with(path));
        Ok(())
    }
    fn give_to_group(&self, _path: &Path, _group: i64, _may_write: bool) -> io::Result<()> {
        Ok(())
    }
    fn give_to_user(&self, _path: &Path, _user: i64) -> io::Result<()> {
        Ok(())
    }
    fn mount_memory(&self, path: &Path, _size: Option<u64>) -> io::Result<()> {
        self.make_dir(path, 0o777)
    }
    fn pin(&self, base: &Path, inside: &Path, target: &Path) -> io::Result<()> {
        let source = base.join(inside);
        if self.kind(&source)?.is_none() {
            self.make_dir(&source, 0o755)?;
        }
        self.link(&source, target)
    }
    fn unmount_below(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn touch(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
    fn is_mounted(&self, path: &Path) -> io::Result<bool> {
        Ok(self.kind(path)?.is_some())
    }
    fn share(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn notices(&self, _dir: &Path) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
    fn stamp(&self, path: &Path) -> io::Result<Option<Stamp>> {
        Ok(self.kind(path)?.map(|_| Stamp::default()))
    }
    fn is_groups(&self, _path: &Path, _group: i64) -> io::Result<bool> {
        Ok(true)
    }
    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space::default())
    }
}
