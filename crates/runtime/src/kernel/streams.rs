//! Streams of commands and containers: `exec`, `attach`, `port-forward`.
//!
//! Bytes do not pass through the monitor: it hands pipes and terminals over. Each pump ends when its process has
//! ended and what it printed is passed on, or when nobody listens any more.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpSocket;
use tokio::sync::mpsc;

use crate::images::failed;
use crate::kernel::channel::Channel;
use crate::kernel::link::{self, Link};
use crate::layout::Pod;
use crate::wire::{ExecStart, Inbox, Reply, Request};
use crate::{AttachSpec, ContainerRef, Duplex, ExecOutput, ExecSpec, RuntimeError, StreamOutput, Streams};

/// Bytes passed on at once: what one frame of kubectl's protocol carries well.
const CHUNK_LEN: usize = 16 << 10;
/// Chunks that wait for a slow client; further ones stay in the pipe, and the program waits.
const CHUNKS_MAX: usize = 16;
/// Bytes a pipe to an attached client holds. The program does not wait for it: a client that lags further behind is
/// cut off. The kernel grants this much without privilege.
const ATTACH_PIPE_LEN: usize = 1 << 20;

/// A pipe or terminal end.
struct Fd(AsyncFd<OwnedFd>);

impl Fd {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned, and stays open and the same until both go.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// Reads something; nothing at the end. A terminal whose other side is gone is at its end.
    async fn read(&self) -> io::Result<Bytes> {
        let mut buffer = vec![0; CHUNK_LEN];
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut buffer)?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Ok(Bytes::new()),
                Ok(done) => {
                    buffer.truncate(done?);
                    return Ok(buffer.into());
                }
                Err(_) => {}
            }
        }
    }

    /// Reads what is there without waiting.
    fn read_now(&self) -> Bytes {
        let mut buffer = vec![0; CHUNK_LEN];
        let len = rustix::io::read(self.0.get_ref(), &mut buffer).unwrap_or(0);
        buffer.truncate(len);
        buffer.into()
    }

    async fn write(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(len) = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), &bytes)?)) {
                drop(bytes.split_to(len?));
            }
        }
        Ok(())
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn no_streams(error: io::Error) -> RuntimeError {
    failed("set up streams", error)
}

fn unexpected(reply: Reply) -> RuntimeError {
    failed("run a command", format!("the monitor said {reply:?}"))
}

/// A connection of its own, for streams.
fn dial(pod: &Pod) -> Result<Channel, RuntimeError> {
    let gone = || RuntimeError::NotFound(format!("the monitor in {}", pod.dir.display()));
    Channel::connect(pod).map_err(no_streams)?.ok_or_else(gone)
}

/// Asks for something on a connection of its own.
async fn ask(
    channel: &Channel,
    inbox: &mut Inbox,
    request: Request,
    fds: &[BorrowedFd<'_>],
) -> Result<(Reply, Option<OwnedFd>), RuntimeError> {
    channel.send(1, request, fds).await.map_err(no_streams)?;
    let (reply, fd) = channel.receive_reply(inbox).await.map_err(no_streams)?;
    link::accept(reply).map(|reply| (reply, fd))
}

/// Runs a command and collects what it prints. Dropping the future kills the command.
pub(crate) async fn exec(
    link: &Link,
    container: &ContainerRef,
    command: Vec<String>,
    output_len_max: usize,
) -> Result<ExecOutput, RuntimeError> {
    let channel = dial(&link.pod)?;
    let mut inbox = Inbox::default();
    let (read, write) = pipe().map_err(no_streams)?;
    let id = container.id.clone();
    let wish = ExecStart { id, command, kill_on_hangup: true, ..ExecStart::default() };
    let (reply, _) = ask(&channel, &mut inbox, Request::Exec(wish), &[write.as_fd(), write.as_fd()]).await?;
    drop(write);
    if !matches!(reply, Reply::Started { .. }) {
        return Err(unexpected(reply));
    }
    let read = Fd::new(read).map_err(no_streams)?;
    let mut output = Vec::new();
    let mut keep = |bytes: &Bytes| {
        let room = output_len_max - output.len();
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    let mut open = true;
    let end = channel.receive_reply(&mut inbox);
    tokio::pin!(end);
    let reply = loop {
        tokio::select! {
            biased;
            bytes = read.read(), if open => match bytes.map_err(no_streams)? {
                bytes if bytes.is_empty() => open = false,
                bytes => keep(&bytes),
            },
            reply = &mut end => break reply.map_err(no_streams)?.0,
        }
    };
    while open {
        let bytes = read.read_now();
        open = !bytes.is_empty();
        keep(&bytes);
    }
    match link::accept(reply)? {
        Reply::ExecEnded { code } => Ok(ExecOutput { code, output }),
        reply => Err(unexpected(reply)),
    }
}

/// Ends of streams on our side.
struct Ends {
    stdin: Option<Fd>,
    stdout: Option<Fd>,
    stderr: Option<Fd>,
    terminal: Option<OwnedFd>,
}

impl Ends {
    /// A terminal: everything through its master end.
    fn of_terminal(master: OwnedFd, stdin: bool) -> io::Result<Self> {
        let again = |fd: &OwnedFd| fd.try_clone().and_then(Fd::new);
        let input = if stdin { Some(again(&master)?) } else { None };
        Ok(Self { stdin: input, stdout: Some(again(&master)?), stderr: None, terminal: Some(master) })
    }
}

/// What pumps a command's streams, for its owner to run.
pub(crate) type Pump = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a command with streams.
pub(crate) async fn exec_stream(
    link: &Link,
    container: &ContainerRef,
    spec: ExecSpec,
) -> Result<(Streams, Pump), RuntimeError> {
    let channel = dial(&link.pod)?;
    let mut inbox = Inbox::default();
    let (id, command) = (container.id.clone(), spec.command);
    let wish = ExecStart { id, command, tty: spec.tty, stdin: spec.stdin, kill_on_hangup: false };
    let ends = if spec.tty {
        let (reply, master) = ask(&channel, &mut inbox, Request::Exec(wish), &[]).await?;
        let Some(master) = master else { return Err(unexpected(reply)) };
        Ends::of_terminal(master, spec.stdin).map_err(no_streams)?
    } else {
        let pipes = || Ok((pipe()?, pipe()?, pipe()?));
        let ((stdin, to_stdin), (stdout, out), (stderr, err)) = pipes().map_err(no_streams)?;
        let all = [stdin.as_fd(), out.as_fd(), err.as_fd()];
        let fds = if spec.stdin { &all[..] } else { &all[1..] };
        ask(&channel, &mut inbox, Request::Exec(wish), fds).await?;
        drop((stdin, out, err));
        let to_stdin = if spec.stdin { Some(to_stdin) } else { None };
        let fd = |fd: OwnedFd| Fd::new(fd).map_err(no_streams);
        Ends {
            stdin: to_stdin.map(fd).transpose()?,
            stdout: Some(fd(stdout)?),
            stderr: Some(fd(stderr)?),
            terminal: None,
        }
    };
    let end = async move {
        match channel.receive_reply(&mut inbox).await {
            Ok((Reply::ExecEnded { code }, _)) => Some(code),
            _ => None,
        }
    };
    Ok(pump(ends, end))
}

/// Joins the streams of a container's first process.
pub(crate) async fn attach(
    link: Arc<Link>,
    container: &ContainerRef,
    spec: AttachSpec,
) -> Result<(Streams, Pump), RuntimeError> {
    let channel = dial(&link.pod)?;
    let mut inbox = Inbox::default();
    let pipes = || -> io::Result<_> {
        let (out, err) = (pipe()?, pipe()?);
        for (_, write) in [&out, &err] {
            let _ = rustix::pipe::fcntl_setpipe_size(write, ATTACH_PIPE_LEN);
        }
        Ok((out, err))
    };
    let ((stdout, out), (stderr, err)) = pipes().map_err(no_streams)?;
    let request = Request::Attach { id: container.id.clone(), stdin: spec.stdin };
    let (_, input) = ask(&channel, &mut inbox, request, &[out.as_fd(), err.as_fd()]).await?;
    drop((out, err));
    let fd = |fd: OwnedFd| Fd::new(fd).map_err(no_streams);
    let has_terminal = link.container(&container.id).is_some_and(|record| record.spec.tty);
    let terminal =
        input.as_ref().filter(|_| has_terminal).map(OwnedFd::try_clone).transpose().map_err(no_streams)?;
    let stdin = if spec.stdin { input.map(fd).transpose()? } else { None };
    let ends = Ends { stdin, stdout: Some(fd(stdout)?), stderr: Some(fd(stderr)?), terminal };
    let id = container.id.clone();
    Ok(pump(ends, async move { end_of(&link, &id).await }))
}

async fn end_of(link: &Link, id: &str) -> Option<i32> {
    let mut changes = link.changes();
    loop {
        match link.container(id) {
            Some(record) => match record.exit {
                Some(exit) => return Some(exit.code),
                None if !link.is_alive() => return None,
                None => {}
            },
            None => return None,
        }
        changes.changed().await.ok()?;
    }
}

fn pump(ends: Ends, end: impl Future<Output = Option<i32>> + Send + 'static) -> (Streams, Pump) {
    let (to_stdin, stdin) = mpsc::channel::<Bytes>(CHUNKS_MAX);
    let (to_output, output) = mpsc::channel(CHUNKS_MAX);
    let (to_resize, resize) = mpsc::channel(CHUNKS_MAX);
    let streams = Streams { stdin: ends.stdin.is_some().then_some(to_stdin), output, resize: to_resize };
    let Ends { stdin: input, stdout, stderr, terminal } = ends;
    let work = async move {
        let feed = async {
            feed(input, stdin, terminal.is_some()).await;
            std::future::pending::<()>().await
        };
        let sizes = set_sizes(terminal.as_ref(), resize);
        let print = print(stdout, stderr, end, &to_output);
        tokio::select! {
            biased;
            () = print => {}
            () = to_output.closed() => {}
            () = feed => {}
            () = sizes => {}
        }
    };
    (streams, Box::pin(work))
}

/// What a terminal takes as the end of input.
const END_OF_INPUT: &[u8] = &[4];

async fn feed(input: Option<Fd>, mut stdin: mpsc::Receiver<Bytes>, is_terminal: bool) {
    let Some(input) = input else { return };
    while let Some(bytes) = stdin.recv().await {
        if input.write(bytes).await.is_err() {
            return;
        }
    }
    if is_terminal {
        let _ = input.write(Bytes::from_static(END_OF_INPUT)).await;
    }
}

async fn set_sizes(terminal: Option<&OwnedFd>, mut sizes: mpsc::Receiver<(u16, u16)>) {
    while let Some((columns, rows)) = sizes.recv().await {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        if let Some(terminal) = terminal {
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }
    std::future::pending().await
}

async fn print(
    mut stdout: Option<Fd>,
    mut stderr: Option<Fd>,
    end: impl Future<Output = Option<i32>>,
    to: &mpsc::Sender<StreamOutput>,
) {
    tokio::pin!(end);
    let code = loop {
        let (stream, bytes) = tokio::select! {
            biased;
            bytes = next(&stdout) => (StreamOutput::Stdout as fn(Bytes) -> _, bytes),
            bytes = next(&stderr) => (StreamOutput::Stderr as fn(Bytes) -> _, bytes),
            code = &mut end => break code,
        };
        match (bytes.is_empty(), stream(bytes)) {
            (true, StreamOutput::Stdout(_)) => stdout = None,
            (true, _) => stderr = None,
            (false, output) => {
                if to.send(output).await.is_err() {
                    return;
                }
            }
        }
    };
    for (fd, stream) in [(stdout, StreamOutput::Stdout as fn(Bytes) -> _), (stderr, StreamOutput::Stderr)] {
        let Some(fd) = fd else { continue };
        loop {
            let bytes = fd.read_now();
            if bytes.is_empty() || to.send(stream(bytes)).await.is_err() {
                break;
            }
        }
    }
    if let Some(code) = code {
        let _ = to.send(StreamOutput::Ended(code)).await;
    }
}

async fn next(fd: &Option<Fd>) -> Bytes {
    match fd {
        Some(fd) => fd.read().await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// Connects to a port of a pod, by a socket that its monitor made in the pod's network.
pub(crate) async fn connect(link: &Link, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
    let mut refused = None;
    for to in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
        let (reply, fd) = link.ask(Request::Socket { ipv6: to.is_ipv6() }).await?;
        let Some(fd) = fd else { return Err(unexpected(reply)) };
        match TcpSocket::from_std_stream(std::net::TcpStream::from(fd)).connect(to).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    let error = refused.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into());
    Err(failed(format!("connect to port {port}"), error))
}
