//! What can be seen of the cluster at one moment: every object as its history has it, and what really runs.

use std::collections::{BTreeMap, BTreeSet};

use model::{Gvr, Tree, kinds};

use super::aliases::{Aliases, placed};

/// All that is seen.
#[derive(Default)]
pub struct Sight {
    /// The objects, by path.
    pub objects: BTreeMap<String, Seen>,
    /// The path of every object, by uid.
    pub uids: BTreeMap<String, String>,
    /// The revisions at which each path was written or removed, in order.
    pub histories: BTreeMap<String, Vec<u64>>,
    /// The revision up to which the history was seen.
    pub revision: u64,
    /// What pods are called.
    pub aliases: Aliases,
    /// What runs: node and container id, by pod uid and container name.
    pub running: BTreeMap<(String, String), (String, String)>,
    /// How often each container was started, by pod uid and container name.
    pub starts: BTreeMap<(String, String), u32>,
    /// Nodes that pods were bound to, by pod uid.
    pub bound: BTreeMap<String, String>,
    /// Pods that somebody removed by force, by uid: their containers may outlive them for a moment.
    pub forced: BTreeSet<String>,
    /// What came of requests to Services, by the name of the load.
    pub loads: BTreeMap<String, Load>,
}

/// What came of the requests of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests sent.
    pub sent: u64,
    /// Requests without a good answer.
    pub failed: u64,
}

/// An object as the history has it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The revision that wrote it.
    pub revision: u64,
    /// The whole.
    pub tree: Tree,
}

/// The path of an object in the store.
pub fn path_of(gvr: &Gvr, namespace: &str, name: &str) -> String {
    match namespace {
        "" => format!("/{gvr}/{name}"),
        _ => format!("/{gvr}/{namespace}/{name}"),
    }
}

/// The text at a path of a tree, or nothing.
pub fn text<'a>(tree: &'a Tree, path: &str) -> &'a str {
    at(tree, path).as_str().unwrap_or_default()
}

/// What stands at a path of a tree.
pub fn at<'a>(tree: &'a Tree, path: &str) -> &'a Tree {
    path.split('.').fold(tree, |tree, name| match name.parse::<usize>() {
        Ok(index) if tree.is_array() => &tree[index],
        _ => &tree[name],
    })
}

/// The items at a path of a tree.
pub fn items<'a>(tree: &'a Tree, path: &str) -> impl Iterator<Item = &'a Tree> + use<'a> {
    at(tree, path).as_array().into_iter().flatten()
}

/// The status of a condition: `True`, `False`, `Unknown`, or nothing.
pub fn condition<'a>(tree: &'a Tree, kind: &str) -> &'a str {
    items(tree, "status.conditions").find(|one| one["type"] == kind).map_or("", |one| text(one, "status"))
}

/// The statuses of a pod's containers, init containers first.
pub fn containers(pod: &Tree) -> impl Iterator<Item = &Tree> {
    items(pod, "status.initContainerStatuses").chain(items(pod, "status.containerStatuses"))
}

impl Sight {
    /// An object.
    pub fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Option<&Tree> {
        self.objects.get(&path_of(gvr, namespace, name)).map(|seen| &seen.tree)
    }

    /// All objects of a resource, with their paths.
    pub fn all<'a>(&'a self, gvr: &Gvr) -> impl Iterator<Item = (&'a str, &'a Tree)> + use<'a> {
        let prefix = format!("/{gvr}/");
        let from = self.objects.range(prefix.clone()..);
        from.take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, seen)| (path.as_str(), &seen.tree))
    }

    /// The pod of an alias, its tree if it is (still) there.
    pub fn pod(&self, alias: &str) -> Option<(&str, Option<&Tree>)> {
        let live = |uid: &str, path: &str| self.live(uid, path).is_some();
        let (uid, path) = self.aliases.find(alias, live)?;
        Some((uid, self.live(uid, path)))
    }

    fn live(&self, uid: &str, path: &str) -> Option<&Tree> {
        let tree = &self.objects.get(path)?.tree;
        (text(tree, "metadata.uid") == uid).then_some(tree)
    }

    /// What an object is called in a timeline.
    pub fn called(&self, tree: &Tree) -> String {
        match self.aliases.of(text(tree, "metadata.uid")) {
            Some(named) => named.alias.clone(),
            None => placed(text(tree, "metadata.namespace"), text(tree, "metadata.name")),
        }
    }

    /// Gives a new pod its alias.
    pub fn name_pod(&mut self, path: &str, pod: &Tree) {
        let root = self.root_of(pod);
        let (namespace, name) = (text(pod, "metadata.namespace"), text(pod, "metadata.name"));
        self.aliases.add(text(pod, "metadata.uid"), path, namespace, name, root.as_deref());
    }

    /// The workload that a pod belongs to; `None` when its name is its own.
    fn root_of(&self, pod: &Tree) -> Option<String> {
        let owner = controller(pod)?;
        let (kind, name) = (text(owner, "kind"), text(owner, "name"));
        if kind == "StatefulSet" {
            return None;
        }
        let set = (kind == "ReplicaSet")
            .then(|| self.get(&kinds::REPLICA_SET, text(pod, "metadata.namespace"), name));
        let upper = set.flatten().and_then(controller);
        Some(upper.map_or(name, |upper| text(upper, "name")).to_owned())
    }

    /// The pods behind a Service that its slices call ready, by alias, in order.
    pub fn ready_behind(&self, namespace: &str, service: &str) -> Vec<String> {
        let slices = self.all(&kinds::ENDPOINT_SLICE).filter(|(_, slice)| {
            text(slice, "metadata.namespace") == namespace
                && slice["metadata"]["labels"]["kubernetes.io/service-name"] == service
        });
        let mut ready: Vec<String> = slices.flat_map(|(_, slice)| self.ready_in(slice)).collect();
        ready.sort();
        ready.dedup();
        ready
    }

    /// The pods that a slice calls ready, by alias.
    pub fn ready_in(&self, slice: &Tree) -> Vec<String> {
        let ready = items(slice, "endpoints").filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let each = ready.map(|endpoint| match self.aliases.of(text(endpoint, "targetRef.uid")) {
            Some(named) => named.alias.clone(),
            None => text(endpoint, "addresses.0").to_owned(),
        });
        let mut each: Vec<String> = each.collect();
        each.sort();
        each
    }
}

/// The owner that manages an object.
pub fn controller(tree: &Tree) -> Option<&Tree> {
    items(tree, "metadata.ownerReferences").find(|owner| owner["controller"] == true)
}
