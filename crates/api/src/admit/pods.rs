//! What a pod's status tells from its first moment on: how good its claim to resources is.

use model::{Tree, kinds};

use super::{Asked, Extra};
use crate::refusal::Refusal;

/// Tells the class of a new pod's claim anew, once its namespace's limits are part of it.
pub fn finish(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if asked.creates(&kinds::POD) {
        kinds::pod::renew_qos_class(object);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_is_told_from_what_the_pod_asks_for_in_the_end() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "status": {"phase": "Pending", "qosClass": "BestEffort"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}});
        let made = check(&[], &kinds::POD, finish, pod).expect("nothing against it");
        assert_eq!(made["status"]["qosClass"], "Burstable");
    }
}
