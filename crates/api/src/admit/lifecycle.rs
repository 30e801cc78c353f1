//! Objects are made only in namespaces that are there and stay.

use model::{Key, Tree, kinds};
use store::Expect;

use super::{Asked, Extra, Operation};
use crate::refusal::Refusal;
use crate::verbs::meta;
use crate::view::path_of;

/// Refuses new objects in namespaces that are missing or going. The namespace may not begin to go before the commit.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, extra: &mut Extra) -> Result<(), Refusal> {
    if asked.operation != Operation::Create || !asked.resource.namespaced || asked.namespace.is_empty() {
        return Ok(());
    }
    let key = Key::new(&kinds::NAMESPACE, "", asked.namespace);
    let Some(namespace) = asked.world.get(&key) else {
        let about = crate::refusal::About {
            resource: "namespaces".into(),
            name: asked.namespace.into(),
            ..Default::default()
        };
        return Err(Refusal::not_found(&about));
    };
    if namespace.is_ending() {
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            asked.namespace
        );
        let message = format!("namespace {} is being terminated", asked.namespace);
        let about = asked.resource.about(meta(object, "name"));
        return Err(Refusal::forbidden(&about, why).cause(
            "NamespaceTerminating",
            message,
            "metadata.namespace",
        ));
    }
    extra.expect.push((path_of(&key).into(), Expect::At(namespace.revision())));
    Ok(())
}
