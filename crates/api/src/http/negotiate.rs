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
    /// Kubernetes' protobuf.
    Protobuf,
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

/// What can be given.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// What can be shown of an object.
    pub views: &'a [View],
    /// Whether whole objects have a protobuf form; their metadata alone always has, tables never.
    pub protobuf: bool,
}

impl Offer<'_> {
    fn has(&self, Form { view, syntax }: Form) -> bool {
        let writable = match syntax {
            Syntax::Json | Syntax::Pretty => true,
            Syntax::Yaml => view == View::Object,
            Syntax::Protobuf => match view {
                View::Object => self.protobuf,
                View::Metadata => true,
                View::Table => false,
            },
        };
        writable && self.views.contains(&view)
    }
}

/// The form of `Accept` that can be given and is liked best; of those liked alike the first.
pub fn form(headers: &HeaderMap, query: &Query, offer: Offer<'_>) -> Result<Form, Refusal> {
    let plain = if query.flag("pretty") { Syntax::Pretty } else { Syntax::Json };
    let mut wanted: Vec<&str> = clauses(headers).collect();
    if wanted.is_empty() {
        return Ok(Form { view: View::Object, syntax: plain });
    }
    wanted.sort_by_key(|clause| (std::cmp::Reverse(liking(clause)), breadth(media(clause))));
    for clause in wanted {
        let syntax = match media(clause) {
            "application/json" | "*/*" | "application/*" => plain,
            "application/yaml" => Syntax::Yaml,
            crate::proto::MEDIA => Syntax::Protobuf,
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
        let form = Form { view, syntax };
        if offer.has(form) {
            return Ok(form);
        }
    }
    let message = format!(
        "only the following media types are accepted: application/json, application/yaml, {}",
        crate::proto::MEDIA
    );
    Err(Refusal::new(Reason::NotAcceptable, message))
}

/// Whether a refusal is to be written in protobuf: whoever prefers that for objects prefers it for statuses.
pub fn wants_protobuf(headers: &HeaderMap) -> bool {
    let offer = Offer { views: &[View::Object, View::Metadata, View::Table], protobuf: true };
    form(headers, &Query::default(), offer).is_ok_and(|form| form.syntax == Syntax::Protobuf)
}

/// How much a clause is liked, in thousandths (`q`).
fn liking(clause: &str) -> u32 {
    let said = parameter(clause, "q").and_then(|value| value.parse::<f64>().ok());
    said.map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32)
}

/// What names a type comes before what names none.
fn breadth(media: &str) -> u8 {
    match media {
        "*/*" => 2,
        media if media.ends_with("/*") => 1,
        _ => 0,
    }
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

    fn check(accept: &str, protobuf: bool, wanted: Option<(View, Syntax)>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a good header"));
        let offer = Offer { views: &[View::Object, View::Table, View::Metadata], protobuf };
        let told = form(&headers, &Query::default(), offer).ok().map(|form| (form.view, form.syntax));
        assert_eq!(told, wanted, "{accept}");
    }

    #[test]
    fn the_first_form_that_can_be_given_is_given() {
        let json = Some((View::Object, Syntax::Json));
        check("application/json", true, json);
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            true,
            Some((View::Table, Syntax::Json)),
        );
        check("application/json;as=Chart;v=v1;g=meta.k8s.io", true, None);
        check("application/yaml", true, Some((View::Object, Syntax::Yaml)));
        check("text/html", true, None);
        check("*/*, application/yaml", true, Some((View::Object, Syntax::Yaml)));
        check("application/yaml;q=0.5, application/json;q=0.9", true, json);
    }

    #[test]
    fn protobuf_is_given_of_what_has_such_a_form() {
        let protobuf = Some((View::Object, Syntax::Protobuf));
        let metadata = Some((View::Metadata, Syntax::Protobuf));
        check("application/vnd.kubernetes.protobuf, */*", true, protobuf);
        check("application/vnd.kubernetes.protobuf, */*", false, Some((View::Object, Syntax::Json)));
        check("application/vnd.kubernetes.protobuf", false, None);
        check("application/vnd.kubernetes.protobuf;stream=watch, application/json", true, protobuf);
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        check(partial, false, metadata);
        check("application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1", true, None);
    }
}
