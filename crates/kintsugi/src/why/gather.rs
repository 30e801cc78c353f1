//! Reads what the story of an object needs: itself, its pods, their revisions, its repairs and its events.

use anyhow::{Context, Result};
use bytes::Bytes;
use client::{Client, ClientError, Select};
use http::Method;
use model::diagnosis::{Diagnosis, Seen, diagnose, is_of, is_well, newest_first, revision_of};
use model::kinds::{Kind, of};
use model::repair::{CLUSTER_NAMESPACE, REPAIRS};
use model::tree::{at, items, text};
use model::{Gvr, Key, Tree};

use super::story::Told;

/// How many failing pods of a workload are looked into; they mostly share their cause.
const PODS_MAX: usize = 3;

/// How many of the last lines of a container's log are read.
const LINES: &str = "8";

/// Reads all that is to be told.
pub async fn gather(client: &Client, kind: &'static Kind, namespace: &str, name: &str) -> Result<Told> {
    let namespace = if kind.namespaced { namespace } else { "" };
    let subject = match client.get(&Key::new(&kind.gvr, namespace, name)).await {
        Ok(object) => Some(object.tree()?),
        Err(ClientError::NotFound { .. }) => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}/{name}", kind.singular)),
    };
    let pods = match (&subject, kind.kind) {
        (Some(pod), "Pod") => vec![pod.clone()],
        (Some(owner), _) if kind.namespaced => pods_of(client, owner, namespace).await?,
        _ => Vec::new(),
    };
    let mut diagnoses = Vec::new();
    for pod in pods.iter().filter(|pod| !is_well(pod)).take(PODS_MAX) {
        diagnoses.push((text(pod, "metadata.name").to_owned(), diagnosis(client, pod).await?));
    }
    let names: Vec<&str> = pods.iter().map(|pod| text(pod, "metadata.name")).collect();
    let home = if kind.namespaced { namespace } else { CLUSTER_NAMESPACE };
    let repairs = list(client, &REPAIRS, home).await?;
    let about = |repair: &Tree| {
        let subject = at(repair, "spec.subject");
        (text(subject, "kind") == kind.kind && text(subject, "name") == name)
            || (text(subject, "kind") == "Pod"
                && (names.contains(&text(subject, "name")) || is_kin(repair, name)))
    };
    let events = list(client, &of::EVENT, if kind.namespaced { namespace } else { "default" }).await?;
    let regards = |event: &Tree| {
        let regarding = at(event, "involvedObject");
        (text(regarding, "kind") == kind.kind && text(regarding, "name") == name)
            || (text(regarding, "kind") == "Pod" && names.contains(&text(regarding, "name")))
    };
    Ok(Told {
        kind: kind.kind,
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        pods: pods.len(),
        well: pods.iter().filter(|pod| is_well(pod)).count(),
        diagnoses,
        repairs: repairs.into_iter().filter(about).collect(),
        events: events.into_iter().filter(regards).collect(),
        subject,
    })
}

/// Whether a repair is about a pod that is gone and was made by the workload of a name: their names begin with it.
fn is_kin(repair: &Tree, owner: &str) -> bool {
    let name = text(repair, "spec.subject.name");
    name.strip_prefix(owner).is_some_and(|rest| rest.starts_with('-'))
}

async fn list(client: &Client, gvr: &Gvr, namespace: &str) -> Result<Vec<Tree>> {
    let (objects, _) = client.list(gvr, namespace, &Select::all()).await?;
    Ok(objects.iter().filter_map(|object| object.tree().ok()).collect())
}

/// The pods that a workload has made, through its ReplicaSets or Jobs where it has such.
async fn pods_of(client: &Client, owner: &Tree, namespace: &str) -> Result<Vec<Tree>> {
    let mut makers = vec![text(owner, "metadata.uid").to_owned()];
    let between = match text(owner, "kind") {
        "Deployment" => Some(of::REPLICA_SET),
        "CronJob" => Some(of::JOB),
        _ => None,
    };
    if let Some(gvr) = between {
        let all = list(client, &gvr, namespace).await?;
        let own = all.iter().filter(|one| is_of(one, &makers[0]));
        let uids: Vec<String> = own.map(|one| text(one, "metadata.uid").to_owned()).collect();
        makers.extend(uids);
    }
    let mut pods = list(client, &of::POD, namespace).await?;
    pods.retain(|pod| makers.iter().any(|uid| is_of(pod, uid)));
    Ok(pods)
}

/// What is known of a failing pod, with all that can be had as evidence.
async fn diagnosis(client: &Client, pod: &Tree) -> Result<Diagnosis> {
    let namespace = text(pod, "metadata.namespace");
    let (revisions, peers) = family(client, pod, namespace).await?;
    let node = match text(pod, "spec.nodeName") {
        "" => None,
        name => client.get(&Key::new(&of::NODE, "", name)).await.ok().and_then(|node| node.tree().ok()),
    };
    let words = last_words(client, pod).await;
    let (node, last_words) = (node.as_ref(), words.as_deref());
    Ok(diagnose(&Seen { pod, peers: &peers, revisions: &revisions, node, last_words }))
}

/// The revisions of what owns a pod, the newest first, and the other pods of all of them.
async fn family(client: &Client, pod: &Tree, namespace: &str) -> Result<(Vec<Tree>, Vec<Tree>)> {
    let owners = items(pod, "metadata.ownerReferences");
    let Some(owner) = owners.iter().find(|owner| at(owner, "controller").as_bool() == Some(true)) else {
        return Ok((Vec::new(), Vec::new()));
    };
    let uid = text(owner, "uid");
    let (mut makers, revisions) = match text(owner, "kind") {
        "ReplicaSet" => {
            let sets = list(client, &of::REPLICA_SET, namespace).await?;
            let own = sets.iter().find(|set| text(set, "metadata.uid") == uid);
            let deployment = own.and_then(|set| items(set, "metadata.ownerReferences").first());
            let deployment = deployment.map(|owner| text(owner, "uid").to_owned());
            let of_it = |set: &Tree| deployment.as_ref().is_some_and(|uid| is_of(set, uid));
            let revisions: Vec<Tree> = sets.into_iter().filter(of_it).collect();
            (revisions.iter().map(|set| text(set, "metadata.uid").to_owned()).collect(), revisions)
        }
        "StatefulSet" | "DaemonSet" => {
            let all = list(client, &of::CONTROLLER_REVISION, namespace).await?;
            (Vec::new(), all.into_iter().filter(|one| is_of(one, uid)).collect())
        }
        _ => (Vec::new(), Vec::new()),
    };
    makers.push(uid.to_owned());
    let mut peers = list(client, &of::POD, namespace).await?;
    let own = text(pod, "metadata.uid");
    peers.retain(|peer| text(peer, "metadata.uid") != own && makers.iter().any(|uid| is_of(peer, uid)));
    Ok((newest_first(revisions).into_iter().filter(|one| !revision_of(one).is_empty()).collect(), peers))
}

/// The last lines of the container that failed; of its run before when it runs or waits to run again.
async fn last_words(client: &Client, pod: &Tree) -> Option<String> {
    let statuses =
        items(pod, "status.initContainerStatuses").iter().chain(items(pod, "status.containerStatuses"));
    let failed = |status: &&Tree| {
        let end = |which: &str| at(status, which).get("exitCode").is_some();
        end("state.terminated") || end("lastState.terminated")
    };
    let status = statuses.into_iter().find(failed)?;
    let previous = at(status, "state.terminated").get("exitCode").is_none();
    let key = Key::new(&of::POD, text(pod, "metadata.namespace"), text(pod, "metadata.name"));
    let container = text(status, "name");
    let uri = format!("{}/log?container={container}&previous={previous}&tailLines={LINES}", key.path());
    let request = client.request(Method::GET, uri, None, Bytes::new()).ok()?;
    // A log that is gone with its node is no reason to tell nothing.
    let words = client.call(request).await.ok()?;
    Some(plain(&String::from_utf8_lossy(&words)))
}

/// Without the control characters with which a log could play tricks on a terminal.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}
