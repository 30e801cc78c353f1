//! The way of events to a webhook: many at a time, tried again for a while, and dropped when it does not take them. It never
//! holds up a request, nor the log beside it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use host::Host;
use tokio::sync::mpsc;

use super::trail::{Counts, Truncation};
use crate::dial::Dial;
use crate::outbound::{CallError, Callee, Credentials, Outbound, exchange};

/// How many events go out at once unless another number is given: upstream's.
pub const BATCH_LEN: usize = 400;
/// How long the first event of a batch waits for others unless another time is given: upstream's.
pub const BATCH_WAIT: Duration = Duration::from_secs(30);
/// Bytes of events after which a batch goes out: whole bodies fill it before their number does.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How many batches are on their way at once: one that is tried again must not hold up the others, and more would only
/// press a webhook that is in trouble.
const AT_ONCE: usize = 4;
/// How long a webhook may take to take a batch.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a batch is tried, and how long after the first failure it is tried again; half as long again after each further
/// one: upstream's.
const TRIES: u32 = 5;
const BACKOFF: Duration = Duration::from_secs(10);

/// Where the webhook is, and how events go there.
#[derive(Clone)]
pub struct WebhookSettings {
    /// Its URL; https.
    pub url: String,
    /// The authorities that may have signed its certificate, as PEM; empty for those that the machine trusts.
    pub authorities: Vec<u8>,
    /// What we show to it.
    pub credentials: Credentials,
    /// How many events go out at once.
    pub batch_len: usize,
    /// How long the first event of a batch waits for others.
    pub batch_wait: Duration,
    /// How long events and batches may be; without it, as long as they are.
    pub truncation: Option<Truncation>,
}

/// A webhook that takes events.
pub struct Webhook {
    settings: WebhookSettings,
    callee: Callee,
    outbound: Outbound,
}

impl Webhook {
    /// Sends as the settings say.
    ///
    /// # Errors
    /// Why nobody can be reached so.
    pub fn new(host: &Host, dial: Arc<dyn Dial>, settings: WebhookSettings) -> Result<Self, String> {
        let callee = Callee::at(&settings.url, &settings.authorities)?.shown(settings.credentials.clone());
        Ok(Self { settings, callee, outbound: Outbound::new(host.clone(), dial) })
    }

    /// How long events and batches may be.
    pub(super) fn truncation(&self) -> Option<Truncation> {
        self.settings.truncation
    }

    /// Bytes that a batch may have, unless one event alone has more.
    fn batch_bytes(&self) -> usize {
        self.settings.truncation.map_or(BATCH_BYTES, |truncation| truncation.batch_bytes.min(BATCH_BYTES))
    }

    /// Sends one batch, again and again for a while.
    async fn post(&self, host: &Host, body: &Bytes) -> Result<(), CallError> {
        let (mut rest, mut tried) = (BACKOFF, 1);
        loop {
            let sent = exchange(&self.outbound, host, &self.callee, Some(body), ANSWER_TIMEOUT).await;
            match sent {
                Ok(_) => return Ok(()),
                Err(why) if tried == TRIES => return Err(why),
                Err(why) => tracing::debug!(%why, tried, "the audit webhook does not take events"),
            }
            host.sleep(rest).await;
            rest += rest / 2;
            tried += 1;
        }
    }
}

/// Sends what comes until nothing more does.
pub async fn send(
    host: Host,
    mut waiting: mpsc::Receiver<Bytes>,
    webhook: Box<Webhook>,
    counts: Arc<Counts>,
) {
    let mut under_way = FuturesUnordered::new();
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(event) => Some(event),
            None => tokio::select! {
                first = waiting.recv() => first,
                Some(()) = under_way.next(), if !under_way.is_empty() => continue,
            },
        };
        let Some(first) = first else { break };
        let mut batch = vec![first];
        {
            let gathering =
                host.within(webhook.settings.batch_wait, gather(&webhook, &mut waiting, &mut batch));
            let mut gathering = pin!(gathering);
            loop {
                tokio::select! {
                    gathered = &mut gathering => {
                        left_over = gathered.flatten();
                        break;
                    }
                    Some(()) = under_way.next(), if !under_way.is_empty() => {}
                }
            }
        }
        while under_way.len() >= AT_ONCE {
            under_way.next().await;
        }
        under_way.push(deliver(&host, &webhook, batch, &counts));
    }
    while under_way.next().await.is_some() {}
}

/// Fills a batch; gives the event that found no room in it any more.
async fn gather(
    webhook: &Webhook,
    waiting: &mut mpsc::Receiver<Bytes>,
    batch: &mut Vec<Bytes>,
) -> Option<Bytes> {
    let (max, mut len) = (webhook.batch_bytes(), batch.iter().map(Bytes::len).sum::<usize>());
    while batch.len() < webhook.settings.batch_len && len < max {
        let event = waiting.recv().await?;
        len += event.len();
        if len > max {
            return Some(event);
        }
        batch.push(event);
    }
    None
}

async fn deliver(host: &Host, webhook: &Webhook, batch: Vec<Bytes>, counts: &Counts) {
    let (count, len) = (batch.len() as u64, batch.iter().map(Bytes::len).sum());
    let body = Bytes::from(list(&batch));
    drop(batch);
    let sent = webhook.post(host, &body).await;
    counts.waiting_bytes.fetch_sub(len, Ordering::Relaxed);
    match sent {
        Ok(()) => counts.written.fetch_add(count, Ordering::Relaxed),
        Err(why) => {
            tracing::warn!(%why, dropped = count, url = webhook.settings.url, "the audit webhook took no events");
            counts.dropped.fetch_add(count, Ordering::Relaxed)
        }
    };
}

/// An `EventList` of events that are lines of JSON.
fn list(events: &[Bytes]) -> Vec<u8> {
    let head = br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    let mut made = head.to_vec();
    for (nth, event) in events.iter().enumerate() {
        if nth > 0 {
            made.push(b',');
        }
        made.extend_from_slice(event.trim_ascii_end());
    }
    made.extend_from_slice(b"]}");
    made
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use host::{SimDisk, Time};
    use model::Tree;
    use serde_json::json;

    use super::super::{Policy, Trail};
    use super::*;
    use crate::testing::{Outside, Way};

    /// A trail to a webhook that refuses the first so many batches, and what it is asked.
    fn begin(refusals: usize) -> (Host, Arc<Trail>, Arc<Outside>) {
        let host = Host::simulated(1, Time::UNIX_EPOCH, SimDisk::new());
        let left = AtomicUsize::new(refusals);
        let outside = Outside::new(move |path, headers, list| {
            assert_eq!((path, &list["kind"]), ("/take", &json!("EventList")));
            assert_eq!(headers["authorization"], "Bearer ours");
            let refuses =
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            Some((if refuses { 503 } else { 200 }, json!({})))
        });
        let settings = WebhookSettings {
            url: "https://log.example.com/take".into(),
            authorities: Vec::new(),
            credentials: Credentials { token: Some("ours".into()), client: None },
            batch_len: 3,
            batch_wait: Duration::from_secs(30),
            truncation: Some(Truncation { event_bytes: 100, batch_bytes: 150 }),
        };
        let webhook = Webhook::new(&host, Arc::new(Way(outside.clone())), settings).expect("a good URL");
        let policy = b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
        let trail = Trail::new(&host, Policy::read(policy).expect("a policy"), None, Some(webhook));
        (host, trail, outside)
    }

    /// The batches that were sent since the last time.
    fn batches(outside: &Outside) -> Vec<Tree> {
        outside.take().into_iter().map(|(_, _, list)| list["items"].clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn events_go_out_when_they_are_many_or_have_waited_and_all_before_the_end() {
        let (host, trail, outside) = begin(0);
        (0..4).for_each(|number| trail.write(&json!(number)));
        host.sleep(Duration::from_secs(1)).await;
        assert_eq!(batches(&outside), [json!([0, 1, 2])]);
        host.sleep(Duration::from_secs(30)).await;
        assert_eq!(batches(&outside), [json!([3])]);
        trail.write(&json!(4));
        trail.close().await;
        assert_eq!(batches(&outside), [json!([4])]);
        assert!(trail.metrics().contains("apiserver_audit_event_total 5\n"), "{}", trail.metrics());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_has_no_more_bytes_than_it_may() {
        let (host, trail, outside) = begin(0);
        let event = |number: u8| json!({"number": number, "text": "x".repeat(60)});
        (0..3).for_each(|number| trail.write(&event(number)));
        host.sleep(Duration::from_secs(61)).await;
        assert_eq!(batches(&outside), [json!([event(0)]), json!([event(1)]), json!([event(2)])]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_taken_is_sent_again_and_dropped_in_the_end() {
        let (host, trail, outside) = begin(2);
        (0..3).for_each(|number| trail.write(&json!(number)));
        host.sleep(Duration::from_secs(60)).await;
        assert_eq!(batches(&outside).len(), 3);
        assert!(trail.metrics().contains("apiserver_audit_error_total{plugin=\"webhook\"} 0\n"));
        let (host, trail, outside) = begin(usize::MAX);
        (0..3).for_each(|number| trail.write(&json!(number)));
        host.sleep(Duration::from_secs(600)).await;
        assert_eq!(batches(&outside).len(), TRIES as usize);
        assert!(trail.metrics().contains("apiserver_audit_error_total{plugin=\"webhook\"} 3\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_webhook_that_takes_nothing_holds_nobody_up_for_long() {
        let (host, trail, _outside) = begin(usize::MAX);
        (0..100).for_each(|number| trail.write(&json!(number)));
        let began = host.moment();
        trail.close().await;
        assert!(host.moment().since(began) <= super::super::trail::CLOSE_MAX);
    }
}
