//! What an expression may speak of.

use std::sync::Arc;

use crate::types::{Shape, Type};

/// Gives the object of a name, when an expression may make one.
pub type Made = fn(&str) -> Option<Arc<dyn Shape>>;

/// What an expression may speak of: names with their types, and objects that it may make.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The names, each with its type.
    pub names: Vec<(Arc<str>, Type)>,
    /// The objects that may be made, by name.
    pub made: Option<Made>,
}

impl Environment {
    /// An environment of names that may be anything.
    pub fn of(names: &[&str]) -> Self {
        Self { names: names.iter().map(|name| (Arc::from(*name), Type::Dyn)).collect(), made: None }
    }

    /// The same with one more name.
    pub fn with(mut self, name: &str, of: Type) -> Self {
        self.names.push((name.into(), of));
        self
    }
}
