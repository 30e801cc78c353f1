//! The machine's files.

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, inotify, mkdirat, open, openat2};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};

use super::{FileKind, Files, Space, Stamp};

/// An attribute that no file has.
const UNUSED_ATTRIBUTE: &str = "user.kintsugi.dev.none";

/// The machine's file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

impl Files for RealFiles {
    fn kind(&self, path: &Path) -> io::Result<Option<FileKind>> {
        let kind = match fs::metadata(path) {
            Ok(meta) => meta.file_type(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(match kind {
            kind if kind.is_dir() => FileKind::Dir,
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_socket() => FileKind::Socket,
            kind if kind.is_char_device() => FileKind::CharDevice,
            kind if kind.is_block_device() => FileKind::BlockDevice,
            _ => FileKind::Other,
        }))
    }

    fn make_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        // The process' umask must not decide what pods may do.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.make_dir(parent, 0o755)?;
        }
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    fn write_durable(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut aside = path.as_os_str().to_owned();
        aside.push("_tmp");
        let aside = PathBuf::from(aside);
        let mut file = fs::File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(Box::new(file))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn link(&self, target: &Path, path: &Path) -> io::Result<()> {
        let mut aside = path.as_os_str().to_owned();
        aside.push("_tmp");
        let aside = PathBuf::from(aside);
        self.remove(&aside)?;
        symlink(target, &aside)?;
        fs::rename(&aside, path)
    }

    fn linked(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        match fs::read_link(path) {
            Ok(target) => Ok(Some(target)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = match fs::symlink_metadata(path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn give_to_group(&self, path: &Path, group: i64, may_write: bool) -> io::Result<()> {
        let group = id(group)?;
        let meta = fs::symlink_metadata(path)?;
        lchown(path, None, Some(group))?;
        if meta.is_symlink() {
            return Ok(());
        }
        // New files in folders belong to the group too.
        let shared = if may_write { 0o660 } else { 0o440 };
        let inherit = if meta.is_dir() { 0o2110 } else { 0 };
        let mode = (meta.mode() & 0o7777) | shared | inherit;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        if meta.is_dir() {
            for name in self.list(path)? {
                self.give_to_group(&path.join(name), i64::from(group), may_write)?;
            }
        }
        Ok(())
    }

    fn give_to_user(&self, path: &Path, user: i64) -> io::Result<()> {
        chown(path, Some(id(user)?), None)
    }

    fn mount_memory(&self, path: &Path, size: Option<u64>) -> io::Result<()> {
        self.make_dir(path, 0o777)?;
        if mounts()?.iter().any(|at| at == path) {
            return Ok(());
        }
        let options = size.map_or("mode=0777".to_owned(), |size| format!("mode=0777,size={size}"));
        let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        Ok(mount("tmpfs", path, "tmpfs", flags, options.as_c_str())?)
    }

    fn pin(&self, base: &Path, inside: &Path, target: &Path) -> io::Result<()> {
        let found = beneath(base, inside)?;
        let is_dir = rustix::fs::fstat(&found).map(|stat| stat.st_mode & 0o170_000 == 0o040_000)?;
        if is_dir {
            self.make_dir(target, 0o755)?;
        } else if !target.exists() {
            self.write(target, b"", 0o644)?;
        }
        if mounts()?.iter().any(|at| at == target) {
            unmount(target, UnmountFlags::DETACH)?;
        }
        Ok(mount_bind(format!("/proc/self/fd/{}", found.as_raw_fd()), target)?)
    }

    fn unmount_below(&self, path: &Path) -> io::Result<()> {
        let mut all: Vec<_> = mounts()?.into_iter().filter(|at| at.starts_with(path)).collect();
        // The deepest first; of several at one place, the last first.
        all.sort();
        for at in all.iter().rev() {
            match unmount(at.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // What is removed next must not be what a mount led to.
        match mounts()?.into_iter().find(|at| at.starts_with(path)) {
            None => Ok(()),
            Some(at) => Err(io::Error::other(format!("{} is still mounted", at.display()))),
        }
    }

    fn touch(&self, path: &Path) -> io::Result<()> {
        rustix::fs::statvfs(path)?;
        // A file system that takes no changes holds this up before it looks for the attribute, which nobody has.
        match rustix::fs::lremovexattr(path, UNUSED_ATTRIBUTE) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::ROFS | Errno::PERM | Errno::ACCESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_mounted(&self, path: &Path) -> io::Result<bool> {
        Ok(mounts()?.iter().any(|at| at == path))
    }

    fn share(&self, dir: &Path) -> io::Result<()> {
        if is_shared(dir)? {
            return Ok(());
        }
        // A mount of its own, so that nothing else of the machine is shown to others.
        if !self.is_mounted(dir)? {
            mount_bind(dir, dir)?;
        }
        Ok(mount_change(dir, MountPropagationFlags::SHARED)?)
    }

    fn notices(&self, dir: &Path) -> io::Result<Option<OwnedFd>> {
        let notices = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let what = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&notices, dir, what)?;
        Ok(Some(notices))
    }

    fn stamp(&self, path: &Path) -> io::Result<Option<Stamp>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some((meta.ino(), meta.ctime(), meta.ctime_nsec()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_groups(&self, path: &Path, group: i64) -> io::Result<bool> {
        let meta = fs::symlink_metadata(path)?;
        Ok(meta.gid() == id(group)? && meta.mode() & 0o2060 == 0o2060)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        // What is kept for the system's own use counts neither as free nor as part of the disk.
        let used = stat.f_blocks - stat.f_bfree;
        Ok(Space {
            total: (used + stat.f_bavail) * stat.f_frsize,
            free: stat.f_bavail * stat.f_frsize,
            inodes: stat.f_files,
            inodes_free: stat.f_favail,
        })
    }
}

fn id(number: i64) -> io::Result<u32> {
    u32::try_from(number)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{number} is no id")))
}

/// Opens `inside` below `base`; links are followed as long as they stay there; missing folders are made.
fn beneath(base: &Path, inside: &Path) -> io::Result<OwnedFd> {
    let root = open(base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mode = Mode::from_raw_mode(fs::metadata(base)?.mode() & 0o777);
    let look = |path: &Path| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        openat2(&root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    };
    let mut so_far = PathBuf::new();
    let mut found = look(Path::new("."))?;
    for part in inside.components() {
        let Component::Normal(name) = part else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} leaves its volume", inside.display()),
            ));
        };
        so_far.push(name);
        found = match look(&so_far) {
            Err(Errno::NOENT) => {
                mkdirat(&found, name, mode)?;
                look(&so_far)?
            }
            other => other?,
        };
    }
    Ok(found)
}

/// Whether the mount that a folder is in is shared with others.
fn is_shared(dir: &Path) -> io::Result<bool> {
    let dir = fs::canonicalize(dir)?;
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found = (0, false);
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some(at) = words.nth(4).map(unescaped) else { continue };
        // The last of several at one place is the one that is seen.
        if dir.starts_with(&at) && at.components().count() >= found.0 {
            let is_shared =
                words.skip(1).take_while(|word| *word != "-").any(|word| word.starts_with("shared:"));
            found = (at.components().count(), is_shared);
        }
    }
    Ok(found.1)
}

/// Where something is mounted, in the order it was.
fn mounts() -> io::Result<Vec<PathBuf>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped).collect())
}

/// The kernel writes blanks and the like as `\040`.
fn unescaped(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unmounts what a test mounted, also when it fails.
    struct Below(tempfile::TempDir);

    impl Drop for Below {
        fn drop(&mut self) {
            let _ = RealFiles.unmount_below(self.0.path());
        }
    }

    #[test]
    fn a_sub_path_is_made_and_pinned_and_never_leaves_its_volume() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let below = Below(tempfile::tempdir().expect("a folder can be made"));
        let (volume, target) = (below.0.path().join("volume"), below.0.path().join("target"));
        fs::create_dir(&volume).expect("the folder is new");
        symlink("/etc", volume.join("out")).expect("the folder is empty");
        symlink("a", volume.join("in")).expect("the folder has room");
        for inside in ["out", "out/passwd", "../volume"] {
            assert!(
                RealFiles.pin(&volume, Path::new(inside), &target).is_err(),
                "{inside} leaves the volume"
            );
        }
        RealFiles.pin(&volume, Path::new("a/b"), &target).expect("it is inside");
        RealFiles.pin(&volume, Path::new("in/b"), &target).expect("it is inside, and done again");
        fs::write(target.join("f"), "x").expect("it is a folder");
        assert_eq!(fs::read_to_string(volume.join("a/b/f")).expect("it is there"), "x");
        RealFiles.unmount_below(below.0.path()).expect("it can be unmounted");
        assert!(fs::read_dir(&target).expect("it is a folder").next().is_none());
    }

    #[test]
    fn memory_is_mounted_once_and_as_large_as_asked() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let below = Below(tempfile::tempdir().expect("a folder can be made"));
        let at = below.0.path().join("memory");
        for _ in 0..2 {
            RealFiles.mount_memory(&at, Some(1 << 20)).expect("memory can be mounted");
        }
        let stat = rustix::fs::statvfs(&at).expect("it is mounted");
        assert_eq!(stat.f_blocks * stat.f_frsize, 1 << 20);
        RealFiles.unmount_below(&at).expect("it was mounted once");
    }

    #[test]
    fn a_group_may_read_what_is_given_to_it() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let file = dir.path().join("f");
        RealFiles.write(&file, b"x", 0o600).expect("it can be written");
        let own = i64::from(rustix::process::getegid().as_raw());
        let mode = |may_write: bool| {
            RealFiles.give_to_group(&file, own, may_write).expect("the group is our own");
            fs::metadata(&file).expect("it is there").mode() & 0o777
        };
        assert_eq!((mode(false), mode(true)), (0o640, 0o660));
    }
}
