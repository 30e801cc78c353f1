//! The child's side of a start: from learning what to become to `execve`. Runs as the container's first process.
//!
//! Promises: whatever cannot be applied (a mount, a limit, a system call filter) refuses the container; nothing is
//! skipped but the right to lower `oom_score_adj`, of which a warning goes out. Never returns into the monitor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroups;
use crate::layout::Pod;
use crate::monitor::identity::{self, Identity};
use crate::monitor::{program, rootfs, terminal};
use crate::seccomp;
use crate::sys;
use crate::wire::{self, StartSpec};
use crate::{ContainerSpec, SandboxSpec};

/// What a child tells its monitor before its program runs. The end of the stream means: it runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The master end of its terminal comes along.
    Terminal,
    /// Something tolerable.
    Warning(String),
    /// It failed.
    Fault(Fault),
}

/// Why a child could not start its program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Fault {
    /// The specification is at fault.
    Config(String),
    /// The program is at fault.
    Start(String),
    /// The kernel refused.
    Failed(String),
}

/// Adds what was being done to an error of the kernel.
pub(crate) fn failed(doing: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Fault {
    move |error| Fault::Failed(format!("cannot {doing}: {error}"))
}

/// The three standard descriptors of a new process; `None` for `/dev/null` or the terminal.
#[derive(Debug, Default)]
pub(crate) struct Stdio {
    /// Standard input.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
}

/// Everything the first process needs to know.
pub(crate) struct Init<'a> {
    /// What to start.
    pub start: &'a StartSpec,
    /// The sandbox it is in.
    pub sandbox: &'a SandboxSpec,
    /// The sandbox's paths.
    pub pod: &'a Pod,
    /// The machine's control groups.
    pub cgroups: &'a Cgroups,
    /// Its standard descriptors.
    pub stdio: Stdio,
    /// Where to report.
    pub report: &'a UnixStream,
}

impl Init<'_> {
    /// Becomes the container's program, or says why not.
    pub(crate) fn prepare_and_exec(self) -> Result<std::convert::Infallible, Fault> {
        let spec = &self.start.spec;
        set_oom_score(self.report, spec);
        let filter = seccomp::compile(spec).map_err(Fault::Config)?;
        rootfs::Rootfs { start: self.start, sandbox: self.sandbox, pod: self.pod, cgroups: self.cgroups }
            .enter()?;
        let identity = identity::resolve(&spec.security, &self.start.image_user)?;
        terminal::connect(self.stdio, spec.tty, true, self.report, &identity)?;
        let cwd = if spec.working_dir.is_empty() { "/" } else { &spec.working_dir };
        std::fs::create_dir_all(cwd).map_err(failed(format!("make the working directory {cwd}")))?;
        rootfs::seal(spec)?;
        become_program(spec, &identity, &filter, &spec.args, self.sandbox)
    }
}

/// Takes on user, capabilities and filter, and executes `args`. Shared by first processes and `exec`.
pub(crate) fn become_program(
    spec: &ContainerSpec,
    identity: &Identity,
    filter: &seccomp::Filters,
    args: &[String],
    sandbox: &SandboxSpec,
) -> Result<std::convert::Infallible, Fault> {
    let env = program::environment(spec, identity, sandbox);
    let strict = spec.security.no_new_privileges;
    if !strict {
        filter.apply().map_err(failed("apply the system call filter"))?;
    }
    identity.take_on(&spec.security)?;
    let cwd = if spec.working_dir.is_empty() { "/" } else { &spec.working_dir };
    enter(cwd).map_err(|error| Fault::Start(format!("cannot enter the working directory {cwd}: {error}")))?;
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .map_err(failed("bind to the monitor"))?;
    sys::close_others_on_exec().map_err(failed("close descriptors"))?;
    if strict {
        sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map_err(failed("set no_new_privs"))?;
        filter.apply().map_err(failed("apply the system call filter"))?;
    }
    Err(program::execute(args, &env))
}

/// Gives up what is the monitor's: its descriptors, session and signals; and lets nothing in the container look into
/// this process before its program runs.
pub(crate) fn part_from_monitor(
    report: &UnixStream,
    stdio: &Stdio,
    also: Option<&OwnedFd>,
) -> Result<(), Fault> {
    sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(failed("close this process to others"))?;
    let streams = [&stdio.stdin, &stdio.stdout, &stdio.stderr].into_iter().flatten();
    let mut kept: Vec<_> = streams.chain(also).map(OwnedFd::as_raw_fd).collect();
    kept.push(report.as_raw_fd());
    sys::close_all_but(&mut kept).map_err(failed("close the monitor's descriptors"))?;
    sys::reset_signals();
    rustix::process::setsid().map(drop).map_err(|error| failed("begin a session")(error.into()))
}

/// Enters a directory of the container, and none that a descriptor or `/proc` would lead to outside.
fn enter(dir: &str) -> io::Result<()> {
    std::env::set_current_dir(dir)?;
    let real = std::env::current_dir()?;
    if real.is_absolute() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is outside"))
    }
}

/// Reports a fault and ends the process.
pub(crate) fn end_with(report: &UnixStream, fault: Result<std::convert::Infallible, Fault>) -> ! {
    let Err(fault) = fault;
    send(report, Report::Fault(fault), None);
    sys::exit_now(128)
}

/// Sends a report; there is nobody to tell when that fails.
pub(crate) fn send(report: &UnixStream, message: Report, fd: Option<&OwnedFd>) {
    let Ok(bytes) = wire::encode(0, message) else { return };
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    let _ = wire::send(report.as_fd(), &bytes, &fds);
}

/// Sets the score asked for; without one, the usual score instead of the monitor's own.
fn set_oom_score(report: &UnixStream, spec: &ContainerSpec) {
    let wanted = spec.resources.oom_score_adj;
    let done = std::fs::write("/proc/self/oom_score_adj", wanted.unwrap_or(0).to_string());
    if let (Some(score), Err(error)) = (wanted, done) {
        send(report, Report::Warning(format!("oom_score_adj {score} was refused: {error}")), None);
    }
}

/// Makes `fd` one of the standard descriptors.
pub(crate) fn set_standard(fd: &OwnedFd, number: i32) -> Result<(), Fault> {
    // SAFETY: both are descriptors of ours; the standard ones belong to nobody else in this process.
    sys::check(unsafe { libc::dup2(fd.as_raw_fd(), number) })
        .map(drop)
        .map_err(failed("set up standard descriptors"))
}

/// Whether a path exists, symlinks not followed.
pub(crate) fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
