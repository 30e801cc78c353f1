//! WebSockets as Kubernetes uses them: numbered channels in binary messages, or a tunnel for SPDY.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use runtime::Duplex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// The longest message that is read: clients send pieces of 32 KiB.
const MESSAGE_LEN_MAX: usize = 1024 * 1024;
/// Messages that wait for a channel's reader.
const MESSAGES_MAX: usize = 64;
/// Bytes in flight on each side of a tunnel.
const TUNNEL_LEN: usize = 64 * 1024;
/// The channel on which v5 clients close another one.
const CLOSE_CHANNEL: u8 = 255;
/// Channels that a client may use: standard input, output, error, the status, and terminal sizes.
pub const CHANNELS: usize = 5;

type Socket = WebSocketStream<Box<dyn Duplex>>;

/// How the bytes of channels are written into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// The channel's number in one byte, then the data.
    Binary,
    /// The channel's number as a digit, then the data in base64 (`base64.channel.k8s.io`).
    Base64,
}

/// Messages to the client: channel and data. `None` ends the connection.
pub type ToClient = mpsc::Sender<Option<(u8, Bytes)>>;

async fn socket(io: Box<dyn Duplex>) -> Socket {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_LEN_MAX);
    config.max_frame_size = Some(MESSAGE_LEN_MAX);
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// What comes from the client, by channel; a channel ends when the client closes it or goes away.
pub type FromClient = [Option<mpsc::Receiver<Bytes>>; CHANNELS];

/// The channels of a connection, and the work that carries them: to be run until it ends.
pub fn channels(io: Box<dyn Duplex>, coding: Coding) -> (FromClient, ToClient, impl Future<Output = ()>) {
    let mut feeds: [Option<mpsc::Sender<Bytes>>; CHANNELS] = Default::default();
    let mut incoming: FromClient = Default::default();
    for (feed, incoming) in feeds.iter_mut().zip(&mut incoming) {
        let (send, receive) = mpsc::channel(MESSAGES_MAX);
        (*feed, *incoming) = (Some(send), Some(receive));
    }
    let (outgoing, queue) = mpsc::channel(MESSAGES_MAX);
    let work = async move {
        let (write, read) = socket(io).await.split();
        // The client may stop talking and still listen; the end of what it is told is the end of all.
        tokio::select! {
            biased;
            () = write_channels(write, queue, coding) => {}
            () = read_channels(read, feeds, coding) => {}
        }
    };
    (incoming, outgoing, work)
}

async fn read_channels(
    mut read: SplitStream<Socket>,
    mut feeds: [Option<mpsc::Sender<Bytes>>; CHANNELS],
    coding: Coding,
) {
    while let Some(Ok(message)) = read.next().await {
        let data = match message {
            Message::Binary(data) => data,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            _ => continue,
        };
        let Some((channel, data)) = decode(&data, coding) else { continue };
        if channel == CLOSE_CHANNEL {
            let closed = data.first().map(|&closed| usize::from(closed));
            if let Some(feed) = closed.and_then(|closed| feeds.get_mut(closed)) {
                *feed = None;
            }
        } else if let Some(slot) = feeds.get_mut(usize::from(channel))
            && let Some(feed) = slot
            && feed.send(data).await.is_err()
        {
            *slot = None;
        }
    }
}

fn decode(message: &Bytes, coding: Coding) -> Option<(u8, Bytes)> {
    use base64::Engine;
    let (&first, rest) = message.split_first()?;
    match coding {
        Coding::Binary => Some((first, message.slice(1..))),
        Coding::Base64 => {
            let data = base64::engine::general_purpose::STANDARD.decode(rest).ok()?;
            Some((first.checked_sub(b'0')?, data.into()))
        }
    }
}

fn encode(channel: u8, data: &[u8], coding: Coding) -> Message {
    use base64::Engine;
    match coding {
        Coding::Binary => {
            let mut message = BytesMut::with_capacity(data.len() + 1);
            message.extend_from_slice(&[channel]);
            message.extend_from_slice(data);
            Message::Binary(message.freeze())
        }
        Coding::Base64 => {
            let text = format!("{channel}{}", base64::engine::general_purpose::STANDARD.encode(data));
            Message::text(text)
        }
    }
}

async fn write_channels(
    mut write: SplitSink<Socket, Message>,
    mut queue: mpsc::Receiver<Option<(u8, Bytes)>>,
    coding: Coding,
) {
    while let Some(Some((channel, data))) = queue.recv().await {
        if write.send(encode(channel, &data, coding)).await.is_err() {
            return;
        }
    }
    // The client may have gone already.
    let _ = write.send(goodbye()).await;
}

/// Tells the client all pieces, each in a message, until there are no more or the client goes away.
pub async fn pieces(io: Box<dyn Duplex>, coding: Coding, mut queue: mpsc::Receiver<Bytes>) {
    use base64::Engine;
    let (mut write, mut read) = socket(io).await.split();
    let telling = async {
        while let Some(piece) = queue.recv().await {
            let message = match coding {
                Coding::Binary => Message::Binary(piece),
                Coding::Base64 => Message::text(base64::engine::general_purpose::STANDARD.encode(&piece)),
            };
            if write.send(message).await.is_err() {
                return;
            }
        }
        // The client may have gone already.
        let _ = write.send(goodbye()).await;
    };
    let hearing = async { while let Some(Ok(_)) = read.next().await {} };
    tokio::select! { biased; () = telling => {}, () = hearing => {} }
}

/// The end of a connection on which all went as it should: clients take one without a code for an error.
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

/// The bytes inside a WebSocket's binary messages, and the work that carries them: to be run until it ends.
pub fn tunnel(io: Box<dyn Duplex>) -> (DuplexStream, impl Future<Output = ()>) {
    let (near, far) = tokio::io::duplex(TUNNEL_LEN);
    let work = async move {
        let (write, read) = socket(io).await.split();
        let (from_near, to_near) = tokio::io::split(far);
        tokio::select! {
            biased;
            _ = pump_in(read, to_near) => {}
            _ = pump_out(from_near, write) => {}
        }
    };
    (near, work)
}

async fn pump_in(mut read: SplitStream<Socket>, mut to_near: impl AsyncWriteExt + Unpin) -> io::Result<()> {
    while let Some(Ok(message)) = read.next().await {
        match message {
            Message::Binary(data) => to_near.write_all(&data).await?,
            Message::Close(_) => break,
            _ => {}
        }
    }
    to_near.shutdown().await
}

async fn pump_out(
    mut from_near: impl AsyncReadExt + Unpin,
    mut write: SplitSink<Socket, Message>,
) -> io::Result<()> {
    let mut buffer = vec![0; TUNNEL_LEN];
    loop {
        let len = from_near.read(&mut buffer).await?;
        if len == 0 {
            break;
        }
        let message = Message::Binary(Bytes::copy_from_slice(&buffer[..len]));
        write.send(message).await.map_err(io::Error::other)?;
    }
    write.send(goodbye()).await.map_err(io::Error::other)
}
