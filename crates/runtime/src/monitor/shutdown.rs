//! What the fence does to file systems: those of a fenced pod's exclusive volumes are shut down, not flushed.
//!
//! The end of a process does not end the write-back of its dirty pages: without this, a node that lost its lease would
//! go on writing to a volume that another one has by then. Promises: done in a process of its own, since storage may
//! never answer; a file system that anything else on the machine uses is let be, and that is told.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};

use crate::layout::Pod;
use crate::monitor::complain;
use crate::{Exclusive, sys};

/// Asks ext4 (`EXT4_IOC_SHUTDOWN`) or XFS (`XFS_IOC_GOINGDOWN`) to stop; one number for both.
const SHUT_DOWN: libc::c_ulong = 0x8004_587d;
/// Neither data nor journal is written any more.
const NOT_FLUSHED: u32 = 2;

/// What the process says by its exit code: nothing was shut down.
const NONE_SHUT: i32 = 0;
/// At least one file system was.
const SOME_SHUT: i32 = 1;

/// How far the file systems of a pod's volumes are.
#[derive(Default)]
pub(crate) enum Shutdown {
    /// As they should be.
    #[default]
    Untouched,
    /// A process is shutting them down.
    Working(sys::Child),
    /// Some are shut down: what starts on them cannot work.
    Done,
}

impl Shutdown {
    /// Starts to shut the file systems of these volumes down, unless that was begun before.
    ///
    /// # Safety
    /// The calling process must have one thread only.
    pub(crate) unsafe fn begin(&mut self, pod: &Pod, volumes: &[Exclusive]) {
        if volumes.iter().all(|all| all.mounts.is_empty()) || !matches!(self, Self::Untouched) {
            return;
        }
        let work = || -> std::convert::Infallible {
            // What it inherited must not be held open by storage that does not answer.
            let _ = sys::close_others();
            sys::exit_now(shut_all(pod, volumes))
        };
        // SAFETY: the caller promises that there is one thread.
        match unsafe { sys::clone_process(0, None, work) } {
            Ok(child) => *self = Self::Working(child),
            Err(error) => complain(pod, &format!("cannot shut file systems down: {error}")),
        }
    }

    /// Readable when the process has ended.
    pub(crate) fn pidfd(&self) -> Option<&OwnedFd> {
        match self {
            Self::Working(child) => Some(&child.pidfd),
            Self::Untouched | Self::Done => None,
        }
    }

    /// Takes the process's end. One that says nothing may have done it.
    pub(crate) fn take_end(&mut self) {
        let Some(pidfd) = self.pidfd() else { return };
        match sys::reap(pidfd.as_fd()) {
            Ok(None) => {}
            Ok(Some(ended)) if ended.code == NONE_SHUT => *self = Self::Untouched,
            Ok(Some(_)) | Err(_) => *self = Self::Done,
        }
    }
}

/// Shuts down what may be, each in a process of its own: one that does not answer must not hold up the others.
fn shut_all(pod: &Pod, volumes: &[Exclusive]) -> i32 {
    let mut parts = Vec::new();
    for (all, mount) in volumes.iter().flat_map(|all| all.mounts.iter().map(move |mount| (all, mount))) {
        let work = || -> std::convert::Infallible { sys::exit_now(shut_one(pod, mount, &all.within)) };
        // SAFETY: this process was just made, and has one thread.
        match unsafe { sys::clone_process(0, None, work) } {
            Ok(child) => parts.push(child),
            Err(error) => complain(pod, &format!("cannot shut {} down: {error}", mount.display())),
        }
    }
    let codes = parts.iter().map(|part| {
        let mut fds = [PollFd::new(&part.pidfd, PollFlags::IN)];
        let _ = rustix::io::retry_on_intr(|| poll(&mut fds, None));
        sys::reap(part.pidfd.as_fd()).ok().flatten().map_or(SOME_SHUT, |ended| ended.code)
    });
    codes.max().unwrap_or(NONE_SHUT)
}

fn shut_one(pod: &Pod, mount: &Path, within: &[PathBuf]) -> i32 {
    let within: Vec<PathBuf> = within.iter().map(|dir| real(dir)).collect();
    let at = mount.display();
    match shut(&real(mount), &within) {
        Ok(note) => {
            complain(pod, &format!("fenced: shut down the file system at {at}{note}"));
            SOME_SHUT
        }
        Err(why) => {
            complain(pod, &format!("fenced: the file system at {at} goes on: {why}"));
            NONE_SHUT
        }
    }
}

/// A path as the kernel spells it: the folders that it leads through may be links.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

/// Shuts one file system down; gives what else is to be said of it.
fn shut(at: &Path, within: &[PathBuf]) -> Result<String, String> {
    let text = std::fs::read("/proc/self/mountinfo").map_err(|error| format!("mountinfo: {error}"))?;
    let target = target(&String::from_utf8_lossy(&text), at, within)?;
    let failed = |error: io::Error| error.to_string();
    let root = open(at, libc::O_DIRECTORY | libc::O_NOFOLLOW).map_err(failed)?;
    let device = rustix::fs::fstat(&root).map_err(|error| failed(error.into()))?.st_dev;
    if device != target.number() {
        return Err("something else was mounted there meanwhile".to_owned());
    }
    let how = NOT_FLUSHED;
    // SAFETY: the number lives through the call, which reads it.
    let done = unsafe { libc::ioctl(root.as_raw_fd(), SHUT_DOWN as _, &raw const how) };
    sys::check(done).map_err(|error| format!("it cannot be shut down: {error}"))?;
    Ok(match settle(target) {
        Ok(()) => String::new(),
        Err(error) => format!(", but not its device's own cache: {error}"),
    })
}

/// Has the kernel write out now what is in the journal already: ext4 leaves it in the device's cache, from where it would
/// be written half a minute later, when the volume is another node's. Nothing new gets into that cache any more.
fn settle(device: Device) -> io::Result<()> {
    // What a driver in a container calls the device need not be its name here.
    let known = std::fs::read_to_string(format!("/sys/dev/block/{}:{}/uevent", device.0, device.1))?;
    let name = known.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let path = Path::new("/dev").join(name.ok_or_else(|| io::Error::other("it has no name"))?);
    let file = open(&path, libc::O_NOFOLLOW)?;
    let seen = rustix::fs::fstat(&file)?;
    if seen.st_mode & libc::S_IFMT != libc::S_IFBLK || seen.st_rdev != device.number() {
        return Err(io::Error::other(format!("{} is another device", path.display())));
    }
    file.sync_all()
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().read(true).custom_flags(flags | libc::O_CLOEXEC).open(path)
}

/// The major and minor number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Device(u32, u32);

impl Device {
    fn number(self) -> u64 {
        libc::makedev(self.0, self.1)
    }
}

/// One line of `mountinfo`, as far as it counts here.
struct Mounted {
    device: Device,
    root: PathBuf,
    at: PathBuf,
}

/// Decides whether the file system that is mounted at a path may be shut down, and gives its device; if not, why.
fn target(mountinfo: &str, at: &Path, within: &[PathBuf]) -> Result<Device, String> {
    let all: Vec<Mounted> =
        mountinfo.lines().map(mounted).collect::<Option<_>>().ok_or("an odd mountinfo")?;
    // The last one covers those before.
    let Some(it) = all.iter().rfind(|one| one.at == at) else {
        return Err("nothing is mounted there".to_owned());
    };
    let is_inside = |path: &Path| within.iter().any(|dir| path.starts_with(dir) && path != dir);
    let elsewhere = all.iter().find(|one| one.device == it.device && !is_inside(&one.at));
    match elsewhere {
        _ if it.device.0 == 0 => Err("it is on no device of its own".to_owned()),
        _ if it.root != Path::new("/") => Err("it is a folder of a larger one".to_owned()),
        Some(other) => Err(format!("it is used at {}, too", other.at.display())),
        None => Ok(it.device),
    }
}

fn mounted(line: &str) -> Option<Mounted> {
    let mut words = line.split(' ').skip(2);
    let (major, minor) = words.next()?.split_once(':')?;
    let device = Device(major.parse().ok()?, minor.parse().ok()?);
    Some(Mounted { device, root: unescaped(words.next()?), at: unescaped(words.next()?) })
}

/// A path as `mountinfo` spells it: blanks and the like are a backslash and three octal digits.
fn unescaped(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut rest = text.as_bytes();
    let mut path = Vec::with_capacity(rest.len());
    while let Some((&first, after)) = rest.split_first() {
        let code = after.first_chunk::<3>().filter(|_| first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    std::ffi::OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a node's machine may look like.
    const MACHINE: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 27 0:21 / /proc rw,relatime - proc proc rw
43 27 254:0 /data/kubelet /data/kubelet rw shared:3 - ext4 /dev/vda rw
60 43 8:16 / /data/kubelet/plugins/kubernetes.io/csi/d/1/globalmount rw shared:3 - ext4 /dev/sdb rw
61 43 8:16 / /data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv1/mount rw - ext4 /dev/sdb rw
62 43 8:16 /sub /data/kubelet/pods/u1/subpaths/c/0 rw - ext4 /dev/sdb rw
63 43 8:32 / /data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv2/mount rw - xfs /dev/sdc rw
64 27 8:32 / /mnt/backup rw - xfs /dev/sdc rw
65 43 254:0 /var/volumes/7 /data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv3/mount rw - ext4 /dev/vda rw
66 43 0:50 / /data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv4/mount rw - nfs4 server:/x rw
67 43 8:48 / /data/kubelet/pods/u1/volumes/kubernetes.io~csi/a\\040\\134b/mount rw - ext4 /dev/a\\040b rw
68 43 8:64 / /data/kubelet/pods rw - ext4 /dev/sde rw
69 43 8:64 / /data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv6/mount rw - ext4 /dev/sde rw
70 43 8:80 / /data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv7/mount rw - ext4 /dev/sdf rw
71 70 0:51 / /data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv7/mount rw - tmpfs none rw
72 43 8:96 / /data/kubelet/plugins/own.driver/disk rw - ext4 /dev/sdg rw
73 43 8:96 / /data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv8/mount rw - ext4 /dev/sdg rw
";

    fn check(at: &str, expected: Result<(u32, u32), &str>) {
        let at = if at.starts_with('/') {
            PathBuf::from(at)
        } else {
            Path::new("/data/kubelet/pods/u1/volumes/kubernetes.io~csi").join(at).join("mount")
        };
        let within = ["/data/kubelet/pods".into(), "/data/kubelet/plugins/kubernetes.io/csi".into()];
        let expected = expected.map(|(major, minor)| Device(major, minor));
        assert_eq!(target(MACHINE, &at, &within), expected.map_err(str::to_owned), "{}", at.display());
    }

    #[test]
    fn only_a_file_system_that_nobody_else_uses_is_shut_down() {
        check("pv1", Ok((8, 16)));
        check("a \\b", Ok((8, 48)));
        check("pv2", Err("it is used at /mnt/backup, too"));
        check("pv3", Err("it is a folder of a larger one"));
        check("pv4", Err("it is on no device of its own"));
        check("pv5", Err("nothing is mounted there"));
        check("pv6", Err("it is used at /data/kubelet/pods, too"));
        check("pv7", Err("it is on no device of its own"));
        check("pv8", Err("it is used at /data/kubelet/plugins/own.driver/disk, too"));
        check("/data/kubelet/pods/u1/subpaths/c/0", Err("it is a folder of a larger one"));
        check("/", Err("it is used at /, too"));
        check("/data/kubelet", Err("it is a folder of a larger one"));
        check("/data/kubelet/pods/u1/volumes/kubernetes.io~csi/pv1", Err("nothing is mounted there"));
    }

    #[test]
    fn what_cannot_be_read_is_let_be() {
        for odd in ["1 2 3 4", "27 1 254 / / rw - ext4 /dev/vda rw", "27 1 8:x / / rw - ext4 /dev/vda rw"] {
            assert_eq!(target(odd, Path::new("/"), &[]), Err("an odd mountinfo".to_owned()), "{odd}");
        }
    }
}
