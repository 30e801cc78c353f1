//! A small world for the tests of plugins.

use model::{Gvr, Key, Object, Tree, World};

use super::{Asked, Extra, Operation};
use crate::admit::PodSecurity;
use crate::auth::Identity;
use crate::guard::{AllowAll, Guard};
use crate::refusal::Refusal;
use crate::testing::{drawn, resource};

pub type Plugin = fn(&Asked<'_>, &mut Tree, &mut Extra) -> Result<(), Refusal>;

/// Objects from texts.
pub struct Few(pub Vec<(Gvr, Object)>);

impl Few {
    pub fn new(objects: &[(&Gvr, &str)]) -> Self {
        let read = |text: &str| Object::read(bytes::Bytes::from(text.to_owned())).expect("an object");
        Self(objects.iter().map(|(gvr, text)| ((*gvr).clone(), read(text))).collect())
    }
}

impl World for Few {
    fn get(&self, key: &Key) -> Option<Object> {
        let same = |object: &Object| object.name() == key.name && object.namespace() == key.namespace;
        self.0.iter().find(|(gvr, object)| *gvr == key.gvr && same(object)).map(|(_, object)| object.clone())
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        let here = |object: &Object| namespace.is_empty() || object.namespace() == namespace;
        self.0
            .iter()
            .filter(|(own, object)| own == gvr && here(object))
            .map(|(_, object)| object.clone())
            .collect()
    }
}

/// What a plugin makes of a new object in a small world, or what it says against it.
pub fn check(world: &[(&Gvr, &str)], gvr: &Gvr, plugin: Plugin, object: Tree) -> Result<Tree, String> {
    change(world, gvr, plugin, None, object).map(|(made, _)| made)
}

/// The same for a change, with what is to be stored beside it.
pub fn change(
    world: &[(&Gvr, &str)],
    gvr: &Gvr,
    plugin: Plugin,
    old: Option<&Tree>,
    object: Tree,
) -> Result<(Tree, Extra), String> {
    change_as(&Identity::user("ann", &["staff"]), "", world, gvr, plugin, old, object)
}

/// The same by somebody, through a subresource.
#[expect(clippy::too_many_arguments, reason = "each is one word of a test")]
pub fn change_as(
    identity: &Identity,
    part: &str,
    world: &[(&Gvr, &str)],
    gvr: &Gvr,
    plugin: Plugin,
    old: Option<&Tree>,
    object: Tree,
) -> Result<(Tree, Extra), String> {
    change_guarded(&AllowAll, identity, part, world, gvr, plugin, old, object)
}

/// The same where a guard says who may do what.
#[expect(clippy::too_many_arguments, reason = "each is one word of a test")]
pub fn change_guarded(
    guard: &dyn Guard,
    identity: &Identity,
    part: &str,
    world: &[(&Gvr, &str)],
    gvr: &Gvr,
    plugin: Plugin,
    old: Option<&Tree>,
    mut object: Tree,
) -> Result<(Tree, Extra), String> {
    let (world, resource, drawn) = (Few::new(world), resource(gvr), drawn());
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let asked = Asked {
        resource: &resource,
        operation: if old.is_some() { Operation::Update } else { Operation::Create },
        part,
        namespace: &namespace,
        identity,
        old,
        drawn: &drawn,
        place: 5,
        service_cidr: "10.96.0.0/24".parse().expect("a range"),
        guard,
        security: &PodSecurity::default(),
        world: &world,
    };
    let mut extra = Extra::default();
    plugin(&asked, &mut object, &mut extra).map_err(|refusal| refusal.message)?;
    Ok((object, extra))
}
