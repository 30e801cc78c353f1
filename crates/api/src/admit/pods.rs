//! What a pod's status tells from its first moment on: how good its claim to resources is.

use model::{Tree, kinds};

use super::{Asked, Extra};
use crate::refusal::Refusal;

/// Tells the class of a new pod's claim to resources.
pub fn finish(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if asked.creates(&kinds::POD) {
        kinds::set_qos_class(object);
    }
    Ok(())
}
