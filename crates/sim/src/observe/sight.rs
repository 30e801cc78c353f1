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
    /// What runs, by pod uid and container name.
    pub running: BTreeMap<(String, String), Running>,
    /// Machines that stand still as a whole, or did a moment ago: what their monitors have not yet killed writes nothing, or
    /// is given the time that a kill takes.
    pub frozen: BTreeMap<String, Frozen>,
    /// The newest epoch of each node's lease.
    pub epochs: BTreeMap<String, u64>,
    /// How often each container was started, by pod uid and container name.
    pub starts: BTreeMap<(String, String), u32>,
    /// How often each pod became ready or unready, by its uid.
    pub flips: BTreeMap<String, u32>,
    /// Nodes that pods were bound to, by pod uid.
    pub bound: BTreeMap<String, String>,
    /// Pods that somebody removed by force, by uid: their containers may outlive them for a moment.
    pub forced: BTreeSet<String>,
    /// What came of requests to Services, by the name of the load.
    pub loads: BTreeMap<String, Load>,
}

/// A container that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// On which node.
    pub node: String,
    /// Its id.
    pub id: String,
    /// The pod's namespace and name.
    pub pod: String,
    /// The epoch under which its pod was bound; `None`: it is not fenced.
    pub epoch: Option<u64>,
    /// The claims of its pod that one node at a time may use, each with its namespace.
    pub claims: Vec<String>,
}

/// A machine that stands still, or did a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// It stands still.
    Still,
    /// It goes on, and its monitors do what is overdue.
    Thawing,
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

    /// What a container of a pod will be when it runs.
    pub fn runs(&self, node: &str, id: &str, namespace: &str, name: &str) -> Running {
        let pod = self.get(&kinds::POD, namespace, name).unwrap_or(&Tree::Null);
        let exclusive = |claim: &str| {
            let modes =
                items(self.get(&kinds::PERSISTENT_VOLUME_CLAIM, namespace, claim)?, "spec.accessModes");
            let is_exclusive =
                modes.into_iter().all(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod");
            is_exclusive.then(|| format!("{namespace}/{claim}"))
        };
        let claims = items(pod, "spec.volumes").map(|volume| text(volume, "persistentVolumeClaim.claimName"));
        Running {
            node: node.to_owned(),
            id: id.to_owned(),
            pod: format!("{namespace}/{name}"),
            epoch: at(pod, "metadata.annotations")
                .get(model::fence::FENCE)
                .and_then(|epoch| epoch.as_str()?.parse().ok()),
            claims: claims.filter_map(exclusive).collect(),
        }
    }

    /// Whether a container writes: its machine does not stand still, or has been given the time that a kill takes.
    pub fn writes(&self, running: &Running) -> bool {
        !self.frozen.contains_key(&running.node)
    }

    /// What of a pod runs that must not run beside others that do.
    pub fn quarrels(&self) -> Vec<String> {
        let all: Vec<(&String, &Running)> = self
            .running
            .iter()
            .filter(|(_, one)| self.writes(one) && (one.epoch.is_some() || !one.claims.is_empty()))
            .map(|((uid, _), one)| (uid, one))
            .collect();
        let mut quarrels = Vec::new();
        for (at, (uid, one)) in all.iter().enumerate() {
            let others = all[at + 1..].iter().filter(|(other, _)| other != uid);
            quarrels.extend(others.filter_map(|(_, other)| one.quarrels(other)));
        }
        quarrels
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

impl Running {
    /// Why two containers that run at once must not, if they must not.
    fn quarrels(&self, other: &Running) -> Option<String> {
        if self.pod == other.pod && self.epoch.is_some() && other.epoch.is_some() {
            return Some(format!(
                "an identity never runs twice: {} runs on {} and {}",
                self.pod, self.node, other.node
            ));
        }
        let claim = self.claims.iter().find(|claim| other.claims.contains(claim));
        let claim = claim.filter(|_| self.node != other.node)?;
        Some(format!(
            "an exclusive volume never has two writers: {claim} is used by {} on {} and {} on {}",
            self.pod, self.node, other.pod, other.node
        ))
    }
}

/// The owner that manages an object.
pub fn controller(tree: &Tree) -> Option<&Tree> {
    items(tree, "metadata.ownerReferences").find(|owner| owner["controller"] == true)
}
