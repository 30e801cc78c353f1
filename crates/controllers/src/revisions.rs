//! ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, by number.
//!
//! The same template is kept once: going back to it gives its revision the newest number, and its name stays.

use std::collections::BTreeSet;

use model::kinds::CONTROLLER_REVISION;
use model::{Gvr, Key, Object, Plan, Precondition, Selector, Tree, World};
use serde_json::json;

use crate::{naming, owning, status, templates};

/// The label by which pods name the template they were made from.
pub const HASH: &str = "controller-revision-hash";

/// How many unused revisions are kept when the author does not say: the API's default.
const KEPT: usize = 10;

/// One revision.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The object.
    pub object: Object,
    /// Its number.
    pub number: i64,
    /// What it holds.
    data: Tree,
}

/// Whose revisions.
pub struct Owner<'a> {
    /// The DaemonSet or StatefulSet.
    pub object: &'a Object,
    /// Its resource.
    pub gvr: &'a Gvr,
    /// Its kind.
    pub kind: &'a str,
    /// Which revisions are meant.
    pub selector: &'a Selector,
    /// The template of now.
    pub template: &'a Tree,
}

/// All revisions of an owner and the one of its present template.
#[derive(Debug)]
pub struct History {
    /// By number, the oldest first.
    pub all: Vec<Revision>,
    /// The one of the present template; none until it has been made.
    pub update: Option<Revision>,
}

impl Owner<'_> {
    /// Reads the history; writes what it lacks.
    pub fn history(&self, plan: &mut Plan, world: &dyn World) -> History {
        let candidates = world.list(&CONTROLLER_REVISION, self.object.namespace());
        let claim = owning::claim(self.object, self.selector, candidates);
        claim.write(plan, &CONTROLLER_REVISION, self.object, self.gvr, self.kind);
        let mut all: Vec<Revision> = claim.mine.into_iter().map(Revision::read).collect();
        all.sort_by_key(|revision| (revision.number, revision.object.name().to_owned()));
        let data = data(self.template);
        let next = all.last().map_or(0, |last| last.number) + 1;
        let update = all.iter().rev().find(|revision| revision.data == data).cloned();
        match &update {
            None => self.create(plan, world, &data, next),
            Some(known) if known.number + 1 < next => {
                let key = Key::new(&CONTROLLER_REVISION, self.object.namespace(), known.object.name());
                let patch = json!({"revision": next});
                plan.patch(
                    key,
                    "",
                    patch,
                    Precondition::exactly(&known.object),
                    "its template is wanted again",
                );
            }
            Some(_) => {}
        }
        History { all, update }
    }

    fn create(&self, plan: &mut Plan, world: &dyn World, data: &Tree, number: i64) {
        let collisions = status::of(self.object)["collisionCount"].as_i64().unwrap_or(0);
        let hash = naming::template_hash(data, collisions);
        let name = format!("{}-{hash}", self.object.name());
        let key = Key::new(&CONTROLLER_REVISION, self.object.namespace(), name.as_str());
        if world.get(&key).is_some() {
            let own = Key::new(self.gvr, self.object.namespace(), self.object.name());
            let wanted = json!({"collisionCount": collisions + 1});
            status::write(plan, &own, self.object, &wanted, "the name of the new revision is taken");
            return;
        }
        let mut labels = json!(templates::labels(self.template));
        labels[HASH] = hash.as_str().into();
        labels["controller.kubernetes.io/hash"] = hash.into();
        let revision = json!({
            "apiVersion": "apps/v1", "kind": "ControllerRevision", "data": data, "revision": number,
            "metadata": {
                "name": name, "namespace": self.object.namespace(), "labels": labels,
                "annotations": self.object.meta().annotations,
                "ownerReferences": [owning::reference(self.object, self.gvr, self.kind)],
            },
        });
        plan.create(&CONTROLLER_REVISION, self.object.namespace(), revision, "a template without a revision");
    }
}

impl History {
    /// Deletes the oldest revisions that nobody uses, beyond the limit.
    pub fn clean(&self, plan: &mut Plan, used: &BTreeSet<String>, limit: Option<usize>) {
        let current = self.update.as_ref().map(|update| update.object.name());
        let unused: Vec<&Revision> = self
            .all
            .iter()
            .filter(|revision| {
                let name = revision.object.name();
                Some(name) != current && !used.contains(name) && !used.contains(revision.hash())
            })
            .collect();
        let surplus = unused.len().saturating_sub(limit.unwrap_or(KEPT));
        for revision in unused.into_iter().take(surplus) {
            let key = Key::new(&CONTROLLER_REVISION, revision.object.namespace(), revision.object.name());
            plan.delete(key, Precondition::exactly(&revision.object), "beyond the history kept");
        }
    }

    /// The revision of a name.
    pub fn named(&self, name: &str) -> Option<&Revision> {
        self.all.iter().find(|revision| revision.object.name() == name)
    }
}

impl Revision {
    fn read(object: Object) -> Self {
        let mut tree = object.tree().unwrap_or_default();
        Self {
            number: tree["revision"].as_i64().unwrap_or(0),
            data: naming::plain(tree["data"].take()),
            object,
        }
    }

    /// The hash of its template.
    pub fn hash(&self) -> &str {
        self.object.meta().labels.get(HASH).unwrap_or_default()
    }

    /// The template it holds.
    pub fn template(&self) -> Tree {
        let mut template = self.data["spec"]["template"].clone();
        if let Some(map) = template.as_object_mut() {
            map.remove("$patch");
        }
        template
    }
}

/// What a revision holds: a patch that replaces the template, in the form in which the API's users compare it, where
/// each container has its resources.
fn data(template: &Tree) -> Tree {
    let mut template = naming::plain(template.clone());
    if let Some(meta) = template["metadata"].as_object_mut() {
        meta.remove("creationTimestamp");
    }
    for list in ["containers", "initContainers"] {
        for container in template["spec"][list].as_array_mut().into_iter().flatten() {
            if container["resources"].is_null() {
                container["resources"] = json!({});
            }
        }
        if template["spec"][list].is_null()
            && let Some(spec) = template["spec"].as_object_mut()
        {
            spec.remove(list);
        }
    }
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}
