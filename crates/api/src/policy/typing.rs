//! What the types of the objects say of a validating policy's expressions: warnings in its status. Pure.
//!
//! Policies are told when they are written: the answer depends on nothing that comes later, except on resources that
//! are defined afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use cel::{Environment, Program, Type};
use model::schema::{self, Schema, Shape, TypeId};
use model::tree::{items, text};
use model::{Tree, kinds};
use serde_json::json;

use super::speak;
use crate::custom;
use crate::registry::{Meaning, Registry, Resource};
use crate::verbs::child;

/// How many kinds of objects the expressions of one policy are checked against: upstream's.
const KINDS_MAX: usize = 10;

/// An object of the built-in table.
#[derive(Debug)]
struct BuiltIn {
    schema: &'static Schema,
    id: TypeId,
}

impl cel::Shape for BuiltIn {
    fn name(&self) -> &str {
        &self.schema.get(self.id).name
    }

    fn field(&self, name: &str) -> Option<(String, Type)> {
        let field = self.schema.get(self.id).field(name)?;
        Some((name.to_owned(), of(self.schema, &field.shape)))
    }
}

fn of(schema: &'static Schema, shape: &Shape) -> Type {
    match shape {
        Shape::Text | Shape::Quantity => Type::TEXT,
        Shape::Flag => Type::Bool,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Double => Type::Double,
        Shape::Bytes => Type::Bytes(cel::ANY_LEN),
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::IntOrString | Shape::Any => Type::Dyn,
        Shape::Object(id) => Type::Object(Arc::new(BuiltIn { schema, id: *id })),
        Shape::List { item, .. } => Type::list(of(schema, item)),
        Shape::Map { value, .. } => Type::map(Type::TEXT, of(schema, value)),
    }
}

/// The type of the built-in table that has a name.
pub fn type_named(name: &str) -> Option<Type> {
    let id = schema::builtin().type_named(name)?;
    Some(Type::Object(Arc::new(BuiltIn { schema: schema::builtin(), id })))
}

/// The type of a resource's objects, where anything is known of it.
fn type_of(resource: &Resource) -> Option<Type> {
    match &resource.meaning {
        Meaning::BuiltIn(kind) => type_named(kind.schema),
        Meaning::Custom(custom) => custom::type_of(&custom.root),
    }
}

/// Tells a validating policy in its status what is known of its types, once for each change of it.
pub fn settle(resource: &Resource, policy: &mut Tree, registry: &Registry) {
    let generation = policy["metadata"]["generation"].clone();
    if !resource.is(&kinds::VALIDATING_ADMISSION_POLICY)
        || policy["status"]["observedGeneration"] == generation
    {
        return;
    }
    let found = warnings(policy, registry);
    let told = if found.is_empty() { json!({}) } else { json!({"expressionWarnings": found}) };
    let status = child(policy, "status");
    status.insert("observedGeneration".into(), generation);
    status.insert("typeChecking".into(), told);
}

/// The `expressionWarnings` of a policy.
fn warnings(policy: &Tree, registry: &Registry) -> Vec<Tree> {
    let spec = &policy["spec"];
    let params = spec["paramKind"].is_object();
    let param = registry.all().find(|resource| {
        *resource.kind == *text(spec, "paramKind.kind")
            && resource.api_version() == text(spec, "paramKind.apiVersion")
    });
    let param = param.filter(|_| params).and_then(|resource| type_of(resource));
    let kinds =
        kinds(spec, registry).into_iter().map(|(kind, of)| (kind, environment(spec, &of, param.as_ref())));
    let kinds: Vec<(String, Environment)> = kinds.collect();
    let mut found = Vec::new();
    for (index, validation) in items(spec, "validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let expression = text(validation, field);
            if expression.is_empty() {
                continue;
            }
            let fault = |environment: &Environment| Program::compile(expression, environment).err();
            let told = kinds
                .iter()
                .filter_map(|(kind, environment)| fault(environment).map(|why| format!("{kind}: {why}\n")));
            let told: Vec<String> = told.collect();
            if !told.is_empty() {
                let field = format!("spec.validations[{index}].{field}");
                found.push(json!({"fieldRef": field, "warning": told.join("\n")}));
            }
        }
    }
    found
}

/// What the expressions of a policy may speak of, when it is about one kind of object.
fn environment(spec: &Tree, object: &Type, param: Option<&Type>) -> Environment {
    let mut base = speak::environment(spec["paramKind"].is_object());
    for (name, of) in &mut base.names {
        match (&**name, param) {
            ("object" | "oldObject", _) => *of = object.clone(),
            ("params", Some(param)) => *of = param.clone(),
            _ => {}
        }
    }
    speak::variables(spec, base).1
}

/// The kinds that the rules of a policy name, `*` apart, in order.
fn kinds(spec: &Tree, registry: &Registry) -> Vec<(String, Type)> {
    let mut found = BTreeSet::new();
    for rule in items(spec, "matchConstraints.resourceRules") {
        let says = |field: &str, word: &str| items(rule, field).iter().any(|own| own == word);
        let open = |field: &str| says(field, "*") || items(rule, field).is_empty();
        if open("apiGroups") || open("apiVersions") {
            continue;
        }
        for resource in registry.all() {
            let gvr = &resource.gvr;
            let named = says("apiGroups", &gvr.group)
                && says("apiVersions", &gvr.version)
                && says("resources", &gvr.plural);
            if named && found.len() < KINDS_MAX {
                found.insert((
                    gvr.group.to_string(),
                    gvr.version.to_string(),
                    resource.kind.to_string(),
                    gvr.plural.to_string(),
                ));
            }
        }
    }
    let typed = found.into_iter().filter_map(|(group, version, kind, plural)| {
        let resource = registry.all().find(|resource| {
            resource.gvr.group == group && resource.gvr.version == version && resource.gvr.plural == plural
        })?;
        let shown = if group.is_empty() {
            format!("/{version}, Kind={kind}")
        } else {
            format!("{group}/{version}, Kind={kind}")
        };
        Some((shown, type_of(resource)?))
    });
    typed.collect()
}
