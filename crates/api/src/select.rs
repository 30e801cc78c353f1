//! The selectors of a request, asked of a record's path and tags. Pure.

use std::borrow::Cow;

use model::{FieldSelector, Selector};
use store::Tags;

/// Both selectors of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// By labels.
    pub labels: Selector,
    /// By fields.
    pub fields: FieldSelector,
}

impl Selection {
    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether it selects the record of a path with these tags.
    pub fn matches(&self, path: &str, tags: &Tags) -> bool {
        self.is_everything() || self.labels_match(tags) && self.fields_match(path, tags)
    }

    fn labels_match(&self, tags: &Tags) -> bool {
        !self.labels.is_nothing()
            && self.labels.requirements().iter().all(|one| one.holds(tags.label(&one.key)))
    }

    fn fields_match(&self, path: &str, tags: &Tags) -> bool {
        self.fields.matches(|field| match field {
            "metadata.name" => path.rsplit('/').next().map(Cow::Borrowed),
            "metadata.namespace" => namespace_of(path).map(Cow::Borrowed),
            _ => tags.field(field).map(Cow::Borrowed),
        })
    }
}

/// The namespace in `/resource/namespace/name`; `None` for `/resource/name`.
fn namespace_of(path: &str) -> Option<&str> {
    let mut parts = path.trim_start_matches('/').split('/').skip(1);
    let first = parts.next();
    parts.next().and(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &str, fields: &str, wanted: bool) {
        let tags = Tags::new([("app", "web")], [("status.phase", "Running")]);
        let selection = Selection {
            labels: Selector::parse(labels).expect("a readable selector"),
            fields: FieldSelector::parse(fields).expect("a readable selector"),
        };
        assert_eq!(selection.matches("/pods/default/web-1", &tags), wanted, "{labels} {fields}");
    }

    #[test]
    fn selectors_look_at_path_labels_and_fields() {
        check("", "metadata.name=web-1", true);
        check("", "metadata.namespace!=default", false);
        check("", "status.phase!=Failed,status.phase!=Succeeded", true);
        check("", "spec.nodeName=", true);
        check("app=web", "spec.nodeName=", true);
        check("app!=web", "", false);
        check("!zone", "status.phase=Failed", false);
    }
}
