//! The printer columns of custom resources. Pure.

use model::tree::text;
use model::{Time, Tree, kinds, time};
use serde_json::json;

use super::Custom;

/// One printer column.
#[derive(Debug, Clone)]
pub struct CustomColumn {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `date` …
    pub kind: String,
    /// What it shows.
    pub description: String,
    /// Where it reads: a JSON path such as `.spec.replicas`.
    pub path: String,
    /// Whether it shows only with `-o wide`.
    pub wide: bool,
}

/// Reads a column of a definition.
pub(super) fn column(column: &Tree) -> CustomColumn {
    let own = |field: &str| text(column, field).to_owned();
    CustomColumn {
        name: own("name"),
        kind: own("type"),
        description: own("description"),
        path: own("jsonPath"),
        wide: column["priority"].as_i64().unwrap_or(0) > 0,
    }
}

impl CustomColumn {
    /// What a row shows.
    pub fn cell(&self, object: &Tree, now: Time) -> Tree {
        let Some(value) = reach(object, &self.path) else { return Tree::Null };
        match self.kind.as_str() {
            "date" => match value.as_str().and_then(|text| time::parse(text).ok()) {
                Some(then) => json!(time::age(then, now)),
                None => json!("<unknown>"),
            },
            "string" if !value.is_string() => json!(value.to_string()),
            _ => value.clone(),
        }
    }
}

/// What a simple JSON path leads to: `.a.b`, `.a[0]`, `.a[?(@.type=="Ready")].status`.
fn reach<'a>(object: &'a Tree, path: &str) -> Option<&'a Tree> {
    let mut at = object;
    let mut rest = path.trim_matches(|c| c == '{' || c == '}');
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (step, after) = inner.split_once(']')?;
            at = pick(at, step)?;
            rest = after;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            at = at.get(&name[..end])?;
            rest = &name[end..];
        }
    }
    Some(at)
}

fn pick<'a>(list: &'a Tree, step: &str) -> Option<&'a Tree> {
    if let Ok(index) = step.parse::<usize>() {
        return list.get(index);
    }
    let quoted = |text: &str| text.trim().trim_matches(|c| c == '"' || c == '\'').to_owned();
    if let Some(test) = step.strip_prefix("?(@.").and_then(|test| test.strip_suffix(')')) {
        let (field, wanted) = test.split_once("==")?;
        let (field, wanted) = (field.trim(), quoted(wanted));
        return list.as_array()?.iter().find(|item| text(item, field) == wanted);
    }
    list.get(quoted(step))
}

/// The columns of a custom resource as a table's: name first; the age unless it says its own columns.
pub fn headings(custom: &Custom) -> Vec<CustomColumn> {
    let of = |column: &kinds::Column, kind: &str, path: &str| CustomColumn {
        name: column.name.to_owned(),
        kind: kind.to_owned(),
        description: column.name.to_owned(),
        path: path.to_owned(),
        wide: false,
    };
    let mut all = vec![of(&kinds::NAME, "string", ".metadata.name")];
    all.extend(custom.columns.iter().cloned());
    if custom.columns.is_empty() {
        all.push(of(&kinds::AGE, "date", ".metadata.creationTimestamp"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_paths_are_followed() {
        let object = json!({"a": {"b": [1, 2]}, "c": [{"type": "Ready", "status": "True"}]});
        assert_eq!(reach(&object, ".a.b[1]"), Some(&json!(2)));
        assert_eq!(reach(&object, ".c[?(@.type==\"Ready\")].status"), Some(&json!("True")));
        assert_eq!(reach(&object, "{.a.x}"), None);
        assert_eq!(reach(&object, ".a[\"b\"]"), Some(&json!([1, 2])));
    }
}
