//! Layers: archives of changes, unpacked once each into a folder that overlayfs takes as it is.
//!
//! Promises: nothing is written outside the folder, whatever names and links an archive has; deleted files become the
//! overlay's whiteouts; owners, modes, file capabilities and user attributes are kept. A folder that an archive does
//! not name but writes below looks as it does in the layers beneath.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use sha2::{Digest, Sha256};
use tar::{Entry, EntryType};

use crate::layout::hex;

/// Bytes of an unpacked layer at most: machine learning images have layers of 10 GiB; a bomb should not fill the disk.
const LAYER_LEN_MAX: u64 = 32 << 30;
/// Files of a layer at most; the largest images have some hundred thousand.
const ENTRIES_MAX: u64 = 4_000_000;
/// Links followed while a folder of the layers beneath is looked up.
const LINKS_MAX: usize = 32;
/// How a deleted file is marked in an archive.
const WHITEOUT: &str = ".wh.";
/// How a folder whose former content is deleted is marked.
const OPAQUE: &str = ".wh..wh..opq";
/// What precedes extended attributes in an archive.
const XATTR: &str = "SCHILY.xattr.";

/// Reads `source`, compressed or not, into the empty folder `root`. `lowers` are the layers beneath, topmost first.
/// Returns the digest of the uncompressed archive.
pub(crate) fn unpack<'a>(source: impl Read + 'a, root: &Path, lowers: &[PathBuf]) -> io::Result<String> {
    let mut hashed = Hashed { from: decompress(source)?.take(LAYER_LEN_MAX), hash: Sha256::new() };
    let unpacker = Unpacker::new(root, lowers)?;
    let mut archive = tar::Archive::new(&mut hashed);
    archive.set_ignore_zeros(false);
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(invalid("it has too many files"));
        }
        let path = entry.path()?.into_owned();
        unpacker.add(&mut entry, &path).map_err(|error| naming(error, &path))?;
    }
    io::copy(&mut hashed, &mut io::sink())?;
    if hashed.from.limit() == 0 {
        return Err(invalid("it is too large"));
    }
    Ok(format!("sha256:{}", hex(&hashed.hash.finalize())))
}

/// The plain bytes of a stream that may be compressed by gzip or zstd.
pub(crate) fn decompress<'a>(source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::new(source);
    let head = source.fill_buf()?;
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
        _ => Box::new(source),
    })
}

/// Hashes what is read through it.
struct Hashed<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.from.read(buffer)?;
        self.hash.update(&buffer[..len]);
        Ok(len)
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn naming(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Opens a path as if `root` were the root directory: no link leads out.
pub(crate) fn open_beneath(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// The plain components of a path in an archive.
fn components(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(invalid("the path leads outside")),
        }
    }
    Ok(parts)
}

/// Puts entries into one folder.
struct Unpacker {
    root: OwnedFd,
    lowers: Vec<OwnedFd>,
}

impl Unpacker {
    fn new(root: &Path, lowers: &[PathBuf]) -> io::Result<Self> {
        let open = |path: &Path| File::open(path).map(OwnedFd::from);
        let lowers = lowers.iter().map(|path| open(path)).collect::<io::Result<_>>()?;
        let unpacker = Self { root: open(root)?, lowers };
        if let Some(attributes) = unpacker.lower(Path::new(".")) {
            copy_attributes(&attributes, &unpacker.root)?;
        }
        Ok(unpacker)
    }

    fn add<R: Read>(&self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let parts = components(path)?;
        let Some((name, above)) = parts.split_last() else { return self.add_root(entry) };
        let above: PathBuf = above.iter().collect();
        let parent = self.folder(&above, LINKS_MAX)?;
        let text = name.to_string_lossy();
        if text == OPAQUE {
            return Ok(rustix::fs::fsetxattr(&parent, "trusted.overlay.opaque", b"y", XattrFlags::empty())?);
        }
        if text.starts_with(".wh..wh.") {
            return Ok(());
        }
        if let Some(name) = text.strip_prefix(WHITEOUT) {
            return whiteout(&parent, name);
        }
        self.add_file(entry, &parent, Path::new(name))
    }

    fn add_root<R: Read>(&self, entry: &mut Entry<'_, R>) -> io::Result<()> {
        if entry.header().entry_type() != EntryType::Directory {
            return Err(invalid("the path names no file"));
        }
        Attributes::of(entry)?.set(&self.root)
    }

    fn add_file<R: Read>(&self, entry: &mut Entry<'_, R>, parent: &OwnedFd, name: &Path) -> io::Result<()> {
        let attributes = Attributes::of(entry)?;
        let kind = entry.header().entry_type();
        match kind {
            EntryType::Directory => add_folder(parent, name, &attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                clear(parent, name)?;
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
                let mut file = File::from(file);
                io::copy(entry, &mut file)?;
                attributes.set(&OwnedFd::from(file))
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or_else(|| invalid("the link has no target"))?;
                clear(parent, name)?;
                rustix::fs::symlinkat(&*target, parent, name)?;
                attributes.set_link(parent, name)
            }
            EntryType::Link => {
                let target =
                    entry.link_name()?.ok_or_else(|| invalid("the link has no target"))?.into_owned();
                self.add_hard_link(&target, parent, name)
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                clear(parent, name)?;
                add_node(entry, parent, name, kind)?;
                attributes.set_link(parent, name)?;
                let mode = Mode::from_raw_mode(attributes.mode);
                Ok(rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?)
            }
            EntryType::XGlobalHeader => Ok(()),
            _ => Err(invalid("it is of an unknown kind")),
        }
    }

    fn add_hard_link(&self, target: &Path, parent: &OwnedFd, name: &Path) -> io::Result<()> {
        let parts = components(target)?;
        let (last, above) = parts.split_last().ok_or_else(|| invalid("the link has no target"))?;
        let above: PathBuf = above.iter().collect();
        let from = self.folder(&above, LINKS_MAX)?;
        if rustix::fs::statat(&from, *last, AtFlags::SYMLINK_NOFOLLOW).is_err() {
            self.copy_up(target, &from, Path::new(last))?;
        }
        let own = rustix::fs::statat(&from, *last, AtFlags::SYMLINK_NOFOLLOW)?;
        let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        if there.is_ok_and(|there| there.st_ino == own.st_ino) {
            return Ok(());
        }
        clear(parent, name)?;
        Ok(rustix::fs::linkat(from, *last, parent, name, AtFlags::empty())?)
    }

    /// Brings a regular file of the layers beneath into this one, for a link to it.
    fn copy_up(&self, path: &Path, parent: &OwnedFd, name: &Path) -> io::Result<()> {
        let missing = || invalid("the link's target is missing");
        let lower = self.lower(path).ok_or_else(missing)?;
        if !FileType::from_raw_mode(rustix::fs::fstat(&lower)?.st_mode).is_file() {
            return Err(missing());
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut to = File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
        io::copy(&mut File::from(lower.try_clone()?), &mut to)?;
        copy_attributes(&lower, &OwnedFd::from(to))
    }

    /// What the layers beneath have at a path; `None` when nothing, or when it was deleted.
    fn lower(&self, path: &Path) -> Option<OwnedFd> {
        let open = |root: &OwnedFd| {
            open_beneath(root, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK)
                .or_else(|_| open_beneath(root, path, OFlags::PATH | OFlags::NOFOLLOW))
        };
        let found = self.lowers.iter().find_map(|root| open(root).ok())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&found).ok()?.st_mode);
        if kind.is_char_device() { None } else { Some(found) }
    }

    /// Where the link at a name leads; one of the layers beneath is brought into this one.
    fn link_at(
        &self,
        parent: &OwnedFd,
        name: &OsStr,
        lower: Option<&OwnedFd>,
    ) -> io::Result<Option<PathBuf>> {
        let path = |text: std::ffi::CString| PathBuf::from(OsStr::from_bytes(text.to_bytes()));
        if let Ok(target) = rustix::fs::readlinkat(parent, name, Vec::new()) {
            return Ok(Some(path(target)));
        }
        let Some(lower) = lower else { return Ok(None) };
        if !FileType::from_raw_mode(rustix::fs::fstat(lower)?.st_mode).is_symlink() {
            return Ok(None);
        }
        let target = rustix::fs::readlinkat(lower, "", Vec::new())?;
        rustix::fs::symlinkat(&target, parent, name)?;
        Ok(Some(path(target)))
    }

    /// Opens a folder, and makes it as the layers beneath have it where it is missing.
    fn folder(&self, path: &Path, links_left: usize) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match open_beneath(&self.root, here, flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        let name = path.file_name().ok_or_else(|| invalid("the path leads outside"))?;
        let above = path.parent().unwrap_or(Path::new(""));
        let parent = self.folder(above, links_left)?;
        let lower = self.lower(path);
        match self.link_at(&parent, name, lower.as_ref())? {
            Some(target) => {
                let left = links_left.checked_sub(1).ok_or_else(|| invalid("too many links"))?;
                self.folder(&resolve(above, &target), left)?;
            }
            None => {
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                if let Some(lower) = lower {
                    copy_attributes(&lower, &open_beneath(&self.root, path, flags)?)?;
                }
            }
        }
        open_beneath(&self.root, path, flags)
    }
}

/// Where a link in folder `from` leads, by its words alone, never above the root.
fn resolve(from: &Path, target: &Path) -> PathBuf {
    let mut path = if target.is_absolute() { PathBuf::new() } else { from.to_path_buf() };
    for component in target.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::ParentDir => drop(path.pop()),
            _ => {}
        }
    }
    path
}

fn whiteout(parent: &OwnedFd, name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(invalid("the whiteout names no file"));
    }
    clear(parent, Path::new(name))?;
    Ok(rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)?)
}

fn add_folder(parent: &OwnedFd, name: &Path, attributes: &Attributes) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(_) => {
            clear(parent, name)?;
            rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
            rustix::fs::openat(parent, name, flags, Mode::empty())?
        }
    };
    attributes.set(&folder)
}

fn add_node<R: Read>(entry: &Entry<'_, R>, parent: &OwnedFd, name: &Path, kind: EntryType) -> io::Result<()> {
    let header = entry.header();
    let major = header.device_major()?.unwrap_or(0);
    let minor = header.device_minor()?.unwrap_or(0);
    let file_type = match kind {
        EntryType::Char if major == 0 && minor == 0 => return Err(invalid("it would hide other files")),
        EntryType::Char => FileType::CharacterDevice,
        EntryType::Block => FileType::BlockDevice,
        _ => FileType::Fifo,
    };
    let device = rustix::fs::makedev(major, minor);
    Ok(rustix::fs::mknodat(parent, name, file_type, Mode::from_raw_mode(0o600), device)?)
}

/// Removes what is at a name, whatever it is.
fn clear(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(rustix::io::Errno::ISDIR) => remove_folder(parent, name),
        Err(error) => Err(error.into()),
    }
}

fn remove_folder(parent: &OwnedFd, name: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = PathBuf::from(OsStr::from_bytes(entry.file_name().to_bytes()));
        if name != Path::new(".") && name != Path::new("..") {
            clear(&folder, &name)?;
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

/// Owner, mode, time and extended attributes of a file.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    seconds: i64,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Attributes {
    fn of<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Self> {
        let mut xattrs = Vec::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                let name = extension.key().ok().and_then(|key| key.strip_prefix(XATTR));
                if let Some(name) =
                    name.filter(|name| *name == "security.capability" || name.starts_with("user."))
                {
                    xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
                }
            }
        }
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).map_err(|_| invalid("its owner is no user"));
        Ok(Self {
            uid: id(header.uid()?)?,
            gid: id(header.gid()?)?,
            mode: header.mode()? & 0o7777,
            seconds: i64::try_from(header.mtime()?).unwrap_or(0),
            xattrs,
        })
    }

    /// Sets them; the mode last, because a change of owner clears setuid bits and capabilities.
    fn set(&self, file: &OwnedFd) -> io::Result<()> {
        rustix::fs::fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?;
        for (name, value) in &self.xattrs {
            rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty())?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(self.mode))?;
        let time = Timespec { tv_sec: self.seconds, tv_nsec: 0 };
        Ok(rustix::fs::futimens(file, &Timestamps { last_access: time, last_modification: time })?)
    }

    fn set_link(&self, parent: &OwnedFd, name: &Path) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        Ok(rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let what = rustix::fs::fstat(from)?;
    let attributes = Attributes {
        uid: what.st_uid,
        gid: what.st_gid,
        mode: what.st_mode & 0o7777,
        seconds: what.st_mtime,
        xattrs: Vec::new(),
    };
    attributes.set(to)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
