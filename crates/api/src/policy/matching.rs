//! What a policy or a binding is restricted to (`MatchResources`). Pure over a view.

use model::tree::{items, text};
use model::{Selector, Tree, World};

use crate::hooks::Act;
use crate::hooks::matching::{self, Rule, Target, is_equivalent, kind_of};
use crate::refusal::Refusal;
use crate::registry::{Registry, Resource};
use crate::verbs::meta;

/// What is matched.
#[derive(Debug)]
pub struct Matching {
    rules: Vec<Named>,
    excluded: Vec<Named>,
    equivalent: bool,
    namespaces: Selector,
    objects: Selector,
}

/// A rule that may be about objects of some names alone.
#[derive(Debug)]
struct Named {
    rule: Rule,
    names: Vec<String>,
}

impl Named {
    fn read(tree: &Tree) -> Self {
        let names = items(tree, "resourceNames").iter().filter_map(Tree::as_str).map(str::to_owned);
        Self { rule: Rule::read(tree), names: names.collect() }
    }

    fn matches(&self, act: &Act<'_>, object: Option<&Tree>, resource: &Resource) -> bool {
        let named = match act.name {
            "" => object.or(act.old).map_or("", |object| meta(object, "name")),
            name => name,
        };
        (self.names.is_empty() || self.names.iter().any(|name| name == named))
            && self.rule.matches(act.operation, &resource.gvr, act.part, act.resource.namespaced)
    }
}

impl Matching {
    /// Reads `MatchResources`.
    pub fn read(tree: &Tree) -> Self {
        let selector = |field: &str| match tree.get(field).filter(|selector| !selector.is_null()) {
            Some(selector) => Selector::of_tree(Some(selector)).unwrap_or_else(|_| Selector::everything()),
            None => Selector::everything(),
        };
        let rules = |field: &str| items(tree, field).iter().map(Named::read).collect();
        Self {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            equivalent: text(tree, "matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// The version in which an act is matched; `None` when it is not. Without rules everything is.
    pub fn target(
        &self,
        act: &Act<'_>,
        object: Option<&Tree>,
        registry: &Registry,
        world: &dyn World,
    ) -> Result<Option<Target>, Refusal> {
        if self.by(&self.excluded, act, object, registry).is_some() {
            return Ok(None);
        }
        let target = match self.rules.is_empty() {
            true => as_asked(act),
            false => self.by(&self.rules, act, object, registry),
        };
        let Some(target) = target else { return Ok(None) };
        let selected = matching::selects_object(&self.objects, act, object)
            && matching::selects_namespace(&self.namespaces, act, object, world)?;
        Ok(selected.then_some(target))
    }

    fn by(
        &self,
        rules: &[Named],
        act: &Act<'_>,
        object: Option<&Tree>,
        registry: &Registry,
    ) -> Option<Target> {
        if rules.iter().any(|rule| rule.matches(act, object, act.resource)) {
            return as_asked(act);
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let others = registry.all().filter(|other| is_equivalent(other, act.resource));
        let others: Vec<_> = others.collect();
        rules.iter().find_map(|rule| {
            let other = others.iter().find(|other| rule.matches(act, object, other))?;
            Some(Target { gvr: other.gvr.clone(), kind: kind_of(other, act.part)? })
        })
    }
}

fn as_asked(act: &Act<'_>) -> Option<Target> {
    Some(Target { gvr: act.resource.gvr.clone(), kind: kind_of(act.resource, act.part)? })
}
