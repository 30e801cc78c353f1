//! Standard descriptors and terminals of a new process.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};

use crate::monitor::identity::Identity;
use crate::monitor::init::{Fault, Report, Stdio, failed, send, set_standard};
use crate::monitor::rootfs;
use crate::sys;

/// Connects the standard descriptors: to pipes, to `/dev/null`, or to a new terminal whose master is reported.
pub(crate) fn connect(
    stdio: Stdio,
    tty: bool,
    console: bool,
    report: &UnixStream,
    identity: &Identity,
) -> Result<(), Fault> {
    if tty {
        return open_terminal(console, report, identity);
    }
    let null = open("/dev/null", OFlags::RDWR)?;
    for (fd, number) in [(stdio.stdin, 0), (stdio.stdout, 1), (stdio.stderr, 2)] {
        let given = fd.is_some();
        set_standard(&fd.unwrap_or(null.try_clone().map_err(failed("copy a descriptor"))?), number)?;
        if given {
            give(number, identity, Mode::from_raw_mode(0o600));
        }
    }
    Ok(())
}

fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Fault> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(format!("open {path}"))(error.into()))
}

fn open_terminal(console: bool, report: &UnixStream, identity: &Identity) -> Result<(), Fault> {
    let master = open("/dev/ptmx", OFlags::RDWR)?;
    let kernel = |error: rustix::io::Errno| failed("open a terminal")(error.into());
    rustix::pty::unlockpt(&master).map_err(kernel)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: the ioctl takes plain flags and gives a new descriptor.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    let slave = sys::check(slave).map_err(failed("open a terminal"))?;
    // SAFETY: the kernel has just made it for us.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    if console {
        rootfs::set_console(&slave).map_err(failed("set up the console"))?;
    }
    for number in 0..3 {
        set_standard(&slave, number)?;
    }
    give(0, identity, Mode::from_raw_mode(0o620));
    // SAFETY: the ioctl takes a plain number.
    sys::check(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map_err(failed("take the terminal"))?;
    send(report, Report::Terminal, Some(&master));
    Ok(())
}

/// Lets the program's user open its own standard descriptors anew (`/dev/stdout`). Pipes of others stay theirs.
fn give(number: i32, identity: &Identity, mode: Mode) {
    // SAFETY: the standard descriptors are open, and both calls take plain numbers.
    unsafe {
        libc::fchown(number, identity.uid, libc::gid_t::MAX);
        libc::fchmod(number, mode.as_raw_mode());
    }
}
