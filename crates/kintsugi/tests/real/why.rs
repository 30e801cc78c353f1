//! `kintsugi why`: the cluster says what it knows of a failure, and what it did.

use serde_json::json;

use crate::WEB;
use crate::harness::{Space, tool_pod};

/// What `kintsugi why` tells of a subject in the namespace.
fn why(space: &Space, subject: &str) -> String {
    let output = space.cluster().binary_act(&["why", subject, "-n", space.name()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_crash_loop_is_told_with_its_last_words_and_what_to_try() {
    let space = Space::new("why-loop");
    let mut pod = tool_pod("sad", "complain no database then exit 3");
    pod["spec"]["restartPolicy"] = json!("Always");
    space.apply(&pod);
    let repair = "repair/pod-sad-crashlooping";
    space.until(&["get", repair, "-o", "jsonpath={.status.outcome}"], |outcome| outcome == "Escalated");
    let known = space.value(repair, "{.status.diagnosis[0]}");
    assert!(known.starts_with("container main gave up with exit code 3 ("), "{known}");
    let told = why(&space, "pod/sad");
    for part in
        ["pod/sad in why-loop: Running", "no database", "CrashLooping", "BackOff", "logs sad -n why-loop"]
    {
        assert!(told.contains(part), "{part:?} is missing:\n{told}");
    }
    assert_eq!(why(&space, "pod/none"), "pod/none in why-loop is not there\n");
}

#[test]
fn a_bad_rollout_is_told_with_what_changed_and_that_the_old_pods_are_well() {
    let space = Space::new("why-rollout");
    space.apply(WEB);
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    space.kubectl(&["set", "image", "deployment/web", "web=kintsugi.dev/demo/web:missing"]);
    let escalated = "jsonpath={range .items[*]}{.spec.fault} {.status.outcome}{'\\n'}{end}";
    space.until(&["get", "repairs", "-o", escalated], |all| all.contains("CannotStart Escalated"));
    let told = why(&space, "deployment/web");
    for part in [
        "deployment/web in why-rollout: 3 of 4 pods do as they should",
        "containers[web].image: kintsugi.dev/demo/web:latest → kintsugi.dev/demo/web:missing",
        "of other revisions",
        "kubectl rollout undo deployment/web -n why-rollout",
    ] {
        assert!(told.contains(part), "{part:?} is missing:\n{told}");
    }
}
