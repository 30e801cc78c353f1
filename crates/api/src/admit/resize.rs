//! Only claims whose class allows it may grow.

use model::{Key, Quantity, Tree, kinds};

use super::{Asked, Extra};
use crate::refusal::Refusal;

/// Refuses a claim that asks for more than it did, where its class does not allow that.
pub fn judge(asked: &Asked<'_>, object: &Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    let Some(old) = asked.old.filter(|_| asked.writes(&kinds::PERSISTENT_VOLUME_CLAIM)) else {
        return Ok(());
    };
    let size = |claim: &Tree| -> Quantity {
        let text = claim["spec"]["resources"]["requests"]["storage"].as_str();
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    if size(object) <= size(old) {
        return Ok(());
    }
    if old["status"]["phase"] != "Bound" {
        return Err(asked.forbid(object, "Only bound persistent volume claims can be expanded"));
    }
    let class = old["spec"]["storageClassName"].as_str().unwrap_or_default();
    let class = asked.world.get(&Key::new(&kinds::STORAGE_CLASS, "", class));
    let class = class.and_then(|class| class.tree().ok());
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(asked.forbid(object, why))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::change;
    use super::*;

    fn claim(size: &str, phase: &str) -> Value {
        json!({"metadata": {"name": "data", "namespace": "default"}, "status": {"phase": phase},
            "spec": {"storageClassName": "c", "resources": {"requests": {"storage": size}}}})
    }

    fn check(allows: bool, phase: &str, size: &str) -> Result<(), String> {
        let class = json!({"metadata": {"name": "c"}, "allowVolumeExpansion": allows}).to_string();
        let plugin: super::super::testing::Plugin = |asked, object, extra| judge(asked, object, extra);
        let (old, new) = (claim("5Gi", phase), claim(size, phase));
        let world = [(&kinds::STORAGE_CLASS, class.as_str())];
        change(&world, &kinds::PERSISTENT_VOLUME_CLAIM, plugin, Some(&old), new).map(|_| ())
    }

    #[test]
    fn a_bound_claim_grows_where_its_class_allows_it() {
        assert!(check(true, "Bound", "6Gi").is_ok());
        assert!(check(false, "Bound", "5Gi").is_ok());
        let said = check(false, "Bound", "6Gi").expect_err("its class does not allow it");
        assert!(said.contains("must support resize"), "{said}");
        assert!(check(true, "Pending", "6Gi").is_err());
    }
}
