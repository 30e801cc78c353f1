//! What is wrong with policies, and with the conditions of webhooks, told when they are written. Pure.

use std::collections::BTreeSet;

use cel::{Environment, Program, Type};
use model::kinds::{self, Faults, check_selector};
use model::tree::{items, text};
use model::{Tree, syntax};

use super::{objects, speak};
use crate::cel::fault;
use crate::registry::Resource;

/// How many match conditions there may be: upstream's.
const CONDITIONS_MAX: usize = 64;
/// How many audit annotations there may be: upstream's.
const ANNOTATIONS_MAX: usize = 20;
/// How many variables a policy may have: each sees all before it, so their number counts twice.
pub const VARIABLES_MAX: usize = 256;
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];

/// Notes what is wrong with an object that has expressions of ours.
pub fn check(resource: &Resource, object: &Tree, faults: &mut Faults) {
    if resource.is(&kinds::VALIDATING_ADMISSION_POLICY) {
        policy(&object["spec"], faults);
        validating(object, faults);
    } else if resource.is(&kinds::MUTATING_ADMISSION_POLICY) {
        policy(&object["spec"], faults);
        mutating(&object["spec"], faults);
    } else if resource.is(&kinds::VALIDATING_ADMISSION_POLICY_BINDING) {
        binding(&object["spec"], faults);
        actions(&object["spec"], faults);
    } else if resource.is(&kinds::MUTATING_ADMISSION_POLICY_BINDING) {
        binding(&object["spec"], faults);
    } else if resource.is(&kinds::VALIDATING_WEBHOOK_CONFIGURATION)
        || resource.is(&kinds::MUTATING_WEBHOOK_CONFIGURATION)
    {
        for (index, webhook) in items(object, "webhooks").iter().enumerate() {
            conditions(webhook, false, &format!("webhooks[{index}].matchConditions"), faults);
        }
    }
}

fn policy(spec: &Tree, faults: &mut Faults) {
    faults.one_of("spec.failurePolicy", text(spec, "failurePolicy"), &["Fail", "Ignore"]);
    let params = spec["paramKind"].is_object();
    if params {
        let version = text(spec, "paramKind.apiVersion");
        match version {
            "" => faults.required("spec.paramKind.apiVersion", ""),
            version if version.matches('/').count() > 1 => {
                faults.invalid(
                    "spec.paramKind.apiVersion",
                    version,
                    &format!("unexpected GroupVersion string: {version}"),
                );
            }
            _ => {}
        }
        if text(spec, "paramKind.kind").is_empty() {
            faults.required("spec.paramKind.kind", "");
        }
    }
    if spec["matchConstraints"].is_object() {
        matching(&spec["matchConstraints"], "spec.matchConstraints", faults);
        if items(spec, "matchConstraints.resourceRules").is_empty() {
            faults.required("spec.matchConstraints.resourceRules", "");
        }
    } else {
        faults.required("spec.matchConstraints", "");
    }
    conditions(spec, params, "spec.matchConditions", faults);
    variables(spec, params, faults);
}

fn variables(spec: &Tree, params: bool, faults: &mut Faults) {
    let all = items(spec, "variables");
    if all.len() > VARIABLES_MAX {
        return faults.too_many("spec.variables", all.len(), VARIABLES_MAX);
    }
    let (compiled, _) = speak::variables(spec, speak::environment(params));
    let mut seen = BTreeSet::new();
    for (index, (variable, (_, program))) in all.iter().zip(&compiled).enumerate() {
        let (field, name) = (format!("spec.variables[{index}]"), text(variable, "name"));
        if name.is_empty() {
            faults.required(format!("{field}.name"), "name is not specified");
        } else if !is_name(name) {
            faults.invalid(format!("{field}.name"), name, "must be a valid CEL identifier");
        } else if !seen.insert(name) {
            faults.duplicate(format!("{field}.name"), name);
        }
        let written = text(variable, "expression");
        match program {
            _ if written.trim().is_empty() => {
                faults.required(format!("{field}.expression"), "expression is not specified");
            }
            Err(why) => faults.invalid(format!("{field}.expression"), written, why),
            Ok(_) => {}
        }
    }
}

fn is_name(text: &str) -> bool {
    let first = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    first && text.bytes().all(|read| read.is_ascii_alphanumeric() || read == b'_')
}

/// Notes what is wrong with match conditions.
fn conditions(of: &Tree, params: bool, path: &str, faults: &mut Faults) {
    let all = items(of, "matchConditions");
    if all.len() > CONDITIONS_MAX {
        faults.too_many(path, all.len(), CONDITIONS_MAX);
    }
    let mut seen = BTreeSet::new();
    for (index, condition) in all.iter().enumerate() {
        let (name, written) = (text(condition, "name"), text(condition, "expression").trim());
        let field = format!("{path}[{index}].expression");
        if written.is_empty() {
            faults.required(field, "");
        } else if let Some(why) = fault(written, params) {
            faults.invalid(field, written, &why);
        }
        let field = format!("{path}[{index}].name");
        if name.is_empty() {
            faults.required(field, "");
        } else {
            faults.each(&field, name, syntax::qualified_name(name));
            if !seen.insert(name) {
                faults.duplicate(field, name);
            }
        }
    }
}

fn expression(
    written: &str,
    field: &str,
    environment: &Environment,
    must: &str,
    fits: impl Fn(&Type) -> bool,
    faults: &mut Faults,
) {
    if written.trim().is_empty() {
        return faults.required(field, "expression is not specified");
    }
    match Program::compile(written, environment) {
        Err(faulty) => faults.invalid(field, written, &format!("compilation failed: {faulty}")),
        Ok(program) if !fits(program.gives()) => faults.invalid(field, written, must),
        Ok(_) => {}
    }
}

fn validating(policy: &Tree, faults: &mut Faults) {
    let spec = &policy["spec"];
    let (validations, annotations) = (items(spec, "validations"), items(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        faults.required("spec.validations", why);
        faults.required("spec.auditAnnotations", why);
    }
    let (_, environment) = speak::variables(spec, speak::environment(spec["paramKind"].is_object()));
    let without = speak::without_authorizer(&environment);
    for (index, one) in validations.iter().enumerate() {
        let field = |name: &str| format!("spec.validations[{index}].{name}");
        let is_bool = |of: &Type| matches!(of, Type::Bool | Type::Dyn);
        expression(
            text(one, "expression"),
            &field("expression"),
            &environment,
            "must evaluate to bool",
            is_bool,
            faults,
        );
        let (made, said, reason) =
            (text(one, "messageExpression"), text(one, "message"), text(one, "reason"));
        if !made.is_empty() && made.trim().is_empty() {
            faults.invalid(field("messageExpression"), made, "must be non-empty if specified");
        } else if !made.is_empty() {
            let is_text = |of: &Type| matches!(of, Type::Text(_) | Type::Dyn);
            expression(
                made,
                &field("messageExpression"),
                &without,
                "must evaluate to string",
                is_text,
                faults,
            );
        }
        if !said.is_empty() && said.trim().is_empty() {
            faults.invalid(field("message"), said, "must be non-empty if specified");
        } else if said.trim().contains('\n') {
            faults.invalid(field("message"), said, "must not contain line breaks");
        }
        if !reason.is_empty() {
            faults.one_of(field("reason"), reason, &REASONS);
        }
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let why = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        faults.invalid("spec.auditAnnotations", annotations.to_vec(), &why);
    }
    let mut keys = BTreeSet::new();
    for (index, one) in annotations.iter().enumerate() {
        let field = |name: &str| format!("spec.auditAnnotations[{index}].{name}");
        let key = text(one, "key");
        if key.is_empty() {
            faults.required(field("key"), "");
        } else {
            let full = format!("{}/{key}", text(policy, "metadata.name"));
            faults.each(field("key"), key, syntax::qualified_name(&full));
        }
        if !keys.insert(key) {
            faults.duplicate(field("key"), key);
        }
        let fits = |of: &Type| matches!(of, Type::Text(_) | Type::Dyn | Type::Null);
        let must = "must evaluate to one of [string null_type]";
        expression(text(one, "valueExpression"), &field("valueExpression"), &environment, must, fits, faults);
    }
}

fn mutating(spec: &Tree, faults: &mut Faults) {
    faults.one_of("spec.reinvocationPolicy", text(spec, "reinvocationPolicy"), &["IfNeeded", "Never"]);
    let mutations = items(spec, "mutations");
    if mutations.is_empty() {
        faults.required("spec.mutations", "mutations must contain at least one item");
    }
    let (_, environment) = speak::variables(spec, speak::environment(spec["paramKind"].is_object()));
    let making = Environment { made: Some(objects::named), ..environment };
    for (index, one) in mutations.iter().enumerate() {
        let field = |name: &str| format!("spec.mutations[{index}].{name}");
        let kind = text(one, "patchType");
        faults.one_of(field("patchType"), kind, &["ApplyConfiguration", "JSONPatch"]);
        let (own, other) = match kind {
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch"),
            "JSONPatch" => ("jsonPatch", "applyConfiguration"),
            _ => continue,
        };
        if one[other].is_object() {
            faults.invalid(
                field(other),
                one[other].clone(),
                &format!("{other} must not be set when patchType is {kind}"),
            );
        }
        if !one[own].is_object() {
            faults.required(field(own), &format!("{own} is required when patchType is {kind}"));
            continue;
        }
        let must =
            if own == "jsonPatch" { "must evaluate to list(JSONPatch)" } else { "must evaluate to Object" };
        let fits = |of: &Type| objects::is_change(of, own == "jsonPatch");
        expression(
            text(&one[own], "expression"),
            &field(&format!("{own}.expression")),
            &making,
            must,
            fits,
            faults,
        );
    }
}

fn matching(tree: &Tree, path: &str, faults: &mut Faults) {
    faults.one_of(format_args!("{path}.matchPolicy"), text(tree, "matchPolicy"), &["Equivalent", "Exact"]);
    for name in ["namespaceSelector", "objectSelector"] {
        check_selector(&tree[name], &format!("{path}.{name}"), faults);
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in items(tree, list).iter().enumerate() {
            for name in ["operations", "apiGroups", "apiVersions", "resources"] {
                if items(rule, name).is_empty() {
                    faults.required(format!("{path}.{list}[{index}].{name}"), "");
                }
            }
        }
    }
}

fn binding(spec: &Tree, faults: &mut Faults) {
    if text(spec, "policyName").is_empty() {
        faults.required("spec.policyName", "");
    } else {
        faults.each(
            "spec.policyName",
            text(spec, "policyName"),
            syntax::dns1123_subdomain(text(spec, "policyName")),
        );
    }
    if spec["matchResources"].is_object() {
        matching(&spec["matchResources"], "spec.matchResources", faults);
    }
    let given = &spec["paramRef"];
    if !given.is_object() {
        return;
    }
    let (name, selected) = (text(given, "name"), given["selector"].is_object());
    match (name.is_empty(), selected) {
        (true, false) => faults.required("spec.paramRef", "one of name or selector must be specified"),
        (false, true) => {
            faults.forbidden("spec.paramRef.name", "name and selector are mutually exclusive");
        }
        _ => {}
    }
    if selected {
        check_selector(&given["selector"], "spec.paramRef.selector", faults);
    }
    faults.one_of(
        "spec.paramRef.parameterNotFoundAction",
        text(given, "parameterNotFoundAction"),
        &["Allow", "Deny"],
    );
}

fn actions(spec: &Tree, faults: &mut Faults) {
    let all = items(spec, "validationActions");
    let mut seen = BTreeSet::new();
    for (index, action) in all.iter().enumerate() {
        let (field, action) =
            (format!("spec.validationActions[{index}]"), action.as_str().unwrap_or_default());
        faults.one_of(&field, action, &["Audit", "Deny", "Warn"]);
        if !seen.insert(action) {
            faults.duplicate(field, action);
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        faults.invalid("spec.validationActions", all.to_vec(), why);
    }
    if all.is_empty() {
        faults.required("spec.validationActions", "at least one validation action is required");
    }
}
