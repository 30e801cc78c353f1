//! A child of the monitor, from `clone3` until it is collected: a container's first process or an `exec`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::monitor::init::{Fault, Report};
use crate::sys::{self, Child, Ended};
use crate::wire::Inbox;

/// A child.
pub(crate) struct Process {
    /// Its id in the node's terms.
    pub pid: i32,
    /// Readable when it ended.
    pub pidfd: OwnedFd,
    /// What it says before its program runs; `None` afterwards.
    pub report: Option<UnixStream>,
    inbox: Inbox,
    /// Tolerable lacks it told of.
    pub warnings: Vec<String>,
    /// Why its program could not be started.
    pub fault: Option<Fault>,
    /// The master end of its terminal.
    pub terminal: Option<OwnedFd>,
}

/// How far a child is.
pub(crate) enum Progress {
    /// Not yet at its program.
    Preparing,
    /// Its program runs (or ran already).
    Runs,
    /// It gave up.
    Failed(Fault),
}

impl Process {
    /// A child that was just made and reports on `report`.
    pub(crate) fn new(child: Child, report: UnixStream) -> Self {
        let Child { pid, pidfd } = child;
        Self {
            pid,
            pidfd,
            report: Some(report),
            inbox: Inbox::default(),
            warnings: Vec::new(),
            fault: None,
            terminal: None,
        }
    }

    /// Takes what the child reports.
    pub(crate) fn take_reports(&mut self) -> io::Result<Progress> {
        while let Some(report) = &self.report {
            match self.inbox.read(report.as_fd()) {
                Ok(0) => self.report = None,
                Ok(_) => self.take_messages()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Preparing),
                Err(_) => self.report = None,
            }
        }
        Ok(self.fault.clone().map_or(Progress::Runs, Progress::Failed))
    }

    fn take_messages(&mut self) -> io::Result<()> {
        while let Some(frame) = self.inbox.next::<Report>()? {
            match frame.body {
                Report::Terminal => self.terminal = self.inbox.next_fd(),
                Report::Warning(warning) => self.warnings.push(warning),
                Report::Fault(fault) => self.fault = Some(fault),
            }
        }
        Ok(())
    }

    /// Collects it when it has ended.
    pub(crate) fn reap(&self) -> io::Result<Option<Ended>> {
        sys::reap(self.pidfd.as_fd())
    }

    /// Kills it; already ended counts as done.
    pub(crate) fn kill(&self) {
        let _ = sys::signal(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

/// A pair of sockets for a child's reports: the monitor's, which never blocks, and the child's.
pub(crate) fn report_pair() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours, theirs))
}

/// A pipe: what the child gets and what the monitor keeps; the monitor's end never blocks when it reads.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Lets no call on `fd` block.
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    Ok(rustix::fs::fcntl_setfl(fd, flags | rustix::fs::OFlags::NONBLOCK)?)
}
