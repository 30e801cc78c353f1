//! Gives volumes of drivers to pods, and takes them back: staged once, published for each pod, and undone in reverse.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::{ClientError, PatchKind};
use k8s_openapi::api::core::v1::Secret;
use model::kinds as gvr;
use model::storage;
use model::{Key, Object, Precondition, Quantity, Tree, World, time};
use serde_json::json;

use super::VolumeId;
use super::driver::{Ability, Driver};
use super::messages::{CapacityRange, Empty, Expand, Expanded, Undo};
use super::records::{self, Record};
use super::renew::{is_fenced, renew};
use super::wish::{Context, Terms, Wish, text};
use crate::agent::Agent;
use crate::backoff;
use crate::jobs::spelled;
use crate::places::Root;
use crate::pod::PodView;
use crate::volumes::{Claimed, WAITS};

/// How long the node's status may take to name a volume: some writes of it, each within a fraction of a second.
const TOLD_MAX: Duration = Duration::from_secs(10);

/// How long a file system may take to say whether it is there.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// How long the files of a volume may take to be given to a group: millions of them, on a slow disk.
const GIVE_MAX: Duration = Duration::from_secs(600);

/// How often a driver that wants it is asked to publish again: as often as upstream's kubelet looks at a pod.
const REPUBLISH_EVERY: Duration = Duration::from_secs(60);

/// The claim and the volume behind a wish, where they are known.
pub struct Behind<'a> {
    /// The claim's name.
    pub claim: &'a str,
    /// The volume.
    pub volume: &'a Tree,
}

/// Gives a volume to a pod; doing it twice changes nothing.
pub async fn set_up(
    agent: &Agent,
    pod: &PodView,
    wish: &Wish,
    behind: Option<Behind<'_>>,
) -> Result<Claimed, String> {
    let terms = terms(agent, &wish.driver);
    let life = if wish.is_inline { "Ephemeral" } else { "Persistent" };
    if !terms.lives.iter().any(|known| known == life) {
        return Err(format!(
            "volume mode {life:?} not supported by driver {} (only supports {:?})",
            wish.driver, terms.lives
        ));
    }
    let driver = agent.csi.driver(&wish.driver).ok_or_else(|| {
        format!(
            "kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name {} not found in the list of \
             registered CSI drivers",
            wish.driver
        )
    })?;
    let id = wish.id();
    let _turn = agent.csi.turn(&id).await;
    if is_fenced(pod) && wish.is_exclusive() {
        renew(agent, pod, wish).await?;
    }
    let is_attached = terms.is_attached && !wish.is_inline;
    mark(agent, pod, wish, is_attached).await?;
    let publish_context = match is_attached {
        true => attached(agent, &id).await?,
        false => BTreeMap::new(),
    };
    let given = Given { agent, pod, wish, terms: &terms, driver: &driver, id };
    let is_staged = given.stage(&publish_context).await?;
    given.publish(publish_context, is_staged).await?;
    let size = behind.as_ref().and_then(|behind| storage::size(behind.volume));
    if let Some(behind) = behind {
        given.grow(&behind, is_staged).await?;
    }
    let again_at = terms.is_republished.then(|| agent.means.host.now() + REPUBLISH_EVERY);
    Ok(Claimed {
        path: root(agent).here(&wish.target(&pod.uid)),
        host_type: None,
        is_owned: false,
        is_readonly: wish.is_readonly,
        is_block: wish.is_block,
        again_at,
        grows: size.map(|size| (wish.name.clone(), size)),
        driver: Some(wish.clone()),
    })
}

pub(super) fn root(agent: &Agent) -> Root {
    agent.settings.root()
}

fn terms(agent: &Agent, driver: &str) -> Terms {
    let object = agent.means.caches.get(&Key::new(&gvr::CSI_DRIVER, "", driver));
    Terms::of(object.and_then(|object| object.seen::<Tree>()).as_deref())
}

/// Writes down that the pod uses the volume, and has the node's status say so, before anything is mounted.
async fn mark(agent: &Agent, pod: &PodView, wish: &Wish, is_attached: bool) -> Result<(), String> {
    let node = agent.settings.node_name.clone();
    let record = Record {
        driver_name: wish.driver.clone(),
        volume_handle: wish.handle.clone(),
        name: wish.name.clone(),
        volume_lifecycle_mode: if wish.is_inline { "Ephemeral" } else { "Persistent" }.into(),
        attachment: match is_attached {
            true => storage::attachment_name(&wish.driver, &wish.handle, &node),
            false => String::new(),
        },
        node_name: node,
        is_block: wish.is_block,
        is_shut: false,
    };
    let path = records::of_pod(&root(agent), &pod.uid, &wish.name, wish.is_block);
    let files = agent.means.files.clone();
    let written = agent.means.host.blocking(move || records::write(&*files, &path, &record)).await;
    written.map_err(|error| format!("failed to save volume info data: {error}"))?;
    if !is_attached {
        return Ok(());
    }
    let name = storage::unique_name(&wish.driver, &wish.handle);
    agent.csi.marks.fetch_add(1, Ordering::SeqCst);
    agent.csi.in_use.send_modify(|all| {
        all.get_or_insert_default().insert(name.clone());
    });
    let mut told = agent.csi.told.subscribe();
    let said = async {
        // The sender is in this very agent: it cannot be gone.
        let _ = told.wait_for(|all| all.contains(&name)).await;
    };
    let said = agent.means.host.within(TOLD_MAX, said).await;
    said.ok_or_else(|| format!("volume {name} is not named in the node's status{WAITS}"))
}

/// What the attacher said of a volume that is attached to this node.
async fn attached(agent: &Agent, (driver, handle): &VolumeId) -> Result<BTreeMap<String, String>, String> {
    let node = &agent.settings.node_name;
    let name = storage::attachment_name(driver, handle, node);
    let waits = || format!("volume {handle:?} is not attached to node {node:?}{WAITS}");
    let object = match agent.means.client.get(&Key::new(&gvr::VOLUME_ATTACHMENT, "", name)).await {
        Ok(object) => object,
        // A node may read its own attachments; one that is not there yet is nobody's.
        Err(ClientError::NotFound { .. } | ClientError::Refused { code: 403, .. }) => return Err(waits()),
        Err(error) => return Err(spelled(&error)),
    };
    let tree = object.tree().map_err(|error| spelled(&error))?;
    let status = &tree["status"];
    match status["attachError"]["message"].as_str() {
        _ if object.is_ending() => Err(format!("volume {handle:?} is being detached from node {node:?}")),
        Some(why) if status["attached"] != true => Err(format!("AttachVolume.Attach failed: {why}")),
        _ if status["attached"] == true => Ok(texts(&status["attachmentMetadata"])),
        _ => Err(waits()),
    }
}

fn texts(map: &Tree) -> BTreeMap<String, String> {
    let all = map.as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

/// What a secret holds, as drivers are told it.
async fn secret(agent: &Agent, key: Option<&Key>) -> Result<BTreeMap<String, String>, String> {
    let Some(key) = key else { return Ok(BTreeMap::new()) };
    let wrong = |error: &dyn std::error::Error| {
        format!("fetching secret {}/{} failed: {}", key.namespace, key.name, spelled(error))
    };
    let object = agent.means.client.get(key).await.map_err(|error| wrong(&error))?;
    let secret: Secret = object.view().map_err(|error| wrong(&error))?;
    let data = secret.data.unwrap_or_default().into_iter();
    Ok(data.map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes.0).into_owned())).collect())
}

/// One volume of one pod, with all that is known of it.
struct Given<'a> {
    agent: &'a Agent,
    pod: &'a PodView,
    wish: &'a Wish,
    terms: &'a Terms,
    driver: &'a Driver,
    id: VolumeId,
}

impl Given<'_> {
    fn group(&self) -> Option<i64> {
        self.pod.spec().security_context.as_ref().and_then(|whole| whole.fs_group)
    }

    /// Stages the volume on the node, where the driver does that; says whether it does.
    async fn stage(&self, publish_context: &BTreeMap<String, String>) -> Result<bool, String> {
        let (agent, wish) = (self.agent, self.wish);
        if wish.is_inline || !self.driver.can(Ability::Stage) {
            return Ok(false);
        }
        if agent.csi.done().staged.contains(&self.id) {
            return Ok(true);
        }
        let root = root(agent);
        let (record, dir) = (records::of_stage(&root, wish), root.here(&wish.staging()));
        let kept = Record {
            driver_name: wish.driver.clone(),
            volume_handle: wish.handle.clone(),
            name: wish.name.clone(),
            is_block: wish.is_block,
            ..Record::default()
        };
        let files = agent.means.files.clone();
        let made = move || files.make_dir(&dir, 0o750).and_then(|()| records::write(&*files, &record, &kept));
        let made = self.look(LOOK_MAX, made).await?;
        made.map_err(|error| format!("the folder for staging cannot be made: {error}"))?;
        let secrets = secret(agent, wish.stage_secret.as_ref()).await?;
        let asked = wish.stage(wish.capability(self.driver, self.group()), publish_context.clone(), secrets);
        let done: Result<Empty, _> = self.driver.ask("NodeStageVolume", &asked).await;
        done.map_err(|status| format!("MountVolume.MountDevice failed: {status}"))?;
        agent.csi.done().staged.insert(self.id.clone());
        Ok(true)
    }

    /// Gives the volume to the pod.
    async fn publish(
        &self,
        publish_context: BTreeMap<String, String>,
        is_staged: bool,
    ) -> Result<(), String> {
        let (agent, pod, wish) = (self.agent, self.pod, self.wish);
        let target = root(agent).here(&wish.target(&pod.uid));
        let place = (pod.uid.clone(), wish.name.clone());
        let is_known = agent.csi.done().published.contains(&place);
        let is_there = is_known || self.is_there(&target).await?;
        if is_there && !self.terms.is_republished {
            agent.csi.done().published.insert(place);
            return Ok(());
        }
        if let (false, Some(dir)) = (is_there, target.parent().map(Path::to_path_buf)) {
            let files = agent.means.files.clone();
            let made = self.look(LOOK_MAX, move || files.make_dir(&dir, 0o750)).await?;
            made.map_err(|error| format!("the volume's folder cannot be made: {error}"))?;
        }
        let context = Context {
            publish_context,
            secrets: secret(agent, wish.publish_secret.as_ref()).await?,
            tokens: self.tokens().await?,
        };
        let capability = wish.capability(self.driver, self.group());
        let asked = wish.publish(pod, self.terms, capability, is_staged, context);
        let done: Result<Empty, _> = self.driver.ask("NodePublishVolume", &asked).await;
        done.map_err(|status| match wish.is_block {
            true => format!("MapVolume.MapPodDevice failed: {status}"),
            false => status.to_string(),
        })?;
        if !is_there {
            self.give(&target).await?;
        }
        agent.csi.done().published.insert(place);
        Ok(())
    }

    /// Whether the volume is at its place already, as after an agent's new start.
    async fn is_there(&self, target: &Path) -> Result<bool, String> {
        let (files, at, is_block) =
            (self.agent.means.files.clone(), target.to_path_buf(), self.wish.is_block);
        let seen = self.look(LOOK_MAX, move || match is_block {
            true => Ok(files.kind(&at)? == Some(crate::files::FileKind::BlockDevice)),
            false => files.is_mounted(&at),
        });
        seen.await?.map_err(|error| format!("{}: {error}", target.display()))
    }

    /// Gives the files to the pod's group, where that is the node's task.
    async fn give(&self, target: &Path) -> Result<(), String> {
        let is_drivers_task = self.driver.can(Ability::Group);
        let group = self.group().filter(|_| !is_drivers_task && self.wish.is_given_to_group(self.terms));
        let Some(group) = group else { return Ok(()) };
        let only_when_other = self
            .pod
            .spec()
            .security_context
            .as_ref()
            .and_then(|whole| whole.fs_group_change_policy.as_deref())
            == Some("OnRootMismatch");
        let (files, at) = (self.agent.means.files.clone(), target.to_path_buf());
        let work = move || match only_when_other && files.is_groups(&at, group)? {
            true => Ok(()),
            false => files.give_to_group(&at, group, true),
        };
        let given: std::io::Result<()> = self.look(GIVE_MAX, work).await?;
        given.map_err(|error| format!("applyFSGroup failed for vol {}: {error}", self.wish.handle))
    }

    /// The tokens that the driver wants, as JSON.
    async fn tokens(&self) -> Result<Option<String>, String> {
        if self.terms.tokens.is_empty() {
            return Ok(None);
        }
        let (agent, now) = (self.agent, self.agent.means.host.now());
        let mut all = json!({});
        for wish in &self.terms.tokens {
            let token = agent.tokens.have(&agent.means.client, self.pod, wish, now).await;
            let token = token.map_err(|error| format!("failed to fetch token: {}", spelled(&error)))?;
            all[&wish.audience] =
                json!({"token": token.text, "expirationTimestamp": time::seconds(token.expires_at)});
        }
        Ok(Some(all.to_string()))
    }

    /// Has the driver grow the file system to what the volume has, and says so in the claim.
    async fn grow(&self, behind: &Behind<'_>, is_staged: bool) -> Result<(), String> {
        let size = |text: &Tree| text.as_str().and_then(|text| text.parse::<Quantity>().ok());
        let (Some(wanted), Some(bytes)) =
            (size(&behind.volume["spec"]["capacity"]["storage"]), storage::size(behind.volume))
        else {
            return Ok(());
        };
        if agent_size(self.agent, &self.id) == Some(bytes) || !self.driver.can(Ability::Expand) {
            return Ok(());
        }
        let key = Key::new(&gvr::PERSISTENT_VOLUME_CLAIM, self.pod.namespace.clone(), behind.claim);
        let claim = self.agent.means.client.get(&key).await.map_err(|error| spelled(&error))?;
        let tree = claim.tree().map_err(|error| spelled(&error))?;
        let has = size(&tree["status"]["capacity"]["storage"]);
        if has.as_ref().is_none_or(|has| *has >= wanted) {
            self.agent.csi.done().sizes.insert(self.id.clone(), bytes);
            return Ok(());
        }
        let asked = Expand {
            volume_id: self.wish.handle.clone(),
            volume_path: text(&self.wish.target(&self.pod.uid)),
            range: Some(CapacityRange { required: bytes }),
            staging_path: if is_staged { text(&self.wish.staging()) } else { String::new() },
            capability: Some(self.wish.capability(self.driver, None)),
            secrets: secret(self.agent, self.wish.expand_secret.as_ref()).await?,
        };
        let done: Result<Expanded, _> = self.driver.ask("NodeExpandVolume", &asked).await;
        done.map_err(|status| format!("MountVolume.NodeExpandVolume failed: {status}"))?;
        self.tell_grown(&key, &claim, &tree, &behind.volume["spec"]["capacity"]["storage"]).await?;
        self.agent.csi.done().sizes.insert(self.id.clone(), bytes);
        Ok(())
    }

    async fn tell_grown(&self, key: &Key, claim: &Object, known: &Tree, size: &Tree) -> Result<(), String> {
        let left = known["status"]["conditions"].as_array().into_iter().flatten();
        let left: Vec<&Tree> = left
            .filter(|one| one["type"] != "FileSystemResizePending" && one["type"] != "Resizing")
            .collect();
        let status = json!({"status": {
            "capacity": {"storage": size}, "conditions": left,
            "allocatedResourceStatuses": null,
        }});
        let when = Precondition::exactly(claim);
        let said = self.agent.means.client.patch(key, "status", PatchKind::Merge, &status, &when).await;
        said.map_err(|error| spelled(&error))?;
        let message = format!("MountVolume.NodeExpandVolume succeeded for volume {:?}", self.wish.name);
        self.agent.events.normal(Agent::about(self.pod, None), "FileSystemResizeSuccessful", message);
        Ok(())
    }

    /// Does something with files that may be on storage that does not answer.
    async fn look<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let place = root(self.agent).here(&self.wish.target(&self.pod.uid));
        let asked = self.agent.patience.ask(&self.agent.means.host, &place, limit, work).await;
        asked.map_err(|silent| silent.to_string())
    }
}

fn agent_size(agent: &Agent, id: &VolumeId) -> Option<i64> {
    agent.csi.done().sizes.get(id).copied()
}

/// Takes all volumes of drivers away from a pod that is over.
pub async fn tear_down(agent: &Agent, pod_uid: &str) -> Result<(), String> {
    let (files, at, uid) = (agent.means.files.clone(), root(agent), pod_uid.to_owned());
    let records = agent.means.host.blocking(move || records::used_by(&*files, &at, &uid)).await;
    let records = records.map_err(|error| format!("the pod's volumes cannot be looked at: {error}"))?;
    for record in records {
        unpublish(agent, pod_uid, &record).await.map_err(|why| {
            let act = if record.is_block { "UnmapVolume.UnmapPodDevice" } else { "UnmountVolume.TearDown" };
            format!("{act} failed for volume {:?} : {why}", record.name)
        })?;
    }
    Ok(())
}

async fn unpublish(agent: &Agent, pod_uid: &str, record: &Record) -> Result<(), String> {
    let _turn = agent.csi.turn(&record.id()).await;
    unpublish_in_turn(agent, pod_uid, record).await
}

pub(super) async fn unpublish_in_turn(agent: &Agent, pod_uid: &str, record: &Record) -> Result<(), String> {
    let wish = record.wish();
    let driver = registered(agent, &record.driver_name)?;
    let asked = Undo { volume_id: record.volume_handle.clone(), path: text(&wish.target(pod_uid)) };
    let done: Result<Empty, _> = driver.ask("NodeUnpublishVolume", &asked).await;
    done.map_err(|status| status.to_string())?;
    agent.csi.done().published.remove(&(pod_uid.to_owned(), record.name.clone()));
    let (files, root, uid) = (agent.means.files.clone(), root(agent), pod_uid.to_owned());
    let target = root.here(&wish.target(pod_uid));
    let work = move || {
        // What the driver left mounted is not its data's end: only the mount goes, never what it leads to.
        files.unmount_below(&target)?;
        files.remove(&target)?;
        records::forget(&*files, &root, &wish, Some(&uid))
    };
    agent.means.host.blocking(work).await.map_err(|error| error.to_string())?;
    agent.csi.unused.notify_one();
    Ok(())
}

fn registered(agent: &Agent, name: &str) -> Result<Driver, String> {
    let none = || format!("driver name {name} not found in the list of registered CSI drivers");
    agent.csi.driver(name).ok_or_else(none)
}

/// Takes back what was staged for pods that are gone, until the agent ends, and keeps account of what is in use.
pub async fn keep(agent: Arc<Agent>) {
    let mut failures = 0;
    let mut drivers = agent.csi.drivers.subscribe();
    loop {
        let is_done = clean(&agent).await;
        failures = if is_done { 0 } else { failures + 1 };
        let again = async {
            match is_done {
                true => std::future::pending().await,
                false => agent.means.host.sleep(backoff::trouble_wait(failures)).await,
            }
        };
        tokio::select! {
            biased;
            () = agent.csi.unused.notified() => {}
            Ok(()) = drivers.changed() => {}
            () = again => {}
        }
    }
}

/// Unstages what nobody uses; says whether all of that was done.
async fn clean(agent: &Agent) -> bool {
    let (files, at) = (agent.means.files.clone(), root(agent));
    let look =
        move || Ok::<_, std::io::Error>((records::used(&*files, &at)?, records::staged(&*files, &at)?));
    let (used, staged) = match agent.means.host.blocking(look).await {
        Ok(seen) => seen,
        Err(error) => {
            tracing::warn!(%error, "the volumes of drivers cannot be looked at");
            return false;
        }
    };
    let users: BTreeSet<VolumeId> = used.iter().map(Record::id).collect();
    let mut is_done = true;
    let mut kept = BTreeSet::new();
    for record in &staged {
        if users.contains(&record.id()) {
            continue;
        }
        if let Err(why) = unstage(agent, record).await {
            tracing::warn!(why, volume = record.name, "a volume could not be unstaged");
            kept.insert(record.id());
            is_done = false;
        }
    }
    account(agent, kept).await;
    is_done
}

/// Counts anew which attached volumes are in use.
async fn account(agent: &Agent, kept: BTreeSet<VolumeId>) {
    loop {
        let marks = agent.csi.marks.load(Ordering::SeqCst);
        let (files, at) = (agent.means.files.clone(), root(agent));
        let used = agent.means.host.blocking(move || records::used(&*files, &at)).await;
        // What cannot be read is not known to be unused.
        let Ok(used) = used else { return };
        let attached = used.iter().filter(|record| !record.attachment.is_empty()).map(Record::id);
        let names = attached.chain(kept.iter().cloned());
        let names: BTreeSet<String> =
            names.map(|(driver, handle)| storage::unique_name(&driver, &handle)).collect();
        let mut is_counted = false;
        agent.csi.in_use.send_modify(|known| {
            // A use that was written down meanwhile may not have been seen.
            is_counted = agent.csi.marks.load(Ordering::SeqCst) == marks;
            if is_counted {
                *known = Some(names);
            }
        });
        if is_counted {
            return;
        }
    }
}

async fn unstage(agent: &Agent, record: &Record) -> Result<(), String> {
    let id = record.id();
    let _turn = agent.csi.turn(&id).await;
    let (files, at) = (agent.means.files.clone(), root(agent));
    let used = agent.means.host.blocking(move || records::used(&*files, &at)).await;
    let used = used.map_err(|error| error.to_string())?;
    if used.iter().any(|user| user.id() == id) {
        // Somebody came meanwhile.
        return Ok(());
    }
    unstage_in_turn(agent, record).await
}

pub(super) async fn unstage_in_turn(agent: &Agent, record: &Record) -> Result<(), String> {
    let (id, wish) = (record.id(), record.wish());
    let driver = registered(agent, &record.driver_name)?;
    let asked = Undo { volume_id: record.volume_handle.clone(), path: text(&wish.staging()) };
    let done: Result<Empty, _> = driver.ask("NodeUnstageVolume", &asked).await;
    done.map_err(|status| format!("UnmountVolume.MountDevice failed: {status}"))?;
    {
        let mut done = agent.csi.done();
        done.staged.remove(&id);
        done.sizes.remove(&id);
    }
    let (files, root) = (agent.means.files.clone(), root(agent));
    let work = move || {
        let staging: PathBuf = root.here(&wish.staging());
        files.unmount_below(&staging)?;
        records::forget(&*files, &root, &wish, None)
    };
    agent.means.host.blocking(work).await.map_err(|error| error.to_string())
}
