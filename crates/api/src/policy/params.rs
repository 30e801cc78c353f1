//! Which parameters a binding gives a policy. Pure over a view.

use model::{Key, Tree};

use super::Asking;
use super::compiled::{Binding, Policy};
use crate::convert;
use crate::registry::Resource;

/// The parameters of a binding, each to be asked with; one `None` for a policy without.
pub fn of(
    policy: &Policy,
    binding: &Binding,
    namespace: &str,
    asking: &Asking<'_>,
) -> Result<Vec<Option<Tree>>, String> {
    let (Some(kind), Some(given)) = (&policy.param_kind, &binding.params) else { return Ok(vec![None]) };
    let Some(resource) = resource(kind, asking) else {
        return Err(format!("paramKind kind `{}, Kind={}` not known", kind.0, kind.1));
    };
    let place = match (resource.namespaced, given.namespace.as_str(), namespace) {
        (false, "", _) => "",
        (false, _, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (true, "", "") => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .into(),
            );
        }
        (true, "", namespace) => namespace,
        (true, own, _) => own,
    };
    let found = match &given.selector {
        _ if !given.name.is_empty() => {
            asking.world.get(&Key::new(&resource.stored, place, &given.name)).into_iter().collect()
        }
        Some(selector) => {
            let mut all = asking.world.list(&resource.stored, place);
            all.retain(|object| selector.matches(&object.meta().labels));
            all
        }
        None => return Err("one of name or selector must be provided".into()),
    };
    if found.is_empty() && given.needed {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let tree = |object: &model::Object| object.tree().ok().map(|tree| convert::to_served(resource, tree));
    Ok(found.iter().filter_map(tree).map(Some).collect())
}

fn resource<'a>((api_version, kind): &(String, String), asking: &'a Asking<'_>) -> Option<&'a Resource> {
    asking
        .registry
        .all()
        .find(|resource| resource.kind == *kind && resource.api_version() == *api_version)
        .map(|found| &**found)
}

/// Whether the kind of a policy's parameters is served.
pub fn known(policy: &Policy, asking: &Asking<'_>) -> Result<(), String> {
    match &policy.param_kind {
        Some(kind) if resource(kind, asking).is_none() => {
            Err(format!("failed to find resource referenced by paramKind: '{}, Kind={}'", kind.0, kind.1))
        }
        _ => Ok(()),
    }
}
