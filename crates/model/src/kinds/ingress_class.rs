//! IngressClass of `networking.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, or};
use super::{Column, Faults, Kind, of};
use crate::tree::{at, text};
use crate::{Tree, tree};

/// What the house knows of `networking.k8s.io/v1` IngressClass.
pub static KIND: Kind =
    Kind::new(of::INGRESS_CLASS, "IngressClass", "ingressclass", "io.k8s.api.networking.v1.IngressClass")
        .columns(COLUMNS)
        .filling(fill)
        .changing(change)
        .counts();

const COLUMNS: &[Column] = &[
    column("Controller", |object, _| or(object, "spec.controller", "")),
    column("Parameters", |object, _| parameters(object)),
];

fn fill(object: &mut Tree) {
    let parameters = object.get_mut("spec").and_then(|spec| spec.get_mut("parameters"));
    parameters.into_iter().for_each(|parameters| tree::fill(parameters, "scope", "Cluster"));
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec.controller", at(old, "spec.controller"), at(new, "spec.controller"));
}

fn parameters(object: &Tree) -> Tree {
    let of = at(object, "spec.parameters");
    if of.is_null() {
        return "<none>".into();
    }
    let group = text(of, "apiGroup");
    let kind =
        if group.is_empty() { text(of, "kind").to_owned() } else { format!("{}.{group}", text(of, "kind")) };
    format!("{kind}/{}", text(of, "name")).into()
}
