//! Custom resources: what a CustomResourceDefinition says, in the form that the verbs use. Pure.

mod columns;
mod formats;
mod keep;
mod structural;
mod table;
mod validate;

use std::sync::Arc;

use model::kinds::Verbs;
use model::schema::Schema;
use model::tree::{flag, items, text};
use model::{Gvr, Tree};

use crate::registry::{Meaning, Resource, Scale};
pub use columns::{CustomColumn, headings};
pub use keep::{fill, prune};
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
    /// Whether the schema has defaults, which objects get that were stored before it had them.
    pub defaults: bool,
    /// Whether versions other than the stored one need a webhook, which is not called yet.
    pub needs_webhook: bool,
    /// Whether the definition is going, and waits only for its objects to go.
    pub ending: bool,
    /// Fields that selectors may ask for: the label and its path.
    pub fields: Vec<(String, String)>,
    /// Columns of `kubectl get` after the name.
    pub columns: Vec<CustomColumn>,
}

/// The resources that a definition serves; none until its names are accepted.
pub fn resources(definition: &Tree) -> Vec<Resource> {
    let accepted = items(definition, "status.conditions")
        .iter()
        .any(|condition| text(condition, "type") == "Established" && text(condition, "status") == "True");
    let versions = items(definition, "spec.versions");
    let Some(stored) = versions.iter().find(|version| flag(version, "storage")).filter(|_| accepted) else {
        return Vec::new();
    };
    let stored = gvr(definition, text(stored, "name"));
    versions
        .iter()
        .filter(|version| flag(version, "served"))
        .map(|version| resource(definition, version, &stored))
        .collect()
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
    let name = text(version, "name");
    let others = items(definition, "status.storedVersions").iter().any(|stored| stored != name);
    let custom = Custom {
        schema: table::table(&root).map(Arc::new),
        patterns: Patterns::of(&root),
        defaults: keep::has_defaults(&root),
        needs_webhook: text(definition, "spec.conversion.strategy") == "Webhook"
            && (others || stored.version != name),
        ending: !text(definition, "metadata.deletionTimestamp").is_empty(),
        root,
        fields: selectable.collect(),
        columns: items(version, "additionalPrinterColumns").iter().map(columns::column).collect(),
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
