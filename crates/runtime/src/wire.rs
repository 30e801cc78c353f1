//! What agent and monitor say to each other, and how it is framed.
//!
//! A frame is its length (4 bytes, little endian) and JSON. Descriptors travel beside a frame (`SCM_RIGHTS`) in the
//! order its message names them. Request ids are chosen by the agent; an event has id 0. A monitor may be older than
//! the agent that adopts it: messages only ever gain fields that have defaults.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use model::fence::Deadline;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{ContainerSpec, Resources, SandboxSpec, Time};

/// Bytes of a frame at most: environment and arguments of a container may take 2 MiB, escaped.
pub(crate) const FRAME_LEN_MAX: usize = 8 << 20;
/// Descriptors beside one message at most: stdin, stdout, stderr.
pub(crate) const FDS_MAX: usize = 3;
/// Bytes read at once. A monitor's requests are small; a larger buffer would only grow its memory.
const READ_LEN: usize = 16 << 10;

/// A message with its id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Frame<T> {
    /// Names the request; 0 for events.
    pub id: u64,
    /// The message.
    pub body: T,
}

/// What the agent asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Create and start a container.
    Start(Box<StartSpec>),
    /// Send a signal to a container's first process.
    Signal { id: String, signal: i32 },
    /// Forget an ended container.
    Remove { id: String },
    /// Change limits: of a container, or of the pod as a whole when the id is empty.
    Resize { id: String, resources: Resources },
    /// Run a command; descriptors: stdin, stdout, stderr where asked for (none with a terminal).
    Exec(ExecStart),
    /// Join streams; descriptors: where to copy stdout and stderr to.
    Attach { id: String, stdin: bool },
    /// Make a TCP socket in the pod's network, not connected yet.
    Socket { ipv6: bool },
    /// Let the fenced pod run until then. Only a monitor whose sandbox was made with a deadline is asked this.
    Fence { deadline: Deadline },
    /// Say what there is.
    List,
    /// Send events on this connection from now on.
    Subscribe,
    /// Kill everything, clean up and end.
    Quit,
}

/// A container with everything the monitor needs to make it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StartSpec {
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// Folders of the image's layers below the layers' folder, lowest first.
    pub layers: Vec<String>,
    /// The layers' folder.
    pub layers_dir: std::path::PathBuf,
    /// The user that the image names.
    pub image_user: String,
}

/// A command to run in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ExecStart {
    /// The container.
    pub id: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether the first descriptor is its standard input.
    pub stdin: bool,
    /// Whether it is killed when the connection closes.
    pub kill_on_hangup: bool,
}

/// What the monitor answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// It runs. With a terminal, its master end comes along.
    Started { pid: u32, started_at: Time, group: String, warnings: Vec<String> },
    /// The command ended.
    ExecEnded { code: i32 },
    /// What there is.
    List(Vec<ContainerRecord>),
    /// A descriptor comes along: a socket, or what feeds standard input.
    Descriptor,
    /// Nothing comes along: there is no standard input to feed.
    NoInput,
    /// No such container.
    NotFound(String),
    /// The container cannot be made as specified.
    Config(String),
    /// The program could not be started.
    Start(String),
    /// The kernel refused.
    Failed(String),
    /// Nothing starts here any more: the file systems of its volumes were shut down.
    Shut,
}

/// What the monitor tells on its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A container ended.
    Exited { id: String, record: Box<ContainerRecord> },
}

/// Either of what a monitor sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromMonitor {
    /// The answer to a request.
    Reply(Reply),
    /// An event.
    Event(Event),
}

/// A container as its monitor writes it to disk and tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub spec: ContainerSpec,
    /// When it was created.
    pub created_at: Time,
    /// Its process id; 0 before it runs.
    pub pid: u32,
    /// When its program started.
    pub started_at: Option<Time>,
    /// How it ended.
    pub exit: Option<ExitRecord>,
    /// Its control group below the pod's.
    #[serde(default)]
    pub group: String,
}

/// How a container ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ExitRecord {
    /// The exit code, or 128 plus the signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed for want of memory.
    pub oom_killed: bool,
    /// When.
    pub finished_at: Time,
    /// The termination message.
    pub message: String,
}

/// What a monitor writes about itself once it listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MonitorRecord {
    /// Its process id.
    pub pid: i32,
    /// When the sandbox was made.
    pub created_at: Time,
    /// Where its network namespace is mounted.
    pub netns: Option<std::path::PathBuf>,
}

/// What the agent leaves for a new monitor to read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxFile {
    /// What was asked for.
    pub spec: SandboxSpec,
    /// When.
    pub created_at: Time,
    /// Where to mount the network namespace; `None` on the node's network.
    pub netns: Option<std::path::PathBuf>,
    /// The cgroup of the data directory.
    pub cgroup: String,
}

/// A message as bytes of a frame.
pub(crate) fn encode<T: Serialize>(id: u64, body: T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, &Frame { id, body })?;
    let len = bytes.len() - 4;
    if len > FRAME_LEN_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a message of {len} bytes is too long"),
        ));
    }
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

/// What has come in on a connection and was not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Takes the next whole message.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<Frame<T>>> {
        let Some(head) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*head) as usize;
        if len > FRAME_LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {len} bytes")));
        }
        let Some(body) = self.bytes.get(4..4 + len) else { return Ok(None) };
        let frame = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + len);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(Some(frame))
    }

    /// Takes the next descriptor that came along.
    pub(crate) fn next_fd(&mut self) -> Option<OwnedFd> {
        self.fds.pop_front()
    }

    /// Reads once from a socket; 0 at its end.
    pub(crate) fn read(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; READ_LEN];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let got =
            rustix::io::retry_on_intr(|| rustix::net::recvmsg(socket, &mut slices, &mut beside, flags))?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.bytes.extend_from_slice(&buffer[..got.bytes]);
        Ok(got.bytes)
    }
}

/// Sends bytes once, with descriptors beside the first; returns how many bytes went out.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let slices = [IoSlice::new(bytes)];
    Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(socket, &slices, &mut beside, SendFlags::NOSIGNAL))?)
}

/// Writes a file whole or not at all: under another name first.
///
/// Not synced: it must outlive the process, not the machine, whose end is the containers' end too.
pub(crate) fn write_whole<T: Serialize>(path: &std::path::Path, value: &T) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    std::fs::write(&draft, serde_json::to_vec(value)?)?;
    std::fs::rename(&draft, path)
}

/// Reads a file that [`write_whole`] wrote.
pub(crate) fn read_whole<T: DeserializeOwned>(path: &std::path::Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_message_and_its_descriptor_arrive_in_pieces() {
        let (one, two) = std::os::unix::net::UnixStream::pair().expect("sockets");
        let bytes = encode(7, Request::Socket { ipv6: true }).expect("it is short");
        let (left, right) = bytes.split_at(5);
        let mut inbox = Inbox::default();
        send(one.as_fd(), left, &[one.as_fd()]).expect("there is room");
        inbox.read(two.as_fd()).expect("there are bytes");
        assert!(inbox.next::<Request>().expect("it is no fault").is_none());
        send(one.as_fd(), right, &[]).expect("there is room");
        inbox.read(two.as_fd()).expect("there are bytes");
        let frame = inbox.next::<Request>().expect("it is whole").expect("it is there");
        assert_eq!(frame.id, 7);
        assert!(matches!(frame.body, Request::Socket { ipv6: true }));
        assert!(inbox.next_fd().is_some());
    }

    #[test]
    fn a_message_that_claims_too_much_is_refused() {
        let (one, two) = std::os::unix::net::UnixStream::pair().expect("sockets");
        send(one.as_fd(), &u32::MAX.to_le_bytes(), &[]).expect("there is room");
        let mut inbox = Inbox::default();
        inbox.read(two.as_fd()).expect("there are bytes");
        assert!(inbox.next::<Request>().is_err());
    }
}
