//! Requests about objects: every verb once, over any transport.
//!
//! Promises: an error status becomes a [`ClientError`] that says what to do next; a list is complete, however many
//! pages it takes. Never retries by itself: whoever decides also decides whether to ask again.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request};
use model::{Gvr, Key, Object, Precondition, Propagation, Tree};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::select::Uri;
use crate::{ClientError, Select, Transport, WatchStream};

/// How many objects a page of a list has.
///
/// 500 is what kubectl asks for: some 2 MB of pods. Half would double the round trips of big lists, double would
/// hold up other requests on a shared connection.
const LIST_PAGE_LEN: &str = "500";

/// How many pages a list may have: half a million objects, far beyond what a cluster holds. A server that never
/// ends a list is stopped there.
const LIST_PAGES_MAX: usize = 1000;

/// Speaks of objects over a [`Transport`]. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: HeaderValue,
}

/// How a patch is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatchKind {
    /// A list of operations (RFC 6902).
    Json,
    /// A merge patch (RFC 7396).
    Merge,
    /// Kubernetes' own: lists merge by key.
    Strategic,
    /// Server-side apply: the patch is the whole intent of its manager.
    Apply {
        /// Who applies.
        manager: String,
        /// Whether to take over fields that others own.
        force: bool,
    },
}

/// How an object is to be deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deletion {
    /// When it may be done.
    pub when: Precondition,
    /// How long it may take; `None` for the object's own default.
    pub grace_seconds: Option<i64>,
    /// What becomes of its children.
    pub propagation: Propagation,
}

impl Client {
    /// A client that calls itself `user_agent` (characters that cannot be in a header are left out).
    pub fn new(transport: Arc<dyn Transport>, user_agent: &str) -> Self {
        let plain: String = user_agent.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        let user_agent = HeaderValue::from_str(&plain).unwrap_or(HeaderValue::from_static("kintsugi"));
        Self { transport, user_agent }
    }

    /// Reads one object.
    pub async fn get(&self, key: &Key) -> Result<Object, ClientError> {
        self.object(self.request(Method::GET, key.path(), None, Bytes::new())?).await
    }

    /// Reads a part of one object, such as `scale`.
    pub async fn get_part(&self, key: &Key, part: &str) -> Result<Tree, ClientError> {
        self.tree(self.request(Method::GET, part_path(key, part), None, Bytes::new())?).await
    }

    /// Reads all selected objects of a resource in a namespace (`""`: in all), and the revision they were read at.
    pub async fn list(
        &self,
        gvr: &Gvr,
        namespace: &str,
        select: &Select,
    ) -> Result<(Vec<Object>, String), ClientError> {
        let mut objects = Vec::new();
        let mut next = String::new();
        for _ in 0..LIST_PAGES_MAX {
            let uri = Uri::collection(gvr, namespace, select).and("limit", LIST_PAGE_LEN);
            let uri = uri.and_some("continue", &next).into_string();
            let body = self.call(self.request(Method::GET, uri, None, Bytes::new())?).await?;
            let page = Page::read(&body, gvr)?;
            objects.extend(page.objects);
            next = page.next;
            if next.is_empty() {
                return Ok((objects, page.revision));
            }
        }
        Err(ClientError::malformed(format!("a list of {gvr}"), "it does not end"))
    }

    /// Makes an object.
    pub async fn create(&self, gvr: &Gvr, namespace: &str, object: &Tree) -> Result<Object, ClientError> {
        let request =
            self.request(Method::POST, gvr.collection_path(namespace), Some(JSON), encode(object)?)?;
        self.object(request).await
    }

    /// Posts to a part of an object (`binding`, `eviction`, `token`) and gives its answer.
    pub async fn create_part(&self, key: &Key, part: &str, body: &Tree) -> Result<Tree, ClientError> {
        self.tree(self.request(Method::POST, part_path(key, part), Some(JSON), encode(body)?)?).await
    }

    /// Replaces an object or, where `part` is not empty, a part of it such as `status`.
    pub async fn replace(&self, key: &Key, part: &str, object: &Tree) -> Result<Object, ClientError> {
        self.object(self.request(Method::PUT, part_path(key, part), Some(JSON), encode(object)?)?).await
    }

    /// Patches an object or a part of it. A precondition goes into the patch's metadata (into a JSON patch as tests).
    pub async fn patch(
        &self,
        key: &Key,
        part: &str,
        kind: PatchKind,
        patch: &Tree,
        when: &Precondition,
    ) -> Result<Object, ClientError> {
        let mut uri = Uri::path(part_path(key, part));
        if let PatchKind::Apply { manager, force } = &kind {
            uri = uri.and("fieldManager", manager).and("force", if *force { "true" } else { "false" });
        }
        let body = match &kind {
            PatchKind::Json => with_tests(patch, when),
            _ => with_metadata(patch, when),
        };
        self.object(self.request(Method::PATCH, uri.into_string(), Some(kind.media()), encode(&body)?)?).await
    }

    /// Deletes an object. `Some` is the object as it ends (it waits for its grace or finalizers); `None`: it is gone.
    pub async fn delete(&self, key: &Key, deletion: &Deletion) -> Result<Option<Object>, ClientError> {
        let body = encode(&delete_options(deletion))?;
        let answer = self.call(self.request(Method::DELETE, key.path(), Some(JSON), body)?).await?;
        let head: Head =
            serde_json::from_slice(&answer).map_err(|e| ClientError::malformed("an answer", e))?;
        match head.kind.as_ref() {
            "Status" => Ok(None),
            _ => read_object(answer).map(|object| object.is_ending().then_some(object)),
        }
    }

    /// Watches the selected objects. `query` says from where, such as `("resourceVersion", "5")`.
    pub async fn watch(
        &self,
        gvr: &Gvr,
        namespace: &str,
        select: &Select,
        query: &[(&str, &str)],
    ) -> Result<WatchStream, ClientError> {
        let mut uri = Uri::collection(gvr, namespace, select).and("watch", "true");
        for (name, value) in query {
            uri = uri.and(name, value);
        }
        let request = self.request(Method::GET, uri.into_string(), None, ())?;
        Ok(self.transport.watch(request).await?)
    }

    /// Sends any request and gives the body of its answer; an error status is an error.
    pub async fn call(&self, request: Request<Bytes>) -> Result<Bytes, ClientError> {
        let answer = self.transport.call(request).await?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        Err(ClientError::of_answer(answer.status(), answer.headers(), answer.body()))
    }

    /// A request as this client, for [`Client::call`]; `uri` is a path with a query.
    pub fn request<B>(
        &self,
        method: Method,
        uri: String,
        content_type: Option<&'static str>,
        body: B,
    ) -> Result<Request<B>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(&uri)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, self.user_agent.clone());
        if let Some(media) = content_type {
            request = request.header(CONTENT_TYPE, media);
        }
        request.body(body).map_err(|error| ClientError::malformed(uri, error))
    }

    async fn object(&self, request: Request<Bytes>) -> Result<Object, ClientError> {
        read_object(self.call(request).await?)
    }

    async fn tree(&self, request: Request<Bytes>) -> Result<Tree, ClientError> {
        let body = self.call(request).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::malformed("an answer", error))
    }
}

/// The content type of plain objects.
const JSON: &str = "application/json";

impl PatchKind {
    fn media(&self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Apply { .. } => "application/apply-patch+yaml",
        }
    }
}

/// One page of a list.
struct Page {
    objects: Vec<Object>,
    revision: String,
    next: String,
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    r#continue: String,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    kind: std::borrow::Cow<'a, str>,
}

impl Page {
    fn read(body: &Bytes, gvr: &Gvr) -> Result<Self, ClientError> {
        let malformed = |error| ClientError::malformed(format!("a list of {gvr}"), error);
        let raw: RawPage<'_> = serde_json::from_slice(body).map_err(malformed)?;
        // Each item is copied, so that one object kept does not keep the whole page.
        let copy = |item: &&RawValue| read_object(Bytes::copy_from_slice(item.get().as_bytes()));
        let objects = raw.items.iter().flatten().map(copy).collect::<Result<_, _>>()?;
        Ok(Self { objects, revision: raw.metadata.resource_version, next: raw.metadata.r#continue })
    }
}

fn read_object(bytes: Bytes) -> Result<Object, ClientError> {
    Object::read(bytes).map_err(|error| ClientError::malformed("an object", error))
}

fn part_path(key: &Key, part: &str) -> String {
    if part.is_empty() { key.path() } else { format!("{}/{part}", key.path()) }
}

fn encode(tree: &Tree) -> Result<Bytes, ClientError> {
    serde_json::to_vec(tree).map(Bytes::from).map_err(|error| ClientError::malformed("a request", error))
}

/// A merge patch with the precondition in its metadata.
fn with_metadata(patch: &Tree, when: &Precondition) -> Tree {
    let mut patch = patch.clone();
    for (name, value) in [("uid", &when.uid), ("resourceVersion", &when.resource_version)] {
        if let Some(value) = value {
            patch["metadata"][name] = json!(value);
        }
    }
    patch
}

/// A JSON patch with the precondition as tests before its operations.
fn with_tests(patch: &Tree, when: &Precondition) -> Tree {
    let named = [("uid", &when.uid), ("resourceVersion", &when.resource_version)];
    let tests = named.into_iter().filter_map(|(name, value)| {
        Some(json!({"op": "test", "path": format!("/metadata/{name}"), "value": value.as_ref()?}))
    });
    tests.chain(patch.as_array().into_iter().flatten().cloned()).collect()
}

/// The body of a deletion.
pub(crate) fn delete_options(deletion: &Deletion) -> Tree {
    let mut options = json!({
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": match deletion.propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        },
    });
    if let Some(seconds) = deletion.grace_seconds {
        options["gracePeriodSeconds"] = json!(seconds);
    }
    add_preconditions(&mut options, &deletion.when);
    options
}

/// Writes `preconditions` into delete options.
pub(crate) fn add_preconditions(options: &mut Tree, when: &Precondition) {
    for (name, value) in [("uid", &when.uid), ("resourceVersion", &when.resource_version)] {
        if let Some(value) = value {
            options["preconditions"][name] = json!(value);
        }
    }
}
