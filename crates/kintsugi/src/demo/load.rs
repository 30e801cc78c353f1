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
/// Failures that are remembered with their moment; further ones are only counted. A Service without anybody behind it
/// refuses a thousand in a second, and the first ones tell enough.
const FAILURES_MAX: usize = 4096;

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
    /// The failures: when each request was sent, and how it failed.
    failures: Vec<(Instant, String)>,
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
                    let sent = Instant::now();
                    let answer = request(target, "GET", "/").await.and_then(|body| parse(&body).ok_or(body));
                    note(&mut lock(&tally), sent, answer);
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

    /// What failed since a moment, in words: how many requests in which way, and when the first and the last was sent.
    pub fn failures_since(&self, began: Instant) -> Vec<String> {
        let mut kinds: Vec<(String, u64, Duration, Duration)> = Vec::new();
        for (sent, how) in lock(&self.tally).failures.iter().filter(|(sent, _)| *sent >= began) {
            let at = sent.duration_since(began);
            match kinds.iter_mut().find(|(known, ..)| known == how) {
                Some((_, count, first, last)) => {
                    (*count, *first, *last) = (*count + 1, (*first).min(at), (*last).max(at))
                }
                None => kinds.push((how.clone(), 1, at, at)),
            }
        }
        let told = kinds.into_iter().map(|(how, count, first, last)| {
            format!(
                "{count} × {how}, sent {:.3} s to {:.3} s after it",
                first.as_secs_f64(),
                last.as_secs_f64()
            )
        });
        told.collect()
    }

    /// When a pod last answered.
    pub fn last_answer_of(&self, pod: &str) -> Option<Instant> {
        lock(&self.tally).last.iter().filter(|(answer, _)| answer.pod == pod).map(|(_, at)| *at).max()
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(tally: &mut Tally, sent: Instant, answer: Result<Answer, String>) {
    tally.sent += 1;
    match answer {
        Err(how) => {
            tally.failed += 1;
            if tally.failures.len() < FAILURES_MAX {
                tally.failures.push((sent, how));
            }
        }
        Ok(answer) => {
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
    request(target, "GET", path).await.ok()
}

/// One POST; whether it was answered with 200.
pub async fn post(target: SocketAddr, path: &str) -> bool {
    request(target, "POST", path).await.is_ok()
}

/// One request; the body of a 200, or how it failed.
async fn request(target: SocketAddr, method: &str, path: &str) -> Result<String, String> {
    let failed = |doing: &'static str| move |error: std::io::Error| format!("{doing}: {}", error.kind());
    let exchange = async {
        let mut stream = TcpStream::connect(target).await.map_err(failed("to connect"))?;
        let question = format!("{method} {path} HTTP/1.1\r\nhost: demo\r\n\r\n");
        stream.write_all(question.as_bytes()).await.map_err(failed("to ask"))?;
        let mut text = String::new();
        stream.take(ANSWER_LEN_MAX).read_to_string(&mut text).await.map_err(failed("to hear"))?;
        Ok(text)
    };
    let text = tokio::time::timeout(REQUEST_PATIENCE, exchange).await;
    let text = text.unwrap_or_else(|_| Err(format!("no answer within {} s", REQUEST_PATIENCE.as_secs())))?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
        Some((head, _)) => Err(format!("answered {}", head.lines().next().unwrap_or_default())),
        None => Err("half an answer".to_owned()),
    }
}
