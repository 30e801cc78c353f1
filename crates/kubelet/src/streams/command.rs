//! exec and attach: the streams of a command joined to those of a client.

use std::time::Duration;

use bytes::Bytes;
use host::Host;
use runtime::{Duplex, StreamOutput, Streams};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::connection::{self, Opened, Outgoing};
use super::negotiate::Protocol;
use super::websocket::{self, ToClient};

/// How long a client may take to open the streams that it asked for (upstream's 30 s).
const OPENING_PATIENCE: Duration = Duration::from_secs(30);

/// Which streams the client asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error; with a terminal it comes as output.
    pub stderr: bool,
    /// A terminal, and its sizes.
    pub tty: bool,
}

/// The client's side of the streams.
struct Client {
    stdin: Option<mpsc::Receiver<Bytes>>,
    sizes: Option<mpsc::Receiver<Bytes>>,
    out: Out,
    /// Whether the end is told as a `Status`.
    status: bool,
}

/// Where output goes.
enum Out {
    Channels(ToClient),
    Spdy { stdout: Option<Outgoing>, stderr: Option<Outgoing>, error: Option<Outgoing> },
}

/// The channels of output (WebSocket).
#[derive(Clone, Copy)]
enum Channel {
    Stdout = 1,
    Stderr = 2,
    Error = 3,
}

impl Out {
    async fn send(&self, channel: Channel, data: Bytes) -> bool {
        match self {
            Out::Channels(to_client) => to_client.send(Some((channel as u8, data))).await.is_ok(),
            Out::Spdy { stdout, stderr, error } => {
                let stream = match channel {
                    Channel::Stdout => stdout,
                    Channel::Stderr => stderr,
                    Channel::Error => error,
                };
                match stream {
                    Some(stream) => stream.send(data).await,
                    None => true,
                }
            }
        }
    }
}

/// Serves a command on an upgraded connection until the command ends or the client goes away.
pub async fn serve(host: &Host, io: Box<dyn Duplex>, protocol: Protocol, wanted: Wanted, streams: Streams) {
    match protocol {
        Protocol::Channels { coding, status } => {
            let (mut from_client, to_client, carrying) = websocket::channels(io, coding);
            let stdin = from_client[0].take().filter(|_| wanted.stdin);
            let sizes = from_client[4].take().filter(|_| wanted.tty);
            drop(from_client);
            let client = Client { stdin, sizes, out: Out::Channels(to_client.clone()), status };
            let joined = async {
                join(client, wanted, streams).await;
                // Ends the connection in its turn, behind all that was said.
                let _ = to_client.send(None).await;
                std::future::pending::<()>().await;
            };
            tokio::select! { biased; () = carrying => {}, () = joined => {} }
        }
        Protocol::Spdy { status } => {
            let (opened, mut streams_opened) = mpsc::channel(1);
            let joined = async {
                match host
                    .within(OPENING_PATIENCE, gather(&mut streams_opened, wanted, status))
                    .await
                    .flatten()
                {
                    Some(client) => join(client, wanted, streams).await,
                    None => tracing::debug!("the client did not open its streams"),
                }
                // What was said still has to go out: the connection ends when its last stream has.
                drop(streams_opened);
                std::future::pending::<()>().await;
            };
            tokio::select! { biased; () = connection::run(io, opened) => {}, () = joined => {} }
        }
        Protocol::Tunnel | Protocol::Pieces { .. } => tracing::debug!("this is not for commands"),
    }
}

/// Waits for the streams that the client opens.
async fn gather(opened: &mut mpsc::Receiver<Opened>, wanted: Wanted, status: bool) -> Option<Client> {
    let stderr = wanted.stderr && !wanted.tty;
    let mut missing =
        1 + [wanted.stdin, wanted.stdout, stderr, wanted.tty].into_iter().filter(|&wanted| wanted).count();
    let (mut stdin, mut sizes, mut stdout, mut stderr, mut error) = (None, None, None, None, None);
    while missing > 0 {
        let Opened { headers, incoming, outgoing } = opened.recv().await?;
        let sort = headers.iter().find(|(name, _)| name == "streamtype").map(|(_, value)| value.as_str());
        match sort {
            Some("stdin") => stdin = Some((incoming, outgoing)),
            Some("resize") => sizes = Some((incoming, outgoing)),
            Some("stdout") => stdout = Some(outgoing),
            Some("stderr") => stderr = Some(outgoing),
            Some("error") => error = Some(outgoing),
            _ => continue,
        }
        missing -= 1;
    }
    let incoming = |stream: Option<(mpsc::Receiver<Bytes>, Outgoing)>| stream.map(|(incoming, _)| incoming);
    let out = Out::Spdy { stdout, stderr, error };
    Some(Client { stdin: incoming(stdin), sizes: incoming(sizes), out, status })
}

/// Carries bytes between the client and the command until the command ends; then tells how.
async fn join(client: Client, wanted: Wanted, streams: Streams) {
    let Client { stdin, sizes, out, status } = client;
    let Streams { stdin: to_command, mut output, resize } = streams;
    let feeding = async {
        if let (Some(mut stdin), Some(to_command)) = (stdin, to_command) {
            while let Some(data) = stdin.recv().await {
                if to_command.send(data).await.is_err() {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let sizing = async {
        if let Some(mut sizes) = sizes {
            while let Some(size) = sizes.recv().await {
                if let Some(size) = read_size(&size) {
                    // A command that has ended needs no size.
                    let _ = resize.send(size).await;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let telling = async {
        while let Some(said) = output.recv().await {
            let told = match said {
                StreamOutput::Stdout(data) if wanted.stdout => out.send(Channel::Stdout, data).await,
                StreamOutput::Stderr(data) if wanted.stderr => out.send(Channel::Stderr, data).await,
                StreamOutput::Stdout(_) | StreamOutput::Stderr(_) => true,
                StreamOutput::Ended(code) => {
                    out.send(Channel::Error, ending(code, status)).await;
                    false
                }
            };
            if !told {
                return;
            }
        }
        // An attached client is told that all is well when the streams end.
        out.send(Channel::Error, ending(0, status)).await;
    };
    tokio::select! { biased; () = telling => {}, () = feeding => {}, () = sizing => {} }
}

/// How a command ended, as the error channel says it.
fn ending(code: i32, status: bool) -> Bytes {
    let status_body: Value = match code {
        0 => json!({"metadata": {}, "status": "Success"}),
        _ => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
    };
    match (status, code) {
        (true, _) => status_body.to_string().into(),
        (false, 0) => Bytes::new(),
        (false, _) => format!("command terminated with non-zero exit code: exit status {code}").into(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

fn read_size(data: &[u8]) -> Option<(u16, u16)> {
    let size: Size = serde_json::from_slice(data).ok()?;
    Some((size.width, size.height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_told_as_clients_read_it() {
        let told: Value = serde_json::from_slice(&ending(3, true)).expect("own JSON");
        assert_eq!(told["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(ending(0, false), Bytes::new());
    }

    #[test]
    fn a_size_is_columns_and_rows() {
        assert_eq!(read_size(br#"{"Width":80,"Height":24}"#), Some((80, 24)));
        assert_eq!(read_size(b"80x24"), None);
    }

    fn command(said: Vec<StreamOutput>) -> (Streams, mpsc::Receiver<Bytes>) {
        let (stdin, fed) = mpsc::channel(8);
        let (say, output) = mpsc::channel(8);
        let (resize, _) = mpsc::channel(1);
        for piece in said {
            say.try_send(piece).expect("there is room");
        }
        (Streams { stdin: Some(stdin), output, resize }, fed)
    }

    #[tokio::test]
    async fn a_websocket_client_hears_all_that_was_said_and_then_the_end() {
        use crate::streams::websocket::Coding;
        use futures_util::StreamExt;
        use tokio_tungstenite::WebSocketStream;
        use tokio_tungstenite::tungstenite::Message;
        use tokio_tungstenite::tungstenite::protocol::Role;

        let (near, far) = tokio::io::duplex(1024);
        let (streams, _fed) = command(vec![StreamOutput::Stdout("hi".into()), StreamOutput::Ended(3)]);
        let wanted = Wanted { stdout: true, stderr: true, ..Wanted::default() };
        let protocol = Protocol::Channels { coding: Coding::Binary, status: true };
        let host = Host::real();
        let client = async {
            let mut socket = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
            let mut heard = Vec::new();
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Binary(data) = message {
                    heard.push((data[0], String::from_utf8_lossy(&data[1..]).into_owned()));
                }
            }
            heard
        };
        let (heard, ()) = tokio::join!(client, serve(&host, Box::new(far), protocol, wanted, streams));
        assert_eq!(heard[0], (1, "hi".to_owned()));
        assert!(heard[1].0 == 3 && heard[1].1.contains("NonZeroExitCode"), "{heard:?}");
    }
}
