//! What the one who asks may do.

use std::rc::Rc;

use super::{Row, row, walk};
use crate::budget::Error;
use crate::value::Value;

/// What one check costs: so much that an expression can make two of them.
const CHECK_COST: u64 = 350_000;

/// Answers what somebody may do.
pub trait Authorizer {
    /// Whether it may be done, and why, or why that cannot be told.
    fn decide(&self, question: &Question) -> Result<(bool, String), String>;
    /// Who is asked about unless the expression names another.
    fn user(&self) -> String;
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// A service account, by namespace and name; none for the one who asks.
    pub account: Option<(String, String)>,
    /// The verb.
    pub verb: String,
    /// A path that is no resource; empty for a resource.
    pub path: String,
    /// The group.
    pub group: String,
    /// The plural.
    pub resource: String,
    /// The subresource.
    pub subresource: String,
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// What the fields of the objects have to be.
    pub fields: String,
    /// What the labels of the objects have to be.
    pub labels: String,
}

/// How far a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Of whom.
    Authorizer,
    /// About a path.
    Path,
    /// About a group.
    Group,
    /// About a resource.
    Resource,
    /// It is answered.
    Decision,
}

/// A question as far as it is asked, or its answer.
#[derive(Clone)]
pub struct Ask<'a> {
    by: &'a dyn Authorizer,
    stage: Stage,
    question: Question,
    answer: Result<(bool, String), String>,
}

impl<'a> Ask<'a> {
    /// Nothing is asked yet.
    pub fn new(by: &'a dyn Authorizer) -> Self {
        let question = Question::default();
        Self { by, stage: Stage::Authorizer, question, answer: Ok((false, String::new())) }
    }

    /// A question about a resource, as `authorizer.requestResource` has it ready.
    pub fn resource(by: &'a dyn Authorizer, question: Question) -> Self {
        Self { stage: Stage::Resource, question, ..Self::new(by) }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => "kubernetes.authorization.Authorizer",
            Stage::Path => "kubernetes.authorization.PathCheck",
            Stage::Group => "kubernetes.authorization.GroupCheck",
            Stage::Resource => "kubernetes.authorization.ResourceCheck",
            Stage::Decision => "kubernetes.authorization.Decision",
        }
    }

    /// Whether two are at the same point.
    pub fn same(one: &Self, other: &Self) -> bool {
        one.stage == other.stage && one.question == other.question && one.answer == other.answer
    }

    fn to(&self, stage: Stage, change: impl FnOnce(&mut Question)) -> Self {
        let mut next = Self { stage, ..self.clone() };
        change(&mut next.question);
        next
    }
}

pub const ROWS: &[Row] = &[
    row("path", &["Authorizer.(string) PathCheck"], |args, _| {
        let path = text(args, 1)?;
        if path.is_empty() {
            return Error::said("path must not be empty");
        }
        step(args, Stage::Authorizer, Stage::Path, |question| question.path = path)
    }),
    row("group", &["Authorizer.(string) GroupCheck"], |args, _| {
        let group = text(args, 1)?;
        step(args, Stage::Authorizer, Stage::Group, |question| question.group = group)
    }),
    row("serviceAccount", &["Authorizer.(string, string) Authorizer"], |args, _| {
        let account = (text(args, 1)?, text(args, 2)?);
        let label = model::syntax::dns1123_label(&account.0);
        let name = model::syntax::dns1123_subdomain(&account.1);
        if let Some(why) = label.first() {
            return Error::said(format!("Invalid service account namespace: {why}"));
        }
        if let Some(why) = name.first() {
            return Error::said(format!("Invalid service account name: {why}"));
        }
        step(args, Stage::Authorizer, Stage::Authorizer, |question| question.account = Some(account))
    }),
    row("resource", &["GroupCheck.(string) ResourceCheck"], |args, _| {
        let resource = text(args, 1)?;
        step(args, Stage::Group, Stage::Resource, |question| question.resource = resource)
    }),
    row("subresource", &["ResourceCheck.(string) ResourceCheck"], |args, _| {
        let part = text(args, 1)?;
        step(args, Stage::Resource, Stage::Resource, |question| question.subresource = part)
    }),
    row("namespace", &["ResourceCheck.(string) ResourceCheck"], |args, _| {
        let namespace = text(args, 1)?;
        step(args, Stage::Resource, Stage::Resource, |question| question.namespace = namespace)
    }),
    row("name", &["ResourceCheck.(string) ResourceCheck"], |args, _| {
        let name = text(args, 1)?;
        step(args, Stage::Resource, Stage::Resource, |question| question.name = name)
    }),
    row("fieldSelector", &["ResourceCheck.(string) ResourceCheck"], |args, budget| {
        let fields = text(args, 1)?;
        budget.pay(selector_cost(&fields))?;
        step(args, Stage::Resource, Stage::Resource, |question| question.fields = fields)
    }),
    row("labelSelector", &["ResourceCheck.(string) ResourceCheck"], |args, budget| {
        let labels = text(args, 1)?;
        budget.pay(selector_cost(&labels))?;
        step(args, Stage::Resource, Stage::Resource, |question| question.labels = labels)
    }),
    row("check", &["PathCheck.(string) Decision", "ResourceCheck.(string) Decision"], |args, budget| {
        budget.pay(CHECK_COST)?;
        let verb = text(args, 1)?;
        let Value::Ask(ask) = &args[0] else { return Error::no_overload() };
        if !matches!(ask.stage, Stage::Path | Stage::Resource) {
            return Error::no_overload();
        }
        let mut next = ask.to(Stage::Decision, |question| question.verb = verb);
        next.answer = next.by.decide(&next.question);
        Ok(Value::Ask(Rc::new(next)))
    }),
    row("allowed", &["Decision.() bool"], |args, _| {
        answer(args, |answer| Value::Bool(answer.as_ref().is_ok_and(|(allowed, _)| *allowed)))
    }),
    row("reason", &["Decision.() string"], |args, _| {
        answer(args, |answer| Value::text(answer.as_ref().map_or("", |(_, reason)| reason)))
    }),
    row("errored", &["Decision.() bool"], |args, _| answer(args, |answer| Value::Bool(answer.is_err()))),
    row("error", &["Decision.() string"], |args, _| {
        answer(args, |answer| Value::text(answer.as_ref().err().map_or("", String::as_str)))
    }),
];

/// What reading a selector costs: going through it, and a structure with a list for each requirement, which takes two characters
/// at least.
fn selector_cost(selector: &str) -> u64 {
    let len = selector.len() as u64;
    10 + walk(len) + len.div_ceil(2) * 50
}

fn text(args: &[Value<'_>], at: usize) -> Result<String, Error> {
    match args.get(at) {
        Some(Value::Text(text)) => Ok(text.as_str().to_owned()),
        _ => Error::no_overload(),
    }
}

fn step<'a>(
    args: &[Value<'a>],
    from: Stage,
    to: Stage,
    change: impl FnOnce(&mut Question),
) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Ask(ask) if ask.stage == from => Ok(Value::Ask(Rc::new(ask.to(to, change)))),
        _ => Error::no_overload(),
    }
}

fn answer<'a>(
    args: &[Value<'a>],
    of: fn(&Result<(bool, String), String>) -> Value<'a>,
) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Ask(ask) if ask.stage == Stage::Decision => Ok(of(&ask.answer)),
        _ => Error::no_overload(),
    }
}
