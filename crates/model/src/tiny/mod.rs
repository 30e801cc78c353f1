//! A tiny world written as text: what a decision sees in tests, and a place where its plan can be carried out.
//!
//! One object a line: resource, name, then `path=value` pairs and a few short words; a line that begins with `+`
//! goes on with the object before it.
//!
//! ```text
//! replicasets web spec.replicas=2 spec.selector.matchLabels.app=web
//! pods web-1 labels=app:web owner=replicasets/web on=a ready@5
//! nodes a status.allocatable={"cpu":"4","pods":"110"}
//! ```
//!
//! It promises that the same text gives the same world. It checks nothing that the API would check.

use std::collections::BTreeMap;

use crate::{Gvr, Key, Object, Plan, Precondition, Resource, Time, Tree, World, Write, kinds};

mod expect;
mod text;

pub use expect::{check, told};

/// A world held in memory.
#[derive(Debug, Clone, Default)]
pub struct TinyWorld {
    objects: BTreeMap<Key, Tree>,
    /// The revision of the last write, and the source of uids.
    revision: u64,
    /// Creations of these resources are refused with this message.
    refused: BTreeMap<String, String>,
}

/// The moment `seconds` after the beginning of time, which tests count from.
pub fn at(seconds: i64) -> Time {
    Time::from_second(seconds).unwrap_or(Time::UNIX_EPOCH)
}

impl TinyWorld {
    /// Reads a world.
    ///
    /// # Panics
    /// When the text makes no sense: it is part of a test.
    pub fn read(text: &str) -> Self {
        let mut world = Self { revision: 1, ..Self::default() };
        for (key, tree) in text::objects(text) {
            world.objects.insert(key, tree);
        }
        world
    }

    /// Refuses the creation of a resource from now on.
    pub fn refuse(&mut self, plural: &str, message: &str) {
        self.refused.insert(plural.into(), message.into());
    }

    /// Refuses it no longer.
    pub fn allow(&mut self, plural: &str) {
        self.refused.remove(plural);
    }

    /// Adds or replaces the objects of the text.
    pub fn also(&mut self, text: &str) -> &mut Self {
        for (key, mut tree) in text::objects(text) {
            self.stamp(&mut tree);
            self.objects.insert(key, tree);
        }
        self
    }

    /// Takes an object away, as if it had never been.
    pub fn drop(&mut self, key: &Key) -> &mut Self {
        self.objects.remove(key);
        self
    }

    /// An object's tree.
    pub fn tree(&self, key: &Key) -> Option<&Tree> {
        self.objects.get(key)
    }

    /// Carries a plan out, as the API would; gives what was refused.
    pub fn apply(&mut self, plan: &Plan, now: Time) -> Result<(), String> {
        plan.acts.iter().try_for_each(|act| {
            let done = self.write(&act.write, now);
            if let (Err(message), Some(instead)) = (&done, &act.otherwise) {
                self.write(&with_refusal(instead, message), now)?;
            }
            done
        })
    }

    /// Decides and carries out until nothing more is to be written; gives the number of passes.
    ///
    /// # Panics
    /// When it does not end within `passes_max`.
    pub fn settle(&mut self, passes_max: usize, now: Time, decide: impl Fn(&Self) -> Plan) -> usize {
        for pass in 0..passes_max {
            let plan = decide(self);
            if plan.is_quiet() {
                return pass;
            }
            if let Err(refusal) = self.apply(&plan, now) {
                assert!(pass + 1 < passes_max, "refused: {refusal} in\n{}", told(&plan).join("\n"));
            }
        }
        panic!("not quiet after {passes_max} passes:\n{}", told(&decide(self)).join("\n"));
    }

    fn write(&mut self, write: &Write, now: Time) -> Result<(), String> {
        match write {
            Write::Create { gvr, namespace, object } => self.create(gvr, namespace, object, now),
            Write::Patch { key, part, patch, when } => self.patch(key, part, patch, when, now),
            Write::Replace { key, part, object } => {
                self.patch(key, part, object, &Precondition::default(), now)
            }
            Write::Bind { pod, node, .. } => {
                let patch = serde_json::json!({"spec": {"nodeName": node}, "status": {"conditions":
                    [{"type": "PodScheduled", "status": "True"}]}});
                self.patch(pod, "", &patch, &Precondition::default(), now)
            }
            Write::Absent { key, uid } => match self.get(key) {
                Some(there) if there.uid() == uid => Err(format!("{key} is there")),
                _ => Ok(()),
            },
            // In the small world everybody agrees, and the silent are silent.
            Write::Votes { .. } | Write::Knock { .. } => Ok(()),
            Write::Evict { pod, when } => self.delete(pod, when, now),
            Write::Delete { key, when, .. } => self.delete(key, when, now),
        }
    }

    fn create(&mut self, gvr: &Gvr, namespace: &str, object: &Tree, now: Time) -> Result<(), String> {
        if let Some(message) = self.refused.get(&*gvr.plural) {
            return Err(message.clone());
        }
        let mut object = object.clone();
        self.stamp(&mut object);
        let uid = format!("uid-{}", self.revision);
        let meta = &mut object["metadata"];
        if meta["name"].is_null() {
            meta["name"] = format!("{}{uid}", meta["generateName"].as_str().unwrap_or_default()).into();
        }
        let key = Key::new(gvr, namespace, meta["name"].as_str().unwrap_or_default());
        meta["namespace"] = namespace.into();
        meta["uid"] = uid.into();
        meta["generation"] = 1.into();
        meta["creationTimestamp"] = now.to_string().into();
        self.objects.entry(key).or_insert(object);
        Ok(())
    }

    fn patch(
        &mut self,
        key: &Key,
        part: &str,
        patch: &Tree,
        when: &Precondition,
        now: Time,
    ) -> Result<(), String> {
        let Some(tree) = self.objects.get(key) else { return Err(format!("{key} is not there")) };
        holds(tree, when)?;
        let (spec, mut tree) = (tree["spec"].clone(), tree.clone());
        merge(&mut tree, patch);
        if part.is_empty() && tree["spec"] != spec {
            tree["metadata"]["generation"] =
                (tree["metadata"]["generation"].as_i64().unwrap_or(1) + 1).into();
        }
        self.stamp(&mut tree);
        let _ = now;
        self.keep_or_remove(key, tree);
        Ok(())
    }

    fn delete(&mut self, key: &Key, when: &Precondition, now: Time) -> Result<(), String> {
        let Some(mut tree) = self.objects.get(key).cloned() else { return Ok(()) };
        holds(&tree, when)?;
        if tree["metadata"]["deletionTimestamp"].is_null() {
            tree["metadata"]["deletionTimestamp"] = now.to_string().into();
            self.stamp(&mut tree);
        }
        self.keep_or_remove(key, tree);
        Ok(())
    }

    /// An object that is ending and that nobody holds is gone.
    fn keep_or_remove(&mut self, key: &Key, tree: Tree) {
        let ending = !tree["metadata"]["deletionTimestamp"].is_null();
        let held = tree["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty())
            || tree["spec"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
        if ending && !held {
            self.objects.remove(key);
        } else {
            self.objects.insert(key.clone(), tree);
        }
    }

    fn stamp(&mut self, tree: &mut Tree) {
        self.revision += 1;
        tree["metadata"]["resourceVersion"] = self.revision.to_string().into();
    }
}

impl World for TinyWorld {
    fn get(&self, key: &Key) -> Option<Object> {
        self.objects.get(key).map(object)
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        let all = self.objects.iter().filter(|(key, _)| key.gvr == *gvr);
        all.filter(|(key, _)| namespace.is_empty() || key.namespace == namespace)
            .map(|(_, tree)| object(tree))
            .collect()
    }

    fn resources(&self) -> Vec<Resource> {
        let mut found = BTreeMap::new();
        for (key, tree) in &self.objects {
            let kind = tree["kind"].as_str().unwrap_or_default().to_owned();
            let namespaced = !key.namespace.is_empty();
            found.insert(key.gvr.clone(), Resource { gvr: key.gvr.clone(), kind, namespaced });
        }
        for gvr in kinds::ALL {
            let kind = text::kind_of(gvr);
            let namespaced = text::is_namespaced(gvr);
            found.entry((*gvr).clone()).or_insert(Resource { gvr: (*gvr).clone(), kind, namespaced });
        }
        found.into_values().collect()
    }
}

fn object(tree: &Tree) -> Object {
    Object::read(tree.to_string().into()).expect("trees of a tiny world are objects")
}

fn holds(tree: &Tree, when: &Precondition) -> Result<(), String> {
    let meta = &tree["metadata"];
    let differs = |seen: &Option<String>, field: &str| {
        seen.as_deref().is_some_and(|seen| meta[field].as_str() != Some(seen))
    };
    if differs(&when.uid, "uid") || differs(&when.resource_version, "resourceVersion") {
        return Err(format!("conflict on {}", meta["name"]));
    }
    Ok(())
}

/// RFC 7396.
fn merge(target: &mut Tree, patch: &Tree) {
    let Tree::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Tree::Object(serde_json::Map::new());
    }
    for (name, value) in fields {
        if value.is_null() {
            if let Tree::Object(map) = &mut *target {
                map.remove(name);
            }
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

fn with_refusal(write: &Write, message: &str) -> Write {
    match write {
        Write::Patch { key, part, patch, when } => {
            let text = patch.to_string().replace("{refusal}", &message.replace('"', "'"));
            let patch = serde_json::from_str(&text).unwrap_or_else(|_| patch.clone());
            Write::Patch { key: key.clone(), part, patch, when: when.clone() }
        }
        other => other.clone(),
    }
}
