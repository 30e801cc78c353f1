//! `authorizer` in expressions, answered by the guard.

use cel::{Authorizer, Question};

use crate::auth::{Attributes, Identity};
use crate::guard::Guard;

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
