//! What the API is told of a pod: a pure function of what is remembered of it.
//!
//! Promises: the same memory gives the same status; a condition's transition time moves only with its status; what
//! others wrote (their conditions) is never touched.

use std::net::IpAddr;

use host::Time;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, PodCondition, PodIP, PodStatus, ResourceRequirements, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use model::{Tree, diagnosis};
use serde_json::json;

use crate::backoff;
use crate::farewell;
use crate::memory::{Clearing, ImageHere, Run, StartTurn, Step};
use crate::plan::{self, Fate, Seen};
use crate::pod::{Member, Role};

/// The fields of a pod's status that the node writes.
const OWNED: [&str; 13] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "qosClass",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "observedGeneration",
];

/// The status of a pod; `before` is the one last told.
pub fn status(seen: &Seen<'_>, node_addresses: &[IpAddr], before: &PodStatus) -> PodStatus {
    let of = |roles: &[Role]| -> Vec<ContainerStatus> {
        seen.pod.with_role(roles).map(|member| container_status(seen, member, before)).collect()
    };
    let (init, main, ephemeral) =
        (of(&[Role::Init, Role::Sidecar]), of(&[Role::Main]), of(&[Role::Ephemeral]));
    let is_over = plan::is_over(seen);
    let phase = phase(seen, &init, &main, is_over);
    let failure = seen.memory.ending.as_ref().and_then(|ending| ending.failure.as_ref());
    let ips: Vec<String> = match seen.pod.is_on_host_network() && seen.memory.sandbox.is_done() {
        true => node_addresses.iter().map(IpAddr::to_string).collect(),
        false => seen.memory.addresses.iter().map(IpAddr::to_string).collect(),
    };
    let hosts: Vec<String> = node_addresses.iter().map(IpAddr::to_string).collect();
    let some = |list: Vec<ContainerStatus>| (!list.is_empty()).then_some(list);
    let mut status = PodStatus {
        phase: Some(phase.into()),
        reason: failure.filter(|_| is_over).map(|failure| failure.reason.clone()),
        message: failure.filter(|_| is_over).map(|failure| failure.message.clone()),
        host_ip: hosts.first().cloned(),
        host_ips: Some(hosts.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: seen.memory.started_at.map(whole),
        qos_class: Some(model::pod::qos_class(&seen.pod.pod).as_str().to_owned()),
        observed_generation: seen.pod.generation(),
        init_container_statuses: some(init),
        container_statuses: some(main),
        ephemeral_container_statuses: some(ephemeral),
        ..PodStatus::default()
    };
    status.conditions = Some(conditions(seen, &status, is_over, before));
    status
}

fn whole(time: Time) -> ApiTime {
    ApiTime(model::time::to_whole_second(time))
}

fn container_status(seen: &Seen<'_>, member: &Member, told: &PodStatus) -> ContainerStatus {
    let container = seen.container(member);
    let last = container.last();
    let waiting = waiting(seen, member);
    let before = container.runs.len().checked_sub(2).and_then(|at| container.runs.get(at));
    let (state, last_state) = match (last, waiting) {
        (Some(run), None) => (state_of(run), before.map(state_of)),
        (Some(run), Some(waiting)) => (waiting, Some(state_of(run))),
        (None, Some(waiting)) => (waiting, None),
        (None, None) => (waits("ContainerCreating", None), None),
    };
    let is_running = state.running.is_some();
    let is_ready = match member.role {
        Role::Init => state.terminated.as_ref().is_some_and(|end| end.exit_code == 0),
        _ => is_running && last.is_some_and(Run::is_ready),
    };
    let allotted = member.container.resources.as_ref().filter(|_| is_running);
    let amounts = amounts(seen, member, told).filter(|_| is_running);
    ContainerStatus {
        name: member.name().to_owned(),
        image: member.image().to_owned(),
        image_id: last.map(|run| run.image_id.clone()).unwrap_or_default(),
        container_id: last.filter(|run| !run.container.id.is_empty()).map(id_of),
        ready: is_ready,
        started: Some(is_running && last.is_some_and(Run::has_started)),
        restart_count: i32::try_from(container.restart_count).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(last_state.unwrap_or_default()),
        allocated_resources: allotted.and_then(|all| all.requests.clone()),
        resources: amounts,
        stop_signal: member.container.lifecycle.as_ref().and_then(|all| all.stop_signal.clone()),
        volume_mounts: mounts(member),
        ..ContainerStatus::default()
    }
}

/// The amounts that a container has: those of its specification once the kernel knows them, those told before till then.
fn amounts(seen: &Seen<'_>, member: &Member, told: &PodStatus) -> Option<ResourceRequirements> {
    let has = seen.container(member).running().and_then(|run| run.resources.as_ref());
    let is_done = has.is_none_or(|has| *has == crate::resources::limits(member, seen.pod));
    let mut all = told.container_statuses.iter().chain(&told.init_container_statuses).flatten();
    let known = all.find(|status| status.name == member.name());
    let all = match known.and_then(|known| known.resources.as_ref()) {
        Some(before) if !is_done => Some(before.clone()),
        _ => member.container.resources.clone(),
    };
    all.filter(|all| all.limits.is_some() || all.requests.is_some())
}

fn mounts(member: &Member) -> Option<Vec<VolumeMountStatus>> {
    let all = member.container.volume_mounts.as_ref()?.iter();
    let told = all.map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|only| *only),
        recursive_read_only: mount.read_only.filter(|only| *only).map(|_| "Disabled".into()),
        ..VolumeMountStatus::default()
    });
    Some(told.collect::<Vec<_>>()).filter(|list| !list.is_empty())
}

fn id_of(run: &Run) -> String {
    format!("kintsugi://{}", run.container.id)
}

fn state_of(run: &Run) -> ContainerState {
    match run.exit() {
        None => ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(whole(run.started_at())) }),
            ..ContainerState::default()
        },
        Some(exit) => ContainerState {
            terminated: Some(ContainerStateTerminated {
                container_id: (!run.container.id.is_empty()).then(|| id_of(run)),
                exit_code: exit.code,
                signal: exit.signal,
                reason: Some(end_reason(run, exit).into()),
                message: (!exit.message.is_empty()).then(|| exit.message.clone()),
                started_at: Some(whole(exit.started_at)),
                finished_at: Some(whole(exit.finished_at)),
            }),
            ..ContainerState::default()
        },
    }
}

fn end_reason(run: &Run, exit: &runtime::Exit) -> &'static str {
    match run.end_reason {
        Some(reason) => reason,
        None if exit.oom_killed => "OOMKilled",
        None if exit.code == 0 => "Completed",
        None => "Error",
    }
}

fn waits(reason: &str, message: Option<String>) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: Some(reason.into()), message }),
        ..ContainerState::default()
    }
}

/// What a container waits for; `None` when it runs, or has ended and that is the latest there is to say.
fn waiting(seen: &Seen<'_>, member: &Member) -> Option<ContainerState> {
    let container = seen.container(member);
    let last = container.last();
    if last.is_some_and(|run| run.is_running()) {
        return None;
    }
    let is_stopping = seen.memory.ending.is_some() || seen.memory.clearing != Clearing::NotYet;
    if last.is_some() && (is_stopping || plan::fate(seen, member) == Fate::Done) {
        return None;
    }
    if let (Some(_), Fate::Wait { wait, .. }) = (last, plan::fate(seen, member)) {
        let place = format!(
            "container={} pod={}_{}({})",
            member.name(),
            seen.pod.name,
            seen.pod.namespace,
            seen.pod.uid
        );
        let message = format!("back-off {} restarting failed {place}", backoff::spell(wait));
        return Some(waits("CrashLoopBackOff", Some(message)));
    }
    if let Some(trouble) = &container.trouble {
        return Some(waits(&trouble.reason, Some(trouble.message.clone())));
    }
    if let Some(waits) = waits_for_image(&container.image, member.image(), seen.now) {
        return Some(waits);
    }
    for (volume, reference) in seen.pod.shown_images(member) {
        let shown = seen.memory.shown_images.get(volume);
        if let Some(waits) = shown.and_then(|shown| waits_for_image(&shown.image, reference, seen.now)) {
            return Some(waits);
        }
    }
    if last.is_some() {
        return None;
    }
    let has_init = seen.pod.with_role(&[Role::Init, Role::Sidecar]).next().is_some();
    let is_early = has_init && !plan::is_initialised(seen);
    let message = (seen.memory.turn == StartTurn::Waiting)
        .then(|| "many pods start on this node at once: waits for its turn".to_owned());
    Some(waits(if is_early { "PodInitializing" } else { "ContainerCreating" }, message))
}

fn waits_for_image(image: &Step<ImageHere>, reference: &str, now: Time) -> Option<ContainerState> {
    let Step::Failed { reason, message, failures, retry_at } = image else { return None };
    let is_fresh = plan::pull_failed_at(*failures, *retry_at) + plan::PULL_ERROR_SHOWN > now;
    if is_fresh || reason != "ErrImagePull" {
        return Some(waits(reason, Some(message.clone())));
    }
    let message = format!("Back-off pulling image {reference:?}: {reason}: {message}");
    Some(waits("ImagePullBackOff", Some(message)))
}

/// The phase, by the rules of the API.
fn phase(seen: &Seen<'_>, init: &[ContainerStatus], main: &[ContainerStatus], is_over: bool) -> &'static str {
    let ended = |status: &ContainerStatus| status.state.as_ref().and_then(|state| state.terminated.clone());
    if is_over {
        let has_failure = seen.memory.ending.as_ref().is_some_and(|ending| ending.failure.is_some());
        let all_well = main.iter().all(|status| ended(status).is_some_and(|end| end.exit_code == 0));
        return if all_well && !has_failure { "Succeeded" } else { "Failed" };
    }
    let runs = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    let ever_ran = |status: &ContainerStatus| {
        let last = status.last_state.as_ref().is_some_and(|state| state.terminated.is_some());
        runs(status) || ended(status).is_some() || last
    };
    let sidecars = init.iter().zip(seen.pod.with_role(&[Role::Init, Role::Sidecar]));
    let has_waiting_init = sidecars.into_iter().any(|(status, member)| match member.role {
        Role::Sidecar => !ever_ran(status) || (runs(status) && status.started != Some(true)),
        _ => !status.ready,
    });
    if has_waiting_init && !plan::is_initialised(seen) {
        return "Pending";
    }
    if main.iter().all(ever_ran) { "Running" } else { "Pending" }
}

fn conditions(seen: &Seen<'_>, status: &PodStatus, is_over: bool, before: &PodStatus) -> Vec<PodCondition> {
    let phase = status.phase.as_deref().unwrap_or("");
    let has_sandbox = matches!(&seen.memory.sandbox, Step::Done(here) if !here.is_lost);
    let ready = containers_ready(seen, status, phase);
    let whole_ready = gates(seen).filter(|_| ready.0).unwrap_or_else(|| ready.clone());
    let told = [
        ("PodReadyToStartContainers", (has_sandbox && !is_over, "", String::new())),
        ("Initialized", initialised(seen, status, phase)),
        ("Ready", whole_ready),
        ("ContainersReady", ready),
        ("PodScheduled", (true, "", String::new())),
    ];
    let silence = seen.memory.silence.clone().map(|why| (PASSING[2], (true, "StorageSilent", why)));
    let failing = plan::tried(seen).filter(|_| seen.memory.ending.is_none() && !is_over);
    let failing = failing.map(|(reason, why)| (PASSING[3], (true, reason, why)));
    let failure = seen.memory.ending.as_ref().and_then(|ending| ending.failure.as_ref());
    let leaving = failure.filter(|failure| failure.reason == farewell::REASON);
    let disrupted =
        leaving.map(|failure| ("DisruptionTarget", (true, "TerminationByKubelet", failure.message.clone())));
    let told = told
        .into_iter()
        .chain(resizing(seen).into_iter().flatten())
        .chain(silence)
        .chain(failing)
        .chain(disrupted);
    let all = told.map(|(kind, (is_true, reason, message))| {
        let value = if is_true { "True" } else { "False" };
        let known = find(before, kind).filter(|known| known.status == value);
        PodCondition {
            type_: kind.into(),
            status: value.into(),
            reason: (!reason.is_empty()).then(|| reason.into()),
            message: (!message.is_empty()).then_some(message),
            last_transition_time: known
                .and_then(|known| known.last_transition_time.clone())
                .or_else(|| Some(whole(seen.now))),
            observed_generation: seen.pod.generation(),
            last_probe_time: None,
        }
    });
    all.collect()
}

/// The conditions that are there only while a change of the pod's amounts is, a silence of its storage, or a container
/// that keeps failing.
const PASSING: [&str; 4] =
    ["PodResizePending", "PodResizeInProgress", diagnosis::STORAGE_SILENT, diagnosis::KEEPS_FAILING];

/// What keeps the pod from having the amounts that it asks for, and whether those it was allotted are being given.
fn resizing(seen: &Seen<'_>) -> [Option<(&'static str, Told)>; 2] {
    if seen.memory.ending.is_some() {
        return [None, None];
    }
    let pending = plan::no_room(seen).map(|why| (true, why.reason, why.message));
    let is_other = |member: &&Member| {
        let run = seen.container(member).running();
        let has = run.and_then(|run| run.resources.as_ref());
        has.is_some_and(|has| *has != crate::resources::limits(member, seen.pod))
    };
    let members: Vec<_> = seen.pod.members.iter().filter(is_other).collect();
    let troubles = members.iter().filter_map(|member| seen.container(member).resize_trouble.as_ref());
    let trouble = troubles.chain(&seen.memory.resize_trouble).next();
    let under_way = (!members.is_empty()).then(|| match trouble {
        Some(trouble) => (true, "Error", trouble.message.clone()),
        None => (true, "", String::new()),
    });
    [pending.map(|told| (PASSING[0], told)), under_way.map(|told| (PASSING[1], told))]
}

fn find<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

type Told = (bool, &'static str, String);

fn containers_ready(seen: &Seen<'_>, status: &PodStatus, phase: &str) -> Told {
    match phase {
        "Succeeded" => return (false, "PodCompleted", String::new()),
        "Failed" => return (false, "PodFailed", String::new()),
        _ => {}
    }
    let all =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let counted =
        all.filter(|status| seen.pod.member(&status.name).is_some_and(|member| member.role != Role::Init));
    let unready: Vec<_> = counted.filter(|status| !status.ready).map(|status| status.name.as_str()).collect();
    if unready.is_empty() {
        return (true, "", String::new());
    }
    (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
}

/// What the readiness gates say; `None` when they let the pod be ready or there are none.
fn gates(seen: &Seen<'_>) -> Option<Told> {
    let status = seen.pod.pod.status.as_ref();
    let mut faults = Vec::new();
    for gate in seen.pod.spec().readiness_gates.iter().flatten() {
        let kind = &gate.condition_type;
        match status.and_then(|status| find(status, kind)) {
            None => {
                faults.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist."))
            }
            Some(known) if known.status != "True" => faults.push(format!(
                "the status of pod readiness gate {kind:?} is not \"True\", but {}",
                known.status
            )),
            Some(_) => {}
        }
    }
    (!faults.is_empty()).then(|| (false, "ReadinessGatesNotReady", faults.join(", ")))
}

fn initialised(seen: &Seen<'_>, status: &PodStatus, phase: &str) -> Told {
    if phase == "Succeeded" {
        return (true, "PodCompleted", String::new());
    }
    if plan::is_initialised(seen) {
        return (true, "", String::new());
    }
    let all = status.init_container_statuses.iter().flatten();
    let incomplete = all.filter(|status| match seen.pod.member(&status.name).map(|member| member.role) {
        Some(Role::Sidecar) => status.started != Some(true),
        _ => !status.ready,
    });
    let names: Vec<_> = incomplete.map(|status| status.name.as_str()).collect();
    if names.is_empty() {
        return (true, "", String::new());
    }
    let message = format!("containers with incomplete status: [{}]", names.join(" "));
    (false, "ContainersNotInitialized", message)
}

/// The status that is told while the node is doubted, over what the API has: who doubts it says that its pods are not
/// ready, and nobody contradicts. What was never told to be ready is not, either.
pub fn doubted(own: &PodStatus, base: &Tree, now: Time) -> PodStatus {
    let mut told = own.clone();
    let known = list(base, "conditions").find(|one| one["type"] == "Ready");
    let is = |status: &str| known.is_some_and(|known| known["status"] == status);
    let mut conditions = told.conditions.iter_mut().flatten();
    let Some(ready) = conditions.find(|one| one.type_ == "Ready" && one.status == "True") else {
        return told;
    };
    if is("True") {
        // Not seen by who doubts yet.
        return told;
    }
    let since = known.filter(|_| is("False")).and_then(|known| known["lastTransitionTime"].as_str());
    let since = since.and_then(|since| since.parse().ok()).map(ApiTime);
    ready.status = "False".into();
    ready.last_transition_time = since.or(Some(whole(now)));
    told
}

/// The strategic merge patch that turns the status `base` into `wanted`; `None` when nothing we own differs.
pub fn patch(base: &Tree, wanted: &PodStatus) -> Option<Tree> {
    let wanted = serde_json::to_value(wanted).unwrap_or_default();
    let mut patch = serde_json::Map::new();
    for key in OWNED {
        let (has, wants) = (base.get(key), wanted.get(key));
        match (has, wants) {
            (has, wants) if has == wants => {}
            (Some(Tree::Null) | None, None) => {}
            (Some(_), None) => {
                patch.insert(key.into(), Tree::Null);
            }
            (has, Some(wants)) => {
                patch.insert(key.into(), replacing(key, has, wants));
            }
        }
    }
    // All of ours, where one differs: so it does not matter whether the list merges or is replaced.
    let has = |tree: &Tree, kind: &str| list(tree, "conditions").any(|condition| condition["type"] == kind);
    let over = PASSING.into_iter().filter(|kind| has(base, kind) && !has(&wanted, kind));
    let over: Vec<Tree> = over.map(|kind| json!({"$patch": "delete", "type": kind})).collect();
    let is_news = list(&wanted, "conditions")
        .any(|condition| !list(base, "conditions").any(|known| is_told(known, condition)));
    if is_news || !over.is_empty() {
        let all: Vec<Tree> = list(&wanted, "conditions").map(with_nulls).chain(over).collect();
        patch.insert("conditions".into(), all.into());
    }
    (!patch.is_empty()).then(|| json!({ "status": patch }))
}

fn list<'a>(tree: &'a Tree, key: &str) -> impl Iterator<Item = &'a Tree> {
    tree.get(key).and_then(Tree::as_array).into_iter().flatten()
}

fn is_told(known: &Tree, wanted: &Tree) -> bool {
    ["type", "status", "reason", "message", "lastTransitionTime", "observedGeneration"]
        .iter()
        .all(|key| known.get(key).filter(|value| **value != "") == wanted.get(key))
}

/// A condition that also takes back what an earlier one of its type said.
fn with_nulls(condition: &Tree) -> Tree {
    let mut condition = condition.clone();
    for key in ["reason", "message"] {
        if condition.get(key).is_none() {
            condition[key] = Tree::Null;
        }
    }
    condition
}

/// Lists that merge by key are replaced as a whole where they held something else.
fn replacing(key: &str, has: Option<&Tree>, wants: &Tree) -> Tree {
    let merges = matches!(key, "podIPs" | "hostIPs");
    let held = has.and_then(Tree::as_array).is_some_and(|list| !list.is_empty());
    match wants.as_array() {
        Some(items) if merges && held => {
            std::iter::once(json!({"$patch": "replace"})).chain(items.iter().cloned()).collect()
        }
        _ => wants.clone(),
    }
}

#[cfg(test)]
mod cases;
