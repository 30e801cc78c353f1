//! What an object uses of a quota. The rules themselves are shared with the controller that counts: [`model::usage`].

use model::{Tree, kinds};

pub use model::usage::{Usage, is_of_containers};

use crate::registry::Resource;

/// What an object uses.
pub fn usage(resource: &Resource, object: &Tree) -> Usage {
    model::usage::usage(&resource.stored, object)
}

/// Whether a quota speaks of an object.
pub fn is_in_scope(quota: &Tree, resource: &Resource, object: &Tree) -> bool {
    model::usage::is_in_scope(quota, &resource.stored, object)
}

/// Whether an object is of the sort that is never counted: reviews and events come and go by the thousand.
pub fn is_exempt(resource: &Resource) -> bool {
    resource.is(&kinds::EVENT) || !resource.namespaced
}
