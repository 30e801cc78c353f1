//! The functions that expressions may call: the language's own, and those of Kubernetes.
//!
//! A function is a row: its name, what it takes and gives, and what it does. The rows alone say what there is; the
//! checker reads their signatures, the evaluator calls them.

pub mod authorizer;
pub mod compare;
pub mod formats;
mod lists;
pub mod network;
mod operators;
mod optionals;
mod quantity;
pub mod semver;
mod signature;
mod standard;
mod strings;
pub mod times;
pub mod urls;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use crate::budget::{Budget, Error};
use crate::value::Value;
pub use lists::sorted;
pub use signature::Overload;

/// A function.
pub struct Row {
    /// Its name; operators are named as messages name them.
    name: &'static str,
    /// What it takes and gives, such as `string.(string) bool`: a type before a dot is that of the value it is a method of.
    takes: &'static [&'static str],
    /// What it does.
    does: Does,
}

/// What a function does with its arguments.
pub type Does = for<'a, 'b> fn(&'b [Value<'a>], &mut Budget) -> Result<Value<'a>, Error>;

/// A function, ready.
pub struct Function {
    /// What it takes and gives.
    pub overloads: Vec<Overload>,
    /// What it does.
    pub does: Does,
}

/// A row.
const fn row(name: &'static str, takes: &'static [&'static str], does: Does) -> Row {
    Row { name, takes, does }
}

const ROWS: [&[Row]; 12] = [
    operators::ROWS,
    standard::ROWS,
    strings::ROWS,
    times::ROWS,
    lists::ROWS,
    optionals::ROWS,
    quantity::ROWS,
    semver::ROWS,
    network::ROWS,
    urls::ROWS,
    formats::ROWS,
    authorizer::ROWS,
];

/// The function of a name.
pub fn find(name: &str) -> Option<&'static Function> {
    static ALL: OnceLock<BTreeMap<&'static str, Function>> = OnceLock::new();
    let all = ALL.get_or_init(|| {
        let mut all: BTreeMap<&'static str, Function> = BTreeMap::new();
        for row in ROWS.into_iter().flatten() {
            let overloads: Vec<Overload> = row.takes.iter().map(|text| signature::read(text)).collect();
            let earlier = all.insert(row.name, Function { overloads, does: row.does });
            assert!(earlier.is_none(), "{} is declared twice", row.name);
        }
        all
    });
    all.get(name)
}

/// Whether a text is a regular expression.
pub fn can_match(pattern: &str) -> bool {
    strings::compile(pattern).is_ok()
}

/// What a walk over a text of this length costs.
pub fn walk(len: u64) -> u64 {
    len.div_ceil(10)
}

/// Base64, as bytes are written in JSON.
pub fn encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_signature_can_be_read() {
        assert!(super::find("_+_").is_some() && super::find("nothing").is_none());
    }
}
