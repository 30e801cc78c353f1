//! Where events go: to each place by a queue with a bound, and one task that empties it.

use std::cell::LazyCell;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use host::{Host, Task};
use model::Tree;
use tokio::sync::mpsc;

use super::webhook::{self, Webhook};
use super::{Policy, event};

/// Events that wait to be written: upstream's buffer. At full speed that is a second of requests.
const WAITING_MAX: usize = 10_000;
/// Bytes of events that wait: ten thousand of usual size are half of it; whole bodies fill it sooner.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that are written at once: many events, and no long hold on a thread.
const BATCH_BYTES: usize = 1024 * 1024;

/// How long what waits may take to be written when the server ends: a webhook that is away must not hold it up.
pub(super) const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Where lines are kept.
pub trait Sink: Send {
    /// Writes whole lines. May block.
    ///
    /// # Errors
    /// Why they were not written; they are then counted as dropped.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// The longest event, in bytes, where events are cut short unless another is given: upstream's.
pub const EVENT_LEN: usize = 100 * 1024;
/// The most bytes of a batch there unless another number is given: upstream's.
pub const BATCH_LEN_BYTES: usize = 10 * 1024 * 1024;

/// How long events may be on one of the ways. A longer one goes without its bodies, and says so; one that is too long even
/// then is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// Bytes of an event, as a line.
    pub event_bytes: usize,
    /// Bytes of the events that go out together; a way that writes one after the other has no use for it.
    pub batch_bytes: usize,
}

/// A file, or what takes its place.
pub struct Log {
    /// Where lines are kept.
    pub sink: Box<dyn Sink>,
    /// How long events may be; without it, as long as they are.
    pub truncation: Option<Truncation>,
}

/// The ways of events to where they are kept.
pub struct Trail {
    policy: Policy,
    outlets: Vec<Outlet>,
}

/// One of them: a queue with a bound, and the task that empties it.
struct Outlet {
    host: Host,
    name: &'static str,
    /// The longest event that goes this way.
    longest: Option<usize>,
    queue: Mutex<Option<mpsc::Sender<Bytes>>>,
    counts: Arc<Counts>,
    writer: Mutex<Option<Task<()>>>,
}

/// What became of events.
#[derive(Default)]
pub(super) struct Counts {
    /// Bytes of those that wait or are on their way.
    pub waiting_bytes: AtomicUsize,
    /// How many were taken.
    pub written: AtomicU64,
    /// How many were not.
    pub dropped: AtomicU64,
}

impl Trail {
    /// Begins to keep what a policy wants, in a log, at a webhook, or both.
    pub fn new(host: &Host, policy: Policy, log: Option<Log>, webhook: Option<Webhook>) -> Arc<Self> {
        let longest = |truncation: Option<Truncation>| truncation.map(|truncation| truncation.event_bytes);
        let mut outlets = Vec::new();
        if let Some(Log { sink, truncation }) = log {
            outlets.push(Outlet::begin(host, "log", longest(truncation), |waiting, counts| {
                host.spawn(keep(host.clone(), waiting, sink, counts))
            }));
        }
        if let Some(webhook) = webhook {
            let longest = longest(webhook.truncation());
            outlets.push(Outlet::begin(host, "webhook", longest, |waiting, counts| {
                host.spawn(webhook::send(host.clone(), waiting, Box::new(webhook), counts))
            }));
        }
        Arc::new(Self { policy, outlets })
    }

    /// What is wanted.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Hands an event on; it is dropped where too many wait.
    pub(super) fn write(&self, event: &Tree) {
        let Some(line) = line_of(event) else { return };
        let cut = LazyCell::new(|| event::without_bodies(event).as_ref().and_then(line_of));
        for outlet in &self.outlets {
            let fits = |line: &Bytes| outlet.longest.is_none_or(|longest| line.len() <= longest);
            match if fits(&line) { Some(&line) } else { cut.as_ref().filter(|cut| fits(cut)) } {
                Some(line) => outlet.write(line.clone()),
                None => outlet.drop_one(),
            }
        }
    }

    /// Writes what waits, and takes no more.
    pub async fn close(&self) {
        for outlet in &self.outlets {
            outlet.close().await;
        }
    }

    /// How many were written and dropped, for `/metrics`.
    pub fn metrics(&self) -> String {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let written = self.outlets.iter().map(|outlet| count(&outlet.counts.written)).max().unwrap_or(0);
        let dropped = self.outlets.iter().map(|outlet| {
            let (name, dropped) = (outlet.name, count(&outlet.counts.dropped));
            format!("apiserver_audit_error_total{{plugin=\"{name}\"}} {dropped}\n")
        });
        format!(
            "# HELP apiserver_audit_event_total Audit events that were written.\n\
             # TYPE apiserver_audit_event_total counter\n\
             apiserver_audit_event_total {written}\n\
             # HELP apiserver_audit_error_total Audit events that were dropped.\n\
             # TYPE apiserver_audit_error_total counter\n\
             {}",
            dropped.collect::<String>()
        )
    }
}

impl Outlet {
    fn begin(
        host: &Host,
        name: &'static str,
        longest: Option<usize>,
        writer: impl FnOnce(mpsc::Receiver<Bytes>, Arc<Counts>) -> Task<()>,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let counts = Arc::new(Counts::default());
        let writer = Mutex::new(Some(writer(waiting, counts.clone())));
        Self { host: host.clone(), name, longest, queue: Mutex::new(Some(queue)), counts, writer }
    }

    fn write(&self, line: Bytes) {
        let len = line.len();
        let waiting = self.counts.waiting_bytes.fetch_add(len, Ordering::Relaxed);
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sent =
            waiting + len <= WAITING_BYTES_MAX && queue.is_some_and(|queue| queue.try_send(line).is_ok());
        if !sent {
            self.counts.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
            self.drop_one();
        }
    }

    fn drop_one(&self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }

    async fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            // It ends when the queue is empty; one that does not get that far is let go.
            let _ = self.host.within(CLOSE_MAX, writer.join()).await;
        }
    }
}

fn line_of(event: &Tree) -> Option<Bytes> {
    let mut line = serde_json::to_vec(event).ok()?;
    line.push(b'\n');
    Some(line.into())
}

async fn keep(host: Host, mut waiting: mpsc::Receiver<Bytes>, mut sink: Box<dyn Sink>, counts: Arc<Counts>) {
    let mut told = 0;
    while let Some(first) = waiting.recv().await {
        let (mut lines, mut count) = (first.to_vec(), 1);
        while lines.len() < BATCH_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            lines.extend_from_slice(&next);
            count += 1;
        }
        let len = lines.len();
        let (back, written) = host
            .blocking(move || {
                let written = sink.write(&lines);
                (sink, written)
            })
            .await;
        sink = back;
        counts.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
        match written {
            Ok(()) => counts.written.fetch_add(count, Ordering::Relaxed),
            Err(error) => {
                tracing::warn!(%error, "the audit log cannot be written");
                counts.dropped.fetch_add(count, Ordering::Relaxed)
            }
        };
        let dropped = counts.dropped.load(Ordering::Relaxed);
        if dropped > told {
            tracing::warn!(dropped = dropped - told, in_all = dropped, "audit events were dropped");
            told = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use host::{SimDisk, Time};
    use serde_json::json;

    use super::*;

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Sink for Lines {
        fn write(&mut self, lines: &[u8]) -> io::Result<()> {
            self.0.lock().expect("nobody panics").extend_from_slice(lines);
            Ok(())
        }
    }

    fn policy() -> Policy {
        Policy::read(b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}")
            .expect("a policy")
    }

    fn log(kept: &Arc<Mutex<Vec<u8>>>, truncation: Option<Truncation>) -> Log {
        Log { sink: Box::new(Lines(kept.clone())), truncation }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_long_goes_without_its_bodies_or_not_at_all() {
        let host = Host::simulated(1, Time::UNIX_EPOCH, SimDisk::new());
        let kept = Arc::new(Mutex::new(Vec::new()));
        let truncation = Truncation { event_bytes: 200, batch_bytes: 400 };
        let trail = Trail::new(&host, policy(), Some(log(&kept, Some(truncation))), None);
        let long = "x".repeat(200);
        trail.write(&json!({"level": "Request", "requestObject": {"a": 1}}));
        trail.write(&json!({"level": "Request", "requestObject": long, "annotations": {"k": "v"}}));
        trail.write(&json!({"level": "RequestResponse", "requestObject": 1, "responseObject": long}));
        trail.write(&json!({"level": "Request", "requestURI": long, "requestObject": 1}));
        trail.write(&json!({"level": "Metadata", "requestURI": long}));
        trail.close().await;
        let text = String::from_utf8(kept.lock().expect("nobody panics").clone()).expect("lines of JSON");
        let lines: Vec<Tree> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let cut = "audit.k8s.io/truncated";
        let wanted = [
            json!({"level": "Request", "requestObject": {"a": 1}}),
            json!({"level": "Request", "annotations": {"k": "v", cut: "true"}}),
            json!({"level": "RequestResponse", "annotations": {cut: "true"}}),
        ];
        assert_eq!(lines, wanted);
        let metrics = trail.metrics();
        assert!(metrics.contains("apiserver_audit_error_total{plugin=\"log\"} 2\n"), "{metrics}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_room_is_dropped_and_counted_and_the_rest_is_written_in_order() {
        let host = Host::simulated(1, Time::UNIX_EPOCH, SimDisk::new());
        let kept = Arc::new(Mutex::new(Vec::new()));
        let trail = Trail::new(&host, policy(), Some(log(&kept, None)), None);
        // Nothing is taken from the queue before this thread waits.
        for number in 0..WAITING_MAX + 5 {
            trail.write(&json!(number));
        }
        trail.close().await;
        let text = String::from_utf8(kept.lock().expect("nobody panics").clone()).expect("lines of numbers");
        let wanted: String = (0..WAITING_MAX).map(|number| format!("{number}\n")).collect();
        assert!(text == wanted);
        assert!(
            trail.metrics().contains("apiserver_audit_error_total{plugin=\"log\"} 5\n"),
            "{}",
            trail.metrics()
        );
        assert!(trail.metrics().contains("apiserver_audit_event_total 10000\n"));
        trail.write(&json!("late"));
        assert!(trail.metrics().contains("apiserver_audit_error_total{plugin=\"log\"} 6\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_fill_it_by_their_bytes() {
        let host = Host::simulated(1, Time::UNIX_EPOCH, SimDisk::new());
        let trail = Trail::new(&host, policy(), Some(log(&Arc::default(), None)), None);
        let body = json!("x".repeat(WAITING_BYTES_MAX / 3));
        (0..4).for_each(|_| trail.write(&body));
        trail.close().await;
        assert!(trail.metrics().contains("apiserver_audit_event_total 2\n"), "{}", trail.metrics());
    }
}
