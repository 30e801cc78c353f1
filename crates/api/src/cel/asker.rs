//! `authorizer` in expressions, answered by the guard.

use cel::{Authorizer, Question};

use crate::auth::{Attributes, Identity};
use crate::guard::Guard;
use crate::request::required_fields;

/// Asks the guard what somebody may do.
pub struct Asker<'a> {
    /// Who answers.
    pub guard: &'a dyn Guard,
    /// About whom, unless an expression names a service account.
    pub identity: &'a Identity,
}

impl Authorizer for Asker<'_> {
    fn decide(&self, question: &Question) -> Result<(bool, String), String> {
        let account = question.account.as_ref().map(|(namespace, name)| {
            let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
            Identity::user(format!("system:serviceaccount:{namespace}:{name}"), &groups)
        });
        let attributes = if question.path.is_empty() {
            Attributes {
                verb: question.verb.clone(),
                group: question.group.clone(),
                version: "*".into(),
                resource: question.resource.clone(),
                subresource: question.subresource.clone(),
                namespace: question.namespace.clone(),
                name: question.name.clone(),
                // Labels decide nothing here: neither roles nor nodes' own rules ask for them.
                fields: required_fields(&question.fields),
                ..Attributes::default()
            }
        } else {
            Attributes { verb: question.verb.clone(), path: question.path.clone(), ..Attributes::default() }
        };
        let decision = self.guard.may(account.as_ref().unwrap_or(self.identity), &attributes);
        Ok((decision.allowed, decision.reason))
    }

    fn user(&self) -> String {
        self.identity.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use model::{Time, Tree};

    use super::*;
    use crate::auth::Decision;
    use crate::guard::{AllowAll, TokenAsked, TokenIssued};
    use crate::refusal::Refusal;

    /// Allows what is asked for one node's pods.
    struct OfOneNode;

    impl Guard for OfOneNode {
        fn may(&self, _who: &Identity, what: &Attributes) -> Decision {
            Decision { allowed: what.requires("spec.nodeName") == Some("a"), ..Decision::default() }
        }

        fn rules_of(&self, who: &Identity, namespace: &str) -> Tree {
            AllowAll.rules_of(who, namespace)
        }

        fn issue(&self, asked: &TokenAsked, now: Time) -> Result<TokenIssued, Refusal> {
            AllowAll.issue(asked, now)
        }

        fn review(
            &self,
            token: &str,
            audiences: &[String],
            now: Time,
        ) -> Result<(Identity, Vec<String>), String> {
            AllowAll.review(token, audiences, now)
        }
    }

    #[test]
    fn a_question_is_asked_with_its_selector_and_without_one_that_cannot_be_read() {
        let asker = Asker { guard: &OfOneNode, identity: &Identity::default() };
        let allowed = |fields: &str| {
            let question = Question { resource: "pods".into(), fields: fields.into(), ..Question::default() };
            asker.decide(&question).is_ok_and(|(allowed, _)| allowed)
        };
        assert!(allowed("spec.nodeName=a"));
        assert!(!allowed("spec.nodeName!=a"));
        assert!(!allowed("spec.nodeName=a,rubbish"));
    }
}
