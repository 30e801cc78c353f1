//! Claims and ingresses that name no class get the default one.

use model::{Gvr, Object, Tree, kinds};
use serde_json::{Value, json};

use super::{Asked, Extra};
use crate::refusal::Refusal;
use crate::verbs::child;

/// Names the default class where none is named.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if asked.creates(&kinds::PERSISTENT_VOLUME_CLAIM) {
        let old_name = &object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"];
        if object["spec"]["storageClassName"].is_null() && old_name.is_null() {
            name(asked, object, &kinds::STORAGE_CLASS, "storageclass", "storageClassName");
        }
    } else if asked.creates(&kinds::INGRESS) {
        let old_name = &object["metadata"]["annotations"]["kubernetes.io/ingress.class"];
        if object["spec"]["ingressClassName"].is_null() && old_name.is_null() {
            name(asked, object, &kinds::INGRESS_CLASS, "ingressclass", "ingressClassName");
        }
    }
    Ok(())
}

/// Of several defaults the newest counts, then the first by name.
fn name(asked: &Asked<'_>, object: &mut Tree, gvr: &Gvr, word: &str, field: &str) {
    let marks = [
        format!("{word}.kubernetes.io/is-default-class"),
        format!("{word}.beta.kubernetes.io/is-default-class"),
    ];
    let is_default = |class: &Object| {
        marks.iter().any(|mark| class.meta().annotations.get(mark).is_some_and(|said| said == "true"))
    };
    let classes = asked.world.list(gvr, "");
    let rank = |class: &Object| (std::cmp::Reverse(class.meta().creation_timestamp), class.name().to_owned());
    if let Some(class) = classes.iter().filter(|class| is_default(class)).min_by_key(|class| rank(class)) {
        let name: Value = json!(class.name());
        child(object, "spec").insert(field.to_owned(), name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn the_newest_default_class_is_taken() {
        let class = |name: &str, year: u32, default: bool| {
            json!({"metadata": {"name": name, "creationTimestamp": format!("{year}-01-01T00:00:00Z"),
                "annotations": {"storageclass.kubernetes.io/is-default-class": default.to_string()}}})
            .to_string()
        };
        let (a, b, c) = (class("a", 2024, true), class("b", 2025, true), class("c", 2026, false));
        let gvr = &kinds::STORAGE_CLASS;
        let world = [(gvr, a.as_str()), (gvr, b.as_str()), (gvr, c.as_str())];
        let claim = |spec: Tree| {
            let made = check(
                &world,
                &kinds::PERSISTENT_VOLUME_CLAIM,
                admit,
                json!({"metadata": {"name": "x"}, "spec": spec}),
            );
            made.expect("nothing against it")["spec"]["storageClassName"].clone()
        };
        assert_eq!(claim(json!({})), json!("b"));
        assert_eq!(claim(json!({"storageClassName": ""})), json!(""));
    }
}
