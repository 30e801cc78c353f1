//! What controllers read of a pod, decoded once for each of its revisions.

use std::sync::Arc;

use model::{Object, Time, time};
use serde::Deserialize;

/// A pod as controllers see it.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The object.
    pub object: Object,
    body: Arc<Body>,
}

/// Whether a pod counts as available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// It does.
    Yes,
    /// It will at this time if it stays ready.
    From(Time),
    /// It is not ready.
    No,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    spec: Spec,
    status: Status,
}

/// What of a pod's spec is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// The node it is bound to; empty before.
    pub node_name: String,
    /// Its own host name, when it asks for one.
    pub hostname: String,
    /// The service that governs its name.
    pub subdomain: String,
    /// Whether it uses its node's network.
    pub host_network: bool,
    /// What it endures.
    pub tolerations: Vec<Toleration>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its containers that come before or beside the others.
    pub init_containers: Vec<Container>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
}

/// What of a volume is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// The claim it stands for.
    pub persistent_volume_claim: Option<ClaimSource>,
    /// A claim made for the pod alone.
    pub ephemeral: Option<serde_json::Value>,
}

/// Which claim a volume stands for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClaimSource {
    /// The claim's name.
    pub claim_name: String,
}

/// One toleration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key; empty with `Exists`: every taint.
    pub key: String,
    /// `Equal` (also when empty) or `Exists`.
    pub operator: String,
    /// The taint's value.
    pub value: String,
    /// The taint's effect; empty: every effect.
    pub effect: String,
    /// For how long; `None`: for ever.
    pub toleration_seconds: Option<i64>,
}

/// One taint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
    /// Since when, for `NoExecute`.
    pub time_added: Option<Time>,
}

impl Toleration {
    /// Whether it endures the taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        let effect = self.effect.is_empty() || self.effect == taint.effect;
        let key = self.key.is_empty() || self.key == taint.key;
        let value = match self.operator.as_str() {
            "" | "Equal" => self.value == taint.value,
            "Exists" => true,
            "Gt" => numbers(&taint.value, &self.value).is_some_and(|(taint, own)| taint > own),
            "Lt" => numbers(&taint.value, &self.value).is_some_and(|(taint, own)| taint < own),
            _ => false,
        };
        effect && key && value
    }
}

fn numbers(one: &str, other: &str) -> Option<(i64, i64)> {
    Some((one.parse().ok()?, other.parse().ok()?))
}

/// What of a container is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    /// Its name.
    pub name: String,
    /// `Always` for a sidecar.
    pub restart_policy: String,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// One port of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its number.
    pub container_port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
}

/// What of a pod's status is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// Its phase; empty before it has one.
    pub phase: String,
    /// Its conditions.
    pub conditions: Vec<Condition>,
    /// Its addresses.
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<Ip>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// How its containers are.
    pub container_statuses: Vec<ContainerStatus>,
    /// How its init containers are.
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// One address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ip {
    /// The address.
    pub ip: String,
}

/// One condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Condition {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why.
    pub message: String,
    /// Since when.
    pub last_transition_time: Option<Time>,
}

/// How a container is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// How often it was started again.
    pub restart_count: i32,
    /// What it does.
    pub state: State,
}

/// What a container does.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct State {
    /// It has ended.
    pub terminated: Option<Terminated>,
}

/// How a container ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Terminated {
    /// Its exit code.
    pub exit_code: i32,
    /// When.
    pub finished_at: Option<Time>,
}

impl Pod {
    /// Reads a pod. One that makes no sense counts as pending: it must never be mistaken for a missing one.
    pub fn read(object: Object) -> Self {
        let body = object.seen().unwrap_or_default();
        Self { object, body }
    }

    /// Reads pods, keeping their order.
    pub fn all(objects: Vec<Object>) -> Vec<Self> {
        objects.into_iter().map(Self::read).collect()
    }

    /// Its spec.
    pub fn spec(&self) -> &Spec {
        &self.body.spec
    }

    /// Its status.
    pub fn status(&self) -> &Status {
        &self.body.status
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.object.name()
    }

    /// The node it is bound to; empty before it is.
    pub fn node(&self) -> &str {
        &self.spec().node_name
    }

    /// Its phase; empty before it has one.
    pub fn phase(&self) -> &str {
        &self.status().phase
    }

    /// A condition by its type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status().conditions.iter().find(|condition| condition.kind == kind)
    }

    /// Whether it answers, says its `Ready` condition.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|ready| ready.status == "True")
    }

    /// Since when it has been ready.
    pub fn ready_since(&self) -> Option<Time> {
        self.condition("Ready").filter(|ready| ready.status == "True")?.last_transition_time
    }

    /// Whether its deletion was asked for.
    pub fn is_ending(&self) -> bool {
        self.object.is_ending()
    }

    /// Whether it has run to its end and will never run again.
    pub fn is_terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Whether it counts among the replicas of its owner: neither over nor going.
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_ending()
    }

    /// Whether it has been ready for so long that it counts as available.
    pub fn availability(&self, min_ready_seconds: i32, now: Time) -> Availability {
        if !self.is_ready() {
            return Availability::No;
        }
        if min_ready_seconds <= 0 {
            return Availability::Yes;
        }
        match self.ready_since() {
            None => Availability::No,
            Some(since) => match time::after_seconds(since, i64::from(min_ready_seconds)) {
                from if from <= now => Availability::Yes,
                from => Availability::From(from),
            },
        }
    }

    /// How often any one of its containers was started again, at most.
    pub fn restarts_max(&self) -> i32 {
        self.status().container_statuses.iter().map(|status| status.restart_count).max().unwrap_or(0)
    }

    /// Its addresses, the first one first.
    pub fn ips(&self) -> Vec<&str> {
        let status = self.status();
        match (status.pod_ips.as_slice(), status.pod_ip.as_str()) {
            ([], "") => Vec::new(),
            ([], one) => vec![one],
            (all, _) => all.iter().map(|ip| ip.ip.as_str()).collect(),
        }
    }
}
