//! What the labels of a namespace make of pods, of templates, and of the namespace's own changes.

use serde_json::json;

use super::super::testing::change;
use super::*;

fn namespace(labels: &str) -> String {
    let labels: Vec<String> = labels
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| format!("\"{PREFIX}{key}\": \"{value}\""))
        .collect();
    format!(r#"{{"metadata": {{"name": "d", "labels": {{{}}}}}}}"#, labels.join(", "))
}

fn look(asked: &Asked<'_>, object: &mut Tree, extra: &mut Extra) -> Result<(), Refusal> {
    judge(asked, object, extra)
}

/// What is said of a new pod that shares its node's network: the refusal, or the warnings.
fn pod(labels: &str) -> Result<Vec<String>, String> {
    let pod =
        json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"hostNetwork": true, "containers": []}});
    let made = change(&[(&kinds::NAMESPACE, &namespace(labels))], &kinds::POD, look, None, pod)?;
    Ok(made.1.warnings)
}

#[test]
fn a_namespace_without_labels_lets_everything_happen() {
    assert_eq!(pod(""), Ok(vec![]));
    assert_eq!(pod("enforce=privileged"), Ok(vec![]));
}

#[test]
fn what_is_enforced_is_refused_and_what_is_warned_of_is_said() {
    let why = "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    assert_eq!(pod("enforce=baseline"), Err(why.into()));
    let would = "would violate PodSecurity \"baseline:v1.30\": host namespaces (hostNetwork=true)";
    assert_eq!(pod("warn=baseline warn-version=v1.30"), Ok(vec![would.into()]));
    assert_eq!(pod("audit=baseline"), Ok(vec![]));
    // What nobody can read is enforced in full.
    assert!(pod("enforce=typo").is_err_and(|why| why.contains("restricted:latest")));
}

/// The same where the settings say this.
fn pod_under(configuration: Tree, labels: &str) -> Result<Vec<String>, String> {
    thread_local!(static SAID: std::cell::RefCell<PodSecurity> = std::cell::RefCell::default());
    fn under(asked: &Asked<'_>, object: &mut Tree, extra: &mut Extra) -> Result<(), Refusal> {
        SAID.with_borrow(|said| judge(&Asked { security: said, ..*asked }, object, extra))
    }
    SAID.set(PodSecurity::read(&configuration)?);
    let pod = json!({"metadata": {"name": "p", "namespace": "d"},
        "spec": {"hostNetwork": true, "runtimeClassName": "vm", "containers": []}});
    let made = change(&[(&kinds::NAMESPACE, &namespace(labels))], &kinds::POD, under, None, pod)?;
    let notes = made.1.notes.into_iter().filter(|(key, _)| key.ends_with("exempt"));
    Ok(made.1.warnings.into_iter().chain(notes.map(|(_, value)| format!("exempt by {value}"))).collect())
}

#[test]
fn the_settings_say_what_labels_do_not_and_who_is_exempt() {
    let strict = json!({"defaults": {"enforce": "baseline", "enforce-version": "v1.30"}});
    let why = pod_under(strict.clone(), "").expect_err("it shares its node's network");
    assert!(why.contains("violates PodSecurity \"baseline:v1.30\""), "{why}");
    assert_eq!(pod_under(strict, "enforce=privileged"), Ok(vec![]));
    let warning = pod_under(json!({"defaults": {"warn": "baseline"}}), "").expect("let happen");
    assert!(warning[0].starts_with("would violate PodSecurity \"baseline:latest\""), "{warning:?}");
    let exempt = |field: &str, name: &str| {
        pod_under(json!({"defaults": {"enforce": "restricted"}, "exemptions": {field: [name]}}), "")
    };
    assert_eq!(exempt("namespaces", "d"), Ok(vec!["exempt by namespace".into()]));
    assert_eq!(exempt("runtimeClasses", "vm"), Ok(vec!["exempt by runtimeClass".into()]));
    assert!(exempt("namespaces", "e").is_err() && exempt("usernames", "nobody").is_err());
    let wrong = |configuration: Tree| PodSecurity::read(&configuration).expect_err("it is wrong");
    let why = wrong(json!({"defaults": {"enforce": "typo"}}));
    assert!(why.starts_with("defaults.enforce: Invalid value"), "{why}");
    assert!(
        wrong(json!({"defaults": {"warn-version": "1.2"}})).starts_with("defaults.warn-version: Invalid")
    );
    assert!(wrong(json!({"exemptions": {"namespaces": ["a", "a"]}})).contains("namespaces[1]: Duplicate"));
}

#[test]
fn what_makes_pods_is_warned_of_and_let_happen() {
    let set = json!({"metadata": {"name": "w", "namespace": "d"},
        "spec": {"template": {"spec": {"hostPID": true, "containers": []}}}});
    let world = namespace("enforce=baseline audit=baseline");
    let (_, extra) =
        change(&[(&kinds::NAMESPACE, &world)], &kinds::DEPLOYMENT, look, None, set).expect("let happen");
    let would = "would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
    assert_eq!(extra.warnings, [would]);
    assert_eq!(extra.notes["pod-security.kubernetes.io/audit-violations"], would);
}

#[test]
fn a_change_counts_when_other_programs_may_run() {
    let world = namespace("enforce=baseline");
    let with = |image: &str, label: &str| {
        json!({"metadata": {"name": "p", "namespace": "d", "labels": {"l": label}},
            "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": image}]}})
    };
    let changed = |new: Tree| {
        change(&[(&kinds::NAMESPACE, &world)], &kinds::POD, look, Some(&with("a", "x")), new).is_ok()
    };
    assert!(changed(with("a", "y")));
    assert!(!changed(with("b", "x")));
}

#[test]
fn labels_that_cannot_be_read_are_refused_once() {
    let read = |text: &str| serde_json::from_str::<Tree>(text).expect("an object");
    let (bad, good) = (read(&namespace("enforce=typo warn-version=v1.01")), read(&namespace("")));
    let why = change(&[], &kinds::NAMESPACE, look, None, bad.clone()).expect_err("cannot be read");
    assert!(why.contains(r#"metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "typo": must be one of privileged, baseline, restricted"#), "{why}");
    assert!(why.contains(r#"Invalid value: "v1.01": must be "latest" or "v1.x""#), "{why}");
    assert!(change(&[], &kinds::NAMESPACE, look, Some(&good), bad.clone()).is_err());
    assert!(change(&[], &kinds::NAMESPACE, look, Some(&bad.clone()), bad).is_ok());
}

#[test]
fn a_stricter_level_tells_which_pods_it_would_not_have_let_happen() {
    let pod = |name: &str, rest: &str| {
        format!(
            r#"{{"metadata": {{"name": "{name}", "namespace": "d"}}, "spec": {{"containers": [{{"name": "c"}}]{rest}}}}}"#
        )
    };
    let (a, b, c) = (pod("b", r#", "hostPID": true"#), pod("a", r#", "hostPID": true"#), pod("c", ""));
    let world = [(&kinds::POD, a.as_str()), (&kinds::POD, b.as_str()), (&kinds::POD, c.as_str())];
    let told = |before: &str, after: &str| {
        let read = |text: &str| serde_json::from_str::<Tree>(&namespace(text)).expect("an object");
        let made = change(&world, &kinds::NAMESPACE, look, Some(&read(before)), read(after));
        made.expect("let happen").1.warnings
    };
    assert_eq!(
        told("", "enforce=baseline"),
        [
            "existing pods in namespace \"d\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): host namespaces",
        ]
    );
    assert_eq!(told("", "enforce=restricted").len(), 3);
    assert!(told("enforce=restricted", "enforce=baseline").is_empty());
    assert!(told("enforce=baseline", "enforce=privileged").is_empty());
}
