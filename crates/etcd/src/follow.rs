//! The one watch that feeds the memory: from where it is, over whichever member answers, for as long as the store is open.

use std::time::Duration;

use bytes::Bytes;
use client::grpc::{Channel, Status};
use host::Host;
use http::{HeaderName, HeaderValue};
use store::{Form, Intake, Path, StoreError, Told, join};

use crate::endpoints::Endpoints;
use crate::keys::{self, Keys, Sort};
use crate::load::{self, NotLoaded};
use crate::messages::{Event, WATCH, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::terms::Terms;

/// How long a watch may take until etcd says that it is there.
const CREATED_MAX: Duration = Duration::from_secs(5);

/// How long a connection is waited for at once.
const CHANNEL_MAX: Duration = Duration::from_secs(60);

/// How long it rests after a failure, so that a member which fails at once is not asked without a pause.
const REST: Duration = Duration::from_millis(100);

/// Feeds a memory.
pub struct Follower {
    pub host: Host,
    pub endpoints: Endpoints,
    pub keys: Keys,
    pub form: Form,
    pub terms: Terms,
    pub intake: Intake,
    /// All up to this etcd revision is in the memory.
    pub done: i64,
}

/// Why a watch ended.
enum Ended {
    /// The connection, or the member at its other end, is of no use.
    Lost(Status),
    /// What comes next is compacted.
    Compacted,
    /// What comes next is not for this server, which was started on other terms.
    Over(StoreError),
}

impl Follower {
    /// Follows until its task is dropped.
    pub async fn run(mut self) {
        loop {
            let Ok((number, channel)) = self.endpoints.channel(CHANNEL_MAX).await else { continue };
            let endpoints = self.endpoints.clone();
            let ended = tokio::select! {
                biased;
                () = endpoints.given_up(number) => continue,
                ended = self.follow(channel) => ended,
            };
            match ended {
                Ended::Lost(status) => {
                    tracing::warn!(%status, "the watch of etcd ended; it goes on where it was");
                    self.endpoints.give_up(number);
                }
                Ended::Compacted => match self.reload().await {
                    Ok(()) => {}
                    Err(error) => return self.end(&error),
                },
                Ended::Over(error) => return self.end(&error),
            }
            self.host.sleep(REST).await;
        }
    }

    /// What happened meanwhile is gone: all is read anew, and whoever watches has to do the same.
    async fn reload(&mut self) -> Result<(), StoreError> {
        tracing::warn!(after = self.done, "etcd has compacted what comes next; all is read anew");
        let Self { endpoints, keys, form, terms, intake, .. } = self;
        match load::reload(endpoints, keys, (form, terms), intake, 0).await {
            Ok(at) => self.done = at,
            Err(NotLoaded::Compacted) => {}
            // Trying again would not help.
            Err(NotLoaded::Failed(error @ (StoreError::Closed | StoreError::Sealed { .. }))) => {
                return Err(error);
            }
            Err(NotLoaded::Failed(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "cannot read all anew; trying again"
                );
            }
        }
        Ok(())
    }

    /// Nothing is served any more: this server can only begin anew.
    fn end(&self, why: &StoreError) {
        match why {
            StoreError::Closed => {
                tracing::error!("the store was restored from a backup: restart the servers")
            }
            other => tracing::error!(error = other as &dyn std::error::Error, "cannot go on with this store"),
        }
        self.intake.close();
    }

    async fn follow(&mut self, channel: Channel) -> Ended {
        // A member without a leader ends the watch instead of falling silent.
        let channel =
            channel.with_header(HeaderName::from_static("hasleader"), HeaderValue::from_static("true"));
        let (questions, mut answers) = match channel.stream::<WatchRequest, WatchResponse>(WATCH) {
            Ok(stream) => stream,
            Err(status) => return Ended::Lost(status),
        };
        let (key, range_end) = self.keys.all();
        let create = WatchCreateRequest { key, range_end, start_revision: self.done + 1, fragment: true };
        if let Err(status) = questions.send(&WatchRequest { create: Some(create) }).await {
            return Ended::Lost(status);
        }
        let mut is_created = false;
        let mut events = Vec::new();
        loop {
            let next = match is_created {
                true => answers.next().await,
                false => match tokio::time::timeout(CREATED_MAX, answers.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ended::Lost(Status::unavailable("etcd does not begin the watch")),
                },
            };
            let answer = match next {
                Some(Ok(answer)) => answer,
                Some(Err(status)) => return Ended::Lost(status),
                None => return Ended::Lost(Status::unavailable("etcd ended the watch")),
            };
            if answer.canceled {
                return match answer.compact_revision {
                    0 => Ended::Lost(Status::unavailable(answer.cancel_reason)),
                    _ => Ended::Compacted,
                };
            }
            is_created |= answer.created;
            events.extend(answer.events);
            // A piece of an answer may end within a revision; the whole never does.
            if !answer.fragment
                && let Some(last) =
                    events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision)
            {
                let told = match told(&self.keys, &self.form, &self.terms, &events) {
                    Ok(told) => told,
                    Err(error) => return Ended::Over(error),
                };
                self.intake.take_in(told, self.keys.whole(last));
                self.done = last;
                events.clear();
            }
        }
    }
}

/// What events tell, in order.
///
/// # Errors
/// `Closed` and `Sealed` when this server can only begin anew.
fn told(keys: &Keys, form: &Form, terms: &Terms, events: &[Event]) -> Result<Vec<Told>, StoreError> {
    let mut told = Vec::with_capacity(events.len());
    let kvs = || events.iter().filter_map(|event| event.kv.as_ref().map(|kv| (event.kind, kv)));
    // How the records of the revision at hand went: told before they go.
    let mut gone: (i64, Vec<(Path, Bytes)>) = (0, Vec::new());
    // The number of the next change in the revision at hand.
    let mut change = 0;
    for (kind, kv) in kvs() {
        if kv.mod_revision != gone.0 {
            (gone, change) = ((kv.mod_revision, Vec::new()), 0);
        }
        match (keys.sort(&kv.key), kind) {
            (Sort::Record(path), 0) => {
                match load::value(keys, path, kv, form) {
                    Ok((value, number)) => {
                        let tags = (form.tagger)(path, &value);
                        let revision = keys.revision(kv.mod_revision, number);
                        told.push(Told::Put { path: path.into(), value, tags, revision });
                    }
                    Err(why) => tracing::error!(path, ?why, "cannot read a value in etcd; it is passed over"),
                }
                change += 1;
            }
            (Sort::Record(path), _) => {
                let revision = keys.revision(kv.mod_revision, change);
                let last = gone.1.iter().find(|(of, _)| **of == *path).map(|(_, last)| last.clone());
                told.push(Told::Removed { path: path.into(), last, revision });
                change += 1;
            }
            (Sort::Gone(number), 0) => {
                if let Some((path, body)) = keys::read_gone(form, &kv.value) {
                    let last = join(&body, keys.revision(kv.mod_revision, number));
                    gone.1.push((path.into(), last));
                }
            }
            (Sort::Gone(_), _) => {}
            (Sort::Other, _) => terms.heed(keys, kv)?,
        }
    }
    Ok(told)
}
