//! HorizontalPodAutoscaler of `autoscaling/v2`, `autoscaling/v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{column, count, number, or_unset};
use super::{Column, Faults, Kind, Part, of};
use crate::tree::{at, is_set, is_there, items, text, whole};
use crate::{Tree, syntax, tree};

/// What the house knows of `autoscaling/v2` HorizontalPodAutoscaler.
pub static KIND: Kind = Kind::new(
    of::HORIZONTAL_POD_AUTOSCALER,
    "HorizontalPodAutoscaler",
    "horizontalpodautoscaler",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
)
.short(&["hpa"])
.categories(&["all"])
.namespaced()
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(fill)
.checking(check)
.beginning(first);

/// What the house knows of `autoscaling/v1` HorizontalPodAutoscaler.
pub static V1: Kind = Kind::new(
    of::HORIZONTAL_POD_AUTOSCALER_V1,
    "HorizontalPodAutoscaler",
    "horizontalpodautoscaler",
    "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
)
.short(&["hpa"])
.categories(&["all"])
.namespaced()
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(fill_v1)
.checking(|object, faults| check(&as_stored(object), faults))
.beginning(first)
.stored_as(&super::HORIZONTAL_POD_AUTOSCALER)
.converting(to_stored, from_stored);

const COLUMNS: &[Column] = &[
    column("Reference", |object, _| reference(object)),
    column("Targets", |object, _| targets(object)),
    column("MinPods", |object, _| or_unset(object, "spec.minReplicas")),
    number("MaxPods", |object, _| count(object, "spec.maxReplicas")),
    number("Replicas", |object, _| count(object, "status.currentReplicas")),
];

/// How busy pods should be, in percent of what they ask for, when the author names no metric.
const BUSY_PERCENT: i64 = 80;

/// Where the older version keeps what it has no fields for.
const METRICS_NOTE: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR_NOTE: &str = "autoscaling.alpha.kubernetes.io/behavior";

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "minReplicas", 1);
    if !is_set(spec, "metrics") {
        tree::set(spec, "metrics", json!([busy(BUSY_PERCENT)]));
    }
    if let Some(behavior) = spec.get_mut("behavior") {
        let per = |kind: &str, value: i64, seconds: i64| json!({"type": kind, "value": value, "periodSeconds": seconds});
        if let Some(up) = tree::object(behavior, "scaleUp") {
            tree::fill(up, "stabilizationWindowSeconds", 0);
            tree::fill(up, "selectPolicy", "Max");
            tree::fill(up, "policies", json!([per("Pods", 4, 15), per("Percent", 100, 15)]));
        }
        if let Some(down) = tree::object(behavior, "scaleDown") {
            tree::fill(down, "selectPolicy", "Max");
            tree::fill(down, "policies", json!([per("Percent", 100, 15)]));
        }
    }
}

/// The first version leaves it to the controller how busy pods should be.
fn fill_v1(object: &mut Tree) {
    tree::object(object, "spec").into_iter().for_each(|spec| tree::fill(spec, "minReplicas", 1));
}

/// An object of the first version in the words of the second.
fn as_stored(object: &Tree) -> Tree {
    let mut object = object.clone();
    to_stored(&mut object);
    object
}

fn busy(percent: i64) -> Tree {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"currentReplicas": 0, "desiredReplicas": 0}));
}

fn check(object: &Tree, faults: &mut Faults) {
    let spec = &object["spec"];
    let (least, most) = (whole(spec, "minReplicas"), whole(spec, "maxReplicas").unwrap_or(0));
    if least.is_some_and(|least| least < 1) {
        faults.invalid("spec.minReplicas", least, "must be greater than or equal to 1");
    }
    if most < 1 {
        faults.invalid("spec.maxReplicas", most, "must be greater than 0");
    }
    if least.is_some_and(|least| most < least) {
        faults.invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`");
    }
    for name in ["kind", "name"] {
        let value = text(&spec["scaleTargetRef"], name);
        match value {
            "" => faults.required(format!("spec.scaleTargetRef.{name}"), ""),
            _ => faults.each(format_args!("spec.scaleTargetRef.{name}"), value, syntax::path_segment(value)),
        }
    }
    const KINDS: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    for (index, metric) in items(spec, "metrics").iter().enumerate() {
        let (field, kind) = (format!("spec.metrics[{index}]"), text(metric, "type"));
        faults.one_of(format_args!("{field}.type"), kind, KINDS);
        let source = source_of(kind);
        if KINDS.contains(&kind) && !is_there(metric, &source) {
            let detail = "must populate information for the given metric source";
            faults.required(format!("{field}.{source}"), detail);
        }
    }
}

/// The first version told one metric in a field of its own and the rest in annotations.
fn to_stored(object: &mut Tree) {
    let notes = object["metadata"]["annotations"].clone();
    let note = |name: &str| {
        notes.get(name).and_then(Tree::as_str).and_then(|text| serde_json::from_str::<Tree>(text).ok())
    };
    let (metrics, behavior) = (note(METRICS_NOTE), note(BEHAVIOR_NOTE));
    if let Some(kept) = object.get_mut("metadata").and_then(|meta| meta.get_mut("annotations")) {
        [METRICS_NOTE, BEHAVIOR_NOTE].iter().for_each(|name| tree::remove(kept, name));
    }
    let Some(spec) = tree::object(object, "spec") else { return };
    let mut all: Vec<Tree> = whole(spec, "targetCPUUtilizationPercentage").map(busy).into_iter().collect();
    all.extend(metrics.as_ref().and_then(Tree::as_array).into_iter().flatten().cloned());
    tree::remove(spec, "targetCPUUtilizationPercentage");
    if !all.is_empty() {
        tree::set(spec, "metrics", all);
    }
    behavior.into_iter().for_each(|behavior| tree::set(spec, "behavior", behavior));
    object
        .get_mut("status")
        .into_iter()
        .for_each(|status| tree::remove(status, "currentCPUUtilizationPercentage"));
}

fn from_stored(object: &mut Tree) {
    let is_busy = |metric: &&Tree| {
        text(metric, "resource.name") == "cpu" && is_there(metric, "resource.target.averageUtilization")
    };
    let metrics = items(object, "spec.metrics").to_vec();
    let percent =
        metrics.iter().find(is_busy).and_then(|metric| whole(metric, "resource.target.averageUtilization"));
    let others: Vec<&Tree> = metrics.iter().filter(|metric| !is_busy(metric)).collect();
    let behavior = at(object, "spec.behavior").clone();
    let mut notes = Vec::new();
    if !others.is_empty() {
        notes.push((METRICS_NOTE, json!(others).to_string()));
    }
    if !behavior.is_null() {
        notes.push((BEHAVIOR_NOTE, behavior.to_string()));
    }
    if let Some(spec) = tree::object(object, "spec") {
        ["metrics", "behavior"].iter().for_each(|name| tree::remove(spec, name));
        percent.into_iter().for_each(|percent| tree::set(spec, "targetCPUUtilizationPercentage", percent));
    }
    if !notes.is_empty()
        && let Some(kept) =
            tree::object(object, "metadata").and_then(|meta| tree::object(meta, "annotations"))
    {
        notes.into_iter().for_each(|(name, text)| tree::set(kept, name, text));
    }
    let current = items(object, "status.currentMetrics").iter().find_map(|metric| {
        whole(metric, "resource.current.averageUtilization")
            .filter(|_| text(metric, "resource.name") == "cpu")
    });
    if let Some(status) = object.get_mut("status") {
        ["currentMetrics", "conditions"].iter().for_each(|name| tree::remove(status, name));
        current.into_iter().for_each(|percent| tree::set(status, "currentCPUUtilizationPercentage", percent));
    }
}

fn reference(object: &Tree) -> Tree {
    format!("{}/{}", text(object, "spec.scaleTargetRef.kind"), text(object, "spec.scaleTargetRef.name"))
        .into()
}

/// How many metrics a row shows.
const SHOWN: usize = 2;

fn targets(object: &Tree) -> Tree {
    if is_there(object, "spec.targetCPUUtilizationPercentage") {
        return targets(&as_stored(object));
    }
    let current = items(object, "status.currentMetrics");
    let shown = items(object, "spec.metrics").iter().enumerate().map(|(index, metric)| {
        let kind = text(metric, "type");
        let source = source_of(kind);
        let now = current.get(index).map_or(&Tree::Null, |status| &status[&source]["current"]);
        target(&metric[&source], now)
    });
    let all: Vec<String> = shown.collect();
    match all.len() {
        0 => "<none>".into(),
        len if len > SHOWN => format!("{} + {} more...", all[..SHOWN].join(", "), len - SHOWN).into(),
        _ => all.join(", ").into(),
    }
}

/// One metric as `cpu: 20%/80%`.
fn target(source: &Tree, current: &Tree) -> String {
    let name = text(source, "name");
    let prefix = if name.is_empty() { String::new() } else { format!("{name}: ") };
    let pair = |field: &str, unit: &str| {
        let known = match &current[field] {
            Tree::Null => "<unknown>".to_owned(),
            Tree::String(text) => text.clone(),
            number => format!("{number}{unit}"),
        };
        let wanted = match at(source, &format!("target.{field}")) {
            Tree::String(text) => text.clone(),
            number => format!("{number}{unit}"),
        };
        format!("{prefix}{known}/{wanted}")
    };
    match () {
        () if is_there(source, "target.averageUtilization") => pair("averageUtilization", "%"),
        () if is_there(source, "target.averageValue") => pair("averageValue", ""),
        () if is_there(source, "target.value") => pair("value", ""),
        () => format!("{prefix}<unknown>/<auto>"),
    }
}

/// The field that a type of metric stands in: `containerResource` of `ContainerResource`.
fn source_of(kind: &str) -> String {
    let mut letters = kind.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
