//! Objects as rows of a table, and as their metadata alone (`meta.k8s.io/v1`). Pure.

use bytes::Bytes;
use model::kinds::{self, Column};
use model::{Time, Tree};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::custom::{self, CustomColumn};
use crate::refusal::Refusal;
use crate::registry::{Meaning, Resource};
use crate::request::Query;

/// What a row carries of its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

impl Include {
    /// Reads `includeObject`.
    pub fn read(query: &Query) -> Result<Self, Refusal> {
        match query.get("includeObject") {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Refusal::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// A table of objects, with the metadata of the list they come from.
pub fn table(resource: &Resource, objects: &[Bytes], include: Include, now: Time, metadata: &Tree) -> Tree {
    let columns = Columns::of(resource);
    let rows: Vec<Tree> = objects.iter().map(|object| row(&columns, object, include, now)).collect();
    let metadata = if metadata.is_null() { json!({}) } else { metadata.clone() };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.headings(), "rows": rows,
    })
}

/// The columns of a resource.
enum Columns {
    BuiltIn(Vec<Column>),
    Custom(Vec<CustomColumn>),
}

impl Columns {
    fn of(resource: &Resource) -> Self {
        match &resource.meaning {
            Meaning::BuiltIn(kind) => Self::BuiltIn(kinds::table(kind)),
            Meaning::Custom(custom) => Self::Custom(custom::headings(custom)),
        }
    }

    fn headings(&self) -> Vec<Tree> {
        let heading = |name: &str, kind: &str, description: &str, wide: bool| {
            let format = if name == kinds::NAME.name { "name" } else { "" };
            json!({"name": name, "type": kind, "format": format, "description": description, "priority": u8::from(wide)})
        };
        match self {
            Self::BuiltIn(columns) => {
                columns.iter().map(|own| heading(own.name, own.kind, own.name, own.wide)).collect()
            }
            Self::Custom(columns) => {
                columns.iter().map(|own| heading(&own.name, &own.kind, &own.description, own.wide)).collect()
            }
        }
    }

    fn cells(&self, object: &Tree, now: Time) -> Vec<Tree> {
        match self {
            Self::BuiltIn(columns) => columns.iter().map(|column| (column.cell)(object, now)).collect(),
            Self::Custom(columns) => columns.iter().map(|column| column.cell(object, now)).collect(),
        }
    }
}

fn row(columns: &Columns, bytes: &Bytes, include: Include, now: Time) -> Tree {
    let object: Tree = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let mut row = json!({"cells": columns.cells(&object, now)});
    match include {
        Include::None => {}
        Include::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
            });
        }
        Include::Object => row["object"] = object,
    }
    row
}

/// The metadata of an object alone, as an object of its own.
pub fn partial(object: &Bytes) -> Result<Bytes, Refusal> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let part: Part<'_> = serde_json::from_slice(object)
        .map_err(|why| Refusal::internal(format!("a stored object cannot be read: {why}")))?;
    let metadata = part.metadata.get();
    Ok(Bytes::from(format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata}}}"
    )))
}
