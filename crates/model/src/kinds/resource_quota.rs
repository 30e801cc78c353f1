//! ResourceQuota of `v1`: its constants, and what its schema cannot say.

use super::table::column;
use super::{Column, Faults, Kind, Part, of};
use crate::tree::{at, entries};
use crate::{Quantity, Tree, syntax};

/// What the house knows of `v1` ResourceQuota.
pub static KIND: Kind =
    Kind::new(of::RESOURCE_QUOTA, "ResourceQuota", "resourcequota", "io.k8s.api.core.v1.ResourceQuota")
        .short(&["quota"])
        .namespaced()
        .parts(&[Part::Status])
        .columns(COLUMNS)
        .checking(check)
        .changing(change);

const COLUMNS: &[Column] =
    &[column("Request", |object, _| usage(object, false)), column("Limit", |object, _| usage(object, true))];

fn check(object: &Tree, faults: &mut Faults) {
    for (name, amount) in entries(object, "spec.hard") {
        let amount: Quantity = amount.as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        let field = format!("spec.hard[{name}]");
        faults.each(&field, name, syntax::qualified_name(name));
        if amount.is_negative() {
            faults.invalid(field, amount.to_string(), "must be greater than or equal to 0");
        }
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec.scopes", at(old, "spec.scopes"), at(new, "spec.scopes"));
}

/// What is used of what is allowed; limits apart from the rest.
fn usage(object: &Tree, limits: bool) -> Tree {
    let of = |name: &&str| name.starts_with("limits.") == limits;
    let rows = entries(&object["status"], "hard").filter(|(name, _)| of(name)).map(|(name, hard)| {
        let used = object["status"]["used"].get(name).and_then(Tree::as_str).unwrap_or("0");
        format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
    });
    rows.collect::<Vec<_>>().join(", ").into()
}
