//! The certificate by which pods know the API: a ConfigMap in every namespace, copied from one source.

use model::kinds::{CONFIG_MAP, NAMESPACE, of};
use model::{Controller, Key, Object, Plan, Precondition, Time, Tree, Watch, World};
use serde_json::json;

/// The copies' name.
pub const COPY: &str = "kube-root-ca.crt";
/// The namespace of the source.
pub const SOURCE_NAMESPACE: &str = "kube-system";
/// The name of the ConfigMap that the server writes its certificate into.
pub const SOURCE: &str = "kintsugi-cluster-ca";
/// The key of the certificate, in the source and in the copies.
pub const CERTIFICATE: &str = "ca.crt";
const DESCRIPTION: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                           endpoints such as the internal service IP or kubernetes.default.svc. No other usage is \
                           guaranteed across distributions of Kubernetes clusters.";

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "root-ca-certificate-publisher",
    primary: of::NAMESPACE,
    also: &[Watch { gvr: of::CONFIG_MAP, wakes }],
    reconcile,
};

fn wakes(map: &Object, world: &dyn World) -> Vec<Key> {
    match (map.namespace(), map.name()) {
        (SOURCE_NAMESPACE, SOURCE) => {
            world.list(&NAMESPACE, "").iter().map(|one| Key::new(&NAMESPACE, "", one.name())).collect()
        }
        (namespace, COPY) => vec![Key::new(&NAMESPACE, "", namespace)],
        _ => Vec::new(),
    }
}

/// Decides on one namespace.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = world.get(key).filter(|namespace| !namespace.is_ending()) else { return plan };
    let Some(source) = world.get(&Key::new(&CONFIG_MAP, SOURCE_NAMESPACE, SOURCE)) else { return plan };
    let wanted = certificate(&source);
    let copy = Key::new(&CONFIG_MAP, namespace.name(), COPY);
    match world.get(&copy) {
        _ if wanted.is_null() => {}
        None => {
            let meta = json!({
                "name": COPY, "namespace": namespace.name(),
                "annotations": {"kubernetes.io/description": DESCRIPTION},
            });
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {CERTIFICATE: wanted},
            });
            plan.create(&CONFIG_MAP, namespace.name(), object, "the namespace has no root certificate");
        }
        Some(known) if certificate(&known) == wanted => {}
        Some(known) => {
            let patch = json!({"data": {CERTIFICATE: wanted}});
            plan.patch(copy, "", patch, Precondition::same(&known), "another root certificate");
        }
    }
    plan
}

fn certificate(map: &Object) -> Tree {
    map.tree().unwrap_or_default()["data"][CERTIFICATE].take()
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    #[test]
    fn every_namespace_has_the_certificate_of_the_source() {
        let decide = |world: &dyn World, now| reconcile(&Key::new(&NAMESPACE, "", "shop"), world, now);
        let source = "configmaps kube-system/kintsugi-cluster-ca data={\"ca.crt\":\"PEM\"}\n namespaces shop";
        check(source, 0, decide, r#"create configmaps shop/kube-root-ca.crt {"data":{"ca.crt":"PEM"}}"#);
        let old = format!("{source}\n configmaps shop/kube-root-ca.crt data={{\"ca.crt\":\"OLD\"}}");
        check(&old, 0, decide, r#"patch configmaps shop/kube-root-ca.crt {"data":{"ca.crt":"PEM"}}"#);
        check("namespaces shop", 0, decide, "");
    }
}
