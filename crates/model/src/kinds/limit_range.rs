//! LimitRange of `v1`: its constants, and what its schema cannot say.

use std::collections::BTreeSet;

use super::{Faults, Kind, of};
use crate::tree::{entries, items, text};
use crate::{Quantity, Tree, tree};

/// What the house knows of `v1` LimitRange.
pub static KIND: Kind =
    Kind::new(of::LIMIT_RANGE, "LimitRange", "limitrange", "io.k8s.api.core.v1.LimitRange")
        .short(&["limits"])
        .namespaced()
        .filling(fill)
        .checking(check);

/// What a container gets follows from what it may have: limits from maxima, requests from limits or minima.
fn fill(object: &mut Tree) {
    let Some(spec) = object.get_mut("spec") else { return };
    for limit in tree::items_mut(spec, "limits").filter(|limit| text(limit, "type") == "Container") {
        for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
            let amounts: Vec<(String, Tree)> =
                entries(limit, from).map(|(k, v)| (k.to_owned(), v.clone())).collect();
            if amounts.is_empty() {
                continue;
            }
            if let Some(target) = tree::object(limit, to) {
                amounts.into_iter().for_each(|(name, amount)| tree::fill(target, &name, amount));
            }
        }
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (index, limit) in items(object, "spec.limits").iter().enumerate() {
        let field = format!("spec.limits[{index}]");
        let kind = text(limit, "type");
        if kind.is_empty() {
            faults.required(format!("{field}.type"), "");
        } else if !seen.insert(kind) {
            faults.duplicate(format!("{field}.type"), kind);
        }
        for (low, high) in
            [("min", "max"), ("min", "defaultRequest"), ("defaultRequest", "default"), ("default", "max")]
        {
            for (name, amount) in entries(limit, low) {
                let (least, most) = (quantity(amount), limit[high].get(name).map(quantity));
                if most.is_some_and(|most| least > most) {
                    let detail = format!(
                        "{low} value {least} is greater than {high} value {}",
                        most.unwrap_or_default()
                    );
                    faults.invalid(format!("{field}.{low}[{name}]"), amount.clone(), &detail);
                }
            }
        }
    }
}

fn quantity(amount: &Tree) -> Quantity {
    amount.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}
