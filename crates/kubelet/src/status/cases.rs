//! What is told of small worlds: text in, text out (the facts are those of the plan's cases).

use serde_json::{Value, json};

use super::*;
use crate::backoff::Curve;
use crate::plan::cases::{at, world};
use crate::pod::PodView;
use crate::pod::testing::pod_with;

fn view(spec: Value, before: Value) -> PodView {
    let mut whole = json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i:1"}]});
    if let (Some(all), Some(more)) = (whole.as_object_mut(), spec.as_object()) {
        all.extend(more.clone());
    }
    pod_with(json!({}), whole, before)
}

fn of(pod: &PodView, facts: &str, now: i64) -> PodStatus {
    let memory = world(pod, facts);
    let seen = Seen { pod, memory: &memory, curve: &Curve::HEALING, now: at(now), node: Default::default() };
    let before = pod.pod.status.clone().unwrap_or_default();
    status(&seen, &["192.0.2.1".parse().expect("an address")], &before)
}

/// `phase; Condition=Value(Reason)…; container: state`.
fn told(status: &PodStatus) -> String {
    let mut words = vec![status.phase.clone().unwrap_or_default()];
    for condition in status.conditions.iter().flatten() {
        let short = match condition.type_.as_str() {
            "Initialized" => "init",
            "Ready" => "ready",
            _ => continue,
        };
        let reason = condition.reason.as_deref().map(|reason| format!("({reason})")).unwrap_or_default();
        words.push(format!("{short}={}{reason}", condition.status));
    }
    let all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    for container in all {
        let state = container.state.clone().unwrap_or_default();
        let text = match (state.running, state.terminated, state.waiting) {
            (Some(_), ..) => "runs".to_owned(),
            (_, Some(end), _) => format!("{} {}", end.reason.unwrap_or_default(), end.exit_code),
            (_, _, Some(wait)) => wait.reason.unwrap_or_default(),
            _ => String::new(),
        };
        words.push(format!("{}: {text}{}", container.name, if container.ready { " ready" } else { "" }));
    }
    words.join("; ")
}

fn check(spec: Value, facts: &str, now: i64, expected: &str) {
    let pod = view(spec, json!({}));
    assert_eq!(told(&of(&pod, facts, now)), expected, "{facts}");
}

#[test]
fn a_pod_goes_from_pending_to_running() {
    check(json!({}), "", 0, "Pending; init=True; ready=False(ContainersNotReady); a: ContainerCreating");
    check(json!({}), "laid\na runs@0", 1, "Running; init=True; ready=True; a: runs ready");
    check(
        json!({}),
        "laid\na runs@0\na bad readiness",
        1,
        "Running; init=True; ready=False(ContainersNotReady); a: runs",
    );
}

#[test]
fn a_pod_that_keeps_failing_says_what_was_tried_for_it() {
    let tried = |facts: &str| {
        let pod = view(json!({}), json!({}));
        let status = of(&pod, &format!("laid\nimage a\na restarts=9\n{facts}"), 1);
        find(&status, diagnosis::KEEPS_FAILING).map(|one| one.reason.clone().unwrap_or_default())
    };
    let failing = "a ended@0-1=1\n";
    // Not before it failed in the fresh one, however long that takes to be made.
    let pod = view(json!({}), json!({}));
    let mut memory = world(&pod, &format!("laid\nimage a\na restarts=9\n{failing}a failures=6"));
    assert_eq!(memory.renew("a"), 6);
    memory.sandbox = Step::Working;
    let seen =
        Seen { pod: &pod, memory: &memory, curve: &Curve::HEALING, now: at(1), node: Default::default() };
    let renewing = status(&seen, &[], &PodStatus::default());
    let said = find(&renewing, diagnosis::KEEPS_FAILING).expect("it is said");
    assert_eq!(said.reason.as_deref(), Some("FreshSandbox"));
    assert_eq!(said.message.as_deref(), Some("container a failed 6 times: the pod got a fresh sandbox"));
    assert_eq!(tried(&format!("{failing}a failures=6")), None);
    assert_eq!(tried(&format!("{failing}a failures=1\nfresh a")).as_deref(), Some("FreshSandbox"));
    assert_eq!(tried(&format!("{failing}a failures=3\nfresh a")).as_deref(), Some("FailsHere"));
    assert_eq!(tried(&format!("{failing}a failures=9")).as_deref(), Some("FailsHere"), "others run there");
    assert_eq!(tried("a runs@0\na failures=3\nfresh a"), None, "nobody knows yet");
}

#[test]
fn a_container_tells_that_an_image_it_mounts_cannot_be_had() {
    let spec = json!({
        "containers": [{"name": "a", "image": "i:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "image": {"reference": "data:1"}}],
    });
    let facts = "laid\nimage a\nunshown v";
    let told = |reason: &str| format!("Pending; init=True; ready=False(ContainersNotReady); a: {reason}");
    check(spec.clone(), facts, 1, &told("ErrImagePull"));
    check(spec, facts, 60, &told("ImagePullBackOff"));
}

#[test]
fn ends_are_told_by_policy() {
    let never = json!({"restartPolicy": "Never"});
    check(
        never.clone(),
        "laid\na ended@0-1=0",
        1,
        "Succeeded; init=True(PodCompleted); ready=False(PodCompleted); a: Completed 0",
    );
    check(never, "laid\na ended@0-1=2", 1, "Failed; init=True; ready=False(PodFailed); a: Error 2");
    check(
        json!({}),
        "laid\na ended@0-1=2\na restarts=5",
        1,
        "Running; init=True; ready=False(ContainersNotReady); a: CrashLoopBackOff",
    );
    check(
        json!({}),
        "laid\na ended@0-1=2",
        1,
        "Running; init=True; ready=False(ContainersNotReady); a: Error 2",
    );
}

#[test]
fn init_containers_hold_the_pod_pending() {
    let init =
        |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "x"}, {"name": "y"}]});
    check(
        init("Always"),
        "laid\nx runs@0",
        1,
        "Pending; init=False(ContainersNotInitialized); ready=False(ContainersNotReady); \
         x: runs; y: PodInitializing; a: PodInitializing",
    );
    check(
        init("Always"),
        "laid\nx ended@0-1=1\nx restarts=9",
        1,
        "Pending; init=False(ContainersNotInitialized); ready=False(ContainersNotReady); \
         x: CrashLoopBackOff; y: PodInitializing; a: PodInitializing",
    );
    check(
        init("Never"),
        "laid\nx ended@0-1=0\ny ended@1-2=1",
        2,
        "Failed; init=False(ContainersNotInitialized); ready=False(PodFailed); \
         x: Completed 0 ready; y: Error 1; a: PodInitializing",
    );
}

#[test]
fn incomplete_init_containers_are_named() {
    let pod = view(json!({"initContainers": [{"name": "x"}, {"name": "y"}]}), json!({}));
    let status = of(&pod, "laid\nx runs@0", 1);
    let condition = find(&status, "Initialized").expect("it is told");
    assert_eq!(condition.message.as_deref(), Some("containers with incomplete status: [x y]"));
}

#[test]
fn readiness_gates_are_waited_for() {
    let gate = json!({"readinessGates": [{"conditionType": "example.com/up"}]});
    check(
        gate.clone(),
        "laid\na runs@0",
        1,
        "Running; init=True; ready=False(ReadinessGatesNotReady); a: runs ready",
    );
    let open = json!({"conditions": [{"type": "example.com/up", "status": "True"}]});
    let pod = view(gate, open);
    assert_eq!(told(&of(&pod, "laid\na runs@0", 1)), "Running; init=True; ready=True; a: runs ready");
}

#[test]
fn a_transition_time_moves_with_its_status_only() {
    let pod = view(json!({}), json!({}));
    let first = of(&pod, "laid\na runs@0", 1);
    let later = view(json!({}), serde_json::to_value(&first).expect("a status"));
    assert_eq!(of(&later, "laid\na runs@0", 9).conditions, first.conditions);
    let worse = of(&later, "laid\na runs@0\na bad readiness", 9);
    let since = find(&worse, "Ready").and_then(|condition| condition.last_transition_time.clone());
    assert_eq!(since, Some(ApiTime(at(9))));
}

#[test]
fn nothing_is_written_where_nothing_differs() {
    let pod = view(json!({}), json!({}));
    let wanted = of(&pod, "laid\na runs@0", 1);
    let base = serde_json::to_value(&wanted).expect("a status");
    assert_eq!(patch(&base, &wanted), None);
    let mut other = base.clone();
    other["conditions"][2]["status"] = json!("False");
    other["message"] = json!("somebody else's");
    let written = patch(&other, &wanted).expect("two things differ");
    assert_eq!(written["status"]["message"], Value::Null);
    assert_eq!(written["status"]["conditions"][2]["status"], "True");
    assert!(written["status"].get("containerStatuses").is_none(), "{written}");
}

#[test]
fn an_address_that_changed_replaces_the_old_one() {
    let pod = view(json!({}), json!({}));
    let wanted = PodStatus { pod_ips: Some(vec![PodIP { ip: "10.0.0.2".into() }]), ..of(&pod, "laid", 1) };
    let base = json!({"podIPs": [{"ip": "10.0.0.1"}]});
    let written = patch(&base, &wanted).expect("it differs");
    assert_eq!(written["status"]["podIPs"], json!([{"$patch": "replace"}, {"ip": "10.0.0.2"}]));
}

#[test]
fn while_its_node_is_doubted_nobody_contradicts_that_a_pod_is_not_ready() {
    let own = |facts: &str| of(&view(json!({}), json!({})), facts, 1);
    let check = |facts: &str, base: Value, wanted: &str| {
        let told = doubted(&own(facts), &json!({"conditions": base}), at(9));
        let ready = find(&told, "Ready").expect("it is told");
        let since = ready.last_transition_time.as_ref().map(|since| since.0.duration_since(at(0)).as_secs());
        let reason = ready.reason.as_deref().unwrap_or("-");
        assert_eq!(format!("{} {reason} {}", ready.status, since.expect("it is told")), wanted);
    };
    let ready =
        |status: &str| json!([{"type": "Ready", "status": status, "lastTransitionTime": at(5).to_string()}]);
    let runs = "laid\na runs@0";
    check(runs, ready("True"), "True - 1");
    check(runs, ready("False"), "False - 5");
    check(runs, json!([]), "False - 9");
    check("laid\na runs@0\na bad readiness", ready("False"), "False ContainersNotReady 1");
}
