//! What the expressions of a policy may speak of, and what their names stand for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use cel::{Budget, Environment, Error, Fields, Program, Shape, Type, Value};
use model::Tree;
use model::tree::{items, text};

use crate::cel::About;

/// A variable: its name and what makes it.
pub type Variable = (String, Result<Program, String>);

/// The variables of a policy, as types have them.
#[derive(Debug)]
struct Variables(BTreeMap<String, Type>);

impl Shape for Variables {
    fn name(&self) -> &str {
        "kubernetes.variables"
    }

    fn field(&self, name: &str) -> Option<(String, Type)> {
        self.0.get(name).map(|of| (name.to_owned(), of.clone()))
    }
}

/// What is there without variables.
pub fn environment(params: bool) -> Environment {
    crate::cel::environment(params).with("namespaceObject", Type::Dyn)
}

/// The same without who may do what.
pub fn without_authorizer(environment: &Environment) -> Environment {
    let mut less = environment.clone();
    less.names.retain(|(name, _)| !name.starts_with("authorizer"));
    less
}

/// Compiles the variables of a policy; gives the environment that has them. Each may use those before it.
pub fn variables(spec: &Tree, base: Environment) -> (Vec<Variable>, Environment) {
    let (mut all, mut types) = (Vec::new(), BTreeMap::new());
    let with = |types: &BTreeMap<String, Type>| {
        base.clone().with("variables", Type::Object(Arc::new(Variables(types.clone()))))
    };
    // More than may be were refused when the policy was written, and are not looked at here.
    for variable in items(spec, "variables").iter().take(super::check::VARIABLES_MAX) {
        let name = text(variable, "name").to_owned();
        let program = Program::compile(text(variable, "expression"), &with(&types));
        let program = program.map_err(|faulty| format!("compilation failed: {faulty}"));
        types.insert(name.clone(), program.as_ref().map_or(Type::Dyn, |program| program.gives().clone()));
        all.push((name, program));
    }
    (all, with(&types))
}

/// The values of variables, made when they are asked for, and once.
struct Made<'a> {
    programs: &'a [Variable],
    names: Vec<(&'static str, Value<'a>)>,
    known: RefCell<BTreeMap<usize, Result<Value<'a>, Error>>>,
}

/// The variables before one.
struct Before<'a> {
    made: Rc<Made<'a>>,
    count: usize,
}

impl<'a> Fields<'a> for Before<'a> {
    fn get(&self, name: &str, budget: &mut Budget) -> Result<Value<'a>, Error> {
        let own = &self.made.programs[..self.count];
        let Some(at) = own.iter().position(|(known, _)| known == name) else {
            return Err(Error::Said(format!("no such key: {name}")));
        };
        if let Some(known) = self.made.known.borrow().get(&at) {
            return known.clone();
        }
        let value = match &own[at].1 {
            Ok(program) => {
                let mut names = self.made.names.clone();
                let before = Before { made: self.made.clone(), count: at };
                names.push(("variables", Value::Lazy(Rc::new(before))));
                program.evaluate(&names, budget)
            }
            Err(why) => Err(Error::Said(why.clone())),
        };
        let value = value.map_err(|error| match error {
            Error::Said(why) => {
                Error::Said(format!("composited variable \"{name}\" fails to evaluate: {why}"))
            }
            Error::TooCostly => Error::TooCostly,
        });
        self.made.known.borrow_mut().insert(at, value.clone());
        value
    }

    fn has(&self, name: &str) -> bool {
        self.made.programs[..self.count].iter().any(|(known, _)| known == name)
    }
}

/// What all names stand for.
pub fn names<'a>(
    about: &About<'a>,
    namespace: &'a Tree,
    variables: &'a [Variable],
) -> Vec<(&'static str, Value<'a>)> {
    let mut names = about.names();
    names.push(("namespaceObject", Value::json(namespace)));
    let made = Made { programs: variables, names: names.clone(), known: RefCell::default() };
    let all = Before { made: Rc::new(made), count: variables.len() };
    names.push(("variables", Value::Lazy(Rc::new(all))));
    names
}
