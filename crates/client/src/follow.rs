//! Keeps one cache fresh: lists, watches, resumes, and begins anew when its history is gone.
//!
//! Promises: a first picture as soon as the server answers; after a cut it resumes from the last revision seen, and
//! tries again for as long as it lives, less and less often. Never shows a half picture.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use host::Host;
use model::Object;

use crate::backoff::Backoff;
use crate::cache::Cache;
use crate::caches::Board;
use crate::error::Status;
use crate::{Client, ClientError, Follow, WatchEvent, WatchKind, WatchStream};

/// How long to wait before the first new try. A restarting server is back within a second: ten tries fit into it.
pub const RETRY_FIRST: Duration = Duration::from_millis(50);

/// How long to wait at most between tries. Healing is promised in seconds, so a node must not sleep through a
/// server's return; half would double the knocking of a thousand nodes on a dead server.
pub const RETRY_MAX: Duration = Duration::from_secs(2);

/// How long one watch may last before it is asked for again (the server is told, and ends it by itself).
///
/// Kubernetes' clients use 5 to 10 minutes. A longer one would spread load less well after a server returned.
pub const WATCH_TIME: Duration = Duration::from_secs(480);

/// How long after its end a watch may be silent before it counts as lost: servers end watches lazily.
pub const WATCH_GRACE: Duration = Duration::from_secs(30);

/// How many objects the first picture may have: ten times what a large cluster holds of one kind.
pub const PICTURE_LEN_MAX: usize = 1_500_000;

/// The annotation of the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Follows for ever.
pub(crate) async fn keep(what: Follow, client: Client, host: Host, board: Arc<Board>) {
    let mut follower = Follower { what, client, host, board, from: None, streams: true, served: false };
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
    loop {
        follower.served = false;
        let ended = follower.once().await;
        if follower.served {
            backoff.reset();
        }
        if ended.is_err() {
            follower.note(Cache::lose);
        }
        match ended {
            // A watch that served and ended, as watches do: go on at once.
            Ok(()) if follower.served => continue,
            Ok(()) => {}
            Err(ClientError::Expired { .. }) if follower.from.take().is_some() => continue,
            Err(error) if follower.streams && follower.from.is_none() && cannot_stream(&error) => {
                follower.streams = false;
                continue;
            }
            Err(error) => follower.complain(&error, backoff.failures()),
        }
        let wait = backoff.next(follower.host.chance());
        follower.host.sleep(wait).await;
    }
}

/// Whether the server does not know watches that begin with what is there.
fn cannot_stream(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { code: 400 | 422, .. })
}

struct Follower {
    what: Follow,
    client: Client,
    host: Host,
    board: Arc<Board>,
    /// The revision to resume from; `None`: begin with a whole picture.
    from: Option<String>,
    /// Whether the server can begin a watch with what is there.
    streams: bool,
    /// Whether this try has brought anything.
    served: bool,
}

impl Follower {
    /// One try: a picture if there is none, then a watch until it ends.
    async fn once(&mut self) -> Result<(), ClientError> {
        if self.from.is_none() && !self.streams {
            let (objects, revision) =
                self.client.list(&self.what.gvr, &self.what.namespace, &self.what.select()).await?;
            self.show(objects, revision);
        }
        let stream = self.watch().await?;
        let now = self.host.now();
        self.note(|cache| cache.steady(now));
        match self.from {
            Some(_) => self.events(stream).await,
            None => self.picture(stream).await,
        }
    }

    fn note(&self, note: impl FnOnce(&mut Cache)) {
        self.board.update(&self.what, |cache| {
            note(cache);
            None
        });
    }

    async fn watch(&self) -> Result<WatchStream, ClientError> {
        let seconds = WATCH_TIME.as_secs().to_string();
        let mut query = vec![("allowWatchBookmarks", "true"), ("timeoutSeconds", seconds.as_str())];
        match &self.from {
            Some(revision) => query.push(("resourceVersion", revision)),
            None => query.extend([("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")]),
        }
        self.client.watch(&self.what.gvr, &self.what.namespace, &self.what.select(), &query).await
    }

    /// Reads the initial events up to their end, shows them as one picture, and goes on.
    async fn picture(&mut self, mut stream: WatchStream) -> Result<(), ClientError> {
        let mut objects = Vec::new();
        while let Some(event) = self.next(&mut stream).await? {
            let object = read(&event)?;
            match event.kind {
                WatchKind::Added | WatchKind::Modified => objects.push(object),
                WatchKind::Deleted => objects.retain(|known: &Object| known.uid() != object.uid()),
                WatchKind::Bookmark if object.meta().annotations.contains_key(INITIAL_EVENTS_END) => {
                    self.show(objects, object.meta().resource_version().to_owned());
                    return self.events(stream).await;
                }
                WatchKind::Bookmark | WatchKind::Error => {}
            }
            if objects.len() > PICTURE_LEN_MAX {
                return Err(ClientError::malformed(
                    format!("a watch of {}", self.what.gvr),
                    "it does not end",
                ));
            }
        }
        Ok(())
    }

    fn show(&mut self, objects: Vec<Object>, revision: String) {
        let number = revision.parse().unwrap_or(0);
        let now = self.host.now();
        self.board.update(&self.what, |cache| cache.replace(&self.what.gvr, objects, number, now));
        self.from = Some(revision);
        self.served = true;
    }

    /// Takes events until the watch ends.
    async fn events(&mut self, mut stream: WatchStream) -> Result<(), ClientError> {
        while let Some(event) = self.next(&mut stream).await? {
            let object = read(&event)?;
            let revision = object.meta().resource_version().to_owned();
            let now = self.host.now();
            self.board.update(&self.what, |cache| match event.kind {
                WatchKind::Added | WatchKind::Modified => cache.put(&self.what.gvr, object, now),
                WatchKind::Deleted => cache.remove(&self.what.gvr, &object),
                WatchKind::Bookmark | WatchKind::Error => {
                    cache.reach(object.revision());
                    None
                }
            });
            self.from = Some(revision);
            self.served = true;
        }
        Ok(())
    }

    /// The next event, with error events as errors; `None` at the end.
    async fn next(&self, stream: &mut WatchStream) -> Result<Option<WatchEvent>, ClientError> {
        let silent = || ClientError::Unreachable("the watch fell silent".into());
        let event = self.host.within(WATCH_TIME + WATCH_GRACE, stream.next()).await.ok_or_else(silent)?;
        match event.transpose()? {
            Some(event) if event.kind == WatchKind::Error => {
                let status: Status = serde_json::from_slice(&event.object).unwrap_or_default();
                Err(ClientError::of_status(status.code, status, None))
            }
            event => Ok(event),
        }
    }

    /// Says once in a row of failures what is wrong; the first is no news while servers restart.
    fn complain(&self, error: &ClientError, failures: u32) {
        let (gvr, cause) = (&self.what.gvr, std::error::Error::source(error));
        match failures {
            2 => tracing::warn!(%gvr, %error, ?cause, "cannot follow; trying on"),
            _ => tracing::debug!(%gvr, %error, ?cause, failures, "cannot follow; trying on"),
        }
    }
}

fn read(event: &WatchEvent) -> Result<Object, ClientError> {
    Object::read(event.object.clone()).map_err(|error| ClientError::malformed("an event of a watch", error))
}
