//! ConfigMap of `v1`: its constants, and what its schema cannot say.

use super::table::column;
use super::{Column, Faults, Kind, of};
use crate::tree::{entries, flag};
use crate::{Tree, syntax};

/// What the house knows of `v1` ConfigMap.
pub static KIND: Kind = Kind::new(of::CONFIG_MAP, "ConfigMap", "configmap", "io.k8s.api.core.v1.ConfigMap")
    .short(&["cm"])
    .namespaced()
    .columns(COLUMNS)
    .checking(check)
    .changing(change);

const COLUMNS: &[Column] = &[column("Data", |object, _| keys(object))];

/// The keys of both maps are one set, all of them plain; all values together may be 1 MiB.
fn check(object: &Tree, faults: &mut Faults) {
    let mut size = 0;
    for (name, value) in entries(object, "data") {
        faults.each(format_args!("data[{name}]"), name, syntax::config_key(name));
        if object["binaryData"].get(name).is_some() {
            faults.invalid(format!("data[{name}]"), name, "duplicate of key present in binaryData");
        }
        size += value.as_str().map_or(0, str::len);
    }
    for (name, value) in entries(object, "binaryData") {
        faults.each(format_args!("binaryData[{name}]"), name, syntax::config_key(name));
        size += value.as_str().map_or(0, |text| text.len() / 4 * 3);
    }
    if size > CONFIG_SIZE_MAX {
        faults.too_long("", CONFIG_SIZE_MAX);
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    if !flag(old, "immutable") {
        return;
    }
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !flag(new, "immutable") {
        faults.forbidden("immutable", DETAIL);
    }
    for name in ["data", "binaryData"] {
        if old[name] != new[name] {
            faults.forbidden(name, DETAIL);
        }
    }
}

fn keys(object: &Tree) -> Tree {
    (entries(object, "data").count() + entries(object, "binaryData").count()).to_string().into()
}

/// How large all values may be together, in bytes (1 MiB, upstream's limit).
const CONFIG_SIZE_MAX: usize = 1024 * 1024;
