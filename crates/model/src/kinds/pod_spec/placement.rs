//! May a pod choose its nodes so? Selectors, affinity, tolerations and spread.

use std::collections::BTreeSet;

use super::super::{Faults, check_selector};
use crate::tree::{entries, is_set, is_there, items, text, whole};
use crate::{Tree, syntax};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// May a pod choose so?
pub fn check(spec: &Tree, field: &str, faults: &mut Faults) {
    for (key, value) in entries(spec, "nodeSelector") {
        let field = format!("{field}.nodeSelector");
        faults.each(&field, key, syntax::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        faults.each(&field, value, syntax::label_value(value));
    }
    check_node_affinity(&spec["affinity"]["nodeAffinity"], &format!("{field}.affinity.nodeAffinity"), faults);
    for name in ["podAffinity", "podAntiAffinity"] {
        check_pod_affinity(&spec["affinity"][name], &format!("{field}.affinity.{name}"), faults);
    }
    for (index, toleration) in items(spec, "tolerations").iter().enumerate() {
        check_toleration(toleration, &format!("{field}.tolerations[{index}]"), faults);
    }
    check_spread(spec, field, faults);
}

fn check_node_affinity(affinity: &Tree, field: &str, faults: &mut Faults) {
    if is_there(affinity, REQUIRED) {
        let (terms, field) = (
            items(&affinity[REQUIRED], "nodeSelectorTerms"),
            format!("{field}.{REQUIRED}.nodeSelectorTerms"),
        );
        if terms.is_empty() {
            faults.required(field.as_str(), "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            check_node_term(term, &format!("{field}[{index}]"), faults);
        }
    }
    for (index, term) in items(affinity, PREFERRED).iter().enumerate() {
        let field = format!("{field}.{PREFERRED}[{index}]");
        check_weight(term, &field, faults);
        check_node_term(&term["preference"], &format!("{field}.preference"), faults);
    }
}

fn check_weight(term: &Tree, field: &str, faults: &mut Faults) {
    let weight = whole(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        faults.invalid(format!("{field}.weight"), weight, "must be in the range 1-100");
    }
}

fn check_node_term(term: &Tree, field: &str, faults: &mut Faults) {
    for list in ["matchExpressions", "matchFields"] {
        for (index, wanted) in items(term, list).iter().enumerate() {
            let field = format!("{field}.{list}[{index}]");
            let (key, values) = (text(wanted, "key"), items(wanted, "values"));
            match (text(wanted, "operator"), values.len()) {
                ("In" | "NotIn", 0) => {
                    faults.required(
                        format!("{field}.values"),
                        "must be specified when `operator` is 'In' or 'NotIn'",
                    );
                }
                ("Exists" | "DoesNotExist", 1..) => {
                    let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                    faults.forbidden(format!("{field}.values"), detail);
                }
                ("Gt" | "Lt", len) if len != 1 => {
                    let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                    faults.required(format!("{field}.values"), detail);
                }
                ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
                (other, _) => {
                    faults.invalid(format!("{field}.operator"), other, "not a valid selector operator")
                }
            }
            match list {
                "matchFields" if key != "metadata.name" => {
                    faults.invalid(format!("{field}.key"), key, "not a valid field selector key");
                }
                "matchFields" => {}
                _ => faults.each(format_args!("{field}.key"), key, syntax::qualified_name(key)),
            }
        }
    }
}

fn check_pod_affinity(affinity: &Tree, field: &str, faults: &mut Faults) {
    for (index, term) in items(affinity, REQUIRED).iter().enumerate() {
        check_pod_term(term, &format!("{field}.{REQUIRED}[{index}]"), faults);
    }
    for (index, term) in items(affinity, PREFERRED).iter().enumerate() {
        let field = format!("{field}.{PREFERRED}[{index}]");
        check_weight(term, &field, faults);
        check_pod_term(&term["podAffinityTerm"], &format!("{field}.podAffinityTerm"), faults);
    }
}

fn check_pod_term(term: &Tree, field: &str, faults: &mut Faults) {
    check_selector(&term["labelSelector"], &format!("{field}.labelSelector"), faults);
    check_selector(&term["namespaceSelector"], &format!("{field}.namespaceSelector"), faults);
    for name in items(term, "namespaces").iter().filter_map(Tree::as_str) {
        faults.each(format_args!("{field}.namespace"), name, syntax::dns1123_label(name));
    }
    check_topology(text(term, "topologyKey"), &format!("{field}.topologyKey"), faults);
}

fn check_topology(key: &str, field: &str, faults: &mut Faults) {
    match key {
        "" => faults.required(field, "can not be empty"),
        _ => faults.each(field, key, syntax::qualified_name(key)),
    }
}

fn check_toleration(toleration: &Tree, field: &str, faults: &mut Faults) {
    let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
    let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
    if !key.is_empty() {
        faults.each(format_args!("{field}.key"), key, syntax::qualified_name(key));
    } else if operator != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        faults.invalid(format!("{field}.operator"), operator, detail);
    }
    if is_there(toleration, "tolerationSeconds") && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        faults.invalid(format!("{field}.effect"), effect, detail);
    }
    match operator {
        "" | "Equal" => faults.each(format_args!("{field}.operator"), value, syntax::label_value(value)),
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            faults.invalid(format!("{field}.operator"), value, detail);
        }
        "Exists" => {}
        _ => faults.not_supported(format!("{field}.operator"), operator, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        faults.one_of(
            format_args!("{field}.effect"),
            effect,
            &["NoExecute", "NoSchedule", "PreferNoSchedule"],
        );
    }
}

fn check_spread(spec: &Tree, field: &str, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (index, constraint) in items(spec, "topologySpreadConstraints").iter().enumerate() {
        let field = format!("{field}.topologySpreadConstraints[{index}]");
        let (skew, key) = (whole(constraint, "maxSkew").unwrap_or(0), text(constraint, "topologyKey"));
        if skew <= 0 {
            faults.invalid(format!("{field}.maxSkew"), skew, "must be greater than zero");
        }
        check_topology(key, &format!("{field}.topologyKey"), faults);
        let otherwise = text(constraint, "whenUnsatisfiable");
        let ways = &["DoNotSchedule", "ScheduleAnyway"];
        if !ways.contains(&otherwise) {
            faults.not_supported(format!("{field}.whenUnsatisfiable"), otherwise, ways);
        }
        if !seen.insert((key, otherwise)) {
            let pair = format!("{{{key}, {otherwise}}}");
            faults.duplicate(format!("{field}.{{topologyKey, whenUnsatisfiable}}"), pair);
        }
        if let Some(least) = whole(constraint, "minDomains") {
            if least <= 0 {
                faults.invalid(format!("{field}.minDomains"), least, "must be greater than zero");
            }
            if otherwise != "DoNotSchedule" {
                let detail = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
                faults.invalid(format!("{field}.minDomains"), least, detail);
            }
        }
        for name in ["nodeAffinityPolicy", "nodeTaintsPolicy"].iter().filter(|name| is_set(constraint, name))
        {
            faults.one_of(format_args!("{field}.{name}"), text(constraint, name), &["Honor", "Ignore"]);
        }
        check_selector(&constraint["labelSelector"], &format!("{field}.labelSelector"), faults);
    }
}
