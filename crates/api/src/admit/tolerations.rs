//! Pods bear a node that is not ready for five minutes, and a silent one not at all, unless they say otherwise.

use model::tree::{items, text};
use model::{Tree, kinds};
use serde_json::json;

use super::service_account::push;
use super::{Asked, Extra};
use crate::refusal::Refusal;

/// How long a pod stays bound to a node that says that it is not ready, in seconds: upstream's default.
const NOT_READY_SECONDS: i64 = 300;

/// How long a pod stays bound to a node that is silent, in seconds. Upstream waits for five minutes because nothing there
/// proves that the node is gone; here what must not run twice is fenced and moves by proof alone, and all else is replaced
/// as soon as the node's lease is overdue.
const UNREACHABLE_SECONDS: i64 = 0;

/// Adds the two tolerations where the pod says nothing of their taints, at updates too: they cannot be taken away.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.writes(&kinds::POD) {
        return Ok(());
    }
    let each = [
        ("node.kubernetes.io/not-ready", NOT_READY_SECONDS),
        ("node.kubernetes.io/unreachable", UNREACHABLE_SECONDS),
    ];
    for (key, seconds) in each {
        if !items(object, "spec.tolerations").iter().any(|known| speaks_of(known, key)) {
            let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
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
    fn a_pod_says_how_long_it_bears_a_node_that_is_not_ready_or_silent() {
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
