//! Whether an extension server can be reached: the condition that its APIService shows. Pure.

use model::tree::{items, text, whole};
use model::{Key, Tree, World, kinds};

/// A condition's status, reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `True` or `False`.
    pub status: &'static str,
    /// Why, in one word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

impl Condition {
    fn no(reason: &'static str, message: String) -> Self {
        Self { status: "False", reason, message }
    }

    /// Of a server that was asked; `Err` says how it failed.
    pub fn asked(answer: &Result<(), String>) -> Self {
        match answer {
            Ok(()) => Self { status: "True", reason: "Passed", message: "all checks passed".into() },
            Err(why) => Self::no("FailedDiscoveryCheck", why.clone()),
        }
    }
}

/// Why a server need not be asked, since nothing leads to it; `None` when it is worth asking.
pub fn unreachable(object: &Tree, view: &dyn World) -> Option<Condition> {
    let service = &object["spec"]["service"];
    let (namespace, name) = (text(service, "namespace"), text(service, "name"));
    let found = view.get(&Key::new(&kinds::SERVICE, namespace, name)).and_then(|found| found.tree().ok());
    let Some(found) = found else {
        return Some(Condition::no(
            "ServiceNotFound",
            format!("service/{name} in {namespace:?} is not present"),
        ));
    };
    if !matches!(text(&found, "spec.type"), "ClusterIP" | "") {
        return None;
    }
    let port = whole(service, "port").unwrap_or(443);
    let own = items(&found, "spec.ports").iter().find(|own| whole(own, "port") == Some(port));
    let Some(own) = own else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return Some(Condition::no("ServicePortError", message));
    };
    let slices = view.list(&kinds::ENDPOINT_SLICE, namespace);
    let any = slices
        .iter()
        .any(|slice| slice.meta().labels.get("kubernetes.io/service-name").is_some_and(|own| own == name));
    if !any {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Some(Condition::no("EndpointsNotFound", message));
    }
    let port_name = text(own, "name");
    if crate::outbound::ready(view, namespace, name, port_name).is_empty() {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        return Some(Condition::no("MissingEndpoints", message));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admit::testing::Few;

    #[test]
    fn each_gap_on_the_way_has_its_reason() {
        let service = (
            &kinds::SERVICE,
            r#"{"metadata": {"name": "s", "namespace": "n"}, "spec": {"type": "ClusterIP", "ports": [{"port": 443}]}}"#,
        );
        let slice = |ready: bool| {
            json!({"metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
                "ports": [{"name": "", "port": 8443}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]})
            .to_string()
        };
        let (unready, ready) = (slice(false), slice(true));
        let check = |world: &[(&model::Gvr, &str)], port: i64, wanted: &str| {
            let object = json!({"spec": {"service": {"namespace": "n", "name": "s", "port": port}}});
            let told = unreachable(&object, &Few::new(world)).map_or("-", |condition| condition.reason);
            assert_eq!(told, wanted);
        };
        check(&[], 443, "ServiceNotFound");
        check(&[service], 444, "ServicePortError");
        check(&[service], 443, "EndpointsNotFound");
        check(&[service, (&kinds::ENDPOINT_SLICE, &unready)], 443, "MissingEndpoints");
        check(&[service, (&kinds::ENDPOINT_SLICE, &ready)], 443, "-");
    }
}
