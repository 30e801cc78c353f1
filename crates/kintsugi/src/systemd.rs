//! What systemd says of the machine, asked over its own socket.
//!
//! One D-Bus call between two peers, without a bus: `Properties.Get` of the manager's `SystemState`
//! (D-Bus specification 0.43, "Message Format" and "Authentication Protocol"; systemd, "org.freedesktop.systemd1").

use std::io;
use std::path::Path;
use std::time::Duration;

use host::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Where systemd answers root.
pub const SOCKET: &str = "/run/systemd/private";

/// How long to wait for its word: a machine that goes down is busy.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The longest message that is read, in bytes: the answer has some 100, news of units that come before it some 1,000.
const MESSAGE_MAX: usize = 64 << 10;
/// The most messages that are passed over before the answer.
const NEWS_MAX: usize = 1000;
/// The number of the only call.
const SERIAL: u32 = 1;

/// Whether the machine goes down, as far as systemd runs it. `false` where nobody says so.
pub async fn is_stopping(host: &Host, socket: &Path) -> bool {
    matches!(host.within(WAIT_MAX, state(socket)).await, Some(Ok(state)) if state == "stopping")
}

/// The manager's state: `initializing`, `starting`, `running`, `degraded`, `maintenance` or `stopping`.
async fn state(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket).await?;
    let uid: String =
        rustix::process::geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        if line.len() == MESSAGE_MAX {
            return Err(strange("a line without an end"));
        }
        line.push(stream.read_u8().await?);
    }
    if !line.starts_with(b"OK") {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.write_all(b"BEGIN\r\n").await?;
    stream.write_all(&call()).await?;
    for _ in 0..NEWS_MAX {
        if let Some(answer) = answer(&message(&mut stream).await?)? {
            return Ok(answer);
        }
    }
    Err(strange("no answer among much news"))
}

/// The call, in little-endian order.
fn call() -> Vec<u8> {
    let mut body = Message::default();
    body.text("org.freedesktop.systemd1.Manager");
    body.text("SystemState");
    let mut fields = Message::default();
    for (code, kind, value) in [
        (1, b'o', "/org/freedesktop/systemd1"),
        (2, b's', "org.freedesktop.DBus.Properties"),
        (3, b's', "Get"),
        (8, b'g', "ss"),
    ] {
        fields.align(8);
        fields.0.extend([code, 1, kind, 0]);
        match kind {
            b'g' => fields.signature(value),
            _ => fields.text(value),
        }
    }
    // Little-endian, a call, no flags, version 1.
    let mut message = Message(vec![b'l', 1, 0, 1]);
    message.number(body.0.len());
    message.number(SERIAL as usize);
    message.number(fields.0.len());
    message.0.extend(fields.0);
    message.align(8);
    message.0.extend(body.0);
    message.0
}

/// Bytes that become a message. Its parts begin at multiples of 8, so that they may be written apart.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: usize) {
        self.align(4);
        self.0.extend((number as u32).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }
}

/// The next message, whole.
async fn message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 16];
    stream.read_exact(&mut message).await?;
    let (body, fields) = (number(&message, 4)?, number(&message, 12)?);
    let len = fields.checked_next_multiple_of(8).and_then(|fields| fields.checked_add(body + 16));
    let len = len.filter(|len| *len <= MESSAGE_MAX).ok_or_else(|| strange("a message too long"))?;
    message.resize(len, 0);
    stream.read_exact(&mut message[16..]).await?;
    Ok(message)
}

/// The text in the answer to the call; `None` of any other message.
fn answer(message: &[u8]) -> io::Result<Option<String>> {
    match message.get(1) {
        Some(2) => {}
        Some(3) => return Err(io::Error::other("systemd refuses to tell its state")),
        _ => return Ok(None),
    }
    let at = 16 + number(message, 12)?.next_multiple_of(8);
    // A variant: the signature of what is in it, then that.
    if message.get(at..at + 3) != Some(&[1, b's', 0]) {
        return Err(strange("an answer that is no text"));
    }
    let len = number(message, at + 4)?;
    let text = message.get(at + 8..at + 8 + len).ok_or_else(|| strange("an answer that ends early"))?;
    Ok(Some(String::from_utf8_lossy(text).into_owned()))
}

/// The number at a place, in the order that the message's first byte names.
fn number(message: &[u8], at: usize) -> io::Result<usize> {
    let bytes = message.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| strange("a message that ends early"))?;
    Ok(match message[0] {
        b'B' => u32::from_be_bytes(bytes),
        _ => u32::from_le_bytes(bytes),
    } as usize)
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("systemd sent {what}"))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// An answer of systemd, as it was seen: `member` is what it is about.
    fn told(kind: u8, state: &str) -> Vec<u8> {
        let mut body = Message(vec![1, b's', 0]);
        body.text(state);
        let mut fields = Message(vec![5, 1, b'u', 0]);
        fields.number(SERIAL as usize);
        fields.align(8);
        fields.0.extend([8, 1, b'g', 0]);
        fields.signature("v");
        let mut message = Message(vec![b'l', kind, 1, 1]);
        message.number(body.0.len());
        message.number(7);
        message.number(fields.0.len());
        message.0.extend(fields.0);
        message.align(8);
        message.0.extend(body.0);
        message.0
    }

    /// What is made of it when systemd says this after the handshake.
    async fn asked(says: Vec<u8>) -> bool {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let socket = dir.path().join("private");
        let listener = UnixListener::bind(&socket).expect("it is ours");
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("it comes");
            let mut seen = Vec::new();
            while !seen.ends_with(b"\r\n") {
                seen.push(stream.read_u8().await.expect("more"));
            }
            assert!(seen.starts_with(b"\0AUTH EXTERNAL "), "{seen:?}");
            stream.write_all(b"OK 0123456789abcdef\r\n").await.expect("it listens");
            let mut asked = vec![0; b"BEGIN\r\n".len() + call().len()];
            stream.read_exact(&mut asked).await.expect("the call");
            assert_eq!(asked[7..], call());
            // It may have heard enough, and be gone.
            let _ = stream.write_all(&says).await;
        };
        let host = Host::real();
        let (stopping, ()) = tokio::join!(is_stopping(&host, &socket), serve);
        stopping
    }

    #[tokio::test]
    async fn only_a_machine_that_is_stopping_goes_down() {
        for (word, wanted) in [("stopping", true), ("running", false), ("degraded", false)] {
            assert_eq!(asked(told(2, word)).await, wanted, "{word}");
        }
    }

    #[tokio::test]
    async fn news_is_passed_over_and_a_refusal_is_no_word() {
        assert!(asked([told(4, "running"), told(2, "stopping")].concat()).await);
        assert!(!asked([told(3, "stopping"), told(2, "stopping")].concat()).await);
    }

    #[tokio::test]
    async fn nonsense_and_silence_are_no_word() {
        assert!(!is_stopping(&Host::real(), Path::new("/nonexistent/private")).await);
        assert!(!asked(vec![0xff; 200]).await);
        assert!(!asked(told(2, "stopping")[..40].to_vec()).await);
    }

    #[test]
    fn the_call_is_what_the_specification_says() {
        let call = call();
        assert_eq!(call[..4], [b'l', 1, 0, 1]);
        let fields = number(&call, 12).expect("it is there");
        assert_eq!(call.len(), 16 + fields.next_multiple_of(8) + number(&call, 4).expect("it is there"));
        assert!(call.ends_with(b"\x0b\0\0\0SystemState\0"));
    }
}
