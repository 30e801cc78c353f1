//! Admission: what the cluster's own rules make of a write, and whether they let it happen. Pure over a view.
//!
//! A plugin is a function in a file of its own and a line in one of the lists below. It may change the object, refuse
//! it, or ask for more to be stored in the same transaction; it never writes.

mod addresses;
mod certificates;
mod classes;
mod definitions;
mod escalation;
mod extensions;
mod lifecycle;
mod limits;
mod nodes;
mod pods;
mod priority;
mod protection;
mod quota;
mod requester;
mod resize;
pub(crate) mod restriction;
mod runtime;
mod security;
mod service_account;
#[cfg(test)]
pub(crate) mod testing;
mod tolerations;
mod usage;

use std::collections::BTreeMap;

use model::{Gvr, Time, Tree, World, kinds};
use store::{Change, Expect, Path};

use crate::auth::Identity;
use crate::guard::Guard;
use crate::refusal::Refusal;
use crate::registry::Resource;
use crate::settings::Cidr;
use crate::verbs::{Drawn, Verdict, meta};

pub use security::PodSecurity;

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
}

/// What a plugin is asked about.
pub struct Asked<'a> {
    /// The resource.
    pub resource: &'a Resource,
    /// What is done.
    pub operation: Operation,
    /// The subresource; empty for the object itself.
    pub part: &'a str,
    /// The namespace; empty for cluster-wide objects.
    pub namespace: &'a str,
    /// Who does it.
    pub identity: &'a Identity,
    /// The object as it is, when it is changed.
    pub old: Option<&'a Tree>,
    /// The time and other things that were drawn.
    pub drawn: &'a Drawn,
    /// A number by which to choose among equal places.
    pub place: u64,
    /// The range of the addresses of Services.
    pub service_cidr: Cidr,
    /// Who may do what.
    pub guard: &'a dyn Guard,
    /// What the settings say of pods.
    pub security: &'a PodSecurity,
    /// What there is.
    pub world: &'a dyn World,
}

impl Asked<'_> {
    /// Whether a new object of a built-in resource is made.
    pub fn creates(&self, gvr: &Gvr) -> bool {
        self.operation == Operation::Create && self.part.is_empty() && self.resource.is(gvr)
    }

    /// Whether an object of a built-in resource is made or changed, and not through a subresource.
    pub fn writes(&self, gvr: &Gvr) -> bool {
        self.part.is_empty() && self.resource.is(gvr)
    }

    /// Refuses the object.
    pub fn forbid(&self, object: &Tree, why: impl std::fmt::Display) -> Refusal {
        Refusal::forbidden(&self.resource.about(meta(object, "name")), why)
    }
}

/// What is to be stored, and must hold, in the same transaction as the object.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// What must hold.
    pub expect: Vec<(Path, Expect)>,
    /// What is stored beside the object.
    pub changes: Vec<Change>,
    /// What the author is to be warned of.
    pub warnings: Vec<String>,
    /// What the audit log is to tell of it.
    pub notes: BTreeMap<String, String>,
}

type Plugin = fn(&Asked<'_>, &mut Tree, &mut Extra) -> Result<(), Refusal>;
type Judge = fn(&Asked<'_>, &Tree, &mut Extra) -> Result<(), Refusal>;

/// Those that may change the object as its author sent it, in order.
const PLUGINS: &[Plugin] = &[
    lifecycle::admit,
    definitions::admit,
    limits::fill,
    service_account::admit,
    nodes::admit,
    priority::admit,
    tolerations::admit,
    runtime::admit,
    classes::admit,
    requester::admit,
    certificates::admit,
    protection::admit,
];

/// Those that fill in what only the whole object tells.
const FINISHERS: &[Plugin] = &[pods::finish, addresses::finish, definitions::finish, extensions::finish];

/// Those that only let the whole object happen or not.
const JUDGES: &[Judge] = &[
    restriction::judge,
    escalation::judge,
    certificates::judge,
    security::judge,
    definitions::judge,
    limits::judge,
    resize::judge,
    quota::judge,
];

/// Lets the plugins change the object as its author sent it.
pub fn mutate(asked: &Asked<'_>, object: &mut Tree, extra: &mut Extra) -> Result<(), Refusal> {
    PLUGINS.iter().try_for_each(|plugin| plugin(asked, object, extra))
}

/// Fills in what only the whole object tells.
pub fn finish(asked: &Asked<'_>, object: &mut Tree, extra: &mut Extra) -> Result<(), Refusal> {
    FINISHERS.iter().try_for_each(|plugin| plugin(asked, object, extra))
}

/// Asks those that judge the whole object.
pub fn judge(asked: &Asked<'_>, object: &Tree, extra: &mut Extra) -> Result<(), Refusal> {
    JUDGES.iter().try_for_each(|judge| judge(asked, object, extra))
}

/// Refuses the deletion (or eviction, as `part` says) of what the cluster cannot do without, and of what is not for
/// this user to end.
pub fn protect(resource: &Resource, who: &Identity, old: &Tree, part: &str) -> Result<(), Refusal> {
    restriction::judge_end(resource, who, old, part)?;
    let name = meta(old, "name");
    if resource.is(&kinds::NAMESPACE) && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(Refusal::forbidden(&resource.about(name), "this namespace may not be deleted"));
    }
    Ok(())
}

/// What becomes of an object that others hold on to, when it is deleted.
pub fn end(resource: &Resource, old: &Tree, verdict: Verdict, world: &dyn World, now: Time) -> Verdict {
    definitions::end(resource, old, verdict, world, now)
}

/// Gives back what an object held, in the transaction in which it goes.
pub fn release(resource: &Resource, old: &Tree, world: &dyn World, extra: &mut Extra) {
    addresses::release(resource, old, world, extra);
}
