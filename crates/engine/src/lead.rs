//! Who leads: where several servers share a store, one of them runs the loops. It holds a Lease, by the rules of upstream's
//! leader election.
//!
//! Promises: nobody takes a lease that was renewed within its duration, counted on the taker's own boot-time clock from when it
//! saw the renewal; a leader that cannot renew stops before that can be over. Should two run all the same (a process that stood
//! still), each of their writes still names what it was decided on.

use std::time::Duration;

use client::{Client, ClientError};
use host::{Host, Moment, watch};
use model::kinds::LEASE;
use model::{Key, Object, Time, Tree};
use serde_json::json;

/// Where the lease is.
const NAMESPACE: &str = "kube-system";
/// Its name.
const NAME: &str = "kintsugi-controllers";

/// How long the lease is good for after a renewal. A dead leader is replaced after that; half would be lost to an election
/// of etcd, upstream takes 15 seconds.
pub const LEASE_DURATION: Duration = Duration::from_secs(6);

/// How long after its last renewal a leader goes on without the next. The rest of the duration is for stopping.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(4);

/// How often the lease is renewed, or looked at by those who wait for it.
pub const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Takes part in the election.
pub struct Elector {
    client: Client,
    host: Host,
    /// Who takes part; each start has another.
    me: String,
    lead: watch::Sender<bool>,
    /// What was last seen of the lease, and since when.
    seen: Option<(String, Moment)>,
}

/// What to do about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Make it: there is none.
    Make,
    /// Renew it: it is ours.
    Renew,
    /// Take it: it was let go, or is over.
    Take,
    /// Let its holder have it.
    Wait,
}

/// Decides what to do about a lease that has been as it is for so long, as far as is known.
fn decide(lease: Option<&Tree>, me: &str, unchanged_for: Duration) -> Act {
    let Some(lease) = lease else { return Act::Make };
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    let seconds = lease["spec"]["leaseDurationSeconds"].as_u64();
    match holder {
        "" => Act::Take,
        holder if holder == me => Act::Renew,
        _ if unchanged_for > seconds.map_or(LEASE_DURATION, Duration::from_secs) => Act::Take,
        _ => Act::Wait,
    }
}

/// The lease as its new holder writes it, or as it renews it.
fn held(lease: Option<&Tree>, me: &str, act: Act, now: Time) -> Tree {
    let stamp = model::time::micros(now);
    let mut new = lease.cloned().unwrap_or_else(|| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": {},
        })
    });
    let transitions = new["spec"]["leaseTransitions"].as_u64().unwrap_or(0);
    let spec = &mut new["spec"];
    spec["holderIdentity"] = json!(me);
    spec["leaseDurationSeconds"] = json!(LEASE_DURATION.as_secs());
    spec["renewTime"] = json!(stamp);
    if act != Act::Renew {
        spec["acquireTime"] = json!(stamp);
        spec["leaseTransitions"] = json!(transitions + u64::from(act == Act::Take));
    }
    new
}

/// The lease as its holder lets it go: whoever looks next takes it.
fn let_go(mut lease: Tree, now: Time) -> Tree {
    let spec = &mut lease["spec"];
    spec["holderIdentity"] = json!("");
    spec["leaseDurationSeconds"] = json!(1);
    spec["renewTime"] = json!(model::time::micros(now));
    lease
}

impl Elector {
    /// Takes part as `name`; what comes of it shows in the receiver.
    pub fn new(client: Client, host: Host, name: &str) -> (Self, watch::Receiver<bool>) {
        let me = format!("{name}_{}", host.chance().uuid());
        let (lead, leads) = watch::channel(false);
        (Self { client, host, me, lead, seen: None }, leads)
    }

    /// Takes part until `shutdown` ends, and then lets go of the lease.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = std::pin::pin!(shutdown);
        let host = self.host.clone();
        let mut renewed = host.moment();
        loop {
            // Counted from before the renewal: others may see it at once.
            let asked = self.host.moment();
            let left = match *self.lead.borrow() {
                true => RENEW_DEADLINE.saturating_sub(asked.since(renewed)),
                false => RENEW_DEADLINE,
            };
            let turn = tokio::select! {
                biased;
                () = &mut shutdown => break,
                turn = host.within(left, self.turn()) => turn,
            };
            match turn {
                Some(Ok(true)) => {
                    renewed = asked;
                    self.set(true);
                }
                Some(Ok(false)) => self.set(false),
                Some(Err(error)) => tracing::debug!(%error, "cannot renew or look at the lease of the loops"),
                None => {}
            }
            if self.host.moment().since(renewed) >= RENEW_DEADLINE {
                self.set(false);
            }
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = self.host.sleep(RETRY_EVERY) => {}
            }
        }
        self.end().await;
    }

    fn set(&self, leads: bool) {
        if *self.lead.borrow() != leads {
            tracing::info!(me = %self.me, leads, "the lead of the loops changed");
            self.lead.send_replace(leads);
        }
    }

    /// Looks at the lease and does what is due; says whether it is ours now.
    async fn turn(&mut self) -> Result<bool, ClientError> {
        let lease = match self.client.get(&key()).await {
            Ok(lease) => Some(lease),
            Err(ClientError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let unchanged_for = self.note(lease.as_ref());
        let tree = lease.as_ref().map(tree).transpose()?;
        let act = decide(tree.as_ref(), &self.me, unchanged_for);
        let new = held(tree.as_ref(), &self.me, act, self.host.now());
        let written = match act {
            Act::Wait => return Ok(false),
            Act::Make => self.client.create(&LEASE, NAMESPACE, &new).await,
            // It carries the revision that was seen: who is beaten to it does not get it.
            Act::Take | Act::Renew => self.client.replace(&key(), "", &new).await,
        };
        match written {
            Ok(lease) => {
                self.note(Some(&lease));
                Ok(true)
            }
            Err(ClientError::Conflict { .. } | ClientError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Notes what the lease is like; says for how long it has been so.
    fn note(&mut self, lease: Option<&Object>) -> Duration {
        let now = self.host.moment();
        let revision = lease.map(|lease| lease.meta().resource_version().to_owned()).unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == revision => now.since(*since),
            _ => {
                self.seen = Some((revision, now));
                Duration::ZERO
            }
        }
    }

    /// Lets go of the lease, so that the next leader need not wait.
    async fn end(mut self) {
        let led = *self.lead.borrow();
        self.set(false);
        if !led {
            return;
        }
        let letting_go = async {
            let lease = self.client.get(&key()).await?;
            let lease = tree(&lease)?;
            if lease["spec"]["holderIdentity"] == json!(self.me) {
                self.client.replace(&key(), "", &let_go(lease, self.host.now())).await?;
            }
            Ok::<(), ClientError>(())
        };
        if let Some(Err(error)) = self.host.within(RETRY_EVERY, letting_go).await {
            tracing::debug!(%error, "cannot let go of the lease of the loops");
        }
        self.seen = None;
    }
}

fn key() -> Key {
    Key::new(&LEASE, NAMESPACE, NAME)
}

fn tree(lease: &Object) -> Result<Tree, ClientError> {
    lease.tree().map_err(|error| ClientError::malformed("a lease", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lease: &str, unchanged_for: u64, told: Act) {
        let lease: Option<Tree> = (!lease.is_empty()).then(|| {
            let mut words = lease.split(' ');
            let (holder, seconds) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let holder = if holder == "-" { "" } else { holder };
            json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds.parse::<u64>().ok()}})
        });
        assert_eq!(decide(lease.as_ref(), "me", Duration::from_secs(unchanged_for)), told);
    }

    #[test]
    fn a_lease_is_taken_when_it_is_let_go_or_over_by_our_own_clock() {
        check("", 0, Act::Make);
        check("me 6", 0, Act::Renew);
        check("me 6", 60, Act::Renew);
        check("- 1", 0, Act::Take);
        check("other 6", 0, Act::Wait);
        check("other 6", 6, Act::Wait);
        check("other 6", 7, Act::Take);
        check("other 15", 7, Act::Wait);
        check("other", 7, Act::Take);
    }

    #[test]
    fn a_taker_counts_the_transition_and_a_renewal_does_not() {
        let now = Time::UNIX_EPOCH;
        let made = held(None, "a", Act::Make, now);
        assert_eq!(made["spec"]["leaseTransitions"], json!(0));
        let later = now + Duration::from_secs(9);
        let renewed = held(Some(&made), "a", Act::Renew, later);
        assert_eq!(renewed["spec"]["acquireTime"], json!("1970-01-01T00:00:00.000000Z"));
        assert_eq!(renewed["spec"]["renewTime"], json!("1970-01-01T00:00:09.000000Z"));
        let taken = held(Some(&renewed), "b", Act::Take, later);
        assert_eq!(taken["spec"]["leaseTransitions"], json!(1));
        assert_eq!(decide(Some(&let_go(taken, later)), "a", Duration::ZERO), Act::Take);
    }
}
