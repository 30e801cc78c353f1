//! A small gRPC client: calls with one answer or a stream of them, over whatever connection it is given.
//!
//! Promises: a call ends by its deadline, a stream with its handle, the connection with its [`Channel`]. What goes
//! wrong is a [`Status`]: the server's own, or the one that gRPC's other clients would tell.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use host::Tasks;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::https::Scope;

mod frames;
mod status;
#[cfg(test)]
mod tests;

use frames::Frames;
pub use status::{Code, Status};

/// How long a connection's first exchange may take: a server that is there answers at once.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// The longest message that is read, in bytes, where nothing else is said: what gRPC's own clients read.
pub const MESSAGE_LEN_MAX: usize = 4 << 20;

/// How much a server may send of one answer before it is read, in bytes: enough for a list over a fast link.
const WINDOW: u32 = 1 << 20;

/// How many messages of a stream wait to be sent; whoever sends more waits.
const OUTBOX_MAX: usize = 16;

/// How a connection is used.
#[derive(Debug, Clone)]
pub struct Manner {
    /// The name of the server, as requests carry it.
    pub authority: String,
    /// Whether requests say `https`.
    pub is_tls: bool,
    /// Who asks.
    pub user_agent: &'static str,
    /// How often the connection is asked whether it lives; `None`: never. Many servers end connections that ask more
    /// often than every five minutes.
    pub ping_every: Option<Duration>,
    /// The longest message that is read.
    pub message_len_max: usize,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            authority: "localhost".into(),
            is_tls: false,
            user_agent: "kintsugi",
            ping_every: None,
            message_len_max: MESSAGE_LEN_MAX,
        }
    }
}

/// A connection to a gRPC server; its copies share it, and it ends with the last of them.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Outgoing>,
    manner: Arc<Manner>,
    headers: HeaderMap,
    /// What drives the connection. Guards the tasks while one is added.
    _connection: Arc<Mutex<Tasks>>,
}

impl Channel {
    /// Speaks gRPC over a connection that is open.
    pub async fn over<T>(io: T, manner: Manner) -> Result<Channel, Status>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = Arc::new(Mutex::new(Tasks::new()));
        let scope = Scope::of(&tasks);
        let mut builder = Builder::new(scope.clone());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(manner.ping_every);
        let shaken = tokio::time::timeout(HANDSHAKE_MAX, builder.handshake(TokioIo::new(io))).await;
        let shaken = shaken.map_err(|_| Status::unavailable("the server says nothing"))?;
        let (sender, connection) = shaken.map_err(|error| Status::of_transport(&error))?;
        hyper::rt::Executor::execute(&scope, async move {
            // Its end shows in the calls'.
            let _ = connection.await;
        });
        Ok(Channel { sender, manner: Arc::new(manner), headers: HeaderMap::new(), _connection: tasks })
    }

    /// The same connection, with one more header in each request.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Channel {
        self.headers.insert(name, value);
        self
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Asks one question and waits for the answer; `path` is `/package.Service/Method`.
    pub async fn call<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        question: &Q,
        limit: Duration,
    ) -> Result<A, Status> {
        let asked = async {
            let (outbox, body) = Outgoing::new();
            let framed = frames::framed(question);
            // The body was made just now and has room.
            let _ = outbox.try_send(framed);
            drop(outbox);
            let mut answers = Answers::<A> {
                state: self.send(path, body, Some(limit))?,
                len_max: self.manner.message_len_max,
                kind: PhantomData,
            };
            let first = answers.next().await;
            let answer = first.unwrap_or_else(|| Err(Status::internal("there was no answer")))?;
            match answers.next().await {
                None => Ok(answer),
                Some(Err(status)) => Err(status),
                Some(Ok(_)) => Err(Status::internal("there was more than one answer")),
            }
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(Status::new(Code::DeadlineExceeded, "context deadline exceeded")),
        }
    }

    /// Opens a stream in both directions; it ends when the server ends it, or when its answers are dropped.
    pub fn stream<Q: Message, A: Message + Default>(
        &self,
        path: &str,
    ) -> Result<(Questions<Q>, Answers<A>), Status> {
        let (outbox, body) = Outgoing::new();
        let state = self.send(path, body, None)?;
        let answers = Answers { state, len_max: self.manner.message_len_max, kind: PhantomData };
        Ok((Questions { outbox, kind: PhantomData }, answers))
    }

    fn send(&self, path: &str, body: Outgoing, limit: Option<Duration>) -> Result<State, Status> {
        let scheme = if self.manner.is_tls { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{}{path}", self.manner.authority))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, self.manner.user_agent);
        if let Some(limit) = limit {
            // At most eight digits, says the protocol.
            let millis = limit.as_millis().min(99_999_999);
            request = request.header("grpc-timeout", format!("{millis}m"));
        }
        let mut request = request.body(body).map_err(|error| Status::internal(error.to_string()))?;
        request.headers_mut().extend(self.headers.clone());
        let answer = self.sender.clone().send_request(request);
        Ok(State::Asked(Box::pin(answer)))
    }
}

/// The sending half of a stream; the server is told that it is over when this goes.
#[derive(Debug)]
pub struct Questions<Q> {
    outbox: mpsc::Sender<Bytes>,
    kind: PhantomData<fn(Q)>,
}

impl<Q: Message> Questions<Q> {
    /// Sends one message, when there is room.
    pub async fn send(&self, question: &Q) -> Result<(), Status> {
        let sent = self.outbox.send(frames::framed(question)).await;
        sent.map_err(|_| Status::unavailable("the stream has ended"))
    }
}

/// The answers of a stream.
pub struct Answers<A> {
    state: State,
    len_max: usize,
    kind: PhantomData<fn() -> A>,
}

type Asked = Pin<Box<dyn Future<Output = hyper::Result<http::Response<Incoming>>> + Send>>;

enum State {
    Asked(Asked),
    Open(Box<Frames>),
    Over,
}

impl<A: Message + Default> Answers<A> {
    /// The next answer; `None` when the server ended the stream well. A wait that is given up loses nothing.
    pub async fn next(&mut self) -> Option<Result<A, Status>> {
        let next = self.step().await;
        if !matches!(next, Some(Ok(_))) {
            self.state = State::Over;
        }
        next
    }

    async fn step(&mut self) -> Option<Result<A, Status>> {
        if let State::Asked(asked) = &mut self.state {
            match asked.await {
                Ok(head) => self.state = State::Open(Box::new(Frames::new(head, self.len_max))),
                Err(error) => return Some(Err(Status::of_transport(&error))),
            }
        }
        let State::Open(frames) = &mut self.state else { return None };
        match frames.next().await {
            Ok(Some(message)) => {
                Some(A::decode(message).map_err(|error| Status::internal(error.to_string())))
            }
            Ok(None) => None,
            Err(status) => Some(Err(status)),
        }
    }
}

/// A request's body: messages as they come.
struct Outgoing(mpsc::Receiver<Bytes>);

impl Outgoing {
    fn new() -> (mpsc::Sender<Bytes>, Outgoing) {
        let (sender, receiver) = mpsc::channel(OUTBOX_MAX);
        (sender, Outgoing(receiver))
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}
