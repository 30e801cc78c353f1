//! The Common Expression Language with the functions of Kubernetes: read, check, evaluate.
//!
//! A [`Program`] is compiled once from a text and an [`Environment`] that says which names there are and what is known
//! of their types; it is evaluated with values for these names and a [`Budget`]. Nothing here does I/O, reads a clock
//! or can run without end: texts are bounded in length and depth when they are read, and every step of an evaluation
//! is paid for.

mod ast;
mod budget;
mod check;
mod environment;
mod estimate;
mod eval;
#[cfg(test)]
mod laws;
mod lex;
mod library;
mod loops;
mod parse;
mod problem;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::sync::Arc;

use ast::Expr;
pub use budget::{Budget, CONDITIONS_COST_MAX, EXPRESSION_COST_MAX, Error, REQUEST_COST_MAX};
pub use environment::Environment;
pub use library::authorizer::{Ask, Authorizer, Question};
pub use parse::{DEPTH_MAX, NESTING_MAX, TEXT_LEN_MAX};
pub use problem::Faulty;
pub use types::{ANY_LEN, Shape, Type};
pub use value::{Fields, Key, List, Map, Text, Value};

/// An expression that was read and checked.
#[derive(Debug, Clone)]
pub struct Program {
    expr: Expr,
    gives: Type,
    cost_max: u64,
    text: Arc<str>,
}

impl Program {
    /// Reads and checks an expression.
    ///
    /// # Errors
    /// What is wrong with it, as upstream shows it.
    pub fn compile(text: &str, environment: &Environment) -> Result<Self, Faulty> {
        let expr = parse::parse(text)?;
        let facts = check::check(&expr, environment).map_err(|problems| Faulty::of(text, problems))?;
        Ok(Self { expr, gives: facts.of, cost_max: facts.cost, text: text.into() })
    }

    /// What it gives.
    pub fn gives(&self) -> &Type {
        &self.gives
    }

    /// What it may cost at most, by the largest its names may be.
    pub fn cost_max(&self) -> u64 {
        self.cost_max
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a name stands in it anywhere.
    pub fn mentions(&self, name: &str) -> bool {
        self.expr.mentions(name)
    }

    /// The value of the expression with these names. It may cost what one expression may, and no more than is left of
    /// `budget`, from which it is taken.
    ///
    /// # Errors
    /// Why there is no value.
    pub fn evaluate<'a>(&self, names: &[(&str, Value<'a>)], budget: &mut Budget) -> Result<Value<'a>, Error> {
        let names = names.iter().map(|(name, value)| (Arc::from(*name), value.clone())).collect();
        let allowed = budget.left().min(EXPRESSION_COST_MAX);
        let mut own = Budget::new(allowed);
        let value = eval::Walk { names, budget: &mut own }.eval(&self.expr);
        budget.pay(allowed - own.left())?;
        value
    }
}
