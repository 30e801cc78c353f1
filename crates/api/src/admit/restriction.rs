//! What a node's agent may write, as its object says: its own node, its own lease, the status of its own pods.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::tree::{at, entries, is_there, items, text};
use model::{Key, Tree, kinds};

use super::{Asked, Extra, Operation};
use crate::auth::{Identity, signing};
use crate::refusal::Refusal;
use crate::registry::Resource;
use crate::verbs::meta;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels of Kubernetes' own that an agent says of its node.
const LABELS: [&str; 13] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "node.kubernetes.io/instance-type",
    "node.kubernetes.io/windows-build",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

/// Refuses what the agent of a node writes beyond its own.
pub fn judge(asked: &Asked<'_>, object: &Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    let Some(node) = asked.identity.node() else { return Ok(()) };
    let forbid = |why: String| Err(asked.forbid(object, why));
    let name = meta(object, "name");
    let creates = asked.operation == Operation::Create;
    let is = |gvr| asked.resource.is(gvr);
    if is(&kinds::NODE) {
        return judge_node(asked, node, object);
    }
    if is(&kinds::POD) {
        return match (creates, asked.part) {
            (true, _) => judge_mirror(asked, node, object),
            (false, "status") => judge_status(asked, node, object),
            (false, part) => forbid(format!(
                "unexpected pod subresource \"{part}\", only 'status' and 'eviction' are allowed"
            )),
        };
    }
    if is(&kinds::LEASE) && name != node {
        return forbid("can only access node lease with the same name as the requesting node".into());
    }
    if is(&kinds::CSI_NODE) && name != node {
        return forbid("can only access CSINode with the same name as the requesting node".into());
    }
    if is(&kinds::RESOURCE_SLICE)
        && [Some(object), asked.old].into_iter().flatten().any(|slice| text(slice, "spec.nodeName") != node)
    {
        return forbid("can only create ResourceSlice with the same NodeName as the requesting node".into());
    }
    if is(&kinds::PERSISTENT_VOLUME_CLAIM) && asked.part != "status" {
        return forbid("may only update PVC status".into());
    }
    if creates && is(&kinds::CERTIFICATE_SIGNING_REQUEST) {
        return judge_request(asked, node, object);
    }
    Ok(())
}

/// Refuses deletions and evictions of what is none of a node's own.
pub fn judge_end(resource: &Resource, who: &Identity, old: &Tree, part: &str) -> Result<(), Refusal> {
    let Some(node) = who.node() else { return Ok(()) };
    let why = if resource.is(&kinds::POD) && text(old, "spec.nodeName") != node {
        let what = if part == "eviction" { "evict" } else { "delete" };
        format!("node \"{node}\" can only {what} pods with spec.nodeName set to itself")
    } else if resource.is(&kinds::RESOURCE_SLICE) && text(old, "spec.nodeName") != node {
        "can only delete ResourceSlice with the same NodeName as the requesting node".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::forbidden(&resource.about(meta(old, "name")), why))
}

/// Refuses tokens for pods that run elsewhere. `pod` is the one that the token is bound to, as it is stored.
pub fn judge_token(
    node: &str,
    pod: Option<&Tree>,
    has_uid: bool,
    audiences: &[String],
) -> Result<(), String> {
    let Some(pod) = pod else { return Err("node requested token not bound to a pod".into()) };
    if !has_uid {
        return Err("node requested token with a pod binding without a uid".into());
    }
    if text(pod, "spec.nodeName") != node {
        return Err("node requested token bound to a pod scheduled on a different node".into());
    }
    if audiences.len() > 1 {
        return Err("node may only request 0 or 1 audiences".into());
    }
    let Some(audience) = audiences.first().filter(|audience| !audience.is_empty()) else { return Ok(()) };
    let mut told = items(pod, "spec.volumes")
        .iter()
        .flat_map(|volume| items(volume, "projected.sources"))
        .map(|source| text(source, "serviceAccountToken.audience"));
    if told.any(|told| told == audience) {
        return Ok(());
    }
    Err(format!(
        "audience \"{audience}\" not found in pod spec volume, system:node:{node} is not authorized to request tokens for this audience"
    ))
}

fn judge_node(asked: &Asked<'_>, node: &str, object: &Tree) -> Result<(), Refusal> {
    let forbid = |why: String| Err(asked.forbid(object, why));
    let name = meta(object, "name");
    if name != node {
        return forbid(format!("node \"{node}\" is not allowed to modify node \"{name}\""));
    }
    let Some(old) = asked.old else {
        let forbidden = beyond(entries(object, "metadata.labels").map(|(key, _)| key));
        if forbidden.is_empty() {
            return Ok(());
        }
        let why =
            format!("node \"{node}\" is not allowed to set the following labels: {}", forbidden.join(", "));
        return forbid(why);
    };
    if at(old, "spec.taints") != at(object, "spec.taints") {
        return forbid(format!("node \"{node}\" is not allowed to modify taints"));
    }
    if at(old, "metadata.ownerReferences") != at(object, "metadata.ownerReferences") {
        return forbid(format!("node \"{node}\" is not allowed to modify ownerReferences"));
    }
    let (before, after) = (at(old, "metadata.labels"), at(object, "metadata.labels"));
    let keys: BTreeSet<&str> = entries(old, "metadata.labels")
        .chain(entries(object, "metadata.labels"))
        .map(|(key, _)| key)
        .collect();
    let forbidden = beyond(keys.into_iter().filter(|key| before.get(key) != after.get(key)));
    if forbidden.is_empty() {
        return Ok(());
    }
    forbid(format!("is not allowed to modify labels: {}", forbidden.join(", ")))
}

/// Those labels that are for others to say.
fn beyond<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let within = |domain: &str, of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    let is_beyond = |key: &&str| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let restricted = within(domain, "node-restriction.kubernetes.io");
        let kubernetes = within(domain, "kubernetes.io") || within(domain, "k8s.io");
        let own = LABELS.contains(key)
            || within(domain, "kubelet.kubernetes.io")
            || within(domain, "node.kubernetes.io");
        restricted || (kubernetes && !own)
    };
    let mut keys: Vec<&str> = keys.filter(is_beyond).collect();
    keys.sort_unstable();
    keys
}

fn judge_status(asked: &Asked<'_>, node: &str, pod: &Tree) -> Result<(), Refusal> {
    let Some(old) = asked.old else { return Ok(()) };
    let forbid = |why: String| Err(asked.forbid(pod, why));
    if text(old, "spec.nodeName") != node {
        return forbid(format!(
            "node \"{node}\" can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if at(old, "metadata.labels") != at(pod, "metadata.labels") {
        return forbid(format!("node \"{node}\" cannot update labels through pod status"));
    }
    if at(old, "status.resourceClaimStatuses") != at(pod, "status.resourceClaimStatuses") {
        return forbid(format!("node \"{node}\" cannot update resource claim statues"));
    }
    Ok(())
}

/// A new pod of an agent shows one that the agent was given by a file: it may name nothing that the API keeps.
fn judge_mirror(asked: &Asked<'_>, node: &str, pod: &Tree) -> Result<(), Refusal> {
    let forbid = |why: String| Err(asked.forbid(pod, why));
    if pod["metadata"]["annotations"].get(MIRROR).is_none() {
        return forbid(format!(
            "pod does not have \"{MIRROR}\" annotation, node \"{node}\" can only create mirror pods"
        ));
    }
    if text(pod, "spec.nodeName") != node {
        return forbid(format!("node \"{node}\" can only create pods with spec.nodeName set to itself"));
    }
    let [owner] = items(pod, "metadata.ownerReferences") else {
        return forbid(format!(
            "node \"{node}\" can only create pods with a single owner reference set to itself"
        ));
    };
    if text(owner, "kind") != "Node" || text(owner, "name") != node || owner["controller"] != true {
        return forbid(format!("node \"{node}\" can only create pods with an owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return forbid(format!("node \"{node}\" must not set blockOwnerDeletion on an owner reference"));
    }
    let own = asked.world.get(&Key::new(&kinds::NODE, "", node));
    let uid = own.as_ref().map(|own| own.uid()).unwrap_or_default();
    if text(owner, "uid") != uid {
        let said = text(owner, "uid");
        return forbid(format!("node {node} UID mismatch: expected {said} got {uid}"));
    }
    let names = |lists: &[&str], path: &str| {
        lists.iter().flat_map(|list| items(pod, list)).any(|item| is_there(item, path))
    };
    const CONTAINERS: [&str; 2] = ["spec.containers", "spec.initContainers"];
    let env = |path: &str| {
        CONTAINERS.iter().flat_map(|list| items(pod, list)).any(|container| {
            items(container, "env").iter().any(|env| is_there(env, &format!("valueFrom.{path}KeyRef")))
                || items(container, "envFrom").iter().any(|from| is_there(from, &format!("{path}Ref")))
        })
    };
    let what = if !text(pod, "spec.serviceAccountName").is_empty() {
        "serviceaccounts"
    } else if names(&["spec.volumes"], "secret")
        || !items(pod, "spec.imagePullSecrets").is_empty()
        || env("secret")
    {
        "secrets"
    } else if names(&["spec.volumes"], "configMap") || env("configMap") {
        "configmaps"
    } else if names(&["spec.volumes"], "projected") {
        "projected volumes"
    } else if names(&["spec.volumes"], "persistentVolumeClaim") {
        "persistentvolumeclaims"
    } else {
        return Ok(());
    };
    forbid(format!("node \"{node}\" can not create pods that reference {what}"))
}

fn judge_request(asked: &Asked<'_>, node: &str, object: &Tree) -> Result<(), Refusal> {
    if !matches!(text(object, "spec.signerName"), signing::NODE_CLIENT | signing::NODE_SERVING) {
        return Ok(());
    }
    let pem = STANDARD.decode(text(object, "spec.request")).ok().and_then(|pem| String::from_utf8(pem).ok());
    let request = pem.and_then(|pem| signing::read(&pem).ok());
    if request.is_some_and(|request| request.name == format!("system:node:{node}")) {
        return Ok(());
    }
    Err(asked.forbid(object, format!("can only create a node CSR with CN=system:node:{node}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::change_as;
    use super::*;

    fn check(gvr: &model::Gvr, part: &str, old: Option<Tree>, new: Tree, wanted: &str) {
        let look: super::super::testing::Plugin = |asked, object, extra| judge(asked, object, extra);
        let who = Identity::user("system:node:a", &["system:nodes"]);
        let said = change_as(&who, part, &[], gvr, look, old.as_ref(), new.clone());
        let said = said.err().unwrap_or_else(|| "yes".into());
        let said = said.split_once(" is forbidden: ").map_or(said.as_str(), |(_, why)| why);
        assert_eq!(said, wanted, "{new}");
    }

    fn node(labels: Tree) -> Tree {
        json!({"metadata": {"name": "a", "labels": labels}})
    }

    #[test]
    fn an_agent_says_of_its_own_node_what_it_knows() {
        let known = json!({"kubernetes.io/hostname": "a", "own": "x", "kubelet.kubernetes.io/y": "z"});
        check(&kinds::NODE, "", None, node(known.clone()), "yes");
        check(&kinds::NODE, "", Some(node(json!({}))), node(known), "yes");
        let role =
            json!({"node-role.kubernetes.io/control-plane": "", "node-restriction.kubernetes.io/x": ""});
        check(
            &kinds::NODE,
            "",
            None,
            node(role.clone()),
            "node \"a\" is not allowed to set the following labels: node-restriction.kubernetes.io/x, node-role.kubernetes.io/control-plane",
        );
        check(&kinds::NODE, "", Some(node(role.clone())), node(role.clone()), "yes");
        check(
            &kinds::NODE,
            "",
            Some(node(role)),
            node(json!({})),
            "is not allowed to modify labels: node-restriction.kubernetes.io/x, node-role.kubernetes.io/control-plane",
        );
        check(
            &kinds::NODE,
            "",
            None,
            json!({"metadata": {"name": "b"}}),
            "node \"a\" is not allowed to modify node \"b\"",
        );
        let tainted = json!({"metadata": {"name": "a"}, "spec": {"taints": [{"key": "k"}]}});
        check(&kinds::NODE, "", Some(tainted), node(json!({})), "node \"a\" is not allowed to modify taints");
    }

    #[test]
    fn an_agent_tells_of_its_own_pods_alone() {
        let pod = |node: &str, label: &str| json!({"metadata": {"name": "p", "namespace": "d", "labels": {"l": label}}, "spec": {"nodeName": node}});
        check(&kinds::POD, "status", Some(pod("a", "x")), pod("a", "x"), "yes");
        check(
            &kinds::POD,
            "status",
            Some(pod("b", "x")),
            pod("b", "x"),
            "node \"a\" can only update pod status for pods with spec.nodeName set to itself",
        );
        check(
            &kinds::POD,
            "status",
            Some(pod("a", "x")),
            pod("a", "y"),
            "node \"a\" cannot update labels through pod status",
        );
        check(
            &kinds::POD,
            "",
            None,
            pod("a", "x"),
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"a\" can only create mirror pods",
        );
        let resource = crate::testing::resource(&kinds::POD);
        let who = Identity::user("system:node:a", &["system:nodes"]);
        assert!(judge_end(&resource, &who, &pod("a", "x"), "").is_ok());
        assert!(judge_end(&resource, &who, &pod("b", "x"), "eviction").is_err());
        assert!(judge_end(&resource, &Identity::user("ann", &[]), &pod("b", "x"), "").is_ok());
    }

    #[test]
    fn a_token_is_for_a_pod_that_runs_here() {
        let pod = json!({"spec": {"nodeName": "a", "volumes": [{"projected": {"sources": [{"serviceAccountToken": {"audience": "vault"}}]}}]}});
        let said = |node: &str, pod: Option<&Tree>, uid: bool, audience: &str| {
            let audiences: Vec<String> =
                [audience.to_owned()].into_iter().filter(|one| !one.is_empty()).collect();
            judge_token(node, pod, uid, &audiences).err().unwrap_or_default()
        };
        assert_eq!(said("a", Some(&pod), true, ""), "");
        assert_eq!(said("a", Some(&pod), true, "vault"), "");
        assert!(said("a", Some(&pod), true, "other").starts_with("audience \"other\" not found"));
        assert_eq!(
            said("b", Some(&pod), true, ""),
            "node requested token bound to a pod scheduled on a different node"
        );
        assert_eq!(said("a", None, true, ""), "node requested token not bound to a pod");
        assert_eq!(said("a", Some(&pod), false, ""), "node requested token with a pod binding without a uid");
    }

    #[test]
    fn a_lease_and_a_request_are_those_of_the_node() {
        check(
            &kinds::LEASE,
            "",
            None,
            json!({"metadata": {"name": "b", "namespace": "kube-node-lease"}}),
            "can only access node lease with the same name as the requesting node",
        );
        let request = |node: &str| {
            let (_, pem) = signing::new_request(&format!("system:node:{node}"), "system:nodes", &[])
                .expect("keys can be drawn");
            json!({"metadata": {"name": "r"}, "spec": {"signerName": signing::NODE_CLIENT, "request": STANDARD.encode(pem)}})
        };
        check(&kinds::CERTIFICATE_SIGNING_REQUEST, "", None, request("a"), "yes");
        check(
            &kinds::CERTIFICATE_SIGNING_REQUEST,
            "",
            None,
            request("b"),
            "can only create a node CSR with CN=system:node:a",
        );
    }
}
