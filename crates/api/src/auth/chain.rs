//! Who is asked whether something may be done, one after the other: the first who says yes or no is heard.

use std::sync::Arc;

use host::Host;

use super::outside::{AccessWebhook, Opinion};
use super::{Attributes, Decision, Identity, MASTERS};

/// One of those who are asked.
#[derive(Clone)]
pub enum Authorizer {
    /// The rules of nodes' agents.
    Node,
    /// The stored roles.
    Rbac,
    /// Somebody who allows everything.
    AlwaysAllow,
    /// Somebody who forbids everything.
    AlwaysDeny,
    /// A webhook.
    Webhook(Arc<AccessWebhook>),
}

/// Those who are asked, in their order.
#[derive(Clone)]
pub struct Chain(Vec<Authorizer>);

impl Default for Chain {
    /// Nodes' own rules and the stored roles.
    fn default() -> Self {
        Self(vec![Authorizer::Node, Authorizer::Rbac])
    }
}

/// What was said so far.
#[derive(Default)]
struct Heard {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Heard {
    /// Hears an opinion; gives the decision that it is, where it is one.
    fn hear(&mut self, opinion: Opinion) -> Option<Decision> {
        match opinion {
            Opinion::Allow(reason) => Some(Decision { allowed: true, reason, error: String::new() }),
            Opinion::Deny(reason) => {
                self.reasons.push(reason);
                Some(self.denied())
            }
            Opinion::None(reason) => {
                self.reasons.push(reason);
                None
            }
            Opinion::Failed { why, denies } => {
                self.errors.push(why);
                denies.then(|| self.denied())
            }
        }
    }

    fn denied(&mut self) -> Decision {
        let joined = |texts: &mut Vec<String>, between: &str| {
            texts.retain(|text| !text.is_empty());
            texts.join(between)
        };
        Decision {
            allowed: false,
            reason: joined(&mut self.reasons, "\n"),
            error: joined(&mut self.errors, ", "),
        }
    }
}

impl Chain {
    /// These, in this order.
    pub fn new(authorizers: Vec<Authorizer>) -> Self {
        Self(authorizers)
    }

    /// Whether somebody outside is among them.
    pub fn asks_others(&self) -> bool {
        self.0.iter().any(|one| matches!(one, Authorizer::Webhook(_)))
    }

    /// What comes of asking those inside by `own`; a webhook among them would have to be asked, and counts as one that denies.
    pub fn decide(&self, who: &Identity, own: impl Fn(&Authorizer) -> Opinion) -> Decision {
        if who.is_in(MASTERS) {
            return Decision { allowed: true, ..Decision::default() };
        }
        let mut heard = Heard::default();
        for one in &self.0 {
            let opinion = match one {
                Authorizer::Webhook(_) => Opinion::Deny("a webhook would have to be asked".to_owned()),
                inside => own(inside),
            };
            if let Some(decision) = heard.hear(opinion) {
                return decision;
            }
        }
        heard.denied()
    }

    /// What comes of asking all of them.
    pub async fn ask(
        &self,
        host: &Host,
        who: &Identity,
        what: &Attributes,
        own: impl Fn(&Authorizer) -> Opinion,
    ) -> Decision {
        if who.is_in(MASTERS) {
            return Decision { allowed: true, ..Decision::default() };
        }
        let mut heard = Heard::default();
        for one in &self.0 {
            let opinion = match one {
                Authorizer::Webhook(webhook) => webhook.opinion(host, who, what).await,
                inside => own(inside),
            };
            if let Some(decision) = heard.hear(opinion) {
                return decision;
            }
        }
        heard.denied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_who_says_yes_or_no_is_heard() {
        let check = |node: Opinion, rbac: Opinion, wanted: (bool, &str, &str)| {
            let own = |one: &Authorizer| match one {
                Authorizer::Node => node.clone(),
                _ => rbac.clone(),
            };
            let told = Chain::default().decide(&Identity::user("ann", &[]), own);
            assert_eq!((told.allowed, told.reason.as_str(), told.error.as_str()), wanted);
        };
        let allow = || Opinion::Allow("a role".into());
        let none = |why: &str| Opinion::None(why.into());
        let failed = |denies: bool| Opinion::Failed { why: "away".into(), denies };
        check(none("no node"), allow(), (true, "a role", ""));
        check(Opinion::Deny("never".into()), allow(), (false, "never", ""));
        check(none("no node"), none("no role"), (false, "no node\nno role", ""));
        check(none(""), none(""), (false, "", ""));
        check(failed(false), allow(), (true, "a role", ""));
        check(failed(true), allow(), (false, "", "away"));
        check(failed(false), none("no role"), (false, "no role", "away"));
    }

    #[test]
    fn those_who_may_everything_ask_nobody() {
        let told = Chain::new(vec![Authorizer::AlwaysDeny])
            .decide(&Identity::user("root", &[MASTERS]), |_| Opinion::Deny("never".into()));
        assert!(told.allowed);
    }
}
