//! Which of the nodes that can take a pod is best: from 0 to 100 for each aspect, weighed and summed.

use std::collections::BTreeMap;

use model::fit;

use crate::cluster::{self, Cluster, Place, Resident};
use crate::{neighbours, spread};

/// The best score of an aspect.
const BEST: i64 = 100;

// How much the aspects count, as users know it: a taint that is only a wish outweighs everything else.
// A node on which a pod like it kept failing is taken where no other will do: that counts more than all the rest.
const AVOIDED: i64 = 12;
const TAINTS: i64 = 3;
const AFFINITY: i64 = 2;
const SPREAD: i64 = 2;
const NEIGHBOURS: i64 = 2;
const ROOM: i64 = 1;
const BALANCE: i64 = 1;

/// The index of the best of the places at `candidates`; among equals the one with the fewest pods, then the first name.
pub fn best(pod: &Resident, cluster: &Cluster<'_>, candidates: &[usize]) -> Option<usize> {
    if let [only] = candidates {
        return Some(*only);
    }
    let at = |index: &usize| &cluster.places[*index];
    let taints = raised(candidates.iter().map(|index| -wards_off(pod, at(index))).collect());
    let affinity = scaled(candidates.iter().map(|index| prefers(pod, at(index))).collect());
    let liking = neighbours::liking(pod, cluster);
    let liking = raised(candidates.iter().map(|index| liking[*index]).collect());
    let crowd = raised(
        crowd(pod, cluster)
            .into_iter()
            .enumerate()
            .filter_map(|(index, crowd)| candidates.contains(&index).then_some(-crowd))
            .collect(),
    );
    let score = |nth: usize, index: &usize| {
        let (room, balance) = room(pod, at(index));
        let is_avoided =
            at(index).node.avoided.iter().any(|one| one.counts(cluster.now) && one.concerns(&pod.object));
        AVOIDED * if is_avoided { 0 } else { BEST }
            + TAINTS * taints[nth]
            + AFFINITY * affinity[nth]
            + NEIGHBOURS * liking[nth]
            + SPREAD * crowd[nth]
            + ROOM * room
            + BALANCE * balance
    };
    let scored = candidates.iter().enumerate().map(|(nth, index)| (score(nth, index), index));
    let best = scored.max_by_key(|(score, index)| {
        (*score, std::cmp::Reverse(at(index).pods.len()), std::cmp::Reverse(**index))
    });
    best.map(|(_, index)| *index)
}

/// From 0 for the worst to [`BEST`] for the best; all the best when they are equal.
fn raised(values: Vec<i64>) -> Vec<i64> {
    let (low, high) = (values.iter().min().copied().unwrap_or(0), values.iter().max().copied().unwrap_or(0));
    let one = |value: i64| if high == low { BEST } else { BEST * (value - low) / (high - low) };
    values.into_iter().map(one).collect()
}

/// In proportion to the highest.
fn scaled(values: Vec<i64>) -> Vec<i64> {
    let high = values.iter().max().copied().unwrap_or(0);
    values.into_iter().map(|value| if high > 0 { BEST * value / high } else { 0 }).collect()
}

/// How many of its wishes to be left alone the pod would disregard.
fn wards_off(pod: &Resident, place: &Place) -> i64 {
    let wishes = place.node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let count = wishes.filter(|taint| !fit::tolerates(&pod.facts.fit.tolerations, taint)).count();
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn prefers(pod: &Resident, place: &Place) -> i64 {
    let met = pod.facts.fit.preferred.iter().filter(|(_, term)| term.matches(&place.node));
    met.map(|(weight, _)| *weight).sum()
}

/// How many pods of the same owner each node has, and how far the wished spread is from being kept.
fn crowd(pod: &Resident, cluster: &Cluster<'_>) -> Vec<i64> {
    let owner = pod.object.controller().map(|owner| owner.uid.as_str());
    let wished: Vec<(&str, BTreeMap<String, i64>)> = pod
        .facts
        .spread
        .iter()
        .filter(|even| !even.is_required)
        .map(|even| (even.topology.as_str(), spread::counts(even, pod, cluster)))
        .collect();
    let siblings = |place: &Place| {
        let same = |other: &&Resident| {
            owner.is_some() && other.object.controller().map(|owner| owner.uid.as_str()) == owner
        };
        i64::try_from(place.pods.iter().filter(same).count()).unwrap_or(i64::MAX)
    };
    let one = |place: &Place| match wished.as_slice() {
        [] => siblings(place),
        wished => wished
            .iter()
            .map(|(topology, counts)| {
                place.node.labels.get(*topology).and_then(|value| counts.get(value)).copied().unwrap_or(0)
            })
            .sum(),
    };
    cluster.places.iter().map(one).collect()
}

/// How much room is left with the pod, and how evenly CPU and memory are then used.
fn room(pod: &Resident, place: &Place) -> (i64, i64) {
    let (cpu, memory) = cluster::weight(&pod.facts);
    let share = |used: i64, has: i64| if has > 0 { (used as f64 / has as f64).min(1.0) } else { 1.0 };
    let cpu = share(place.weighed.0 + cpu, place.has("cpu").milli_value());
    let memory = share(place.weighed.1 + memory, place.has("memory").value());
    let percent = |share: f64| (share * BEST as f64) as i64;
    let deviation = (cpu - memory).abs() / 2.0;
    ((percent(1.0 - cpu) + percent(1.0 - memory)) / 2, percent(1.0 - deviation))
}
