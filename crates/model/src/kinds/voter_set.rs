//! VoterSet of `healing.kintsugi.dev/v1alpha1`: which nodes are asked before a lease is taken from a node. See
//! [`crate::fence`].

use super::table::column;
use super::{Column, Faults, Kind, of};
use crate::Tree;
use crate::tree::{items, text, whole};

/// What the house knows of `healing.kintsugi.dev/v1alpha1` VoterSet.
pub static KIND: Kind =
    Kind::new(of::VOTER_SET, "VoterSet", "voterset", "io.kintsugi.healing.v1alpha1.VoterSet")
        .columns(COLUMNS)
        .checking(check)
        .changing(change);

const COLUMNS: &[Column] = &[
    column("Number", |object, _| whole(object, "spec.number").unwrap_or(0).to_string().into()),
    column("Voters", |object, _| {
        let hosts: Vec<&str> = items(object, "spec.voters").iter().map(|voter| text(voter, "host")).collect();
        hosts.join(",").into()
    }),
    column("Tie-Breaker", |object, _| text(object, "spec.tieBreaker").into()),
];

fn check(object: &Tree, faults: &mut Faults) {
    for (at, voter) in items(object, "spec.voters").iter().enumerate() {
        for field in ["host", "incarnation"] {
            if text(voter, field).is_empty() {
                faults.required(format!("spec.voters[{at}].{field}"), "");
            }
        }
    }
    if items(object, "spec.voters").is_empty() {
        faults.required("spec.voters", "");
    }
}

/// Two sides of a cut must never know one number by two sets.
fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec", &old["spec"], &new["spec"]);
}
