//! Pods run as a service account, and find its token in each container unless somebody opts out.

use model::tree::{is_set, items, text};
use model::{Key, Tree, kinds, tree};
use serde_json::{Value, json};

use super::{Asked, Extra};
use crate::refusal::Refusal;
use crate::verbs::child;

/// Where programs look for their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long a token is good for, in seconds: upstream's hour and a little, by which it is known.
const TOKEN_SECONDS: i64 = 3607;

/// Gives a new pod its account, the account's pull secrets, and the mounts of its token.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    // A mirror of a pod that a node runs on its own has no account.
    if !asked.creates(&kinds::POD) || is_mirror(object) {
        return Ok(());
    }
    let spec = child(object, "spec");
    if spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default().is_empty() {
        let old_name = spec.get("serviceAccount").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = old_name.unwrap_or("default").to_owned();
        spec.insert("serviceAccountName".into(), json!(name));
    }
    let name = text(object, "spec.serviceAccountName").to_owned();
    object["spec"]["serviceAccount"] = json!(name);
    let Some(account) = asked.world.get(&Key::new(&kinds::SERVICE_ACCOUNT, asked.namespace, &name)) else {
        let namespace = asked.namespace;
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found"
        );
        return Err(asked.forbid(object, why));
    };
    let account =
        account.seen::<Tree>().ok_or_else(|| Refusal::internal("a service account is no object"))?;
    if !is_set(object, "spec.imagePullSecrets") && is_set(&account, "imagePullSecrets") {
        object["spec"]["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    if wants_token(object, &account) {
        mount_token(object, &asked.drawn.suffix);
    }
    Ok(())
}

fn is_mirror(pod: &Tree) -> bool {
    pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string()
}

/// The pod's own word counts more than the account's; silence means yes.
fn wants_token(pod: &Tree, account: &Tree) -> bool {
    let said = |tree: &Tree| tree["automountServiceAccountToken"].as_bool();
    said(&pod["spec"]).or(said(account)).unwrap_or(true)
}

fn mount_token(pod: &mut Tree, suffix: &str) {
    let known = items(pod, "spec.volumes").iter().map(|volume| text(volume, "name"));
    let known = known.into_iter().find(|name| name.starts_with("kube-api-access-")).map(str::to_owned);
    let name = known.clone().unwrap_or_else(|| format!("kube-api-access-{suffix}"));
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        for container in tree::items_mut(&mut pod["spec"], list) {
            let has =
                items(container, "volumeMounts").iter().any(|mount| text(mount, "mountPath") == MOUNT_PATH);
            if !has {
                push(
                    container,
                    "volumeMounts",
                    json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}),
                );
                mounted = true;
            }
        }
    }
    if mounted && known.is_none() {
        push(&mut pod["spec"], "volumes", volume(&name));
    }
}

fn volume(name: &str) -> Tree {
    json!({"name": name, "projected": {"defaultMode": 420, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace",
            "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
    ]}})
}

/// Adds an item to the list under a key, which is made when there is none.
pub(super) fn push(tree: &mut Tree, key: &str, item: Tree) {
    let Some(object) = tree.as_object_mut() else { return };
    let list = object.entry(key).or_insert(Value::Null);
    match list {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    const ACCOUNT: &str = r#"{"metadata": {"name": "default", "namespace": "d"}}"#;
    const QUIET: &str = r#"{"metadata": {"name": "quiet", "namespace": "d"}, "automountServiceAccountToken": false,
        "imagePullSecrets": [{"name": "s"}]}"#;

    fn pod(spec: Tree) -> Tree {
        json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec})
    }

    fn mounts(spec: Tree) -> Result<usize, String> {
        let world = [(&kinds::SERVICE_ACCOUNT, ACCOUNT), (&kinds::SERVICE_ACCOUNT, QUIET)];
        let made = check(&world, &kinds::POD, admit, pod(spec))?;
        let containers = items(&made, "spec.initContainers").iter().chain(items(&made, "spec.containers"));
        let count: usize = containers.map(|container| items(container, "volumeMounts").len()).sum();
        assert_eq!(items(&made, "spec.volumes").len(), count.min(1));
        Ok(count)
    }

    #[test]
    fn every_container_finds_its_token_unless_somebody_opts_out() {
        let two = json!([{"name": "a"}, {"name": "b"}]);
        assert_eq!(mounts(json!({"containers": two, "initContainers": [{"name": "i"}]})), Ok(3));
        assert_eq!(mounts(json!({"containers": two, "automountServiceAccountToken": false})), Ok(0));
        assert_eq!(mounts(json!({"containers": two, "serviceAccountName": "quiet"})), Ok(0));
        let anyway =
            json!({"containers": two, "serviceAccountName": "quiet", "automountServiceAccountToken": true});
        assert_eq!(mounts(anyway), Ok(2));
        let refused =
            mounts(json!({"containers": two, "serviceAccountName": "x"})).expect_err("no such account");
        assert!(refused.contains("error looking up service account d/x"), "{refused}");
    }
}
