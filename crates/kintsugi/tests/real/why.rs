//! `kintsugi why`: the cluster says what it knows of a failure, and what it did.

use serde_json::json;

use crate::WEB;
use crate::harness::{Space, tool_pod};

#[test]
fn a_deployment_that_asks_for_it_goes_back_when_its_new_pods_fail() {
    let space = Space::new("rollback");
    // Four more pods at once, so that three new ones can fail beside the old ones.
    let strategy = "  replicas: 3\n  strategy: {rollingUpdate: {maxSurge: 4, maxUnavailable: 0}}";
    let web = WEB.replace(
        "metadata: {name: web}\nspec:\n  replicas: 3",
        &format!(
            "metadata: {{name: web, annotations: {{healing.kintsugi.dev/rollback: auto}}}}\nspec:\n{strategy}"
        ),
    );
    space.apply(&web);
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    space.apply(web.replace("args: ['8080']", "args: ['crash']"));
    let rolled_back = "{.metadata.annotations.healing\\.kintsugi\\.dev/rolled-back}";
    let said = space.until_value("deployment/web", rolled_back, |said| !said.is_empty());
    assert!(said.starts_with("from revision 2 to revision 1: 3 of 3 new pods fail"), "{said}");
    space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    assert_eq!(space.value("deployment/web", "{.spec.template.spec.containers[0].args[0]}"), "8080");
    let outcome = "jsonpath={.status.outcome}";
    space.until(&["get", "repair/deployment-web-revisionfailing", "-o", outcome], |outcome| {
        outcome == "Recovered"
    });
}

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
        "none of the 3 pods of other revisions fails",
        "kubectl rollout undo deployment/web -n why-rollout",
    ] {
        assert!(told.contains(part), "{part:?} is missing:\n{told}");
    }
}
