//! What an evaluation may cost, and how it may fail.

/// What an evaluation may still cost. A unit is about the work of looking at one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    left: u64,
}

/// What one expression may cost: upstream's limit.
pub const EXPRESSION_COST_MAX: u64 = 1_000_000;
/// What all expressions of one policy or of all rules of one object may cost together: upstream's limit.
pub const REQUEST_COST_MAX: u64 = 10_000_000;
/// What the match conditions of one webhook or policy may cost together: upstream's limit.
pub const CONDITIONS_COST_MAX: u64 = 2_500_000;

impl Budget {
    /// A budget of so much.
    pub fn new(left: u64) -> Self {
        Self { left }
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Pays.
    ///
    /// # Errors
    /// [`Error::TooCostly`] when there is not so much left; what there was is gone.
    pub fn pay(&mut self, cost: u64) -> Result<(), Error> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(Error::TooCostly)
            }
        }
    }
}

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The expression itself says so, such as `no such key: a`; `&&` and `||` may make up for it.
    #[error("{0}")]
    Said(String),
    /// It costs too much.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooCostly,
}

impl Error {
    /// What the expression says.
    pub fn said<T>(why: impl Into<String>) -> Result<T, Self> {
        Err(Self::Said(why.into()))
    }

    /// No function takes these.
    pub fn no_overload<T>() -> Result<T, Self> {
        Self::said("no such overload")
    }
}
