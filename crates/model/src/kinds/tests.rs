//! Promises that hold of all kinds.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{Mode, Shape, builtin, decode_tree, defaults, to_bytes};
use crate::tree::{items, text};

/// What Kubernetes v1.36 serves: group, version, plural, kind, singular, scope, verbs, short names, categories,
/// subresources (`name=verbs:group/version/kind`).
const DISCOVERY: &str = include_str!("discovery.tsv");

/// What this project serves besides.
const OURS: [&str; 2] = [
    "healing.kintsugi.dev\tv1alpha1\trepairs\tRepair\trepair\tnamespaced\t\
     create,delete,deletecollection,get,list,patch,update,watch",
    "healing.kintsugi.dev\tv1alpha1\tvotersets\tVoterSet\tvoterset\tcluster\t\
     create,delete,deletecollection,get,list,patch,update,watch",
];

fn verbs(kind: &Kind) -> &'static str {
    match (kind.verbs, kind.kind) {
        // A namespace's contents go with it, so they are never deleted as a collection.
        (Verbs::All, "Namespace") => "create,delete,get,list,patch,update,watch",
        (Verbs::All, _) => "create,delete,deletecollection,get,list,patch,update,watch",
        (Verbs::CreateOnly, _) => "create",
        (Verbs::ReadOnly, _) => "get,list",
    }
}

fn part(kind: &Kind, part: &Part) -> String {
    let of = |group: &str, version: &str, name: &str| format!("{group}/{version}/{name}");
    match part {
        Part::Status => {
            format!("status=get,patch,update:{}", of(&kind.gvr.group, &kind.gvr.version, kind.kind))
        }
        Part::Scale { .. } => "scale=get,patch,update:autoscaling/v1/Scale".to_owned(),
        Part::Other { name, kind: (group, version, kind), verbs } => {
            format!("{name}={}:{}", verbs.join(","), of(group, version, kind))
        }
    }
}

#[test]
fn every_resource_that_is_discovered_is_a_kind_with_its_verbs_and_parts() {
    let mut missing = Vec::new();
    for line in DISCOVERY.lines().chain(OURS) {
        let cells: Vec<&str> = line.split('\t').collect();
        let cell = |at: usize| cells.get(at).copied().unwrap_or_default();
        let kind = KINDS.iter().find(|kind| {
            kind.gvr.group == cell(0) && kind.gvr.version == cell(1) && kind.gvr.plural == cell(2)
        });
        let Some(kind) = kind else {
            missing.push(format!("{line}: no such kind"));
            continue;
        };
        let scope = if kind.namespaced { "namespaced" } else { "cluster" };
        let mut parts: Vec<String> = kind.parts.iter().map(|known| part(kind, known)).collect();
        parts.sort();
        let mut wanted: Vec<&str> = cell(9).split(' ').filter(|part| !part.is_empty()).collect();
        wanted.sort_unstable();
        let known =
            [kind.kind, kind.singular, scope, verbs(kind), &kind.short.join(","), &kind.categories.join(",")];
        for (at, known) in known.into_iter().enumerate() {
            if known != cell(at + 3) {
                missing.push(format!("{}: has {known:?}, should have {:?}", kind.gvr, cell(at + 3)));
            }
        }
        if parts != wanted {
            missing.push(format!("{}: has parts {parts:?}, should have {wanted:?}", kind.gvr));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert_eq!(KINDS.len(), DISCOVERY.lines().count() + OURS.len());
}

#[test]
fn every_named_resource_is_a_kind_with_a_published_type_and_a_stored_form() {
    for gvr in ALL {
        let kind = by_gvr(gvr).unwrap_or_else(|| panic!("{gvr} is no kind"));
        let id = builtin().type_named(kind.schema).unwrap_or_else(|| panic!("{} is no type", kind.schema));
        assert!(builtin().get(id).field("metadata").is_some(), "{gvr}");
        let stored = kind.storage_kind();
        assert_eq!(stored.gvr, *kind.storage(), "{gvr}");
        assert!(stored.stored_as.is_none(), "{gvr} is stored as something that is not stored");
    }
    assert_eq!(ALL.len(), KINDS.len());
}

#[test]
fn columns_have_one_name_and_wide_ones_come_last() {
    for kind in KINDS {
        let columns = table(kind);
        let names = columns.iter().filter(|column| column.name == "Name").count();
        assert_eq!(names, usize::from(!kind.nameless), "{}", kind.kind);
        let ages = columns.iter().filter(|column| column.name == "Age").count();
        assert_eq!(ages, usize::from(!kind.ageless), "{}", kind.kind);
    }
}

#[test]
fn objects_of_another_version_come_back_as_they_were() {
    let check = |gvr: &Gvr, object: Tree| {
        let kind = by_gvr(gvr).expect("a kind");
        let mut stored = object.clone();
        kind.to_storage(&mut stored);
        let stored_type = builtin().type_named(kind.storage_kind().schema).expect("a type");
        let (_, problems) =
            decode_tree(stored.clone(), builtin(), stored_type, Mode::Report).expect("the stored shape");
        assert!(problems.is_empty(), "{gvr}: {problems:?}");
        kind.from_storage(&mut stored);
        assert_eq!(stored, object, "{gvr}");
    };
    check(
        &EVENTS_EVENT,
        json!({"apiVersion": "events.k8s.io/v1", "note": "a", "regarding": {"kind": "Pod"},
        "reportingController": "c", "deprecatedCount": 2, "type": "Normal"}),
    );
    check(
        &HORIZONTAL_POD_AUTOSCALER_V1,
        json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}}),
    );
    check(
        &RESOURCE_CLAIM_V1BETA1,
        json!({"apiVersion": "resource.k8s.io/v1beta1",
        "spec": {"devices": {"requests": [{"name": "a", "deviceClassName": "c"}]}}}),
    );
    check(
        &RESOURCE_SLICE_V1BETA1,
        json!({"apiVersion": "resource.k8s.io/v1beta1",
        "spec": {"driver": "d", "devices": [{"name": "a", "basic": {"attributes": {"x": {"int": 1}}}}]}}),
    );
}

/// Prepares and fills in an object as a creation does, and says what is wrong with it.
fn create(gvr: &Gvr, object: Tree) -> (Tree, Vec<String>) {
    let kind = by_gvr(gvr).expect("a kind");
    let id = builtin().type_named(kind.schema).expect("a type");
    let (mut object, _) = decode_tree(object, builtin(), id, Mode::Report).expect("the kind's shape");
    prepare_create(kind, &mut object);
    defaults::fill(&mut object, builtin(), id);
    (kind.fill)(&mut object);
    let mut faults = Faults::default();
    check_meta(&object, kind.meta_rules(), &mut faults);
    (kind.check)(&object, &mut faults);
    (object, faults.0.iter().map(ToString::to_string).collect())
}

#[test]
fn a_short_deployment_is_filled_in_and_accepted() {
    let (object, faults) = create(
        &DEPLOYMENT,
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"}, "status": {"replicas": 7},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "web:1"}]}}}}),
    );
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(object["metadata"]["generation"], 1);
    assert_eq!(object["status"], json!({}));
    let spec = &object["spec"];
    assert_eq!(
        spec["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
    assert_eq!(text(spec, "template.spec.restartPolicy"), "Always");
    assert_eq!(items(spec, "template.spec.containers")[0]["imagePullPolicy"], "IfNotPresent");
}

#[test]
fn faults_are_told_in_the_words_of_the_api() {
    let (_, faults) = create(
        &DEPLOYMENT,
        json!({"kind": "Deployment", "metadata": {"name": "Web", "namespace": "a"},
        "spec": {"replicas": -1, "selector": {"matchLabels": {"app": "x"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "web"}]}}}}),
    );
    let starts = [
        "metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain must consist of",
        "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
    ];
    assert_eq!(faults.len(), starts.len(), "{faults:?}");
    faults.iter().zip(starts).for_each(|(fault, start)| assert!(fault.starts_with(start), "{fault}"));
    let (_, faults) =
        create(&CONFIG_MAP, json!({"metadata": {"name": "a", "namespace": "a"}, "data": {"a b": ""}}));
    assert!(
        faults[0].starts_with("data[a b]: Invalid value: \"a b\": a valid config key must consist of"),
        "{faults:?}"
    );
}

#[test]
fn what_is_immutable_does_not_change() {
    let change = |gvr: &Gvr, old: Tree, new: Tree| {
        let mut faults = Faults::default();
        (by_gvr(gvr).expect("a kind").change)(&old, &new, &mut faults);
        faults.0.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let data = |value: &str| json!({"immutable": true, "data": {"a": value}});
    assert_eq!(
        change(&CONFIG_MAP, data("x"), data("y")),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    assert!(change(&CONFIG_MAP, data("x"), data("x")).is_empty());
    let service = |address: &str| json!({"spec": {"type": "ClusterIP", "clusterIP": address}});
    assert_eq!(
        change(&SERVICE, service("10.0.0.1"), service("10.0.0.2")),
        ["spec.clusterIPs[0]: Invalid value: \"10.0.0.2\": may not change once set"]
    );
}

#[test]
fn services_keep_what_they_were_given() {
    let kind = by_gvr(&SERVICE).expect("a kind");
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "ports": [{"name": "a", "port": 80, "nodePort": 30080, "protocol": "TCP"}]}});
    let mut new = json!({"metadata": {}, "spec": {"type": "NodePort", "ports": [{"name": "a", "port": 80}]}});
    prepare_update(kind, &old, &mut new);
    assert_eq!(new["spec"]["clusterIP"], "10.0.0.1");
    assert_eq!(new["spec"]["ports"][0]["nodePort"], 30080);
}

#[test]
fn services_lose_what_their_new_type_has_not() {
    let kind = by_gvr(&SERVICE).expect("a kind");
    let old = json!({"metadata": {}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
        "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
        "ports": [{"name": "a", "port": 80, "nodePort": 30080, "protocol": "TCP"}]}});
    let mut named = old.clone();
    named["spec"]["type"] = "ExternalName".into();
    named["spec"]["externalName"] = "example.com".into();
    crate::tree::remove(&mut named["spec"], "clusterIP");
    prepare_update(kind, &old, &mut named);
    let left = json!({"type": "ExternalName", "externalName": "example.com",
        "ports": [{"name": "a", "port": 80, "protocol": "TCP"}]});
    assert_eq!(named["spec"], left);
    let mut inner = old.clone();
    inner["spec"]["type"] = "ClusterIP".into();
    prepare_update(kind, &old, &mut inner);
    assert_eq!(inner["spec"]["clusterIP"], "10.0.0.1");
    assert!(inner["spec"].get("externalTrafficPolicy").is_none());
    assert!(inner["spec"]["ports"][0].get("nodePort").is_none());
}

#[test]
fn the_older_autoscaler_is_checked_and_shown_like_the_newer() {
    let object = json!({"metadata": {"name": "a", "namespace": "a"}, "spec": {"maxReplicas": 0,
        "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "targetCPUUtilizationPercentage": 50}});
    let (object, faults) = create(&HORIZONTAL_POD_AUTOSCALER_V1, object);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with("spec.maxReplicas: Invalid value: 0: must be greater than 0"));
    assert_eq!(object["spec"]["minReplicas"], 1);
    let kind = by_gvr(&HORIZONTAL_POD_AUTOSCALER_V1).expect("a kind");
    let targets = table(kind).into_iter().find(|column| column.name == "Targets").expect("a column");
    assert_eq!((targets.cell)(&object, crate::Time::UNIX_EPOCH), "cpu: <unknown>/50%");
}

#[test]
fn a_definition_remembers_the_versions_it_was_stored_in() {
    let kind = by_gvr(&CUSTOM_RESOURCE_DEFINITION).expect("a kind");
    let of = |stored: &str| {
        let version = |name: &str| json!({"name": name, "served": true, "storage": name == stored});
        json!({"metadata": {}, "spec": {"versions": [version("v1"), version("v2")]}})
    };
    let mut old = of("v1");
    (kind.fill)(&mut old);
    assert_eq!(old["status"]["storedVersions"], json!(["v1"]));
    let mut new = of("v2");
    prepare_update(kind, &old, &mut new);
    assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
}

#[test]
fn jobs_select_their_own_pods() {
    let (job, faults) = create(
        &JOB,
        json!({"kind": "Job", "metadata": {"name": "j", "namespace": "a", "uid": "u"},
        "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "c:1"}]}}}}),
    );
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"], "j");
    assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
}

#[test]
fn a_pod_begins_pending_with_its_class() {
    let (pod, faults) = create(
        &POD,
        json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "a"},
        "spec": {"containers": [{"name": "c", "image": "c", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}]}}),
    );
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
    assert_eq!(pod["metadata"]["generation"], 1);
}

#[test]
fn pods_show_their_state() {
    let shown = |object: Tree| {
        let now: crate::Time = "2026-01-01T00:01:00Z".parse().expect("a time");
        let cells = table(by_gvr(&POD).expect("a kind"))
            .into_iter()
            .take(5)
            .map(|column| (column.cell)(&object, now));
        cells.map(|cell| cell.as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let pod = |status: Tree| {
        json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": status,
            "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}})
    };
    assert_eq!(shown(pod(json!({"phase": "Pending"}))), "a 0/1 Pending 0 60s");
    let waiting = |reason: &str| {
        json!({"name": "c", "state": {"waiting": {"reason": reason}}, "restartCount": 2,
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:00:50Z"}}})
    };
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
    let crashing = json!({"phase": "Running", "initContainerStatuses": [done], "containerStatuses": [waiting("CrashLoopBackOff")]});
    assert_eq!(shown(pod(crashing)), "a 0/1 CrashLoopBackOff 2 (10s ago) 60s");
    let starting =
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]});
    assert_eq!(shown(pod(starting)), "a 0/1 Init:0/1 0 60s");
    let running = json!({"phase": "Running", "containerStatuses": [{"name": "c", "ready": true, "state": {"running": {}}}]});
    assert_eq!(shown(pod(running.clone())), "a 1/1 Running 0 60s");
    let mut going = pod(running);
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into();
    assert_eq!(shown(going), "a 1/1 Terminating 0 60s");
    let ended = json!({"phase": "Succeeded", "containerStatuses": [
        {"name": "c", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]});
    assert_eq!(shown(pod(ended)), "a 0/1 Completed 0 60s");
}

/// A value of a shape, from a few numbers; texts are such as kinds look for.
fn value(shape: &Shape, chance: &mut impl FnMut() -> usize, depth: u32) -> Tree {
    const TEXTS: [&str; 12] = [
        "",
        "a",
        "Always",
        "RollingUpdate",
        "NodePort",
        "80",
        "25%",
        "é",
        "10.0.0.1",
        "Resource",
        "In",
        "a.b/c",
    ];
    match shape {
        Shape::Text | Shape::Any => TEXTS[chance() % TEXTS.len()].into(),
        Shape::Flag => chance().is_multiple_of(2).into(),
        Shape::Int32 | Shape::Int64 => (chance() as i64 - 3).into(),
        Shape::IntOrString if chance().is_multiple_of(2) => "50%".into(),
        Shape::IntOrString => 5.into(),
        Shape::Double => 0.5.into(),
        Shape::Bytes => "YQ==".into(),
        Shape::Time | Shape::MicroTime => "2026-01-02T03:04:05Z".into(),
        Shape::Quantity => ["1", "-1", "500m", "1Gi"][chance() % 4].into(),
        Shape::Object(_) if depth > 6 => json!({}),
        Shape::Object(id) => {
            let fields = builtin().get(*id).fields.iter();
            let some: Vec<_> = fields.filter(|_| chance().is_multiple_of(3)).collect();
            some.into_iter()
                .map(|field| (field.name.to_string(), value(&field.shape, chance, depth + 1)))
                .collect()
        }
        Shape::List { item, .. } => (0..chance() % 3).map(|_| value(item, chance, depth + 1)).collect(),
        Shape::Map { value: of, .. } => {
            (0..chance() % 3).map(|at| (TEXTS[at * 5 + 1].to_owned(), value(of, chance, depth + 1))).collect()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_is_filled_in_once_checked_shown_and_never_panics(
        numbers in proptest::collection::vec(0_usize..60, 60..400),
        at in 0_usize..1000,
    ) {
        let kind = KINDS[at % KINDS.len()];
        let id = builtin().type_named(kind.schema).expect("a type");
        let mut next = numbers.iter().copied().cycle();
        let tree = value(&Shape::Object(id), &mut || next.next().unwrap_or(1), 0);
        let now = crate::Time::UNIX_EPOCH;
        for object in [tree, json!({}), json!({"spec": {}, "metadata": {}})] {
            let (mut object, _) = decode_tree(object, builtin(), id, Mode::Ignore).expect("of its shape");
            prepare_create(kind, &mut object);
            defaults::fill(&mut object, builtin(), id);
            (kind.fill)(&mut object);
            let once = object.clone();
            defaults::fill(&mut object, builtin(), id);
            (kind.fill)(&mut object);
            prop_assert_eq!(&object, &once);
            let mut faults = Faults::default();
            check_meta(&object, kind.meta_rules(), &mut faults);
            (kind.check)(&object, &mut faults);
            let mut faults = Faults::default();
            (kind.change)(&object, &once, &mut faults);
            prop_assert!(faults.is_empty(), "{}: {:?}", kind.kind, faults);
            let mut updated = object.clone();
            prepare_update(kind, &once, &mut updated);
            prepare_status(&once, &mut updated);
            table(kind).iter().for_each(|column| { (column.cell)(&object, now); });
            kind.to_storage(&mut object);
            kind.from_storage(&mut object);
            let (decoded, problems) = decode_tree(once.clone(), builtin(), id, Mode::Report).expect("still of its shape");
            prop_assert!(problems.is_empty(), "{}: {:?}", kind.kind, problems);
            prop_assert_eq!(to_bytes(&decoded), to_bytes(&once));
        }
    }
}
