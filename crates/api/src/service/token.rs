//! `serviceaccounts/token`: a token for an account, bound to an object where the caller wants it.

use http::StatusCode;
use model::kinds::FaultReason;
use model::{Gvr, Key, Tree, World, kinds};
use serde_json::{Value, json};

use super::Call;
use super::read::{parse, written};
use crate::admit::restriction;
use crate::answer::Answer;
use crate::guard::TokenAsked;
use crate::http::negotiate::View as Shown;
use crate::refusal::{Reason, Refusal};
use crate::verbs::{is_ending, meta};
use crate::view::View;

/// How long a token is good for when nobody says, and at least, in seconds: upstream's.
const SECONDS_DEFAULT: i64 = 3600;
const SECONDS_MIN: i64 = 600;
/// The longest that can be asked for, in seconds: what upstream's validation lets through.
const SECONDS_MAX: i64 = 1 << 32;

impl Call<'_> {
    pub(super) fn token(&self, mut request: Tree) -> Result<Answer, Refusal> {
        let form = self.form_of(&[Shown::Object])?;
        let account = parse(&self.record()?.value)?;
        let spec = &request["spec"];
        let seconds = spec["expirationSeconds"].as_i64().unwrap_or(SECONDS_DEFAULT);
        self.check_seconds(seconds)?;
        let audiences = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut asked = TokenAsked {
            namespace: self.target.namespace.clone(),
            account: (self.target.name.clone(), meta(&account, "uid").to_owned()),
            audiences: audiences.map(str::to_owned).collect(),
            seconds,
            bound: None,
            node: None,
            id: self.inner.host.chance().uuid(),
        };
        self.bind_token(&spec["boundObjectRef"], &mut asked)?;
        self.check_asker(&spec["boundObjectRef"], &asked)?;
        let now = self.inner.host.now();
        let issued = self.inner.settings.guard.issue(&asked, now)?;
        request["apiVersion"] = json!("authentication.k8s.io/v1");
        request["kind"] = json!("TokenRequest");
        request["metadata"] = json!({
            "name": self.target.name, "namespace": self.target.namespace, "creationTimestamp": crate::verbs::stamp(now),
        });
        request["spec"]["audiences"] = json!(issued.audiences);
        request["spec"]["expirationSeconds"] = json!(seconds);
        request["status"] =
            json!({"token": issued.token, "expirationTimestamp": crate::verbs::stamp(issued.expires)});
        Ok(written(StatusCode::CREATED, form.syntax, &request))
    }

    /// The agent of a node has tokens for the pods that run there.
    fn check_asker(&self, bound: &Tree, asked: &TokenAsked) -> Result<(), Refusal> {
        let Some(node) = self.identity.node() else { return Ok(()) };
        let pod = match &asked.bound {
            Some((kind, name, _)) if kind == "Pod" => {
                let pod = View(&self.inner.store).get(&Key::new(&kinds::POD, &asked.namespace, name));
                pod.map(|pod| parse(pod.bytes())).transpose()?
            }
            _ => None,
        };
        let has_uid = bound["uid"].as_str().is_some_and(|uid| !uid.is_empty());
        restriction::judge_token(node, pod.as_ref(), has_uid, &asked.audiences)
            .map_err(|why| Refusal::forbidden(&self.about(), why))
    }

    fn check_seconds(&self, seconds: i64) -> Result<(), Refusal> {
        let message = match seconds {
            ..SECONDS_MIN => "may not specify a duration less than 10 minutes",
            SECONDS_MIN..=SECONDS_MAX => return Ok(()),
            _ => "may not specify a duration larger than 2^32 seconds",
        };
        let mut about = self.about();
        about.kind = "TokenRequest".into();
        let message = format!("Invalid value: {seconds}: {message}");
        Err(Refusal::invalid_field(&about, "spec.expirationSeconds", FaultReason::Invalid, message))
    }

    /// A token ends with the object it is bound to, so that must be there.
    fn bind_token(&self, reference: &Tree, asked: &mut TokenAsked) -> Result<(), Refusal> {
        if reference.is_null() {
            return Ok(());
        }
        let text = |name: &str| reference[name].as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text("kind"), text("name"));
        let (gvr, namespace): (&Gvr, &str) = match kind.as_str() {
            "Pod" => (&kinds::POD, &asked.namespace),
            "Secret" => (&kinds::SECRET, &asked.namespace),
            "Node" => (&kinds::NODE, ""),
            other => {
                let message = format!("cannot bind token for serviceaccount to object of type {other}");
                return Err(Refusal::bad_request(message));
            }
        };
        let view = View(&self.inner.store);
        let about = crate::refusal::About {
            resource: gvr.plural.to_string(),
            name: name.clone(),
            ..Default::default()
        };
        let found = view.get(&Key::new(gvr, namespace, &name)).ok_or_else(|| Refusal::not_found(&about))?;
        let wanted = text("uid");
        if !wanted.is_empty() && wanted != found.uid() {
            let why = format!(
                "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
            );
            return Err(Refusal::new(Reason::Conflict, why).about(&about));
        }
        if kind == "Pod" {
            self.check_pod(&parse(found.bytes())?, asked)?;
        }
        asked.bound = Some((kind, name, found.uid().to_owned()));
        Ok(())
    }

    /// A pod's token is for the pod's own account, and says where the pod runs.
    fn check_pod(&self, pod: &Tree, asked: &mut TokenAsked) -> Result<(), Refusal> {
        let own = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if own != asked.account.0 {
            let message = format!(
                "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                asked.account.0
            );
            return Err(Refusal::bad_request(message));
        }
        if is_ending(pod) && pod["metadata"]["deletionGracePeriodSeconds"] == 0 {
            return Err(Refusal::bad_request("cannot bind token to a pod that is gone"));
        }
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if !node.is_empty() {
            let found = View(&self.inner.store).get(&Key::new(&kinds::NODE, "", node));
            let uid = found.map(|node| node.uid().to_owned()).unwrap_or_default();
            asked.node = Some((node.to_owned(), uid));
        }
        Ok(())
    }
}
