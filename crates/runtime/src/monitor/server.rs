//! The monitor's loop: sleeps until a process ends, prints or reports, or an agent asks; then does one thing each.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use model::fence::Deadline;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::monitor::container::Container;
use crate::monitor::exec::Exec;
use crate::monitor::fence::Fence;
use crate::monitor::init::{Fault, Stdio};
use crate::monitor::output::Stream;
use crate::monitor::process::{Process, Progress};
use crate::monitor::sandbox::Sandbox;
use crate::monitor::seed::Seed;
use crate::monitor::shutdown::Shutdown;
use crate::wire::{self, Event, ExecStart, FromMonitor, Inbox, Reply, Request, StartSpec};
use crate::{monitor, sys};

/// Connections at once: one agent with its streams; an agent's excess waits in the kernel's queue.
const CONNS_MAX: usize = 256;
/// Messages that wait for an agent that does not read; then it is cut off, and asks anew.
const OUTBOX_LEN_MAX: usize = 1024;
/// Runs of containers kept in mind; an agent removes old ones long before.
const CONTAINERS_MAX: usize = 1024;
/// How often removing the sandbox is tried while the kernel lets go of its last processes, and how long apart:
/// two seconds in all.
const UNMAKE_TRIES: usize = 400;
const UNMAKE_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Why nothing is started after the deadline.
const FENCED: &str = "fenced: the node's lease has run out";
/// Why nothing is started while that is not known yet.
const SHUTTING: &str = "fenced: the file systems of its volumes are being shut down";

/// One connection of an agent.
struct Conn {
    socket: UnixStream,
    inbox: Inbox,
    outbox: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
    subscribed: bool,
}

/// What there is to wait for.
enum Source {
    Listener,
    Deadline,
    Shut,
    Conn(u64),
    Report(String),
    Ended(String),
    Output(String, Stream),
    ExecReport(u64),
    ExecEnded(u64),
}

/// The monitor's state.
pub(crate) struct Server {
    sandbox: Sandbox,
    conns: BTreeMap<u64, Conn>,
    containers: BTreeMap<String, Container>,
    execs: BTreeMap<u64, Exec>,
    seed: Option<Seed>,
    next: u64,
    quitting: Option<(u64, u64)>,
    fence: Option<Fence>,
    shutdown: Shutdown,
}

impl Server {
    /// A monitor of a sandbox without containers.
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        let (conns, containers, execs) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let deadline = sandbox.file.spec.fence;
        let mut server = Self {
            sandbox,
            conns,
            containers,
            execs,
            seed: None,
            next: 1,
            quitting: None,
            fence: None,
            shutdown: Shutdown::default(),
        };
        server.sow();
        server.fence = deadline.and_then(|deadline| match Fence::new(deadline) {
            Ok(fence) => Some(fence),
            Err(error) => {
                // Without a clock to watch it must not start anything: an epoch that nobody has, and no time left.
                monitor::complain(&server.sandbox.pod, &format!("cannot watch the deadline: {error}"));
                server.quitting.get_or_insert((0, 0));
                None
            }
        });
        server
    }

    /// Serves until the sandbox is removed.
    pub(crate) fn serve(mut self) -> io::Result<()> {
        loop {
            if let Some(asked_by) = self.quitting
                && self.is_empty()
            {
                return self.finish(asked_by);
            }
            for (source, flags) in self.wait()? {
                self.handle(source, flags);
            }
        }
    }

    /// Whether nothing is under way any more. Whoever removes the sandbox takes the volumes down next, which flushes them:
    /// not before those that are to be shut down are.
    fn is_empty(&self) -> bool {
        self.execs.is_empty()
            && self.shutdown.pidfd().is_none()
            && self.containers.values().all(|container| container.process.is_none())
    }

    fn wait(&self) -> io::Result<Vec<(Source, PollFlags)>> {
        let mut sources = Vec::new();
        let mut fds = Vec::new();
        self.each_source(|source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        });
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            done => done?,
        };
        let flags: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        Ok(sources.into_iter().zip(flags).filter(|(_, flags)| !flags.is_empty()).collect())
    }

    /// Names everything to wait for. Ends of processes come last, so that what they said before is taken first.
    fn each_source<'a>(&'a self, mut each: impl FnMut(Source, BorrowedFd<'a>, PollFlags)) {
        if self.conns.len() < CONNS_MAX {
            each(Source::Listener, self.sandbox.listener.as_fd(), PollFlags::IN);
        }
        if let Some(fence) = &self.fence {
            each(Source::Deadline, fence.timer.as_fd(), PollFlags::IN);
        }
        if let Some(pidfd) = self.shutdown.pidfd() {
            each(Source::Shut, pidfd.as_fd(), PollFlags::IN);
        }
        for (number, conn) in &self.conns {
            let out = if conn.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            each(Source::Conn(*number), conn.socket.as_fd(), PollFlags::IN | out);
        }
        for (id, container) in &self.containers {
            for (stream, fd) in container.outputs() {
                each(Source::Output(id.clone(), stream), fd.as_fd(), PollFlags::IN);
            }
            let Some(process) = &container.process else { continue };
            match &process.report {
                Some(report) => each(Source::Report(id.clone()), report.as_fd(), PollFlags::IN),
                None => each(Source::Ended(id.clone()), process.pidfd.as_fd(), PollFlags::IN),
            }
        }
        for (number, exec) in &self.execs {
            match &exec.process.report {
                Some(report) => each(Source::ExecReport(*number), report.as_fd(), PollFlags::IN),
                None => each(Source::ExecEnded(*number), exec.process.pidfd.as_fd(), PollFlags::IN),
            }
        }
    }

    fn handle(&mut self, source: Source, flags: PollFlags) {
        match source {
            Source::Listener => self.accept(),
            Source::Deadline => self.take_deadline(),
            Source::Shut => self.shutdown.take_end(),
            Source::Conn(number) => self.serve_conn(number, flags),
            Source::Report(id) => self.take_report(&id),
            Source::Ended(id) => self.take_end(&id),
            Source::Output(id, stream) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.take_output(&self.sandbox, stream);
                }
            }
            Source::ExecReport(number) => self.take_exec_report(number),
            Source::ExecEnded(number) => self.take_exec_end(number),
        }
    }

    fn accept(&mut self) {
        let Ok((socket, _)) = self.sandbox.listener.accept() else { return };
        if socket.set_nonblocking(true).is_ok() {
            let conn = Conn { socket, inbox: Inbox::default(), outbox: VecDeque::new(), subscribed: false };
            self.conns.insert(self.next, conn);
            self.next += 1;
        }
    }

    fn serve_conn(&mut self, number: u64, flags: PollFlags) {
        if flags.contains(PollFlags::OUT) {
            self.flush(number);
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        let Some(conn) = self.conns.get_mut(&number) else { return };
        match conn.inbox.read(conn.socket.as_fd()) {
            Ok(0) => return self.hang_up(number),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return self.hang_up(number),
            _ => {}
        }
        loop {
            let Some(conn) = self.conns.get_mut(&number) else { return };
            match conn.inbox.next::<Request>() {
                Ok(Some(frame)) => self.answer(number, frame.id, frame.body),
                Ok(None) => return,
                Err(error) => {
                    monitor::complain(&self.sandbox.pod, &format!("a message is no request: {error}"));
                    return self.hang_up(number);
                }
            }
        }
    }

    fn hang_up(&mut self, number: u64) {
        self.conns.remove(&number);
        for exec in self.execs.values().filter(|exec| exec.asked_by.0 == number && exec.kill_on_hangup) {
            exec.process.kill();
        }
    }

    fn answer(&mut self, conn: u64, request: u64, body: Request) {
        let (reply, fd) = match body {
            Request::Start(start) => return self.start(conn, request, *start),
            Request::Exec(wish) => return self.exec(conn, request, &wish),
            Request::Attach { id, stdin } => self.attach(conn, &id, stdin),
            Request::Signal { id, signal } => (self.signal(&id, signal), None),
            Request::Remove { id } => (self.remove(&id), None),
            Request::Resize { id, resources } => (self.resize(&id, resources), None),
            Request::Socket { ipv6 } => socket(ipv6),
            Request::Fence { deadline } => (self.extend(deadline), None),
            Request::List => (self.list(), None),
            Request::Subscribe => (self.subscribe(conn), None),
            Request::Quit => return self.quit(conn, request),
        };
        self.reply(conn, request, reply, fd);
    }

    fn start(&mut self, conn: u64, request: u64, start: StartSpec) {
        let id = start.id.clone();
        if self.containers.contains_key(&id)
            || self.containers.len() >= CONTAINERS_MAX
            || self.quitting.is_some()
        {
            let why = "the container exists, there are too many, or the sandbox goes";
            return self.reply(conn, request, Reply::Failed(why.to_owned()), None);
        }
        if self.is_fenced() {
            return self.reply(conn, request, Reply::Failed(FENCED.to_owned()), None);
        }
        match self.shutdown {
            Shutdown::Untouched => {}
            Shutdown::Working(_) => {
                return self.reply(conn, request, Reply::Failed(SHUTTING.to_owned()), None);
            }
            Shutdown::Done => return self.reply(conn, request, Reply::Shut, None),
        }
        self.sow();
        let Some(seed) = self.seed.take() else {
            return self.reply(conn, request, Reply::Failed("no process can be started".to_owned()), None);
        };
        match Container::create(&self.sandbox, start, seed) {
            Ok(mut container) => {
                container.waiting = Some((conn, request));
                self.containers.insert(id, container);
            }
            Err(refused) => {
                let (seed, fault) = *refused;
                seed.discard();
                self.reply(conn, request, fault_reply(fault), None);
            }
        }
    }

    /// The node may run this pod until then.
    fn extend(&mut self, deadline: Deadline) -> Reply {
        let Some(fence) = &mut self.fence else { return Reply::Done };
        match fence.take(deadline) {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    /// Kills what runs when the deadline has passed, and has the file systems of its volumes shut down.
    fn take_deadline(&mut self) {
        let Some(fence) = &mut self.fence else { return };
        fence.silence();
        if !fence.has_passed() {
            return;
        }
        monitor::complain(&self.sandbox.pod, "fenced: the node's lease has run out");
        for container in self.containers.values().filter(|container| container.process.is_some()) {
            container.process.iter().for_each(Process::kill);
            container.group().kill();
        }
        self.execs.values().for_each(|exec| exec.process.kill());
        let mut volumes: Vec<_> = self
            .containers
            .values()
            .filter_map(|container| container.record.spec.exclusive.clone())
            .collect();
        volumes.sort();
        volumes.dedup();
        // SAFETY: the monitor has one thread.
        unsafe { self.shutdown.begin(&self.sandbox.pod, &volumes) };
    }

    fn is_fenced(&self) -> bool {
        self.fence.as_ref().is_some_and(Fence::has_passed)
    }

    /// Starts the process that waits to become the next container, unless there is one that lives.
    fn sow(&mut self) {
        if self.quitting.is_some() {
            return;
        }
        if let Some(seed) = self.seed.take_if(|seed| !seed.lives()) {
            seed.discard();
        }
        if self.seed.is_none() {
            self.next += 1;
            match Seed::sow(&self.sandbox, self.next) {
                Ok(seed) => self.seed = Some(seed),
                Err(error) => {
                    monitor::complain(&self.sandbox.pod, &format!("cannot start a process: {error}"))
                }
            }
        }
    }

    fn take_report(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(process) = &mut container.process else { return };
        match process.take_reports() {
            Ok(Progress::Preparing) => {}
            Ok(Progress::Runs) => {
                let warnings = std::mem::take(&mut process.warnings);
                self.started(id, warnings);
            }
            Ok(Progress::Failed(fault)) => self.failed_start(id, fault),
            Err(error) => self.failed_start(id, Fault::Failed(format!("cannot read its report: {error}"))),
        }
    }

    fn started(&mut self, id: &str, warnings: Vec<String>) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if let Err(error) = container.started(&self.sandbox) {
            monitor::complain(&self.sandbox.pod, &format!("cannot write the state of {id}: {error}"));
        }
        let pid = container.record.pid;
        let started_at = container.record.started_at.unwrap_or(container.record.created_at);
        if let Some((conn, request)) = container.waiting.take() {
            let group = container.record.group.clone();
            self.reply(conn, request, Reply::Started { pid, started_at, group, warnings }, None);
        }
        self.sow();
    }

    fn failed_start(&mut self, id: &str, fault: Fault) {
        let Some(mut container) = self.containers.remove(id) else { return };
        if let Some(process) = container.process.take() {
            process.kill();
            wait_for(&process);
        }
        container.discard(&self.sandbox.pod);
        if let Some((conn, request)) = container.waiting {
            self.reply(conn, request, fault_reply(fault), None);
        }
    }

    fn take_end(&mut self, id: &str) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let Some(Ok(Some(ended))) = container.process.as_ref().map(Process::reap) else { return };
        container.ended(&self.sandbox, ended);
        let event = || Event::Exited { id: id.to_owned(), record: Box::new(container.record.clone()) };
        let subscribed: Vec<u64> =
            self.conns.iter().filter(|(_, conn)| conn.subscribed).map(|(n, _)| *n).collect();
        let events: Vec<_> = subscribed.into_iter().map(|number| (number, event())).collect();
        for (number, event) in events {
            self.send(number, 0, FromMonitor::Event(event), None);
        }
        // After the news, because it takes a while.
        if let Some(container) = self.containers.get(id) {
            container.leave_group(&self.sandbox.pod);
        }
    }

    fn exec(&mut self, conn: u64, request: u64, wish: &ExecStart) {
        let Some(inbox) = self.conns.get_mut(&conn).map(|conn| &mut conn.inbox) else { return };
        let mut stdio = Stdio::default();
        if !wish.tty {
            stdio.stdin = if wish.stdin { inbox.next_fd() } else { None };
            (stdio.stdout, stdio.stderr) = (inbox.next_fd(), inbox.next_fd());
        }
        let is_fenced = self.fence.as_ref().is_some_and(Fence::has_passed);
        let Some(container) =
            self.containers.get(&wish.id).filter(|container| container.has_started() && !is_fenced)
        else {
            return self.reply(conn, request, Reply::NotFound(wish.id.clone()), None);
        };
        match Exec::start(&self.sandbox, container, wish, stdio, (conn, request)) {
            Ok(exec) => {
                self.execs.insert(self.next, exec);
                self.next += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.reply(conn, request, Reply::NotFound(wish.id.clone()), None);
            }
            Err(error) => self.reply(conn, request, Reply::Failed(error.to_string()), None),
        }
    }

    fn take_exec_report(&mut self, number: u64) {
        let Some(exec) = self.execs.get_mut(&number) else { return };
        let (conn, request) = exec.asked_by;
        match exec.process.take_reports() {
            Ok(Progress::Preparing) => {}
            Ok(Progress::Runs) if !exec.announced => {
                exec.announced = true;
                let pid = exec.process.pid as u32;
                let terminal = exec.process.terminal.take();
                let (started_at, group, warnings) = (self.sandbox.clock.now(), String::new(), Vec::new());
                let started = Reply::Started { pid, started_at, group, warnings };
                self.reply(conn, request, started, terminal);
            }
            Ok(Progress::Runs) => {}
            Ok(Progress::Failed(fault)) => self.reply(conn, request, fault_reply(fault), None),
            Err(error) => self.reply(conn, request, Reply::Failed(error.to_string()), None),
        }
    }

    fn take_exec_end(&mut self, number: u64) {
        let Some(exec) = self.execs.get(&number) else { return };
        let Ok(Some(ended)) = exec.process.reap() else { return };
        let Some(exec) = self.execs.remove(&number) else { return };
        if exec.announced {
            let (conn, request) = exec.asked_by;
            self.reply(conn, request, Reply::ExecEnded { code: ended.code }, None);
        }
    }

    fn attach(&mut self, conn: u64, id: &str, stdin: bool) -> (Reply, Option<OwnedFd>) {
        let Some(conn) = self.conns.get_mut(&conn) else { return (Reply::NoInput, None) };
        let taps = [(Stream::Stdout, conn.inbox.next_fd()), (Stream::Stderr, conn.inbox.next_fd())];
        let Some(container) = self.containers.get_mut(id).filter(|container| container.process.is_some())
        else {
            return (Reply::NotFound(id.to_owned()), None);
        };
        for (stream, pipe) in taps {
            if let Some(pipe) = pipe {
                container.tap(stream, pipe);
            }
        }
        match container.input(stdin) {
            Ok(Some(fd)) => (Reply::Descriptor, Some(fd)),
            Ok(None) => (Reply::NoInput, None),
            Err(error) => (Reply::Failed(error.to_string()), None),
        }
    }

    fn signal(&mut self, id: &str, signal: i32) -> Reply {
        let Some(container) = self.containers.get(id) else { return Reply::NotFound(id.to_owned()) };
        let Some(process) = &container.process else { return Reply::Done };
        match sys::signal(process.pidfd.as_fd(), signal) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Reply::Failed(error.to_string()),
            _ => Reply::Done,
        }
    }

    fn remove(&mut self, id: &str) -> Reply {
        match self.containers.get(id) {
            Some(container) if container.process.is_some() => Reply::Failed("it runs".to_owned()),
            Some(container) => {
                container.leave_group(&self.sandbox.pod);
                self.containers.remove(id);
                Reply::Done
            }
            None => Reply::Done,
        }
    }

    fn resize(&mut self, id: &str, resources: crate::Resources) -> Reply {
        if id.is_empty() {
            return match self.sandbox.resize(resources) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Failed(error.to_string()),
            };
        }
        let Some(container) = self.containers.get_mut(id).filter(|container| container.process.is_some())
        else {
            return Reply::NotFound(id.to_owned());
        };
        match container.resize(&self.sandbox, resources) {
            Ok(()) => Reply::Done,
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    fn list(&self) -> Reply {
        let started = self.containers.values().filter(|container| container.has_started());
        Reply::List(started.map(|container| container.record.clone()).collect())
    }

    fn subscribe(&mut self, conn: u64) -> Reply {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.subscribed = true;
        }
        Reply::Done
    }

    fn quit(&mut self, conn: u64, request: u64) {
        self.quitting = Some((conn, request));
        if let Some(seed) = self.seed.take() {
            seed.discard();
        }
        for process in self.containers.values().filter_map(|container| container.process.as_ref()) {
            process.kill();
        }
        for exec in self.execs.values() {
            exec.process.kill();
        }
        self.sandbox.group.kill();
    }

    fn finish(mut self, (conn, request): (u64, u64)) -> io::Result<()> {
        let mut done = self.sandbox.unmake();
        for _ in 0..UNMAKE_TRIES {
            if done.is_ok() {
                break;
            }
            let _ = poll(&mut [], Some(&UNMAKE_PAUSE));
            done = self.sandbox.unmake();
        }
        let reply = done.as_ref().err().map_or(Reply::Done, |error| Reply::Failed(error.to_string()));
        self.reply(conn, request, reply, None);
        done
    }

    fn reply(&mut self, conn: u64, request: u64, reply: Reply, fd: Option<OwnedFd>) {
        self.send(conn, request, FromMonitor::Reply(reply), fd);
    }

    fn send(&mut self, number: u64, id: u64, message: FromMonitor, fd: Option<OwnedFd>) {
        let Some(conn) = self.conns.get_mut(&number) else { return };
        let Ok(bytes) = wire::encode(id, message) else { return };
        conn.outbox.push_back((bytes, fd));
        if conn.outbox.len() > OUTBOX_LEN_MAX {
            return self.hang_up(number);
        }
        self.flush(number);
    }

    fn flush(&mut self, number: u64) {
        let Some(conn) = self.conns.get_mut(&number) else { return };
        while let Some((bytes, fd)) = conn.outbox.front_mut() {
            let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
            match wire::send(conn.socket.as_fd(), bytes, &fds) {
                Ok(len) if len == bytes.len() => drop(conn.outbox.pop_front()),
                Ok(len) => {
                    bytes.drain(..len);
                    *fd = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.hang_up(number),
            }
        }
    }
}

/// Waits for a killed child; it has no way to refuse.
fn wait_for(process: &Process) {
    let mut fds = [PollFd::new(&process.pidfd, PollFlags::IN)];
    let _ = rustix::io::retry_on_intr(|| poll(&mut fds, None));
    let _ = process.reap();
}

fn fault_reply(fault: Fault) -> Reply {
    match fault {
        Fault::Config(why) => Reply::Config(why),
        Fault::Start(why) => Reply::Start(why),
        Fault::Failed(why) => Reply::Failed(why),
    }
}

fn socket(ipv6: bool) -> (Reply, Option<OwnedFd>) {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let family = if ipv6 { AddressFamily::INET6 } else { AddressFamily::INET };
    match socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None) {
        Ok(fd) => (Reply::Descriptor, Some(fd)),
        Err(error) => (Reply::Failed(error.to_string()), None),
    }
}
