//! Custom resources: what a CustomResourceDefinition says, in the form that the verbs use. Pure.

mod columns;
mod costs;
mod formats;
mod keep;
mod rules;
mod structural;
mod table;
mod types;
mod validate;

use std::sync::Arc;

use model::kinds::Verbs;
use model::schema::Schema;
use model::tree::{flag, items, text};
use model::{Gvr, Tree};

use crate::outbound::Callee;
use crate::registry::{Meaning, Resource, Scale, version_rank};
pub use columns::{CustomColumn, headings};
pub use keep::{fill, prune};
use rules::Rules;
pub use rules::usable;
pub use structural::check as check_definition;
pub use table::envelope;
pub use validate::{Patterns, validate};

/// One version of a custom resource.
#[derive(Debug, Default)]
pub struct Custom {
    /// Its table of types, the first of which is the object itself; `None` keeps every field.
    pub schema: Option<Arc<Schema>>,
    /// The schema as its definition says it; null when it says none.
    pub root: Tree,
    /// The patterns of the schema.
    pub patterns: Patterns,
    /// The rules in expressions, where the schema has any.
    pub rules: Option<Rules>,
    /// Whether the schema has defaults, which objects get that were stored before it had them.
    pub defaults: bool,
    /// Who converts objects of other versions; `None` where only the version's name differs.
    pub conversion: Option<Conversion>,
    /// Fields that selectors may ask for: the label and its path.
    pub fields: Vec<(String, String)>,
    /// Columns of `kubectl get` after the name.
    pub columns: Vec<CustomColumn>,
    /// What whoever asks for a version is warned of that is going out of use.
    pub deprecation: Option<String>,
}

/// Who converts objects between the versions of a definition.
#[derive(Debug)]
pub struct Conversion {
    /// Whom to ask; or why there is nobody.
    pub callee: Result<Callee, String>,
    /// The first version of reviews that we and it know.
    pub review: Option<&'static str>,
    /// The revision of the definition: what was converted under another may be converted otherwise now.
    pub revision: String,
}

/// How a definition's objects are converted, where that takes a webhook.
fn conversion(definition: &Tree) -> Option<Conversion> {
    if text(definition, "spec.conversion.strategy") != "Webhook" {
        return None;
    }
    let webhook = &definition["spec"]["conversion"]["webhook"];
    let mut known = items(webhook, "conversionReviewVersions").iter().filter_map(Tree::as_str);
    Some(Conversion {
        callee: Callee::of_client_config(&webhook["clientConfig"]),
        review: known.find_map(|version| ["v1", "v1beta1"].into_iter().find(|ours| *ours == version)),
        revision: text(definition, "metadata.resourceVersion").to_owned(),
    })
}

/// The type of a whole schema's objects, as expressions have it.
pub fn type_of(root: &Tree) -> Option<cel::Type> {
    types::of(root, "object", true)
}

/// The resources that a definition serves; none until its names are accepted.
pub fn resources(definition: &Tree) -> Vec<Resource> {
    let accepted = items(definition, "status.conditions")
        .iter()
        .any(|condition| text(condition, "type") == "Established" && text(condition, "status") == "True");
    let Some(stored) = stored(definition).filter(|_| accepted) else { return Vec::new() };
    // Whoever deletes the objects of one that ends has to reach them.
    let is_ending = !text(definition, "metadata.deletionTimestamp").is_empty();
    items(definition, "spec.versions")
        .iter()
        .filter(|version| flag(version, "served") || (is_ending && flag(version, "storage")))
        .map(|version| resource(definition, version, &stored))
        .collect()
}

/// Where a definition's objects are stored.
pub fn stored(definition: &Tree) -> Option<Gvr> {
    let stored = items(definition, "spec.versions").iter().find(|version| flag(version, "storage"))?;
    Some(gvr(definition, text(stored, "name")))
}

/// What is said of a version that is going out of use: its author's words, or which one to use instead.
fn deprecation(definition: &Tree, version: &Tree) -> Option<String> {
    if !flag(version, "deprecated") {
        return None;
    }
    if let Some(said) = version["deprecationWarning"].as_str() {
        return Some(said.to_owned());
    }
    let (group, kind) = (text(definition, "spec.group"), text(definition, "spec.names.kind"));
    let own = text(version, "name");
    let better = items(definition, "spec.versions")
        .iter()
        .filter(|other| flag(other, "served") && !flag(other, "deprecated"))
        .map(|other| text(other, "name"))
        .filter(|other| version_rank(other) > version_rank(own))
        .max_by_key(|other| version_rank(other));
    let instead = better.map(|other| format!("; use {group}/{other} {kind}")).unwrap_or_default();
    Some(format!("{group}/{own} {kind} is deprecated{instead}"))
}

fn gvr(definition: &Tree, version: &str) -> Gvr {
    let own = |text: &str| text.to_owned().into();
    Gvr {
        group: own(text(definition, "spec.group")),
        version: own(version),
        plural: own(text(definition, "spec.names.plural")),
    }
}

fn resource(definition: &Tree, version: &Tree, stored: &Gvr) -> Resource {
    let names = &definition["spec"]["names"];
    let list = |field: &str| {
        items(names, field).iter().filter_map(Tree::as_str).map(|name| name.to_owned().into()).collect()
    };
    let parts = &version["subresources"];
    let path = |field: &str| text(&parts["scale"], field).trim_start_matches('.').to_owned().into();
    let scale = parts["scale"].is_object().then(|| Scale {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    });
    let selectable = items(version, "selectableFields").iter().map(|field| {
        let path = text(field, "jsonPath").trim_start_matches('.').to_owned();
        (path.clone(), path)
    });
    let root = version["schema"]["openAPIV3Schema"].clone();
    let custom = Custom {
        schema: table::table(&root).map(Arc::new),
        patterns: Patterns::of(&root),
        rules: Rules::of(&root),
        defaults: keep::has_defaults(&root),
        conversion: conversion(definition),
        root,
        fields: selectable.collect(),
        columns: items(version, "additionalPrinterColumns").iter().map(columns::column).collect(),
        deprecation: deprecation(definition, version),
    };
    Resource {
        gvr: gvr(definition, text(version, "name")),
        kind: text(names, "kind").to_owned().into(),
        list_kind: text(names, "listKind").to_owned().into(),
        singular: text(names, "singular").to_owned().into(),
        short: list("shortNames"),
        categories: list("categories"),
        namespaced: text(definition, "spec.scope") == "Namespaced",
        verbs: Verbs::All,
        status: parts["status"].is_object(),
        scale,
        others: Vec::new(),
        prefix: format!("/{stored}/"),
        stored: stored.clone(),
        meaning: Meaning::Custom(Arc::new(custom)),
    }
}
