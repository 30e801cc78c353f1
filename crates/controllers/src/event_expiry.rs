//! Events: what was told is forgotten an hour after it was last told, so that they cannot fill the store.

use model::kinds::of;
use model::{Controller, Key, Object, Plan, Precondition, Time, World, time};

/// How long an Event is kept after it was last told, in seconds: upstream's default `--event-ttl`.
pub const KEPT_SECONDS: i64 = 3600;

/// The controller.
pub static CONTROLLER: Controller =
    Controller { name: "event-expiry-controller", primary: of::EVENT, also: &[], reconcile };

/// Decides on one Event.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(event) = world.get(key).filter(|event| !event.is_ending()) else { return plan };
    let ends = time::after_seconds(last_told(&event), KEPT_SECONDS);
    if now < ends {
        plan.wake(ends);
    } else {
        plan.delete(key.clone(), Precondition::exactly(&event), "told more than an hour ago");
    }
    plan
}

/// The latest time that an Event names.
fn last_told(event: &Object) -> Time {
    let created = event.meta().creation_timestamp.unwrap_or(Time::UNIX_EPOCH);
    let Ok(tree) = event.tree() else { return created };
    let named = [&tree["lastTimestamp"], &tree["eventTime"], &tree["series"]["lastObservedTime"]];
    let named = named.into_iter().filter_map(|value| time::parse(value.as_str()?).ok());
    named.fold(created, Time::max)
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    #[test]
    fn an_event_goes_an_hour_after_it_was_last_told() {
        let decide = |world: &dyn World, now| reconcile(&Key::new(&of::EVENT, "shop", "e"), world, now);
        check("events shop/e created@10", 100, decide, "wake 3610s");
        check("events shop/e created@10", 3610, decide, "delete events shop/e  # told more than an hour ago");
        check("", 3610, decide, "");
    }
}
