//! Which objects a list or a watch is about.

use model::Gvr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters of a query value that stay as they are.
const QUERY_SAFE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b':');

/// Selectors, in the API's own notation; empty ones select everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Select {
    /// A label selector, such as `app=web,tier!=cache`.
    pub labels: String,
    /// A field selector, such as `spec.nodeName=a`.
    pub fields: String,
}

impl Select {
    /// Everything.
    pub fn all() -> Self {
        Self::default()
    }

    /// The objects with these labels.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: selector.into(), fields: String::new() }
    }

    /// The objects with these fields.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { labels: String::new(), fields: selector.into() }
    }
}

/// A path with a query that grows.
pub(crate) struct Uri(String);

impl Uri {
    /// A path as it is.
    pub fn path(path: String) -> Self {
        Self(path)
    }

    /// The path of a collection, with the query of a selection.
    pub fn collection(gvr: &Gvr, namespace: &str, select: &Select) -> Self {
        Self(gvr.collection_path(namespace))
            .and_some("labelSelector", &select.labels)
            .and_some("fieldSelector", &select.fields)
    }

    /// Adds a parameter.
    pub fn and(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(utf8_percent_encode(value, QUERY_SAFE));
        self
    }

    /// Adds a parameter unless its value is empty.
    pub fn and_some(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.and(name, value) }
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_escaped_in_the_query() {
        let pods = Gvr::new("", "v1", "pods");
        let select = Select { labels: "app in (a,b)".into(), fields: "spec.nodeName=a".into() };
        let uri = Uri::collection(&pods, "shop", &select).and_some("continue", "").and("limit", "5");
        assert_eq!(
            uri.into_string(),
            "/api/v1/namespaces/shop/pods?labelSelector=app%20in%20%28a%2Cb%29&fieldSelector=spec.nodeName%3Da&limit=5"
        );
    }
}
