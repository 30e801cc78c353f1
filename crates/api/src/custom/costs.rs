//! Whether the rules of a definition can be asked, and are not too costly, told when it is written. Pure.

use model::Tree;
use model::kinds::Faults;
use model::tree::{entries, items, text};

use super::rules::{Rule, compile, field_path};
use super::types;

/// What one rule may cost on the largest object that its schema lets through: upstream's limit.
const RULE_COST_MAX: u64 = 10_000_000;
/// What all rules of a schema may cost together: upstream's limit.
const TOTAL_COST_MAX: u64 = 100_000_000;
/// The longest request, in bytes: it bounds how many values of a schema there are.
const REQUEST_LEN_MAX: u64 = 3 << 20;
const LIST: &str = "x-kubernetes-validations";
const REASONS: [&str; 4] =
    ["FieldValueRequired", "FieldValueForbidden", "FieldValueInvalid", "FieldValueDuplicate"];

/// Notes what is wrong with the rules of a schema that stands at `path`.
pub fn check(schema: &Tree, path: &str, faults: &mut Faults) {
    let mut counting = Counting { faults, total: 0, costly: Vec::new() };
    counting.schema(schema, &Around { path, name: "selfType", root: true, times: 1, lost: None });
    if counting.total <= TOTAL_COST_MAX {
        return;
    }
    let (total, mut costly) = (counting.total, counting.costly);
    costly.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
    for (field, _) in costly.into_iter().take(4) {
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        faults.forbidden(field, why);
    }
    let word = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    faults.forbidden(path, &exceeds(word, total, TOTAL_COST_MAX));
}

struct Counting<'f> {
    faults: &'f mut Faults,
    total: u64,
    costly: Vec<(String, u64)>,
}

/// What a schema stands in.
struct Around<'a> {
    path: &'a str,
    name: &'a str,
    root: bool,
    /// How many values of it there are at most.
    times: u64,
    /// The list in which what was there before cannot be found again.
    lost: Option<&'a str>,
}

impl Counting<'_> {
    fn schema(&mut self, schema: &Tree, around: &Around<'_>) {
        if !items(schema, LIST).is_empty() {
            let of = types::of(schema, around.name, around.root);
            for rule in compile(schema, of.as_ref()) {
                self.rule(schema, &rule, around);
            }
        }
        for (index, rule) in items(schema, LIST).iter().enumerate() {
            self.words(rule, &format!("{}.{LIST}[{index}]", around.path));
        }
        for (property, below) in entries(schema, "properties") {
            let (path, name) =
                (format!("{}.properties[{property}]", around.path), format!("{}.{property}", around.name));
            self.schema(below, &Around { path: &path, name: &name, root: false, ..*around });
        }
        let most = types::most(schema);
        if schema["items"].is_object() {
            let (path, name) = (format!("{}.items", around.path), format!("{}.@items", around.name));
            let keyed = text(schema, "x-kubernetes-list-type") == "map";
            let lost = around.lost.or((!keyed).then_some(around.path));
            let times = around.times.saturating_mul(most);
            self.schema(&schema["items"], &Around { path: &path, name: &name, root: false, times, lost });
        }
        if schema["additionalProperties"].is_object() {
            let (path, name) =
                (format!("{}.additionalProperties", around.path), format!("{}.@values", around.name));
            let times = around.times.saturating_mul(most);
            self.schema(
                &schema["additionalProperties"],
                &Around { path: &path, name: &name, root: false, times, ..*around },
            );
        }
    }

    fn words(&mut self, rule: &Tree, field: &str) {
        if text(rule, "rule").trim().is_empty() {
            self.faults.required(format!("{field}.rule"), "rule is not specified");
        }
        let said = text(rule, "message");
        if !said.is_empty() && said.trim().is_empty() {
            self.faults.invalid(format!("{field}.message"), said, "message must be non-empty if specified");
        } else if said.trim().contains('\n') {
            self.faults.invalid(
                format!("{field}.message"),
                said.trim(),
                "message must not contain line breaks",
            );
        }
        let reason = text(rule, "reason");
        if !reason.is_empty() {
            self.faults.one_of(format_args!("{field}.reason"), reason, &REASONS);
        }
        let path = text(rule, "fieldPath");
        if !path.is_empty() && field_path(path).is_none() {
            let why = "fieldPath must be a valid path: expected [ or . but got something else";
            self.faults.invalid(format!("{field}.fieldPath"), path, why);
        }
    }

    fn rule(&mut self, schema: &Tree, rule: &Rule, around: &Around<'_>) {
        let said = &items(schema, LIST)[rule.index];
        let field = |part: &str| format!("{}.{LIST}[{}].{part}", around.path, rule.index);
        match &rule.program {
            Err(why) => self.faults.invalid(field("rule"), said.clone(), why),
            Ok(program) => {
                self.cost("estimated rule cost", field("rule"), program.cost_max(), schema, around.times)
            }
        }
        match &rule.message {
            Some(Err(why)) => self.faults.invalid(field("messageExpression"), said.clone(), why),
            Some(Ok(program)) => {
                self.cost(
                    "estimated messageExpression cost",
                    field("messageExpression"),
                    program.cost_max(),
                    schema,
                    1,
                );
            }
            None => {}
        }
        if let Some(lost) = around.lost.filter(|_| rule.transition) {
            let why =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
            self.faults.invalid(field("rule"), text(said, "rule"), &why);
        }
        if !rule.transition && !said["optionalOldSelf"].is_null() && rule.program.is_ok() {
            let why = "may not be set if oldSelf is not used in rule";
            self.faults.invalid(field("optionalOldSelf"), said["optionalOldSelf"].clone(), why);
        }
    }

    fn cost(&mut self, word: &str, field: String, each: u64, schema: &Tree, times: u64) {
        // No request holds more values than fit into it.
        let times = times.min(REQUEST_LEN_MAX / (types::least(schema) + 1));
        let cost = each.saturating_mul(times);
        if cost > RULE_COST_MAX {
            self.faults.forbidden(field.as_str(), &exceeds(word, cost, RULE_COST_MAX));
        }
        self.total = self.total.saturating_add(cost);
        self.costly.push((field, cost));
    }
}

fn exceeds(word: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 { "more than 100x".to_owned() } else { format!("factor of {factor:.1}x") };
    let factor = if factor.starts_with("factor") { factor } else { format!("factor of {factor}") };
    format!(
        "{word} exceeds budget by {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn told(property: Tree, wanted: &[&str]) {
        let mut faults = Faults::default();
        check(&json!({"type": "object", "properties": {"x": property}}), "~", &mut faults);
        let found: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), wanted.len(), "{found:#?}");
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.contains(wanted), "{found} has no {wanted}");
        }
    }

    fn rules(kind: &str, rule: Tree) -> Tree {
        json!({"type": kind, "x-kubernetes-validations": [rule]})
    }

    #[test]
    fn rules_that_cannot_be_asked_are_refused() {
        told(rules("string", json!({"rule": "self.startsWith('a')"})), &[]);
        told(
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "x-kubernetes-validations": [{"rule": "self.b == 'a'"}]}),
            &[
                "~.properties[x].x-kubernetes-validations[0].rule: Invalid value: {\"rule\":\"self.b == 'a'\"}: compilation failed: ERROR: <input>:1:5: undefined field 'b'",
            ],
        );
        told(rules("integer", json!({"rule": "self + 1"})), &["cel expression must evaluate to a bool"]);
        told(
            rules("integer", json!({"rule": "self == 'a'"})),
            &["found no matching overload for '_==_' applied to '(int, string)'"],
        );
        told(
            rules("integer", json!({"rule": "self > 1", "messageExpression": "self"})),
            &["messageExpression must evaluate to a string"],
        );
        told(rules("integer", json!({"rule": ""})), &["rule: Required value: rule is not specified"]);
        told(
            rules("integer", json!({"rule": "true", "message": "a\nb"})),
            &["message must not contain line breaks"],
        );
        told(
            rules("integer", json!({"rule": "true", "reason": "Why"})),
            &["reason: Unsupported value: \"Why\""],
        );
        told(
            rules("integer", json!({"rule": "true", "optionalOldSelf": true})),
            &["may not be set if oldSelf is not used in rule"],
        );
    }

    #[test]
    fn costly_rules_are_refused() {
        let list = |most: Tree, rule: &str| {
            let mut list = rules("array", json!({"rule": rule}));
            list["items"] = json!({"type": "string", "maxLength": 10});
            list["maxItems"] = most;
            list
        };
        told(list(json!(10), "self.all(a, self.all(b, a == b))"), &[]);
        let endless = "self.all(a, self.all(b, a == b))";
        told(
            list(Tree::Null, endless),
            &[
                "estimated rule cost exceeds budget by factor of more than 100x",
                "contributed",
                "entire OpenAPIv3 schema exceeds budget",
            ],
        );
    }

    #[test]
    fn what_upstream_bears_is_borne() {
        let strings = json!({"type": "string"});
        let mut kept = rules("array", json!({"rule": "self == oldSelf"}));
        kept["items"] = strings.clone();
        told(kept, &[]);
        let mut held = rules("array", json!({"rule": "oldSelf.all(one, one in self)"}));
        (held["items"], held["maxItems"]) = (strings.clone(), json!(1000));
        told(held, &[]);
        let mut keys = rules("object", json!({"rule": "self.all(key, key.matches('^[a-z]+$'))"}));
        keys["additionalProperties"] = strings;
        told(keys, &[]);
        told(
            rules(
                "string",
                json!({"rule": "self.replace('-', '').size() < 10 && self.split('/').size() < 3"}),
            ),
            &[],
        );
    }

    #[test]
    fn what_was_before_has_to_be_found_again() {
        let item = rules("string", json!({"rule": "self == oldSelf"}));
        let list = json!({"type": "array", "items": item, "maxItems": 5});
        told(
            list,
            &["oldSelf cannot be used on the uncorrelatable portion of the schema within ~.properties[x]"],
        );
    }
}
