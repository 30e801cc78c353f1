//! A connection that waits for its other side, but not for ever: who takes nothing of what is sent is cut off, and who has
//! vanished is found out.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use host::Host;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How long a client may leave what is sent to it lying: its watches have fallen behind by then, and it will list anew.
pub(super) const STALL_MAX: Duration = Duration::from_secs(60);
/// How long a connection may be silent before the kernel asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How long between two such questions, and how many go unanswered.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);
const KEEPALIVE_MAX: u32 = 4;

/// Has the kernel find out when the other side has vanished: without it a watch on which nothing happens would stay.
pub(super) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_MAX)?;
    Ok(())
}

/// Says that a connection may stall as long as it likes: somebody sits before it and reads.
#[derive(Debug, Clone, Default)]
pub(super) struct Leisure(Arc<AtomicBool>);

impl Leisure {
    /// From now on it may.
    pub fn grant(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_granted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream whose writes fail when the other side takes nothing for too long.
pub(super) struct Patient<S> {
    stream: S,
    host: Host,
    leisure: Leisure,
    /// Ends when the other side has taken nothing for too long; there is one while a write waits.
    limit: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<S> Patient<S> {
    pub fn new(stream: S, host: Host, leisure: Leisure) -> Self {
        Self { stream, host, leisure, limit: None }
    }

    /// What a write that has to wait comes to.
    fn waits<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if self.leisure.is_granted() {
            return Poll::Pending;
        }
        let host = &self.host;
        let limit = self.limit.get_or_insert_with(|| {
            let host = host.clone();
            Box::pin(async move { host.sleep(STALL_MAX).await })
        });
        ready!(limit.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client takes nothing of what is sent to it",
        )))
    }

    fn seen<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending => self.waits(cx),
            ready => {
                self.limit = None;
                ready
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.seen(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.seen(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair(leisure: &Leisure) -> (Patient<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let host = Host::simulated(1, "2026-01-01T00:00:00Z".parse().expect("a time"), host::SimDisk::new());
        let (near, far) = tokio::io::duplex(16);
        (Patient::new(near, host, leisure.clone()), far)
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_off() {
        let (mut near, _far) = pair(&Leisure::default());
        let cut = near.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_little_now_and_then_is_not() {
        let (mut near, mut far) = pair(&Leisure::default());
        let slow = async {
            let mut taken = [0; 16];
            for _ in 0..4 {
                tokio::time::sleep(STALL_MAX * 3 / 4).await;
                far.read_exact(&mut taken).await.expect("there is more");
            }
        };
        let (sent, ()) = tokio::join!(near.write_all(&[0; 64]), slow);
        assert!(sent.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nor_is_who_was_given_leisure() {
        let leisure = Leisure::default();
        let (mut near, mut far) = pair(&leisure);
        leisure.grant();
        let late = async {
            tokio::time::sleep(STALL_MAX * 100).await;
            far.read_exact(&mut [0; 64]).await
        };
        let (sent, read) = tokio::join!(near.write_all(&[0; 64]), late);
        assert!(sent.is_ok() && read.is_ok());
    }
}
