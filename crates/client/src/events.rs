//! Kubernetes Events: what users are told in `kubectl describe`.
//!
//! Promises: the same news about the same object is one Event with a count; telling never waits and never fails the
//! teller: what is too much or cannot be written is dropped, and the drop is logged.

use std::collections::BTreeMap;
use std::time::Duration;

use host::{Host, Task};
use model::{EventNote, Gvr, Key, Precondition, Time, Tree, Write};
use serde_json::json;
use tokio::sync::mpsc;

use crate::{Backoff, Client, ClientError};

/// How many notes may wait to be written. A burst of a few hundred pods fits; beyond that news is noise.
pub const NOTES_WAITING_MAX: usize = 1024;

/// How many different events are remembered, to count them up (as many as Kubernetes' clients remember).
pub const REMEMBERED_MAX: usize = 4096;

/// How long an event is counted up before the same news begins a new one: as long as servers are sure to keep it.
pub const COUNT_UP_TIME: Duration = Duration::from_secs(10 * 60);

/// How many events one component may write about one object at once, and after how long one more is allowed.
///
/// Kubernetes' own limits: 25, and one every five minutes. They keep a pod in a crash loop from filling the store.
pub const BURST_MAX: u32 = 25;

/// See [`BURST_MAX`].
pub const BURST_REFILL: Duration = Duration::from_secs(300);

/// How often writing one event is tried; a server that is away longer than some seconds has better things to do.
const TRIES_MAX: u32 = 4;

/// The resource of core events.
const EVENTS: Gvr = Gvr::new("", "v1", "events");

/// Tells events as one component. Clones share the teller; it ends with the last one.
#[derive(Clone)]
pub struct Events {
    notes: mpsc::Sender<(EventNote, bool)>,
    _writer: std::sync::Arc<Task<()>>,
}

impl Events {
    /// A teller for `component` (such as `kubelet`), on the node `host_name` (empty for those of the control plane).
    pub fn new(client: Client, component: &str, host_name: &str, host: Host) -> Self {
        let (notes, waiting) = mpsc::channel(NOTES_WAITING_MAX);
        let recorder = Recorder::new(component, host_name);
        let writer = host.spawn(write(client, recorder, waiting, host.clone()));
        Self { notes, _writer: std::sync::Arc::new(writer) }
    }

    /// Tells, without waiting.
    pub fn tell(&self, note: EventNote) {
        self.send(note, false);
    }

    /// Tells how things stand, without waiting: nothing when that was told within [`COUNT_UP_TIME`].
    pub fn remind(&self, note: EventNote) {
        self.send(note, true);
    }

    fn send(&self, note: EventNote, is_reminder: bool) {
        if let Err(error) = self.notes.try_send((note, is_reminder)) {
            tracing::debug!(%error, "an event was dropped");
        }
    }
}

async fn write(
    client: Client,
    mut recorder: Recorder,
    mut notes: mpsc::Receiver<(EventNote, bool)>,
    host: Host,
) {
    while let Some((note, is_reminder)) = notes.recv().await {
        if is_reminder && recorder.knows(&note, host.now()) {
            continue;
        }
        let suffix = format!("{:016x}", host.chance().u64());
        let Some(write) = recorder.record(&note, host.now(), &suffix) else {
            continue;
        };
        match tried(&client, &write, &host).await {
            // The event to count up has been removed meanwhile: begin a new one.
            Err(ClientError::NotFound { .. }) if matches!(write, Write::Patch { .. }) => {
                recorder.forget(&note);
                if let Some(write) = recorder.record(&note, host.now(), &suffix) {
                    log(tried(&client, &write, &host).await, &note);
                }
            }
            done => log(done, &note),
        }
    }
}

fn log(done: Result<(), ClientError>, note: &EventNote) {
    if let Err(error) = done {
        tracing::debug!(%error, object = %note.object, reason = note.reason, "an event could not be written");
    }
}

async fn tried(client: &Client, write: &Write, host: &Host) -> Result<(), ClientError> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    loop {
        match client.carry_out(write).await {
            Err(error) if error.is_passing() && backoff.failures() + 1 < TRIES_MAX => {
                host.sleep(backoff.next(host.chance())).await;
            }
            done => return done.map(|_| ()),
        }
    }
}

/// Turns notes into writes: pure, but for what it remembers.
#[derive(Debug)]
pub struct Recorder {
    component: String,
    host_name: String,
    known: BTreeMap<Sameness, Known>,
    bursts: BTreeMap<String, Burst>,
}

/// What makes two notes the same news.
type Sameness = (String, String, bool, String, String);

#[derive(Debug)]
struct Known {
    key: Key,
    count: u64,
    last: Time,
}

/// A bucket of tokens for one object.
#[derive(Debug)]
struct Burst {
    spent: u32,
    since: Time,
}

impl Recorder {
    /// A recorder of one component.
    pub fn new(component: &str, host_name: &str) -> Self {
        Self {
            component: component.into(),
            host_name: host_name.into(),
            known: BTreeMap::new(),
            bursts: BTreeMap::new(),
        }
    }

    /// The write that tells the note; `None` when the object has been told of enough. `suffix` makes the name unique.
    pub fn record(&mut self, note: &EventNote, now: Time, suffix: &str) -> Option<Write> {
        self.trim(now);
        if !self.may_tell(note, now) {
            return None;
        }
        let sameness = sameness(note);
        if let Some(known) =
            self.known.get_mut(&sameness).filter(|known| within(known.last, now, COUNT_UP_TIME))
        {
            known.count += 1;
            known.last = now;
            let patch = json!({"count": known.count, "lastTimestamp": seconds(now)});
            let key = known.key.clone();
            return Some(Write::Patch { key, part: "", patch, when: Precondition::default() });
        }
        let namespace = if note.object.namespace.is_empty() { "default" } else { &note.object.namespace };
        let name = format!("{}.{suffix}", note.object.name);
        let key = Key::new(&EVENTS, namespace, name);
        let object = self.event(note, &key, now);
        self.known.insert(sameness, Known { key, count: 1, last: now });
        Some(Write::Create { gvr: EVENTS, namespace: namespace.into(), object })
    }

    /// Whether the note was told lately.
    pub fn knows(&self, note: &EventNote, now: Time) -> bool {
        self.known.get(&sameness(note)).is_some_and(|known| within(known.last, now, COUNT_UP_TIME))
    }

    /// Begins anew with this news: the event that told it is gone.
    pub fn forget(&mut self, note: &EventNote) {
        self.known.remove(&sameness(note));
    }

    fn event(&self, note: &EventNote, key: &Key, now: Time) -> Tree {
        let mut regarding = json!({
            "apiVersion": note.object.gvr.api_version(),
            "kind": note.kind,
            "name": note.object.name,
            "uid": note.uid,
        });
        let fields = [("namespace", &note.object.namespace), ("fieldPath", &note.field_path)];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            regarding[name] = json!(value);
        }
        let mut source = json!({"component": self.component});
        if !self.host_name.is_empty() {
            source["host"] = json!(self.host_name);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "involvedObject": regarding,
            "reason": note.reason,
            "message": note.message,
            "type": if note.is_warning { "Warning" } else { "Normal" },
            "source": source,
            "firstTimestamp": seconds(now),
            "lastTimestamp": seconds(now),
            "count": 1,
            "reportingComponent": self.component,
            "reportingInstance": self.host_name,
        })
    }

    fn may_tell(&mut self, note: &EventNote, now: Time) -> bool {
        let burst = self.bursts.entry(note.uid.clone()).or_insert(Burst { spent: 0, since: now });
        let refilled = elapsed(burst.since, now).as_secs() / BURST_REFILL.as_secs();
        if refilled > 0 {
            burst.spent = burst.spent.saturating_sub(u32::try_from(refilled).unwrap_or(u32::MAX));
            burst.since = now;
        }
        let may = burst.spent < BURST_MAX;
        burst.spent += u32::from(may);
        may
    }

    /// Keeps what is remembered within its bounds.
    fn trim(&mut self, now: Time) {
        if self.known.len() >= REMEMBERED_MAX {
            self.known.retain(|_, known| within(known.last, now, COUNT_UP_TIME));
            while self.known.len() >= REMEMBERED_MAX {
                self.known.pop_first();
            }
        }
        if self.bursts.len() >= REMEMBERED_MAX {
            self.bursts.retain(|_, burst| within(burst.since, now, BURST_REFILL));
            while self.bursts.len() >= REMEMBERED_MAX {
                self.bursts.pop_first();
            }
        }
    }
}

fn sameness(note: &EventNote) -> Sameness {
    let object = format!("{} {}", note.object, note.uid);
    (object, note.field_path.clone(), note.is_warning, note.reason.clone(), note.message.clone())
}

fn elapsed(from: Time, now: Time) -> Duration {
    Duration::try_from(now.duration_since(from)).unwrap_or_default()
}

fn within(from: Time, now: Time, limit: Duration) -> bool {
    elapsed(from, now) < limit
}

/// A time as objects carry it: to the second.
fn seconds(time: Time) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> EventNote {
        EventNote {
            object: Key::new(&Gvr::new("", "v1", "pods"), "a", "web"),
            kind: "Pod".into(),
            uid: "u".into(),
            field_path: String::new(),
            is_warning: false,
            reason: "Pulled".into(),
            message: message.into(),
        }
    }

    fn at(seconds: i64) -> Time {
        Time::from_second(seconds).expect("a time")
    }

    #[test]
    fn the_same_news_is_counted_up_and_other_news_is_not() {
        let mut recorder = Recorder::new("kubelet", "n");
        let first = recorder.record(&note("one"), at(0), "1");
        let Some(Write::Create { object, .. }) = first else {
            panic!("the first is created: {first:?}");
        };
        assert_eq!(object["metadata"]["name"], "web.1");
        assert_eq!(object["source"], json!({"component": "kubelet", "host": "n"}));
        let again = recorder.record(&note("one"), at(5), "2");
        let Some(Write::Patch { key, patch, .. }) = again else {
            panic!("the second is counted: {again:?}");
        };
        assert_eq!(
            (key.name.as_str(), patch),
            ("web.1", json!({"count": 2, "lastTimestamp": "1970-01-01T00:00:05Z"}))
        );
        assert!(matches!(recorder.record(&note("two"), at(6), "3"), Some(Write::Create { .. })));
        assert!(matches!(recorder.record(&note("one"), at(1000), "4"), Some(Write::Create { .. })));
    }

    #[test]
    fn an_object_with_too_much_news_is_told_of_less() {
        let mut recorder = Recorder::new("kubelet", "");
        let told = (0..100).filter(|n| recorder.record(&note(&n.to_string()), at(1), "x").is_some()).count();
        assert_eq!(told, BURST_MAX as usize);
        assert!(recorder.record(&note("later"), at(302), "x").is_some());
        assert!(recorder.record(&note("too soon"), at(303), "x").is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut recorder = Recorder::new("kubelet", "");
        for n in 0..REMEMBERED_MAX + 10 {
            let note = EventNote { uid: n.to_string(), ..note("one") };
            assert!(recorder.record(&note, at(1), "x").is_some());
        }
        assert!(recorder.known.len() <= REMEMBERED_MAX && recorder.bursts.len() <= REMEMBERED_MAX);
    }
}
