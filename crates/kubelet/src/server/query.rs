//! The query of a request. Pure.

use http::Uri;
use percent_encoding::percent_decode_str;

/// Names and values, decoded, in the order they came.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of an address.
    pub fn of(uri: &Uri) -> Query {
        let decoded =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name), decoded(value))
                })
                .collect(),
        )
    }

    /// The first value of this name.
    pub fn value(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// All values of this name.
    pub fn values(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether it is set.
    pub fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| matches!(value.as_str(), "1" | "true" | "True" | "t"))
    }

    /// Its number, where it is one.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_in_order_and_decoded() {
        let uri: Uri =
            "/exec?command=sh&command=-c&command=a+b%26c&tty=true&tailLines=5&x".parse().expect("an address");
        let query = Query::of(&uri);
        assert_eq!(query.values("command"), ["sh", "-c", "a b&c"]);
        assert!(query.flag("tty") && !query.flag("x") && !query.flag("none"));
        assert_eq!((query.number("tailLines"), query.number("tty")), (Some(5), None));
    }
}
