//! Makes the table of the `model` crate out of published facts: one line a type, one line a field, no prose.
//!
//! The form (tab-separated):
//! a type is `T name flags` (`a`: atomic, `o`: open), its fields follow as
//! `name number shape flags merge-key default`, where
//! - the number is a protobuf number, `0` for none, `2.1` for number 1 within the message embedded at 2;
//! - the shape is `s` text, `f` flag, `i` int32, `l` int64, `d` double, `y` bytes, `t` time, `m` micro time,
//!   `q` quantity, `x` int or string, `*` any, `@name` an object, `[]` atomic list, `[=]` set, `[k1,k2]` list
//!   by keys, `{}` map, `{!}` atomic map (each followed by the shape of items);
//! - flags are `r` required, `m` merge, `k` retainKeys;
//! - the default is JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Where the facts are and where the table goes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The tab-separated list of fields of published types.
    #[arg(long)]
    schema: PathBuf,
    /// The tab-separated list of fields of protobuf messages.
    #[arg(long)]
    proto: PathBuf,
    /// The OpenAPI v2 document, for what is said of types rather than fields.
    #[arg(long)]
    openapi: PathBuf,
    /// The table to write.
    #[arg(long, default_value = "crates/model/src/schema/v1_36.tsv")]
    out: PathBuf,
}

/// Types that JSON writes as something else than an object with fields, and their shapes.
const SPECIAL: &[(&str, &str)] = &[
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", "q"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Time", "t"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime", "m"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", "*"),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", "*"),
    ("io.k8s.apimachinery.pkg.runtime.RawExtension", "*"),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", "x"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON", "*"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "*"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "*"),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "*"),
];

/// Types that travel but are published as protobuf messages alone.
const FROM_PROTO: &[&str] = &[
    "io.k8s.api.core.v1.RangeAllocation",
    "io.k8s.apimachinery.pkg.apis.meta.v1.CreateOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.GetOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.ListOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata",
    "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.PatchOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.UpdateOptions",
];

/// The suffix of a type that differs from its namesake in not being atomic, as one field asks for.
const GRANULAR: &str = "+granular";

/// Reads the facts, writes the table.
pub fn run(args: &Args) -> Result<()> {
    let facts = Facts::read(args)?;
    let table = facts.table()?;
    std::fs::write(&args.out, table).with_context(|| format!("writing {}", args.out.display()))
}

struct Facts {
    schema: BTreeMap<String, Vec<Row>>,
    proto: BTreeMap<String, Vec<Message>>,
    atomic: BTreeSet<String>,
}

type Row = BTreeMap<String, String>;

struct Message {
    number: String,
    field: String,
    label: String,
    kind: String,
}

impl Facts {
    fn read(args: &Args) -> Result<Self> {
        let mut schema: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for row in rows(&args.schema)? {
            schema.entry(row["type"].clone()).or_default().push(row);
        }
        let mut proto: BTreeMap<String, Vec<Message>> = BTreeMap::new();
        for mut row in rows(&args.proto)? {
            let mut take = |name: &str| row.remove(name).unwrap_or_default();
            let message = published(&format!("{}.{}", take("package"), take("message")));
            let fields = proto.entry(message).or_default();
            fields.push(Message {
                number: take("number"),
                field: take("field"),
                label: take("label"),
                kind: take("type"),
            });
        }
        let atomic = openapi(&args.openapi, &mut schema)?;
        Ok(Self { schema, proto, atomic })
    }

    fn table(&self) -> Result<String> {
        let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, rows) in &self.schema {
            types.insert(name.clone(), self.fields(name, rows)?);
        }
        for name in FROM_PROTO {
            types.insert((*name).to_owned(), self.fields_of_message(name)?);
        }
        for name in granular(&self.schema) {
            types.insert(format!("{name}{GRANULAR}"), self.fields(&name, &self.schema[&name])?);
        }
        let mut out = String::new();
        for (name, mut lines) in types {
            let flags = if self.atomic.contains(&name) { "a" } else { "" };
            out.push_str(format!("T\t{name}\t{flags}").trim_end());
            out.push('\n');
            lines.sort_by(|a, b| a.split('\t').next().cmp(&b.split('\t').next()));
            lines.iter().for_each(|line| {
                out.push_str(line.trim_end_matches('\t'));
                out.push('\n');
            });
        }
        Ok(out)
    }

    fn fields(&self, name: &str, rows: &[Row]) -> Result<Vec<String>> {
        rows.iter()
            .map(|row| {
                let field = &row["field"];
                let number = self.number(name, field).unwrap_or_else(|| "0".into());
                let shape = shape(row).with_context(|| format!("{name}.{field}"))?;
                let default = default(row);
                Ok(format!(
                    "{field}\t{number}\t{shape}\t{}\t{}\t{default}",
                    flags(row),
                    row["patch_merge_key"]
                ))
            })
            .collect()
    }

    fn fields_of_message(&self, name: &str) -> Result<Vec<String>> {
        let messages = self.proto.get(name).with_context(|| format!("no message {name}"))?;
        let mut lines = vec!["apiVersion\t0\ts".to_owned(), "kind\t0\ts".to_owned()];
        for field in messages {
            let list = if field.label == "repeated" { "[]" } else { "" };
            let shape = match field.kind.as_str() {
                "string" => "s".to_owned(),
                "bool" => "f".to_owned(),
                "int32" => "i".to_owned(),
                "int64" => "l".to_owned(),
                "bytes" => "y".to_owned(),
                other => reference(&published(other)),
            };
            lines.push(format!("{}\t{}\t{list}{shape}", field.field, field.number));
        }
        Ok(lines)
    }

    /// The number of a field, looking into messages that JSON inlines.
    fn number(&self, name: &str, field: &str) -> Option<String> {
        let messages = self.proto.get(name)?;
        if let Some(found) = messages.iter().find(|message| same(&message.field, field)) {
            return Some(found.number.clone());
        }
        let published_here: BTreeSet<String> =
            self.schema.get(name).into_iter().flatten().map(|row| plain(&row["field"])).collect();
        messages.iter().filter(|message| !published_here.contains(&plain(&message.field))).find_map(
            |message| {
                let inner = self.number(&published(&message.kind), field)?;
                Some(format!("{}.{inner}", message.number))
            },
        )
    }
}

fn rows(path: &Path) -> Result<Vec<Row>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().context("no heading")?.split('\t').collect();
    let row =
        |line: &str| head.iter().zip(line.split('\t')).map(|(k, v)| (k.to_string(), v.to_string())).collect();
    Ok(lines.map(row).collect())
}

/// Adds the types without fields and the formats of items; gives the atomic types.
fn openapi(path: &Path, schema: &mut BTreeMap<String, Vec<Row>>) -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let document: Value = serde_json::from_str(&text)?;
    let mut atomic = BTreeSet::new();
    for (name, definition) in document["definitions"].as_object().context("no definitions")? {
        if SPECIAL.iter().any(|(special, _)| special == name) {
            continue;
        }
        for row in schema.entry(name.clone()).or_default() {
            add_format(row, &definition["properties"][row["field"].as_str()]);
        }
        if definition["x-kubernetes-map-type"] == "atomic" {
            atomic.insert(name.clone());
        }
    }
    Ok(atomic)
}

/// Adds the format of items or values, which the list of fields does not tell.
fn add_format(row: &mut Row, property: &Value) {
    let inner = [&property["items"]["format"], &property["additionalProperties"]["format"]];
    if let Some(format) = inner.iter().find_map(|format| format.as_str()) {
        row.insert("format".into(), format.into());
    }
}

fn granular(schema: &BTreeMap<String, Vec<Row>>) -> BTreeSet<String> {
    let rows = schema.values().flatten().filter(|row| row["map_type"] == "granular");
    rows.map(|row| row["json_type_or_ref"].clone()).filter(|name| schema.contains_key(name)).collect()
}

fn shape(row: &Row) -> Result<String> {
    let (kind, items) = (row["json_type_or_ref"].as_str(), row["items"].as_str());
    Ok(match kind {
        "array" => {
            let merge = match row["list_type"].as_str() {
                "set" => "=",
                "map" => &row["list_map_keys"],
                _ => "",
            };
            format!("[{merge}]{}", scalar(items, &row["format"])?)
        }
        "object" => {
            let values = items.strip_prefix("map:").with_context(|| format!("an object of {items:?}"))?;
            let value = match values.strip_prefix("array/") {
                Some(inner) => format!("[]{}", scalar(inner, "")?),
                None => scalar(values, &row["format"])?,
            };
            format!("{{{}}}{value}", if row["map_type"] == "atomic" { "!" } else { "" })
        }
        _ if row["map_type"] == "granular" => format!("{}{GRANULAR}", reference(kind)),
        _ => scalar(kind, &row["format"])?,
    })
}

fn scalar(kind: &str, format: &str) -> Result<String> {
    Ok(match (kind, format) {
        ("string", "byte") => "y",
        ("string", _) => "s",
        ("boolean", _) => "f",
        ("integer", "int32") => "i",
        ("integer", _) => "l",
        ("number", _) => "d",
        (other, _) if other.starts_with("io.") => return Ok(reference(other)),
        (other, format) => bail!("no shape for {other:?} {format:?}"),
    }
    .to_owned())
}

fn reference(name: &str) -> String {
    match SPECIAL.iter().find(|(special, _)| *special == name) {
        Some((_, shape)) => (*shape).to_owned(),
        None => format!("@{name}"),
    }
}

fn flags(row: &Row) -> String {
    let strategy = &row["patch_strategy"];
    let said = [
        (row["required"] == "required", 'r'),
        (strategy.contains("merge"), 'm'),
        (strategy.contains("retainKeys"), 'k'),
    ];
    said.iter().filter(|(yes, _)| *yes).map(|(_, flag)| flag).collect()
}

/// The default as JSON; empty for those that only repeat a type's zero.
fn default(row: &Row) -> &str {
    match row["default"].as_str() {
        "\"\"" | "{}" | "0" | "false" => "",
        text => text,
    }
}

/// `k8s.io.api.core.v1.Pod` as the OpenAPI document names it.
fn published(message: &str) -> String {
    let name = message.trim_start_matches('.').replace('_', "-");
    if name.starts_with("k8s.io.") { name.replacen("k8s.io.", "io.k8s.", 1) } else { name }
}

fn same(a: &str, b: &str) -> bool {
    plain(a) == plain(b)
}

/// A field's name without what protobuf cannot write.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}
