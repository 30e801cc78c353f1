//! Custom objects between versions, by the webhook that their definition names.
//!
//! Promises: what comes back is the same object (its name, uid and all metadata but labels and annotations); what was
//! converted once is remembered while there is room, so that a hundred watchers cost one question.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use host::Host;
use model::Tree;
use model::tree::{items, text};
use serde_json::{Value, json};
use store::{Event, Record, Store};

use crate::convert;
use crate::custom::Conversion;
use crate::encode;
use crate::outbound::Outbound;
use crate::patience::as_version;
use crate::refusal::{Reason, Refusal};
use crate::registry::{Meaning, Resource};
use crate::view::View;

/// How long a conversion may take: upstream's, which a user cannot set.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many objects go into one review: a page of a list.
const OBJECTS_MAX: usize = 500;
/// How many bytes of converted objects, and of those they were made of, are remembered: some 10,000 objects.
const REMEMBERED_BYTES: usize = 64 << 20;

/// Converts custom objects. A cheap handle.
#[derive(Clone)]
pub struct Converter {
    outbound: Arc<Outbound>,
    host: Host,
    store: Store,
    /// Guards what was converted, while it is looked up or added.
    known: Arc<Mutex<Known>>,
}

/// An object as it was, in which version it is wanted, and by which state of its definition.
type Key = (Bytes, String, String);

#[derive(Default)]
struct Known {
    by_key: HashMap<Key, Bytes>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Known {
    fn keep(&mut self, key: Key, made: Bytes) {
        self.bytes += key.0.len() + made.len();
        if self.by_key.insert(key.clone(), made).is_none() {
            self.order.push_back(key);
        }
        while self.bytes > REMEMBERED_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            let gone = self.by_key.remove(&oldest).map_or(0, |made| made.len());
            self.bytes = self.bytes.saturating_sub(oldest.0.len() + gone);
        }
    }
}

impl Converter {
    /// Asks over `outbound`.
    pub fn new(outbound: Arc<Outbound>, host: Host, store: Store) -> Self {
        Self { outbound, host, store, known: Arc::default() }
    }

    /// Records as a resource serves them, where that takes a webhook; others as they are.
    pub async fn records(
        &self,
        resource: &Resource,
        mut records: Vec<Record>,
    ) -> Result<Vec<Record>, Refusal> {
        if conversion(resource).is_none() {
            return Ok(records);
        }
        let values = records.iter().map(|record| record.value.clone()).collect();
        for (record, value) in records.iter_mut().zip(self.bytes(resource, values).await?) {
            *record = record.with(value);
        }
        Ok(records)
    }

    /// One record; see [`Self::records`].
    pub async fn record(&self, resource: &Resource, record: Record) -> Result<Record, Refusal> {
        if conversion(resource).is_none() {
            return Ok(record);
        }
        Ok(record.with(self.one(resource, record.value.clone()).await?))
    }

    /// The bytes of one stored object; see [`Self::records`].
    pub async fn one(&self, resource: &Resource, value: Bytes) -> Result<Bytes, Refusal> {
        if conversion(resource).is_none() {
            return Ok(value);
        }
        let mut made = self.bytes(resource, vec![value]).await?;
        made.pop().ok_or_else(|| Refusal::internal("a conversion gave nothing"))
    }

    /// Both sides of an event; see [`Self::records`].
    pub async fn event<'e>(&self, resource: &Resource, event: &'e Event) -> Result<Cow<'e, Event>, Refusal> {
        if conversion(resource).is_none() {
            return Ok(Cow::Borrowed(event));
        }
        let mut event = event.clone();
        event.record = self.record(resource, event.record).await?;
        if let Some(before) = event.before {
            event.before = Some(self.record(resource, before).await?);
        }
        Ok(Cow::Owned(event))
    }

    /// An object of a resource in the version in which it is stored, where that takes a webhook; others as they are.
    pub async fn to_stored(&self, resource: &Resource, object: Tree) -> Result<Tree, Refusal> {
        let wanted = resource.stored.api_version();
        let Some(conversion) = conversion(resource).filter(|_| object["apiVersion"] != json!(wanted)) else {
            return Ok(object);
        };
        let mut made = self.ask(&wanted, conversion, vec![object]).await?;
        made.pop().ok_or_else(|| Refusal::internal("a conversion gave nothing"))
    }

    /// An object of one version of a resource as one of another; the same object where the part has a kind of its own.
    pub async fn between<'t>(
        &self,
        from: &Resource,
        to: &Resource,
        object: &'t Tree,
    ) -> Result<Cow<'t, Tree>, Refusal> {
        let Some(conversion) = conversion(from) else { return Ok(as_version(from, to, object, None)) };
        if from.gvr == to.gvr || object["kind"] != from.kind.as_ref() {
            return Ok(Cow::Borrowed(object));
        }
        let mut made = self.ask(&to.api_version(), conversion, vec![object.clone()]).await?;
        let made = made.pop().ok_or_else(|| Refusal::internal("a conversion gave nothing"))?;
        Ok(Cow::Owned(convert::to_served(to, made)))
    }

    async fn bytes(&self, resource: &Resource, mut values: Vec<Bytes>) -> Result<Vec<Bytes>, Refusal> {
        let Some(conversion) = conversion(resource) else { return Ok(values) };
        let wanted = resource.api_version();
        let prefix = encode::type_prefix(&wanted, &resource.kind);
        let key = |value: &Bytes| (value.clone(), wanted.clone(), conversion.revision.clone());
        let mut open = Vec::new();
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for (at, value) in values.iter_mut().enumerate() {
                if value.starts_with(prefix.as_bytes()) {
                    continue;
                }
                match known.by_key.get(&key(value)) {
                    Some(made) => *value = made.clone(),
                    None => open.push(at),
                }
            }
        }
        for some in open.chunks(OBJECTS_MAX) {
            let objects = some.iter().map(|at| serde_json::from_slice(&values[*at]));
            let objects: Vec<Tree> = objects
                .collect::<Result<_, _>>()
                .map_err(|why| Refusal::internal(format!("a stored object cannot be read: {why}")))?;
            let made = self.ask(&wanted, conversion, objects).await?;
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for (at, made) in some.iter().zip(made) {
                let made = encode::canonical(&made);
                known.keep(key(&values[*at]), made.clone());
                values[*at] = made;
            }
        }
        Ok(values)
    }

    /// Has the webhook convert objects, which are all of other versions than is wanted.
    async fn ask(
        &self,
        wanted: &str,
        conversion: &Conversion,
        objects: Vec<Tree>,
    ) -> Result<Vec<Tree>, Refusal> {
        let named = |field: &str| objects.first().map_or("", |object| text(object, field)).to_owned();
        let (from, kind) = (named("apiVersion"), named("kind"));
        let fail = |why: String| {
            let message = format!("conversion webhook for {from}, Kind={kind} {why}");
            Refusal::new(Reason::Internal, message)
        };
        let failed = |why: String| fail(format!("failed: {why}"));
        let callee = conversion.callee.as_ref().map_err(|why| failed(why.clone()))?;
        let version =
            conversion.review.ok_or_else(|| failed("no supported conversion review versions".into()))?;
        let uid = self.host.chance().uuid();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
        });
        let backends = callee.backends(&View(&self.store), self.host.chance().u64()).map_err(&failed)?;
        let path = format!("{}?timeout={}s", callee.path, TIMEOUT.as_secs());
        let body = model::schema::to_bytes(&review);
        let answer = self.outbound.post(callee, &backends, &path, body, TIMEOUT).await;
        let answer =
            answer.map_err(|why| failed(format!("Post \"https://{}{path}\": {why}", callee.authority())))?;
        let answer: Tree = serde_json::from_slice(&answer).map_err(|why| failed(why.to_string()))?;
        let made = read(&answer, version, &uid).map_err(&failed)?;
        if made.len() != objects.len() {
            return Err(fail(format!("returned {} objects, expected {}", made.len(), objects.len())));
        }
        let pairs = objects.iter().zip(made).enumerate();
        pairs
            .map(|(at, (old, new))| {
                restored(wanted, old, new)
                    .map_err(|why| fail(format!("returned invalid converted object at index {at}: {why}")))
            })
            .collect()
    }
}

/// How a resource's objects of other versions are converted, when that takes a webhook.
fn conversion(resource: &Resource) -> Option<&Conversion> {
    match &resource.meaning {
        Meaning::Custom(custom) => custom.conversion.as_ref(),
        Meaning::BuiltIn(_) => None,
    }
}

/// Whether a webhook has to be asked for objects of a resource in another version.
pub fn converts(resource: &Resource) -> bool {
    conversion(resource).is_some()
}

/// The objects of an answer; `Err` says what is wrong with it.
fn read(answer: &Tree, version: &str, uid: &str) -> Result<Vec<Tree>, String> {
    let (named, kind) = (text(answer, "apiVersion"), text(answer, "kind"));
    let response = &answer["response"];
    if version == "v1" && (named, kind) != ("apiextensions.k8s.io/v1", "ConversionReview") {
        return Err(format!(
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got {named}, Kind={kind}"
        ));
    }
    if !response.is_object() {
        return Err("no response provided".to_owned());
    }
    let got = text(response, "uid");
    if version == "v1" && got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let (status, message) = (text(response, "result.status"), text(response, "result.message"));
    match (status, message) {
        ("Success", _) => Ok(items(response, "convertedObjects").to_vec()),
        (_, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// What a webhook made of an object, with the metadata that it may not change.
fn restored(wanted: &str, old: &Tree, mut new: Tree) -> Result<Tree, String> {
    let got = text(&new, "apiVersion");
    if wanted != got {
        return Err(format!("invalid groupVersion (expected {wanted}, received {got})"));
    }
    let (wanted, got) = (text(old, "kind"), text(&new, "kind"));
    if wanted != got {
        return Err(format!("invalid kind (expected {wanted}, received {got})"));
    }
    for (field, word) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (wanted, got) = (&old["metadata"][field], &new["metadata"][field]);
        if wanted.as_str().unwrap_or_default() != got.as_str().unwrap_or_default() {
            let show = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            return Err(format!("must have the same {word}: {} != {}", show(wanted), show(got)));
        }
    }
    let Some(said) = new["metadata"].as_object() else {
        return Err("missing metadata in converted object".to_owned());
    };
    let mut metadata = old["metadata"].as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match said.get(field) {
            Some(value) if value.is_null() => drop(metadata.remove(field)),
            Some(value) => {
                let texts = value.as_object().is_some_and(|map| map.values().all(Value::is_string));
                if !texts {
                    return Err(format!("metadata.{field} is no map of texts"));
                }
                metadata.insert(field.to_owned(), value.clone());
            }
            None => drop(metadata.remove(field)),
        }
    }
    new["metadata"] = Value::Object(metadata);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: Tree, wanted: Result<usize, &str>) {
        let answer = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response});
        let told = read(&answer, "v1", "u").map(|objects| objects.len());
        assert_eq!(told.as_ref().map_err(String::as_str), wanted.as_ref().map_err(|why| *why), "{response}");
    }

    #[test]
    fn answers_have_to_be_what_was_asked_for() {
        check(json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{}]}), Ok(1));
        check(
            json!({"uid": "v", "result": {"status": "Success"}}),
            Err("expected response.uid=\"u\", got \"v\""),
        );
        check(json!({"uid": "u", "result": {"status": "Failure", "message": "no"}}), Err("no"));
        check(json!({"uid": "u"}), Err("response.result.status was '', not 'Success'"));
        check(Tree::Null, Err("no response provided"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Known::default();
        for at in 0..3_u8 {
            let value = Bytes::from(vec![at; REMEMBERED_BYTES / 4]);
            known.keep((value.clone(), "x/v1".into(), "1".into()), value);
        }
        assert_eq!((known.by_key.len(), known.order.len()), (2, 2));
        assert!(known.bytes <= REMEMBERED_BYTES);
    }
}
