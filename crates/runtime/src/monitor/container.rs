//! One run of a container in its monitor: making it, its streams, its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::ContainerSpec;
use crate::cgroup::Group;
use crate::layout::Pod;
use crate::monitor::init::{Fault, Stdio, failed};
use crate::monitor::output::{Log, Stream, Tap};
use crate::monitor::process::{self, Process};
use crate::monitor::rootfs;
use crate::monitor::sandbox::Sandbox;
use crate::monitor::seed::Seed;
use crate::sys::{self, Ended};
use crate::wire::{self, ContainerRecord, ExitRecord, StartSpec};

/// Bytes taken from a stream at once.
const READ_LEN: usize = 16 << 10;
/// Reads of a stream in one turn: no container keeps the others waiting for longer than a quarter of a MiB.
const READS_PER_TURN: usize = 16;
/// Reads of a stream after its end: a pipe holds 64 KiB, more is not ours.
const READS_AT_END: usize = 64;
/// Bytes of a termination message, as Kubernetes has it.
const MESSAGE_LEN_MAX: u64 = 4096;

/// One run of a container.
pub(crate) struct Container {
    /// What is written down of it.
    pub record: ContainerRecord,
    /// Its process; `None` when it has ended.
    pub process: Option<Process>,
    /// The connection and request that wait for its start.
    pub waiting: Option<(u64, u64)>,
    /// The image's user, for `exec`.
    pub image_user: String,
    group: Group,
    stdin: Option<OwnedFd>,
    outputs: Vec<(Stream, OwnedFd)>,
    log: Log,
    taps: Vec<Tap>,
}

impl Container {
    /// Makes a container of a waiting process, which now prepares itself. The process comes back when that fails.
    pub(crate) fn create(
        sandbox: &Sandbox,
        start: StartSpec,
        seed: Seed,
    ) -> Result<Self, Box<(Seed, Fault)>> {
        match Self::prepare(sandbox, &start, &seed) {
            Ok(container) => container.spawn(sandbox, &start, seed),
            Err(fault) => {
                let _ = std::fs::remove_dir_all(sandbox.pod.container(&start.id));
                Err(Box::new((seed, fault)))
            }
        }
    }

    fn prepare(sandbox: &Sandbox, start: &StartSpec, seed: &Seed) -> Result<Self, Fault> {
        let (pod, spec) = (&sandbox.pod, &start.spec);
        let dir = pod.container(&start.id);
        let group = seed.group.clone();
        let record = ContainerRecord {
            id: start.id.clone(),
            spec: spec.clone(),
            created_at: sandbox.clock.now(),
            pid: 0,
            started_at: None,
            exit: None,
            group: seed.group_name.clone(),
        };
        for part in ["upper", "work", "root"] {
            std::fs::create_dir_all(dir.join(part)).map_err(failed("make the container's folder"))?;
        }
        let log = Log::open(&pod.log(&spec.name, spec.attempt), spec.log_len_max, spec.log_files_max);
        let log = log.map_err(failed("open the container's log"))?;
        write_record(pod, &record).map_err(failed("write the container's state"))?;
        set_up(&group, start).map_err(failed("make the container's control group"))?;
        Ok(Self {
            record,
            process: None,
            waiting: None,
            image_user: start.image_user.clone(),
            group,
            stdin: None,
            outputs: Vec::new(),
            log,
            taps: Vec::new(),
        })
    }

    fn spawn(mut self, sandbox: &Sandbox, start: &StartSpec, seed: Seed) -> Result<Self, Box<(Seed, Fault)>> {
        let told = self.make_streams(&start.spec).and_then(|stdio| seed.tell(start, &stdio));
        if let Err(error) = told {
            let _ = std::fs::remove_dir_all(sandbox.pod.container(&start.id));
            return Err(Box::new((seed, failed("start a process")(error))));
        }
        self.record.pid = seed.child.pid as u32;
        self.process = Some(Process::new(seed.child, seed.report));
        Ok(self)
    }

    /// Makes the pipes, keeps our ends, and gives those of the process.
    fn make_streams(&mut self, spec: &ContainerSpec) -> io::Result<Stdio> {
        let mut stdio = Stdio::default();
        if spec.tty {
            return Ok(stdio);
        }
        let ((out, out_child), (err, err_child)) = (process::pipe()?, process::pipe()?);
        process::set_nonblocking(&out)?;
        process::set_nonblocking(&err)?;
        self.outputs = vec![(Stream::Stdout, out), (Stream::Stderr, err)];
        (stdio.stdout, stdio.stderr) = (Some(out_child), Some(err_child));
        if spec.stdin {
            let (child, stdin) = process::pipe()?;
            (stdio.stdin, self.stdin) = (Some(child), Some(stdin));
        }
        Ok(stdio)
    }

    /// Its program runs.
    pub(crate) fn started(&mut self, sandbox: &Sandbox) -> io::Result<()> {
        self.record.started_at = Some(sandbox.clock.now());
        let terminal = self.process.as_ref().and_then(|process| process.terminal.as_ref());
        if let Some(terminal) = terminal {
            process::set_nonblocking(terminal)?;
            self.outputs = vec![(Stream::Stdout, terminal.try_clone()?)];
        }
        write_record(&sandbox.pod, &self.record)
    }

    /// Whether its program has been started.
    pub(crate) fn has_started(&self) -> bool {
        self.record.started_at.is_some()
    }

    /// The streams that have not ended.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = (Stream, &OwnedFd)> {
        self.outputs.iter().map(|(stream, fd)| (*stream, fd))
    }

    /// Takes what a stream holds now.
    pub(crate) fn take_output(&mut self, sandbox: &Sandbox, stream: Stream) {
        self.read(sandbox, stream, READS_PER_TURN);
    }

    fn read(&mut self, sandbox: &Sandbox, stream: Stream, reads_max: usize) {
        let mut buffer = [0; READ_LEN];
        for _ in 0..reads_max {
            let Some((_, fd)) = self.outputs.iter().find(|(known, _)| *known == stream) else { return };
            match rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut buffer)) {
                Err(rustix::io::Errno::AGAIN) => return,
                // A terminal whose other end is closed gives an error, a pipe gives nothing.
                Ok(0) | Err(_) => return self.end_output(sandbox, stream),
                Ok(len) => {
                    self.log.take(stream, &buffer[..len], sandbox.clock.now());
                    self.taps.retain(|tap| tap.stream != stream || tap.pass(&buffer[..len]));
                }
            }
        }
    }

    fn end_output(&mut self, sandbox: &Sandbox, stream: Stream) {
        self.log.finish(stream, sandbox.clock.now());
        self.outputs.retain(|(known, _)| *known != stream);
        self.taps.retain(|tap| tap.stream != stream);
    }

    /// Its first process has ended: takes what is left of its streams, ends what it left behind, writes it all down.
    pub(crate) fn ended(&mut self, sandbox: &Sandbox, ended: Ended) {
        let finished_at = sandbox.clock.now();
        let oom_killed = ended.code != 0 && self.group.oom_kills() > 0;
        self.group.kill();
        self.process = None;
        self.stdin = None;
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.read(sandbox, stream, READS_AT_END);
            self.end_output(sandbox, stream);
        }
        let message = self.record.spec.termination_log.as_deref().map(read_message).unwrap_or_default();
        let (code, signal) = (ended.code, ended.signal);
        self.record.exit = Some(ExitRecord { code, signal, oom_killed, finished_at, message });
        if let Err(error) = write_record(&sandbox.pod, &self.record) {
            super::complain(&sandbox.pod, &format!("cannot write the state of {}: {error}", self.record.id));
        }
    }

    /// Adds an attached reader of a stream.
    pub(crate) fn tap(&mut self, stream: Stream, pipe: OwnedFd) {
        if process::set_nonblocking(&pipe).is_ok() {
            self.taps.push(Tap { stream, pipe });
        }
    }

    /// What feeds its standard input: the terminal, or the pipe when one is open and wished.
    pub(crate) fn input(&mut self, wished: bool) -> io::Result<Option<OwnedFd>> {
        if let Some(terminal) = self.process.as_ref().and_then(|process| process.terminal.as_ref()) {
            return terminal.try_clone().map(Some);
        }
        if !wished {
            return Ok(None);
        }
        if self.record.spec.stdin_once {
            return Ok(self.stdin.take());
        }
        self.stdin.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// Changes its limits.
    pub(crate) fn resize(&mut self, sandbox: &Sandbox, resources: crate::Resources) -> io::Result<()> {
        self.group.limit(&resources, false)?;
        self.record.spec.resources = resources;
        write_record(&sandbox.pod, &self.record)
    }

    /// The group that an `exec` joins.
    pub(crate) fn group(&self) -> &Group {
        &self.group
    }

    /// Gives up its group; a process that the kernel has not let go of yet keeps it until the sandbox goes.
    pub(crate) fn leave_group(&self, pod: &Pod) {
        if let Err(error) = self.group.remove() {
            super::complain(pod, &format!("cannot remove the group of {}: {error}", self.record.id));
        }
    }

    /// Removes the traces of a container that never ran.
    pub(crate) fn discard(&self, pod: &Pod) {
        self.leave_group(pod);
        let _ = std::fs::remove_dir_all(pod.container(&self.record.id));
    }
}

fn set_up(group: &Group, start: &StartSpec) -> io::Result<()> {
    let spec = &start.spec;
    group.limit(&spec.resources, true)?;
    group.kill_as_one();
    if spec.security.privileged {
        return Ok(());
    }
    let devices: Vec<_> = spec.devices.iter().filter_map(|(source, _)| rootfs::device_of(source)).collect();
    group.allow_devices(&devices)
}

fn write_record(pod: &Pod, record: &ContainerRecord) -> io::Result<()> {
    wire::write_whole(&pod.container(&record.id).join("state.json"), record)
}

fn read_message(path: &Path) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    let done = std::fs::File::open(path).and_then(|file| file.take(MESSAGE_LEN_MAX).read_to_end(&mut text));
    if done.is_ok() { String::from_utf8_lossy(&text).into_owned() } else { String::new() }
}

impl Sandbox {
    /// Runs `work` such that children it makes have the pod's common process ids, where there are such.
    pub(crate) fn with_shared_pids<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &self.pause {
            Some(pause) => self.with_pids_of(&pause.pidfd, work),
            None => work(),
        }
    }

    /// Runs `work` such that children it makes have the process ids of the process behind `pidfd`.
    pub(crate) fn with_pids_of<T>(
        &self,
        pidfd: &OwnedFd,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        sys::setns(pidfd.as_fd(), libc::CLONE_NEWPID)?;
        let done = work();
        sys::setns(self.own_pids.as_fd(), libc::CLONE_NEWPID)?;
        done
    }
}
