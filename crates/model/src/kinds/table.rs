//! The columns of `kubectl get`, and the cells that many kinds share.

use super::{Column, Kind};
use crate::tree::{at, entries, items, text, whole};
use crate::{Selector, Time, Tree, time};

/// The name, which comes first.
pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    wide: false,
    cell: |object, _| text(object, "metadata.name").into(),
};

/// The age of the object.
pub const AGE: Column = Column {
    name: "Age",
    kind: "string",
    wide: false,
    cell: |object, now| age_at(object, "metadata.creationTimestamp", now),
};

/// All columns of a kind, in order: its own, with the name before them and the age before the wide ones, unless the
/// kind places those itself.
pub fn table(kind: &Kind) -> Vec<Column> {
    let has = |name: &str| kind.columns.iter().any(|column| column.name == name);
    let mut columns = kind.columns.to_vec();
    if !kind.ageless && !has(AGE.name) {
        let place = columns.iter().position(|column| column.wide).unwrap_or(columns.len());
        columns.insert(place, AGE);
    }
    if !kind.nameless && !has(NAME.name) {
        columns.insert(0, NAME);
    }
    columns
}

/// A column of text that always shows.
pub const fn column(name: &'static str, cell: fn(&Tree, Time) -> Tree) -> Column {
    Column { name, kind: "string", wide: false, cell }
}

/// A column of numbers that always shows.
pub const fn number(name: &'static str, cell: fn(&Tree, Time) -> Tree) -> Column {
    Column { name, kind: "integer", wide: false, cell }
}

/// A column of text that shows with `-o wide`.
pub const fn wide(name: &'static str, cell: fn(&Tree, Time) -> Tree) -> Column {
    Column { name, kind: "string", wide: true, cell }
}

/// What stands at a path; `<none>` where nothing does.
pub fn or_none(object: &Tree, path: &str) -> Tree {
    or(object, path, "<none>")
}

/// What stands at a path; `<unset>` where nothing does.
pub fn or_unset(object: &Tree, path: &str) -> Tree {
    or(object, path, "<unset>")
}

/// What stands at a path as text, or something else.
pub fn or(object: &Tree, path: &str, instead: &str) -> Tree {
    match at(object, path) {
        Tree::Null => instead.into(),
        Tree::String(text) if text.is_empty() => instead.into(),
        Tree::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

/// The number at a path; 0 where there is none.
pub fn count(object: &Tree, path: &str) -> Tree {
    whole(object, path).unwrap_or(0).into()
}

/// How long ago the time at a path was.
pub fn age_at(object: &Tree, path: &str, now: Time) -> Tree {
    match time::parse(text(object, path)) {
        Ok(then) => time::age(then, now).into(),
        Err(_) => "<unknown>".into(),
    }
}

/// The names of a pod template's containers.
pub fn containers(object: &Tree, path: &str) -> Tree {
    joined(items(object, path).iter().map(|container| text(container, "name"))).into()
}

/// The images of a pod template's containers.
pub fn images(object: &Tree, path: &str) -> Tree {
    joined(items(object, path).iter().map(|container| text(container, "image"))).into()
}

/// A label selector as text; `<none>` when it asks for nothing.
pub fn label_selector(object: &Tree, path: &str) -> Tree {
    match Selector::of_tree(Some(at(object, path))) {
        Ok(selector) if selector.requirements().is_empty() => "<none>".into(),
        Ok(selector) => selector.to_string().into(),
        Err(_) => "<error>".into(),
    }
}

/// A map of labels as text; `<none>` when it is empty.
pub fn label_map(object: &Tree, path: &str) -> Tree {
    let pairs =
        entries(object, path).map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    let pairs: Vec<String> = pairs.collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",").into() }
}

/// Texts with commas between them.
pub fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(",")
}

/// Access modes in short: `RWO`, `ROX` …
pub fn access_modes(object: &Tree, path: &str) -> Tree {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let modes = items(object, path);
    joined(SHORT.iter().filter(|(mode, _)| modes.iter().any(|known| known == mode)).map(|(_, short)| *short))
        .into()
}

/// The first of many texts, and how many more there are.
pub fn few(all: &[String], shown: usize, none: &str) -> Tree {
    match all.len() {
        0 => none.into(),
        len if len > shown => format!("{} + {} more...", all[..shown].join(","), len - shown).into(),
        _ => all.join(",").into(),
    }
}
