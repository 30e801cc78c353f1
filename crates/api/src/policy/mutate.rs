//! Letting mutating policies change an object. Pure over a view.

use std::collections::BTreeSet;

use cel::{Budget, Map, Value};
use model::Tree;
use model::schema::{ListMerge, Schema, Shape};

use super::compiled::{Binding, Mutation, Policy};
use super::judge::{Case, evaluate, refuse};
use super::{Asking, Policies, is_excluded, objects, params, speak};
use crate::cel::Held;
use crate::codec;
use crate::hooks::Act;
use crate::hooks::matching::Target;
use crate::patch::ssa;
use crate::patience::as_version;
use crate::refusal::Refusal;
use crate::registry::Resource;
use crate::request::Validation;

/// Which policies want to be asked again should the object change after them: policy, binding, parameter.
pub type Again = BTreeSet<(String, String, usize)>;

/// What policies made of an object.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The object.
    pub object: Tree,
    /// Those that want to be asked again should it change after them.
    pub again: Again,
}

/// Lets all mutating policies have an object that an act concerns, in the order of their names; those that want it see
/// once more what others made of it. With `only`, those alone are asked, once.
///
/// # Errors
/// What the first policy says that cannot be applied.
pub fn mutate(
    policies: &Policies,
    act: &Act<'_>,
    object: &Tree,
    only: Option<&Again>,
    asking: &Asking<'_>,
) -> Result<Changed, Refusal> {
    let mut changed = Changed { object: object.clone(), again: Again::new() };
    if is_excluded(act) || policies.mutating.is_empty() {
        return Ok(changed);
    }
    let mut round = Round { act, asking, only, changed: &mut changed, wanted: Again::new() };
    round.ask(policies)?;
    let wanted = std::mem::take(&mut round.wanted);
    if only.is_none() && !wanted.is_empty() {
        Round { act, asking, only: Some(&wanted), changed: &mut changed, wanted: Again::new() }
            .ask(policies)?;
    }
    Ok(changed)
}

/// One round of asking.
struct Round<'a> {
    act: &'a Act<'a>,
    asking: &'a Asking<'a>,
    only: Option<&'a Again>,
    changed: &'a mut Changed,
    /// Those after which the object was changed.
    wanted: Again,
}

impl Round<'_> {
    fn ask(&mut self, policies: &Policies) -> Result<(), Refusal> {
        for policy in &policies.mutating {
            let object = self.changed.object.clone();
            let target =
                policy.matching.target(self.act, Some(&object), self.asking.registry, self.asking.world)?;
            let Some(target) = target else { continue };
            for binding in &policy.bindings {
                self.bound(policy, binding, &target).or_else(|why| self.failed(policy, binding, why))?;
            }
        }
        Ok(())
    }

    fn failed(&self, policy: &Policy, binding: &Binding, why: String) -> Result<(), Refusal> {
        if policy.ignorable {
            tracing::warn!(
                policy = policy.name,
                binding = binding.name,
                why,
                "a mutating policy is passed over"
            );
            return Ok(());
        }
        let message =
            format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name);
        Err(refuse(self.act, Some(&self.changed.object), message, ""))
    }

    fn bound(&mut self, policy: &Policy, binding: &Binding, target: &Target) -> Result<(), String> {
        params::known(policy, self.asking)?;
        if let Some(matching) = &binding.matching {
            let found = matching.target(
                self.act,
                Some(&self.changed.object),
                self.asking.registry,
                self.asking.world,
            );
            if found.map_err(|refusal| refusal.message)?.is_none() {
                return Ok(());
            }
        }
        let params = params::of(policy, binding, self.act.namespace, self.asking)?;
        for (index, param) in params.iter().enumerate() {
            let id = (policy.name.clone(), binding.name.clone(), index);
            if self.only.is_some_and(|only| !only.contains(&id)) {
                continue;
            }
            let before = self.changed.object.clone();
            self.once(policy, target, param.as_ref())?;
            if self.changed.object != before {
                self.wanted.clone_from(&self.changed.again);
            }
            if policy.again {
                self.changed.again.insert(id);
            }
        }
        Ok(())
    }

    /// Makes all changes of a policy, one after the other.
    fn once(&mut self, policy: &Policy, target: &Target, param: Option<&Tree>) -> Result<(), String> {
        for (index, mutation) in policy.mutations.iter().enumerate() {
            let case = Case::new(target, self.act, Some(&self.changed.object), param, self.asking);
            let authorizer = case.asker();
            let about = case.about(policy, &authorizer);
            if index == 0 {
                match policy.conditions.hold(&about) {
                    Held::Yes => {}
                    Held::No => return Ok(()),
                    Held::Unknown(why) => return Err(why),
                }
            }
            let names = speak::names(&about, &case.namespace, &policy.variables);
            let mut budget = Budget::new(cel::REQUEST_COST_MAX);
            let value = evaluate(&mutation.program, &names, &mut budget)?;
            let to = self.asking.registry.get(&target.gvr).map_or(self.act.resource, |resource| resource);
            let new = change(mutation, &value, to, about.object)?;
            let mut new = as_version(to, self.act.resource, &new, self.asking.patience).into_owned();
            // Who manages which fields is not a policy's to say.
            let fields = &self.changed.object["metadata"]["managedFields"];
            match new.get_mut("metadata").and_then(Tree::as_object_mut) {
                Some(metadata) if fields.is_null() => drop(metadata.remove("managedFields")),
                Some(metadata) => drop(metadata.insert("managedFields".into(), fields.clone())),
                None => {}
            }
            self.changed.object = new;
        }
        Ok(())
    }
}

/// An object with one change.
fn change(
    mutation: &Mutation,
    value: &Value<'_>,
    resource: &Resource,
    object: &Tree,
) -> Result<Tree, String> {
    let new = match mutation.patch {
        true => patched(value, object)?,
        false => applied(value, resource, object)?,
    };
    if new["kind"] != object["kind"] || new["apiVersion"] != object["apiVersion"] {
        return Err("a policy may not change the kind of an object".into());
    }
    if object["kind"] != resource.kind.as_ref() {
        return Ok(new);
    }
    let mut new =
        codec::recheck(resource, new, Validation::Strict).map_err(|refusal| refusal.message)?.object;
    codec::settle(resource, &mut new);
    Ok(new)
}

fn patched(value: &Value<'_>, object: &Tree) -> Result<Tree, String> {
    let patch = objects::patch(value)?;
    let patch: json_patch::Patch =
        serde_json::from_value(patch).map_err(|why| format!("JSON Patch: {why}"))?;
    let mut new = object.clone();
    match json_patch::patch(&mut new, &patch) {
        Ok(()) => Ok(new),
        // A test that fails says that nothing is to be changed.
        Err(error) if matches!(error.kind, json_patch::PatchErrorKind::TestFailed) => Ok(object.clone()),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}

fn applied(value: &Value<'_>, resource: &Resource, object: &Tree) -> Result<Tree, String> {
    let Value::Map(Map::Struct(..)) = value else {
        return Err(format!(
            "unsupported return type from ApplyConfiguration expression: {}",
            value.type_name()
        ));
    };
    objects::check_names(value, "Object").map_err(|why| format!("type mismatch: {why}"))?;
    let mut config = value.to_tree()?;
    for field in ["apiVersion", "kind"] {
        config[field] = object[field].clone();
    }
    let known = codec::recheck(resource, config.clone(), Validation::Strict);
    known.map_err(|refusal| {
        format!("error applying patch: failed to convert patch object to typed object: {}", refusal.message)
    })?;
    let (schema, shape) = codec::shape(resource);
    let mut atomics = Vec::new();
    find_atomics(schema, &shape, &config, "", &mut atomics);
    if !atomics.is_empty() {
        let found = atomics.join(", ");
        return Err(format!(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {found}"
        ));
    }
    Ok(ssa::merge(schema, &shape, Some(object), &config))
}

/// The paths of what can be set only as a whole: whoever sets a part of it would take away the rest.
fn find_atomics(schema: &Schema, shape: &Shape, value: &Tree, path: &str, found: &mut Vec<String>) {
    match (shape, value) {
        (Shape::Object(id), Tree::Object(map)) => {
            let of = schema.get(*id);
            if of.atomic {
                found.push(path.to_owned());
            }
            for (name, value) in map {
                if let Some(field) = of.field(name) {
                    find_atomics(schema, &field.shape, value, &format!("{path}.{name}"), found);
                }
            }
        }
        (Shape::List { item, merge }, Tree::Array(list)) => {
            if *merge == ListMerge::Atomic {
                found.push(path.to_owned());
            }
            for (index, value) in list.iter().enumerate() {
                find_atomics(schema, item, value, &format!("{path}[{index}]"), found);
            }
        }
        (Shape::Map { value: of, atomic }, Tree::Object(map)) => {
            if *atomic {
                found.push(path.to_owned());
            }
            for (name, value) in map {
                find_atomics(schema, of, value, &format!("{path}.{name}"), found);
            }
        }
        _ => {}
    }
}
