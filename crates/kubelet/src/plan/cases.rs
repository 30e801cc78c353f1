//! What is decided for small worlds: text in, text out.

use std::time::Duration;

use host::Time;
use runtime::{ContainerRef, ContainerState, Exit, Image};
use serde_json::{Value, json};

use super::*;
use crate::memory::{ImageHere, SandboxHere, ShownImage};
use crate::pod::Allotment;
use crate::pod::testing::pod_with;
use crate::probe::{Pace, Tally};

/// The time, so many seconds into a test.
pub fn at(seconds: i64) -> Time {
    Time::from_second(1_000_000 + seconds).expect("a small number is a time")
}

fn number(text: &str) -> i64 {
    text.parse().expect("a test's number")
}

/// A pod of main containers `a b` (unless `spec` says otherwise), and what is remembered of it, one fact a line:
///
/// ```text
/// laid                      sandbox and volumes are there
/// lost                      the sandbox's monitor ended
/// shut                      file systems of its volumes were shut down
/// a starting                it is being started
/// image a                   its image is here
/// shown v                   the image that volume v shows is here
/// unshown v                 that image could not be had
/// whole 300m                the kernel limits the pod's CPU to that
/// a has 200m                and that container's
/// a runs@5                  it runs since second 5
/// a ended@5-7=1             it ran from 5 to 7 and ended with 1
/// a restarts=4              it was restarted four times since it was quiet
/// a failures=6              it failed six times in this sandbox
/// unasked                   the pod has not asked for its turn to start
/// waits                     it waits for it
/// fresh a                   the sandbox was made anew because that container kept failing
/// a bad liveness            a probe is bad
/// a killing=30 stopping     it is being killed until 30, and that far
/// ending@10+30              the pod is being ended since 10, with 30 seconds of grace
/// ```
pub fn world(pod: &PodView, facts: &str) -> PodMemory {
    let mut memory = PodMemory {
        started_at: Some(at(0)),
        epoch: 1,
        allotted: Some(Allotment::new()),
        turn: StartTurn::Given,
        ..PodMemory::default()
    };
    for fact in facts.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = fact.split_whitespace().collect();
        match words.as_slice() {
            ["laid"] => {
                memory.sandbox = Step::Done(SandboxHere::default());
                memory.volumes = Step::Done(());
            }
            ["taken", tries] => {
                let failures = u32::try_from(number(tries)).expect("a count");
                let (reason, message) = (PORTS_TAKEN.to_owned(), String::new());
                memory.sandbox = Step::Failed { reason, message, failures, retry_at: at(1) };
            }
            ["lost"] => {
                memory.sandbox = Step::Done(SandboxHere { is_lost: true, is_shut: false });
                memory.volumes = Step::Done(());
            }
            ["shut"] => {
                memory.sandbox = Step::Done(SandboxHere::default());
                memory.volumes = Step::Done(());
                memory.shut();
            }
            ["fresh", name] => {
                memory.fresh = Some(Fresh { name: (*name).to_owned(), failures: 6 });
            }
            ["renewing"] => memory.is_renewing = true,
            ["unasked"] => memory.turn = StartTurn::NotAsked,
            ["waits"] => memory.turn = StartTurn::Waiting,
            ["removed"] => memory.clearing = Clearing::Removed,
            ["written"] => memory.is_status_written = true,
            ["shown", volume] => {
                let mut all = pod.spec().volumes.iter().flatten();
                let source = all.find(|known| known.name == *volume).and_then(|known| known.image.clone());
                let reference = source.and_then(|source| source.reference).expect("it shows an image");
                let image = Step::Done(ImageHere { reference, image: Image::default() });
                memory.shown_images.insert((*volume).to_owned(), ShownImage { image, failures: 0 });
            }
            ["unshown", volume] => {
                let (reason, message) = ("ErrImagePull".to_owned(), "no such image".to_owned());
                let image = Step::Failed { reason, message, failures: 1, retry_at: at(10) };
                memory.shown_images.insert((*volume).to_owned(), ShownImage { image, failures: 1 });
            }
            ["whole", cpu] => memory.whole = Some(crate::resources::pod_limits(&limited(&[*cpu]))),
            [name, "has", cpu] => {
                let pod = limited(&[*cpu]);
                let has = crate::resources::limits(&pod.members[0], &pod);
                memory.container(name).running_mut().expect("it runs").resources = Some(has);
            }
            ["image", name] => {
                let reference = pod.member(name).expect("it is in the pod").image().to_owned();
                memory.container(name).image = Step::Done(ImageHere { reference, image: Image::default() });
            }
            [ending] if ending.starts_with("ending@") => {
                let (began, grace) = ending[7..].split_once('+').expect("ending@BEGAN+GRACE");
                memory.ending = Some(Ending {
                    failure: None,
                    is_vanished: false,
                    began_at: at(number(began)),
                    grace: Duration::from_secs(number(grace).unsigned_abs()),
                });
            }
            [name, what] => container_fact(pod, &mut memory, name, what),
            [name, "bad", kind] => {
                let kind = match *kind {
                    "liveness" => ProbeKind::Liveness,
                    "startup" => ProbeKind::Startup,
                    _ => ProbeKind::Readiness,
                };
                let run = memory.container(name).running_mut().expect("it runs");
                run.probes.insert(kind, Tally::adopted(Some(false), at(1000)));
            }
            [name, killing, stage] => {
                let deadline = at(number(killing.strip_prefix("killing=").expect("killing=DEADLINE")));
                let stage = match *stage {
                    "asked" => KillStage::Asked,
                    "hook" => KillStage::Hook,
                    "hooked" => KillStage::HookDone,
                    "stopping" => KillStage::Stopping,
                    _ => KillStage::Killed(at(0)),
                };
                memory.container(name).killing = Some(Killing { why: String::new(), stage, deadline });
            }
            _ => panic!("{fact:?} is no fact"),
        }
    }
    memory
}

fn container_fact(pod: &PodView, memory: &mut PodMemory, name: &str, what: &str) {
    let member = pod.member(name).expect("it is in the pod");
    if let Some(count) = what.strip_prefix("restarts=") {
        memory.container(name).restarts.count = u32::try_from(number(count)).expect("a count");
        return;
    }
    if let Some(count) = what.strip_prefix("failures=") {
        memory.container(name).failures_here = u32::try_from(number(count)).expect("a count");
        return;
    }
    if what == "starting" {
        memory.container(name).is_starting = true;
        return;
    }
    let state = if let Some(since) = what.strip_prefix("runs@") {
        ContainerState::Running { started_at: at(number(since)), pid: 1 }
    } else {
        let (time, code) =
            what.strip_prefix("ended@").and_then(|rest| rest.split_once('=')).expect("ended@A-B=CODE");
        let (from, to) = time.split_once('-').expect("ended@A-B=CODE");
        ContainerState::Exited(Exit {
            code: i32::try_from(number(code)).expect("a code"),
            signal: None,
            oom_killed: false,
            started_at: at(number(from)),
            finished_at: at(number(to)),
            message: String::new(),
        })
    };
    let probes = ProbeKind::ALL.into_iter().filter_map(|kind| {
        let pace = Pace::of(kind.of(&member.container)?);
        Some((kind, Tally::new(&pace, at(0))))
    });
    let run = Run {
        container: ContainerRef { pod_uid: "u1".into(), id: name.into() },
        attempt: 0,
        epoch: 1,
        image_id: String::new(),
        hash: member.hash.clone(),
        state,
        end_reason: None,
        post_start: Hook::Done,
        probes: probes.collect(),
        resources: None,
    };
    memory.container(name).runs.push(run);
}

/// A pod of containers with these limits of CPU.
fn limited(cpu: &[&str]) -> PodView {
    let one = |(name, cpu): (char, &&str)| json!({"name": name.to_string(), "image": "i:1", "resources": {"limits": {"cpu": cpu}, "requests": {"cpu": cpu}}});
    let containers: Vec<Value> = ('a'..='z').zip(cpu).map(one).collect();
    pod_with(json!({}), json!({"restartPolicy": "Always", "containers": containers}), json!({}))
}

fn told(plan: &Decision) -> String {
    let act = |act: &Act| match act {
        Act::End(ending) => format!("end in {:?}", ending.grace),
        Act::Pull { name } => format!("pull {name}"),
        Act::PullShown { volume } => format!("pull for {volume}"),
        Act::Start { name } => format!("start {name}"),
        Act::PostStart { name } => format!("hook {name}"),
        Act::Kill { name, why, grace } => format!("kill {name} in {grace:?} # {why}"),
        Act::PreStop { name, limit } => format!("pre-stop {name} {limit:?}"),
        Act::Stop { name, .. } => format!("stop {name}"),
        Act::KillNow { name } => format!("kill {name} now"),
        Act::Ask { name, kind } => format!("ask {name} {}", kind.word().to_lowercase()),
        Act::ResizeWhole { limits } => format!("pod to {}", limits.cpu_limit_millis.unwrap_or(0)),
        Act::Resize { name } => format!("resize {name}"),
        other => format!("{other:?}"),
    };
    let mut words: Vec<String> = plan.acts.iter().map(act).collect();
    if let Some(wake) = plan.wake_at {
        words.push(format!("wake {}", wake.duration_since(at(0)).as_secs_f64()));
    }
    words.join("; ")
}

fn check_with(meta: Value, spec: Value, facts: &str, now: i64, expected: &str) {
    let mut whole = json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}]});
    if let (Some(all), Some(more)) = (whole.as_object_mut(), spec.as_object()) {
        all.extend(more.clone());
    }
    let pod = pod_with(meta, whole, json!({}));
    let memory = world(&pod, facts);
    let seen =
        Seen { pod: &pod, memory: &memory, curve: &Curve::HEALING, now: at(now), node: Default::default() };
    assert_eq!(told(&decide(&seen)), expected, "{facts}");
    assert_eq!(decide(&seen), decide(&seen), "the same view gives the same plan");
}

fn check(spec: Value, facts: &str, now: i64, expected: &str) {
    check_with(json!({}), spec, facts, now, expected);
}

fn deleted(grace: i64) -> Value {
    json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace})
}

#[test]
fn ground_and_images_are_laid_together() {
    check(json!({}), "", 0, "PrepareVolumes; MakeSandbox; pull a; pull b");
    check(json!({}), "image a", 0, "PrepareVolumes; MakeSandbox; pull b");
}

#[test]
fn a_container_waits_for_the_images_that_its_volumes_show() {
    let mounts = json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/w"}]);
    let spec = json!({
        "containers": [{"name": "a", "image": "i:1", "volumeMounts": mounts}, {"name": "b", "image": "i:1"}],
        "volumes": [{"name": "v", "image": {"reference": "data:1"}}],
    });
    let ground = "laid\nimage a\nimage b\n";
    check(spec.clone(), ground, 0, "pull for v; start b");
    check(spec.clone(), &format!("{ground}shown v"), 0, "start a; start b");
    check(spec, &format!("{ground}unshown v\nb runs@0"), 2, "wake 10");
}

#[test]
fn a_pod_whose_host_ports_stay_taken_fails() {
    let images = "image a\nimage b\n";
    check(json!({}), &format!("{images}taken 2"), 0, "PrepareVolumes; wake 1");
    check(json!({}), &format!("{images}taken 3"), 0, "end in 0ns");
}

#[test]
fn what_has_ground_and_image_starts() {
    check(json!({}), "laid\nimage a\nimage b", 0, "start a; start b");
    check(json!({}), "laid\nimage a\nimage b\na runs@0\nb starting", 1, "");
}

#[test]
fn the_first_start_in_a_sandbox_waits_for_the_pods_turn_and_no_restart_does() {
    let ground = "laid\nimage a\nimage b\n";
    check(json!({}), &format!("{ground}unasked"), 0, "AskTurn");
    check(json!({}), "unasked\nimage a\nimage b", 0, "PrepareVolumes; MakeSandbox");
    check(json!({}), &format!("{ground}waits"), 0, "");
    check(json!({}), &format!("{ground}unasked\na starting"), 0, "start b");
    check(json!({}), &format!("{ground}unasked\nb runs@0\na ended@0-1=1"), 1, "start a");
}

#[test]
fn a_pod_is_up_when_all_of_it_is_ready_or_it_will_not_be() {
    let check = |facts: &str, wanted: bool| {
        let spec = json!({"restartPolicy": "Always", "containers": [
            {"name": "a", "image": "i:1", "readinessProbe": {"tcpSocket": {"port": 80}}}, {"name": "b", "image": "i:1"}]});
        let pod = pod_with(json!({}), spec, json!({}));
        let memory = world(&pod, facts);
        let curve = &Curve::HEALING;
        let seen = Seen { pod: &pod, memory: &memory, curve, now: at(1), node: Default::default() };
        assert_eq!(is_up(&seen), wanted, "{facts}");
    };
    check("laid\nimage a", false);
    check("laid\nb runs@0\na starting", false);
    check("laid\nb runs@0\na runs@0", false);
    check("laid\nb runs@0\na ended@0-1=1", false);
    check("laid\nb ended@0-1=1\na ended@0-1=1", true);
    check("laid\nb runs@0\na runs@0\nending@1+30", true);
}

#[test]
fn a_pod_that_is_as_it_should_be_gives_no_acts() {
    check(json!({}), "laid\na runs@0\nb runs@0", 5, "");
}

#[test]
fn ended_containers_restart_as_the_curve_says() {
    let ground = "laid\nimage a\nb runs@0\n";
    check(json!({}), &format!("{ground}a ended@0-1=1"), 1, "start a");
    check(json!({}), &format!("{ground}a ended@0-1=1\na restarts=5"), 1, "wake 2");
    check(json!({}), &format!("{ground}a ended@0-1=1\na restarts=5"), 2, "start a");
    check(json!({}), &format!("{ground}a ended@0-600=1\na restarts=50"), 600, "start a");
}

#[test]
fn a_pod_that_keeps_failing_gets_a_fresh_sandbox_once_and_never_while_anything_runs_in_it() {
    let alone = json!({"containers": [{"name": "a", "image": "i:1"}]});
    let failing = "laid\nimage a\na ended@0-1=1\na restarts=7\n";
    let renew = r#"RenewSandbox { name: "a" }"#;
    check(alone.clone(), &format!("{failing}a failures=5"), 1, "wake 8");
    check(alone.clone(), &format!("{failing}a failures=6"), 1, renew);
    check(alone.clone(), &format!("{failing}a failures=6"), 8, "start a");
    check(alone.clone(), &format!("{failing}a failures=9\nfresh a"), 1, "wake 8");
    check(json!({}), &format!("{failing}a failures=9\nb runs@0"), 1, "wake 8");
    check(json!({}), &format!("{failing}a failures=9\nb ended@0-1=0\nimage b\nb restarts=7"), 1, renew);
    check(json!({"restartPolicy": "Never"}), &format!("{failing}a failures=9\nb runs@0"), 1, "");
}

#[test]
fn kubernetes_own_curve_keeps_a_sandbox_for_ever() {
    let spec = json!({"restartPolicy": "Always", "containers": [{"name": "a", "image": "i:1"}]});
    let pod = pod_with(json!({}), spec, json!({}));
    let memory = world(&pod, "laid\nimage a\na ended@0-1=1\na restarts=7\na failures=60");
    let curve = &Curve::KUBERNETES;
    let seen = Seen { pod: &pod, memory: &memory, curve, now: at(1), node: Default::default() };
    assert_eq!((told(&decide(&seen)).as_str(), tried(&seen)), ("wake 301", None));
}

#[test]
fn failures_are_counted_by_sandbox_and_forgotten_after_a_quiet_run() {
    let pod = limited(&["1"]);
    let mut memory = world(&pod, "laid\na runs@0\na failures=5\nfresh a");
    let exit = |code: i32, from: i64, to: i64| Exit {
        code,
        signal: None,
        oom_killed: false,
        started_at: at(from),
        finished_at: at(to),
        message: String::new(),
    };
    let mut ends = |code: i32, to: i64| {
        memory.containers.get_mut("a").expect("it is there").runs[0].state =
            ContainerState::Running { started_at: at(0), pid: 1 };
        assert!(memory.exited("a", "a", exit(code, 0, to)));
        let counted = memory.container("a").failures_here;
        (counted, memory.fresh.is_some())
    };
    assert_eq!(ends(1, 9), (6, true));
    assert_eq!(ends(0, 9), (6, true), "it ended well");
    assert_eq!(ends(1, 600), (1, false));
    memory.entered(Vec::new());
    assert_eq!((memory.container("a").failures_here, memory.epoch), (0, 2));
}

#[test]
fn policies_say_what_is_restarted_and_when_all_is_over() {
    let never = json!({"restartPolicy": "Never"});
    check(never.clone(), "laid\nimage a\na ended@0-1=1\nb runs@0", 1, "");
    check(never.clone(), "laid\na ended@0-1=1\nb ended@0-1=0", 1, "Release");
    check(json!({"restartPolicy": "OnFailure"}), "laid\nimage a\na ended@0-1=1\nb ended@0-1=0", 1, "start a");
    check_with(deleted(30), never, "laid\na ended@0-1=1\nb ended@0-1=0\nending@1+30", 1, "Remove");
}

#[test]
fn a_pod_is_not_removed_while_something_of_it_is_being_made() {
    let gone = "laid\na ended@0-1=0\nb ended@0-1=0\nending@1+30\n";
    check_with(deleted(30), json!({}), &format!("{gone}renewing"), 1, "");
    check_with(deleted(30), json!({}), gone, 1, "Remove");
}

#[test]
fn init_containers_go_first_and_one_by_one() {
    let spec = json!({"initContainers": [{"name": "x", "image": "i:1"}, {"name": "y", "image": "i:1"}]});
    let images = "laid\nimage x\nimage y\nimage a\nimage b\n";
    check(spec.clone(), images, 0, "start x");
    check(spec.clone(), &format!("{images}x runs@0"), 0, "");
    check(spec.clone(), &format!("{images}x ended@0-1=0"), 1, "start y");
    check(spec.clone(), &format!("{images}x ended@0-1=0\ny ended@1-2=0"), 2, "start a; start b");
    let never = json!({"restartPolicy": "Never", "initContainers": [{"name": "x", "image": "i:1"}]});
    check(never, "laid\nx ended@0-1=1", 1, "Release");
}

#[test]
fn a_sidecar_must_have_come_up_before_the_rest_and_ends_after_it() {
    let sidecar = json!({"name": "s", "image": "i:1", "restartPolicy": "Always",
        "startupProbe": {"exec": {"command": ["x"]}}});
    let spec = json!({"restartPolicy": "Never", "initContainers": [sidecar]});
    check(spec.clone(), "laid\nimage s\nimage a\nimage b", 0, "start s");
    check(spec.clone(), "laid\nimage a\nimage b\ns runs@0", 0, "ask s startup");
    check(
        spec.clone(),
        "laid\ns runs@0\na ended@0-1=0\nb ended@0-1=0",
        1,
        "kill s in 30s # Stopping container s",
    );
    check(
        spec,
        "laid\ns runs@0\na runs@0\nb ended@0-1=0\nending@1+30\na killing=31 stopping",
        1,
        "ask s startup; wake 31",
    );
}

#[test]
fn a_bad_liveness_probe_kills_and_its_own_grace_holds() {
    let probe = json!({"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 3});
    let spec = json!({"containers": [{"name": "a", "image": "i:1", "livenessProbe": probe}]});
    check(
        spec,
        "laid\na runs@0\na bad liveness",
        9,
        "kill a in 3s # Container a failed liveness probe, will be restarted",
    );
}

#[test]
fn startup_gates_the_other_probes() {
    let probe = json!({"exec": {"command": ["x"]}});
    let spec = json!({"containers": [{"name": "a", "image": "i:1", "readinessProbe": probe, "startupProbe": probe}]});
    check(spec, "laid\na runs@0", 0, "ask a startup");
}

#[test]
fn deletion_stops_asks_waits_and_kills() {
    let hook = json!({"preStop": {"exec": {"command": ["x"]}}});
    let spec = json!({"containers": [{"name": "a", "image": "i:1", "lifecycle": hook}]});
    let meta = || deleted(10);
    check_with(meta(), spec.clone(), "laid\na runs@0", 20, "end in 10s");
    check_with(
        meta(),
        spec.clone(),
        "laid\na runs@0\nending@20+10",
        20,
        "kill a in 10s # Stopping container a",
    );
    check_with(
        meta(),
        spec.clone(),
        "laid\na runs@0\nending@20+10\na killing=30 asked",
        20,
        "pre-stop a 10s",
    );
    check_with(meta(), spec.clone(), "laid\na runs@0\nending@20+10\na killing=30 hook", 25, "wake 30");
    check_with(meta(), spec.clone(), "laid\na runs@0\nending@20+10\na killing=30 hook", 30, "stop a");
    check_with(meta(), spec.clone(), "laid\na runs@0\nending@20+10\na killing=32 stopping", 30, "wake 32");
    check_with(meta(), spec.clone(), "laid\na runs@0\nending@20+10\na killing=32 stopping", 32, "kill a now");
    check_with(meta(), spec.clone(), "laid\na ended@0-32=137\nending@20+10", 32, "Remove");
    check_with(meta(), spec.clone(), "laid\na ended@0-32=137\nending@20+10\nremoved", 32, "");
    check_with(meta(), spec, "laid\na ended@0-32=137\nending@20+10\nremoved\nwritten", 32, "DeleteObject");
}

#[test]
fn a_second_deletion_shortens_the_grace() {
    let one = json!({"containers": [{"name": "a", "image": "i:1"}]});
    check_with(deleted(2), one.clone(), "laid\na runs@0\nending@20+30", 21, "end in 2s");
    check_with(deleted(2), one, "laid\na runs@0\nending@20+2\na killing=50 stopping", 22, "kill a now");
}

#[test]
fn the_deadline_of_a_pod_ends_it() {
    let spec = json!({"activeDeadlineSeconds": 5});
    check(spec.clone(), "laid\na runs@0\nb runs@0", 4, "wake 5");
    check(spec, "laid\na runs@0\nb runs@0", 5, "end in 30s");
}

#[test]
fn volumes_that_were_shut_down_are_made_anew_with_the_sandbox() {
    let ended = "shut\nimage a\nimage b\na ended@0-1=137";
    check(json!({}), &format!("{ended}\nb ended@0-1=137"), 1, "TakeDown");
    check(json!({}), &format!("{ended}\nb starting"), 1, "");
    check(json!({"restartPolicy": "Never"}), "shut\na ended@0-1=137\nb ended@0-1=137", 1, "Release");
}

#[test]
fn a_lost_sandbox_is_made_anew_unless_nothing_is_to_restart() {
    check(json!({}), "lost\nimage a\nimage b\na ended@0-1=137\nb ended@0-1=137", 1, "DropSandbox");
    check(json!({"restartPolicy": "Never"}), "lost\na ended@0-1=137\nb ended@0-1=137", 1, "Release");
}

#[test]
fn nothing_is_cleared_while_it_is_being_made() {
    let pod = pod_with(deleted(0), json!({"containers": [{"name": "a", "image": "i:1"}]}), json!({}));
    let mut memory = world(&pod, "ending@0+0");
    memory.sandbox = Step::Working;
    let seen =
        Seen { pod: &pod, memory: &memory, curve: &Curve::HEALING, now: at(0), node: Default::default() };
    assert_eq!(told(&decide(&seen)), "");
}

#[test]
fn a_changed_image_restarts_the_container_in_place_once_the_change_has_rested() {
    let spec = json!({"containers": [{"name": "a", "image": "i:1"}]});
    let pod = pod_with(json!({}), spec, json!({}));
    let mut memory = world(&pod, "laid\nimage a\na runs@0");
    memory.container("a").runs[0].hash = "other".into();
    let kill = "kill a in 30s # Container a definition changed, will be restarted";
    for (changed_at, expected) in [(None, kill), (Some(at(9)), kill), (Some(at(10)), "wake 10.25")] {
        memory.changed_at = changed_at;
        let seen = Seen {
            pod: &pod,
            memory: &memory,
            curve: &Curve::HEALING,
            now: at(10),
            node: Default::default(),
        };
        assert_eq!(told(&decide(&seen)), expected);
    }
}

fn check_amounts(asked: &[&str], allotted: &[&str], facts: &str, taken: u64, expected: &str) {
    let mut pod = limited(asked);
    let mut memory = world(&pod, &format!("laid\na runs@0\nb runs@0\n{facts}"));
    let before = limited(allotted).asked;
    pod.allot(&before);
    memory.allotted = Some(before);
    let all = Allocatable { cpu_millis: 2000, memory: 8 << 30, ..Allocatable::default() };
    let node = (all, Taken { cpu_millis: taken, memory: 0 });
    let seen = Seen { pod: &pod, memory: &memory, curve: &Curve::HEALING, now: at(0), node };
    let said = no_room(&seen).map(|why| format!(" # {}", why.reason)).unwrap_or_default();
    assert_eq!(told(&decide(&seen)) + &said, expected, "{facts}");
}

#[test]
fn amounts_change_where_there_is_room_the_pod_first_where_it_grows_and_last_where_it_shrinks() {
    let before = ["200m", "100m"];
    check_amounts(&before, &before, "whole 300m\na has 200m\nb has 100m", 0, "");
    let more = ["500m", "100m"];
    check_amounts(&more, &before, "whole 300m\na has 200m\nb has 100m", 0, "Allot");
    check_amounts(&more, &before, "whole 300m\na has 200m\nb has 100m", 1800, "wake 3 # Deferred");
    let most = ["2500m", "100m"];
    check_amounts(&most, &before, "whole 300m\na has 200m\nb has 100m", 0, "wake 3 # Infeasible");
    check_amounts(&more, &more, "whole 300m\na has 200m\nb has 100m", 0, "pod to 600");
    check_amounts(&more, &more, "whole 600m\na has 200m\nb has 100m", 0, "resize a");
    let less = ["50m", "100m"];
    check_amounts(&less, &less, "whole 300m\na has 200m\nb has 100m", 0, "resize a");
    check_amounts(&less, &less, "whole 300m\na has 50m\nb has 100m", 0, "pod to 150");
}

#[test]
fn a_container_whose_policy_says_so_is_made_anew_for_other_amounts() {
    let container = json!({"name": "a", "image": "i:1", "resources": {"limits": {"cpu": "500m"}},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]});
    let spec = json!({"containers": [container]});
    check(spec.clone(), "laid\na runs@0\na has 500m", 1, "");
    check(spec, "laid\na runs@0\na has 200m", 1, "kill a in 30s # Container a resize requires restart");
}
