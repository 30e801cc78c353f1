//! A tiny API server over a map, for tests of whoever asks one: no kinds, no checks, but revisions, preconditions,
//! finalizers and watches as the real one has them, and faults on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use host::watch;
use http::{Method, Request, Response, StatusCode};
use model::Tree;
use serde_json::json;

use crate::{Transport, TransportError, WatchEvent, WatchKind, WatchStream};

/// A map that answers like an API server. Clones share it.
#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    written: Arc<watch::Sender<u64>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<String, Tree>,
    history: Vec<Entry>,
    oldest: u64,
    log: Vec<String>,
    refusals: Vec<(String, u16, String)>,
    is_cut: bool,
    no_streaming: bool,
    delay: Duration,
}

#[derive(Clone)]
struct Entry {
    revision: u64,
    path: String,
    event: WatchEvent,
}

type Answer = Result<Tree, (u16, &'static str, String)>;

/// Where a request goes: `/api/v1` or `/apis/g/v`, the namespace, the plural, the name and the part.
struct Target {
    root: String,
    namespace: String,
    plural: String,
    name: String,
    part: String,
}

impl Target {
    fn parse(path: &str) -> Self {
        let all: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (root, rest) = all.split_at(if all[0] == "api" { 2 } else { 3 });
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let at = |index: usize| rest.get(index).copied().unwrap_or_default().to_owned();
        Self { root: root.join("/"), namespace: namespace.into(), plural: at(0), name: at(1), part: at(2) }
    }

    fn prefix(&self) -> String {
        match self.namespace.as_str() {
            "" => format!("{}/{}/", self.root, self.plural),
            namespace => format!("{}/{}/{namespace}/", self.root, self.plural),
        }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{}/{}/{name}", self.root, self.plural, self.namespace)
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self { state: Arc::default(), written: Arc::new(watch::Sender::new(0)) }
    }
}

impl Fake {
    /// An empty server.
    pub fn new() -> Self {
        Self::default()
    }

    /// Every write that was done, such as `create pods a/web-1`, in order; empties the list.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// Puts an object as if somebody else had written it.
    pub fn put(&self, collection: &str, mut object: Tree) {
        let target = Target::parse(collection);
        let path = target.path(object["metadata"]["name"].as_str().unwrap_or_default());
        let mut state = self.state();
        let kind = match state.objects.get(&path) {
            None => WatchKind::Added,
            Some(before) => {
                object["metadata"]["uid"] = before["metadata"]["uid"].clone();
                WatchKind::Modified
            }
        };
        state.write(kind, path, object);
        self.tell(state);
    }

    /// Removes an object as if somebody else had, whatever its finalizers.
    pub fn remove(&self, path: &str) {
        let target = Target::parse(path);
        let path = target.path(&target.name);
        let mut state = self.state();
        if let Some(object) = state.objects.remove(&path) {
            state.write(WatchKind::Deleted, path, object);
        }
        self.tell(state);
    }

    /// An object, by the path of its request.
    pub fn get(&self, path: &str) -> Option<Tree> {
        let target = Target::parse(path);
        self.state().objects.get(&target.path(&target.name)).cloned()
    }

    /// The paths of all objects under a collection.
    pub fn names(&self, collection: &str) -> Vec<String> {
        let prefix = Target::parse(collection).prefix();
        let state = self.state();
        let found = state.objects.keys().filter(|path| path.starts_with(&prefix));
        found.map(|path| path[prefix.len()..].to_owned()).collect()
    }

    /// From now on nobody answers, and running watches fail; or all is well again.
    pub fn set_cut(&self, is_cut: bool) {
        let mut state = self.state();
        state.is_cut = is_cut;
        self.tell(state);
    }

    /// Refuses watches that begin with what is there, as old servers do.
    pub fn refuse_streaming(&self) {
        self.state().no_streaming = true;
    }

    /// Lets every request take so long on its way there and as long on its way back.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Waits on the way. The map is not held meanwhile.
    async fn travel(&self) {
        let delay = self.state().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// Forgets the history up to now: watches from before get "expired".
    pub fn compact(&self) {
        let mut state = self.state();
        state.oldest = state.revision;
        state.history.clear();
    }

    /// Answers the next write whose log line begins with `line` with an error status; can be asked for several times.
    pub fn refuse_once(&self, line: &str, code: u16, reason: &str) {
        self.state().refusals.push((line.into(), code, reason.into()));
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.written.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Writes an object at a new revision, and gives it.
    fn write(&mut self, kind: WatchKind, path: String, mut object: Tree) -> Tree {
        self.revision += 1;
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.revision.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{}", self.revision));
        }
        let event = WatchEvent { kind, object: Bytes::from(object.to_string()) };
        self.history.push(Entry { revision: self.revision, path: path.clone(), event });
        if kind != WatchKind::Deleted {
            self.objects.insert(path, object.clone());
        }
        object
    }

    fn answer(&mut self, method: &Method, target: &Target, body: &Tree) -> Answer {
        let path = target.path(&target.name);
        match (method.as_str(), target.part.as_str()) {
            ("GET", _) if target.name.is_empty() => Ok(self.list(target)),
            ("GET", _) => self.there(&path),
            ("POST", "binding") => {
                self.change(&path, &json!({"spec": {"nodeName": body["target"]["name"]}}), body)
            }
            ("POST", "eviction") => self.delete(&path, &body["deleteOptions"]),
            ("POST", _) => self.create(target, body),
            ("PUT", _) => self.replace(&path, body),
            ("PATCH", _) => self.change(&path, body, body),
            _ => self.delete(&path, body),
        }
    }

    fn list(&self, target: &Target) -> Tree {
        let prefix = target.prefix();
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(&prefix))
            .map(|(_, object)| object)
            .collect();
        json!({"kind": "List", "metadata": {"resourceVersion": self.revision.to_string()}, "items": items})
    }

    fn there(&self, path: &str) -> Answer {
        self.objects.get(path).cloned().ok_or_else(|| (404, "NotFound", format!("no {path}")))
    }

    fn create(&mut self, target: &Target, body: &Tree) -> Answer {
        let mut object = body.clone();
        if let Some(prefix) = object["metadata"]["generateName"].as_str() {
            object["metadata"]["name"] = json!(format!("{prefix}{}", self.revision));
        }
        object["metadata"]["namespace"] = json!(target.namespace);
        let path = target.path(object["metadata"]["name"].as_str().unwrap_or_default());
        match self.objects.contains_key(&path) {
            true => Err((409, "AlreadyExists", format!("{path} is there"))),
            false => Ok(self.write(WatchKind::Added, path, object)),
        }
    }

    fn replace(&mut self, path: &str, body: &Tree) -> Answer {
        self.hold(path, &body["metadata"])?;
        Ok(self.write(WatchKind::Modified, path.into(), body.clone()))
    }

    fn change(&mut self, path: &str, patch: &Tree, when: &Tree) -> Answer {
        let mut object = self.hold(path, &when["metadata"])?;
        let before = object.clone();
        merge(&mut object, patch);
        for name in ["uid", "resourceVersion"] {
            object["metadata"][name] = before["metadata"][name].clone();
        }
        let ended = is_set(&object["metadata"]["deletionTimestamp"]) && !has_finalizers(&object);
        match (object == before, ended) {
            (true, _) => Ok(object),
            (false, false) => Ok(self.write(WatchKind::Modified, path.into(), object)),
            (false, true) => {
                self.objects.remove(path);
                Ok(self.write(WatchKind::Deleted, path.into(), object))
            }
        }
    }

    fn delete(&mut self, path: &str, options: &Tree) -> Answer {
        let mut object = self.hold(path, &options["preconditions"])?;
        if has_finalizers(&object) {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            return Ok(self.write(WatchKind::Modified, path.into(), object));
        }
        self.objects.remove(path);
        self.write(WatchKind::Deleted, path.into(), object);
        Ok(json!({"kind": "Status", "status": "Success"}))
    }

    /// The object, when it has the uid and the revision named.
    fn hold(&self, path: &str, when: &Tree) -> Answer {
        let object = self.there(path)?;
        let differs = |name: &str| is_set(&when[name]) && when[name] != object["metadata"][name];
        match differs("uid") || differs("resourceVersion") {
            true => Err((409, "Conflict", format!("{path} is not as it was"))),
            false => Ok(object),
        }
    }

    fn refusal(&mut self, line: &str) -> Option<(u16, String)> {
        let at = self.refusals.iter().position(|(prefix, ..)| line.starts_with(prefix.as_str()))?;
        let (_, code, reason) = self.refusals.remove(at);
        Some((code, reason))
    }
}

fn is_set(value: &Tree) -> bool {
    !value.is_null() && *value != json!("")
}

fn has_finalizers(object: &Tree) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
}

/// RFC 7396.
fn merge(into: &mut Tree, patch: &Tree) {
    match (into, patch) {
        (Tree::Object(into), Tree::Object(patch)) => {
            for (name, value) in patch {
                match value {
                    Tree::Null => drop(into.remove(name)),
                    value => merge(into.entry(name.clone()).or_insert(Tree::Null), value),
                }
            }
        }
        (into, Tree::Object(patch)) => {
            *into = json!({});
            merge(into, &Tree::Object(patch.clone()));
        }
        (into, value) => *into = value.clone(),
    }
}

fn status(code: u16, reason: &str, message: &str) -> Bytes {
    let tree =
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message});
    Bytes::from(tree.to_string())
}

fn cut() -> TransportError {
    TransportError::Unreachable("the wire is cut".into())
}

#[async_trait]
impl Transport for Fake {
    async fn call(&self, request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        self.travel().await;
        let answer = self.serve(&request)?;
        self.travel().await;
        Ok(answer)
    }

    async fn watch(&self, request: Request<()>) -> Result<WatchStream, TransportError> {
        self.serve_watch(&request)
    }
}

impl Fake {
    fn serve(&self, request: &Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let target = Target::parse(request.uri().path());
        let body: Tree = serde_json::from_slice(request.body()).unwrap_or_default();
        let mut state = self.state();
        if state.is_cut {
            return Err(cut());
        }
        let line = line(request.method(), &target, &body);
        let answer = match state.refusal(&line) {
            Some((code, reason)) => Err((code, reason, "as the test asked".to_owned())),
            None => state
                .answer(request.method(), &target, &body)
                .map_err(|(code, reason, message)| (code, reason.to_owned(), message)),
        };
        if answer.is_ok() && request.method() != Method::GET {
            state.log.push(line);
        }
        self.tell(state);
        let (code, bytes) = match answer {
            Ok(tree) => (200, Bytes::from(tree.to_string())),
            Err((code, reason, message)) => (code, status(code, &reason, &message)),
        };
        let mut answer = Response::new(bytes);
        *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(answer)
    }

    fn serve_watch(&self, request: &Request<()>) -> Result<WatchStream, TransportError> {
        let state = self.state();
        if state.is_cut {
            return Err(cut());
        }
        let target = Target::parse(request.uri().path());
        let query = request.uri().query().unwrap_or_default();
        let refuse = |status: StatusCode, reason: &str| {
            let body = self::status(status.as_u16(), reason, "as the test asked");
            Err(TransportError::Refused { status, body })
        };
        let from =
            query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")?.parse::<u64>().ok());
        let first = match from {
            None if state.no_streaming => return refuse(StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
            None => state.picture(&target.prefix()),
            Some(from) if from < state.oldest => return refuse(StatusCode::GONE, "Expired"),
            Some(_) => Vec::new(),
        };
        let cursor = Cursor {
            fake: self.clone(),
            prefix: target.prefix(),
            seen: from.unwrap_or(state.revision),
            written: self.written.subscribe(),
        };
        drop(state);
        let later = stream::unfold(Some(cursor), |cursor| async { cursor?.next().await });
        Ok(stream::iter(first.into_iter().map(Ok)).chain(later).boxed())
    }
}

/// What the log says of a request.
fn line(method: &Method, target: &Target, body: &Tree) -> String {
    let verb = match (method.as_str(), target.part.as_str()) {
        ("POST", "") => "create".to_owned(),
        ("POST", part) => part.to_owned(),
        (other, "") => other.to_lowercase(),
        (other, part) => format!("{} {part}", other.to_lowercase()),
    };
    let metadata = &body["metadata"];
    let given = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
    let name = if target.name.is_empty() { given } else { &target.name };
    format!("{verb} {} {}/{name}", target.plural, target.namespace)
}

impl State {
    fn picture(&self, prefix: &str) -> Vec<WatchEvent> {
        let there = self.objects.iter().filter(|(path, _)| path.starts_with(prefix));
        let added = there.map(|(_, object)| WatchEvent {
            kind: WatchKind::Added,
            object: Bytes::from(object.to_string()),
        });
        let end = json!({"metadata": {
            "resourceVersion": self.revision.to_string(),
            "annotations": {"k8s.io/initial-events-end": "true"},
        }});
        let end = WatchEvent { kind: WatchKind::Bookmark, object: Bytes::from(end.to_string()) };
        added.chain([end]).collect()
    }
}

struct Cursor {
    fake: Fake,
    prefix: String,
    seen: u64,
    written: watch::Receiver<u64>,
}

impl Cursor {
    async fn next(mut self) -> Option<(Result<WatchEvent, TransportError>, Option<Self>)> {
        loop {
            self.written.borrow_and_update();
            let (is_cut, next) = {
                let state = self.fake.state();
                let fits =
                    |entry: &&Entry| entry.revision > self.seen && entry.path.starts_with(&self.prefix);
                (state.is_cut, state.history.iter().find(fits).cloned())
            };
            if is_cut {
                return Some((Err(cut()), None));
            }
            if let Some(entry) = next {
                self.seen = entry.revision;
                return Some((Ok(entry.event), Some(self)));
            }
            self.written.changed().await.ok()?;
        }
    }
}
