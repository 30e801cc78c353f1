//! What the three reviews of access have in common: what may be asked.

use super::Faults;
use crate::Tree;
use crate::syntax;
use crate::tree::{items, text};

/// Notes what is wrong with a review's question.
pub fn check(object: &Tree, faults: &mut Faults) {
    let spec = &object["spec"];
    match (spec["resourceAttributes"].is_object(), spec["nonResourceAttributes"].is_object()) {
        (true, true) => faults.invalid(
            "spec.nonResourceAttributes",
            spec["nonResourceAttributes"].clone(),
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => faults.invalid(
            "spec.resourceAttributes",
            Tree::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    for field in ["fieldSelector", "labelSelector"] {
        selector(&spec["resourceAttributes"][field], &format!("spec.resourceAttributes.{field}"), faults);
    }
    let said = ["name", "generateName", "labels", "annotations", "finalizers", "ownerReferences"];
    if said.iter().any(|field| !object["metadata"][*field].is_null()) {
        faults.invalid("metadata", object["metadata"].clone(), "must be empty");
    }
}

/// The same for a review that names whom it is about.
pub fn check_subject(object: &Tree, faults: &mut Faults) {
    if text(object, "spec.user").is_empty() && items(object, "spec.groups").is_empty() {
        faults.invalid("spec.user", "", "at least one of user or group must be specified");
    }
    check(object, faults);
}

fn selector(selector: &Tree, field: &str, faults: &mut Faults) {
    if !selector.is_object() {
        return;
    }
    let (raw, requirements) = (text(selector, "rawSelector"), items(selector, "requirements"));
    if !raw.is_empty() && !requirements.is_empty() {
        let why = "may not specified at the same time as requirements";
        faults.invalid(format!("{field}.rawSelector"), raw, why);
    }
    if raw.is_empty() && requirements.is_empty() {
        let why = format!("when {field} is specified, requirements or rawSelector is required");
        faults.required(format!("{field}.requirements"), &why);
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let values = items(requirement, "values");
        let is_of_labels = field.ends_with("labelSelector");
        let field = format!("{field}.requirements[{index}]");
        let key = text(requirement, "key");
        if is_of_labels {
            faults.each(format_args!("{field}.key"), key, syntax::qualified_name(key));
            for (at, value) in values.iter().enumerate() {
                let reasons = syntax::label_value(value.as_str().unwrap_or_default());
                faults.each(format_args!("{field}.values[{at}]"), value.clone(), reasons);
            }
        } else if key.is_empty() {
            faults.required(format!("{field}.key"), "must be specified");
        }
        // Operators that are not known are for servers that know them.
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                faults.required(format!("{field}.values"), why);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                faults.forbidden(format!("{field}.values").as_str(), why);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_review_asks_one_question_about_somebody() {
        let told = |spec: Tree| {
            let mut faults = Faults::default();
            check_subject(&json!({"spec": spec}), &mut faults);
            faults.0.iter().map(|fault| fault.field.clone()).collect::<Vec<_>>()
        };
        assert!(told(json!({"user": "ann", "resourceAttributes": {"verb": "get"}})).is_empty());
        assert_eq!(told(json!({"nonResourceAttributes": {"path": "/"}})), ["spec.user"]);
        assert_eq!(told(json!({"user": "ann"})), ["spec.resourceAttributes"]);
        let both = json!({"user": "ann", "resourceAttributes": {}, "nonResourceAttributes": {}});
        assert_eq!(told(both), ["spec.nonResourceAttributes"]);
        let selected =
            |selector: Tree| told(json!({"user": "ann", "resourceAttributes": {"fieldSelector": selector}}));
        assert!(selected(json!({"rawSelector": "a=b"})).is_empty());
        assert!(
            selected(json!({"requirements": [{"key": "a", "operator": "Later", "values": []}]})).is_empty()
        );
        let field = "spec.resourceAttributes.fieldSelector";
        assert_eq!(selected(json!({})), [format!("{field}.requirements")]);
        let requirement = json!({"key": "a", "operator": "In"});
        let fault = format!("{field}.requirements[0].values");
        assert_eq!(selected(json!({"requirements": [requirement]})), [fault.as_str()]);
        let both = json!({"rawSelector": "a=b", "requirements": [{"key": "a", "operator": "Exists"}]});
        assert_eq!(selected(both), [format!("{field}.rawSelector")]);
    }
}
