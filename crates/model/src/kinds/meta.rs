//! The checks of `metadata` that all kinds share, built-in and custom.

use std::collections::BTreeSet;

use super::Faults;
use crate::tree::{at, entries, flag, items, text, whole};
use crate::{Tree, syntax};

/// How large all annotations of an object may be together, in bytes (256 KiB, upstream's limit).
pub const ANNOTATIONS_SIZE_MAX: usize = 256 * 1024;

/// What the checks need to know of a kind.
#[derive(Debug, Clone, Copy)]
pub struct MetaRules {
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What a name may look like.
    pub name: fn(&str) -> Vec<String>,
}

/// May an object have this `metadata`? To be asked once its name is made and its namespace filled in.
pub fn check_meta(object: &Tree, rules: MetaRules, faults: &mut Faults) {
    let meta = &object["metadata"];
    check_name(meta, rules, faults);
    check_namespace(meta, rules, faults);
    faults.non_negative("metadata.generation", &meta["generation"]);
    check_labels(&meta["labels"], "metadata.labels", faults);
    check_annotations(&meta["annotations"], "metadata.annotations", faults);
    check_owners(meta, faults);
    check_finalizers(meta, faults);
}

/// May the first object's `metadata` become the second's?
pub fn change_meta(old: &Tree, new: &Tree, faults: &mut Faults) {
    let (old, new) = (&old["metadata"], &new["metadata"]);
    for name in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        faults.immutable(format_args!("metadata.{name}"), &old[name], &new[name]);
    }
    if whole(new, "generation").unwrap_or(0) < whole(old, "generation").unwrap_or(0) {
        faults.invalid("metadata.generation", new["generation"].clone(), "must not be decremented");
    }
    if text(new, "resourceVersion").is_empty() {
        faults.invalid("metadata.resourceVersion", "", "must be specified for an update");
    }
    if old["deletionTimestamp"].is_null() {
        return;
    }
    let known = items(old, "finalizers");
    let added: Vec<&str> = items(new, "finalizers")
        .iter()
        .filter(|name| !known.contains(name))
        .filter_map(Tree::as_str)
        .collect();
    if !added.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            added.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
        );
        faults.forbidden("metadata.finalizers", &detail);
    }
}

fn check_name(meta: &Tree, rules: MetaRules, faults: &mut Faults) {
    let (name, prefix) = (text(meta, "name"), text(meta, "generateName"));
    if !prefix.is_empty() {
        // What follows the prefix is letters, so a trailing sign is no fault.
        let masked = prefix.strip_suffix(['-', '.']).map(|start| format!("{start}a"));
        faults.each("metadata.generateName", prefix, (rules.name)(masked.as_deref().unwrap_or(prefix)));
    }
    match name {
        "" => faults.required("metadata.name", "name or generateName is required"),
        _ => faults.each("metadata.name", name, (rules.name)(name)),
    }
}

fn check_namespace(meta: &Tree, rules: MetaRules, faults: &mut Faults) {
    match text(meta, "namespace") {
        "" if rules.namespaced => faults.required("metadata.namespace", ""),
        "" => {}
        namespace if rules.namespaced => {
            faults.each("metadata.namespace", namespace, syntax::dns1123_label(namespace));
        }
        _ => faults.forbidden("metadata.namespace", "not allowed on this type"),
    }
}

/// May an object, or a pod of a template, have these labels?
pub fn check_labels(labels: &Tree, field: &str, faults: &mut Faults) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        faults.each(field, key.as_str(), syntax::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        faults.each(field, value, syntax::label_value(value));
    }
}

/// May an object have these annotations?
pub fn check_annotations(annotations: &Tree, field: &str, faults: &mut Faults) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        faults.each(field, key.as_str(), syntax::qualified_name(&key.to_ascii_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_SIZE_MAX {
        faults.too_long(field, ANNOTATIONS_SIZE_MAX);
    }
}

fn check_owners(meta: &Tree, faults: &mut Faults) {
    let mut controller: Option<&Tree> = None;
    for (index, owner) in items(meta, "ownerReferences").iter().enumerate() {
        let field = format!("metadata.ownerReferences[{index}]");
        for (name, empty) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner, name).is_empty() {
                faults.invalid(format!("{field}.{name}"), text(owner, name), empty);
            }
        }
        if text(owner, "kind") == "Event" && matches!(text(owner, "apiVersion"), "v1" | "events.k8s.io/v1") {
            faults.invalid(field, owner.clone(), "Event is disallowed from being an owner");
        }
        if !flag(owner, "controller") {
            continue;
        }
        if let Some(first) = controller {
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
                text(first, "name"),
                text(owner, "name")
            );
            faults.invalid("metadata.ownerReferences", at(meta, "ownerReferences").clone(), &detail);
        }
        controller = controller.or(Some(owner));
    }
}

fn check_finalizers(meta: &Tree, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (index, name) in items(meta, "finalizers").iter().filter_map(Tree::as_str).enumerate() {
        faults.each(format_args!("metadata.finalizers[{index}]"), name, syntax::qualified_name(name));
        seen.insert(name);
    }
    if seen.contains("orphan") && seen.contains("foregroundDeletion") {
        let both = at(meta, "finalizers").clone();
        faults.invalid(
            "metadata.finalizers",
            both,
            "finalizer orphan and foregroundDeletion cannot be both set",
        );
    }
}

/// May a label selector be so? `required` asks that it not be empty.
pub fn check_selector(selector: &Tree, field: &str, faults: &mut Faults) {
    for (key, value) in entries(selector, "matchLabels") {
        faults.each(format_args!("{field}.matchLabels"), key, syntax::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        faults.each(format_args!("{field}.matchLabels"), value, syntax::label_value(value));
    }
    for (index, expression) in items(selector, "matchExpressions").iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        let (key, values) = (text(expression, "key"), items(expression, "values"));
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                faults.required(
                    format!("{field}.values"),
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                faults.forbidden(format!("{field}.values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => faults.invalid(format!("{field}.operator"), other, "not a valid selector operator"),
        }
        faults.each(format_args!("{field}.key"), key, syntax::qualified_name(key));
        for (at, value) in values.iter().filter_map(Tree::as_str).enumerate() {
            faults.each(format_args!("{field}.values[{at}]"), value, syntax::label_value(value));
        }
    }
}
