//! Asking webhooks about an act: mutating ones one after the other, validating ones all at once.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use host::Host;
use model::Tree;
use store::Store;

use super::matching::{Act, Target, is_exempt, target};
use super::review::{self, Objects, Verdict};
use super::{Hook, Hooks, Sort};
use crate::answer::Told;
use crate::cel::{About, Asker, Held};
use crate::codec;
use crate::converter::Converter;
use crate::guard::Guard;
use crate::http::status;
use crate::outbound::{CallError, Outbound};
use crate::refusal::{Reason, Refusal};
use crate::registry::{Registry, Resource};
use crate::request::Validation;
use crate::view::View;

/// How many validating webhooks are asked at once about one act: more than any cluster has that is still quick.
const AT_ONCE: usize = 64;

/// What asking takes.
pub struct Asking<'a> {
    /// The webhooks.
    pub hooks: &'a Hooks,
    /// The way to them.
    pub outbound: &'a Outbound,
    /// Time and chance.
    pub host: &'a Host,
    /// Where their Services, and the namespaces, are read.
    pub store: &'a Store,
    /// Who says how objects look in the versions in which webhooks are asked.
    pub converter: &'a Converter,
    /// What is served.
    pub registry: &'a Registry,
    /// Who answers what may be done, when conditions ask.
    pub guard: &'a dyn Guard,
    /// Where their warnings go.
    pub told: &'a Told,
}

/// What the mutating webhooks made of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutated {
    /// The object; `None` when the act has none.
    pub object: Option<Tree>,
    /// Whether it is another than before.
    pub changed: bool,
    /// Those that want to be asked again, since another webhook changed the object after they saw it.
    pub again: Vec<(String, usize)>,
    /// All that were asked and want to be asked again should the object change.
    pub asked: Vec<(String, usize)>,
}

/// Why a webhook stands in the way.
enum Trouble {
    /// It could not be asked: the HTTP code and the reason. Its failure policy decides.
    Failed(u16, String),
    /// It was asked, and the request ends here.
    Refused(Refusal),
}

impl Asking<'_> {
    /// Lets the mutating webhooks have an object; with `only`, those of them alone.
    pub async fn mutate(
        &self,
        act: &Act<'_>,
        object: Option<Tree>,
        only: Option<&[(String, usize)]>,
    ) -> Result<Mutated, Refusal> {
        let mut made = Mutated { object, changed: false, again: Vec::new(), asked: Vec::new() };
        if is_exempt(act) {
            return Ok(made);
        }
        for hook in self.hooks.now(Sort::Mutating, self.store).iter() {
            if only.is_some_and(|only| !only.contains(&hook.id)) {
                continue;
            }
            let target = target(hook, act, made.object.as_ref(), self.registry, &View(self.store))?;
            let Some(target) = target else { continue };
            if !self.holds(hook, act, &target, made.object.as_ref()).await? {
                continue;
            }
            let verdict = self.ask(hook, act, &target, made.object.as_ref()).await;
            let Some(verdict) = self.judge(hook, act, verdict)? else { continue };
            if let Some(new) = self.patched(hook, act, &target, made.object.as_ref(), &verdict).await? {
                made.changed = true;
                made.object = Some(new);
                made.again.clone_from(&made.asked);
            }
            if hook.again {
                made.asked.push(hook.id.clone());
            }
        }
        Ok(made)
    }

    /// Asks the validating webhooks.
    pub async fn validate(&self, act: &Act<'_>, object: Option<&Tree>) -> Result<(), Refusal> {
        let concerned = self.hooks.concerned(Sort::Validating, act, object, self.registry, self.store)?;
        let mut asked = Vec::new();
        for (hook, target) in &concerned {
            if self.holds(hook, act, target, object).await? {
                asked.push((hook, target));
            }
        }
        let all: Vec<_> =
            asked.into_iter().map(|(hook, target)| self.validate_one(hook, act, target, object)).collect();
        let ends: Vec<Result<(), Refusal>> = stream::iter(all).buffered(AT_ONCE).collect().await;
        ends.into_iter().collect()
    }

    /// Whether the conditions of a webhook hold; when they cannot be told, its failure policy decides.
    async fn holds(
        &self,
        hook: &Hook,
        act: &Act<'_>,
        target: &Target,
        object: Option<&Tree>,
    ) -> Result<bool, Refusal> {
        if hook.conditions.is_empty() {
            return Ok(true);
        }
        let to = self.registry.get(&target.gvr).map_or(act.resource, |resource| resource);
        let objects = self.objects(act, to, object).await?;
        let (object, old, request) = (objects.object, objects.old, review::request(act, target));
        let authorizer = Asker { guard: self.guard, identity: act.identity };
        let about =
            About { object: &object, old: &old, request: &request, params: None, authorizer: &authorizer };
        match hook.conditions.hold(&about) {
            Held::Yes => Ok(true),
            Held::No => Ok(false),
            Held::Unknown(why) if hook.ignorable => {
                tracing::warn!(
                    webhook = hook.name,
                    why,
                    "match conditions cannot be told; it is passed over"
                );
                Ok(false)
            }
            Held::Unknown(why) => Err(Refusal::forbidden(&act.resource.about(act.name), why)),
        }
    }

    async fn validate_one(
        &self,
        hook: &Hook,
        act: &Act<'_>,
        target: &Target,
        object: Option<&Tree>,
    ) -> Result<(), Refusal> {
        let verdict = self.ask(hook, act, target, object).await;
        self.judge(hook, act, verdict).map(drop)
    }

    /// What an answer, or its absence, means for the request; `None` when the webhook is passed over.
    fn judge(
        &self,
        hook: &Hook,
        act: &Act<'_>,
        verdict: Result<Verdict, Trouble>,
    ) -> Result<Option<Verdict>, Refusal> {
        let (counts, name, operation) = (&self.hooks.counts, hook.name.as_str(), act.operation.as_str());
        let sort = match hook.sort {
            Sort::Mutating => "admit",
            Sort::Validating => "validating",
        };
        match verdict {
            Ok(verdict) => {
                counts.asked(name, sort, operation, 200, false);
                Ok(Some(verdict))
            }
            Err(Trouble::Refused(refusal)) => {
                let code = status::of(&refusal).as_u16();
                counts.asked(name, sort, operation, code, true);
                counts.rejected(name, sort, operation, "no_error", code);
                Err(refusal)
            }
            Err(Trouble::Failed(code, why)) => {
                counts.asked(name, sort, operation, code, !hook.ignorable);
                let said = format!("failed calling webhook {name:?}: {why}");
                if hook.ignorable {
                    tracing::warn!(configuration = hook.id.0, "{said}; it is passed over");
                    counts.failed_open(name, sort);
                    return Ok(None);
                }
                counts.rejected(name, sort, operation, "calling_webhook_error", code);
                Err(Refusal::internal(said))
            }
        }
    }

    async fn ask(
        &self,
        hook: &Hook,
        act: &Act<'_>,
        target: &Target,
        object: Option<&Tree>,
    ) -> Result<Verdict, Trouble> {
        if act.dry_run && !hook.dry_runs {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Trouble::Refused(Refusal::bad_request(why)));
        }
        let Some(version) = hook.review else {
            let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
            return Err(Trouble::Failed(400, why.to_owned()));
        };
        let unreachable = |why: String| Trouble::Failed(503, format!("failed to call webhook: {why}"));
        let callee = hook.callee.as_ref().map_err(|why| unreachable(why.clone()))?;
        let to = self.resource(act, target)?;
        let objects = self.objects(act, to, object).await.map_err(Trouble::Refused)?;
        let uid = self.host.chance().uuid();
        let review = model::schema::to_bytes(&review::ask(hook, version, &uid, act, target, objects));
        let path = format!("{}?timeout={}s", callee.path, hook.timeout.as_secs());
        let answer = self.post(callee, &path, review, hook).await;
        let answer = answer
            .map_err(|why| unreachable(format!("Post \"https://{}{path}\": {why}", callee.authority())))?;
        let invalid = |why: String| Trouble::Failed(503, format!("received invalid webhook response: {why}"));
        let answer: Tree = serde_json::from_slice(&answer).map_err(|why| invalid(why.to_string()))?;
        let verdict = review::read(&answer, hook.sort, version, &uid).map_err(invalid)?;
        verdict.warnings.iter().for_each(|warning| self.told.warn(warning));
        verdict.notes.iter().for_each(|(key, value)| self.told.note(&format!("{}/{key}", hook.name), value));
        if verdict.allowed { Ok(verdict) } else { Err(Trouble::Refused(denied(&hook.name, &verdict.status))) }
    }

    /// An object in another version. Few ask for that, so it lies on the heap: all who do a request hold its state otherwise.
    async fn version(&self, from: &Resource, to: &Resource, object: &Tree) -> Result<Tree, Refusal> {
        Ok(Box::pin(self.converter.between(from, to, object)).await?.into_owned())
    }

    /// The objects of an act in the version in which a webhook is asked.
    async fn objects(&self, act: &Act<'_>, to: &Resource, object: Option<&Tree>) -> Result<Objects, Refusal> {
        let mut versions = [Tree::Null, Tree::Null];
        for (version, object) in versions.iter_mut().zip([object, act.old]) {
            if let Some(object) = object {
                *version = self.version(act.resource, to, object).await?;
            }
        }
        let [object, old] = versions;
        Ok(Objects { object, old })
    }

    async fn post(
        &self,
        callee: &crate::outbound::Callee,
        path: &str,
        review: Bytes,
        hook: &Hook,
    ) -> Result<Bytes, CallError> {
        let backends = callee.backends(&View(self.store), self.host.chance().u64());
        let backends = backends.map_err(CallError::Unresolved)?;
        self.outbound.post(callee, &backends, path, review, hook.timeout).await
    }

    /// The resource in whose version a webhook is asked.
    fn resource<'b>(&'b self, act: &Act<'b>, target: &Target) -> Result<&'b Resource, Trouble> {
        if act.resource.gvr == target.gvr {
            return Ok(act.resource);
        }
        let gone = || {
            Trouble::Refused(Refusal::internal(format!("unable to convert to {}: unknown kind", target.gvr)))
        };
        self.registry.get(&target.gvr).map(|resource| &**resource).ok_or_else(gone)
    }

    /// The object with a webhook's patch, in the version of the request; `None` when that changes nothing.
    async fn patched(
        &self,
        hook: &Hook,
        act: &Act<'_>,
        target: &Target,
        object: Option<&Tree>,
        verdict: &Verdict,
    ) -> Result<Option<Tree>, Refusal> {
        if verdict.patch.is_empty() {
            return Ok(None);
        }
        let unpatched =
            |why: String| Refusal::internal(format!("failed calling webhook {:?}: {why}", hook.name));
        let patch: json_patch::Patch = serde_json::from_slice(&verdict.patch)
            .map_err(|why| unpatched(format!("received undecodable patch in webhook response: {why}")))?;
        if patch.0.is_empty() {
            return Ok(None);
        }
        let Some(object) = object else {
            let why = format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            );
            return Err(Refusal::internal(why));
        };
        let to = match self.resource(act, target) {
            Ok(to) => to,
            Err(Trouble::Refused(refusal)) => return Err(refusal),
            Err(Trouble::Failed(_, why)) => return Err(unpatched(why)),
        };
        let mut new = self.version(act.resource, to, object).await?;
        json_patch::patch(&mut new, &patch).map_err(|why| Refusal::internal(why.to_string()))?;
        if new["kind"] != object["kind"] {
            return Err(Refusal::internal(format!(
                "admission webhook {:?} changed the kind of the object",
                hook.name
            )));
        }
        if object["kind"] == act.resource.kind.as_ref() {
            new = codec::recheck(to, new, Validation::Ignore)?.object;
            codec::settle(to, &mut new);
            new = self.version(to, act.resource, &new).await?;
        }
        // Who manages which fields is not a webhook's to say.
        match (new.get_mut("metadata").and_then(Tree::as_object_mut), object["metadata"].get("managedFields"))
        {
            (Some(metadata), Some(fields)) => drop(metadata.insert("managedFields".into(), fields.clone())),
            (Some(metadata), None) => drop(metadata.remove("managedFields")),
            _ => {}
        }
        Ok((new != *object).then_some(new))
    }
}

/// What a user is told whom a webhook refused: its own `Status`, with its name before the message.
fn denied(name: &str, said: &Tree) -> Refusal {
    let by = format!("admission webhook {name:?} denied the request");
    let text = |field: &str| said[field].as_str().unwrap_or_default();
    let message = match (text("message"), text("reason")) {
        ("", "") => format!("{by} without explanation"),
        ("", reason) => format!("{by}: {reason}"),
        (message, _) => format!("{by}: {message}"),
    };
    let mut refusal = Refusal::new(Reason::Forbidden, message);
    refusal.status = Some(Box::new(said.clone()));
    refusal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(said: Tree, code: u16, reason: &str, message: &str) {
        let refusal = denied("a.b.c", &said);
        let shown = status::failure(&refusal);
        let told = (status::of(&refusal).as_u16(), shown["reason"].as_str().unwrap_or_default());
        assert_eq!(told, (code, reason), "{said}");
        assert_eq!(shown["message"], format!("admission webhook \"a.b.c\" denied the request{message}"));
        assert_eq!((&shown["status"], &shown["code"]), (&json!("Failure"), &json!(code)));
    }

    #[test]
    fn a_denial_says_who_and_keeps_code_and_reason() {
        check(json!({"message": "no"}), 400, "", ": no");
        check(Tree::Null, 400, "", " without explanation");
        check(json!({"reason": "because"}), 400, "because", ": because");
        check(json!({"code": 403, "reason": "Forbidden", "message": "no"}), 403, "Forbidden", ": no");
        check(json!({"code": 200, "status": "Success", "message": "no"}), 400, "", ": no");
        check(json!({"code": 418, "message": "tea"}), 418, "", ": tea");
    }
}
