//! The disk: the machine's, and one in memory that tears and forgets what was not synced.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::Chance;

/// What the store needs of a disk. All calls block; paths are absolute.
pub trait Disk: Send + Sync {
    /// The whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// At most `len` bytes of a file from `at` on; fewer where it ends.
    fn read_at(&self, path: &Path, at: u64, len: u64) -> io::Result<Vec<u8>>;
    /// Locks a file, making it when it is missing, until the returned guard is dropped; `WouldBlock` when another
    /// process (or another guard of this one) holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// The names in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes a folder and its parents.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Opens a file for appending, making it when it is missing.
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for writing from `at` on, over whatever it holds there.
    fn overwrite(&self, path: &Path, at: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Cuts a file to `len` bytes and syncs it.
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()>;
    /// Renames a file over another; durable only after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable only after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals in a folder durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
}

/// A file open for writing, each time after what was written before.
pub trait DiskFile: Send {
    /// Writes all of `bytes`; on an error a part of them may have been written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Fills so many bytes after what was written with zeros, for later writes to go over: to sync those the file system has
    /// nothing to note of the file, and one that writes in place needs no new room for them.
    fn reserve(&mut self, bytes: u64) -> io::Result<()>;
    /// Returns when everything written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's file system.
pub struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }
    fn read_at(&self, path: &Path, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        file.take(len).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
        let at = file.metadata()?.len();
        Ok(Box::new(RealFile { file, at }))
    }
    fn overwrite(&self, path: &Path, at: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        Ok(Box::new(RealFile { file, at }))
    }
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.set_len(len)?;
        file.sync_all()
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }
}

struct RealFile {
    file: fs::File,
    /// Where the next write goes.
    at: u64,
}

/// Zeros that are written at once.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

impl DiskFile for RealFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.at + bytes;
        let mut at = self.at;
        while at < end {
            let len = ZEROS.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            self.file.write_all_at(&ZEROS[..len], at)?;
            at += len as u64;
        }
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A disk in memory. After [`SimDisk::crash`] only what was synced is certain; the rest may be there, torn or gone.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<SimState>>);

struct SimState {
    /// The files by name, as a running program sees them.
    files: BTreeMap<PathBuf, SimContent>,
    /// The names that survive a crash, and the file each leads to.
    durable: BTreeMap<PathBuf, SimContent>,
    /// Bytes that may still be written before the disk is full.
    room: u64,
    /// Syncs that succeed before the disk fails for good.
    syncs_left: u64,
    /// The disk has failed: nothing is written or synced any more.
    off: bool,
    /// Syncs that fail next, though the disk goes on.
    failing_syncs: u64,
    /// Syncs are said to be done, and are not.
    lies: bool,
    syncs: u64,
}

type SimContent = Arc<Mutex<SimBytes>>;

#[derive(Default, Clone)]
struct SimBytes {
    /// The file as a running program sees it.
    bytes: Vec<u8>,
    /// Where the last write ended; after it there is only what was reserved.
    written: usize,
    /// How much from the begin on is certain.
    synced: usize,
    /// How long the file is for certain: zeros, where nothing else is.
    len_synced: usize,
}

impl SimBytes {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(bytes);
        self.synced = self.synced.min(at);
        self.written = end;
    }

    fn settle(&mut self) {
        self.synced = self.written;
        self.len_synced = self.bytes.len();
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(SimState {
            files: BTreeMap::new(),
            durable: BTreeMap::new(),
            room: u64::MAX,
            syncs_left: u64::MAX,
            off: false,
            failing_syncs: 0,
            lies: false,
            syncs: 0,
        })))
    }
}

impl SimDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `bytes` more be written, then answers "no space left"; also where something was written before, as on a file system
    /// that writes nothing in place.
    pub fn set_room(&self, bytes: u64) {
        self.state().room = bytes;
    }

    /// Lets `count` more syncs succeed; the next one fails, and every write and sync after it, as when the power is cut.
    pub fn fail_after_syncs(&self, count: u64) {
        let mut state = self.state();
        state.syncs_left = count;
        state.off = false;
    }

    /// Makes the next `count` syncs fail, as a disk with a passing error does; what they should have synced stays loose.
    pub fn fail_syncs(&self, count: u64) {
        self.state().failing_syncs = count;
    }

    /// Says from now on that syncs are done, and does none, as the caches of some disks do.
    pub fn lie_about_syncs(&self) {
        self.state().lies = true;
    }

    /// Whether the power was cut by [`SimDisk::fail_after_syncs`].
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// How many syncs, of files and folders, have succeeded.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// Changes one byte of a file, as a failing disk would; false when the file is shorter.
    pub fn flip(&self, path: &Path, at: usize) -> bool {
        let content = self.state().files.get(path).cloned();
        content.is_some_and(|content| {
            let mut content = lock(&content);
            match content.bytes.get_mut(at) {
                Some(byte) => {
                    *byte ^= 0x20;
                    true
                }
                None => false,
            }
        })
    }

    /// Cuts the power: names and bytes that were not synced survive in part, as chance has it. Faults are lifted.
    pub fn crash(&self, chance: &Chance) {
        let mut state = self.state();
        let mut after = state.durable.clone();
        for (path, content) in &state.files {
            // An unsynced name may or may not have reached the disk.
            if !after.contains_key(path) && chance.below(2) == 0 {
                after.insert(path.clone(), content.clone());
            }
        }
        for content in after.values_mut() {
            let mut kept = lock(content).clone();
            let loose = kept.written - kept.synced;
            let survived = chance.below(loose as u64 + 1) as usize;
            kept.bytes.truncate(kept.synced + survived);
            // A torn write: a stretch of the unsynced bytes never arrived.
            if survived > 0 && chance.below(3) == 0 {
                let from = kept.synced + chance.below(survived as u64) as usize;
                kept.bytes[from..].fill(0);
            }
            kept.bytes.resize(kept.bytes.len().max(kept.len_synced), 0);
            kept.written = kept.bytes.len();
            kept.settle();
            *content = Arc::new(Mutex::new(kept));
        }
        state.files = after.clone();
        state.durable = after;
        state.room = u64::MAX;
        state.syncs_left = u64::MAX;
        state.off = false;
        state.failing_syncs = 0;
    }

    /// Guards the names and faults for the length of one call.
    fn state(&self) -> MutexGuard<'_, SimState> {
        lock(&self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl SimState {
    fn sync_counted(&mut self) -> io::Result<()> {
        if self.failing_syncs > 0 {
            self.failing_syncs -= 1;
            return Err(io::Error::other("the disk failed"));
        }
        if self.off || self.syncs_left == 0 {
            self.off = true;
            return Err(io::Error::other("the power is off"));
        }
        self.syncs_left -= 1;
        self.syncs += 1;
        Ok(())
    }

    fn take_room(&mut self, len: u64) -> io::Result<()> {
        if self.off {
            return Err(io::Error::other("the power is off"));
        }
        match self.room.checked_sub(len) {
            Some(room) => {
                self.room = room;
                Ok(())
            }
            None => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

impl Disk for SimDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = self.state().files.get(path).cloned().ok_or_else(|| missing(path))?;
        Ok(lock(&content).bytes.clone())
    }
    fn read_at(&self, path: &Path, at: u64, len: u64) -> io::Result<Vec<u8>> {
        let bytes = self.read(path)?;
        let from = usize::try_from(at).map_err(io::Error::other)?.min(bytes.len());
        let len = usize::try_from(len).map_err(io::Error::other)?.min(bytes.len() - from);
        Ok(bytes[from..from + len].to_vec())
    }
    /// Only one program runs on a simulated disk.
    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let here = state.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(here.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect())
    }
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let content = self.state().files.entry(path.to_path_buf()).or_default().clone();
        let at = lock(&content).bytes.len();
        Ok(Box::new(SimFile { disk: self.clone(), content, at }))
    }
    fn overwrite(&self, path: &Path, at: u64) -> io::Result<Box<dyn DiskFile>> {
        let content = self.state().files.get(path).cloned().ok_or_else(|| missing(path))?;
        let at = usize::try_from(at).map_err(io::Error::other)?;
        Ok(Box::new(SimFile { disk: self.clone(), content, at }))
    }
    fn truncate(&self, path: &Path, len: u64) -> io::Result<()> {
        let content = self.state().files.get(path).cloned().ok_or_else(|| missing(path))?;
        self.state().sync_counted()?;
        let mut content = lock(&content);
        content.bytes.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        content.written = content.bytes.len();
        content.settle();
        Ok(())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let content = state.files.remove(from).ok_or_else(|| missing(from))?;
        state.files.insert(to.to_path_buf(), content);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.state().files.remove(path).map(|_| ()).ok_or_else(|| missing(path))
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.sync_counted()?;
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        state.durable.retain(|path, _| !inside(path));
        let now: Vec<_> = state
            .files
            .iter()
            .filter(|(path, _)| inside(path))
            .map(|(p, c)| (p.clone(), c.clone()))
            .collect();
        state.durable.extend(now);
        Ok(())
    }
}

struct SimFile {
    disk: SimDisk,
    content: SimContent,
    /// Where the next write goes.
    at: usize,
}

impl DiskFile for SimFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let taken = self.disk.state().take_room(bytes.len() as u64);
        let mut content = lock(&self.content);
        match taken {
            Ok(()) => {
                content.put(self.at, bytes);
                self.at += bytes.len();
            }
            // A full disk takes a part of the last write.
            Err(_) => content.put(self.at, &bytes[..bytes.len() / 2]),
        }
        taken
    }
    fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        let end = self.at + usize::try_from(bytes).map_err(io::Error::other)?;
        self.disk.state().take_room(bytes)?;
        let mut content = lock(&self.content);
        // Zeros from the allocator, in one piece: a file's whole room byte by byte would be a tenth of a simulation's time.
        let more = end.saturating_sub(content.bytes.len());
        content.bytes.append(&mut vec![0; more]);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        self.disk.state().sync_counted()?;
        if !self.disk.state().lies {
            lock(&self.content).settle();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_a_crash_and_the_rest_may_not() {
        for seed in 0..50 {
            let disk = SimDisk::new();
            let path = Path::new("/d/log");
            let mut file = disk.append(path).expect("the disk is empty");
            file.write(b"kept").expect("there is room");
            file.sync().expect("the power is on");
            disk.sync_dir(Path::new("/d")).expect("the power is on");
            file.write(b"loose").expect("there is room");
            disk.crash(&Chance::from_seed(seed));
            let bytes = disk.read(path).expect("the name was synced");
            assert!(bytes.starts_with(b"kept") && bytes.len() <= 9, "{bytes:?}");
        }
    }

    #[test]
    fn what_was_reserved_is_written_over_and_read_as_zeros_before() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        for disk in [&RealDisk as &dyn Disk, &SimDisk::new()] {
            let path = dir.path().join("log");
            let mut file = disk.append(&path).expect("there is room");
            let all = || disk.read(&path).expect("the file is there");
            file.write(b"ab").and_then(|()| file.reserve(4)).expect("there is room");
            assert_eq!(all(), b"ab\0\0\0\0");
            file.write(b"cde").expect("it was reserved");
            assert_eq!(all(), b"abcde\0");
            let mut again = disk.overwrite(&path, 5).expect("it is there");
            again.write(b"fg").expect("there is room");
            assert_eq!(all(), b"abcdefg");
        }
    }

    #[test]
    fn what_was_reserved_outlives_a_crash() {
        for seed in 0..50 {
            let disk = SimDisk::new();
            let path = Path::new("/d/log");
            let mut file = disk.append(path).expect("the disk is empty");
            file.reserve(8).and_then(|()| file.write(b"kept")).expect("there is room");
            file.sync().and_then(|()| disk.sync_dir(Path::new("/d"))).expect("the power is on");
            file.write(b"oh").expect("there is room");
            disk.crash(&Chance::from_seed(seed));
            let bytes = disk.read(path).expect("the name was synced");
            let loose = [&b"oh\0\0"[..], b"o\0\0\0", b"\0\0\0\0"];
            assert!(bytes.starts_with(b"kept") && loose.contains(&&bytes[4..]), "{bytes:?}");
        }
    }

    #[test]
    fn a_locked_file_is_locked_until_the_guard_is_dropped() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let path = dir.path().join("lock");
        let guard = RealDisk.lock(&path).expect("nobody holds it");
        assert_eq!(RealDisk.lock(&path).err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        drop(guard);
        assert!(RealDisk.lock(&path).is_ok());
    }

    #[test]
    fn a_part_of_a_file_ends_where_the_file_ends() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        for disk in [&RealDisk as &dyn Disk, &SimDisk::new()] {
            let path = dir.path().join("file");
            disk.append(&path).and_then(|mut file| file.write(b"0123456789")).expect("there is room");
            let part = |at, len| disk.read_at(&path, at, len).expect("the file is there");
            assert_eq!((part(2, 3), part(8, 5), part(20, 1)), (b"234".to_vec(), b"89".to_vec(), vec![]));
        }
    }

    #[test]
    fn a_full_disk_says_so() {
        let disk = SimDisk::new();
        disk.set_room(4);
        let mut file = disk.append(Path::new("/d/log")).expect("the disk is empty");
        file.write(b"1234").expect("there is room");
        let error = file.write(b"5").expect_err("the disk is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
