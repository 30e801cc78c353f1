//! A new key for what is secret in a store that several servers share.
//!
//! What they agreed on lies in etcd ([`Agreed`]), and each takes it up by the one watch, in order, before anything that was
//! written after it. Every server brings a rotation on that it sees: each step compares what was agreed before, so that many
//! at once do no harm, and a server that dies between two of them is not missed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd::Etcd;
use host::{Host, Moment, watch};
use store::{Range, Revision, Store};

use crate::keys::Keys;
use crate::place::Place;
use crate::servers::{LEASES, SILENCE_MAX};
use crate::shared;
use crate::vault::{Phase, Vault};

/// How soon a rotation that waits for others is looked at again. As often as servers renew their leases: sooner there is no news
/// of them.
const LOOK_EVERY: Duration = crate::servers::RENEW_EVERY;

/// How long whoever asks for a rotation waits for its end. A client gives up after 30 s; the rotation goes on without.
const DONE_MAX: Duration = Duration::from_secs(25);

/// A server's part in rotations.
pub struct Rotation {
    /// Its clock.
    pub host: Host,
    /// Where the servers agree.
    pub etcd: Etcd,
    /// The store in it.
    pub store: Store,
    /// Its keys of the store.
    pub vault: Arc<Vault>,
    /// The keys of the cluster, which the servers agree on together with those of the store.
    pub keys: Arc<Keys>,
    /// The name of its Lease; none for who only looks in.
    pub name: Option<String>,
    /// What the last round came to.
    state: watch::Sender<(i64, State)>,
}

/// How far a server sees what was agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// No rotation is under way, and its file is as was agreed.
    Rests,
    /// It goes on, once this has changed.
    Waits(String),
}

/// The Leases of servers, each with its revision and since when it has that.
type Seen = BTreeMap<String, (Revision, Moment)>;

impl Rotation {
    /// The part of a server.
    pub fn new(
        host: &Host,
        etcd: Etcd,
        store: Store,
        vault: Arc<Vault>,
        keys: Arc<Keys>,
        name: Option<String>,
    ) -> Self {
        Self {
            host: host.clone(),
            etcd,
            store,
            vault,
            keys,
            name,
            state: watch::Sender::new((0, State::Waits("it has not begun".into()))),
        }
    }

    /// Takes part until its task is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut news = self.etcd.sealing();
        let mut seen = Seen::new();
        loop {
            let at = *news.borrow_and_update();
            let state = self.round(at, &mut seen).await.unwrap_or_else(|why| {
                let why = format!("{why:#}");
                tracing::warn!(why, "cannot bring the rotation of the store's key on; trying again");
                State::Waits(why)
            });
            let rests = state == State::Rests;
            self.state.send_replace((at, state));
            let changed = async {
                // Ends only with the store, which is held here.
                let _ = news.changed().await;
            };
            match rests {
                true => changed.await,
                false => drop(self.host.within(LOOK_EVERY, changed).await),
            }
        }
    }

    /// Begins a rotation, or joins one that is under way, and waits until the server's part in it has come to its end.
    pub async fn rotate(&self) -> Result<()> {
        let before = *self.etcd.sealing().borrow();
        if !self.vault.is_rotating() {
            let agreed = self.vault.propose()?;
            // Another who was faster has begun one as well.
            self.etcd.agree_on_sealing(before, &agreed.spelled()?, &[], false).await?;
        }
        let mut state = self.state.subscribe();
        let done = state.wait_for(|(at, state)| *at > before && *state == State::Rests);
        if self.host.within(DONE_MAX, done).await.is_some() {
            return Ok(());
        }
        match &self.state.borrow().1 {
            State::Waits(why) => bail!("the new key is not everywhere yet, and it goes on by itself: {why}"),
            State::Rests => bail!("etcd does not say that a rotation has begun"),
        }
    }

    /// Does what can be done now, by what was agreed on at an etcd revision.
    async fn round(&self, at: i64, seen: &mut Seen) -> Result<State> {
        // What is known is at least as new as its number, and each step compares the number.
        let agreed = self.vault.agreed();
        self.vault.save_beside(&self.host).await?;
        let Some(agreed) = agreed else { return Ok(State::Rests) };
        match agreed.phase {
            Phase::Done => Ok(State::Rests),
            Phase::Opening => {
                if let Some(name) = &self.name {
                    self.etcd.tell_heeded(name, at).await?;
                }
                let heeded = self.etcd.heeded(at).await?;
                let late: Vec<String> = self.living(seen).difference(&heeded).cloned().collect();
                if !late.is_empty() {
                    return Ok(State::Waits(format!("{} has not taken it up", late.join(", "))));
                }
                let text = agreed.at(Phase::Sealing).spelled()?;
                self.etcd.agree_on_sealing(at, &text, &[], false).await?;
                Ok(State::Waits("it begins to seal".into()))
            }
            Phase::Sealing => {
                let count = self.etcd.seal_anew(at).await.context("cannot write what is secret anew")?;
                let print = shared::fingerprint(&self.keys, self.vault.alone_then()?.as_bytes());
                let text = agreed.at(Phase::Done).spelled()?;
                if self.etcd.agree_on_sealing(at, &text, &[(shared::KEYS, &print)], true).await? {
                    tracing::info!(count, "what is secret is sealed with a new key, and the old one is gone");
                }
                Ok(State::Waits("the old key is let go of".into()))
            }
        }
    }

    /// The servers whose Leases were renewed lately, as far as was seen here.
    fn living(&self, seen: &mut Seen) -> BTreeSet<String> {
        let now = self.host.moment();
        let range = Range { prefix: LEASES.to_owned(), ..Range::default() };
        let leases = self.store.list(&range).map(|page| page.records).unwrap_or_default();
        let mut living = BTreeSet::new();
        let mut found = BTreeMap::new();
        for lease in leases {
            let name = lease.path.rsplit('/').next().unwrap_or_default().to_owned();
            let since = match seen.get(&name) {
                Some((revision, since)) if *revision == lease.revision => *since,
                _ => now,
            };
            if now.since(since) < SILENCE_MAX {
                living.insert(name.clone());
            }
            found.insert(name, (lease.revision, since));
        }
        *seen = found;
        living
    }
}

/// Rotates from a data directory on which no server runs.
pub async fn from_outside(host: &Host, settings: &etcd::Settings, place: &Place) -> Result<()> {
    let vault = Arc::new(Vault::open(&place.store_keys())?);
    ensure!(
        place.keys().join("ca.crt").is_file(),
        "there are no keys of a cluster in {}",
        place.keys().display()
    );
    let keys = Arc::new(Keys::open(&place.keys(), host.now())?);
    let (store, etcd) = shared::open_with(host, settings, &vault).await?;
    let rotated = async {
        shared::agree_on_keys(host, &etcd, place, &keys, &vault).await?;
        let rotation = Arc::new(Rotation::new(host, etcd, store.clone(), vault, keys, None));
        let _part = host.spawn(rotation.clone().run());
        rotation.rotate().await
    };
    let rotated = rotated.await;
    store.close().await;
    rotated
}
