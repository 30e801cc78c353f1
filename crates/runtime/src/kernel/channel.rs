//! A connection to a monitor, on the agent's side.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::layout::Pod;
use crate::wire::{self, Frame, FromMonitor, Inbox, Reply, Request};

/// A connection; one task sends, one receives.
pub(crate) struct Channel {
    stream: UnixStream,
}

impl Channel {
    /// Connects to the monitor of a sandbox; never blocks. `None` is proof that it is gone: nobody listens there.
    ///
    /// The socket is named by way of its folder's descriptor, because such names have 107 bytes at most.
    pub(crate) fn connect(pod: &Pod) -> io::Result<Option<Self>> {
        let dir = match std::fs::File::open(&pod.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            dir => dir?,
        };
        let name = format!("/proc/self/fd/{}/monitor.sock", dir.as_raw_fd());
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &SocketAddrUnix::new(name.as_str())?) {
            Err(Errno::CONNREFUSED | Errno::NOENT) => return Ok(None),
            done => done?,
        }
        let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(socket))?;
        Ok(Some(Self { stream }))
    }

    /// Sends a request with descriptors. One whose sending is given up half-way spoils the connection.
    pub(crate) async fn send(&self, id: u64, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = wire::encode(id, request)?;
        let mut sent = 0;
        while sent < bytes.len() {
            self.stream.writable().await?;
            let beside = if sent == 0 { fds } else { &[] };
            let once = || wire::send(self.stream.as_fd(), &bytes[sent..], beside);
            match self.stream.try_io(Interest::WRITABLE, once) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives the next message; `None` at the connection's end.
    pub(crate) async fn receive<T: DeserializeOwned>(
        &self,
        inbox: &mut Inbox,
    ) -> io::Result<Option<Frame<T>>> {
        loop {
            if let Some(frame) = inbox.next()? {
                return Ok(Some(frame));
            }
            self.stream.readable().await?;
            match self.stream.try_io(Interest::READABLE, || inbox.read(self.stream.as_fd())) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Receives the next reply, with the descriptor that belongs to it.
    pub(crate) async fn receive_reply(&self, inbox: &mut Inbox) -> io::Result<(Reply, Option<OwnedFd>)> {
        loop {
            match self.receive::<FromMonitor>(inbox).await?.map(|frame| frame.body) {
                Some(FromMonitor::Reply(reply)) => return Ok((reply, inbox.next_fd())),
                Some(FromMonitor::Event(_)) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}
