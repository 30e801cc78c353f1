//! What scenarios do: faults of machines and wires, and what users ask for.

use anyhow::{Context, Result, bail};
use client::{Client, ClientError, Deletion, PatchKind};
use jiff::SignedDuration;
use model::{Key, Precondition, Tree};
use serde_json::json;

use super::file::offer;
use super::objects::Wanted;
use crate::cluster::Cluster;
use crate::node::NodeSettings;
use crate::observe::kind_named;
use crate::runtime::{Ailment, Offer};
use crate::wire::Direction;
use crate::words::duration;

/// Something that is done.
#[derive(Debug, Clone)]
pub enum Act {
    /// Cut a node's line, in one direction or both.
    Cut { node: String, out: bool, into: bool },
    /// Heal it.
    Heal(String),
    /// Break the watches of a node.
    DropWatches(String),
    /// Kill, start, pause or resume an agent, or have its node leave.
    Agent { node: String, deed: Deed },
    /// Stop a whole machine where it is, or let it go on.
    Freeze { node: String, begins: bool },
    /// Have the kernel of a machine say that its work waits for processors so much of the time, in percent.
    Press { node: String, percent: u8 },
    /// Give a machine that is switched off for it another disk.
    Wipe(String),
    /// A new machine comes.
    Join(String),
    /// A machine goes for good, and its Node is deleted.
    Leave(String),
    /// Stop a server's process where it is, or let it go on.
    PauseServer { which: Which, begins: bool },
    /// Switch a machine off, on, or both.
    Power { node: String, off: bool, on: bool },
    /// Stop or crash a server, and start it.
    Server { which: Which, stop: bool, crash: bool, start: bool },
    /// Have a second leader beside the first, or end it.
    SecondLeader { begins: bool },
    /// Let the server's disk take so many bytes more.
    Room(u64),
    /// End a container.
    End { pod: String, container: Option<String>, code: i32, signal: Option<i32> },
    /// Kill the monitor of a pod.
    LoseMonitor(String),
    /// Change how a pod's containers fare.
    Afflict { pod: String, ailment: Ailment },
    /// Change what the registry does.
    Image { reference: String, offer: Offer },
    /// Step the wall clock of a node, or of the server.
    Clock { whose: String, by: SignedDuration },
    /// Make or replace objects.
    Apply { head: String, all: Vec<Wanted> },
    /// Patch an object.
    Patch { head: String, key: Key, patch: Tree },
    /// Delete an object.
    Delete { kind: String, name: String, deletion: Deletion },
    /// Evict a pod; it may be that it must be refused.
    Evict { pod: String, is_refused: bool },
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one of this number, from 1 on.
    Number(usize),
    /// The one that runs the loops.
    Leader,
}

impl Which {
    fn place(self, cluster: &Cluster) -> Result<usize> {
        match self {
            Which::Number(number) => number.checked_sub(1).context("servers are counted from 1 on"),
            Which::Leader => cluster.book.look(|sight| cluster.leader(sight)).context("no server leads"),
        }
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Which::Number(1) => f.write_str("server"),
            Which::Number(number) => write!(f, "server {number}"),
            Which::Leader => f.write_str("leader"),
        }
    }
}

/// The server that is meant: the first, unless a number says otherwise.
fn server(words: &[&str]) -> Result<Which> {
    match words {
        [] => Ok(Which::Number(1)),
        [number] => Ok(Which::Number(number.parse().with_context(|| format!("{number:?} is no server"))?)),
        _ => bail!("{words:?} is no server"),
    }
}

/// What is done to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Kill,
    Start,
    Restart,
    Pause,
    Resume,
    Leave,
}

impl Act {
    /// Reads an act.
    pub fn read(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let of_agent = |deed, node: &str| Act::Agent { node: node.to_owned(), deed };
        Ok(match words[..] {
            ["cut", node] => Act::Cut { node: node.into(), out: true, into: true },
            ["cut", node, "out"] => Act::Cut { node: node.into(), out: true, into: false },
            ["cut", node, "in"] => Act::Cut { node: node.into(), out: false, into: true },
            ["heal", node] => Act::Heal(node.into()),
            ["drop", "watches", node] => Act::DropWatches(node.into()),
            ["kill", "agent", node] => of_agent(Deed::Kill, node),
            ["start", "agent", node] => of_agent(Deed::Start, node),
            ["restart", "agent", node] => of_agent(Deed::Restart, node),
            ["leave", "agent", node] => of_agent(Deed::Leave, node),
            ["pause", "agent", node] => of_agent(Deed::Pause, node),
            ["resume", "agent", node] => of_agent(Deed::Resume, node),
            ["freeze", node] => Act::Freeze { node: node.into(), begins: true },
            ["thaw", node] => Act::Freeze { node: node.into(), begins: false },
            ["press", node, percent] => {
                let percent = percent.parse().with_context(|| format!("{percent:?} is no percentage"))?;
                Act::Press { node: node.into(), percent }
            }
            ["wipe", node] => Act::Wipe(node.into()),
            ["join", node] => Act::Join(node.into()),
            ["leave", node] => Act::Leave(node.into()),
            ["pause", "leader"] => Act::PauseServer { which: Which::Leader, begins: true },
            ["pause", "server", ref which @ ..] => Act::PauseServer { which: server(which)?, begins: true },
            ["resume", "server", ref which @ ..] => Act::PauseServer { which: server(which)?, begins: false },
            ["power", "off", node] => Act::Power { node: node.into(), off: true, on: false },
            ["power", "on", node] => Act::Power { node: node.into(), off: false, on: true },
            ["reboot", node] => Act::Power { node: node.into(), off: true, on: true },
            ["kill", "leader"] => {
                Act::Server { which: Which::Leader, stop: true, crash: false, start: false }
            }
            ["stop", "server", ref which @ ..] => {
                Act::Server { which: server(which)?, stop: true, crash: false, start: false }
            }
            ["crash", "server", ref which @ ..] => {
                Act::Server { which: server(which)?, stop: true, crash: true, start: false }
            }
            ["start", "server", ref which @ ..] => {
                Act::Server { which: server(which)?, stop: false, crash: false, start: true }
            }
            ["restart", "server", ref which @ ..] => {
                Act::Server { which: server(which)?, stop: true, crash: false, start: true }
            }
            ["begin", "second", "leader"] => Act::SecondLeader { begins: true },
            ["end", "second", "leader"] => Act::SecondLeader { begins: false },
            ["fill", "disk"] => Act::Room(0),
            ["free", "disk"] => Act::Room(u64::MAX),
            ["kill", "container", at] => end(at, 137, Some(9)),
            ["exit", at, code] => {
                end(at, code.parse().with_context(|| format!("{code:?} is no exit code"))?, None)
            }
            ["lose", "monitor", pod] => Act::LoseMonitor(pod.into()),
            ["make", pod, how] => Act::Afflict { pod: pod.into(), ailment: ailment(how)? },
            ["offer", reference, how] => Act::Image { reference: reference.into(), offer: offer(how)? },
            ["step", "clock", whose, by] => Act::Clock { whose: whose.into(), by: step(by)? },
            ["scale", kind, name, count] => {
                let count: u32 = count.parse().with_context(|| format!("{count:?} is no count"))?;
                Act::patch(&format!("{kind} {name}"), json!({"spec": {"replicas": count}}))?
            }
            ["delete", kind, name] => {
                Act::Delete { kind: kind.into(), name: name.into(), deletion: Deletion::default() }
            }
            ["delete", kind, name, "by", "force"] => {
                let deletion = Deletion { grace_seconds: Some(0), ..Deletion::default() };
                Act::Delete { kind: kind.into(), name: name.into(), deletion }
            }
            ["evict", pod] => Act::Evict { pod: pod.into(), is_refused: false },
            ["evict", pod, "is", "refused"] => Act::Evict { pod: pod.into(), is_refused: true },
            _ => bail!("{text:?} is nothing that can be done"),
        })
    }

    /// A patch of the object of `kind name`.
    pub fn patch(head: &str, patch: Tree) -> Result<Self> {
        let (kind, name) = head.split_once(' ').with_context(|| format!("{head:?} is no kind and name"))?;
        Ok(Act::Patch { head: head.to_owned(), key: key_of(kind, name)?, patch })
    }

    /// Does it.
    pub async fn perform(&self, cluster: &mut Cluster) -> Result<()> {
        if let Some(what) = self.is_fault() {
            cluster.book.happened(what);
        }
        match self {
            Act::Cut { node, out, into } => {
                let line = &cluster.node(node)?.line;
                let both = [(*out, Direction::Out), (*into, Direction::In)];
                both.iter().filter(|(is, _)| *is).for_each(|(_, direction)| line.cut(*direction));
            }
            Act::Heal(node) => cluster.node(node)?.line.heal(),
            Act::DropWatches(node) => cluster.node(node)?.line.drop_watches(),
            Act::Agent { node, deed } => treat(cluster, node, *deed)?,
            Act::Freeze { node, begins: true } => cluster.node(node)?.freeze(),
            Act::Freeze { node, .. } => cluster.node(node)?.thaw(),
            Act::Press { node, percent } => cluster.node(node)?.press(*percent)?,
            Act::Wipe(node) => cluster.node(node)?.wipe(),
            Act::Join(node) => cluster.join(node, NodeSettings::default()),
            Act::Leave(node) => {
                cluster.leave(node)?;
                delete(cluster, "node", node, &Deletion::default()).await?;
            }
            Act::PauseServer { which, begins: true } => cluster.pause_server(which.place(cluster)?),
            Act::PauseServer { which, .. } => cluster.resume_server(which.place(cluster)?),
            Act::Power { node, off, on } => {
                let node = cluster.node(node)?;
                if *off {
                    node.power_off();
                }
                if *on {
                    node.power_on();
                }
            }
            Act::Server { which, stop, crash, start } => {
                let at = which.place(cluster)?;
                match (stop, crash) {
                    (_, true) => cluster.crash_server(at).await,
                    (true, false) => cluster.stop_server(at).await,
                    (false, false) => {}
                }
                if *start {
                    cluster.start_server(at).await?;
                }
            }
            Act::SecondLeader { begins: true } => cluster.begin_second_leader(),
            Act::SecondLeader { begins: false } => cluster.end_second_leader(),
            Act::Room(bytes) => cluster.set_room(*bytes),
            Act::End { pod, container, code, signal } => {
                if cluster.end_container(pod, container.as_deref(), *code, *signal)? == 0 {
                    bail!("nothing of {pod} runs");
                }
            }
            Act::LoseMonitor(pod) => {
                let (uid, _, node) = cluster.pod(pod)?;
                cluster.node(&node)?.runtime.lose_monitor(&uid);
            }
            Act::Afflict { pod, ailment } => {
                if !cluster.afflict(pod, *ailment)? {
                    bail!("nothing of {pod} runs");
                }
            }
            Act::Image { reference, offer } => cluster.registry.set(reference, *offer),
            Act::Clock { whose, by } if whose == "server" => cluster.host.step_wall_clock(*by),
            Act::Clock { whose, by } => cluster.node(whose)?.step_clock(*by),
            Act::Apply { all, .. } => {
                for wanted in all {
                    apply(&cluster.user, wanted).await?;
                }
            }
            Act::Patch { key, patch, .. } => {
                let none = Precondition::default();
                cluster.user.patch(key, "", PatchKind::Merge, patch, &none).await?;
            }
            Act::Delete { kind, name, deletion } => delete(cluster, kind, name, deletion).await?,
            Act::Evict { pod, is_refused } => evict(cluster, pod, *is_refused).await?,
        }
        Ok(())
    }
}

impl Act {
    /// Which fault of the world it is, if it is one that begins here.
    fn is_fault(&self) -> Option<&'static str> {
        Some(match self {
            Act::Cut { out: true, into: true, .. } => "line cut both ways",
            Act::Cut { out: true, .. } => "line cut outwards",
            Act::Cut { .. } => "line cut inwards",
            Act::DropWatches(_) => "watches dropped",
            Act::Agent { deed: Deed::Kill | Deed::Restart, .. } => "agent killed",
            Act::Agent { deed: Deed::Pause, .. } => "agent paused",
            Act::Power { off: true, .. } => "power cut",
            Act::Freeze { begins: true, .. } => "machine paused",
            Act::Wipe(_) => "disk lost",
            Act::Join(_) => "machine came",
            Act::Leave(_) => "machine left",
            Act::PauseServer { begins: true, .. } => "server paused",
            Act::Server { crash: true, .. } => "server crashed",
            Act::Server { stop: true, .. } => "server restarted",
            Act::SecondLeader { begins: true } => "two leaders",
            Act::Room(0) => "disk full",
            _ => return None,
        })
    }
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Act::Apply { head, .. } => write!(f, "apply {head}"),
            Act::Patch { head, patch, .. } => match &patch["spec"]["replicas"] {
                Tree::Number(count) => write!(f, "scale {head} {count}"),
                _ => write!(f, "patch {head} {patch}"),
            },
            Act::Cut { node, out: true, into: true } => write!(f, "cut {node}"),
            Act::Cut { node, out: true, .. } => write!(f, "cut {node} out"),
            Act::Cut { node, .. } => write!(f, "cut {node} in"),
            Act::Heal(node) => write!(f, "heal {node}"),
            Act::DropWatches(node) => write!(f, "drop watches {node}"),
            Act::Agent { node, deed } => write!(f, "{} agent {node}", format!("{deed:?}").to_lowercase()),
            Act::Freeze { node, begins } => write!(f, "{} {node}", if *begins { "freeze" } else { "thaw" }),
            Act::Press { node, percent } => write!(f, "press {node} {percent}"),
            Act::Wipe(node) => write!(f, "wipe {node}"),
            Act::Join(node) => write!(f, "join {node}"),
            Act::Leave(node) => write!(f, "leave {node}"),
            Act::PauseServer { which, begins: true } => write!(f, "pause {which}"),
            Act::PauseServer { which, .. } => write!(f, "resume {which}"),
            Act::Power { node, off: true, on: true } => write!(f, "reboot {node}"),
            Act::Power { node, off: true, .. } => write!(f, "power off {node}"),
            Act::Power { node, .. } => write!(f, "power on {node}"),
            Act::Server { which, crash: true, .. } => write!(f, "crash {which}"),
            Act::Server { which, stop: true, start: true, .. } => write!(f, "restart {which}"),
            Act::Server { which: Which::Leader, .. } => write!(f, "kill leader"),
            Act::Server { which, stop: true, .. } => write!(f, "stop {which}"),
            Act::Server { which, .. } => write!(f, "start {which}"),
            Act::SecondLeader { begins: true } => write!(f, "begin second leader"),
            Act::SecondLeader { begins: false } => write!(f, "end second leader"),
            Act::Room(0) => write!(f, "fill disk"),
            Act::Room(_) => write!(f, "free disk"),
            Act::End { pod, signal: Some(_), .. } => write!(f, "kill container {pod}"),
            Act::End { pod, code, .. } => write!(f, "exit {pod} {code}"),
            Act::LoseMonitor(pod) => write!(f, "lose monitor {pod}"),
            Act::Afflict { pod, ailment } => write!(f, "make {pod} {ailment}"),
            Act::Image { reference, offer } => write!(f, "offer {reference} {offer}"),
            Act::Clock { whose, by } => write!(f, "step clock {whose} {}s", by.as_secs()),
            Act::Delete { kind, name, deletion } if deletion.grace_seconds == Some(0) => {
                write!(f, "delete {kind} {name} by force")
            }
            Act::Delete { kind, name, .. } => write!(f, "delete {kind} {name}"),
            Act::Evict { pod, is_refused: false } => write!(f, "evict {pod}"),
            Act::Evict { pod, .. } => write!(f, "evict {pod} is refused"),
        }
    }
}

fn end(at: &str, code: i32, signal: Option<i32>) -> Act {
    let (pod, container) = match at.split_once(':') {
        Some((pod, container)) => (pod, Some(container.to_owned())),
        None => (at, None),
    };
    Act::End { pod: pod.to_owned(), container, code, signal }
}

fn ailment(word: &str) -> Result<Ailment> {
    Ok(match word {
        "well" => Ailment::None,
        "unready" => Ailment::Unready,
        "unhealthy" => Ailment::Unhealthy,
        "deaf" => Ailment::Deaf,
        _ => bail!("{word:?}: a pod is made well, unready, unhealthy or deaf"),
    })
}

fn step(text: &str) -> Result<SignedDuration> {
    let by = SignedDuration::try_from(duration(text.trim_start_matches(['+', '-']))?)?;
    Ok(if text.starts_with('-') { -by } else { by })
}

fn key_of(kind: &str, name: &str) -> Result<Key> {
    let kind = kind_named(kind)?;
    let (namespace, name) = match name.split_once('/') {
        _ if !kind.namespaced => ("", name),
        Some(both) => both,
        None => ("default", name),
    };
    Ok(Key::new(&kind.gvr, namespace, name))
}

fn treat(cluster: &mut Cluster, node: &str, deed: Deed) -> Result<()> {
    let node = cluster.node(node)?;
    match deed {
        Deed::Kill => node.kill_agent(),
        Deed::Start => node.start_agent(),
        Deed::Restart => {
            node.kill_agent();
            node.start_agent();
        }
        Deed::Pause => node.pause(),
        Deed::Resume => node.resume(),
        Deed::Leave => node.leave(),
    }
    Ok(())
}

/// Makes an object, or makes the one that is there be like it.
pub async fn apply(user: &Client, wanted: &Wanted) -> Result<(), ClientError> {
    match user.create(&wanted.gvr, &wanted.namespace, &wanted.object).await {
        Err(ClientError::AlreadyExists { .. }) => {}
        other => return other.map(drop),
    }
    let name = wanted.object["metadata"]["name"].as_str().unwrap_or_default();
    let key = Key::new(&wanted.gvr, wanted.namespace.as_str(), name);
    user.patch(&key, "", PatchKind::Merge, &wanted.object, &Precondition::default()).await.map(drop)
}

async fn delete(cluster: &mut Cluster, kind: &str, name: &str, deletion: &Deletion) -> Result<()> {
    let key = if kind == "pod" {
        let (uid, key, _) = cluster.pod(name)?;
        if deletion.grace_seconds == Some(0) {
            cluster.book.note(|sight| sight.forced.extend([uid]));
        }
        key
    } else {
        key_of(kind, name)?
    };
    cluster.user.delete(&key, deletion).await?;
    Ok(())
}

async fn evict(cluster: &mut Cluster, pod: &str, is_refused: bool) -> Result<()> {
    let (_, key, _) = cluster.pod(pod)?;
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": key.name, "namespace": key.namespace},
    });
    match cluster.user.create_part(&key, "eviction", &eviction).await {
        Err(ClientError::TooManyRequests { .. }) if is_refused => Ok(()),
        Ok(_) if is_refused => bail!("the eviction of {pod} was not refused"),
        other => Ok(other.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_is_told_as_it_is_written() {
        for text in [
            "cut a",
            "cut a out",
            "heal a",
            "kill agent a",
            "pause agent a",
            "leave agent a",
            "freeze a",
            "thaw a",
            "press a 90",
            "wipe a",
            "join d",
            "leave b",
            "pause server",
            "pause leader",
            "kill leader",
            "stop server 2",
            "resume server",
            "reboot b",
            "power off b",
            "crash server",
            "start server",
            "kill container web-1",
            "exit web-1 3",
            "make web-1 unready",
            "delete pod web-1",
            "delete pod web-1 by force",
            "make web-1 well",
            "offer web:1 missing",
            "offer web:1 5s",
            "evict web-1",
            "fill disk",
            "begin second leader",
            "end second leader",
            "free disk",
            "step clock a -3600s",
            "scale deployment web 3",
        ] {
            assert_eq!(Act::read(text).expect(text).to_string(), text);
        }
        assert!(Act::read("dance").is_err());
    }
}
