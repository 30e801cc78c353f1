//! Selectors: by labels and by fields, read from text and from objects, and whether something matches them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::{Texts, Tree, syntax};

/// How many requirements one selector may have. A request line cannot carry more, and matching stays cheap.
const REQUIREMENTS_LEN_MAX: usize = 1000;

/// Labels, however they are held.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl Labels for Texts {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

/// Which labels an object must have. Empty: it matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One condition on labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What of it.
    pub op: Op,
}

/// What is asked of one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// It is there, with one of these values.
    In(BTreeSet<String>),
    /// It is not there, or has none of these values.
    NotIn(BTreeSet<String>),
    /// It is there.
    Exists,
    /// It is not there.
    Absent,
    /// It is a number above this.
    Above(i64),
    /// It is a number below this.
    Below(i64),
}

/// Why a selector cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSelector(pub String);

impl Selector {
    /// Matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// All of these labels with these values (a Service's selector).
    pub fn of_map(labels: &BTreeMap<String, String>) -> Self {
        let equal = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            op: Op::In(BTreeSet::from([value.clone()])),
        };
        Self { requirements: labels.iter().map(equal).collect(), nothing: false }
    }

    /// Reads the text form: `a=b,c in (x,y),!d`.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        let requirements = Scanner { rest: text }.requirements()?;
        for requirement in &requirements {
            requirement.check()?;
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads a view's selector; none matches nothing, an empty one everything.
    pub fn of_view(view: Option<&LabelSelector>) -> Result<Self, BadSelector> {
        let Some(view) = view else { return Ok(Self::nothing()) };
        let mut selector = view.match_labels.as_ref().map(Self::of_map).unwrap_or_default();
        for expression in view.match_expressions.iter().flatten() {
            let values = expression.values.iter().flatten().cloned().collect();
            selector.requirements.push(requirement(&expression.key, &expression.operator, values)?);
        }
        Ok(selector)
    }

    /// Reads a tree's `LabelSelector`; none or null matches nothing, an empty one everything.
    pub fn of_tree(tree: Option<&Tree>) -> Result<Self, BadSelector> {
        let Some(tree) = tree.filter(|tree| !tree.is_null()) else { return Ok(Self::nothing()) };
        let mut selector = Self::of_label_tree(&tree["matchLabels"]);
        for expression in tree["matchExpressions"].as_array().into_iter().flatten() {
            let text = |name: &str| expression[name].as_str().unwrap_or_default();
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Tree::as_str).map(str::to_owned).collect();
            selector.requirements.push(requirement(text("key"), text("operator"), values)?);
        }
        Ok(selector)
    }

    /// Reads a tree's map of labels (`spec.selector` of a Service or a ReplicationController).
    pub fn of_label_tree(tree: &Tree) -> Self {
        let labels = tree.as_object().into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        Self::of_map(&labels.collect())
    }

    /// Whether an object with these labels is meant.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it matches every object.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether it matches no object, having been left out.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Its conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// One more condition.
    #[must_use]
    pub fn and(mut self, requirement: Requirement) -> Self {
        self.requirements.push(requirement);
        self
    }
}

impl Requirement {
    /// Whether these labels satisfy it.
    pub fn matches(&self, labels: &impl Labels) -> bool {
        self.holds(labels.label(&self.key))
    }

    /// Whether it holds of a label with this value, or of its absence.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.op {
            Op::In(values) => value.is_some_and(|value| values.contains(value)),
            Op::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Op::Exists => value.is_some(),
            Op::Absent => value.is_none(),
            Op::Above(least) => number().is_some_and(|number| number > *least),
            Op::Below(most) => number().is_some_and(|number| number < *most),
        }
    }

    fn check(&self) -> Result<(), BadSelector> {
        let refuse = |what: &str, text: &str, faults: Vec<String>| match faults.first() {
            Some(_) => Err(BadSelector(format!(
                "unable to parse requirement: {what}: Invalid value: {text:?}: {}",
                faults.join("; ")
            ))),
            None => Ok(()),
        };
        refuse("<nil>", &self.key, syntax::qualified_name(&self.key))?;
        match &self.op {
            Op::In(values) | Op::NotIn(values) => values.iter().enumerate().try_for_each(|(at, value)| {
                refuse(&format!("values[{at}][{}]", self.key), value, syntax::label_value(value))
            }),
            _ => Ok(()),
        }
    }
}

/// A requirement in the words that objects use (`In`, `NotIn`, `Exists`, `DoesNotExist`, and of nodes `Gt`, `Lt`).
pub fn requirement(key: &str, operator: &str, values: BTreeSet<String>) -> Result<Requirement, BadSelector> {
    let number = || {
        let text = values.first().map(String::as_str).unwrap_or_default();
        text.parse::<i64>().map_err(|_| BadSelector(format!("{text:?} is not an integer")))
    };
    let op = match operator {
        "In" => Op::In(values),
        "NotIn" => Op::NotIn(values),
        "Exists" => Op::Exists,
        "DoesNotExist" => Op::Absent,
        "Gt" => Op::Above(number()?),
        "Lt" => Op::Below(number()?),
        other => return Err(BadSelector(format!("{other:?} is not a valid label selector operator"))),
    };
    Ok(Requirement { key: key.to_owned(), op })
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, op } = self;
        let joined =
            |values: &BTreeSet<String>| values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match op {
            Op::In(values) if values.len() == 1 => write!(f, "{key}={}", joined(values)),
            Op::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", joined(values)),
            Op::In(values) => write!(f, "{key} in ({})", joined(values)),
            Op::NotIn(values) => write!(f, "{key} notin ({})", joined(values)),
            Op::Exists => f.write_str(key),
            Op::Absent => write!(f, "!{key}"),
            Op::Above(least) => write!(f, "{key}>{least}"),
            Op::Below(most) => write!(f, "{key}<{most}"),
        }
    }
}

/// Reads the text form from left to right.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn requirements(mut self) -> Result<Vec<Requirement>, BadSelector> {
        let mut found = Vec::new();
        self.skip_space();
        while !self.rest.is_empty() {
            found.push(self.requirement()?);
            if found.len() > REQUIREMENTS_LEN_MAX {
                return Err(BadSelector(format!("more than {REQUIREMENTS_LEN_MAX} requirements")));
            }
            match self.taken(",") {
                true if self.rest.is_empty() => return Err(self.unexpected("identifier after ','")),
                false if !self.rest.is_empty() => return Err(self.unexpected("',' or end of string")),
                _ => {}
            }
        }
        Ok(found)
    }

    fn requirement(&mut self) -> Result<Requirement, BadSelector> {
        let absent = self.taken("!");
        let key = self.word();
        if key.is_empty() {
            return Err(self.unexpected("!, identifier, or ')'"));
        }
        let key = key.to_owned();
        if absent {
            return Ok(Requirement { key, op: Op::Absent });
        }
        let op = match self.operator()? {
            None => Op::Exists,
            Some("in") => Op::In(self.values()?),
            Some("notin") => Op::NotIn(self.values()?),
            Some("!=") => Op::NotIn(BTreeSet::from([self.word().to_owned()])),
            Some(">") => Op::Above(self.number()?),
            Some("<") => Op::Below(self.number()?),
            Some(_) => Op::In(BTreeSet::from([self.word().to_owned()])),
        };
        Ok(Requirement { key, op })
    }

    fn operator(&mut self) -> Result<Option<&'static str>, BadSelector> {
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(None);
        }
        if let Some(sign) = ["==", "!=", "=", ">", "<"].into_iter().find(|sign| self.taken(sign)) {
            return Ok(Some(sign));
        }
        match self.word() {
            "in" => Ok(Some("in")),
            "notin" => Ok(Some("notin")),
            _ => Err(self.unexpected("in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, BadSelector> {
        if !self.taken("(") {
            return Err(self.unexpected("'('"));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(self.word().to_owned());
            if self.taken(")") {
                return Ok(values);
            }
            if !self.taken(",") {
                return Err(self.unexpected("',' or ')'"));
            }
        }
    }

    fn number(&mut self) -> Result<i64, BadSelector> {
        let word = self.word();
        word.parse()
            .map_err(|_| BadSelector(format!("unable to parse requirement: {word:?} is not an integer")))
    }

    /// The next run of characters that are neither signs nor spaces; may be empty.
    fn word(&mut self) -> &'a str {
        self.skip_space();
        let sign = |c: char| c.is_whitespace() || "=!(),><".contains(c);
        let (word, rest) = self.rest.split_at(self.rest.find(sign).unwrap_or(self.rest.len()));
        self.rest = rest;
        self.skip_space();
        word
    }

    fn taken(&mut self, sign: &str) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix(sign) else { return false };
        self.rest = rest;
        self.skip_space();
        true
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn unexpected(&self, wanted: &str) -> BadSelector {
        BadSelector(format!("unable to parse requirement: found '{}', expected: {wanted}", self.rest))
    }
}

/// Which fields an object must have: all of the conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// The conditions.
    pub conditions: Vec<FieldCondition>,
}

/// One condition on a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldCondition {
    /// The path, such as `spec.nodeName`.
    pub path: String,
    /// Whether the field must have the value, or must not.
    pub equal: bool,
    /// The value; a field that is left out has the value `""`.
    pub value: String,
}

impl FieldSelector {
    /// Reads the text form: `spec.nodeName=a,status.phase!=Running`, with `\,`, `\=` and `\\` for the signs.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        let mut conditions = Vec::new();
        for term in split_unescaped(text).filter(|term| !term.is_empty()) {
            let bad = || BadSelector(format!("invalid selector: '{text}'; can't understand '{term}'"));
            let (at, sign, equal) = find_sign(term).ok_or_else(bad)?;
            let value = unescaped(&term[at + sign..]).ok_or_else(bad)?;
            conditions.push(FieldCondition { path: term[..at].to_owned(), equal, value });
            if conditions.len() > REQUIREMENTS_LEN_MAX {
                return Err(BadSelector(format!("more than {REQUIREMENTS_LEN_MAX} requirements")));
            }
        }
        Ok(Self { conditions })
    }

    /// Whether it asks for nothing.
    pub fn is_everything(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether an object is meant, given what its fields hold (`None`, `""`: left out).
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        self.conditions.iter().all(|condition| {
            let value = value_of(&condition.path).unwrap_or_default();
            (*value == *condition.value) == condition.equal
        })
    }

    /// The value that a path must have, where it is asked for.
    pub fn required(&self, path: &str) -> Option<&str> {
        let found = self.conditions.iter().find(|condition| condition.equal && condition.path == path)?;
        Some(&found.value)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.conditions.iter().enumerate() {
            let (comma, sign) = (if at == 0 { "" } else { "," }, if condition.equal { "=" } else { "!=" });
            let value = condition.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{sign}{value}", condition.path)?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c: char| {
        let splits = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        splits
    })
}

/// Where the sign of a term starts, how long it is, and whether it asks for equality.
fn find_sign(term: &str) -> Option<(usize, usize, bool)> {
    let mut escaped = false;
    for (at, c) in term.char_indices() {
        let rest = &term[at..];
        match c {
            _ if escaped => {}
            '!' if rest.starts_with("!=") => return Some((at, 2, false)),
            '=' if rest.starts_with("==") => return Some((at, 2, true)),
            '=' => return Some((at, 1, true)),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

fn unescaped(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => out.push(characters.next().filter(|next| "\\,=".contains(*next))?),
            ',' | '=' => return None,
            _ => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn check(selector: &str, yes: &[&str], no: &[&str]) {
        let parsed = Selector::parse(selector).unwrap_or_else(|why| panic!("{selector}: {why}"));
        for text in yes {
            assert!(parsed.matches(&labels(text)), "{selector} should match {text}");
        }
        for text in no {
            assert!(!parsed.matches(&labels(text)), "{selector} should not match {text}");
        }
        assert_eq!(Selector::parse(&parsed.to_string()), Ok(parsed.clone()), "{selector} reads back");
    }

    #[test]
    fn selectors_match_as_their_text_says() {
        check("", &["", "a=b"], &[]);
        check("a=b", &["a=b", "a=b,c=d"], &["", "a=c"]);
        check("a==b", &["a=b"], &["a=c"]);
        check("a!=b", &["", "a=c"], &["a=b"]);
        check("a in (x, y),!d", &["a=x", "a=y"], &["a=z", "a=x,d=1", ""]);
        check("a notin (x)", &["", "a=z"], &["a=x"]);
        check("a", &["a=", "a=b"], &["b=a"]);
        check("!a", &["b=a"], &["a="]);
        check("a=", &["a="], &["a=b", ""]);
        check("n>4", &["n=5"], &["n=4", "n=x", ""]);
        check("example.com/a in (),b", &["example.com/a=,b=1"], &["b=1"]);
        check("in in (in)", &["in=in"], &["in=out"]);
    }

    #[test]
    fn selectors_that_make_no_sense_are_refused() {
        for text in
            ["a=b,", ",", "a in x", "a in (x", "=a", "!", "a b", "a=b c", "n>x", "-a=b", "a=b!", "a=$"]
        {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_selector_left_out_matches_nothing_and_an_empty_one_everything() {
        assert!(!Selector::of_view(None).expect("none").matches(&labels("a=b")));
        assert!(Selector::of_view(Some(&LabelSelector::default())).expect("empty").matches(&labels("a=b")));
        let tree = serde_json::json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["d"]}, {"key": "e", "operator": "DoesNotExist"}]});
        let selector = Selector::of_tree(Some(&tree)).expect("a selector");
        assert_eq!(selector.to_string(), "a=b,c=d,!e");
        assert!(selector.matches(&labels("a=b,c=d")));
        assert!(!Selector::of_tree(Some(&Tree::Null)).expect("null").matches(&labels("")));
    }

    #[test]
    fn fields_are_selected_by_equality() {
        let selector = FieldSelector::parse("spec.nodeName=a,status.phase!=Running").expect("a selector");
        let of = |node: &'static str, phase: &'static str| {
            selector.matches(|path| Some(if path == "spec.nodeName" { node.into() } else { phase.into() }))
        };
        assert!(of("a", "Pending") && !of("a", "Running") && !of("b", "Pending"));
        assert_eq!(selector.required("spec.nodeName"), Some("a"));
        let escaped = FieldSelector::parse(r"a=x\,y\=z\\").expect("escapes");
        assert_eq!(escaped.conditions[0].value, r"x,y=z\");
        assert_eq!(FieldSelector::parse(&escaped.to_string()), Ok(escaped));
        assert!(FieldSelector::parse("a").is_err());
        assert!(FieldSelector::parse("").expect("empty").is_everything());
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(keys in proptest::collection::btree_map("[a-z]{1,5}", "[a-z0-9]{0,3}", 0..5)) {
            let selector = Selector::of_map(&keys);
            prop_assert_eq!(Selector::parse(&selector.to_string()), Ok(selector.clone()));
            prop_assert!(selector.matches(&keys));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = Selector::parse(&text);
            let _ = FieldSelector::parse(&text);
        }
    }
}
