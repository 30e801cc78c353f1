//! CustomResourceDefinition of `apiextensions.k8s.io/v1`: its constants, and what its schema cannot say.

use std::collections::BTreeSet;

use super::table::{column, or};
use super::{Column, Faults, Kind, Part, of, webhooks};
use crate::tree::{at, flag, is_set, is_there, items, text};
use crate::{Tree, syntax, tree};

/// What the house knows of `apiextensions.k8s.io/v1` CustomResourceDefinition.
pub static KIND: Kind = Kind::new(
    of::CUSTOM_RESOURCE_DEFINITION,
    "CustomResourceDefinition",
    "customresourcedefinition",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
)
.short(&["crd", "crds"])
.categories(&["api-extensions"])
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(fill)
.checking(check)
.changing(change)
.continuing(next)
.counts()
.ageless();

const COLUMNS: &[Column] = &[column("Created At", |object, _| or(object, "metadata.creationTimestamp", ""))];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    if let Some(names) = tree::object(spec, "names") {
        let kind = text(names, "kind").to_owned();
        if !kind.is_empty() {
            tree::fill(names, "singular", kind.to_lowercase());
            tree::fill(names, "listKind", format!("{kind}List"));
        }
    }
    if let Some(conversion) = tree::object(spec, "conversion") {
        tree::fill(conversion, "strategy", "None");
        let client = conversion.get_mut("webhook").and_then(|webhook| webhook.get_mut("clientConfig"));
        let service = client.and_then(|client| client.get_mut("service"));
        service.into_iter().for_each(|service| tree::fill(service, "port", 443));
    }
    if !is_set(object, "status.storedVersions") {
        let stored = items(object, "spec.versions").iter().find(|version| flag(version, "storage"));
        let stored: Vec<Tree> = stored.and_then(|version| version.get("name").cloned()).into_iter().collect();
        tree::object(object, "status")
            .into_iter()
            .for_each(|status| tree::set(status, "storedVersions", stored.clone()));
    }
}

/// A version in which objects may have been stored stays among the stored ones until somebody says otherwise.
fn next(_: &Tree, new: &mut Tree) {
    let stored = items(new, "spec.versions").iter().find(|version| flag(version, "storage"));
    let Some(name) = stored.and_then(|version| version.get("name").cloned()) else { return };
    let mut all = items(new, "status.storedVersions").to_vec();
    if !all.contains(&name) {
        all.push(name);
        tree::object(new, "status")
            .into_iter()
            .for_each(|status| tree::set(status, "storedVersions", all.clone()));
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    let (group, plural) = (text(object, "spec.group"), text(object, "spec.names.plural"));
    let name = format!("{plural}.{group}");
    if text(object, "metadata.name") != name {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        faults.invalid("metadata.name", text(object, "metadata.name"), detail);
    }
    match group {
        "" => faults.required("spec.group", ""),
        _ if !group.contains('.') => {
            faults.invalid("spec.group", group, "should be a domain with at least one dot")
        }
        _ => faults.each("spec.group", group, syntax::dns1123_subdomain(group)),
    }
    match text(object, "spec.scope") {
        "" => faults.required("spec.scope", ""),
        scope => faults.one_of("spec.scope", scope, &["Cluster", "Namespaced"]),
    }
    check_names(at(object, "spec.names"), faults);
    check_versions(items(object, "spec.versions"), faults);
    check_conversion(at(object, "spec.conversion"), faults);
}

fn check_conversion(conversion: &Tree, faults: &mut Faults) {
    let field = "spec.conversion";
    match (text(conversion, "strategy"), conversion.get("webhook").filter(|webhook| !webhook.is_null())) {
        ("Webhook", None) => {
            let detail = "required when strategy is set to Webhook";
            faults.required(format!("{field}.webhook.clientConfig"), detail);
        }
        ("Webhook", Some(webhook)) => {
            webhooks::check_client(
                &webhook["clientConfig"],
                &format!("{field}.webhook.clientConfig"),
                faults,
            );
            let versions = items(webhook, "conversionReviewVersions");
            let field = format!("{field}.webhook.conversionReviewVersions");
            webhooks::check_review_versions(versions, &field, faults);
        }
        ("None" | "", Some(_)) => {
            faults.forbidden(
                format!("{field}.webhook"),
                "should not be set when strategy is not set to Webhook",
            );
        }
        ("None" | "", None) => {}
        (other, _) => faults.not_supported(format!("{field}.strategy"), other, &["None", "Webhook"]),
    }
}

fn check_names(names: &Tree, faults: &mut Faults) {
    for name in ["plural", "singular"] {
        match text(names, name) {
            "" => faults.required(format!("spec.names.{name}"), ""),
            value => faults.each(format_args!("spec.names.{name}"), value, syntax::dns1035_label(value)),
        }
    }
    for name in ["kind", "listKind"] {
        match text(names, name) {
            "" => faults.required(format!("spec.names.{name}"), ""),
            value => faults.each(
                format_args!("spec.names.{name}"),
                value,
                syntax::dns1035_label(&value.to_lowercase()),
            ),
        }
    }
    if is_set(names, "kind") && text(names, "kind") == text(names, "listKind") {
        faults.invalid(
            "spec.names.listKind",
            text(names, "listKind"),
            "kind and listKind may not be the same",
        );
    }
    for (index, short) in items(names, "shortNames").iter().filter_map(Tree::as_str).enumerate() {
        faults.each(format_args!("spec.names.shortNames[{index}]"), short, syntax::dns1035_label(short));
    }
}

fn check_versions(versions: &[Tree], faults: &mut Faults) {
    let mut names = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let (field, name) = (format!("spec.versions[{index}]"), text(version, "name"));
        faults.each(format_args!("{field}.name"), name, syntax::dns1035_label(name));
        if !names.insert(name) {
            faults.invalid(field.as_str(), name, "must contain unique version names");
        }
        if !is_there(version, "schema.openAPIV3Schema") {
            faults.required(format!("{field}.schema.openAPIV3Schema"), "schemas are required");
        } else if text(version, "schema.openAPIV3Schema.type") != "object" {
            let kind = text(version, "schema.openAPIV3Schema.type");
            faults.invalid(
                format!("{field}.schema.openAPIV3Schema.type"),
                kind,
                "must be object at the root",
            );
        }
    }
    let stored = versions.iter().filter(|version| flag(version, "storage")).count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        faults.invalid("spec.versions", versions.to_vec(), detail);
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    for path in ["group", "scope", "names.kind", "names.plural"] {
        let path = format!("spec.{path}");
        faults.immutable(&path, at(old, &path), at(new, &path));
    }
}
