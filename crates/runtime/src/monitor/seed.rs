//! A process that waits in its namespaces and control group to become the next container.
//!
//! Moving a process into a group of cgroups v1 makes the kernel wait for 5 to 20 ms. Done ahead, a start does not
//! wait for it: there is always one seed more than containers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};

use crate::cgroup::Group;
use crate::monitor::init::{self, Fault, Init, Stdio, failed};
use crate::monitor::process;
use crate::monitor::sandbox::Sandbox;
use crate::sys::{self, Child};
use crate::wire::{self, Inbox, StartSpec};

/// A waiting process.
pub(crate) struct Seed {
    /// The process.
    pub child: Child,
    /// Where it waits for its container, and reports afterwards.
    pub report: UnixStream,
    /// Its group, which becomes the container's.
    pub group: Group,
    /// The group's name below the pod's.
    pub group_name: String,
}

impl Seed {
    /// Starts a waiting process in a new group.
    pub(crate) fn sow(sandbox: &Sandbox, number: u64) -> io::Result<Self> {
        let group_name = format!("c{number}");
        let group = sandbox.group.child(&group_name);
        group.create()?;
        let (report, theirs) = process::report_pair()?;
        let into = group.clone_into().map(std::fs::File::open).transpose()?;
        let own_pids = !sandbox.file.spec.host_pid && sandbox.pause.is_none();
        let flags = if own_pids { libc::CLONE_NEWPID } else { 0 };
        let join = into.is_none().then_some(&group);
        let work = || -> std::convert::Infallible { init::end_with(&theirs, grow(sandbox, join, &theirs)) };
        let into = into.as_ref().map(|file| file.as_fd());
        // SAFETY: the monitor has one thread.
        let child = sandbox.with_shared_pids(|| unsafe { sys::clone_process(flags, into, work) });
        match child {
            Ok(child) => Ok(Self { child, report, group, group_name }),
            Err(error) => {
                let _ = group.remove();
                Err(error)
            }
        }
    }

    /// Tells the process which container to become.
    pub(crate) fn tell(&self, start: &StartSpec, stdio: &Stdio) -> io::Result<()> {
        let bytes = wire::encode(0, start)?;
        let fds: Vec<_> =
            [&stdio.stdin, &stdio.stdout, &stdio.stderr].into_iter().flatten().map(AsFd::as_fd).collect();
        send_all(self.report.as_fd(), &bytes, &fds)
    }

    /// Whether it still waits.
    pub(crate) fn lives(&self) -> bool {
        let mut fds = [PollFd::new(&self.child.pidfd, PollFlags::IN)];
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut fds, Some(&at_once)), Ok(0))
    }

    /// Ends it unused.
    pub(crate) fn discard(&self) {
        let _ = sys::signal(self.child.pidfd.as_fd(), libc::SIGKILL);
        let mut fds = [PollFd::new(&self.child.pidfd, PollFlags::IN)];
        let _ = rustix::io::retry_on_intr(|| poll(&mut fds, None));
        let _ = sys::reap(self.child.pidfd.as_fd());
        let _ = self.group.remove();
    }
}

/// Sends all of a message. The other side does nothing but read, so this waits for moments only.
fn send_all(socket: BorrowedFd<'_>, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    while !bytes.is_empty() {
        match wire::send(socket, bytes, fds) {
            Ok(len) => (bytes, fds) = (&bytes[len..], &[]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
                rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The waiting process: goes where its container will be, waits to be told, and becomes it.
fn grow(
    sandbox: &Sandbox,
    join: Option<&Group>,
    report: &UnixStream,
) -> Result<std::convert::Infallible, Fault> {
    init::part_from_monitor(report, &Stdio::default(), None)?;
    sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)
        .map_err(failed("bind to the monitor"))?;
    if let Some(group) = join {
        group.join().map_err(failed("join the control group"))?;
    }
    // Kernels without this namespace show the container its group's whole path; nothing else differs.
    let _ = sys::unshare(libc::CLONE_NEWCGROUP);
    let (start, stdio) = receive(report).map_err(failed("learn what to start"))?;
    // Not before: a volume that was mounted while the process waited must be seen.
    sys::unshare(libc::CLONE_NEWNS).map_err(failed("make a mount namespace"))?;
    let (pod, cgroups) = (&sandbox.pod, &sandbox.cgroups);
    Init { start: &start, sandbox: &sandbox.file.spec, pod, cgroups, stdio, report }.prepare_and_exec()
}

fn receive(report: &UnixStream) -> io::Result<(StartSpec, Stdio)> {
    let mut inbox = Inbox::default();
    let start = loop {
        match inbox.next::<StartSpec>()? {
            Some(frame) => break frame.body,
            // The monitor gave us up.
            None if inbox.read(report.as_fd())? == 0 => sys::exit_now(0),
            None => {}
        }
    };
    let mut next = |wanted: bool| -> Option<OwnedFd> { if wanted { inbox.next_fd() } else { None } };
    let (tty, stdin) = (start.spec.tty, start.spec.stdin);
    let stdio = Stdio { stdin: next(!tty && stdin), stdout: next(!tty), stderr: next(!tty) };
    Ok((start, stdio))
}
