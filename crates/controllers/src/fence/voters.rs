//! Who votes: keeps the newest set of voters such that the dead leave it and majorities do not wither.

use std::collections::BTreeMap;

use model::fence::{MEMBERS_MAX, Member, Record, SERVER, SetBody, State, VoterSet, choose};
use model::kinds::{LEASE, NODE, VOTER_SET, of};
use model::{Controller, Key, Object, Plan, Precondition, Time, Watch, World};
use serde_json::json;

use super::overdue_at;
use crate::node_lifecycle::LEASES;

/// How many sets are kept. Leases carry their own; old ones are for people to look at.
const SETS_KEPT: u64 = 5;

/// The label that says in which zone a node is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// The key by which the set is looked at: there is one decision for the cluster.
const THE_SET: &str = "newest";

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "voter-set-controller",
    primary: of::VOTER_SET,
    also: &[Watch { gvr: of::LEASE, wakes: of_lease }, Watch { gvr: of::NODE, wakes: of_node }],
    reconcile,
};

/// Renewals come every second from every node: only those of nodes that may change the set wake anyone.
fn of_lease(lease: &Object, world: &dyn World) -> Vec<Key> {
    if lease.namespace() != LEASES {
        return Vec::new();
    }
    let Some(record) = Record::read(lease) else { return Vec::new() };
    let member = Member { host: lease.name().to_owned(), incarnation: record.incarnation };
    let newest = newest(world);
    let is_in = newest.as_ref().is_some_and(|set| set.voters.contains(&member));
    let has_room = newest.as_ref().is_none_or(|set| set.voters.len() < MEMBERS_MAX);
    let is_held = record.state == State::Held;
    let concerns = if is_in { !is_held } else { is_held && (has_room || is_server(lease)) };
    if concerns { the_set() } else { Vec::new() }
}

/// A node that falls silent or is heard of again.
fn of_node(node: &Object, world: &dyn World) -> Vec<Key> {
    let is_silent = is_silent(node);
    let newest = newest(world);
    let is_in = newest.is_some_and(|set| set.voters.iter().any(|voter| voter.host == node.name()));
    if is_in == is_silent { the_set() } else { Vec::new() }
}

fn the_set() -> Vec<Key> {
    vec![Key::new(&VOTER_SET, "", THE_SET)]
}

fn is_silent(node: &Object) -> bool {
    let tree = node.tree().unwrap_or_default();
    let conditions = tree["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "Unknown")
}

fn is_server(lease: &Object) -> bool {
    lease.meta().annotations.contains_key(SERVER)
}

fn sets(world: &dyn World) -> Vec<VoterSet> {
    let all = world.list(&VOTER_SET, "");
    all.iter().filter_map(|set| set.view::<SetBody>().ok()).map(|body| body.spec).collect()
}

fn newest(world: &dyn World) -> Option<VoterSet> {
    sets(world).into_iter().max_by_key(|set| set.number)
}

/// Decides on the newest set.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    if key.name != THE_SET {
        return plan;
    }
    let zones: BTreeMap<String, String> = world
        .list(&NODE, "")
        .iter()
        .map(|node| {
            (node.name().to_owned(), node.meta().labels.get(ZONE).map(str::to_owned).unwrap_or_default())
        })
        .collect();
    // It may grow while nodes run, not shrink: a node may still count with the longer one.
    let (mut servers, mut others, mut lease) = (Vec::new(), Vec::new(), world.terms().lease);
    for object in world.list(&LEASE, LEASES) {
        let Some(record) = Record::read(&object).filter(|record| record.state == State::Held) else {
            continue;
        };
        let place = Key::new(&LEASE, LEASES, object.name());
        let member = Member { host: object.name().to_owned(), incarnation: record.incarnation.clone() };
        lease = lease.max(record.set.lease());
        match (is_server(&object), overdue_at(&place, &object, &record, world) <= now) {
            (true, is_silent) => servers.push((is_silent, member)),
            (false, false) => {
                let zone = zones.get(&member.host).cloned().unwrap_or_default();
                others.push((member, zone));
            }
            (false, true) => {}
        }
    }
    // Servers that are not heard of leave too, but not the last one: it is this one, whatever its host's agent is.
    if servers.iter().any(|(is_silent, _)| !is_silent) {
        servers.retain(|(is_silent, _)| !is_silent);
    }
    let servers: Vec<Member> = servers.into_iter().map(|(_, member)| member).collect();
    if servers.is_empty() && others.is_empty() {
        return plan;
    }
    let known = sets(world);
    let last = known.iter().max_by_key(|set| set.number);
    let wanted = choose(&servers, &others, last.map_or(1, |set| set.number + 1), lease);
    if last.is_none_or(|last| !last.is_like(&wanted)) {
        let name = name(wanted.number);
        let set = json!({
            "apiVersion": "healing.kintsugi.dev/v1alpha1", "kind": "VoterSet",
            "metadata": {"name": name}, "spec": wanted,
        });
        plan.create(&VOTER_SET, "", set, "who votes changed");
    }
    let oldest = last.map_or(0, |last| last.number.saturating_sub(SETS_KEPT));
    for old in known.iter().filter(|set| set.number < oldest) {
        plan.delete(
            Key::new(&VOTER_SET, "", name(old.number)),
            Precondition::default(),
            "newer ones are there",
        );
    }
    plan
}

fn name(number: u64) -> String {
    format!("set-{number}")
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&the_set()[0], world, now)
    }

    fn lease(node: &str, created: i64, state: &str, more: &str) -> String {
        let set = format!(
            r#"{{\"number\":0,\"voters\":[{{\"host\":\"{node}\",\"incarnation\":\"i-{node}\"}}],\"leaseMillis\":4000}}"#
        );
        format!(
            r#"leases kube-node-lease/{node} created@{created} metadata.annotations={{"healing.kintsugi.dev/epoch":"7","healing.kintsugi.dev/incarnation":"i-{node}","healing.kintsugi.dev/voters":"{set}","healing.kintsugi.dev/lease-state":"{state}"{more}}}
            "#
        )
    }

    #[test]
    fn those_who_are_heard_of_vote_and_the_servers_host_breaks_ties() {
        let server = r#","healing.kintsugi.dev/server":"true""#;
        let world = format!(
            "{}{}{}{}",
            lease("a", 10, "Held", server),
            lease("b", 10, "Held", ""),
            lease("c", 2, "Held", ""),
            lease("d", 10, "Lost", "")
        );
        check(
            &world,
            11,
            decide,
            r#"create votersets set-1 {"spec":{"number":1,"tieBreaker":"a","leaseMillis":4000,"voters":[{"host":"a","incarnation":"i-a"},{"host":"b","incarnation":"i-b"}]}}"#,
        );
        let there = r#"votersets set-1 spec.number=1 spec.tieBreaker=a spec.leaseMillis=4000 spec.voters=[{"host":"a","incarnation":"i-a"},{"host":"b","incarnation":"i-b"}]"#;
        check(&format!("{world}{there}"), 11, decide, "");
        check("", 11, decide, "");
    }
}
