//! Who is asked whether something may be done, one after the other: the first who says yes or no is heard.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use host::{Host, Time};

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

/// Those who are asked, in their order. All who hold it hear when they change.
#[derive(Clone)]
pub struct Chain(Arc<Inner>);

struct Inner {
    /// Guards them for as long as it takes to clone or replace them.
    asked: RwLock<Arc<[Authorizer]>>,
    /// Guards how often they were to be replaced, while that is counted or told.
    reloads: Mutex<Reloads>,
}

/// How often they were to be replaced, and when last.
#[derive(Default)]
struct Reloads {
    done: Option<(u64, Time)>,
    failed: Option<(u64, Time)>,
}

impl Default for Chain {
    /// Nodes' own rules and the stored roles.
    fn default() -> Self {
        Self::new(vec![Authorizer::Node, Authorizer::Rbac])
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
        Self(Arc::new(Inner { asked: RwLock::new(authorizers.into()), reloads: Mutex::default() }))
    }

    /// Asks these from now on; counts when those that should take their place cannot.
    pub fn replace(&self, authorizers: Option<Vec<Authorizer>>, now: Time) {
        let mut reloads = self.0.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = match authorizers {
            Some(authorizers) => {
                *self.0.asked.write().unwrap_or_else(PoisonError::into_inner) = authorizers.into();
                &mut reloads.done
            }
            None => &mut reloads.failed,
        };
        *counted = Some((counted.map_or(1, |(count, _)| count + 1), now));
    }

    /// What `/metrics` tells of replacements, once there was one to tell of.
    pub fn metrics(&self) -> String {
        const NAME: &str = "apiserver_authorization_config_controller_automatic_reload";
        let reloads = self.0.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        let told = [("success", reloads.done), ("failure", reloads.failed)];
        let told: Vec<_> = told.into_iter().filter_map(|(status, told)| Some((status, told?))).collect();
        if told.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "# HELP {NAME}s_total Reloads of the file that says who is asked what may be done.\n# TYPE {NAME}s_total counter\n"
        );
        for (status, (count, _)) in &told {
            text += &format!("{NAME}s_total{{status=\"{status}\"}} {count}\n");
        }
        text += &format!(
            "# HELP {NAME}_last_timestamp_seconds When it was last reloaded.\n# TYPE {NAME}_last_timestamp_seconds gauge\n"
        );
        for (status, (_, at)) in &told {
            text += &format!("{NAME}_last_timestamp_seconds{{status=\"{status}\"}} {}\n", at.as_second());
        }
        text
    }

    fn asked(&self) -> Arc<[Authorizer]> {
        self.0.asked.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody outside is among them.
    pub fn asks_others(&self) -> bool {
        self.asked().iter().any(|one| matches!(one, Authorizer::Webhook(_)))
    }

    /// What comes of asking those inside by `own`; a webhook among them would have to be asked, and counts as one that denies.
    pub fn decide(&self, who: &Identity, own: impl Fn(&Authorizer) -> Opinion) -> Decision {
        if who.is_in(MASTERS) {
            return Decision { allowed: true, ..Decision::default() };
        }
        let mut heard = Heard::default();
        for one in self.asked().iter() {
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
        for one in self.asked().iter() {
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
    fn all_who_hold_it_hear_when_it_changes_and_what_cannot_be_is_counted() {
        let chain = Chain::default();
        let held = chain.clone();
        let may = |chain: &Chain| {
            chain.decide(&Identity::user("ann", &[]), |_| Opinion::Allow(String::new())).allowed
        };
        assert!(may(&held) && held.metrics().is_empty());
        let at = |second| Time::from_second(second).expect("a fixed time");
        chain.replace(None, at(7));
        chain.replace(None, at(8));
        assert!(may(&held), "what cannot be changes nothing");
        chain.replace(Some(Vec::new()), at(9));
        assert!(!may(&held));
        let told = held.metrics();
        let name = "apiserver_authorization_config_controller_automatic_reload";
        for line in [
            "s_total{status=\"success\"} 1",
            "s_total{status=\"failure\"} 2",
            "_last_timestamp_seconds{status=\"success\"} 9",
            "_last_timestamp_seconds{status=\"failure\"} 8",
        ] {
            assert!(told.lines().any(|one| one == format!("{name}{line}")), "{line}: {told}");
        }
    }

    #[test]
    fn those_who_may_everything_ask_nobody() {
        let told = Chain::new(vec![Authorizer::AlwaysDeny])
            .decide(&Identity::user("root", &[MASTERS]), |_| Opinion::Deny("never".into()));
        assert!(told.allowed);
    }
}
