//! The defaults of pods and their templates, as the API fills them in.

use crate::Tree;
use crate::tree::{self, flag, is_set, items_mut, text};

/// Permissions of files that come from ConfigMaps, Secrets and the like: 0644.
const FILE_MODE: i64 = 0o644;

/// How long a projected token lives, in seconds, when its author does not say.
const TOKEN_SECONDS: i64 = 3600;

/// The fields of a volume that are no source of what is in it.
const NOT_A_SOURCE: &str = "name";

/// Fills in a template's metadata and spec (`spec.template` of a workload).
pub fn fill_template(template: &mut Tree) {
    tree::object(template, "metadata");
    if let Some(spec) = tree::object(template, "spec") {
        fill(spec);
    }
}

/// Fills in a pod's spec, as far as pods and templates agree.
pub fn fill(spec: &mut Tree) {
    tree::fill(spec, "restartPolicy", "Always");
    tree::fill(spec, "dnsPolicy", "ClusterFirst");
    tree::fill(spec, "terminationGracePeriodSeconds", 30);
    tree::fill(spec, "schedulerName", "default-scheduler");
    tree::object(spec, "securityContext");
    same_account(spec);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        items_mut(spec, list).for_each(container);
    }
    items_mut(spec, "volumes").for_each(volume);
}

/// The account's older name says the same as the newer one.
fn same_account(spec: &mut Tree) {
    let name = [text(spec, "serviceAccountName"), text(spec, "serviceAccount")];
    let Some(name) = name.into_iter().find(|name| !name.is_empty()).map(str::to_owned) else { return };
    tree::set(spec, "serviceAccountName", name.clone());
    tree::set(spec, "serviceAccount", name);
}

fn container(container: &mut Tree) {
    let policy = pull_policy(text(container, "image"));
    tree::fill(container, "imagePullPolicy", policy);
    tree::fill(container, "terminationMessagePath", "/dev/termination-log");
    tree::fill(container, "terminationMessagePolicy", "File");
    tree::object(container, "resources");
    items_mut(container, "ports").for_each(|port| tree::fill(port, "protocol", "TCP"));
    items_mut(container, "env").filter_map(|env| env.get_mut("valueFrom")).for_each(value_from);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        container.get_mut(name).into_iter().for_each(probe);
    }
    for hook in ["postStart", "preStop"] {
        let found = container.get_mut("lifecycle").and_then(|lifecycle| lifecycle.get_mut(hook));
        found.and_then(|hook| hook.get_mut("httpGet")).into_iter().for_each(http_get);
    }
}

/// An image whose name may come to mean another one is pulled anew each time.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    match (name.contains('@'), name.rsplit_once(':')) {
        (true, _) => "IfNotPresent",
        (false, None | Some((_, "latest"))) => "Always",
        (false, Some(_)) => "IfNotPresent",
    }
}

fn value_from(source: &mut Tree) {
    source.get_mut("fieldRef").into_iter().for_each(|field| tree::fill(field, "apiVersion", "v1"));
    source.get_mut("fileKeyRef").into_iter().for_each(|key| tree::fill(key, "optional", false));
    source.get_mut("resourceFieldRef").into_iter().for_each(|field| tree::fill(field, "divisor", "0"));
}

fn probe(probe: &mut Tree) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if tree::whole(probe, name).unwrap_or(0) == 0 {
            tree::set(probe, name, value);
        }
    }
    probe.get_mut("httpGet").into_iter().for_each(http_get);
    probe.get_mut("grpc").into_iter().for_each(|grpc| tree::fill(grpc, "service", ""));
}

fn http_get(action: &mut Tree) {
    tree::fill(action, "path", "/");
    tree::fill(action, "scheme", "HTTP");
}

fn volume(volume: &mut Tree) {
    let has_source = volume.as_object().is_some_and(|fields| fields.keys().any(|name| name != NOT_A_SOURCE));
    if !has_source {
        tree::object(volume, "emptyDir");
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        volume.get_mut(source).into_iter().for_each(|source| tree::fill(source, "defaultMode", FILE_MODE));
    }
    volume.get_mut("downwardAPI").into_iter().for_each(downward);
    volume.get_mut("hostPath").into_iter().for_each(|path| tree::fill(path, "type", ""));
    if let Some(image) = volume.get_mut("image") {
        let policy = pull_policy(text(image, "reference"));
        tree::fill(image, "pullPolicy", policy);
    }
    let claim = volume.get_mut("ephemeral").and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate"));
    claim
        .and_then(|claim| claim.get_mut("spec"))
        .into_iter()
        .for_each(|spec| tree::fill(spec, "volumeMode", "Filesystem"));
    for source in
        volume.get_mut("projected").into_iter().flat_map(|projected| items_mut(projected, "sources"))
    {
        source.get_mut("downwardAPI").into_iter().for_each(downward);
        let token = source.get_mut("serviceAccountToken");
        token.into_iter().for_each(|token| tree::fill(token, "expirationSeconds", TOKEN_SECONDS));
    }
}

fn downward(source: &mut Tree) {
    items_mut(source, "items").for_each(value_from);
}

/// Fills in what a pod has and a template has not: requests from limits, host ports, links to services.
pub fn fill_pod_alone(spec: &mut Tree) {
    tree::fill(spec, "enableServiceLinks", true);
    let host = flag(spec, "hostNetwork");
    for list in ["initContainers", "containers"] {
        for container in items_mut(spec, list) {
            requests_from_limits(container);
            if host {
                items_mut(container, "ports").for_each(host_port);
            }
        }
    }
    if is_set(spec, "resources.limits") {
        requests_from_limits(spec);
    }
}

fn requests_from_limits(of: &mut Tree) {
    let Some(resources) = of.get_mut("resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Tree::as_object).cloned() else { return };
    let Some(requests) = tree::object(resources, "requests") else { return };
    for (name, amount) in limits {
        tree::fill(requests, &name, amount);
    }
}

fn host_port(port: &mut Tree) {
    if tree::whole(port, "hostPort").unwrap_or(0) == 0 {
        let number = port.get("containerPort").cloned();
        number.into_iter().for_each(|number| tree::set(port, "hostPort", number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn images_that_may_change_are_pulled_always() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_short_pod_gets_what_its_author_left_out() {
        let mut spec = json!({
            "containers": [{"name": "a", "image": "a:1", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 2},
                "resources": {"limits": {"cpu": "1"}}}],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}],
            "hostNetwork": true,
        });
        fill(&mut spec);
        fill_pod_alone(&mut spec);
        let once = spec.clone();
        fill(&mut spec);
        fill_pod_alone(&mut spec);
        assert_eq!(spec, once, "filling twice changes nothing");
        let container = &spec["containers"][0];
        assert_eq!(
            container["livenessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "periodSeconds": 2, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(container["resources"], json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(spec["volumes"][0], json!({"name": "v", "emptyDir": {}}));
        assert_eq!(spec["volumes"][1]["secret"]["defaultMode"], 420);
        assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    }
}
