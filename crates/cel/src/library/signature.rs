//! What functions take and give, as text.

use crate::types::Type;

/// One way to call a function. Types that are named by a single capital letter are open, and numbered from 0.
#[derive(Debug, Clone)]
pub struct Overload {
    /// Whether the first argument stands before the function.
    pub method: bool,
    /// What it takes.
    pub takes: Vec<Type>,
    /// What it gives.
    pub gives: Type,
}

/// Library types by the words that signatures use.
const OPAQUE: [(&str, &str); 12] = [
    ("Quantity", "kubernetes.Quantity"),
    ("URL", "kubernetes.URL"),
    ("IP", "net.IP"),
    ("CIDR", "net.CIDR"),
    ("Semver", "kubernetes.Semver"),
    ("Format", "kubernetes.NamedFormat"),
    ("Authorizer", "kubernetes.authorization.Authorizer"),
    ("PathCheck", "kubernetes.authorization.PathCheck"),
    ("GroupCheck", "kubernetes.authorization.GroupCheck"),
    ("ResourceCheck", "kubernetes.authorization.ResourceCheck"),
    ("Decision", "kubernetes.authorization.Decision"),
    ("Nothing", "nothing"),
];

/// Reads `T.(A, B) C` or `(A, B) C`.
///
/// # Panics
/// When it cannot be read: the texts are ours, and a test reads them all.
pub fn read(text: &str) -> Overload {
    let (before, rest) = text.split_once('(').expect("a signature has brackets");
    let close = closing(rest);
    let (inner, gives) = (&rest[..close], rest[close + 1..].trim());
    let mut takes = Vec::new();
    let method = before.strip_suffix('.').filter(|of| !of.is_empty());
    takes.extend(method.map(kind));
    takes.extend(split(inner).into_iter().map(kind));
    Overload { method: method.is_some(), takes, gives: kind(gives) }
}

/// Where the bracket closes that was opened before the text.
fn closing(text: &str) -> usize {
    let mut open = 1;
    for (at, read) in text.bytes().enumerate() {
        match read {
            b'(' => open += 1,
            b')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return at;
        }
    }
    panic!("a bracket is not closed in {text}")
}

fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, read) in text.bytes().enumerate() {
        match read {
            b'<' => depth += 1,
            b'>' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

fn kind(text: &str) -> Type {
    if let Some((outer, inner)) = text.strip_suffix('>').and_then(|text| text.split_once('<')) {
        let parts = split(inner);
        return match (outer, parts.as_slice()) {
            ("list", [item]) => Type::list(kind(item)),
            ("map", [key, value]) => Type::map(kind(key), kind(value)),
            ("optional", [value]) => Type::optional(kind(value)),
            _ => panic!("no type is called {text}"),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::TEXT,
        "bytes" => Type::Bytes(crate::types::ANY_LEN),
        "timestamp" => Type::Timestamp,
        "duration" => Type::Duration,
        "type" => Type::Type,
        "A" => Type::Open(0),
        "B" => Type::Open(1),
        _ => match OPAQUE.iter().find(|(word, _)| *word == text) {
            Some((_, name)) => Type::Opaque(name),
            None => panic!("no type is called {text}"),
        },
    }
}
