//! Pods bear a silent node for five minutes, unless they say otherwise.

use model::tree::{items, text};
use model::{Tree, kinds};
use serde_json::json;

use super::service_account::push;
use super::{Asked, Extra};
use crate::refusal::Refusal;

/// How long a pod stays bound to a node that is not ready or not reachable, in seconds: upstream's default.
const SECONDS: i64 = 300;

/// Adds the two tolerations where the pod says nothing of their taints, at updates too: they cannot be taken away.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.writes(&kinds::POD) {
        return Ok(());
    }
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !items(object, "spec.tolerations").iter().any(|known| speaks_of(known, key)) {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS});
            push(&mut object["spec"], "tolerations", toleration);
        }
    }
    Ok(())
}

fn speaks_of(toleration: &Tree, key: &str) -> bool {
    matches!(text(toleration, "effect"), "" | "NoExecute")
        && (matches!(text(toleration, "key"), "") || text(toleration, "key") == key)
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_pod_bears_a_silent_node_for_five_minutes() {
        let count = |tolerations: Tree| {
            let pod = json!({"metadata": {"name": "p"}, "spec": {"tolerations": tolerations}});
            check(&[], &kinds::POD, admit, pod).map(|made| items(&made, "spec.tolerations").len())
        };
        assert_eq!(count(json!([])), Ok(2));
        assert_eq!(count(json!([{"operator": "Exists"}])), Ok(1));
        assert_eq!(count(json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}])), Ok(2));
        assert_eq!(count(json!([{"key": "x", "effect": "NoSchedule"}])), Ok(3));
    }
}
