//! A new node takes no pods until it is seen to be ready.

use model::tree::{items, text};
use model::{Tree, kinds};
use serde_json::json;

use super::service_account::push;
use super::{Asked, Extra};
use crate::refusal::Refusal;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

/// Taints a new node as not ready.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.creates(&kinds::NODE) {
        return Ok(());
    }
    let known = |taint: &Tree| text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule";
    if !items(object, "spec.taints").iter().any(known) {
        let spec = crate::verbs::child(object, "spec");
        spec.entry("taints").or_insert_with(|| json!([]));
        push(&mut object["spec"], "taints", json!({"key": NOT_READY, "effect": "NoSchedule"}));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_new_node_is_tainted_once() {
        let made =
            check(&[], &kinds::NODE, admit, json!({"metadata": {"name": "n"}})).expect("nothing against it");
        assert_eq!(items(&made, "spec.taints").len(), 1);
        let again = check(&[], &kinds::NODE, admit, made).expect("nothing against it");
        assert_eq!(items(&again, "spec.taints").len(), 1);
    }
}
