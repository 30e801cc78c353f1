//! What a node's agent may do: read what its own pods need, and write what is its own.
//!
//! Pure over a view. Whatever its rules do not allow is left to the roles.

use model::tree::{at, items, text};
use model::{Key, Tree, World, kinds, storage};

use super::rbac::Rule;
use super::{Attributes, Identity};

/// The group of nodes' agents.
pub const NODES: &str = "system:nodes";
/// What the names of their users begin with.
const USER_PREFIX: &str = "system:node:";
/// The namespace of nodes' leases.
const LEASES: &str = "kube-node-lease";

impl Identity {
    /// The name of the node whose agent this is.
    pub fn node(&self) -> Option<&str> {
        let name = self.name.strip_prefix(USER_PREFIX)?;
        (!name.is_empty() && self.is_in(NODES)).then_some(name)
    }
}

/// Finds pods by the node they are bound to.
pub trait Bound: World {
    /// The pods of a namespace (`""`: of all) that are bound to a node.
    fn bound_to(&self, node: &str, namespace: &str) -> Vec<Tree>;
}

/// Whether the agent of `node` may do it; `Err` says why its own rules do not allow it.
pub fn decide(world: &dyn Bound, rules: &[Rule], node: &str, what: &Attributes) -> Result<(), String> {
    let rules_allow = || match rules.iter().any(|rule| rule.covers(what)) {
        true => Ok(()),
        false => Err(String::new()),
    };
    if !what.is_resource() {
        return rules_allow();
    }
    match (what.group.as_str(), what.resource.as_str()) {
        ("", "secrets" | "configmaps") => read_namespaced(world, node, what),
        ("", "persistentvolumeclaims") if what.subresource == "status" => match what.verb.as_str() {
            "update" | "patch" => related(world, node, what),
            _ => no("can only get/update/patch this type"),
        },
        ("", "persistentvolumes") | ("storage.k8s.io", "volumeattachments") => volume(world, node, what),
        ("", "persistentvolumeclaims") | ("resource.k8s.io", "resourceclaims") => get_one(world, node, what),
        ("", "serviceaccounts") if what.verb == "get" && what.subresource.is_empty() => {
            read_namespaced(world, node, what)
        }
        ("", "serviceaccounts") => token(world, node, what),
        ("coordination.k8s.io", "leases") => lease(node, what),
        ("storage.k8s.io", "csinodes") => csi_node(node, what),
        ("resource.k8s.io", "resourceslices") => slice(node, what),
        ("", "nodes") => own_node(node, what).and_then(|()| rules_allow()),
        ("", "pods") => pods(world, node, what).and_then(|()| rules_allow()),
        _ => rules_allow(),
    }
}

fn no(why: &str) -> Result<(), String> {
    Err(why.to_owned())
}

fn is_write(verb: &str) -> bool {
    matches!(verb, "get" | "create" | "update" | "patch" | "delete")
}

fn read_namespaced(world: &dyn Bound, node: &str, what: &Attributes) -> Result<(), String> {
    match what.verb.as_str() {
        _ if !matches!(what.verb.as_str(), "get" | "list" | "watch") => {
            no("can only read resources of this type")
        }
        _ if !what.subresource.is_empty() => no("cannot read subresource"),
        _ if what.namespace.is_empty() => no("can only read namespaced object of this type"),
        _ => related(world, node, what),
    }
}

fn get_one(world: &dyn Bound, node: &str, what: &Attributes) -> Result<(), String> {
    match what.verb.as_str() {
        "get" if what.subresource.is_empty() => related(world, node, what),
        "get" => no("cannot get subresource"),
        // One object, as its name selects it: read as a get is, and followed.
        "list" | "watch" if !what.name.is_empty() => related(world, node, what),
        _ => no("can only get individual resources of this type"),
    }
}

/// All volumes and attachments may be seen: whoever removes data, or lets a volume go, must see which. Of the built-in
/// drivers' a node writes those that are on it, and those that all nodes reach.
fn volume(world: &dyn Bound, node: &str, what: &Attributes) -> Result<(), String> {
    match what.verb.as_str() {
        "list" | "watch" if what.subresource.is_empty() => Ok(()),
        "patch" if is_kept_by(world, node, what) => Ok(()),
        _ => get_one(world, node, what),
    }
}

fn is_kept_by(world: &dyn Bound, node: &str, what: &Attributes) -> bool {
    let is_volume = what.resource == "persistentvolumes";
    let gvr = if is_volume { &kinds::PERSISTENT_VOLUME } else { &kinds::VOLUME_ATTACHMENT };
    let object = world.get(&Key::new(gvr, "", what.name.as_str())).and_then(|object| object.tree().ok());
    let Some(object) = object else { return false };
    let driver = text(&object, if is_volume { "spec.csi.driver" } else { "spec.attacher" });
    match driver {
        storage::LOCAL if is_volume => object["spec"]["csi"]["volumeAttributes"][storage::NODE] == node,
        storage::SHARED if is_volume => what.subresource.is_empty(),
        storage::SHARED => text(&object, "spec.nodeName") == node,
        _ => false,
    }
}

fn token(world: &dyn Bound, node: &str, what: &Attributes) -> Result<(), String> {
    if what.verb != "create" || what.name.is_empty() {
        return no("can only create tokens for individual service accounts");
    }
    if what.subresource != "token" {
        return no("can only create token subresource of serviceaccount");
    }
    related(world, node, what)
}

fn lease(node: &str, what: &Attributes) -> Result<(), String> {
    match what.verb.as_str() {
        verb if !is_write(verb) => no("can only get, create, update, patch, or delete a node lease"),
        _ if what.namespace != LEASES => {
            Err(format!("can only access leases in the \"{LEASES}\" system namespace"))
        }
        // The name of what is made is in its body, which admission sees.
        "create" => Ok(()),
        _ if what.name == node => Ok(()),
        _ => no("can only access node lease with the same name as the requesting node"),
    }
}

fn csi_node(node: &str, what: &Attributes) -> Result<(), String> {
    match what.verb.as_str() {
        verb if !is_write(verb) => no("can only get, create, update, patch, or delete a CSINode"),
        _ if !what.subresource.is_empty() => no("cannot authorize CSINode subresources"),
        "create" => Ok(()),
        _ if what.name == node => Ok(()),
        _ => no("can only access CSINode with the same name as the requesting node"),
    }
}

fn slice(node: &str, what: &Attributes) -> Result<(), String> {
    if !what.subresource.is_empty() {
        return no("cannot authorize ResourceSlice subresources");
    }
    match what.verb.as_str() {
        "create" => Ok(()),
        "get" | "update" | "patch" | "delete" => {
            // Admission sees whose a slice is; its name begins with the node's.
            match what.name.starts_with(node) {
                true => Ok(()),
                false => Err(format!("no relationship found between node '{node}' and this object")),
            }
        }
        "list" | "watch" | "deletecollection" if what.requires("spec.nodeName") == Some(node) => Ok(()),
        "list" | "watch" | "deletecollection" => {
            no("can only list/watch/deletecollection resourceslices with nodeName field selector")
        }
        _ => no(
            "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
        ),
    }
}

/// All nodes may be read, for their agents make the routes between them; only the own one may be written.
fn own_node(node: &str, what: &Attributes) -> Result<(), String> {
    match what.verb.as_str() {
        "update" | "patch" if what.name != node => {
            Err(format!("node '{node}' cannot update '{}', only its own Node object", what.name))
        }
        _ => Ok(()),
    }
}

fn pods(world: &dyn Bound, node: &str, what: &Attributes) -> Result<(), String> {
    match what.verb.as_str() {
        "get" => related(world, node, what),
        "list" | "watch" if what.requires("spec.nodeName") == Some(node) => Ok(()),
        // One pod, as its name selects it.
        "list" | "watch" if !what.name.is_empty() => related(world, node, what),
        "list" | "watch" => no("can only list/watch pods with spec.nodeName field selector"),
        _ => Ok(()),
    }
}

/// Whether a pod that is bound to the node leads to the object.
fn related(world: &dyn Bound, node: &str, what: &Attributes) -> Result<(), String> {
    if what.name.is_empty() {
        return no("No Object name found");
    }
    let leads = match what.resource.as_str() {
        "persistentvolumes" => leads_to_volume(world, node, &what.name),
        "volumeattachments" => attached(world, node, &what.name),
        "secrets" => {
            let pods = world.bound_to(node, &what.namespace);
            pods.iter().filter(|pod| !is_mirror(pod)).any(|pod| refers(pod, "secrets", &what.name))
                || volumes_of(world, node).any(|volume| keeps_secret(&volume, &what.namespace, &what.name))
        }
        resource => {
            let pods = world.bound_to(node, &what.namespace);
            let mirrors = resource == "pods";
            pods.iter().filter(|pod| mirrors || !is_mirror(pod)).any(|pod| refers(pod, resource, &what.name))
        }
    };
    if leads { Ok(()) } else { Err(format!("no relationship found between node '{node}' and this object")) }
}

/// A pod that the agent made up itself is no proof of anything.
fn is_mirror(pod: &Tree) -> bool {
    pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
}

/// Whether a pod names an object of its namespace.
fn refers(pod: &Tree, resource: &str, name: &str) -> bool {
    match resource {
        "pods" => text(pod, "metadata.name") == name,
        "serviceaccounts" => text(pod, "spec.serviceAccountName") == name,
        "persistentvolumeclaims" => claims(pod).iter().any(|claim| claim == name),
        "resourceclaims" => {
            let named =
                items(pod, "spec.resourceClaims").iter().map(|claim| text(claim, "resourceClaimName"));
            let made = items(pod, "status.resourceClaimStatuses").iter();
            let extended = text(pod, "status.extendedResourceClaimStatus.resourceClaimName");
            named
                .chain(made.map(|claim| text(claim, "resourceClaimName")))
                .chain([extended])
                .any(|own| own == name)
        }
        "secrets" => secrets(pod).contains(&name),
        "configmaps" => config_maps(pod).contains(&name),
        _ => false,
    }
}

fn containers(pod: &Tree) -> impl Iterator<Item = &Tree> {
    ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"]
        .into_iter()
        .flat_map(|list| items(pod, list))
}

fn secrets(pod: &Tree) -> Vec<&str> {
    let mut names: Vec<&str> =
        items(pod, "spec.imagePullSecrets").iter().map(|secret| text(secret, "name")).collect();
    for container in containers(pod) {
        let keys = items(container, "env").iter().map(|env| text(env, "valueFrom.secretKeyRef.name"));
        names.extend(keys);
        names.extend(items(container, "envFrom").iter().map(|from| text(from, "secretRef.name")));
    }
    for volume in items(pod, "spec.volumes") {
        names.push(text(volume, "secret.secretName"));
        names.push(text(volume, "azureFile.secretName"));
        names.push(text(volume, "csi.nodePublishSecretRef.name"));
        names.extend(items(volume, "projected.sources").iter().map(|source| text(source, "secret.name")));
        let sources = volume.as_object().into_iter().flatten();
        names.extend(sources.map(|(_, source)| text(source, "secretRef.name")));
    }
    names.retain(|name| !name.is_empty());
    names
}

fn config_maps(pod: &Tree) -> Vec<&str> {
    let mut names = Vec::new();
    for container in containers(pod) {
        let keys = items(container, "env").iter().map(|env| text(env, "valueFrom.configMapKeyRef.name"));
        names.extend(keys);
        names.extend(items(container, "envFrom").iter().map(|from| text(from, "configMapRef.name")));
    }
    for volume in items(pod, "spec.volumes") {
        names.push(text(volume, "configMap.name"));
        names.extend(items(volume, "projected.sources").iter().map(|source| text(source, "configMap.name")));
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The claims that a pod uses, those made for it included.
fn claims(pod: &Tree) -> Vec<String> {
    let of = |volume: &Tree| match text(volume, "persistentVolumeClaim.claimName") {
        "" if at(volume, "ephemeral").is_object() => {
            Some(format!("{}-{}", text(pod, "metadata.name"), text(volume, "name")))
        }
        "" => None,
        name => Some(name.to_owned()),
    };
    items(pod, "spec.volumes").iter().filter_map(of).collect()
}

/// The volumes that the claims of a node's pods are bound to.
fn volumes_of(world: &dyn Bound, node: &str) -> impl Iterator<Item = Tree> {
    let mut volumes = Vec::new();
    for pod in world.bound_to(node, "") {
        let namespace = text(&pod, "metadata.namespace").to_owned();
        for claim in claims(&pod) {
            let key = Key::new(&kinds::PERSISTENT_VOLUME_CLAIM, &namespace, &claim);
            let Some(claim) = world.get(&key).and_then(|claim| claim.tree().ok()) else { continue };
            let key = Key::new(&kinds::PERSISTENT_VOLUME, "", text(&claim, "spec.volumeName"));
            volumes.extend(world.get(&key).and_then(|volume| volume.tree().ok()));
        }
    }
    volumes.into_iter()
}

fn leads_to_volume(world: &dyn Bound, node: &str, name: &str) -> bool {
    volumes_of(world, node).any(|volume| text(&volume, "metadata.name") == name)
}

fn keeps_secret(volume: &Tree, namespace: &str, name: &str) -> bool {
    let own = text(volume, "spec.claimRef.namespace");
    let is = |secret: &Tree, default: &str| {
        let within = match text(secret, "namespace") {
            "" => default,
            within => within,
        };
        text(secret, "name") == name && within == namespace
    };
    let csi = ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"];
    let sources = volume["spec"].as_object().into_iter().flatten();
    csi.iter().any(|field| is(at(volume, &format!("spec.csi.{field}")), ""))
        || sources.into_iter().any(|(_, source)| is(&source["secretRef"], own))
}

fn attached(world: &dyn Bound, node: &str, name: &str) -> bool {
    let found = world.get(&Key::new(&kinds::VOLUME_ATTACHMENT, "", name));
    found.and_then(|found| found.tree().ok()).is_some_and(|found| text(&found, "spec.nodeName") == node)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admit::testing::Few;

    impl Bound for Few {
        fn bound_to(&self, node: &str, namespace: &str) -> Vec<Tree> {
            let pods = self.list(&kinds::POD, namespace).into_iter().filter_map(|pod| pod.tree().ok());
            pods.filter(|pod| text(pod, "spec.nodeName") == node).collect()
        }
    }

    fn world() -> Few {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"nodeName": "a", "serviceAccountName": "s",
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "env"}}}]}],
            "volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "root"}}]}},
                {"name": "w", "persistentVolumeClaim": {"claimName": "claim"}}]}});
        let mirror = json!({"metadata": {"name": "m", "namespace": "d", "annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": "a", "volumes": [{"name": "v", "secret": {"secretName": "bait"}}]}});
        let claim = json!({"metadata": {"name": "claim", "namespace": "d"}, "spec": {"volumeName": "vol"}});
        let volume = json!({"metadata": {"name": "vol"},
            "spec": {"csi": {"nodeStageSecretRef": {"name": "stage", "namespace": "k"}}}});
        let attachment = json!({"metadata": {"name": "att"}, "spec": {"nodeName": "a"}});
        let here = json!({"metadata": {"name": "here"},
            "spec": {"csi": {"driver": storage::LOCAL, "volumeAttributes": {"node": "a"}}}});
        let held =
            json!({"metadata": {"name": "held"}, "spec": {"nodeName": "a", "attacher": storage::SHARED}});
        Few::new(&[
            (&kinds::POD, &pod.to_string()),
            (&kinds::POD, &mirror.to_string()),
            (&kinds::PERSISTENT_VOLUME_CLAIM, &claim.to_string()),
            (&kinds::PERSISTENT_VOLUME, &volume.to_string()),
            (&kinds::VOLUME_ATTACHMENT, &attachment.to_string()),
            (&kinds::PERSISTENT_VOLUME, &here.to_string()),
            (&kinds::VOLUME_ATTACHMENT, &held.to_string()),
        ])
    }

    /// `VERB GROUP/RESOURCE[/PART] [NAMESPACE/]NAME [FIELD=VALUE]`; a dash is nothing.
    fn check(node: &str, asked: &str, wanted: &str) {
        let words: Vec<&str> = asked.split(' ').collect();
        let mut what = words[1].split('/');
        let (namespace, name) = words[2].split_once('/').unwrap_or(("", words[2]));
        let plain = |word: &str| if word == "-" { String::new() } else { word.to_owned() };
        let what = Attributes {
            verb: words[0].into(),
            group: plain(what.next().unwrap_or_default()),
            resource: plain(what.next().unwrap_or_default()),
            subresource: plain(what.next().unwrap_or_default()),
            namespace: plain(namespace),
            name: plain(name),
            fields: words
                .get(3)
                .and_then(|pair| pair.split_once('='))
                .map(|(k, v)| (k.into(), v.into()))
                .into_iter()
                .collect(),
            ..Attributes::default()
        };
        let rule = |verbs: &str, resources: &str| Rule {
            verbs: verbs.split(',').map(str::to_owned).collect(),
            api_groups: vec![String::new()],
            resources: resources.split(',').map(str::to_owned).collect(),
            ..Rule::default()
        };
        let rules =
            [rule("get,list,watch,update,patch,create,delete", "nodes,nodes/status,pods,pods/status")];
        let said = decide(&world(), &rules, node, &what).err().unwrap_or_else(|| "yes".into());
        assert_eq!(said, wanted, "{node}: {asked}");
    }

    #[test]
    fn an_agent_reads_what_its_pods_name_and_nothing_else() {
        let stranger = "no relationship found between node 'b' and this object";
        for asked in [
            "get -/secrets d/pull",
            "watch -/secrets d/env",
            "list -/configmaps d/root",
            "get -/persistentvolumeclaims d/claim",
            "get -/persistentvolumes vol",
            "get -/secrets k/stage",
            "create -/serviceaccounts/token d/s",
            "get storage.k8s.io/volumeattachments att",
            "get -/pods d/p",
        ] {
            check("a", asked, "yes");
            check("b", asked, stranger);
        }
        check("a", "get -/secrets d/other", "no relationship found between node 'a' and this object");
        check("a", "get -/secrets e/pull", "no relationship found between node 'a' and this object");
        check("a", "list -/secrets d/-", "No Object name found");
        check("a", "update -/secrets d/pull", "can only read resources of this type");
        check("a", "list -/persistentvolumeclaims d/-", "can only get individual resources of this type");
        check("a", "patch -/persistentvolumes vol", "can only get individual resources of this type");
    }

    #[test]
    fn an_agent_writes_the_volumes_that_it_keeps() {
        check("a", "watch -/persistentvolumes -", "yes");
        check("b", "list storage.k8s.io/volumeattachments -", "yes");
        let no = "can only get individual resources of this type";
        for asked in ["patch -/persistentvolumes here", "patch storage.k8s.io/volumeattachments/status held"]
        {
            check("a", asked, "yes");
            check("b", asked, no);
        }
        check("a", "delete -/persistentvolumes here", no);
    }

    #[test]
    fn a_pod_that_the_agent_made_up_proves_nothing() {
        check("a", "get -/secrets d/bait", "no relationship found between node 'a' and this object");
    }

    #[test]
    fn an_agent_writes_what_is_its_own() {
        check("a", "update coordination.k8s.io/leases kube-node-lease/a", "yes");
        check(
            "a",
            "update coordination.k8s.io/leases kube-node-lease/b",
            "can only access node lease with the same name as the requesting node",
        );
        check(
            "a",
            "get coordination.k8s.io/leases d/a",
            "can only access leases in the \"kube-node-lease\" system namespace",
        );
        check("a", "patch -/nodes/status a", "yes");
        check("a", "patch -/nodes/status b", "node 'a' cannot update 'b', only its own Node object");
        check("a", "watch -/pods - spec.nodeName=a", "yes");
        check(
            "a",
            "watch -/pods - spec.nodeName=b",
            "can only list/watch pods with spec.nodeName field selector",
        );
        check("a", "list -/pods -", "can only list/watch pods with spec.nodeName field selector");
        check(
            "a",
            "delete storage.k8s.io/csinodes b",
            "can only access CSINode with the same name as the requesting node",
        );
        check("a", "delete -/namespaces d", "");
    }
}
