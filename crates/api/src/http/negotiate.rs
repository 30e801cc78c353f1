//! In which form an answer is wanted: `Accept`, `?pretty`, tables and metadata alone.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::refusal::{Reason, Refusal};
use crate::request::Query;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// What is shown of an object.
    pub view: View,
    /// How it is written.
    pub syntax: Syntax,
}

/// What is shown of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// All of it.
    Object,
    /// A row of a table (`meta.k8s.io` `Table`).
    Table,
    /// Its metadata (`meta.k8s.io` `PartialObjectMetadata`, and its list).
    Metadata,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// JSON in one line.
    Json,
    /// JSON for people.
    Pretty,
    /// YAML.
    Yaml,
}

/// Whether discovery is wanted in its aggregated form (`apidiscovery.k8s.io/v2`).
pub fn wants_aggregated(headers: &HeaderMap) -> bool {
    for clause in clauses(headers) {
        match media(clause) {
            "application/json" if parameter(clause, "as").is_none() => return false,
            "application/json" | "*/*" if is_aggregated(clause) => return true,
            _ => {}
        }
    }
    false
}

fn is_aggregated(clause: &str) -> bool {
    let wanted = [("as", "APIGroupDiscoveryList"), ("g", "apidiscovery.k8s.io"), ("v", "v2")];
    wanted.into_iter().all(|(name, value)| parameter(clause, name) == Some(value))
}

/// The first form of `Accept` that can be given.
pub fn form(headers: &HeaderMap, query: &Query, views: &[View]) -> Result<Form, Refusal> {
    let plain = if query.flag("pretty") { Syntax::Pretty } else { Syntax::Json };
    let mut asked = false;
    for clause in clauses(headers) {
        asked = true;
        let syntax = match media(clause) {
            "application/json" | "*/*" | "application/*" => plain,
            "application/yaml" => Syntax::Yaml,
            _ => continue,
        };
        let (group, version) =
            (parameter(clause, "g").unwrap_or_default(), parameter(clause, "v").unwrap_or_default());
        let view = match parameter(clause, "as") {
            None => View::Object,
            Some("Table") if group == "meta.k8s.io" && matches!(version, "v1" | "v1beta1") => View::Table,
            Some("PartialObjectMetadata" | "PartialObjectMetadataList")
                if group == "meta.k8s.io" && version == "v1" =>
            {
                View::Metadata
            }
            Some(_) => continue,
        };
        if views.contains(&view) && (syntax != Syntax::Yaml || view == View::Object) {
            return Ok(Form { view, syntax });
        }
    }
    if asked {
        let message = "only the following media types are accepted: application/json, application/yaml";
        return Err(Refusal::new(Reason::NotAcceptable, message));
    }
    Ok(Form { view: View::Object, syntax: plain })
}

fn clauses(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|clause| !clause.is_empty())
}

fn media(clause: &str) -> &str {
    clause.split(';').next().unwrap_or_default().trim()
}

fn parameter<'a>(clause: &'a str, name: &str) -> Option<&'a str> {
    clause
        .split(';')
        .skip(1)
        .filter_map(|pair| pair.split_once('='))
        .find(|(own, _)| own.trim() == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, wanted: Option<(View, Syntax)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a good header"));
        let views = [View::Object, View::Table, View::Metadata];
        let told = form(&headers, &Query::default(), &views).ok().map(|form| (form.view, form.syntax));
        assert_eq!(told, wanted, "{accept}");
    }

    #[test]
    fn the_first_form_that_can_be_given_is_given() {
        check("application/json", Some((View::Object, Syntax::Json)));
        check("application/vnd.kubernetes.protobuf, */*", Some((View::Object, Syntax::Json)));
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Some((View::Table, Syntax::Json)),
        );
        check("application/json;as=Chart;v=v1;g=meta.k8s.io", None);
        check("application/yaml", Some((View::Object, Syntax::Yaml)));
        check("text/html", None);
    }
}
