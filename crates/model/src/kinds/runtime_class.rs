//! RuntimeClass of `node.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, or};
use super::{Column, Faults, Kind, of};
use crate::tree::text;
use crate::{Tree, syntax};

/// What the house knows of `node.k8s.io/v1` RuntimeClass.
pub static KIND: Kind =
    Kind::new(of::RUNTIME_CLASS, "RuntimeClass", "runtimeclass", "io.k8s.api.node.v1.RuntimeClass")
        .columns(COLUMNS)
        .checking(check)
        .changing(change);

const COLUMNS: &[Column] = &[column("Handler", |object, _| or(object, "handler", ""))];

fn check(object: &Tree, faults: &mut Faults) {
    match text(object, "handler") {
        "" => faults.required("handler", ""),
        name => faults.each("handler", name, syntax::dns1123_label(name)),
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("handler", &old["handler"], &new["handler"]);
}
