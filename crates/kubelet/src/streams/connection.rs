//! A SPDY connection: streams that the client opens, multiplexed over one stream of bytes.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use runtime::Duplex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::spdy::{Decoder, Encoder, Frame, Headers};

/// Streams open at once on one connection: a port-forward takes two for each connection that it carries.
const STREAMS_MAX: usize = 1000;
/// Pieces of data that wait for a stream's reader; then the whole connection waits (no flow control in between).
const PIECES_MAX: usize = 64;
/// Bytes read at once.
const READ_LEN: usize = 32 * 1024;
/// `RST_STREAM`'s status for a stream that is one too many.
const REFUSED: u32 = 3;

/// A stream that the client opened.
pub struct Opened {
    /// The client's headers, names in lower case.
    pub headers: Headers,
    /// What the client sends; ends when it has said all.
    pub incoming: mpsc::Receiver<Bytes>,
    /// What goes to the client.
    pub outgoing: Outgoing,
}

/// Sends data of one stream; dropping it ends the stream's own half.
pub struct Outgoing {
    stream: u32,
    frames: mpsc::Sender<Frame>,
    /// Kept from the start, so that the end can be told without waiting.
    end: Option<mpsc::OwnedPermit<Frame>>,
}

impl Outgoing {
    async fn open(stream: u32, frames: &mpsc::Sender<Frame>) -> Option<Self> {
        let end = frames.clone().reserve_owned().await.ok()?;
        Some(Self { stream, frames: frames.clone(), end: Some(end) })
    }

    /// Sends a piece; false when the connection is gone.
    pub async fn send(&self, data: Bytes) -> bool {
        self.frames.send(Frame::Data { stream: self.stream, data, fin: false }).await.is_ok()
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end.send(Frame::Data { stream: self.stream, data: Bytes::new(), fin: true });
        }
    }
}

/// Reads and writes a connection until it ends; each stream that the client opens goes to `opened`.
///
/// The client's end of the connection closes every stream's incoming half.
pub async fn run(io: Box<dyn Duplex>, opened: mpsc::Sender<Opened>) {
    let (read, write) = tokio::io::split(io);
    // Room for the end of every stream, kept when it opens, and for the pieces of all.
    let (frames, queue) = mpsc::channel(STREAMS_MAX + PIECES_MAX);
    tokio::select! {
        biased;
        () = read_all(read, frames, opened) => {}
        () = write_all(write, queue) => {}
    }
}

async fn write_all(mut write: WriteHalf<Box<dyn Duplex>>, mut queue: mpsc::Receiver<Frame>) {
    let mut encoder = Encoder::default();
    let mut bytes = BytesMut::new();
    while let Some(frame) = queue.recv().await {
        encoder.write(&frame, &mut bytes);
        while let Ok(frame) = queue.try_recv() {
            encoder.write(&frame, &mut bytes);
        }
        if write.write_all(&bytes).await.is_err() || write.flush().await.is_err() {
            return;
        }
        bytes.clear();
    }
}

async fn read_all(
    mut read: ReadHalf<Box<dyn Duplex>>,
    frames: mpsc::Sender<Frame>,
    opened: mpsc::Sender<Opened>,
) {
    let mut streams: BTreeMap<u32, mpsc::Sender<Bytes>> = BTreeMap::new();
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; READ_LEN];
    loop {
        let len = match read.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(len) => len,
        };
        decoder.feed(&buffer[..len]);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    if !take(frame, &mut streams, &frames, &opened).await {
                        return;
                    }
                }
                Ok(None) => break,
                Err(why) => {
                    tracing::debug!(%why, "a connection is ended");
                    return;
                }
            }
        }
    }
    // The client has said all on every stream; what it is still told goes out until nobody tells it any more.
    drop((streams, opened, frames));
    std::future::pending::<()>().await;
}

/// Takes one frame; false when the connection is to end.
async fn take(
    frame: Frame,
    streams: &mut BTreeMap<u32, mpsc::Sender<Bytes>>,
    frames: &mpsc::Sender<Frame>,
    opened: &mpsc::Sender<Opened>,
) -> bool {
    match frame {
        Frame::SynStream { stream, .. } if streams.len() >= STREAMS_MAX => {
            return frames.send(Frame::Reset { stream, status: REFUSED }).await.is_ok();
        }
        Frame::SynStream { stream, headers, fin } => {
            let (feed, incoming) = mpsc::channel(PIECES_MAX);
            if !fin {
                streams.insert(stream, feed);
            }
            if frames.send(Frame::SynReply { stream, headers: Vec::new() }).await.is_err() {
                return false;
            }
            let Some(outgoing) = Outgoing::open(stream, frames).await else { return false };
            return opened.send(Opened { headers, incoming, outgoing }).await.is_ok();
        }
        Frame::Data { stream, data, fin } => {
            if !data.is_empty()
                && let Some(feed) = streams.get(&stream)
                && feed.send(data).await.is_err()
            {
                // Nobody reads this stream any more: what else comes is dropped.
                streams.remove(&stream);
            }
            if fin {
                streams.remove(&stream);
            }
        }
        Frame::Reset { stream, .. } => {
            streams.remove(&stream);
        }
        Frame::Ping(id) => return frames.send(Frame::Ping(id)).await.is_ok(),
        Frame::GoAway { .. } | Frame::SynReply { .. } | Frame::Other => {}
    }
    true
}
