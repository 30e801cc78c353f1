//! The volumes of a pod: made before its containers, kept up to date while they run, removed after them.
//!
//! Promises: making them twice changes nothing; an agent that comes up finds them as they were; nothing a container
//! can write decides where something is mounted. What this node cannot mount is refused by name.

pub mod atomic;
pub mod claims;
pub mod payload;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{CSIVolumeSource, Volume, VolumeDevice, VolumeMount};
use model::Key;
use model::kinds as gvr;
use runtime::Mount;

use crate::environment::{self, Facts, Missing};
use crate::files::{FileKind, Files};
use crate::places::Root;
use crate::pod::{Member, PodView};
use payload::TokenWish;

/// Where the files of a pod are.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The files of a pod below the agent's folder.
    pub fn new(data_dir: &Path, uid: &str) -> Paths {
        Paths { root: Root::new(data_dir).pods().join(uid) }
    }

    /// The pod's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a volume.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// One of the small files that all containers share, such as `hosts`.
    pub fn text(&self, name: &str) -> PathBuf {
        self.root.join("etc").join(name)
    }

    /// The file for the termination message of one run.
    pub fn termination_log(&self, container: &str, attempt: u32) -> PathBuf {
        self.root.join("containers").join(container).join(attempt.to_string())
    }

    /// Where parts of volumes are mounted, for those containers that get no more of them.
    pub fn sub_paths(&self) -> PathBuf {
        self.root.join("subpaths")
    }

    fn sub_path(&self, container: &str, index: usize) -> PathBuf {
        self.sub_paths().join(container).join(index.to_string())
    }
}

/// What a claim leads to on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The folder or device on the node.
    pub path: PathBuf,
    /// How it is to be checked or made, as a hostPath is; `None` where a driver has seen to it.
    pub host_type: Option<String>,
    /// Whether the pod's fsGroup is to own it.
    pub is_owned: bool,
    /// Whether the volume itself may only be read.
    pub is_readonly: bool,
    /// Whether it is a device.
    pub is_block: bool,
    /// When it is to be made once more.
    pub again_at: Option<host::Time>,
    /// The PersistentVolume whose file system grows here, and how large that was, in bytes.
    pub grows: Option<(String, i64)>,
    /// What its driver was asked for, where it has one that is not ours.
    pub driver: Option<crate::csi::Wish>,
}

/// A volume that could not be made.
#[derive(Debug, Clone, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
pub struct VolumeTrouble {
    /// Its name.
    pub volume: String,
    /// Why.
    pub why: String,
}

impl VolumeTrouble {
    /// Whether it is merely waited for somebody whose turn it is: no trouble unless it lasts.
    pub fn is_waiting(&self) -> bool {
        self.why.ends_with(WAITS)
    }
}

/// How a reason ends that is none yet.
pub const WAITS: &str = " yet";

/// The ConfigMaps and Secrets that a pod uses.
pub fn uses(pod: &PodView) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let mut add = |is_secret: bool, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let gvr = if is_secret { &gvr::SECRET } else { &gvr::CONFIG_MAP };
            keys.insert(Key::new(gvr, pod.namespace.clone(), name));
        }
    };
    for member in &pod.members {
        for from in member.container.env_from.iter().flatten() {
            add(false, from.config_map_ref.as_ref().map(|source| source.name.as_str()));
            add(true, from.secret_ref.as_ref().map(|source| source.name.as_str()));
        }
        for source in member.container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            add(false, source.config_map_key_ref.as_ref().map(|key| key.name.as_str()));
            add(true, source.secret_key_ref.as_ref().map(|key| key.name.as_str()));
        }
    }
    for volume in pod.spec().volumes.iter().flatten() {
        add(false, volume.config_map.as_ref().map(|source| source.name.as_str()));
        add(true, volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            add(false, source.config_map.as_ref().map(|source| source.name.as_str()));
            add(true, source.secret.as_ref().map(|source| source.name.as_str()));
        }
    }
    for secret in pod.spec().image_pull_secrets.iter().flatten() {
        add(true, Some(&secret.name));
    }
    keys
}

/// The claims that a pod uses, by volume.
pub fn claimed(pod: &PodView) -> BTreeMap<String, String> {
    let all = pod.spec().volumes.iter().flatten();
    let named = all.filter_map(|volume| {
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => source.claim_name.clone(),
            (None, Some(_)) => format!("{}-{}", pod.name, volume.name),
            (None, None) => return None,
        };
        Some((volume.name.clone(), claim))
    });
    named.collect()
}

/// The volumes of a pod that its drivers give to it alone.
pub fn inline(pod: &PodView) -> impl Iterator<Item = (&str, &CSIVolumeSource)> {
    let all = pod.spec().volumes.iter().flatten();
    all.filter_map(|volume| Some((volume.name.as_str(), volume.csi.as_ref()?)))
}

/// Whether some of a pod's volumes are in the hands of others.
pub fn are_of_others(pod: &PodView) -> bool {
    inline(pod).next().is_some() || !claimed(pod).is_empty()
}

/// All tokens that a pod's volumes show.
pub fn tokens(pod: &PodView) -> BTreeSet<TokenWish> {
    pod.spec().volumes.iter().flatten().flat_map(payload::tokens).collect()
}

/// Whether a pod's volumes show what changes with the pod itself.
pub fn shows_itself(pod: &PodView) -> bool {
    pod.spec()
        .volumes
        .iter()
        .flatten()
        .any(|volume| volume.downward_api.is_some() || volume.projected.is_some())
}

/// All that volumes are made from.
pub struct Making<'a> {
    /// Where files are made.
    pub files: &'a dyn Files,
    /// Where the pod's files are.
    pub paths: &'a Paths,
    /// Where the kubelet's own folder is.
    pub root: &'a Root,
    /// What the pod may be told.
    pub facts: Facts<'a>,
    /// The tokens that were had.
    pub tokens: &'a BTreeMap<TokenWish, String>,
    /// What its claims lead to, by volume.
    pub claims: &'a BTreeMap<String, Claimed>,
    /// A name for new versions of files, different each time.
    pub version: &'a str,
}

/// Makes the volumes of a pod, or brings them up to date.
pub fn make(making: &Making<'_>) -> Result<(), VolumeTrouble> {
    for volume in making.facts.pod.spec().volumes.iter().flatten() {
        let trouble = |why: String| VolumeTrouble { volume: volume.name.clone(), why };
        make_one(making, volume).map_err(|problem| trouble(problem.0))?;
    }
    Ok(())
}

fn make_one(making: &Making<'_>, volume: &Volume) -> Result<(), Missing> {
    let dir = making.paths.volume(&volume.name);
    let whole = making.facts.pod.spec().security_context.as_ref();
    let group = whole.and_then(|whole| whole.fs_group);
    if let Some(payload) = payload::payload(volume, &making.facts, making.tokens) {
        let payload = payload?;
        let owners = (group, common_user(making.facts.pod));
        let done = making
            .files
            .make_dir(&dir, 0o777)
            .and_then(|()| atomic::publish(making.files, &dir, &payload, owners, making.version));
        return done.map(|_| ()).map_err(failed);
    }
    if let Some(empty) = &volume.empty_dir {
        let is_new = making.files.kind(&dir).map_err(failed)?.is_none();
        if empty.medium.as_deref() == Some("Memory") {
            let size = empty.size_limit.as_ref().map(|size| model::Quantity::from(size).value());
            let size = size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0);
            making.files.mount_memory(&dir, size).map_err(failed)?;
        } else {
            making.files.make_dir(&dir, 0o777).map_err(failed)?;
        }
        return match group {
            Some(group) if is_new => making.files.give_to_group(&dir, group, true).map_err(failed),
            _ => Ok(()),
        };
    }
    if volume.image.is_some() {
        // Shown when a container starts that mounts it: until then its image may still have to come.
        return Ok(());
    }
    if let Some(source) = &volume.host_path {
        let kind = source.type_.as_deref().unwrap_or("");
        return check_host_path(making.files, &making.root.here(Path::new(&source.path)), kind);
    }
    if let Some(claimed) = making.claims.get(&volume.name) {
        if let Some(kind) = &claimed.host_type {
            check_host_path(making.files, &claimed.path, kind)?;
        }
        return match group {
            Some(group) if claimed.is_owned => {
                making.files.give_to_group(&claimed.path, group, true).map_err(failed)
            }
            _ => Ok(()),
        };
    }
    Err(Missing("this node cannot mount volumes of this kind".into()))
}

/// The user that all containers run as, where they all name the same.
fn common_user(pod: &PodView) -> Option<i64> {
    let whole = pod.spec().security_context.as_ref().and_then(|whole| whole.run_as_user);
    let own = |member: &Member| {
        member.container.security_context.as_ref().and_then(|own| own.run_as_user).or(whole)
    };
    let mut users = pod.members.iter().map(own);
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

fn failed(error: io::Error) -> Missing {
    Missing(error.to_string())
}

fn check_host_path(files: &dyn Files, path: &Path, kind: &str) -> Result<(), Missing> {
    let here = files.kind(path).map_err(failed)?;
    let wanted = match kind {
        "" | "DirectoryOrCreate" if here.is_none() => {
            return files.make_dir(path, 0o755).map_err(failed);
        }
        "FileOrCreate" if here.is_none() => return files.write(path, b"", 0o644).map_err(failed),
        "" => return Ok(()),
        "DirectoryOrCreate" | "Directory" => (FileKind::Dir, "a directory"),
        "FileOrCreate" | "File" => (FileKind::File, "a file"),
        "Socket" => (FileKind::Socket, "a socket file"),
        "CharDevice" => (FileKind::CharDevice, "a character device"),
        "BlockDevice" => (FileKind::BlockDevice, "a block device"),
        _ => return Err(Missing(format!("{kind:?} is an invalid volume type"))),
    };
    match here == Some(wanted.0) {
        true => Ok(()),
        false => Err(Missing(format!("hostPath type check failed: {} is not {}", path.display(), wanted.1))),
    }
}

/// The mounts of a container that its pod's volumes give it. Sub-paths are looked up now, and pinned.
pub fn mounts(making: &Making<'_>, member: &Member) -> Result<Vec<Mount>, Missing> {
    let all = member.container.volume_mounts.iter().flatten().enumerate();
    let mut mounts =
        all.map(|(i, mount)| one_mount(making, member, i, mount)).collect::<Result<Vec<_>, _>>()?;
    // A mount inside another comes after it.
    mounts.sort_by_key(|mount: &Mount| mount.target.components().count());
    Ok(mounts)
}

fn one_mount(
    making: &Making<'_>,
    member: &Member,
    index: usize,
    mount: &VolumeMount,
) -> Result<Mount, Missing> {
    let volumes = making.facts.pod.spec().volumes.as_deref().unwrap_or_default();
    let volume = volumes.iter().find(|volume| volume.name == mount.name);
    let volume = volume.ok_or_else(|| Missing(format!("volume {:?} is not in the pod", mount.name)))?;
    if making.claims.get(&volume.name).is_some_and(|claimed| claimed.is_block) {
        let why = format!("volume {} has volumeMode Block, but is specified in volumeMounts", volume.name);
        return Err(Missing(why));
    }
    let base = match (&volume.host_path, making.claims.get(&volume.name)) {
        (Some(source), _) => making.root.here(Path::new(&source.path)),
        (None, Some(claimed)) => claimed.path.clone(),
        (None, None) => making.paths.volume(&volume.name),
    };
    let source = match sub_path(making, member, mount)? {
        None => base,
        Some(inside) => {
            let target = making.paths.sub_path(member.name(), index);
            let pinned = making.files.pin(&base, &inside, &target);
            pinned.map_err(|error| {
                Missing(format!("failed to prepare subPath for volumeMount {:?}: {error}", mount.name))
            })?;
            target
        }
    };
    let is_ours = volume.config_map.is_some()
        || volume.image.is_some()
        || volume.secret.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some();
    let claim = volume.persistent_volume_claim.as_ref();
    let is_readonly_volume = making.claims.get(&volume.name).is_some_and(|claimed| claimed.is_readonly);
    let is_readonly_claim = claim.is_some_and(|claim| claim.read_only.unwrap_or(false));
    Ok(Mount {
        source,
        target: PathBuf::from("/").join(&mount.mount_path),
        readonly: is_ours || is_readonly_claim || is_readonly_volume || mount.read_only.unwrap_or(false),
        recursive: true,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => "rslave".into(),
            Some("Bidirectional") => "rshared".into(),
            _ => "private".into(),
        },
    })
}

/// The devices of a container: where each is on the node, and where the container finds it.
pub fn devices(making: &Making<'_>, member: &Member) -> Result<Vec<(PathBuf, PathBuf)>, Missing> {
    let one = |device: &VolumeDevice| match making.claims.get(&device.name) {
        Some(claimed) if claimed.is_block => Ok((claimed.path.clone(), PathBuf::from(&device.device_path))),
        Some(_) => Err(Missing(format!(
            "volume {} has volumeMode Filesystem, but is specified in volumeDevices",
            device.name
        ))),
        None => Err(Missing(format!("volume {:?} is no claim that leads to a device", device.name))),
    };
    member.container.volume_devices.iter().flatten().map(one).collect()
}

fn sub_path(making: &Making<'_>, member: &Member, mount: &VolumeMount) -> Result<Option<PathBuf>, Missing> {
    let text = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
        (Some(expression), _) if !expression.is_empty() => {
            let vars = environment::own_variables(member, &making.facts)?;
            let text = environment::expand(expression, &vars);
            if text.contains("$(") || text.is_empty() {
                return Err(Missing(format!("missing value for {expression:?}")));
            }
            text
        }
        (_, Some(path)) if !path.is_empty() => path.to_owned(),
        _ => return Ok(None),
    };
    let path = PathBuf::from(&text);
    let is_inside = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_inside {
        return Err(Missing(format!("subPath {text:?} must be a relative path without '..'")));
    }
    Ok(Some(path.components().filter(|part| matches!(part, Component::Normal(_))).collect()))
}

/// Removes everything that was made for a pod. What its volumes lead to elsewhere on the node stays.
pub fn clear(files: &dyn Files, paths: &Paths) -> io::Result<()> {
    if files.kind(paths.root())?.is_none() {
        return Ok(());
    }
    files.unmount_below(paths.root())?;
    files.remove(paths.root())
}
