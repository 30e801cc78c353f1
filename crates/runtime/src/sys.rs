//! System calls that no safe crate wraps, each as one function that returns [`io::Result`].
//!
//! Promises: no allocation beyond the `CString` of an argument, no threads, nothing kept. Never decides anything.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Turns a libc return value into a result.
pub(crate) fn check(value: libc::c_int) -> io::Result<libc::c_int> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

fn check_long(value: libc::c_long) -> io::Result<libc::c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// A path as the kernel wants it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// A text as the kernel wants it.
pub(crate) fn c_text(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "contains a zero byte"))
}

/// What [`clone_process`] gives the parent.
pub(crate) struct Child {
    /// The process id in the parent's terms.
    pub pid: i32,
    /// Readable when the process ended.
    pub pidfd: OwnedFd,
}

/// The flag that places a child in a v2 group; it does not fit the type that `libc` gives it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a child by `clone3` in the namespaces that `flags` names. The child does `work` and never returns, so that
/// nothing of the parent's business is done twice.
///
/// # Safety
/// The calling process must have one thread only, as after `fork`.
pub(crate) unsafe fn clone_process(
    flags: i32,
    cgroup: Option<BorrowedFd<'_>>,
    work: impl FnOnce() -> Infallible,
) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid `clone_args`.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (flags as u32 as u64) | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM this is a fork; `args` lives through the call.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const args, std::mem::size_of::<libc::clone_args>()) };
    let pid = check_long(pid)?;
    if pid == 0 {
        work();
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Child { pid: pid as i32, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// `unshare(2)`.
pub(crate) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// `setns(2)`.
pub(crate) fn setns(fd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: the descriptor is valid.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }).map(drop)
}

/// `mount(2)`; empty texts are passed as null.
pub(crate) fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let (source, target, kind, data) = (c_text(source)?, c_path(target)?, c_text(kind)?, c_text(data)?);
    let or_null = |text: &CStr| if text.is_empty() { std::ptr::null() } else { text.as_ptr() };
    // SAFETY: the texts live through the call.
    let done = unsafe {
        libc::mount(or_null(&source), target.as_ptr(), or_null(&kind), flags, or_null(&data).cast())
    };
    check(done).map(drop)
}

/// `umount2(2)` with `MNT_DETACH`; not mounted counts as done.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the text lives through the call.
    match check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A detached copy of the mount at `path`, with those below it when `recursive`.
pub(crate) fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    use rustix::mount::OpenTreeFlags as Flags;
    let mut flags = Flags::OPEN_TREE_CLONE | Flags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= Flags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(rustix::fs::CWD, path, flags)?)
}

/// A new file system, mounted nowhere yet.
pub(crate) fn new_mount(kind: &str, options: &[(&str, &str)], attributes: u64) -> io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&fs, *key)?;
        } else {
            rustix::mount::fsconfig_set_string(&fs, *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(&fs)?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    Ok(rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Puts a detached mount at `target`.
pub(crate) fn move_mount(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    use rustix::mount::MoveMountFlags as Flags;
    let flags = Flags::MOVE_MOUNT_F_EMPTY_PATH | Flags::MOVE_MOUNT_T_SYMLINKS;
    Ok(rustix::mount::move_mount(mount, "", rustix::fs::CWD, target, flags)?)
}

/// Sets attributes and propagation of a mount named by a descriptor.
pub(crate) fn set_mount(
    mount: &OwnedFd,
    recursive: bool,
    attributes: u64,
    propagation: u64,
) -> io::Result<()> {
    // SAFETY: all-zero is a valid `mount_attr`.
    let mut wanted: libc::mount_attr = unsafe { std::mem::zeroed() };
    wanted.attr_set = attributes;
    wanted.propagation = propagation;
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the pointers live through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    check_long(done).map(drop)
}

/// Makes the current directory the root, and leaves the old root behind.
pub(crate) fn pivot_here() -> io::Result<()> {
    // SAFETY: the texts are constants.
    unsafe {
        check_long(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()))?;
        check(libc::umount2(c".".as_ptr(), libc::MNT_DETACH))?;
        check(libc::chdir(c"/".as_ptr()))?;
    }
    Ok(())
}

/// Sends a signal to the process behind a pidfd.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: takes no live pointers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check_long(done).map(drop)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The exit code, or 128 plus the signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Collects an ended child; `None` while it runs.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    // SAFETY: all-zero is a valid `siginfo_t`, which lives through the call.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let id = pidfd.as_raw_fd() as libc::id_t;
    // SAFETY: as above.
    check(unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::WNOHANG) })?;
    // SAFETY: `waitid` filled in the fields of a child.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(Ended { code: status, signal: None }),
        _ => Some(Ended { code: 128 + status, signal: Some(status) }),
    })
}

/// The smallest descriptor that [`close_others`] closes: all but the standard ones.
const FIRST_OTHER_FD: libc::c_uint = 3;

/// Closes all descriptors but the standard ones, now.
pub(crate) fn close_others() -> io::Result<()> {
    close_range(FIRST_OTHER_FD, libc::c_uint::MAX, 0)
}

/// Closes all descriptors but the standard ones and those in `kept`: a child must not carry what is its parent's.
pub(crate) fn close_all_but(kept: &mut [RawFd]) -> io::Result<()> {
    kept.sort_unstable();
    let mut first = FIRST_OTHER_FD;
    for fd in kept.iter().filter_map(|fd| libc::c_uint::try_from(*fd).ok()) {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, libc::c_uint::MAX, 0)
}

fn close_range(first: libc::c_uint, last: libc::c_uint, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: takes no pointers; whoever calls this uses none of these descriptors again.
    check_long(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Executes the program behind `file` with these arguments and no environment; returns only its failure.
pub(crate) fn execute(file: &OwnedFd, args: &[&CStr]) -> io::Error {
    let args: Vec<*const libc::c_char> =
        args.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    let env = [std::ptr::null::<libc::c_char>()];
    let (fd, flags) = (file.as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: the texts and both null-ended lists live through the call.
    unsafe { libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), args.as_ptr(), env.as_ptr(), flags) };
    io::Error::last_os_error()
}

/// Lets all descriptors but the standard ones close at the next `execve`.
pub(crate) fn close_others_on_exec() -> io::Result<()> {
    close_range(FIRST_OTHER_FD, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Gives all signals their default meaning and blocks none: what a new program expects.
pub(crate) fn reset_signals() {
    // SAFETY: plain calls on local sets.
    unsafe {
        for number in 1..=libc::SIGRTMAX() {
            libc::signal(number, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// `prctl(2)` with one argument.
pub(crate) fn prctl(option: i32, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used take plain numbers.
    check(unsafe { libc::prctl(option, value, 0 as libc::c_ulong, 0 as libc::c_ulong, 0 as libc::c_ulong) })
        .map(drop)
}

/// Ends this process at once, without destructors or exit handlers (which belong to the parent).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: does not return.
    unsafe { libc::_exit(code) }
}
