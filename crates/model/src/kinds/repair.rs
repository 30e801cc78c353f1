//! Repair of `healing.kintsugi.dev/v1alpha1`: a mend, as [`crate::repair`] writes it.

use super::table::{column, or};
use super::{Column, Faults, Kind, of};
use crate::Tree;
use crate::tree::text;

/// What the house knows of `healing.kintsugi.dev/v1alpha1` Repair.
pub static KIND: Kind = Kind::new(of::REPAIR, "Repair", "repair", "io.kintsugi.healing.v1alpha1.Repair")
    .namespaced()
    .nameless()
    .columns(COLUMNS)
    .checking(check);

const COLUMNS: &[Column] = &[
    column("Subject", |object, _| subject(object).into()),
    column("Fault", |object, _| or(object, "spec.fault", "")),
    column("Action", |object, _| or(object, "status.action", "")),
    column("Detected", |object, _| or(object, "status.detectedAfter", "")),
    column("Recovered", |object, _| match text(object, "status.recoveredAfter") {
        "" => text(object, "status.outcome").into(),
        after => after.into(),
    }),
];

/// `pod/web-1`; the cluster goes by its name alone.
fn subject(object: &Tree) -> String {
    match (text(object, "spec.subject.kind"), text(object, "spec.subject.name")) {
        ("Cluster", name) => name.to_owned(),
        (kind, name) => format!("{}/{name}", kind.to_lowercase()),
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    for field in ["spec.fault", "spec.subject.kind", "spec.subject.name"] {
        if text(object, field).is_empty() {
            faults.required(field, "");
        }
    }
}
