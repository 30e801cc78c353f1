//! The rules in expressions of a schema (`x-kubernetes-validations`), and whether objects keep them. Pure.
//!
//! A rule that speaks of what was there before is asked of changes alone. What an update leaves as it was is not held
//! against it, so that a new rule does not hold up objects that were made before it.

use std::collections::BTreeMap;

use cel::{Budget, Environment, Error, Program, Type, Value};
use model::Tree;
use model::kinds::{Fault, FaultReason};
use model::tree::{entries, flag, items, text};

use super::types;
use super::validate::{Place, Step, key_of, list_keys};

/// The longest message that an expression may make, in bytes: upstream's.
pub const MESSAGE_LEN_MAX: usize = 5 * 1024;

/// The rules of a schema and of all below it.
#[derive(Debug, Default)]
pub struct Rules {
    own: Vec<Rule>,
    of: Option<Type>,
    properties: BTreeMap<String, Rules>,
    items: Option<Box<Rules>>,
    more: Option<Box<Rules>>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Where in the list of its schema.
    pub index: usize,
    /// The rule itself, or why it cannot be asked.
    pub program: Result<Program, String>,
    /// What makes the message.
    pub message: Option<Result<Program, String>>,
    /// Whether it speaks of what was there before.
    pub transition: bool,
    optional: bool,
    told: String,
    short: String,
    reason: FaultReason,
    field: String,
    /// What kind of value it is about.
    kind: String,
}

impl Rules {
    /// Those of a whole schema; `None` when it has none at all.
    pub fn of(schema: &Tree) -> Option<Self> {
        let rules = Self::gather(schema, "selfType", true);
        (!rules.is_empty()).then_some(rules)
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.properties.is_empty() && self.items.is_none() && self.more.is_none()
    }

    fn gather(schema: &Tree, name: &str, root: bool) -> Self {
        let some = |schema: &Tree, name: String| {
            let rules = schema.is_object().then(|| Self::gather(schema, &name, false));
            rules.filter(|rules| !rules.is_empty())
        };
        let named = entries(schema, "properties");
        let properties = named.filter_map(|(property, schema)| {
            some(schema, format!("{name}.{property}")).map(|rules| (property.to_owned(), rules))
        });
        let properties = properties.collect();
        // Types are made where there are rules alone: making them is a walk over all below.
        let asked = !items(schema, "x-kubernetes-validations").is_empty();
        let of = if asked { types::of(schema, name, root) } else { None };
        Self {
            own: compile(schema, of.as_ref()),
            of,
            properties,
            items: some(&schema["items"], format!("{name}.@items")).map(Box::new),
            more: some(&schema["additionalProperties"], format!("{name}.@values")).map(Box::new),
        }
    }

    /// What an object does not keep, as new or as a change of `old`.
    pub fn check(&self, schema: &Tree, old: Option<&Tree>, object: &Tree) -> Vec<Fault> {
        let mut judge = Judge { faults: Vec::new(), budget: Budget::new(cel::REQUEST_COST_MAX), over: false };
        let root = Place { parent: None, step: Step::Root("") };
        judge.value(&root, self, schema, &Then { old, same: false }, object);
        judge.faults
    }
}

/// The rules of one schema, read and checked.
pub fn compile(schema: &Tree, of: Option<&Type>) -> Vec<Rule> {
    let rules = items(schema, "x-kubernetes-validations").iter().enumerate();
    rules
        .filter(|(_, rule)| !text(rule, "rule").trim().is_empty())
        .map(|(index, rule)| one(schema, index, rule, of))
        .collect()
}

fn one(schema: &Tree, index: usize, rule: &Tree, of: Option<&Type>) -> Rule {
    let optional = flag(rule, "optionalOldSelf");
    let of = of.cloned().unwrap_or(Type::Dyn);
    let before = if optional { Type::optional(of.clone()) } else { of.clone() };
    let environment = Environment::default().with("self", of).with("oldSelf", before);
    let program = Program::compile(text(rule, "rule"), &environment)
        .map_err(|faulty| format!("compilation failed: {faulty}"));
    let program = program.and_then(|program| match program.gives() {
        Type::Bool => Ok(program),
        _ => Err("cel expression must evaluate to a bool".into()),
    });
    let message = Some(text(rule, "messageExpression")).filter(|text| !text.is_empty()).map(|text| {
        let made = Program::compile(text, &environment)
            .map_err(|faulty| format!("messageExpression compilation failed: {faulty}"))?;
        match made.gives() {
            Type::Text(_) => Ok(made),
            _ => Err("messageExpression must evaluate to a string".into()),
        }
    });
    let said = text(rule, "message").trim();
    let (rule_text, kind) = (text(rule, "rule").trim(), text(schema, "type"));
    Rule {
        index,
        transition: program.as_ref().is_ok_and(|program| program.mentions("oldSelf")),
        program,
        message,
        optional,
        told: if said.is_empty() { format!("failed rule: {rule_text}") } else { said.to_owned() },
        short: if said.is_empty() { rule_text.to_owned() } else { said.to_owned() },
        reason: reason(text(rule, "reason")),
        field: field_path(text(rule, "fieldPath")).unwrap_or_default(),
        kind: kind.to_owned(),
    }
}

fn reason(name: &str) -> FaultReason {
    match name {
        "FieldValueRequired" => FaultReason::Required,
        "FieldValueForbidden" => FaultReason::Forbidden,
        "FieldValueDuplicate" => FaultReason::Duplicate,
        _ => FaultReason::Invalid,
    }
}

/// `.spec['a b'].c` as paths of faults have it, without the first dot.
pub fn field_path(path: &str) -> Option<String> {
    let (mut made, mut rest) = (String::new(), path);
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix("['") {
            let (name, after) = quoted.split_once("']")?;
            made += &format!(".{name}");
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('.')?;
        let end = name.find(['.', '[']).unwrap_or(name.len());
        if end == 0 {
            return None;
        }
        made += &format!(".{}", &name[..end]);
        rest = &name[end..];
    }
    Some(made.trim_start_matches('.').to_owned())
}

/// What was there before.
struct Then<'a> {
    /// The value that this one was; `None` where that cannot be told, or where there was none.
    old: Option<&'a Tree>,
    /// Whether this value, or the nearest around it of which it can be told, is as it was.
    same: bool,
}

struct Judge {
    faults: Vec<Fault>,
    budget: Budget,
    /// Whether no more rules are asked.
    over: bool,
}

impl Judge {
    fn value(&mut self, at: &Place<'_>, rules: &Rules, schema: &Tree, then: &Then<'_>, value: &Tree) {
        if self.over || value.is_null() {
            return;
        }
        let same = then.old.map_or(then.same, |old| then.same || old == value);
        let then = Then { old: then.old, same };
        self.own(at, rules, &then, value);
        match value {
            Tree::Array(list) => self.list(at, rules, schema, &then, list),
            Tree::Object(map) => {
                for (name, value) in map {
                    let old = then.old.and_then(|old| old.get(name));
                    let then = Then { old, same: then.same && (old.is_some() || then.old.is_none()) };
                    if let Some(below) = rules.properties.get(name) {
                        self.value(
                            &at.to(Step::Name(name)),
                            below,
                            &schema["properties"][name],
                            &then,
                            value,
                        );
                    } else if let Some(more) = &rules.more {
                        self.value(
                            &at.to(Step::Key(name)),
                            more,
                            &schema["additionalProperties"],
                            &then,
                            value,
                        );
                    }
                }
            }
            _ => {}
        }
    }

    /// Items are known again by their keys alone.
    fn list(&mut self, at: &Place<'_>, rules: &Rules, schema: &Tree, then: &Then<'_>, list: &[Tree]) {
        let Some(below) = &rules.items else { return };
        let keys = list_keys(schema);
        let olds = then.old.and_then(Tree::as_array).filter(|_| !keys.is_empty());
        for (index, item) in list.iter().enumerate() {
            let key = key_of(&keys, item);
            let old = olds.and_then(|olds| olds.iter().find(|old| key_of(&keys, old) == key));
            self.value(
                &at.to(Step::Item(index)),
                below,
                &schema["items"],
                &Then { old, same: then.same },
                item,
            );
        }
    }

    fn own(&mut self, at: &Place<'_>, rules: &Rules, then: &Then<'_>, value: &Tree) {
        let of = rules.of.as_ref().unwrap_or(&Type::Dyn);
        for rule in &rules.own {
            if self.over || (rule.transition && then.old.is_none() && !rule.optional) {
                continue;
            }
            let old = then.old.map(|old| Value::read(old, of));
            let old = if rule.optional { Some(Value::optional(old)) } else { old };
            let mut names = vec![("self", Value::read(value, of))];
            names.extend(old.map(|old| ("oldSelf", old)));
            self.rule(at, rule, then, value, &names);
        }
    }

    fn rule<'a>(
        &mut self,
        at: &Place<'_>,
        rule: &Rule,
        then: &Then<'_>,
        value: &Tree,
        names: &[(&str, Value<'a>)],
    ) {
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => return self.tell(at, rule, format!("rule compile error: {why}")),
        };
        let short = &rule.short;
        match program.evaluate(names, &mut self.budget) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => {
                // A rule that is broken as it was before does not hold up the change of something else.
                if rule.transition || !then.same {
                    self.broken(at, rule, value, names);
                }
            }
            Err(Error::TooCostly) => {
                self.over = true;
                let why = if self.budget.left() == 0 {
                    "validation failed due to running out of cost budget, no further validation rules will be run".into()
                } else {
                    format!("'{}': no further validation rules will be run due to call cost exceeds limit for rule: {short}", Error::TooCostly)
                };
                self.tell(at, rule, why);
            }
            Err(Error::Said(why)) if why == "no such overload" => self.tell(
                at,
                rule,
                format!("'{why}': call arguments did not match a supported operator, function or macro signature for rule: {short}"),
            ),
            Err(Error::Said(why)) => self.tell(at, rule, format!("{why} evaluating rule: {short}")),
        }
    }

    /// What cannot be told of a value.
    fn tell(&mut self, at: &Place<'_>, rule: &Rule, why: String) {
        let message = format!("Invalid value: {:?}: {why}", rule.kind);
        self.faults.push(Fault { field: shown(&at.path()), reason: FaultReason::Invalid, message });
    }

    fn broken(&mut self, at: &Place<'_>, rule: &Rule, value: &Tree, names: &[(&str, Value<'_>)]) {
        let made = match &rule.message {
            Some(Ok(message)) => message.evaluate(names, &mut self.budget).ok(),
            _ => None,
        };
        let made = made.and_then(|made| match made {
            Value::Text(text) => usable(text.as_str()),
            _ => None,
        });
        let detail = made.unwrap_or_else(|| rule.told.clone());
        let words = rule.reason.words();
        let message = match (rule.reason, value) {
            (FaultReason::Required | FaultReason::Forbidden, _) => format!("{words}: {detail}"),
            (FaultReason::Duplicate, Tree::Object(_) | Tree::Array(_)) => words.to_owned(),
            (FaultReason::Duplicate, value) => format!("{words}: {value}"),
            (_, Tree::Object(_) | Tree::Array(_)) => format!("{words}: {detail}"),
            (_, value) => format!("{words}: {value}: {detail}"),
        };
        let path = at.path();
        let field = match (path.as_str(), rule.field.as_str()) {
            (path, "") => shown(path),
            ("", field) => field.to_owned(),
            (path, field) => format!("{path}.{field}"),
        };
        self.faults.push(Fault { field, reason: rule.reason, message });
    }
}

/// A message that an expression made, when it can be shown.
pub fn usable(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= MESSAGE_LEN_MAX && !text.contains('\n')).then(|| text.to_owned())
}

/// The root has no path.
fn shown(path: &str) -> String {
    if path.is_empty() { "<nil>".to_owned() } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(schema: &Tree, old: Option<Tree>, object: Tree) -> Vec<String> {
        let rules = Rules::of(schema).expect("rules");
        rules.check(schema, old.as_ref(), &object).iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check(rules: Tree, old: Option<Tree>, object: Tree, wanted: &[&str]) {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "x-kubernetes-validations": rules,
        "properties": {
            "replicas": {"type": "integer"}, "min": {"type": "integer"}, "max": {"type": "integer"},
            "name": {"type": "string"}, "kept": {"type": "string"},
            "namespace": {"type": "string"}, "a-b": {"type": "string"},
            "since": {"type": "string", "format": "date-time"},
            "port": {"x-kubernetes-int-or-string": true},
            "list": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        }}}});
        let old = old.map(|old| json!({"spec": old}));
        assert_eq!(told(&schema, old, json!({"spec": object})), wanted);
    }

    #[test]
    fn broken_rules_are_told_with_their_message() {
        let bounds = "self.min <= self.replicas && self.replicas <= self.max";
        let good = json!({"min": 1, "replicas": 2, "max": 3});
        let bad = json!({"min": 1, "replicas": 5, "max": 3});
        check(json!([{"rule": bounds}]), None, good, &[]);
        let plain = format!("spec: Invalid value: failed rule: {bounds}");
        check(json!([{"rule": bounds}]), None, bad.clone(), &[&plain]);
        let said = json!([{"rule": bounds, "message": "replicas should be in the range min..max"}]);
        check(said, None, bad.clone(), &["spec: Invalid value: replicas should be in the range min..max"]);
        let made = json!([{"rule": bounds, "messageExpression": "'at most %d, not %d'.format([self.max, self.replicas])"}]);
        check(made, None, bad.clone(), &["spec: Invalid value: at most 3, not 5"]);
        let placed = json!([{"rule": bounds, "message": "too many", "reason": "FieldValueForbidden", "fieldPath": ".replicas"}]);
        check(placed, None, bad, &["spec.replicas: Forbidden: too many"]);
    }

    #[test]
    fn values_have_the_types_of_their_schema() {
        let object = json!({"name": "a", "namespace": "b", "a-b": "c", "since": "2026-01-01T00:00:00Z", "port": "http",
            "labels": {"x": "y"}, "list": ["a", "b"]});
        let rules = [
            "self.__namespace__ == 'b' && self.a__dash__b == 'c'",
            "self.since.getFullYear() == 2026",
            "type(self.port) == string ? self.port == 'http' : self.port > 0",
            "self.labels.all(k, k.size() == 1) && self.labels['x'] == 'y'",
            "!has(self.replicas) && self.list.exists(x, x == self.name)",
        ];
        for rule in rules {
            check(json!([{"rule": rule}]), None, object.clone(), &[]);
        }
        check(
            json!([{"rule": "self.replicas > 1", "message": "why"}]),
            None,
            object,
            &["spec: Invalid value: \"object\": no such key: replicas evaluating rule: why"],
        );
    }

    #[test]
    fn transitions_are_asked_of_changes_alone() {
        let rules = json!([{"rule": "self.name == oldSelf.name", "message": "is immutable"}]);
        check(rules.clone(), None, json!({"name": "a"}), &[]);
        check(rules.clone(), Some(json!({"name": "a"})), json!({"name": "a"}), &[]);
        check(
            rules,
            Some(json!({"name": "a"})),
            json!({"name": "b"}),
            &["spec: Invalid value: is immutable"],
        );
        let optional = json!([{"rule": "oldSelf.hasValue() || self.replicas == 1", "optionalOldSelf": true, "message": "begins with 1"}]);
        check(optional.clone(), None, json!({"replicas": 2}), &["spec: Invalid value: begins with 1"]);
        check(optional, Some(json!({"replicas": 1})), json!({"replicas": 2}), &[]);
    }

    #[test]
    fn what_was_broken_before_does_not_hold_up_a_change_elsewhere() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "x-kubernetes-validations": [{"rule": "self == 'good'", "message": "must be good"}]},
            "b": {"type": "string"}}});
        let bad = "a: Invalid value: \"bad\": must be good";
        assert_eq!(told(&schema, None, json!({"a": "bad"})), [bad]);
        assert!(told(&schema, Some(json!({"a": "bad"})), json!({"a": "bad", "b": "new"})).is_empty());
        assert_eq!(told(&schema, Some(json!({"a": "good"})), json!({"a": "bad"})), [bad]);
    }

    #[test]
    fn items_are_known_again_by_their_keys() {
        let schema = json!({"type": "object", "properties": {"list": {"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["key"], "items": {"type": "object",
            "x-kubernetes-validations": [{"rule": "self.value >= oldSelf.value", "message": "may only grow"}],
            "properties": {"key": {"type": "string"}, "value": {"type": "integer"}}}}}});
        let list = |a: i64, b: i64| json!({"list": [{"key": "b", "value": b}, {"key": "a", "value": a}]});
        let turned = json!({"list": [{"key": "a", "value": 1}, {"key": "b", "value": 1}]});
        assert!(told(&schema, Some(turned.clone()), list(2, 2)).is_empty());
        assert_eq!(told(&schema, Some(turned), list(0, 2)), ["list[1]: Invalid value: may only grow"]);
    }

    #[test]
    fn rules_at_the_root_know_the_name() {
        let schema = json!({"type": "object", "x-kubernetes-validations": [{"rule": "self.metadata.name.startsWith('a')"}]});
        let object = json!({"metadata": {"name": "b"}});
        assert_eq!(
            told(&schema, None, object),
            ["<nil>: Invalid value: failed rule: self.metadata.name.startsWith('a')"]
        );
    }

    #[test]
    fn costs_are_bounded() {
        let loops = "self.list.all(a, self.list.all(b, self.list.all(c, c != a + b)))";
        let list: Vec<String> = (0..200).map(|at| format!("item {at}")).collect();
        let why = format!(
            "spec: Invalid value: \"object\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {loops}"
        );
        check(json!([{"rule": loops}, {"rule": "false"}]), None, json!({"list": list}), &[&why]);
    }

    #[test]
    fn paths_of_fields_are_read() {
        let check = |path: &str, wanted: Option<&str>| assert_eq!(field_path(path).as_deref(), wanted);
        check("", Some(""));
        check(".a.b", Some("a.b"));
        check(".a['b.c'].d", Some("a.b.c.d"));
        check("a", None);
        check(".", None);
        check(".a[0]", None);
    }
}
