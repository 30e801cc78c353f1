//! The one entry: an authenticated request goes in, an answer comes out. It reads, lets the verbs decide, admits, and
//! commits at the revision that was read.
//!
//! It never decides what an object becomes (that is `verbs` and `admit`), and knows no sockets (that is `http`).

mod admission;
mod away;
#[cfg(test)]
mod away_tests;
mod components;
mod connect;
#[cfg(test)]
mod converted_tests;
#[cfg(test)]
mod customs;
mod fence;
#[cfg(test)]
mod flows;
#[cfg(test)]
mod hooked_tests;
mod impersonate;
mod list;
#[cfg(test)]
mod policies;
mod read;
mod review;
mod served;
mod shown;
mod subresource;
#[cfg(test)]
pub(crate) mod tests;
mod token;
mod turns;
mod watch;
mod write;

use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use host::{Host, Task};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use store::Store;
use tokio::sync::Semaphore;

use crate::aggregate::{Extension, Extensions};
use crate::answer::{Answer, Body, Told};
use crate::audit::{End, Ending, Record};
use crate::auth::{Attributes, Decision, Identity};
use crate::codec;
use crate::converter::Converter;
use crate::discovery;
use crate::guard::Guard;
use crate::hooks::Hooks;
use crate::outbound::Outbound;
use crate::patience::{Patience, ROUNDS_MAX};
use crate::policy;
use crate::refusal::{About, Reason, Refusal};
use crate::registry::{Registry, Resource};
use crate::request::{self, Query, Route, Target};
use crate::settings::Settings;
use crate::upkeep;
use crate::view::{Known, Remembering};

pub use away::say_who;
pub use components::Loops;
pub use fence::mark_restored;
pub use watch::{EventKind, EventStream};

use served::Served;
use shown::Shown;
pub(crate) use turns::Turn;
use turns::Turns;

/// How long a request may take before its caller is told to try again: upstream's minute.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// How many watches over HTTP there are at once: some 60 for each of 1,000 nodes and their clients, at about 1 kB each.
const WATCHES_MAX: usize = 65_536;

/// The API: a cheap handle that all connections share.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

pub(crate) struct Inner {
    pub host: Host,
    pub store: Store,
    pub settings: Settings,
    /// Guards which resources are served, for as long as it takes to look for new definitions and clone the snapshot.
    served: Mutex<Served>,
    /// Guards the tasks that copy upgraded connections, while one is added; they end with the service.
    pipes: Mutex<Vec<Task<()>>>,
    /// Room for watches over HTTP.
    pub watches: Arc<Semaphore>,
    /// The way to the programs that extend the API.
    pub outbound: Arc<Outbound>,
    /// The API servers behind this one.
    pub extensions: Extensions,
    /// Who converts custom objects between versions.
    pub converter: Converter,
    /// Who of them is asked about writes: nobody until a new cluster has what it needs.
    pub hooks: OnceLock<Hooks>,
    /// Which policies are asked about writes; as with webhooks, none until then.
    pub policies: OnceLock<policy::Kept>,
    /// Whose turn it is when many ask at once.
    pub turns: Turns,
    /// Forms of objects that watchers share.
    pub shown: Arc<Shown>,
    /// What admission has read.
    known: Known,
    /// What else `/metrics` tells.
    more_metrics: OnceLock<Metrics>,
    /// How the loops are that decide over it.
    loops: OnceLock<Loops>,
}

/// Lines that whoever wires the house adds to `/metrics`, in the text format of Prometheus.
pub type Metrics = Box<dyn Fn() -> String + Send + Sync>;

/// A request for a resource, taken apart.
pub(crate) struct Call<'a> {
    pub inner: &'a Inner,
    pub identity: &'a Identity,
    pub resource: Arc<Resource>,
    pub target: Target,
    pub query: Query,
    pub method: Method,
    pub headers: &'a HeaderMap,
    pub body: &'a Bytes,
    /// What the user is to be told beside the answer.
    pub told: Arc<Told>,
    /// What admission wants to know that others have to be asked for.
    pub patience: Option<Arc<Patience>>,
}

impl Service {
    /// Begins to serve a store: makes what a new cluster has before anybody asks.
    ///
    /// # Errors
    /// A refusal when the first objects cannot be written.
    pub async fn open(host: Host, store: Store, settings: Settings) -> Result<Self, Refusal> {
        let served = Mutex::new(Served::new(&store)?);
        let watches = Arc::new(Semaphore::new(WATCHES_MAX));
        let (pipes, more_metrics, loops) = (Mutex::default(), OnceLock::new(), OnceLock::new());
        let outbound = Arc::new(Outbound::new(host.clone(), settings.dial.clone()));
        let converter = Converter::new(outbound.clone(), host.clone(), store.clone());
        let extensions = Extensions::new(&store)?;
        let (hooks, policies) = (OnceLock::new(), OnceLock::new());
        let (turns, shown, known) = (Turns::default(), Arc::default(), Known::default());
        let inner = Inner {
            host,
            store,
            settings,
            served,
            pipes,
            watches,
            outbound,
            extensions,
            converter,
            hooks,
            policies,
            turns,
            shown,
            known,
            more_metrics,
            loops,
        };
        let service = Self(Arc::new(inner));
        // Once: on the heap, so that whoever starts a server does not hold all that a request needs.
        Box::pin(crate::bootstrap::run(&service)).await?;
        let hooks = Hooks::new(service.store(), service.settings().introduced.clone())?;
        service.0.hooks.get_or_init(|| hooks);
        let policies = policy::Kept::new(service.store())?;
        service.0.policies.get_or_init(|| policies);
        Ok(service)
    }

    /// Answers a request when its user's turn has come. Every refusal is an answer too.
    pub async fn handle(&self, identity: &Identity, request: Request<Bytes>) -> Answer {
        self.0.answer_recorded(identity, &request, Door::Outer).await
    }

    /// The same for callers in the same process, who need not wait and whose answers come whole.
    pub async fn call(&self, identity: &Identity, request: Request<Bytes>) -> Response<Bytes> {
        self.0.answer_recorded(identity, &request, Door::Inner).await.into_whole()
    }

    /// Notes a request whose author did not prove who they are.
    pub(crate) fn note_stranger(&self, request: &Request<Bytes>, answer: &Answer) -> Option<String> {
        let told = Arc::default();
        let record = self.0.record(None, request, &told)?;
        self.0.finish(&record, answer);
        Some(record.id().to_owned())
    }

    /// A watch for callers in the same process: the events share their bytes with the store.
    ///
    /// # Errors
    /// The answer that refuses it.
    pub async fn watch(
        &self,
        identity: &Identity,
        request: Request<()>,
    ) -> Result<EventStream, Response<Bytes>> {
        let body = Bytes::new();
        let (parts, ()) = request.into_parts();
        let told = Arc::default();
        let record = match &self.0.settings.audit {
            Some(_) => {
                let request = Request::from_parts(parts.clone(), body.clone());
                self.0.record(Some(identity), &request, &told)
            }
            None => None,
        };
        let sent = Sent { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body: &body };
        let watched = self.0.take_apart(identity, sent, &told).await;
        let events = match watched {
            Ok(Asked::Call(call)) => call.served_events().await,
            // Those in this process who watch find such groups over https.
            Ok(Asked::Path(_) | Asked::Away(_)) => Err(Refusal::no_such_path()),
            Err(refusal) => Err(refusal),
        };
        match (events, record) {
            (Ok(events), None) => Ok(events),
            (Ok(events), Some(record)) => {
                let end = End::of(record, StatusCode::OK.as_u16());
                // The end goes with the stream.
                Ok(events.map(move |event| end.pass(event)).boxed())
            }
            (Err(refusal), record) => {
                let answer = Answer::from(refusal);
                if let Some(record) = record {
                    self.0.finish(&record, &answer);
                }
                Err(answer.into_whole())
            }
        }
    }

    /// Adds lines to `/metrics`. The first who does so is heard.
    pub fn tell_metrics(&self, more: Metrics) {
        // A second teller would be a fault of the wiring, and harms nobody.
        let _ = self.0.more_metrics.set(more);
    }

    /// Says how the loops are that decide over the API. The first who does so is heard.
    pub fn tell_loops(&self, loops: Loops) {
        // A second teller would be a fault of the wiring, and harms nobody.
        let _ = self.0.loops.set(loops);
    }

    /// Keeps a task that copies an upgraded connection until it ends, or the service does.
    pub(crate) fn keep_pipe(&self, pipe: Task<()>) {
        let mut pipes = self.0.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.retain(|pipe| !pipe.is_ended());
        pipes.push(pipe);
    }

    /// The API servers behind this one.
    pub(crate) fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }

    /// The way to the programs that extend the API.
    pub(crate) fn outbound(&self) -> &Outbound {
        &self.0.outbound
    }

    /// The resources that are served here now.
    pub(crate) fn registry(&self) -> Arc<Registry> {
        self.0.registry()
    }

    /// The store that is served.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The window through which it sees the time.
    pub fn host(&self) -> &Host {
        &self.0.host
    }

    /// What it was told when it was opened.
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

/// Where a request comes from: over a wire, or from one of the server's own loops, which nobody is to hold up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Over a wire.
    Outer,
    /// From the same process.
    Inner,
}

/// A request as it was sent.
struct Sent<'a> {
    method: &'a Method,
    uri: &'a http::Uri,
    headers: &'a HeaderMap,
    body: &'a Bytes,
}

/// What a request turns out to be for.
enum Asked<'a> {
    Call(Box<Call<'a>>),
    Path(String),
    /// For another server.
    Away(Box<Extension>),
}

impl Inner {
    /// The resources that are served now: as the definitions that are stored at this moment say.
    pub fn registry(&self) -> Arc<Registry> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner).now(&self.store)
    }

    /// The store as admission sees it.
    pub fn view(&self) -> Remembering<'_> {
        Remembering::new(&self.store, &self.known)
    }

    fn metrics(&self) -> String {
        let watches = WATCHES_MAX - self.watches.available_permits();
        let waiting = self.turns.waiting();
        let more = self.more_metrics.get().map(|more| more()).unwrap_or_default();
        let hooks = self.hooks.get().map(Hooks::metrics).unwrap_or_default();
        let audit = self.settings.audit.as_ref().map(|trail| trail.metrics()).unwrap_or_default();
        let guard = self.settings.guard.metrics();
        format!(
            "# HELP apiserver_longrunning_requests Watches under way.\n\
             # TYPE apiserver_longrunning_requests gauge\n\
             apiserver_longrunning_requests{{verb=\"WATCH\"}} {watches}\n\
             # HELP kintsugi_requests_waiting Requests that wait for their turn.\n\
             # TYPE kintsugi_requests_waiting gauge\n\
             kintsugi_requests_waiting {waiting}\n\
             # HELP kintsugi_store_revision The newest revision of the store.\n\
             # TYPE kintsugi_store_revision counter\n\
             kintsugi_store_revision {}\n{hooks}{audit}{guard}{more}",
            self.store.revision()
        )
    }

    /// Begins to write a request down, where there is an audit log that wants it.
    fn record(
        &self,
        identity: Option<&Identity>,
        request: &Request<Bytes>,
        told: &Arc<Told>,
    ) -> Option<Arc<Record>> {
        let trail = self.settings.audit.as_ref()?;
        let query = Query::read(request.uri().query().unwrap_or_default());
        // What is no good path is written down as it is.
        let path = request.uri().path();
        let route = request::route(path).unwrap_or_else(|_| Route::Path(path.to_owned()));
        let what = request::attributes(&route, request.method(), &query);
        let registry = self.registry();
        let resource = registry.find(&what.group, &what.version, &what.resource).map(|resource| &**resource);
        Record::begin(trail, &self.host, identity, (&what, resource), request, told)
    }

    /// Notes how a request ended.
    fn finish(&self, record: &Record, answer: &Answer) {
        let whole = match &answer.body {
            Body::Whole(bytes) => Some(bytes),
            Body::Pieces(_) | Body::Stream(_) | Body::Relayed(_) | Body::Upgrade(_) => None,
        };
        record.complete(answer.status.as_u16(), Some(&codec::media_type(&answer.headers)), whole);
    }

    /// Answers, and writes down what the audit log wants of it.
    async fn answer_recorded(&self, identity: &Identity, request: &Request<Bytes>, door: Door) -> Answer {
        let told = Arc::<Told>::default();
        let answered = async {
            let answer = self.answer(identity, request, door, &told).await;
            answer.unwrap_or_else(|refusal| Answer::refused(refusal, request.headers()))
        };
        let Some(record) = self.record(Some(identity), request, &told) else { return answered.await };
        let mut answer = match AssertUnwindSafe(answered).catch_unwind().await {
            Ok(answer) => answer,
            Err(panic) => {
                record.panicked();
                std::panic::resume_unwind(panic);
            }
        };
        if let Ok(id) = http::HeaderValue::from_str(record.id()) {
            answer.headers.insert("audit-id", id);
        }
        let code = answer.status.as_u16();
        let media = codec::media_type(&answer.headers);
        let noted = |bytes: Bytes| {
            record.complete(code, Some(&media), Some(&bytes));
            Body::Whole(bytes)
        };
        answer.body = match answer.body {
            Body::Whole(bytes) => noted(bytes),
            // Whoever writes a list down has to have it whole.
            Body::Pieces(pieces) => noted(pieces.whole()),
            Body::Stream(pieces) => {
                let end = End::of(record, code);
                Body::Stream(pieces.map(move |piece| end.pass(piece)).boxed())
            }
            Body::Relayed(pieces) => {
                let end = End::of(record, code);
                Body::Relayed(pieces.map(move |piece| end.pass(piece)).boxed())
            }
            Body::Upgrade(backend) => {
                Body::Upgrade(Box::new(Ending { inner: backend, _end: End::of(record, code) }))
            }
        };
        answer
    }

    async fn answer(
        &self,
        identity: &Identity,
        request: &Request<Bytes>,
        door: Door,
        told: &Arc<Told>,
    ) -> Result<Answer, Refusal> {
        let acting = self.impersonated(identity, request.headers()).await?;
        if let Cow::Owned(other) = &acting {
            told.note_other(other);
        }
        let identity = &*acting;
        let headers = request.headers();
        let sent = Sent { method: request.method(), uri: request.uri(), headers, body: request.body() };
        match self.take_apart(identity, sent, told).await? {
            Asked::Call(call) => {
                if let Some(warning) = call.resource.deprecation().filter(|_| door == Door::Outer) {
                    call.told.warn(warning);
                }
                let (answer, turn) = if call.is_long() {
                    (call.answer_knowing().await, None)
                } else {
                    let turn = self.turn(&call, door).await?;
                    let answer = self.host.within(REQUEST_TIMEOUT, call.answer_knowing()).await;
                    let late = "request did not complete within the allowed duration";
                    (answer.unwrap_or_else(|| Err(Refusal::new(Reason::Timeout, late))), turn)
                };
                let mut answer = answer.unwrap_or_else(|refusal| Answer::refused(refusal, headers));
                // It lasts until the answer is as it goes out.
                answer.turn = turn;
                Ok(answer.warned(&call.told.take()))
            }
            Asked::Path(path) if upkeep::is_meant(&path) && request.method() == Method::POST => {
                upkeep::act(self, &path).await
            }
            Asked::Path(path) => {
                self.check_store(&path).await?;
                self.answer_path(request.method(), &path, request)
            }
            Asked::Away(extension) => self.pass_on(&extension, identity, request).await,
        }
    }

    /// Waits until it is the user's turn.
    async fn turn(&self, call: &Call<'_>, door: Door) -> Result<Option<Turn>, Refusal> {
        match door {
            Door::Inner => Ok(None),
            Door::Outer if call.lists_many() => Ok(Some(self.turns.long(&self.host, call.identity).await?)),
            Door::Outer => self.turns.short(&self.host, call.identity).await,
        }
    }

    async fn take_apart<'a>(
        &'a self,
        identity: &'a Identity,
        sent: Sent<'a>,
        told: &Arc<Told>,
    ) -> Result<Asked<'a>, Refusal> {
        let Sent { method, uri, headers, body } = sent;
        let query = Query::read(uri.query().unwrap_or_default());
        let route = request::route(uri.path())?;
        let attributes = request::attributes(&route, method, &query);
        self.authorize_noting(identity, &attributes, told).await?;
        if let Some((group, version)) = place_of(&route)
            && let Some(extension) = self.extensions.find(group, version, &self.store)
        {
            match &route {
                // What it does not say itself, we say of it.
                Route::Path(path) if path.starts_with("/openapi/") && self.speaks_for(&extension) => {}
                _ => return Ok(Asked::Away(Box::new(extension))),
            }
        }
        let target = match route {
            Route::Path(path) => return Ok(Asked::Path(path)),
            Route::Resource(target) => target,
        };
        let registry = self.registry();
        let found = registry.find(&target.group, &target.version, &target.resource);
        let resource = found.ok_or_else(Refusal::no_such_path)?.clone();
        if !resource.namespaced && !target.namespace.is_empty() {
            return Err(Refusal::no_such_path());
        }
        let patience = Patience::of(&self.settings.guard, &resource);
        Ok(Asked::Call(Box::new(Call {
            inner: self,
            identity,
            resource,
            target,
            query,
            method: method.clone(),
            headers,
            body,
            told: told.clone(),
            patience,
        })))
    }

    /// Whether a server's OpenAPI v3 document is made here of its v2.
    fn speaks_for(&self, extension: &Extension) -> bool {
        self.extensions.said(&extension.name).is_some_and(|said| said.speaks_two_alone())
    }

    /// The same, and tells the audit log why.
    async fn authorize_noting(&self, who: &Identity, what: &Attributes, told: &Told) -> Result<(), Refusal> {
        if self.settings.audit.is_none() {
            return self.authorize(who, what).await;
        }
        let decision = self.decide(who, what).await;
        let (word, reason) = match decision.allowed {
            true => ("allow", decision.reason.as_str()),
            false if decision.error.is_empty() => ("forbid", decision.reason.as_str()),
            false => ("forbid", "internal error"),
        };
        told.note("authorization.k8s.io/decision", word);
        told.note("authorization.k8s.io/reason", reason);
        refused(who, what, &decision)
    }

    /// Refuses what the user may not do.
    pub async fn authorize(&self, who: &Identity, what: &Attributes) -> Result<(), Refusal> {
        refused(who, what, &self.decide(who, what).await)
    }

    /// Whether somebody may do something, once all who have a say in it have been asked.
    pub async fn decide(&self, who: &Identity, what: &Attributes) -> Decision {
        let guard = &self.settings.guard;
        if !guard.asks_others() {
            let told = guard.may(who, what);
            // Who is asked may have changed meanwhile.
            if told.allowed || !guard.asks_others() {
                return told;
            }
        }
        guard.may_by_all(who, what).await
    }

    /// A server whose store lies elsewhere is ready while it is reached: who shares requests out looks here.
    async fn check_store(&self, path: &str) -> Result<(), Refusal> {
        if !self.store.is_shared() || path != "/readyz" {
            return Ok(());
        }
        let checked = self.store.catch_up().await;
        checked.map_err(|why| Refusal::internal(format!("[-]etcd failed: {why}; readyz check failed")))
    }

    fn answer_path(&self, method: &Method, path: &str, request: &Request<Bytes>) -> Result<Answer, Refusal> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refusal::method_not_allowed());
        }
        let query = Query::read(request.uri().query().unwrap_or_default());
        if let Some(answer) = crate::health::answer(path, &query) {
            return Ok(answer);
        }
        if let Some(document) = self.settings.guard.published(path) {
            return Ok(Answer::tree(StatusCode::OK, &document));
        }
        if path == "/metrics" {
            return Ok(Answer::text(StatusCode::OK, self.metrics()));
        }
        let registry = self.registry();
        let seen = self.extensions.seen(&registry, &self.store);
        discovery::answer(&registry, &seen, path, request.headers(), &query)
    }
}

/// The group and version that a request is for, where it is for one.
fn place_of(route: &Route) -> Option<(&str, &str)> {
    match route {
        Route::Resource(target) => Some((&target.group, &target.version)),
        Route::Path(path) => {
            let rest = path.strip_prefix("/openapi/v3").unwrap_or(path).strip_prefix("/apis/")?;
            rest.split_once('/').filter(|(_, version)| !version.contains('/'))
        }
    }
}

/// Whether a refusal rests on objects as they were seen.
fn rests_on_what_is(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotFound | Reason::AlreadyExists | Reason::Conflict | Reason::Invalid | Reason::Forbidden
    )
}

/// What somebody may not do is forbidden; unless nobody knows, for somebody could not be asked.
fn refused(who: &Identity, what: &Attributes, decision: &Decision) -> Result<(), Refusal> {
    match decision {
        Decision { allowed: true, .. } => Ok(()),
        Decision { error, reason, .. } if error.is_empty() => Err(forbidden(who, what, reason)),
        Decision { error, .. } => Err(Refusal::internal(error.clone())),
    }
}

fn forbidden(who: &Identity, what: &Attributes, reason: &str) -> Refusal {
    let mut message = if what.is_resource() {
        let place = match what.namespace.as_str() {
            "" => " at the cluster scope".to_owned(),
            namespace => format!(" in the namespace \"{namespace}\""),
        };
        let verb = &what.verb;
        let resource = what.full_resource();
        format!(
            "User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\"{place}",
            who.name, what.group
        )
    } else {
        format!("User \"{}\" cannot {} path \"{}\"", who.name, what.verb, what.path)
    };
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    if !what.is_resource() {
        return Refusal::new(Reason::Forbidden, format!("forbidden: {message}"));
    }
    let about = About {
        group: what.group.clone(),
        resource: what.resource.clone(),
        name: what.name.clone(),
        ..About::default()
    };
    Refusal::forbidden(&about, message)
}

impl Call<'_> {
    /// Whether it takes as long as a kubelet or a pod takes; a watch has an answer at once.
    fn is_long(&self) -> bool {
        matches!(self.target.part.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }

    /// The answer, once all is known that it hangs on.
    async fn answer_knowing(&self) -> Result<Answer, Refusal> {
        let Some(patience) = &self.patience else { return self.answer().await };
        for _ in 0..ROUNDS_MAX {
            let answer = self.answer().await;
            if !Box::pin(patience.ask(&self.inner.registry(), &self.inner.converter)).await? {
                return answer;
            }
        }
        Err(Refusal::internal("admission asks others ever more"))
    }

    /// Who says what may be done, to those who wait for nobody.
    pub(super) fn guard(&self) -> &dyn Guard {
        match &self.patience {
            Some(patience) => &**patience,
            None => &*self.inner.settings.guard,
        }
    }

    /// The answer, on ground that is new enough. Where other servers write too, a write that is refused for what this one
    /// saw is judged again by what is newest.
    async fn answer(&self) -> Result<Answer, Refusal> {
        let store = &self.inner.store;
        if matches!(self.method, Method::GET | Method::HEAD) {
            // A watch sees to that itself: those in this process come another way.
            if !self.query.watch() {
                self.freshen().await?;
            }
            return self.dispatch().await;
        }
        let seen = store.revision();
        match self.dispatch().await {
            Err(refusal) if store.is_shared() && rests_on_what_is(refusal.reason) => {
                store.catch_up().await?;
                if store.revision() == seen { Err(refusal) } else { self.dispatch().await }
            }
            answer => answer,
        }
    }

    /// Waits until what is read is as new as is asked for: the newest of all servers, unless a revision is named.
    pub(super) async fn freshen(&self) -> Result<(), Refusal> {
        let store = &self.inner.store;
        match self.query.get("resourceVersion").map(str::parse) {
            // A walk that goes on says where in its token.
            None if self.query.has("continue") => Ok(()),
            None => Ok(store.catch_up().await?),
            Some(Ok(revision)) => Ok(store.reach(revision).await?),
            // Whoever reads it will say so.
            Some(Err(_)) => Ok(()),
        }
    }

    /// The table of cases: which verb on which part goes where.
    async fn dispatch(&self) -> Result<Answer, Refusal> {
        use model::kinds::Verbs;
        let verb = request::verb(&self.target, &self.method, &self.query);
        if !self.target.part.is_empty() {
            return self.answer_part(verb).await;
        }
        match (self.resource.verbs, verb) {
            (Verbs::CreateOnly, "create") => self.review().await,
            (Verbs::CreateOnly, _) => Err(Refusal::method_not_allowed()),
            // The one kind of those is looked up nowhere.
            (Verbs::ReadOnly, "get") => self.component().await,
            (Verbs::ReadOnly, "list") => self.components().await,
            (_, "get") => self.get().await,
            (_, "list") => self.list().await,
            (Verbs::ReadOnly, _) => Err(Refusal::method_not_allowed()),
            (_, "watch") => self.watch().await,
            (_, "create") => self.create().await,
            (_, "update") => self.update("").await,
            (_, "patch") => self.patch("").await,
            (_, "delete") => self.delete().await,
            (_, "deletecollection") if self.resource.has(verb) => self.delete_collection().await,
            _ => Err(Refusal::method_not_allowed()),
        }
    }

    /// What refusals say of the object that is asked for.
    pub fn about(&self) -> About {
        self.resource.about(&self.target.name)
    }

    /// Where the object that is asked for lies.
    pub fn path(&self) -> Result<String, Refusal> {
        if self.resource.namespaced && self.target.namespace.is_empty() {
            return Err(Refusal::no_such_path());
        }
        Ok(self.resource.path(&self.target.namespace, &self.target.name))
    }

    /// The media type of the body.
    pub fn media(&self) -> String {
        codec::media_type(self.headers)
    }
}
