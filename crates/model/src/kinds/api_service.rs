//! APIService of `apiregistration.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::column;
use super::{Column, Faults, Kind, Part, of};
use crate::tree::{at, flag, is_set, items, text, whole};
use crate::{Tree, syntax, tree};

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
.filling(fill)
.checking(check);

const COLUMNS: &[Column] =
    &[column("Service", |object, _| service(object)), column("Available", |object, _| available(object))];

fn fill(object: &mut Tree) {
    let service = object.get_mut("spec").and_then(|spec| spec.get_mut("service"));
    service.into_iter().for_each(|service| tree::fill(service, "port", 443));
}

fn check(object: &Tree, faults: &mut Faults) {
    let (group, version) = (text(object, "spec.group"), text(object, "spec.version"));
    let wanted = format!("{version}.{group}");
    if text(object, "metadata.name") != wanted {
        let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
        faults.invalid("metadata.name", text(object, "metadata.name"), &detail);
    }
    match (group, version) {
        ("", "v1") => {}
        ("", _) => {
            faults.required("spec.group", "only v1 may have an empty group and it better be legacy kube")
        }
        _ => faults.each("spec.group", group, syntax::dns1123_subdomain(group)),
    }
    match version {
        "" => faults.required("spec.version", ""),
        _ => faults.each("spec.version", version, syntax::dns1035_label(version)),
    }
    for (name, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
        let field = format!("spec.{name}");
        let priority = whole(object, &field).unwrap_or(0);
        if !(1..=max).contains(&priority) {
            faults.invalid(field, priority, &format!("must be positive and less than {}", max));
        }
    }
    let spec = &object["spec"];
    let (bundle, any) = (is_set(spec, "caBundle"), flag(spec, "insecureSkipTLSVerify"));
    if !spec["service"].is_object() {
        if bundle {
            faults.invalid("spec.caBundle", "<bytes>", "local APIServices may not have a caBundle");
        }
        if any {
            let detail = "local APIServices may not have insecureSkipTLSVerify";
            faults.invalid("spec.insecureSkipTLSVerify", true, detail);
        }
        return;
    }
    for name in ["namespace", "name"] {
        if text(&spec["service"], name).is_empty() {
            faults.required(format!("spec.service.{name}"), "");
        }
    }
    let port = whole(&spec["service"], "port").unwrap_or(0);
    for why in syntax::port_number(port) {
        faults.invalid("spec.service.port", port, &format!("port is not valid: {why}"));
    }
    if any && bundle {
        faults.invalid("spec.insecureSkipTLSVerify", true, "may not be true if caBundle is present");
    }
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
