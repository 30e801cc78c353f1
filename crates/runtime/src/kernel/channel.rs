//! A connection to a monitor, on the agent's side.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::layout::Pod;
use crate::wire::{self, Frame, FromMonitor, Inbox, Reply, Request};

/// A connection; several tasks may send, one receives.
pub(crate) struct Channel {
    stream: UnixStream,
    sending: tokio::sync::Mutex<()>,
}

impl Channel {
    /// Connects to the monitor of a sandbox. The socket is named by way of its folder's descriptor, because such
    /// names have 107 bytes at most.
    pub(crate) fn connect(pod: &Pod) -> io::Result<Self> {
        let dir = std::fs::File::open(&pod.dir)?;
        let name = PathBuf::from(format!("/proc/self/fd/{}/monitor.sock", dir.as_raw_fd()));
        let stream = std::os::unix::net::UnixStream::connect(name)?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream: UnixStream::from_std(stream)?, sending: tokio::sync::Mutex::new(()) })
    }

    /// Sends a request with descriptors.
    pub(crate) async fn send(&self, id: u64, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = wire::encode(id, request)?;
        // Held so that the parts of two messages do not mix.
        let _sending = self.sending.lock().await;
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
