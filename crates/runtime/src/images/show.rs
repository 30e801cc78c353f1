//! Images as volumes: the merged layers of one, mounted read-only at a folder of the node.
//!
//! Promises: nothing of an image can be changed or started through it. What is shown is known by the kernel's table
//! of mounts alone, so it needs no bookkeeping that a crash could spoil.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::images::index::Record;
use crate::sys;

/// A layer of no files. The kernel wants two layers at least where none can be written to.
const EMPTY: &str = "empty";

/// Mounts the layers of an image at `target`, which is made; does nothing when something is mounted there.
pub(crate) fn show(layers_dir: &Path, image: &Record, target: &Path) -> io::Result<()> {
    fs::create_dir_all(target)?;
    if mounts()?.lines().any(|line| point(line) == target.to_str()) {
        return Ok(());
    }
    // Layers are named by descriptors: the kernel takes one page of options at most, and a path may hold a colon.
    let names = image.layers.iter().rev().map(String::as_str).chain([EMPTY]);
    let folders = names.map(|name| open(&layers_dir.join(name))).collect::<io::Result<Vec<_>>>()?;
    let paths: Vec<_> = folders.iter().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd())).collect();
    let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    sys::mount(&image.id, target, "overlay", flags, &format!("lowerdir={}", paths.join(":")))
}

/// Whether any folder below `root` shows the image of this id.
pub(crate) fn is_shown(root: &Path, id: &str) -> bool {
    let end = format!(" - overlay {id} ");
    let shows = |line: &str| {
        line.contains(&end) && point(line).is_some_and(|point| Path::new(point).starts_with(root))
    };
    mounts().is_ok_and(|text| text.lines().any(shows))
}

fn open(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}

fn mounts() -> io::Result<String> {
    fs::read_to_string("/proc/self/mountinfo")
}

/// Where a line of the table of mounts says that something is mounted.
fn point(line: &str) -> Option<&str> {
    line.split(' ').nth(4)
}
