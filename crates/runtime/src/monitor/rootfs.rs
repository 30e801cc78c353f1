//! The container's root: overlay of its image's layers, kernel file systems, devices, volumes, masks.
//!
//! Promises: everything is mounted in the container's own mount namespace, so it goes with the container. Sources
//! are taken as detached trees before the root changes, targets are resolved after it: no link in an image can lead
//! a mount outside. Devices work only where this file puts them (`nodev` elsewhere), unless the container is
//! privileged.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use crate::cgroup::Cgroups;
use crate::layout::Pod;
use crate::monitor::init::{Fault, exists, failed};
use crate::sys;
use crate::wire::StartSpec;
use crate::{ContainerSpec, Mount, SandboxSpec};

/// Parts of the kernel that tell too much of the machine: hidden.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Parts of the kernel that change the machine: read-only.
const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Devices every container has.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links every container's `/dev` has.
const DEV_LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];
/// Folders below the host's `/dev` followed for a privileged container: deep enough for `/dev/bus/usb/001/001`.
const DEV_DEPTH_MAX: usize = 5;
/// The group of terminals, `tty`, as Linux distributions number it.
const TTY_GROUP: &str = "5";

const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;

/// What a root is made of.
pub(crate) struct Rootfs<'a> {
    /// The container.
    pub start: &'a StartSpec,
    /// Its sandbox.
    pub sandbox: &'a SandboxSpec,
    /// The sandbox's paths.
    pub pod: &'a Pod,
    /// The machine's control groups.
    pub cgroups: &'a Cgroups,
}

/// Trees taken from the host, to be put below the new root.
struct Sources {
    shm: OwnedFd,
    devices: Vec<(OwnedFd, PathBuf)>,
    nodes: Vec<Node>,
    volumes: Vec<OwnedFd>,
}

/// A device node of the host.
struct Node {
    path: PathBuf,
    mode: u32,
    device: u64,
}

impl Rootfs<'_> {
    /// Makes the root and enters it.
    pub(crate) fn enter(&self) -> Result<(), Fault> {
        let sources = self.sources()?;
        sys::mount("", Path::new("/"), "", libc::MS_REC | libc::MS_PRIVATE, "")
            .map_err(failed("part from the host's mounts"))?;
        self.overlay()?;
        sys::pivot_here().map_err(failed("change the root"))?;
        self.kernel_file_systems()?;
        self.devices(&sources)?;
        for (volume, mount) in sources.volumes.iter().zip(&self.start.spec.mounts) {
            place(volume, &mount.target).map_err(failed(format!("mount {}", mount.target.display())))?;
        }
        self.mask()
    }

    fn privileged(&self) -> bool {
        self.start.spec.security.privileged
    }

    fn sources(&self) -> Result<Sources, Fault> {
        let spec = &self.start.spec;
        let shm = if self.sandbox.host_ipc { PathBuf::from("/dev/shm") } else { self.pod.shm() };
        let take =
            |path: &Path| sys::open_tree(path, false).map_err(failed(format!("take {}", path.display())));
        let mut devices = Vec::new();
        for name in DEVICES.iter().filter(|_| !self.privileged()) {
            devices.push((take(&Path::new("/dev").join(name))?, Path::new("/dev").join(name)));
        }
        for (source, target) in &spec.devices {
            devices.push((take(source)?, target.clone()));
        }
        let mut nodes = Vec::new();
        if self.privileged() {
            find_nodes(Path::new("/dev"), 0, &mut nodes);
        }
        let volumes = spec.mounts.iter().map(|mount| self.volume(mount)).collect::<Result<_, _>>()?;
        Ok(Sources { shm: take(&shm)?, devices, nodes, volumes })
    }

    fn volume(&self, mount: &Mount) -> Result<OwnedFd, Fault> {
        let source = mount.source.to_string_lossy();
        let readonly = if mount.readonly { RDONLY } else { 0 };
        if let Some(size) = source.strip_prefix("tmpfs:") {
            let options = [("mode", "1777"), ("size", if size.is_empty() { "0" } else { size })];
            return sys::new_mount("tmpfs", &options, readonly | NOSUID | NODEV)
                .map_err(failed("make a tmpfs"));
        }
        let doing = format!("mount {source} at {}", mount.target.display());
        let tree = sys::open_tree(&mount.source, mount.recursive).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Fault::Config(format!("cannot {doing}: {source} does not exist")),
            _ => failed(&doing)(error),
        })?;
        let propagation = match mount.propagation.as_str() {
            "rshared" => libc::MS_SHARED,
            "rslave" => libc::MS_SLAVE,
            _ => libc::MS_PRIVATE,
        };
        let nodev = if self.privileged() { 0 } else { NODEV };
        sys::set_mount(&tree, mount.recursive, nodev, propagation).map_err(failed(&doing))?;
        sys::set_mount(&tree, false, readonly, 0).map_err(failed(&doing))?;
        Ok(tree)
    }

    /// Mounts the overlay and makes it the current directory. Layers are named relative to their folder, because the
    /// kernel takes one page of options at most.
    fn overlay(&self) -> Result<(), Fault> {
        let dir = self.pod.container(&self.start.id);
        let root = dir.join("root");
        let layers: Vec<&str> = self.start.layers.iter().rev().map(String::as_str).collect();
        let lower = if layers.is_empty() { "empty".to_owned() } else { layers.join(":") };
        let (upper, work) = (escape(&dir.join("upper")), escape(&dir.join("work")));
        let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
        std::env::set_current_dir(&self.start.layers_dir).map_err(failed("enter the layers' folder"))?;
        let flags = if self.privileged() { 0 } else { libc::MS_NODEV };
        // A container's root never outlives the machine, so nothing in it needs to be synced.
        sys::mount("overlay", &root, "overlay", flags, &format!("{options},volatile"))
            .or_else(|_| sys::mount("overlay", &root, "overlay", flags, &options))
            .map_err(failed("mount the image"))?;
        std::env::set_current_dir(&root).map_err(failed("enter the image"))
    }

    fn kernel_file_systems(&self) -> Result<(), Fault> {
        fresh("proc", "/proc", &[], NOSUID | NODEV | NOEXEC)?;
        let readonly = if self.privileged() { 0 } else { RDONLY };
        fresh("sysfs", "/sys", &[], NOSUID | NODEV | NOEXEC | readonly)?;
        let attributes = NOSUID | NODEV | NOEXEC | readonly;
        if self.cgroups.is_v2() {
            return fresh("cgroup2", "/sys/fs/cgroup", &[], attributes);
        }
        fresh("tmpfs", "/sys/fs/cgroup", &[("mode", "755")], NOSUID | NODEV | NOEXEC)?;
        for (names, _) in self.cgroups.v1_mounts() {
            let options: Vec<(&str, &str)> = names.split(',').map(|name| (name, "")).collect();
            // Shown for programs that look up their limits; a hierarchy mounted otherwise is not shown.
            let _ = fresh("cgroup", &format!("/sys/fs/cgroup/{names}"), &options, attributes);
        }
        Ok(())
    }

    fn devices(&self, sources: &Sources) -> Result<(), Fault> {
        let nodev = if self.privileged() { 0 } else { NODEV };
        fresh("tmpfs", "/dev", &[("mode", "755"), ("size", "65536k")], NOSUID | nodev)?;
        let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", TTY_GROUP)];
        fresh("devpts", "/dev/pts", &options, NOSUID | NOEXEC)?;
        fresh("mqueue", "/dev/mqueue", &[], NOSUID | NODEV | NOEXEC)?;
        place(&sources.shm, Path::new("/dev/shm")).map_err(failed("mount /dev/shm"))?;
        for node in &sources.nodes {
            make_node(node).map_err(failed(format!("make {}", node.path.display())))?;
        }
        for (tree, target) in &sources.devices {
            place(tree, target).map_err(failed(format!("mount {}", target.display())))?;
        }
        for (to, name) in DEV_LINKS {
            let path = Path::new("/dev").join(name);
            if !exists(&path) {
                symlink(to, &path).map_err(failed(format!("link {}", path.display())))?;
            }
        }
        Ok(())
    }

    fn mask(&self) -> Result<(), Fault> {
        let security = &self.start.spec.security;
        if security.privileged || security.unmasked_proc {
            return Ok(());
        }
        for path in MASKED {
            hide(Path::new(path)).map_err(failed(format!("mask {path}")))?;
        }
        for path in READONLY.iter().map(Path::new).filter(|path| exists(path)) {
            freeze(path).map_err(failed(format!("protect {}", path.display())))?;
        }
        Ok(())
    }
}

/// Makes the root read-only where asked for: last, when all mount points are made.
pub(crate) fn seal(spec: &ContainerSpec) -> Result<(), Fault> {
    if !spec.security.readonly_root {
        return Ok(());
    }
    let nodev = if spec.security.privileged { 0 } else { libc::MS_NODEV };
    let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | nodev;
    sys::mount("", Path::new("/"), "", flags, "").map_err(failed("make the root read-only"))
}

fn fresh(kind: &str, target: &str, options: &[(&str, &str)], attributes: u64) -> Result<(), Fault> {
    let mount = || {
        let tree = sys::new_mount(kind, options, attributes)?;
        std::fs::create_dir_all(target)?;
        sys::move_mount(&tree, Path::new(target))
    };
    mount().map_err(failed(format!("mount {kind} at {target}")))
}

/// Puts a tree at `target`, which is made when missing: a folder for a folder, a file for anything else.
fn place(tree: &OwnedFd, target: &Path) -> io::Result<()> {
    let is_dir = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode).is_dir();
    if is_dir {
        std::fs::create_dir_all(target)?;
    } else {
        std::fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(target)
            .map(drop)
            .or_else(|error| if exists(target) { Ok(()) } else { Err(error) })?;
    }
    let real = std::fs::canonicalize(target)?;
    if real.starts_with("/proc") {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is in /proc"));
    }
    sys::move_mount(tree, &real)
}

fn hide(path: &Path) -> io::Result<()> {
    let Ok(what) = std::fs::metadata(path) else { return Ok(()) };
    let tree = if what.is_dir() {
        sys::new_mount("tmpfs", &[("size", "0")], RDONLY | NOSUID | NODEV | NOEXEC)?
    } else {
        sys::open_tree(Path::new("/dev/null"), false)?
    };
    sys::move_mount(&tree, path)
}

fn freeze(path: &Path) -> io::Result<()> {
    let tree = sys::open_tree(path, true)?;
    sys::set_mount(&tree, true, RDONLY, 0)?;
    sys::move_mount(&tree, path)
}

fn find_nodes(dir: &Path, depth: usize, nodes: &mut Vec<Node>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(what) = std::fs::symlink_metadata(&path) else { continue };
        let kind = what.file_type();
        if kind.is_char_device() || kind.is_block_device() {
            nodes.push(Node { path, mode: what.mode(), device: what.rdev() });
        } else if kind.is_dir()
            && depth < DEV_DEPTH_MAX
            && !["pts", "shm", "mqueue"].iter().any(|n| path.ends_with(n))
        {
            find_nodes(&path, depth + 1, nodes);
        }
    }
}

fn make_node(node: &Node) -> io::Result<()> {
    if node.path == Path::new("/dev/ptmx") || node.path == Path::new("/dev/console") {
        return Ok(());
    }
    std::fs::create_dir_all(node.path.parent().unwrap_or(Path::new("/dev")))?;
    let path = sys::c_path(&node.path)?;
    // SAFETY: the text lives through the calls.
    unsafe {
        sys::check(libc::mknod(path.as_ptr(), node.mode, node.device))?;
        sys::check(libc::chmod(path.as_ptr(), node.mode & 0o7777))?;
    }
    Ok(())
}

/// A path inside the options of an overlay, where `,`, `:` and `\` mean something.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if matches!(character, ',' | ':' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// Which device a node of the host is: type, major, minor; `None` when it is no device.
pub(crate) fn device_of(path: &Path) -> Option<(char, u32, u32)> {
    let what = std::fs::metadata(path).ok()?;
    let kind = what.file_type();
    let letter = if kind.is_char_device() {
        'c'
    } else if kind.is_block_device() {
        'b'
    } else {
        return None;
    };
    Some((letter, libc::major(what.rdev()), libc::minor(what.rdev())))
}

/// Mounts the slave end of a terminal as `/dev/console`.
pub(crate) fn set_console(slave: &OwnedFd) -> io::Result<()> {
    let tree = sys::open_tree(&PathBuf::from(format!("/proc/self/fd/{}", slave.as_raw_fd())), false)?;
    place(&tree, Path::new("/dev/console"))
}
