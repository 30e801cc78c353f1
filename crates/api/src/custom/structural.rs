//! Whether the schemas of a definition are structural, and their defaults what they say. Pure.

use model::Tree;
use model::kinds::Faults;
use model::tree::{entries, flag, is_there, items, text};
use regex::Regex;

use super::validate::{self, Patterns, below};
use super::{costs, keep};

const UNKNOWN_KEPT: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// What schemas may not use at all.
const NEVER: [&str; 6] =
    ["$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id"];
/// What may stand only outside of `allOf`, `anyOf`, `oneOf` and `not`.
const OUTSIDE: [&str; 11] = [
    "type",
    "additionalProperties",
    "default",
    "description",
    "nullable",
    "title",
    UNKNOWN_KEPT,
    EMBEDDED,
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
];

/// Notes what is wrong with the schemas of a definition.
pub fn check(definition: &Tree, faults: &mut Faults) {
    for (index, version) in items(definition, "spec.versions").iter().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_object() {
            let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
            check_schema(schema, &path, Within::Root, faults);
            costs::check(schema, &path, faults);
        }
        check_selectable(version, index, schema, faults);
    }
}

/// What a schema stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Root,
    Object,
    List,
}

fn check_schema(schema: &Tree, path: &str, within: Within, faults: &mut Faults) {
    check_type(schema, path, within, faults);
    check_words(schema, path, faults);
    check_list(schema, path, faults);
    check_default(schema, path, within, faults);
    for (name, property) in entries(schema, "properties") {
        let of_objects = within == Within::Root && matches!(name, "apiVersion" | "kind" | "metadata");
        let path = format!("{path}.properties[{name}]");
        if of_objects && name == "metadata" {
            check_metadata(property, &path, faults);
        }
        check_schema(property, &path, Within::Object, faults);
    }
    for (name, within) in [("items", Within::List), ("additionalProperties", Within::Object)] {
        if schema[name].is_object() {
            check_schema(&schema[name], &format!("{path}.{name}"), within, faults);
        }
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        for (index, one) in items(schema, name).iter().enumerate() {
            // An int-or-string may say so in the way of OpenAPI as well.
            if !(name == "anyOf" && flag(schema, INT_OR_STRING)) {
                check_bare(one, &format!("{path}.{name}[{index}]"), faults);
            }
        }
    }
    if schema["not"].is_object() {
        check_bare(&schema["not"], &format!("{path}.not"), faults);
    }
}

fn check_type(schema: &Tree, path: &str, within: Within, faults: &mut Faults) {
    let (kind, field) = (text(schema, "type"), format!("{path}.type"));
    let free = flag(schema, INT_OR_STRING) || flag(schema, UNKNOWN_KEPT);
    match (kind, within) {
        // The root's type is looked at with the rest of the definition.
        (_, Within::Root) => {}
        ("", _) if free => {}
        ("", Within::Object) => faults.required(field, "must not be empty for specified object fields"),
        ("", Within::List) => faults.required(field, "must not be empty for specified array items"),
        (kind, _) => faults.one_of(&field, kind, &TYPES),
    }
    if flag(schema, EMBEDDED) {
        if kind != "object" {
            faults.invalid(
                format!("{path}.type"),
                kind,
                "must be object if x-kubernetes-embedded-resource is true",
            );
        }
        if !is_there(schema, "properties") && !flag(schema, UNKNOWN_KEPT) {
            faults.required(format!("{path}.properties"), "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields");
        }
    }
    if kind == "array" && !is_there(schema, "items") {
        faults.required(format!("{path}.items"), "must be specified");
    }
    if schema["items"].is_array() {
        faults.forbidden(format!("{path}.items"), "items must be a schema object and not an array");
    }
}

fn check_words(schema: &Tree, path: &str, faults: &mut Faults) {
    for name in NEVER {
        if is_there(schema, name) {
            faults.forbidden(format!("{path}.{name}"), &format!("{name} is not supported"));
        }
    }
    match &schema["additionalProperties"] {
        Tree::Bool(false) => {
            faults.forbidden(
                format!("{path}.additionalProperties"),
                "additionalProperties cannot be set to false",
            );
        }
        more if !more.is_null() && is_there(schema, "properties") => {
            let why = "additionalProperties and properties are mutual exclusive";
            faults.forbidden(format!("{path}.additionalProperties"), why);
        }
        _ => {}
    }
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        faults.forbidden(format!("{path}.uniqueItems"), why);
    }
    if schema[UNKNOWN_KEPT] == Tree::Bool(false) {
        faults.invalid(format!("{path}.{UNKNOWN_KEPT}"), false, "must be true or undefined");
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(why) = Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {why}");
        faults.invalid(format!("{path}.pattern"), pattern, &why);
    }
}

fn check_list(schema: &Tree, path: &str, faults: &mut Faults) {
    let kind = text(schema, "x-kubernetes-list-type");
    let keys: Vec<&str> =
        items(schema, "x-kubernetes-list-map-keys").iter().filter_map(Tree::as_str).collect();
    let field = format!("{path}.x-kubernetes-list-map-keys");
    if !matches!(kind, "" | "atomic" | "set" | "map") {
        faults.not_supported(format!("{path}.x-kubernetes-list-type"), kind, &["atomic", "set", "map"]);
    }
    if !kind.is_empty() && text(schema, "type") != "array" {
        let why = "must be array if x-kubernetes-list-type is specified";
        faults.invalid(format!("{path}.type"), text(schema, "type"), why);
    }
    if kind == "map" && keys.is_empty() {
        faults.required(field, "must not be empty if x-kubernetes-list-type is map");
    } else if kind == "map" {
        check_keys(&schema["items"], &keys, path, faults);
    } else if !keys.is_empty() {
        faults.forbidden(field, "must be empty if x-kubernetes-list-type is not map");
    }
    let map = text(schema, "x-kubernetes-map-type");
    if !matches!(map, "" | "atomic" | "granular") {
        faults.not_supported(format!("{path}.x-kubernetes-map-type"), map, &["atomic", "granular"]);
    }
}

fn check_keys(item: &Tree, keys: &[&str], path: &str, faults: &mut Faults) {
    let required: Vec<&str> = items(item, "required").iter().filter_map(Tree::as_str).collect();
    for (index, key) in keys.iter().enumerate() {
        let property = &item["properties"][*key];
        if !property.is_object() {
            let why = "entries must all be names of item properties";
            faults.invalid(format!("{path}.x-kubernetes-list-map-keys[{index}]"), *key, why);
        } else if !required.contains(key) && property.get("default").is_none() {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            faults.required(format!("{path}.items.properties[{key}].default"), why);
        }
    }
}

/// A default has to be what its own schema says.
fn check_default(schema: &Tree, path: &str, within: Within, faults: &mut Faults) {
    let Some(default) = schema.get("default") else { return };
    let path = format!("{path}.default");
    if within == Within::Root && !default.is_object() {
        faults.invalid(path.as_str(), default.clone(), "must be an object");
        return;
    }
    let mut pruned = default.clone();
    if !keep::prune_value(schema, &mut pruned).is_empty() {
        faults.invalid(path.as_str(), default.clone(), "must not have unknown fields");
    }
    keep::fill_at(schema, &mut pruned);
    faults.0.extend(validate::check(schema, &Patterns::of(schema), None, &pruned, &path));
}

fn check_metadata(property: &Tree, path: &str, faults: &mut Faults) {
    let only_names = entries(property, "properties").all(|(name, _)| matches!(name, "name" | "generateName"));
    if !only_names {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        faults.forbidden(path, why);
    }
}

/// Within combinations values are judged, and nothing is said of their form.
fn check_bare(schema: &Tree, path: &str, faults: &mut Faults) {
    for name in OUTSIDE.into_iter().filter(|name| is_there(schema, name)) {
        faults.forbidden(format!("{path}.{name}"), "must be empty to be structural");
    }
    check_words(schema, path, faults);
    for (name, property) in entries(schema, "properties") {
        check_bare(property, &format!("{path}.properties[{name}]"), faults);
    }
    for one in
        below(schema).filter(|one| !entries(schema, "properties").any(|(_, known)| std::ptr::eq(known, *one)))
    {
        check_bare(one, path, faults);
    }
}

fn check_selectable(version: &Tree, index: usize, schema: &Tree, faults: &mut Faults) {
    for (at, field) in items(version, "selectableFields").iter().enumerate() {
        let path = text(field, "jsonPath");
        let steps = path.strip_prefix('.').unwrap_or_default();
        let found = steps.split('.').try_fold(schema, |schema, step| schema["properties"].get(step));
        let kind = found.map(|found| text(found, "type")).unwrap_or_default();
        if !matches!(kind, "string" | "boolean" | "integer") || steps.starts_with("metadata") {
            let why = "is an invalid path: must point to a field of type string, boolean or integer";
            faults.invalid(format!("spec.versions[{index}].selectableFields[{at}].jsonPath"), path, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_property(property: Tree, wanted: &[&str]) {
        let schema = json!({"type": "object", "properties": {"x": property}});
        let definition = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}});
        let mut faults = Faults::default();
        check(&definition, &mut faults);
        let prefix = "spec.versions[0].schema.openAPIV3Schema.properties[x]";
        let told: Vec<String> = faults.0.iter().map(|fault| fault.to_string().replace(prefix, "~")).collect();
        assert_eq!(told, wanted);
    }

    #[test]
    fn structural_schemas_are_accepted() {
        check_property(
            json!({"type": "string", "default": "a", "enum": ["a", "b"], "pattern": "^a|b$"}),
            &[],
        );
        check_property(
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            &[],
        );
        check_property(json!({"x-kubernetes-preserve-unknown-fields": true}), &[]);
        check_property(
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            &[],
        );
        check_property(
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}]}),
            &[],
        );
    }

    #[test]
    fn what_is_not_structural_is_told() {
        check_property(json!({}), &["~.type: Required value: must not be empty for specified object fields"]);
        check_property(json!({"type": "array"}), &["~.items: Required value: must be specified"]);
        check_property(
            json!({"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}),
            &["~.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        );
        check_property(
            json!({"type": "string", "allOf": [{"type": "string"}]}),
            &["~.allOf[0].type: Forbidden: must be empty to be structural"],
        );
        check_property(
            json!({"type": "integer", "default": "a"}),
            &["~.default: Invalid value: \"string\": ~.default in body must be of type integer: \"string\""],
        );
        check_property(
            json!({"type": "object", "default": {"y": 1}, "properties": {"a": {"type": "string"}}}),
            &["~.default: Invalid value: {\"y\":1}: must not have unknown fields"],
        );
    }
}
