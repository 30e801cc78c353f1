//! Match conditions: whether a webhook or a policy is asked about a request at all.

use std::rc::Rc;

use cel::{Ask, Authorizer, Budget, Environment, Program, Question, Type, Value};
use model::Tree;
use model::tree::text;

/// The conditions of one webhook or policy, each with its text.
#[derive(Debug, Clone, Default)]
pub struct Conditions(Vec<(String, Result<Program, String>)>);

/// What conditions are asked about. Null stands for what is not there.
pub struct About<'a> {
    /// The object as it would be.
    pub object: &'a Tree,
    /// The object as it is.
    pub old: &'a Tree,
    /// The request, as admission reviews have it.
    pub request: &'a Tree,
    /// The parameters of a policy; `None` for what has none.
    pub params: Option<&'a Tree>,
    /// Who may do what.
    pub authorizer: &'a dyn Authorizer,
}

/// What conditions come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// All hold.
    Yes,
    /// One does not, whatever the others say.
    No,
    /// None is false, and these cannot be told: the failure policy decides.
    Unknown(String),
}

impl Conditions {
    /// Those of `matchConditions`. One that cannot be read was refused when it was written, and fails each request.
    pub fn compile(list: &[Tree], params: bool) -> Self {
        let environment = environment(params);
        let one = |one: &Tree| {
            let written = text(one, "expression").trim();
            (written.to_owned(), compile(written, &environment))
        };
        Self(list.iter().map(one).collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold.
    pub fn hold(&self, about: &About<'_>) -> Held {
        if self.0.is_empty() {
            return Held::Yes;
        }
        let names = about.names();
        let mut budget = Budget::new(cel::CONDITIONS_COST_MAX);
        let mut failed = Vec::new();
        for (written, program) in &self.0 {
            let value = match program {
                Ok(program) => program.evaluate(&names, &mut budget).map_err(|error| error.to_string()),
                Err(why) => Err(why.clone()),
            };
            match value {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => return Held::No,
                Ok(_) => failed.push(format!("expression '{written}' resulted in error: it is no bool")),
                Err(why) => failed.push(format!("expression '{written}' resulted in error: {why}")),
            }
        }
        match failed.as_slice() {
            [] => Held::Yes,
            [one] => Held::Unknown(one.clone()),
            all => Held::Unknown(format!("[{}]", all.join(", "))),
        }
    }
}

impl<'a> About<'a> {
    /// What names stand for.
    pub fn names(&self) -> Vec<(&'static str, Value<'a>)> {
        let mut names = vec![
            ("object", Value::json(self.object)),
            ("oldObject", Value::json(self.old)),
            ("request", Value::json(self.request)),
            ("authorizer", Value::Ask(Rc::new(Ask::new(self.authorizer)))),
            ("authorizer.requestResource", self.request_resource()),
        ];
        names.extend(self.params.map(|params| ("params", Value::json(params))));
        names
    }

    /// The question whether the resource of the request may be touched.
    fn request_resource(&self) -> Value<'a> {
        let own = |field: &str| text(self.request, field).to_owned();
        let question = Question {
            group: own("resource.group"),
            resource: own("resource.resource"),
            subresource: own("subResource"),
            namespace: own("namespace"),
            name: own("name"),
            ..Question::default()
        };
        Value::Ask(Rc::new(Ask::resource(self.authorizer, question)))
    }
}

/// What a condition may speak of.
pub fn environment(params: bool) -> Environment {
    let mut names = vec!["object", "oldObject", "request"];
    names.extend(params.then_some("params"));
    Environment::of(&names)
        .with("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
        .with("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"))
}

fn compile(text: &str, environment: &Environment) -> Result<Program, String> {
    let program =
        Program::compile(text, environment).map_err(|faulty| format!("compilation failed: {faulty}"))?;
    match program.gives() {
        Type::Bool | Type::Dyn => Ok(program),
        _ => Err("must evaluate to bool".into()),
    }
}

/// What is wrong with a condition; `None` when it can be asked.
pub fn fault(text: &str, params: bool) -> Option<String> {
    compile(text, &environment(params)).err()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::Identity;
    use crate::cel::Asker;
    use crate::guard::AllowAll;

    fn check(expressions: &[&str], wanted: Held) {
        let list: Vec<Tree> =
            expressions.iter().map(|text| json!({"name": "c", "expression": text})).collect();
        let object = json!({"metadata": {"name": "a", "labels": {"x": "y"}}});
        let request = json!({"operation": "CREATE", "userInfo": {"username": "ann"}, "namespace": "ns",
            "resource": {"group": "apps", "resource": "deployments"}});
        let identity = Identity::user("ann", &[]);
        let authorizer = Asker { guard: &AllowAll, identity: &identity };
        let about = About {
            object: &object,
            old: &Tree::Null,
            request: &request,
            params: None,
            authorizer: &authorizer,
        };
        assert_eq!(Conditions::compile(&list, false).hold(&about), wanted, "{expressions:?}");
    }

    #[test]
    fn all_have_to_hold_and_a_false_one_outweighs_errors() {
        check(&[], Held::Yes);
        check(&["object.metadata.labels.x == 'y'", "request.operation == 'CREATE'"], Held::Yes);
        check(&["oldObject == null && request.userInfo.username == 'ann'"], Held::Yes);
        check(&["object.metadata.name == 'b'"], Held::No);
        check(&["object.absent == 1", "false"], Held::No);
        let why = "expression 'object.absent == 1' resulted in error: no such key: absent";
        check(&["object.absent == 1", "true"], Held::Unknown(why.into()));
        check(
            &["authorizer.group('apps').resource('deployments').namespace('ns').check('create').allowed()"],
            Held::Yes,
        );
        check(&["authorizer.requestResource.check('create').allowed()"], Held::Yes);
    }

    #[test]
    fn faults_are_told_when_they_are_written() {
        assert_eq!(fault("object.metadata.name == 'a'", false), None);
        assert_eq!(fault("'skip'", false), Some("must evaluate to bool".into()));
        assert!(
            fault("object [", false)
                .is_some_and(|why| why.starts_with("compilation failed: ERROR: <input>:1:9"))
        );
        assert!(fault("params.a", false).is_some() && fault("params.a", true).is_none());
    }
}
