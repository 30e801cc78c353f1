//! Runs a seed.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::time::Duration;

use anyhow::Result;
use client::{ClientError, Deletion};
use model::Key;
use serde_json::json;

use super::plan::{Fault, Harm, Plan};
use crate::cluster::Cluster;
use crate::crew;
use crate::flaw::Flaw;
use crate::node::NodeSettings;
use crate::observe::text;
use crate::runtime::Ailment;
use crate::sandbox;
use crate::scenario::{Act, Outcome, Rest, apply, check_end, expand, unmet};

/// How long it takes at most, once faults have stopped, until everything is as its authors want it.
///
/// A container that crashed often waits up to a minute between restarts, a lost pod's toleration lasts five.
const REST_MAX: Duration = Duration::from_secs(1200);

/// The same in a world with a flaw, which need not get there.
const REST_FLAWED_MAX: Duration = Duration::from_secs(120);

/// For how long the cluster at rest is watched.
const REST_WATCHED: Duration = Duration::from_secs(20);

/// How long somebody tries to get a wish through to a server that may be away.
const WISH_TRIES_MAX: usize = 120;

/// How often a lease is renewed here: less often than in life, as most of a run would be leases.
const LEASE_EVERY: Duration = Duration::from_secs(5);

/// How long a lease lasts here, in seconds.
const LEASE_SECONDS: i32 = 20;

/// How long an affliction lasts.
const AFFLICTED_FOR: Duration = Duration::from_secs(5);

/// Runs a seed to its end.
pub fn run(seed: u64) -> Result<Outcome> {
    run_through(seed, None)
}

/// Runs a seed in a world with a flaw; whether the law with these words finds it, at which the run ends.
pub fn finds(seed: u64, flaw: Flaw, law: &'static str) -> Result<bool> {
    let outcome = run_through(seed, Some((flaw, law)))?;
    Ok(outcome.faults.iter().any(|fault| fault.contains(law)))
}

fn run_through(seed: u64, flaw: Option<(Flaw, &'static str)>) -> Result<Outcome> {
    let mut outcome = sandbox::run(play(seed, flaw))??;
    outcome.faults.extend(sandbox::take_panics().into_iter().map(|panic| format!("nothing panics: {panic}")));
    Ok(outcome)
}

/// Runs many seeds on so many threads; `tell` hears of each as it ends, and whether to go on is its answer.
pub fn run_all(
    seeds: Range<u64>,
    threads: usize,
    tell: impl Fn(u64, Result<Outcome>) -> ControlFlow<()> + Sync,
) {
    crew::each(seeds, threads, |seed| tell(seed, run(seed)));
}

async fn play(seed: u64, flaw: Option<(Flaw, &'static str)>) -> Result<Outcome> {
    let plan = Plan::of(seed);
    let settings =
        NodeSettings { lease_every: LEASE_EVERY, lease_seconds: LEASE_SECONDS, ..NodeSettings::default() };
    let nodes: BTreeMap<_, _> = plan.nodes.iter().map(|name| (name.clone(), settings.clone())).collect();
    let mut cluster = Cluster::start_flawed(seed, true, &nodes, flaw.map(|(flaw, _)| flaw)).await?;
    let book = cluster.book.clone();
    if let Some((_, law)) = flaw {
        book.end_at(law);
    }
    let over = book.over();
    let within = if flaw.is_some() { REST_FLAWED_MAX } else { REST_MAX };
    tokio::select! {
        biased;
        () = over => {}
        done = play_on(&plan, &mut cluster, within) => done?,
    }
    Ok(Outcome { timeline: book.timeline(), faults: book.faults() })
}

async fn play_on(plan: &Plan, cluster: &mut Cluster, within: Duration) -> Result<()> {
    for node in cluster.nodes.values() {
        node.line.lose_one_in(plan.lost_one_in);
        node.runtime.fail_one_in(plan.fails_one_in);
    }
    for (head, said) in &plan.workload {
        wish(cluster, head, said).await?;
    }
    let mut later = Vec::new();
    for (at, fault) in &plan.faults {
        cluster.pass_time(at.saturating_sub(cluster.book.since())).await;
        inflict(cluster, fault, &mut later).await?;
    }
    recover(cluster, &later).await?;
    check_end(cluster, Some(Rest { within, watched: REST_WATCHED })).await;
    cluster.book.look(unmet).into_iter().for_each(|fault| cluster.book.fault(fault));
    Ok(())
}

/// Gets what somebody wants through to the server.
async fn wish(cluster: &Cluster, head: &str, said: &model::Tree) -> Result<()> {
    for wanted in expand(head, said)? {
        let mut tries = 0;
        while let Err(error) = apply(&cluster.user, &wanted).await {
            tries += 1;
            let is_passing = error.is_passing() || matches!(error, ClientError::Conflict { .. });
            if !is_passing || tries >= WISH_TRIES_MAX {
                return Err(error.into());
            }
            cluster.pass_time(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}

async fn inflict(cluster: &mut Cluster, fault: &Fault, later: &mut Vec<String>) -> Result<()> {
    match fault {
        Fault::Act(text) => {
            cluster.book.line(&format!("do         {text}"));
            Act::read(text)?.perform(cluster).await?;
        }
        // A server that is away, or has no room, cannot be asked for anything: people try later, or never.
        Fault::Apply(head, said) if cluster.has_server() => {
            cluster.book.line(&format!("do         apply {head} {said}"));
            for wanted in expand(head, said)? {
                tolerate(apply(&cluster.user, &wanted).await)?;
            }
        }
        Fault::Remove(head) if cluster.has_server() => {
            cluster.book.line(&format!("do         remove {head}"));
            for wanted in expand(head, &json!({"service": 80}))? {
                let name = wanted.object["metadata"]["name"].as_str().unwrap_or_default();
                let key = Key::new(&wanted.gvr, wanted.namespace.as_str(), name);
                tolerate(cluster.user.delete(&key, &Deletion::default()).await.map(drop))?;
            }
        }
        Fault::Pod { place, evict } if cluster.has_server() => remove(cluster, *place, *evict).await?,
        Fault::Apply(..) | Fault::Remove(..) | Fault::Pod { .. } => {}
        Fault::Container { place, how } => harm(cluster, *place, *how, later),
    }
    Ok(())
}

fn tolerate(done: Result<(), ClientError>) -> Result<()> {
    match done {
        Err(error) if error.is_passing() => Ok(()),
        Err(ClientError::NotFound { .. } | ClientError::Conflict { .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// Deletes or evicts one of the pods.
async fn remove(cluster: &Cluster, place: u64, evict: bool) -> Result<()> {
    let pods: Vec<(String, Key)> = cluster.book.look(|sight| {
        let all = sight.all(&model::kinds::POD);
        let each = all.map(|(_, pod)| {
            let key =
                Key::new(&model::kinds::POD, text(pod, "metadata.namespace"), text(pod, "metadata.name"));
            (sight.called(pod), key)
        });
        each.collect()
    });
    let Some((alias, key)) = chosen(&pods, place) else { return Ok(()) };
    cluster.book.line(&format!("do         {} {alias}", if evict { "evict" } else { "delete pod" }));
    if evict {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": key.name, "namespace": key.namespace}});
        return tolerate(cluster.user.create_part(key, "eviction", &eviction).await.map(drop));
    }
    tolerate(cluster.user.delete(key, &Deletion::default()).await.map(drop))
}

fn chosen<T>(all: &[T], place: u64) -> Option<&T> {
    all.get(place.checked_rem(all.len() as u64)? as usize)
}

/// Harms what runs of one of the pods that the machines hold.
fn harm(cluster: &Cluster, place: u64, how: Harm, later: &mut Vec<String>) {
    let held = cluster.nodes.values().flat_map(|node| {
        node.runtime.inventory().into_iter().map(move |(uid, running)| (node, uid, running))
    });
    let held: Vec<_> = held.filter(|(_, _, running)| !running.is_empty()).collect();
    let Some((node, uid, running)) = chosen(&held, place) else { return };
    let alias = cluster.book.look(|sight| sight.aliases.of(uid).map(|named| named.alias.clone()));
    cluster.book.line(&format!("do         {how:?} {}", alias.unwrap_or_default()));
    match how {
        Harm::Exit(code) => drop(node.runtime.end(uid, &running[0], code, None)),
        Harm::MonitorLost => drop(node.runtime.lose_monitor(uid)),
        Harm::Unready => {
            node.runtime.afflict(uid, None, Ailment::Unready);
            later.push(uid.clone());
        }
    }
}

/// Ends all faults.
async fn recover(cluster: &mut Cluster, afflicted: &[String]) -> Result<()> {
    cluster.book.line("do         end all faults");
    cluster.set_room(u64::MAX);
    cluster.end_second_leader();
    cluster.start_server().await?;
    for node in cluster.nodes.values_mut() {
        node.line.heal();
        node.line.lose_one_in(0);
        node.runtime.fail_one_in(0);
        node.resume();
        node.power_on();
    }
    cluster.pass_time(AFFLICTED_FOR).await;
    for uid in afflicted {
        for node in cluster.nodes.values() {
            node.runtime.afflict(uid, None, Ailment::None);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_among_nothing_is_nothing() {
        assert_eq!((chosen::<u8>(&[], 7), chosen(&[1, 2, 3], 4)), (None, Some(&2)));
    }
}
