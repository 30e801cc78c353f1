//! From bodies to trees under a resource's table, and what a tree gets and must keep before it is stored. Pure.

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use model::Tree;
use model::kinds::{self, Faults};
use model::schema::{self, DecodeError, FieldProblem, Mode, Schema, Shape, TypeId};

use crate::custom;
use crate::policy;
use crate::refusal::{Reason, Refusal};
use crate::registry::{Meaning, Resource};
use crate::request::Validation;
use crate::verbs::meta;

/// The longest body that is read, in bytes: what upstream reads.
pub const BODY_LEN_MAX: usize = schema::SIZE_MAX;

/// An object that was read, and what the writer is to be warned of.
#[derive(Debug)]
pub struct Read {
    /// The object.
    pub object: Tree,
    /// Warnings, one for each field that should not be there.
    pub warnings: Vec<String>,
}

/// The media type of a body, in lower case and without parameters; JSON when it is not said.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bare = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if bare.is_empty() { "application/json".to_owned() } else { bare }
}

/// Reads a body as any JSON tree: for options and for subresources that are no objects of their own.
pub fn read_plain(media: &str, body: &Bytes) -> Result<Tree, Refusal> {
    if body.is_empty() {
        return Ok(Tree::Null);
    }
    let (bytes, _) = to_json(media, body)?;
    serde_json::from_slice(&bytes).map_err(|why| unreadable(&why.to_string()))
}

/// Reads a body as an object of a resource.
pub fn read(resource: &Resource, media: &str, body: &Bytes, validation: Validation) -> Result<Read, Refusal> {
    let (bytes, twice) = to_json(media, body)?;
    judge(decode(resource, &bytes, mode(validation))?, twice, validation)
}

/// Reads what is to be applied: what its schema does not know, a custom object cannot be given.
pub fn read_apply(resource: &Resource, body: &Bytes, validation: Validation) -> Result<Read, Refusal> {
    if let Meaning::BuiltIn(_) = &resource.meaning {
        return read(resource, "application/yaml", body, validation);
    }
    let (bytes, twice) = to_json("application/yaml", body)?;
    let twice = twice.filter(|_| validation != Validation::Ignore);
    let (object, problems) = decode(resource, &bytes, Mode::Report)?;
    let (unknown, duplicate): (Vec<_>, Vec<_>) =
        problems.into_iter().partition(|problem| matches!(problem, FieldProblem::Unknown(_)));
    let strict = validation == Validation::Strict;
    if unknown.is_empty() || (strict && (twice.is_some() || !duplicate.is_empty())) {
        let duplicate = if validation == Validation::Ignore { Vec::new() } else { duplicate };
        return judge((object, duplicate), twice, validation);
    }
    let told = unknown.iter().filter_map(|problem| match problem {
        FieldProblem::Unknown(path) => Some(format!(".{path}: field not declared in schema")),
        FieldProblem::Duplicate(_) => None,
    });
    let told: Vec<String> = told.collect();
    let told =
        if let [one] = told.as_slice() { one.clone() } else { format!("errors:\n  {}", told.join("\n  ")) };
    let (place, name) = (meta(&object, "namespace"), meta(&object, "name"));
    let kind = format!("{}, Kind={}", resource.api_version(), resource.kind);
    Err(Refusal::bad_request(format!("failed to create typed patch object ({place}/{name}; {kind}): {told}")))
}

/// Puts a tree that a patch made through the same checks as a body.
pub fn recheck(resource: &Resource, object: Tree, validation: Validation) -> Result<Read, Refusal> {
    let (schema, kind) = reader(resource);
    let decoded = schema::decode_tree(object, schema, kind, mode(validation)).map_err(refuse)?;
    judge(pruned(resource, decoded, mode(validation)), None, validation)
}

fn decode(resource: &Resource, bytes: &[u8], mode: Mode) -> Result<(Tree, Vec<FieldProblem>), Refusal> {
    let (schema, kind) = reader(resource);
    Ok(pruned(resource, schema::decode_json(bytes, schema, kind, mode).map_err(refuse)?, mode))
}

/// The table by which bodies are read: of custom objects only what all objects have, for their schema is asked later.
fn reader(resource: &Resource) -> (&Schema, TypeId) {
    match (&resource.meaning, table(resource)) {
        (Meaning::BuiltIn(_), Some(table)) => table,
        _ => (custom::envelope(), TypeId(0)),
    }
}

/// Leaves of a custom object what its schema knows.
fn pruned(
    resource: &Resource,
    (mut object, mut problems): (Tree, Vec<FieldProblem>),
    mode: Mode,
) -> (Tree, Vec<FieldProblem>) {
    if let Meaning::Custom(custom) = &resource.meaning {
        let gone = custom::prune(custom, &mut object);
        if mode == Mode::Report {
            let room = schema::PROBLEMS_LEN_MAX.saturating_sub(problems.len());
            problems.extend(gone.into_iter().take(room).map(FieldProblem::Unknown));
        }
    }
    (object, problems)
}

fn mode(validation: Validation) -> Mode {
    if validation == Validation::Ignore { Mode::Ignore } else { Mode::Report }
}

fn table(resource: &Resource) -> Option<(&Schema, TypeId)> {
    match &resource.meaning {
        Meaning::BuiltIn(kind) => {
            let schema = schema::builtin();
            schema.type_named(kind.schema).map(|id| (schema, id))
        }
        Meaning::Custom(custom) => custom.schema.as_deref().map(|schema| (schema, TypeId(0))),
    }
}

/// What merging and field ownership go by: the table, and the shape of the resource's objects in it.
pub fn shape(resource: &Resource) -> (&Schema, Shape) {
    match table(resource) {
        Some((schema, kind)) => (schema, Shape::Object(kind)),
        None => (schema::builtin(), Shape::Any),
    }
}

/// A body as JSON, and a complaint of a key that is there twice where JSON would hide it.
fn to_json(media: &str, body: &Bytes) -> Result<(Bytes, Option<String>), Refusal> {
    if body.len() > BODY_LEN_MAX {
        let message = format!("Request entity too large: limit is {BODY_LEN_MAX}");
        return Err(Refusal::new(Reason::TooLarge, message));
    }
    match media {
        "application/json" | "*/*" | "application/octet-stream" | "text/plain" => Ok((body.clone(), None)),
        "application/yaml" | "application/x-yaml" | "text/yaml" => crate::yaml::to_json(body),
        crate::proto::MEDIA => {
            let tree = crate::proto::to_tree(body).map_err(|why| Refusal::bad_request(why.to_string()))?;
            Ok((schema::to_bytes(&tree), None))
        }
        other => Err(Refusal::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf (got {other})"
            ),
        )),
    }
}

fn unreadable(why: &str) -> Refusal {
    Refusal::bad_request(format!("the object provided is unrecognized (must be of type json): {why}"))
}

fn refuse(error: DecodeError) -> Refusal {
    match error {
        DecodeError::TooLarge => Refusal::new(Reason::TooLarge, error.to_string()),
        DecodeError::Syntax(why) => unreadable(&why),
        other => Refusal::bad_request(other.to_string()),
    }
}

fn judge(
    (object, problems): (Tree, Vec<FieldProblem>),
    twice: Option<String>,
    validation: Validation,
) -> Result<Read, Refusal> {
    // Unknown fields are told before duplicate ones.
    let (unknown, duplicate): (Vec<_>, Vec<_>) =
        problems.iter().partition(|problem| matches!(problem, FieldProblem::Unknown(_)));
    let told = unknown.into_iter().chain(duplicate).map(ToString::to_string);
    let told: Vec<String> =
        twice.filter(|_| validation != Validation::Ignore).into_iter().chain(told).collect();
    if validation == Validation::Strict && !told.is_empty() {
        return Err(Refusal::bad_request(format!("strict decoding error: {}", told.join(", "))));
    }
    Ok(Read { object, warnings: told })
}

/// Fills in what the author left out: the table's defaults, then those that depend on other fields.
pub fn settle(resource: &Resource, object: &mut Tree) {
    match (&resource.meaning, table(resource)) {
        (Meaning::Custom(custom), _) => custom::fill(custom, object),
        (Meaning::BuiltIn(kind), Some((schema, id))) => {
            schema::defaults::fill(object, schema, id);
            (kind.fill)(object);
        }
        (Meaning::BuiltIn(kind), None) => (kind.fill)(object),
    }
}

/// Refuses an object that breaks the rules of its kind, alone or as a change of `old` through `part`.
pub fn check(resource: &Resource, old: Option<&Tree>, object: &Tree, part: &str) -> Result<(), Refusal> {
    let mut faults = Faults::default();
    let rules = match &resource.meaning {
        Meaning::BuiltIn(kind) => kind.meta_rules(),
        Meaning::Custom(_) => {
            kinds::MetaRules { namespaced: resource.namespaced, name: model::syntax::dns1123_subdomain }
        }
    };
    kinds::check_meta(object, rules, &mut faults);
    if let Some(old) = old {
        kinds::change_meta(old, object, &mut faults);
    }
    match &resource.meaning {
        Meaning::BuiltIn(kind) => {
            (kind.check)(object, &mut faults);
            policy::check::check(resource, object, &mut faults);
            match (old, part) {
                // What a pod asks for may change through this part, and nothing else.
                (Some(old), "resize") => kinds::pod_spec::resize(old, object, &mut faults),
                (Some(old), _) => (kind.change)(old, object, &mut faults),
                (None, _) => {}
            }
        }
        Meaning::Custom(custom) => custom::validate(custom, old, object, &mut faults),
    }
    if faults.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(&resource.about(meta(object, "name")), &faults.0))
}

/// Refuses a question that breaks the rules of its kind; it has no name to be checked.
pub fn check_alone(resource: &Resource, object: &Tree) -> Result<(), Refusal> {
    let Meaning::BuiltIn(kind) = &resource.meaning else { return Ok(()) };
    let mut faults = Faults::default();
    (kind.check)(object, &mut faults);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Refusal::invalid(&resource.about(meta(object, "name")), &faults.0))
    }
}
