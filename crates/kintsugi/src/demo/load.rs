//! The demo's clients: a loop of requests to the Service, and single requests to one pod.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use host::{Host, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a request may take before it counts as failed: many times what a healthy one takes here (below 1 ms).
const REQUEST_PATIENCE: Duration = Duration::from_secs(1);
/// The pause between two requests of one client.
const PAUSE: Duration = Duration::from_millis(4);
/// Clients at once.
const CLIENTS: usize = 4;
/// An answer beyond this is not ours.
const ANSWER_LEN_MAX: u64 = 16 * 1024;

/// Who answered: the pod's host name, and which boot of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The pod's name.
    pub pod: String,
    /// Differs for every process.
    pub boot: String,
}

/// What the request loop has seen.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    failed: u64,
    /// The last answer of each pod, and when it came.
    last: Vec<(Answer, Instant)>,
}

/// A running loop of requests; it ends when it is dropped.
pub struct Load {
    /// Guards the counts for a few instructions.
    tally: Arc<Mutex<Tally>>,
    _clients: Tasks,
}

impl Load {
    /// Starts clients that ask `target` again and again.
    pub fn start(host: &Host, target: SocketAddr) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut clients = Tasks::new();
        for _ in 0..CLIENTS {
            let (tally, host) = (tally.clone(), host.clone());
            clients.spawn(async move {
                loop {
                    let answer = get(target, "/").await.and_then(|body| parse(&body));
                    note(&mut lock(&tally), answer);
                    host.sleep(PAUSE).await;
                }
            });
        }
        Self { tally, _clients: clients }
    }

    /// How many requests were sent and how many failed, so far.
    pub fn counts(&self) -> (u64, u64) {
        let tally = lock(&self.tally);
        (tally.sent, tally.failed)
    }

    /// When a pod last answered.
    pub fn last_answer_of(&self, pod: &str) -> Option<Instant> {
        lock(&self.tally).last.iter().filter(|(answer, _)| answer.pod == pod).map(|(_, at)| *at).max()
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(tally: &mut Tally, answer: Option<Answer>) {
    tally.sent += 1;
    match answer {
        None => tally.failed += 1,
        Some(answer) => {
            let now = Instant::now();
            match tally.last.iter_mut().find(|(known, _)| *known == answer) {
                Some((_, at)) => *at = now,
                None => tally.last.push((answer, now)),
            }
        }
    }
}

/// Reads `POD BOOT` as the web server answers it.
pub fn parse(body: &str) -> Option<Answer> {
    let (pod, boot) = body.trim().split_once(' ')?;
    Some(Answer { pod: pod.to_owned(), boot: boot.to_owned() })
}

/// One GET; the body, or nothing when it failed or was no 200.
pub async fn get(target: SocketAddr, path: &str) -> Option<String> {
    request(target, "GET", path).await
}

/// One POST; whether it was answered with 200.
pub async fn post(target: SocketAddr, path: &str) -> bool {
    request(target, "POST", path).await.is_some()
}

async fn request(target: SocketAddr, method: &str, path: &str) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(target).await?;
        stream.write_all(format!("{method} {path} HTTP/1.1\r\nhost: demo\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.take(ANSWER_LEN_MAX).read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let text = tokio::time::timeout(REQUEST_PATIENCE, exchange).await.ok()?.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}
