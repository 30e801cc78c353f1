//! What others have to be asked while admission, which waits for nobody, decides: whether somebody may do something, and how a
//! custom object looks in another version.
//!
//! What is not known yet is noted; a right counts as not given meanwhile, and an object as it is. Nothing is committed then:
//! the questions are asked, and the request is decided again with their answers.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Gvr, Time, Tree};
use serde_json::{Map, Value};

use crate::auth::outside::Outside;
use crate::auth::{Attributes, Decision, Identity};
use crate::convert;
use crate::converter::{Converter, converts};
use crate::guard::{Guard, TokenAsked, TokenIssued};
use crate::refusal::Refusal;
use crate::registry::{Registry, Resource};

/// How often a request is decided again for what was not known: one question may hang on the answer of another, a few deep.
pub const ROUNDS_MAX: usize = 16;

/// What one request was told by others, and what it is still to ask.
pub struct Patience {
    guard: Arc<dyn Guard>,
    /// Guards the rights that were asked about, while one is looked up or noted.
    rights: Mutex<Vec<Right>>,
    /// Guards the versions that were asked for, while one is looked up or noted.
    versions: Mutex<Vec<Version>>,
}

struct Right {
    who: Identity,
    what: Attributes,
    answer: Option<Decision>,
}

struct Version {
    from: Gvr,
    to: Gvr,
    /// The object, with what a conversion may change of its metadata alone.
    of: Tree,
    /// The whole object, as it is sent.
    sent: Tree,
    /// The same in the other version.
    made: Option<Tree>,
}

impl Patience {
    /// One for a request about a resource, where its guard or the resource's definition asks others.
    pub fn of(guard: &Arc<dyn Guard>, resource: &Resource) -> Option<Arc<Self>> {
        let needed = guard.asks_others() || converts(resource);
        needed.then(|| {
            let (rights, versions) = (Mutex::default(), Mutex::default());
            Arc::new(Self { guard: guard.clone(), rights, versions })
        })
    }

    /// Whether something was asked that is not known.
    pub fn is_open(&self) -> bool {
        self.rights().iter().any(|right| right.answer.is_none())
            || self.versions().iter().any(|version| version.made.is_none())
    }

    /// Asks what is open; whether anything was.
    ///
    /// # Errors
    /// Why an object cannot be had in another version.
    pub async fn ask(&self, registry: &Registry, converter: &Converter) -> Result<bool, Refusal> {
        let mut asked_any = false;
        while let Some((who, what)) = self.open_right() {
            asked_any = true;
            let answer = self.guard.may_by_all(&who, &what).await;
            for right in self.rights().iter_mut().filter(|right| right.who == who && right.what == what) {
                right.answer = Some(answer.clone());
            }
        }
        while let Some((from, to, sent)) = self.open_version() {
            asked_any = true;
            let gone = || Refusal::internal(format!("unable to convert to {to}: unknown kind"));
            let (from, wanted) = (registry.get(&from), registry.get(&to));
            let made = match (from, wanted) {
                (Some(from), Some(wanted)) => converter.between(from, wanted, &sent).await?.into_owned(),
                _ => return Err(gone()),
            };
            for version in
                self.versions().iter_mut().filter(|version| version.to == to && version.sent == sent)
            {
                version.made = Some(made.clone());
            }
        }
        Ok(asked_any)
    }

    fn open_right(&self) -> Option<(Identity, Attributes)> {
        let rights = self.rights();
        let open = rights.iter().find(|right| right.answer.is_none())?;
        Some((open.who.clone(), open.what.clone()))
    }

    fn open_version(&self) -> Option<(Gvr, Gvr, Tree)> {
        let versions = self.versions();
        let open = versions.iter().find(|version| version.made.is_none())?;
        Some((open.from.clone(), open.to.clone(), open.sent.clone()))
    }

    fn rights(&self) -> MutexGuard<'_, Vec<Right>> {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn versions(&self) -> MutexGuard<'_, Vec<Version>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object in another version, as far as it is known.
    fn version(&self, from: &Resource, to: &Resource, object: &Tree) -> Tree {
        let of = told(object);
        let mut versions = self.versions();
        match versions
            .iter()
            .find(|version| version.from == from.gvr && version.to == to.gvr && version.of == of)
        {
            Some(Version { made: Some(made), .. }) => worn(made, object),
            Some(_) => object.clone(),
            None => {
                let (from, to) = (from.gvr.clone(), to.gvr.clone());
                versions.push(Version { from, to, of, sent: object.clone(), made: None });
                object.clone()
            }
        }
    }
}

/// An object of one version of a resource as one of another; the same object where the part has a kind of its own. What only a
/// webhook can say is asked of the request's patience.
pub fn as_version<'a>(
    from: &Resource,
    to: &Resource,
    object: &'a Tree,
    patience: Option<&Patience>,
) -> Cow<'a, Tree> {
    if from.gvr == to.gvr || object["kind"] != from.kind.as_ref() {
        return Cow::Borrowed(object);
    }
    Cow::Owned(match patience.filter(|_| converts(from)) {
        Some(patience) => patience.version(from, to, object),
        None => convert::between(from, to, object.clone()),
    })
}

/// What a conversion may look at and change: metadata of which it may only carry on what is there is left out, for it is drawn
/// anew at each try.
fn told(object: &Tree) -> Tree {
    let mut told = object.clone();
    let kept = ["name", "namespace", "labels", "annotations"];
    if let Some(metadata) = told.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|name, _| kept.contains(&name.as_str()));
    }
    told
}

/// A converted object with the metadata of this one, apart from what a conversion may change of it.
fn worn(made: &Tree, object: &Tree) -> Tree {
    let mut worn = made.clone();
    let mut metadata: Map<String, Value> = object["metadata"].as_object().cloned().unwrap_or_default();
    for name in ["labels", "annotations"] {
        match made["metadata"].get(name) {
            Some(value) => drop(metadata.insert(name.to_owned(), value.clone())),
            None => drop(metadata.remove(name)),
        }
    }
    worn["metadata"] = Value::Object(metadata);
    worn
}

impl Guard for Patience {
    fn may(&self, who: &Identity, what: &Attributes) -> Decision {
        if !self.guard.asks_others() {
            return self.guard.may(who, what);
        }
        let mut rights = self.rights();
        match rights.iter().find(|right| right.who == *who && right.what == *what) {
            Some(Right { answer: Some(answer), .. }) => return answer.clone(),
            Some(_) => {}
            None => rights.push(Right { who: who.clone(), what: what.clone(), answer: None }),
        }
        Decision { reason: "it is still to be asked".to_owned(), ..Decision::default() }
    }

    fn rules_of(&self, who: &Identity, namespace: &str) -> Tree {
        self.guard.rules_of(who, namespace)
    }

    fn issue(&self, asked: &TokenAsked, now: Time) -> Result<TokenIssued, Refusal> {
        self.guard.issue(asked, now)
    }

    fn review(
        &self,
        token: &str,
        audiences: &[String],
        now: Time,
    ) -> Result<(Identity, Vec<String>), String> {
        self.guard.review(token, audiences, now)
    }

    fn outside(&self) -> Option<(&Arc<Outside>, &[String])> {
        self.guard.outside()
    }

    fn published(&self, path: &str) -> Option<Tree> {
        self.guard.published(path)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_converted_object_wears_the_metadata_of_each_try() {
        let first = json!({"spec": {"a": 1}, "metadata": {"name": "x", "uid": "1", "labels": {"l": "1"}}});
        let again = json!({"spec": {"a": 1}, "metadata": {"name": "x", "uid": "2", "labels": {"l": "1"}}});
        assert_eq!(told(&first), told(&again));
        let made =
            json!({"spec": {"b": 1}, "metadata": {"name": "x", "uid": "1", "annotations": {"n": "1"}}});
        let wanted =
            json!({"spec": {"b": 1}, "metadata": {"name": "x", "uid": "2", "annotations": {"n": "1"}}});
        assert_eq!(worn(&made, &again), wanted);
        let other = json!({"spec": {"a": 1}, "metadata": {"name": "x", "uid": "1", "labels": {"l": "2"}}});
        assert_ne!(told(&first), told(&other));
    }
}
