//! Rights that a webhook gives: it is asked with a SubjectAccessReview (`authorization.k8s.io`), and what it said is remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cel::{Budget, Environment, Program, Type, Value};
use host::{Host, Moment};
use http::StatusCode;
use model::Tree;
use model::tree::text;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::auth::{Attributes, Identity};
use crate::outbound::{CallError, Callee, Credentials, Outbound, exchange};
use crate::policy;

/// How many answers are remembered: upstream's.
const KEPT_MAX: usize = 8192;
/// How long a review may be whose answer is remembered: a user could fill the memory with others.
const KEPT_REVIEW_LEN_MAX: usize = 10_000;
/// How often a webhook is asked that answers with an error which may pass: upstream's.
const TRIES: u32 = 5;
/// How long the first wait between two tries is; each further one is half as long again. Upstream's.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// How many match conditions a webhook may have: upstream's.
const CONDITIONS_MAX: usize = 64;

/// A webhook that gives rights, as it is configured.
#[derive(Clone, Default)]
pub struct AccessSettings {
    /// What it is called in messages.
    pub name: String,
    /// Its URL; https.
    pub url: String,
    /// The authorities that may have signed its certificate, as PEM; empty for those that the machine trusts.
    pub authorities: Vec<u8>,
    /// What we show to it.
    pub credentials: Credentials,
    /// How long each answer may take.
    pub timeout: Duration,
    /// How long it is remembered that something may be done; zero: not at all.
    pub authorized_ttl: Duration,
    /// How long it is remembered that it does not say so; zero: not at all.
    pub unauthorized_ttl: Duration,
    /// Whether the reviews are those of `v1beta1`.
    pub is_beta: bool,
    /// Whether nothing may be done when it cannot be asked; otherwise the next authorizer is.
    pub denies_on_failure: bool,
    /// What must hold of a review (`request`) for it to be asked.
    pub conditions: Vec<String>,
}

/// What an authorizer thinks, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opinion {
    /// It may be done, whatever others think.
    Allow(String),
    /// It may not be done, whatever others think.
    Deny(String),
    /// Let others say.
    None(String),
    /// It could not say; `denies` tells whether that ends the matter.
    Failed {
        /// Why.
        why: String,
        /// Whether nobody else is asked.
        denies: bool,
    },
}

/// A webhook that gives rights.
pub struct AccessWebhook {
    settings: AccessSettings,
    conditions: Vec<(String, Program)>,
    callee: Callee,
    outbound: Arc<Outbound>,
    /// Guards the answers and their times, by the hashes of reviews, while one is looked up or put in.
    kept: Mutex<HashMap<[u8; 32], (Moment, Opinion)>>,
}

impl AccessWebhook {
    /// A webhook as the settings say.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(settings: AccessSettings, outbound: Arc<Outbound>) -> Result<Self, String> {
        let callee = Callee::at(&settings.url, &settings.authorities)?.shown(settings.credentials.clone());
        if settings.conditions.len() > CONDITIONS_MAX {
            let given = settings.conditions.len();
            return Err(format!(
                "matchConditions: Too many: {given}: must have at most {CONDITIONS_MAX} items"
            ));
        }
        let mut conditions: Vec<(String, Program)> = Vec::new();
        for (index, written) in settings.conditions.iter().enumerate() {
            let at = format!("matchConditions[{index}].expression");
            let written = written.trim();
            if written.is_empty() {
                return Err(format!("{at}: Required value"));
            }
            if conditions.iter().any(|(earlier, _)| earlier == written) {
                return Err(format!("{at}: Duplicate value: {written:?}"));
            }
            let program =
                compile(written).map_err(|why| format!("{at}: Invalid value: {written:?}: {why}"))?;
            conditions.push((written.to_owned(), program));
        }
        Ok(Self { settings, conditions, callee, outbound, kept: Mutex::default() })
    }

    /// What it thinks of this.
    pub async fn opinion(&self, host: &Host, who: &Identity, what: &Attributes) -> Opinion {
        let asked = spec(who, what);
        match self.is_meant(&asked) {
            Ok(true) => {}
            Ok(false) => return Opinion::None(String::new()),
            Err(why) => return self.failed(why),
        }
        let text = asked.to_string();
        let hash: [u8; 32] = Sha256::digest(&text).into();
        let now = host.moment();
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, said)) = kept.get(&hash).filter(|(at, said)| now.since(*at) < self.ttl(said)) {
                return said.clone();
            }
        }
        match self.ask(host, asked).await {
            Ok(answer) => {
                let said = read(&answer);
                if text.len() <= KEPT_REVIEW_LEN_MAX {
                    self.keep(hash, now, &said);
                }
                said
            }
            Err(why) => self.failed(format!("Post {:?}: {why}", self.settings.url)),
        }
    }

    fn failed(&self, why: String) -> Opinion {
        tracing::warn!(webhook = self.settings.name, why, "a webhook that gives rights cannot be asked");
        Opinion::Failed { why, denies: self.settings.denies_on_failure }
    }

    /// Whether all conditions hold; one that does not counts for more than one that cannot be told.
    fn is_meant(&self, asked: &Tree) -> Result<bool, String> {
        let names = [("request", Value::json(asked))];
        let mut budget = Budget::new(cel::CONDITIONS_COST_MAX);
        let mut failed = Vec::new();
        for (written, program) in &self.conditions {
            match program.evaluate(&names, &mut budget) {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(_) => failed.push(format!("cel evaluation error: expression '{written}' is no bool")),
                Err(why) => {
                    failed.push(format!(
                        "cel evaluation error: expression '{written}' resulted in error: {why}"
                    ));
                }
            }
        }
        if failed.is_empty() { Ok(true) } else { Err(failed.join(", ")) }
    }

    /// How long an answer is remembered.
    fn ttl(&self, said: &Opinion) -> Duration {
        match said {
            Opinion::Allow(_) => self.settings.authorized_ttl,
            Opinion::Deny(_) | Opinion::None(_) => self.settings.unauthorized_ttl,
            Opinion::Failed { .. } => Duration::ZERO,
        }
    }

    fn keep(&self, hash: [u8; 32], now: Moment, said: &Opinion) {
        if self.ttl(said).is_zero() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (at, said)| now.since(*at) < self.ttl(said));
        }
        if kept.len() < KEPT_MAX {
            kept.insert(hash, (now, said.clone()));
        }
    }

    async fn ask(&self, host: &Host, mut asked: Tree) -> Result<Tree, CallError> {
        let version = if self.settings.is_beta { "v1beta1" } else { "v1" };
        if let Some(spec) = asked.as_object_mut().filter(|_| self.settings.is_beta)
            && let Some(groups) = spec.remove("groups")
        {
            spec.insert("group".into(), groups);
        }
        let review = json!({
            "apiVersion": format!("authorization.k8s.io/{version}"), "kind": "SubjectAccessReview",
            "metadata": {"creationTimestamp": null}, "spec": asked, "status": {"allowed": false},
        });
        let body = Bytes::from(review.to_string());
        let mut wait = RETRY_FIRST;
        let mut tries = 1;
        let answer = loop {
            match exchange(&self.outbound, host, &self.callee, Some(&body), self.settings.timeout).await {
                Err(why) if tries < TRIES && may_pass(&why) => {
                    host.sleep(wait).await;
                    (tries, wait) = (tries + 1, wait * 3 / 2);
                }
                ended => break ended?,
            }
        };
        let answer: Tree = serde_json::from_slice(&answer)
            .map_err(|why| CallError::Broken(format!("the answer is no JSON: {why}")))?;
        match answer.is_object() && matches!(text(&answer, "kind"), "" | "SubjectAccessReview") {
            true => Ok(answer),
            false => Err(CallError::Broken("the answer is no SubjectAccessReview".to_owned())),
        }
    }
}

/// Whether the same question may be answered a moment later.
fn may_pass(why: &CallError) -> bool {
    match why {
        CallError::Broken(_) => true,
        CallError::Status { status, .. } => {
            matches!(
                *status,
                StatusCode::INTERNAL_SERVER_ERROR
                    | StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::GATEWAY_TIMEOUT
            )
        }
        CallError::Unresolved(_) | CallError::Dial { .. } | CallError::Late | CallError::TooLong => false,
    }
}

fn compile(written: &str) -> Result<Program, String> {
    let environment = Environment::of(&[]).with("request", policy::type_named(SPEC).unwrap_or(Type::Dyn));
    let program =
        Program::compile(written, &environment).map_err(|why| format!("compilation failed: {why}"))?;
    match program.gives() {
        Type::Bool | Type::Dyn => Ok(program),
        _ => Err("must evaluate to bool".to_owned()),
    }
}

/// What conditions speak of as `request`.
const SPEC: &str = "io.k8s.api.authorization.v1.SubjectAccessReviewSpec";

/// The question, as a review's `spec`.
fn spec(who: &Identity, what: &Attributes) -> Tree {
    let mut spec = json!({});
    let mut put = |name: &str, value: Tree| spec[name] = value;
    if what.is_resource() {
        let mut resource = json!({});
        for (name, value) in [
            ("namespace", &what.namespace),
            ("verb", &what.verb),
            ("group", &what.group),
            ("version", &what.version),
            ("resource", &what.resource),
            ("subresource", &what.subresource),
            ("name", &what.name),
        ] {
            if !value.is_empty() {
                resource[name] = json!(value);
            }
        }
        for (name, selector) in what.selectors.as_object().into_iter().flatten() {
            resource[name] = selector.clone();
        }
        put("resourceAttributes", resource);
    } else {
        put("nonResourceAttributes", json!({"path": what.path, "verb": what.verb}));
    }
    if !who.name.is_empty() {
        put("user", json!(who.name));
    }
    if !who.groups.is_empty() {
        put("groups", json!(who.groups));
    }
    if !who.extra.is_empty() {
        put("extra", json!(who.extra));
    }
    if !who.uid.is_empty() {
        put("uid", json!(who.uid));
    }
    spec
}

/// What a review's answer says.
fn read(answer: &Tree) -> Opinion {
    let status = &answer["status"];
    let reason = text(status, "reason").to_owned();
    match (status["allowed"] == true, status["denied"] == true) {
        (true, true) => Opinion::Failed {
            why: "webhook subject access review returned both allow and deny response".to_owned(),
            denies: true,
        },
        (_, true) => Opinion::Deny(reason),
        (true, _) => Opinion::Allow(reason),
        (false, false) => Opinion::None(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::NoDial;

    fn webhook(conditions: &[&str]) -> Result<AccessWebhook, String> {
        let outbound = Outbound::new(Host::real(), Arc::new(NoDial));
        let conditions = conditions.iter().map(|&text| text.to_owned()).collect();
        let settings =
            AccessSettings { url: "https://a.b/c".into(), conditions, ..AccessSettings::default() };
        AccessWebhook::new(settings, Arc::new(outbound))
    }

    #[test]
    fn conditions_say_whether_it_is_asked() {
        let pods = Attributes {
            verb: "list".into(),
            version: "v1".into(),
            resource: "pods".into(),
            namespace: "kube-system".into(),
            ..Attributes::default()
        };
        let check = |conditions: &[&str], wanted: Result<bool, &str>| {
            let told = webhook(conditions)
                .expect("good conditions")
                .is_meant(&spec(&Identity::user("ann", &["dev"]), &pods));
            match (told, wanted) {
                (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{why}"),
                (told, wanted) => assert_eq!(
                    told.as_ref().map_err(String::as_str),
                    wanted.as_ref().map_err(|why| *why),
                    "{conditions:?}"
                ),
            }
        };
        check(&[], Ok(true));
        check(
            &["has(request.resourceAttributes)", "request.resourceAttributes.namespace == 'kube-system'"],
            Ok(true),
        );
        check(&["!('dev' in request.groups)"], Ok(false));
        check(&["request.user == 'ann'", "has(request.nonResourceAttributes)"], Ok(false));
        check(&["request.nonResourceAttributes.path == '/x'"], Err("resulted in error"));
        check(&["request.nonResourceAttributes.path == '/x'", "request.user == 'bob'"], Ok(false));
    }

    #[test]
    fn conditions_that_cannot_be_read_are_refused() {
        let check = |conditions: &[&str], wanted: &str| {
            let why = webhook(conditions).err().expect("bad conditions");
            assert!(why.contains(wanted), "{why}");
        };
        check(&["request.nothing == 'x'"], "matchConditions[0].expression: Invalid value");
        check(&["request.user"], "must evaluate to bool");
        check(&["true", ""], "matchConditions[1].expression: Required value");
        check(&["true", " true"], "Duplicate value");
        let many: Vec<String> = (0..65).map(|at| format!("{at} == 0")).collect();
        check(&many.iter().map(String::as_str).collect::<Vec<_>>(), "Too many: 65");
    }

    #[test]
    fn an_answer_allows_denies_or_leaves_it_to_others() {
        let check = |status: Tree, wanted: Opinion| assert_eq!(read(&json!({"status": status})), wanted);
        check(json!({"allowed": true, "reason": "r"}), Opinion::Allow("r".into()));
        check(json!({"allowed": false, "denied": true}), Opinion::Deny(String::new()));
        check(json!({"allowed": false, "reason": "r"}), Opinion::None("r".into()));
        check(json!({}), Opinion::None(String::new()));
        assert!(matches!(
            read(&json!({"status": {"allowed": true, "denied": true}})),
            Opinion::Failed { denies: true, .. }
        ));
    }
}
