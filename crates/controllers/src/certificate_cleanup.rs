//! CertificateSigningRequests: what is over is forgotten after an hour, what nobody answers after a day.
//!
//! A certificate that was issued is in its owner's hands by then; the request is of no more use to anyone.

use model::kinds::of;
use model::{Controller, Key, Object, Plan, Precondition, Time, Tree, World, time};

/// How long a request is kept after it was approved, denied, or found impossible, in seconds: upstream's hour.
const ANSWERED_SECONDS: i64 = 3600;
/// How long a request waits for somebody to answer it, in seconds: upstream's day.
const PENDING_SECONDS: i64 = 24 * 3600;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "certificatesigningrequest-cleaner-controller",
    primary: of::CERTIFICATE_SIGNING_REQUEST,
    also: &[],
    reconcile,
};

/// Decides on one request.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(request) = world.get(key).filter(|request| !request.is_ending()) else { return plan };
    let (since, kept, why) = match answered(&request) {
        Some((since, why)) => (since, ANSWERED_SECONDS, why),
        None => (
            request.meta().creation_timestamp.unwrap_or(now),
            PENDING_SECONDS,
            "nobody answered it for a day",
        ),
    };
    let ends = time::after_seconds(since, kept);
    if now < ends {
        plan.wake(ends);
    } else {
        plan.delete(key.clone(), Precondition::exactly(&request), why);
    }
    plan
}

/// Since when a request is answered, and how.
fn answered(request: &Object) -> Option<(Time, &'static str)> {
    let tree = request.tree().ok()?;
    let conditions = tree["status"]["conditions"].as_array()?;
    // Failed comes after approved, so the last word counts first.
    let words = [
        ("Failed", "it failed more than an hour ago"),
        ("Denied", "it was denied more than an hour ago"),
        ("Approved", "it was approved more than an hour ago"),
    ];
    let found = words.iter().find_map(|(word, why)| {
        let condition = conditions.iter().find(|condition| condition["type"] == *word)?;
        Some((said_at(condition), *why))
    });
    let (at, why) = found?;
    Some((at.or(request.meta().creation_timestamp)?, why))
}

fn said_at(condition: &Tree) -> Option<Time> {
    ["lastUpdateTime", "lastTransitionTime"]
        .iter()
        .find_map(|name| time::parse(condition[*name].as_str()?).ok())
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&of::CERTIFICATE_SIGNING_REQUEST, "", "r"), world, now)
    }

    fn request(word: &str) -> String {
        format!(
            r#"certificatesigningrequests r created@10 status.conditions=[{{"type":"{word}","status":"True","lastUpdateTime":"1970-01-01T00:01:40Z"}}]"#
        )
    }

    #[test]
    fn a_request_that_nobody_answers_waits_a_day() {
        let pending = "certificatesigningrequests r created@10";
        check(pending, 100, decide, "wake 86410s");
        check(pending, 86_410, decide, "delete certificatesigningrequests r  # nobody answered it for a day");
        check("", 86_410, decide, "");
    }

    #[test]
    fn an_answered_request_goes_after_an_hour() {
        for (word, why) in [("Approved", "was approved"), ("Denied", "was denied"), ("Failed", "failed")] {
            check(&request(word), 200, decide, "wake 3700s");
            let gone = format!("delete certificatesigningrequests r  # it {why} more than an hour ago");
            check(&request(word), 3700, decide, &gone);
        }
    }
}
