//! Secret of `v1`: its constants, and what its schema cannot say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::table::{column, or};
use super::{Column, Faults, Kind, of};
use crate::tree::{entries, flag, text};
use crate::{Tree, syntax, tree};

/// What the house knows of `v1` Secret.
pub static KIND: Kind = Kind::new(of::SECRET, "Secret", "secret", "io.k8s.api.core.v1.Secret")
    .namespaced()
    .columns(COLUMNS)
    .fields(&["type"])
    .filling(fill)
    .checking(check)
    .changing(change);

const COLUMNS: &[Column] = &[
    column("Type", |object, _| or(object, "type", "")),
    column("Data", |object, _| entries(object, "data").count().to_string().into()),
];

/// What `stringData` says goes into `data`, and an untyped secret is opaque.
fn fill(object: &mut Tree) {
    tree::fill(object, "type", "Opaque");
    let texts: Vec<(String, String)> = entries(object, "stringData")
        .map(|(k, v)| (k.to_owned(), STANDARD.encode(v.as_str().unwrap_or_default())))
        .collect();
    tree::remove(object, "stringData");
    if texts.is_empty() {
        return;
    }
    if let Some(data) = tree::object(object, "data") {
        texts.into_iter().for_each(|(name, value)| tree::set(data, &name, value));
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    let mut size = 0;
    for (name, value) in entries(object, "data") {
        faults.each(format_args!("data[{name}]"), name, syntax::config_key(name));
        size += value.as_str().map_or(0, |text| text.len() / 4 * 3);
    }
    if size > SECRET_SIZE_MAX {
        faults.too_long("data", SECRET_SIZE_MAX);
    }
    for name in required_keys(text(object, "type")) {
        if object["data"].get(*name).is_none() {
            faults.required(format!("data[{name}]"), "");
        }
    }
    let annotation = object["metadata"]["annotations"].get("kubernetes.io/service-account.name");
    let named = annotation.and_then(Tree::as_str).is_some_and(|name| !name.is_empty());
    if text(object, "type") == "kubernetes.io/service-account-token" && !named {
        faults.required("metadata.annotations[kubernetes.io/service-account.name]", "");
    }
}

/// The keys that a secret of a type must have.
fn required_keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("type", &old["type"], &new["type"]);
    if !flag(old, "immutable") {
        return;
    }
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !flag(new, "immutable") {
        faults.forbidden("immutable", DETAIL);
    }
    if old["data"] != new["data"] {
        faults.forbidden("data", DETAIL);
    }
}

/// How large all values may be together, in bytes (1 MiB, upstream's limit).
const SECRET_SIZE_MAX: usize = 1024 * 1024;
