//! APIService of `apiregistration.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::column;
use super::{Column, Kind, Part, of};
use crate::tree::{at, items, text};
use crate::{Tree, tree};

/// What the house knows of `apiregistration.k8s.io/v1` APIService.
pub static KIND: Kind = Kind::new(
    of::API_SERVICE,
    "APIService",
    "apiservice",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
)
.categories(&["api-extensions"])
.parts(&[Part::Status])
.columns(COLUMNS)
.named(crate::syntax::path_segment)
.filling(fill);

const COLUMNS: &[Column] =
    &[column("Service", |object, _| service(object)), column("Available", |object, _| available(object))];

fn fill(object: &mut Tree) {
    let service = object.get_mut("spec").and_then(|spec| spec.get_mut("service"));
    service.into_iter().for_each(|service| tree::fill(service, "port", 443));
}

fn service(object: &Tree) -> Tree {
    match at(object, "spec.service") {
        Tree::Null => "Local".into(),
        service => format!("{}/{}", text(service, "namespace"), text(service, "name")).into(),
    }
}

fn available(object: &Tree) -> Tree {
    let found =
        items(object, "status.conditions").iter().find(|condition| text(condition, "type") == "Available");
    match found {
        Some(condition) if text(condition, "status") == "True" => "True".into(),
        Some(condition) => format!("{} ({})", text(condition, "status"), text(condition, "reason")).into(),
        None => "<unknown>".into(),
    }
}
