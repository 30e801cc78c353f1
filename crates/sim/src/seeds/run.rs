//! Runs a seed.

use std::ops::{ControlFlow, Range};
use std::time::Duration;

use anyhow::Result;
use client::{ClientError, Deletion, PatchKind};
use model::fence::Terms;
use model::{Key, Precondition, Tree, kinds};
use serde_json::json;

use super::plan::{Fault, Harm, Plan};
use crate::cluster::{Beginning, Cluster};
use crate::crew;
use crate::flaw::Flaw;
use crate::mutation::{LAWS, Mutation};
use crate::node::NodeSettings;
use crate::observe::{Sight, condition, items, text};
use crate::runtime::Ailment;
use crate::sandbox;
use crate::scenario::{Act, Outcome, Rest, apply, check_end, expand, unmet};
use crate::wire::Noise;

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

/// For how long a machine without a lease is waited for until an operator says that its disk is gone: longer than the
/// votes of others take.
const WORD_AFTER: Duration = Duration::from_secs(60);

/// For how long the operator's word stands: a lease ends within one look.
const WORD_STANDS: Duration = Duration::from_secs(10);

/// How long an affliction lasts.
const AFFLICTED_FOR: Duration = Duration::from_secs(5);

/// Runs a seed to its end.
pub fn run(seed: u64) -> Result<Outcome> {
    run_through(Plan::of(seed), seed, None)
}

/// Runs a seed in a world with a flaw; what finds it of the laws with these words, at the first of which the run ends.
pub fn finds(seed: u64, flaw: Flaw, laws: &'static [&'static str]) -> Result<Option<String>> {
    let outcome = run_through(Plan::of(seed), seed, Some((flaw, laws)))?;
    Ok(found(outcome, laws))
}

/// The same with a plan that tries the fence.
pub fn finds_in_fence(seed: u64, mutation: Mutation) -> Result<Option<String>> {
    let outcome = run_through(Plan::of_fence(seed), seed, Some((Flaw::Fence(mutation), LAWS)))?;
    Ok(found(outcome, LAWS))
}

fn found(outcome: Outcome, laws: &[&str]) -> Option<String> {
    outcome.faults.into_iter().find(|fault| laws.iter().any(|law| fault.contains(law)))
}

/// Runs a seed with a plan that tries the fence.
pub fn run_fence(seed: u64) -> Result<Outcome> {
    run_through(Plan::of_fence(seed), seed, None)
}

fn run_through(plan: Plan, seed: u64, flaw: Wrong) -> Result<Outcome> {
    let mut outcome = sandbox::run(play(plan, seed, flaw))??;
    outcome.faults.extend(sandbox::take_panics().into_iter().map(|panic| format!("nothing panics: {panic}")));
    Ok(outcome)
}

/// Runs many seeds on so many threads, by [`run`] or [`run_fence`]; `tell` hears of each as it ends, and whether to go on
/// is its answer.
pub fn run_all(
    seeds: Range<u64>,
    threads: usize,
    run: fn(u64) -> Result<Outcome>,
    tell: impl Fn(u64, Result<Outcome>) -> ControlFlow<()> + Sync,
) {
    crew::each(seeds, threads, |seed| tell(seed, run(seed)));
}

/// What is wrong with the world, and words of the laws that find it.
type Wrong = Option<(Flaw, &'static [&'static str])>;

async fn play(plan: Plan, seed: u64, flaw: Wrong) -> Result<Outcome> {
    let nodes = plan.nodes.iter().map(|(name, drift)| (name.clone(), settings(&plan, *drift)));
    let beginning = Beginning {
        seed,
        jitters: true,
        drift: plan.drift,
        flaw: flaw.map(|(flaw, _)| flaw),
        ..Beginning::default()
    };
    let mut cluster = Cluster::start(beginning, &nodes.collect()).await?;
    let book = cluster.book.clone();
    if let Some((_, laws)) = flaw {
        book.end_at(laws);
    }
    let over = book.over();
    let within = if flaw.is_some() { REST_FLAWED_MAX } else { REST_MAX };
    tokio::select! {
        biased;
        () = over => {}
        done = play_on(&plan, &mut cluster, within) => done?,
    }
    Ok(Outcome { timeline: book.timeline(), faults: book.faults(), happened: book.all_happened() })
}

fn settings(plan: &Plan, drift: i32) -> NodeSettings {
    let lease = Duration::from_secs(plan.lease_seconds.into());
    NodeSettings {
        lease_every: Terms::LAN.of_lease(lease).renewal(),
        lease_seconds: plan.lease_seconds.cast_signed(),
        drift,
        ..NodeSettings::default()
    }
}

async fn play_on(plan: &Plan, cluster: &mut Cluster, within: Duration) -> Result<()> {
    for node in cluster.nodes.values() {
        node.line.suffer(plan.noise);
        node.runtime.fail_one_in(plan.fails_one_in);
    }
    if plan.nodes.values().any(|drift| *drift != plan.drift) {
        cluster.book.happened("clocks drift");
    }
    for (head, said) in &plan.workload {
        wish(cluster, head, said).await?;
    }
    let mut later = Vec::new();
    for (at, fault) in &plan.faults {
        cluster.pass_time(at.saturating_sub(cluster.book.since())).await;
        inflict(plan, cluster, fault, &mut later).await?;
    }
    recover(cluster, &later).await?;
    speak(plan, cluster).await?;
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

async fn inflict(plan: &Plan, cluster: &mut Cluster, fault: &Fault, later: &mut Vec<String>) -> Result<()> {
    match fault {
        // What has left cannot be harmed.
        Fault::Act(text) if text.split_whitespace().any(|word| has_left(plan, cluster, word)) => {}
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
        Fault::Join(name) => {
            cluster.book.line(&format!("do         join {name}"));
            let drift = plan.joining.get(name).copied().unwrap_or(0);
            cluster.join(name, settings(plan, drift));
            cluster.book.happened("machine came");
            let node = cluster.node(name)?;
            node.line.suffer(plan.noise);
            node.runtime.fail_one_in(plan.fails_one_in);
        }
        Fault::Leave(name) => {
            cluster.book.line(&format!("do         leave {name}"));
            cluster.leave(name)?;
            cluster.book.happened("machine left");
            unregister(cluster, name).await?;
        }
        Fault::Unregister(name) => {
            cluster.book.line(&format!("do         delete node {name}"));
            cluster.book.happened("Node deleted");
            unregister(cluster, name).await?;
        }
        Fault::Pod { place, evict } if cluster.has_server() => remove(cluster, *place, *evict).await?,
        Fault::Apply(..) | Fault::Remove(..) | Fault::Pod { .. } => {}
        Fault::Container { place, how } => harm(cluster, *place, *how, later),
    }
    Ok(())
}

fn has_left(plan: &Plan, cluster: &Cluster, name: &str) -> bool {
    plan.nodes.contains_key(name) && !cluster.nodes.contains_key(name)
}

async fn unregister(cluster: &Cluster, name: &str) -> Result<()> {
    if !cluster.has_server() {
        return Ok(());
    }
    let key = Key::new(&kinds::NODE, "", name);
    tolerate(cluster.user.delete(&key, &Deletion::default()).await.map(drop))
}

/// What people have to say once all is well again: which machines are gone for good, and whose disk is.
async fn speak(plan: &Plan, cluster: &Cluster) -> Result<()> {
    for name in plan.nodes.keys().filter(|name| has_left(plan, cluster, name)) {
        unregister(cluster, name).await?;
    }
    cluster.pass_time(WORD_AFTER).await;
    let is_left = |sight: &Sight, name: &str| sight.get(&kinds::LEASE, "kube-node-lease", name).is_some();
    let gone = plan.nodes.keys().filter(|name| has_left(plan, cluster, name));
    let gone: Vec<&String> = gone.filter(|name| cluster.book.look(|sight| is_left(sight, name))).collect();
    for name in &gone {
        // Its own voice was needed. The word about a machine needs a Node that it can be written on.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        cluster.user.create(&kinds::NODE, "", &node).await?;
    }
    if !gone.is_empty() {
        cluster.pass_time(WORD_STANDS).await;
    }
    let waits: Vec<String> = cluster.book.look(|sight| {
        let silent = sight.all(&kinds::NODE).filter(|(_, node)| condition(node, "Ready") != "True");
        silent.map(|(_, node)| text(node, "metadata.name").to_owned()).collect()
    });
    for name in waits {
        cluster.book.line(&format!("do         say that {name} is out of service"));
        cluster.book.happened("operator's word");
        let key = Key::new(&kinds::NODE, "", name.as_str());
        let taint = json!({"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"});
        retaint(cluster, &key, |taints| taints.push(taint.clone())).await?;
        cluster.pass_time(WORD_STANDS).await;
        retaint(cluster, &key, |taints| taints.retain(|one| one["key"] != taint["key"])).await?;
    }
    for name in gone {
        unregister(cluster, name).await?;
    }
    Ok(())
}

/// Changes the taints of a Node.
async fn retaint(cluster: &Cluster, key: &Key, change: impl Fn(&mut Vec<Tree>)) -> Result<()> {
    for _ in 0..WISH_TRIES_MAX {
        let node = cluster.user.get(key).await?;
        let mut taints: Vec<Tree> = items(&node.tree()?, "spec.taints").cloned().collect();
        change(&mut taints);
        let when = Precondition::exactly(&node);
        let patch = json!({"spec": {"taints": taints}});
        match cluster.user.patch(key, "", PatchKind::Merge, &patch, &when).await {
            Err(ClientError::Conflict { .. }) => {}
            other => return Ok(other.map(drop)?),
        }
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
    cluster.book.happened(match how {
        Harm::Exit(_) => "container ended",
        Harm::MonitorLost => "monitor lost",
        Harm::Unready => "container unready",
    });
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
    cluster.resume_server(0);
    cluster.start_server(0).await?;
    for node in cluster.nodes.values_mut() {
        node.line.heal();
        node.line.suffer(Noise::default());
        node.runtime.fail_one_in(0);
        node.resume();
        node.thaw();
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
