//! The monitor: one small process a pod, which owns the pod's processes and outlives the agent.
//!
//! It is this same binary, executed anew. Promises: one thread, no tokio, nothing polled; it sleeps until a process
//! ends, prints, or the agent asks. It keeps pids, standard streams, logs and exit codes, and writes each container's
//! state to the sandbox's folder. When it dies, its containers die with it. It never decides what should run.

pub(crate) mod capabilities;
mod container;
mod exec;
mod fence;
mod identity;
mod init;
mod output;
mod process;
mod program;
mod rootfs;
mod sandbox;
mod seed;
mod server;
mod shutdown;
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::layout::Pod;
use crate::sys;

pub(crate) use output::rotated;

/// The first argument that makes the binary a monitor.
pub const MONITOR: &str = "monitor";
/// The last argument of a monitor that was executed from its sealed mount.
const SEALED: &str = "sealed";
/// What a monitor says when it listens; anything else is why it does not.
pub(crate) const READY: &str = "ready\n";

/// Whether these arguments (without the program's name) make the binary a monitor.
pub fn is_meant(args: &[OsString]) -> bool {
    args.first().is_some_and(|arg| arg == MONITOR)
}

/// Runs a monitor: `args` are `monitor` and the sandbox's folder. To be called first thing in `main`, before any
/// thread is started; returns when the sandbox is gone.
pub fn main(args: &[OsString]) -> ExitCode {
    let (dir, done) = match args {
        [_, dir] => (dir, part_from_agent(Path::new(dir))),
        [_, dir, sealed] if sealed == SEALED => (dir, Ok(())),
        _ => return ExitCode::from(2),
    };
    let pod = Pod { dir: PathBuf::from(dir) };
    match done.and_then(|()| if args.len() == 2 { Ok(None) } else { take_over_ready().map(Some) }) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(ready)) => run(&pod, ready),
        Err(error) => {
            let _ = io::stdout().write_all(format!("cannot part from the agent: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// Forks, so that the monitor belongs to no terminal and is nobody's child, and returns in the first process, which
/// ends. The second executes this binary once more, from a mount that nobody can write through: a container may
/// make its monitor's child execute `/proc/self/exe`, and must not get hold of the machine's binary so.
fn part_from_agent(dir: &Path) -> io::Result<()> {
    // SAFETY: `main` promises that there is one thread.
    if sys::check(unsafe { libc::fork() })? != 0 {
        return Ok(());
    }
    rustix::process::setsid()?;
    sys::close_others()?;
    let exe = std::fs::read_link("/proc/self/exe")?;
    let binary = sys::open_tree(&exe, false)?;
    sys::set_mount(&binary, false, libc::MOUNT_ATTR_RDONLY, 0)?;
    let (name, dir) = (sys::c_path(&exe)?, sys::c_path(dir)?);
    let (word, sealed) = (sys::c_text(MONITOR)?, sys::c_text(SEALED)?);
    let error = sys::execute(&binary, &[&name, &word, &dir, &sealed]);
    let _ = io::stdout().write_all(format!("cannot execute {}: {error}\n", exe.display()).as_bytes());
    sys::exit_now(1)
}

/// Takes the pipe on which the agent waits, and gives up the standard descriptors.
fn take_over_ready() -> io::Result<OwnedFd> {
    sys::close_others()?;
    let ready = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let null = OwnedFd::from(null);
    for number in [0, 1] {
        init::set_standard(&null, number).map_err(|_| io::Error::last_os_error())?;
    }
    std::env::set_current_dir("/")?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    Ok(ready)
}

fn run(pod: &Pod, ready: OwnedFd) -> ExitCode {
    let mut ready = std::fs::File::from(ready);
    let sandbox = match sandbox::Sandbox::make(pod.clone()) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            let _ = ready.write_all(format!("{error}\n").as_bytes());
            return ExitCode::FAILURE;
        }
    };
    let _ = ready.write_all(READY.as_bytes());
    drop(ready);
    match server::Server::new(sandbox).serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(pod, &format!("the monitor ends: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes a line for whoever looks into why a monitor did what it did.
pub(crate) fn complain(pod: &Pod, line: &str) {
    append(&pod.complaints(), &format!("{line}\n"));
}

fn append(path: &Path, text: &str) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(text.as_bytes()));
}
