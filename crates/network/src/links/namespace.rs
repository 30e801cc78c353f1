//! Network namespaces, held by a file they are mounted on.
//!
//! A thread that has entered a namespace is never used for anything else: each call starts its own and ends it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::Links;

/// Moves the calling thread, and all it will start, into the network namespace mounted at `path`.
///
/// For the first lines of an agent's process, before it has other threads.
pub fn enter(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Runs `work` in the network namespace mounted at `path`.
pub(crate) fn inside<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(|| {
        enter(path)?;
        work()
    })
}

/// Makes a network namespace with its loopback up and mounts it at `path`, which is made if it is missing.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    File::create(path)?;
    on_own_thread(|| {
        // SAFETY: only the network namespace is unshared, and only for this thread, which ends here.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Links::open()?.raise_loopback().map_err(io::Error::other)?;
        mount_bind("/proc/thread-self/ns/net", path)?;
        Ok(())
    })
}

/// Whether a namespace is mounted at `path`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type == libc::NSFS_MAGIC)
}

/// Unmounts the namespace at `path` and removes the file; it ends when nobody else holds it.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    while is_mounted(path) {
        unmount(path, UnmountFlags::DETACH)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}
