//! Further commands in a running container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::monitor::container::Container;
use crate::monitor::init::{self, Fault, Stdio, failed};
use crate::monitor::process::{self, Process};
use crate::monitor::sandbox::Sandbox;
use crate::monitor::{identity, terminal};
use crate::wire::ExecStart;
use crate::{seccomp, sys};

/// A command on its way.
pub(crate) struct Exec {
    /// Its process.
    pub process: Process,
    /// Who asked: connection and request.
    pub asked_by: (u64, u64),
    /// Whether it is killed when the connection closes.
    pub kill_on_hangup: bool,
    /// Whether the answer that it runs was given.
    pub announced: bool,
}

impl Exec {
    /// Starts a command in a container.
    pub(crate) fn start(
        sandbox: &Sandbox,
        container: &Container,
        wish: &ExecStart,
        stdio: Stdio,
        asked_by: (u64, u64),
    ) -> io::Result<Self> {
        let Some(first) = &container.process else { return Err(io::ErrorKind::NotFound.into()) };
        let (ours, theirs) = process::report_pair()?;
        let group = container.group();
        let into = group.clone_into().map(std::fs::File::open).transpose()?;
        let inside =
            Inside { sandbox, container, first: &first.pidfd, wish, report: &theirs, join: into.is_none() };
        let work = || -> std::convert::Infallible {
            let done = inside.run(stdio);
            init::end_with(&theirs, done)
        };
        let into = into.as_ref().map(|file| file.as_fd());
        // SAFETY: the monitor has one thread.
        let child = sandbox.with_pids_of(&first.pidfd, || unsafe { sys::clone_process(0, into, work) })?;
        let process = Process::new(child, ours);
        Ok(Self { process, asked_by, kill_on_hangup: wish.kill_on_hangup, announced: false })
    }
}

/// What the child of an `exec` needs to know.
struct Inside<'a> {
    sandbox: &'a Sandbox,
    container: &'a Container,
    first: &'a OwnedFd,
    wish: &'a ExecStart,
    report: &'a UnixStream,
    join: bool,
}

impl Inside<'_> {
    /// Enters the container and becomes the program.
    fn run(&self, stdio: Stdio) -> Result<std::convert::Infallible, Fault> {
        let spec = &self.container.record.spec;
        init::part_from_monitor(self.report, &stdio, Some(self.first))?;
        if self.join {
            self.container.group().join().map_err(failed("join the control group"))?;
        }
        let filter = seccomp::compile(spec).map_err(Fault::Config)?;
        let both = libc::CLONE_NEWNS | libc::CLONE_NEWCGROUP;
        sys::setns(self.first.as_fd(), both).map_err(failed("enter the container"))?;
        let identity = identity::resolve(&spec.security, &self.container.image_user)?;
        terminal::connect(stdio, self.wish.tty, false, self.report, &identity)?;
        init::become_program(spec, &identity, &filter, &self.wish.command, &self.sandbox.file.spec)
    }
}
