//! A pod: containers that live and die together on one node. What its containers may be stands in `pod_spec`.

use serde::Deserialize;
use serde_json::json;

use super::table::{column, or_none, wide};
use super::{Column, Faults, Kind, Part, of, pod_spec};
use crate::tree::{flag, is_set, is_there, items, text, whole};
use crate::{Time, Tree, time, tree};

/// What the house knows of `v1` Pod.
pub static KIND: Kind = Kind::new(of::POD, "Pod", "pod", "io.k8s.api.core.v1.Pod")
    .short(&["po"])
    .categories(&["all"])
    .namespaced()
    .parts(&[
        Part::Other { name: "attach", kind: ("", "v1", "PodAttachOptions"), verbs: &["create", "get"] },
        Part::Other { name: "binding", kind: ("", "v1", "Binding"), verbs: &["create"] },
        Part::Other {
            name: "ephemeralcontainers",
            kind: ("", "v1", "Pod"),
            verbs: &["get", "patch", "update"],
        },
        Part::Other { name: "eviction", kind: ("policy", "v1", "Eviction"), verbs: &["create"] },
        Part::Other { name: "exec", kind: ("", "v1", "PodExecOptions"), verbs: &["create", "get"] },
        Part::Other { name: "log", kind: ("", "v1", "Pod"), verbs: &["get"] },
        Part::Other {
            name: "portforward",
            kind: ("", "v1", "PodPortForwardOptions"),
            verbs: &["create", "get"],
        },
        Part::Other {
            name: "proxy",
            kind: ("", "v1", "PodProxyOptions"),
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Part::Other { name: "resize", kind: ("", "v1", "Pod"), verbs: &["get", "patch", "update"] },
        Part::Status,
    ])
    .columns(COLUMNS)
    .fields(&[
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ])
    .filling(fill)
    .checking(check)
    .changing(change)
    .beginning(first)
    .counts();

const COLUMNS: &[Column] = &[
    column("Ready", |object, _| ready(object)),
    column("Status", |object, _| status(object)),
    column("Restarts", restarts),
    wide("IP", |object, _| address(object)),
    wide("Node", |object, _| or_none(object, "spec.nodeName")),
    wide("Nominated Node", |object, _| or_none(object, "status.nominatedNodeName")),
    wide("Readiness Gates", |object, _| gates(object)),
];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    pod_spec::fill(spec);
    pod_spec::fill_pod_alone(spec);
    set_qos_class(object);
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"phase": "Pending"}));
}

/// The class of its claim to resources, which its status tells from the first on.
fn set_qos_class(object: &mut Tree) {
    if !is_set(object, "status.phase") || is_set(object, "status.qosClass") {
        return;
    }
    let class = crate::pod::Claim::deserialize(&object["spec"]).map(|claim| claim.class());
    if let (Ok(class), Some(status)) = (class, tree::object(object, "status")) {
        tree::fill(status, "qosClass", class.as_str());
    }
}

/// Tells the class of its claim anew: what the pod asks for has changed since.
pub fn renew_qos_class(object: &mut Tree) {
    if let Some(status) = tree::object(object, "status") {
        tree::remove(status, "qosClass");
        set_qos_class(object);
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    pod_spec::check(&object["spec"], "spec", pod_spec::Place::Pod, faults);
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    pod_spec::change(&old["spec"], &new["spec"], faults);
}

fn ready(object: &Tree) -> Tree {
    let total = items(object, "spec.containers").len() + sidecars(object).count();
    format!("{}/{total}", Shown::of(object).ready).into()
}

fn status(object: &Tree) -> Tree {
    Shown::of(object).state.into()
}

fn restarts(object: &Tree, now: Time) -> Tree {
    let shown = Shown::of(object);
    match shown.last_restart {
        Some(at) if shown.restarts > 0 => format!("{} ({} ago)", shown.restarts, time::age(at, now)).into(),
        _ => shown.restarts.to_string().into(),
    }
}

fn address(object: &Tree) -> Tree {
    let first = items(object, "status.podIPs").first().map(|entry| text(entry, "ip"));
    match first.unwrap_or_else(|| text(object, "status.podIP")) {
        "" => "<none>".into(),
        address => address.into(),
    }
}

fn gates(object: &Tree) -> Tree {
    let gates = items(object, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| has(object, text(gate, "conditionType"))).count();
    format!("{open}/{}", gates.len()).into()
}

fn has(object: &Tree, condition: &str) -> bool {
    let conditions = items(object, "status.conditions");
    conditions.iter().any(|known| text(known, "type") == condition && text(known, "status") == "True")
}

fn sidecars(object: &Tree) -> impl Iterator<Item = &str> {
    let inits = items(object, "spec.initContainers").iter();
    inits.filter(|init| text(init, "restartPolicy") == "Always").map(|init| text(init, "name"))
}

/// What a row shows of a pod's containers.
#[derive(Default)]
struct Shown {
    state: String,
    ready: usize,
    restarts: i64,
    last_restart: Option<Time>,
}

impl Shown {
    fn of(object: &Tree) -> Self {
        let phase = text(object, "status.phase");
        let reason = text(object, "status.reason");
        let mut shown =
            Self { state: if reason.is_empty() { phase } else { reason }.to_owned(), ..Self::default() };
        let gated = items(object, "status.conditions").iter().any(|condition| {
            text(condition, "type") == "PodScheduled" && text(condition, "reason") == "SchedulingGated"
        });
        if gated {
            shown.state = "SchedulingGated".into();
        }
        let (starting, of_sidecars) = shown.count_inits(object);
        if !starting || has(object, "Initialized") {
            (shown.restarts, shown.last_restart) = of_sidecars;
            shown.count_containers(object);
        }
        if is_set(object, "metadata.deletionTimestamp") {
            match (reason, phase) {
                ("NodeLost", _) => shown.state = "Unknown".into(),
                (_, "Succeeded" | "Failed") => {}
                _ => shown.state = "Terminating".into(),
            }
        }
        shown
    }

    /// Whether init containers still hold the pod up; and the restarts of its sidecars.
    fn count_inits(&mut self, object: &Tree) -> (bool, (i64, Option<Time>)) {
        let mut of_sidecars = (0, None);
        for (index, container) in items(object, "status.initContainerStatuses").iter().enumerate() {
            let restarts = whole(container, "restartCount").unwrap_or(0);
            self.restarts += restarts;
            self.last_restart = self.last_restart.max(last_end(container));
            let sidecar = sidecars(object).any(|name| name == text(container, "name"));
            if sidecar {
                of_sidecars.0 += restarts;
                of_sidecars.1 = of_sidecars.1.max(last_end(container));
            }
            let state = &container["state"];
            let ended = is_there(state, "terminated");
            if ended && whole(state, "terminated.exitCode").unwrap_or(0) == 0 {
                continue;
            }
            if sidecar && flag(container, "started") {
                self.ready += usize::from(flag(container, "ready"));
                continue;
            }
            self.state = match text(state, "waiting.reason") {
                _ if ended => format!("Init:{}", end(&state["terminated"])),
                "" | "PodInitializing" => {
                    format!("Init:{index}/{}", items(object, "spec.initContainers").len())
                }
                reason => format!("Init:{reason}"),
            };
            return (true, of_sidecars);
        }
        (false, of_sidecars)
    }

    fn count_containers(&mut self, object: &Tree) {
        let (mut running, mut error) = (false, None);
        for container in items(object, "status.containerStatuses").iter().rev() {
            self.restarts += whole(container, "restartCount").unwrap_or(0);
            self.last_restart = self.last_restart.max(last_end(container));
            let state = &container["state"];
            if is_set(state, "waiting.reason") {
                self.state = text(state, "waiting.reason").to_owned();
            } else if is_there(state, "terminated") {
                self.state = end(&state["terminated"]);
                if whole(state, "terminated.exitCode").unwrap_or(0) != 0 {
                    error = Some(self.state.clone());
                }
            } else if flag(container, "ready") && is_there(state, "running") {
                running = true;
                self.ready += 1;
            }
        }
        if self.state == "Completed" {
            self.state = match error {
                _ if running && has(object, "Ready") => "Running".into(),
                Some(error) => error,
                None if running => "NotReady".into(),
                None => "Completed".into(),
            };
        }
    }
}

/// How a container ended, in a word.
fn end(terminated: &Tree) -> String {
    match (text(terminated, "reason"), whole(terminated, "signal").unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", whole(terminated, "exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn last_end(container: &Tree) -> Option<Time> {
    time::parse(text(container, "lastState.terminated.finishedAt")).ok()
}
