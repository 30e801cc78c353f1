//! The doing: what a worker's acts ask of runtime, network, files and API. Each job ends with one report, and has no
//! opinion on what comes next.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use client::ClientError;
use futures_util::future::join_all;
use host::Time;
use k8s_openapi::api::core::v1::Secret;
use model::Key;
use model::kinds as gvr;
use network::{HostPort, NetworkError, PodNetwork, Protocol};
use runtime::{
    ContainerSpec, ContainerStatus, Exclusive, Image, Mount, RegistryAuth, Resources, RuntimeError,
    SandboxSpec,
};

use crate::agent::Agent;
use crate::environment::{self, Facts, Missing, Sources};
use crate::events::About;
use crate::memory::{HASH, IMAGE_ID, ImageHere, ShownImage, Step, TARGET};
use crate::plan::PORTS_TAKEN;
use crate::pod::{Member, PodView};
use crate::storage::ANSWER_MAX;
use crate::texts;
use crate::volumes::payload::TokenWish;
use crate::volumes::{self, Claimed, Making, Paths, VolumeTrouble};
use crate::{csi, resources, security};

/// How long the volumes of a pod may take to be made: with millions of files given to a group, on a slow disk.
const MAKE_MAX: Duration = Duration::from_secs(600);

/// How long the files of a pod may take to be removed before that is said, and tried again.
const CLEAR_MAX: Duration = Duration::from_secs(120);

/// What containers stand on: what was read from the API for them.
#[derive(Debug, Clone, Default)]
pub struct Ground {
    /// ConfigMaps and Secrets.
    pub sources: Sources,
    /// Tokens.
    pub tokens: BTreeMap<TokenWish, String>,
    /// Claims, by volume.
    pub claims: BTreeMap<String, Claimed>,
    /// When a token is to be renewed.
    pub renew_at: Option<Time>,
}

/// Why a container could not be started.
#[derive(Debug, Clone)]
pub enum StartFault {
    /// `CreateContainerConfigError`: the pod asks for something that is not there.
    Config(String),
    /// `StartError`: its program could not be started.
    Program(String),
    /// `RunContainerError`: the runtime did not do it.
    Runtime(String),
    /// The image is no longer here.
    ImageGone,
    /// The deadline passed, and file systems of the pod's volumes were shut down: they are to be made anew, and the sandbox.
    Shut,
    /// The sandbox is no longer here: the node gave up what is fenced, and goes on under the same lease after all.
    SandboxGone,
}

/// Why an image could not be had.
#[derive(Debug, Clone)]
pub struct PullFault {
    /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
    pub reason: &'static str,
    /// What to tell the user.
    pub message: String,
}

/// All that starting a container needs.
pub struct Start {
    /// The pod.
    pub pod: PodView,
    /// The container.
    pub member: Member,
    /// Which run it will be.
    pub attempt: u32,
    /// Its image.
    pub image: ImageHere,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// What it stands on.
    pub ground: Arc<Ground>,
    /// The images that the pod's volumes show.
    pub shown_images: BTreeMap<String, ShownImage>,
}

/// An image that is wanted.
pub struct Wish {
    /// Its reference.
    pub reference: String,
    /// When it is to be pulled; `None` for what its tag suggests.
    pub policy: Option<String>,
    /// Whether it was used by this pod before: then it is taken as it is here.
    pub has_run: bool,
    /// Whom its events are about.
    pub about: About,
}

/// Why a pod has no sandbox.
#[derive(Debug, Clone)]
pub struct SandboxFault {
    /// [`PORTS_TAKEN`], or `FailedCreatePodSandBox`.
    pub reason: &'static str,
    /// What went wrong.
    pub message: String,
}

impl From<RuntimeError> for SandboxFault {
    fn from(error: RuntimeError) -> Self {
        Self { reason: "FailedCreatePodSandBox", message: spelled(&error) }
    }
}

impl From<NetworkError> for SandboxFault {
    fn from(error: NetworkError) -> Self {
        let reason = match error {
            NetworkError::PortTaken(_) => PORTS_TAKEN,
            NetworkError::NoAddress { .. } | NetworkError::Kernel { .. } => "FailedCreatePodSandBox",
        };
        Self { reason, message: spelled(&error) }
    }
}

/// Makes a sandbox and its network; gives the pod's addresses.
pub async fn make_sandbox(agent: &Agent, pod: &PodView) -> Result<Vec<IpAddr>, SandboxFault> {
    let (hostname, _) = texts::hostname(pod, &agent.settings.cluster_domain);
    let spec = pod.spec();
    let sysctls = spec.security_context.iter().flat_map(|whole| whole.sysctls.iter().flatten());
    let sandbox = SandboxSpec {
        pod_uid: pod.uid.clone(),
        name: pod.name.clone(),
        namespace: pod.namespace.clone(),
        hostname,
        host_network: pod.is_on_host_network(),
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        share_pids: spec.share_process_namespace.unwrap_or(false),
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        resources: resources::pod_limits(pod),
        annotations: BTreeMap::new(),
        fence: agent.fence.permit(agent, pod).await?,
    };
    let mut made = agent.means.runtime.create_sandbox(sandbox.clone()).await?;
    if !made.alive {
        // One whose monitor ended, and that could not be removed then: nothing can start in it.
        agent.means.network.detach(&pod.uid).await?;
        agent.means.runtime.drop_sandbox(&pod.uid).await?;
        made = agent.means.runtime.create_sandbox(sandbox).await?;
    }
    let Some(netns) = made.netns else { return Ok(agent.settings.node_addresses.clone()) };
    let wish = PodNetwork { pod_uid: pod.uid.clone(), netns, host_ports: host_ports(pod) };
    Ok(agent.means.network.attach(wish).await?)
}

/// An error with its causes.
pub fn spelled(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn host_ports(pod: &PodView) -> Vec<HostPort> {
    let ports = pod.members.iter().flat_map(|member| member.container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let number = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
        Some(HostPort {
            host_ip: port
                .host_ip
                .as_deref()
                .and_then(|ip| ip.parse().ok())
                .filter(|ip: &IpAddr| !ip.is_unspecified()),
            host_port: number(port.host_port?)?,
            pod_port: number(port.container_port)?,
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            },
        })
    });
    named.collect()
}

/// Reads what a pod uses, and makes its volumes.
pub async fn lay_ground(agent: &Agent, pod: &PodView) -> Result<Ground, VolumeTrouble> {
    let sources = read_sources(agent, pod).await?;
    bring_up_to_date(agent, pod, sources).await
}

/// Makes a pod's volumes from sources that were read, or brings them up to date.
pub async fn bring_up_to_date(
    agent: &Agent,
    pod: &PodView,
    sources: Sources,
) -> Result<Ground, VolumeTrouble> {
    let mut ground =
        Ground { sources, claims: volumes::claims::resolve(agent, pod).await?, ..Ground::default() };
    ask_storage(agent, &ground.claims).await?;
    let now = agent.means.host.now();
    for wish in volumes::tokens(pod) {
        let had = agent.tokens.have(&agent.means.client, pod, &wish, now).await;
        let token =
            had.map_err(|error| trouble("token", &format!("failed to fetch token: {}", spelled(&error))))?;
        ground.renew_at =
            Some(ground.renew_at.map_or(token.renew_at, |known: Time| known.min(token.renew_at)));
        ground.tokens.insert(wish, token.text);
    }
    let (pod, node) = (pod.clone(), agent.node.clone());
    let (files, paths) = (agent.means.files.clone(), Paths::new(&agent.settings.data_dir, &pod.uid));
    let root = agent.settings.root();
    let again = ground.claims.values().filter_map(|claimed| claimed.again_at).min();
    ground.renew_at = ground.renew_at.into_iter().chain(again).min();
    let version = format!("{:016x}", agent.means.host.chance().u64());
    let hostname = texts::hostname(&pod, &agent.settings.cluster_domain).0;
    let work = move || {
        let facts = Facts {
            pod: &pod,
            addresses: &[],
            hostname: &hostname,
            node: &node,
            sources: &ground.sources,
            services: &[],
        };
        let (tokens, claims) = (&ground.tokens, &ground.claims);
        let making =
            Making { files: &*files, paths: &paths, root: &root, facts, tokens, claims, version: &version };
        volumes::make(&making).map(|()| ground)
    };
    let made = agent.means.host.within(MAKE_MAX, agent.means.host.blocking(work)).await;
    made.unwrap_or_else(|| Err(trouble("volumes", "they are not made yet: what they are on does not answer")))
}

/// Asks what the claims of a pod lead to for an answer: where there is none, only this pod waits.
async fn ask_storage(agent: &Agent, claims: &BTreeMap<String, Claimed>) -> Result<(), VolumeTrouble> {
    for (volume, claimed) in claims.iter().filter(|(_, claimed)| claimed.host_type.is_some()) {
        let (files, path) = (agent.means.files.clone(), claimed.path.clone());
        let work = move || files.touch(&path);
        let asked = agent.patience.ask(&agent.means.host, &claimed.path, ANSWER_MAX, work).await;
        // What is not there is said by whoever makes the volume.
        asked.map(|_| ()).map_err(|silent| trouble(volume, &silent.to_string()))?;
    }
    Ok(())
}

fn trouble(volume: &str, why: &str) -> VolumeTrouble {
    VolumeTrouble { volume: volume.into(), why: why.into() }
}

async fn read_sources(agent: &Agent, pod: &PodView) -> Result<Sources, VolumeTrouble> {
    let keys: Vec<Key> = volumes::uses(pod).into_iter().collect();
    let asked = join_all(keys.iter().map(|key| agent.means.client.get(key))).await;
    let mut sources = Sources::default();
    for (key, answer) in keys.iter().zip(asked) {
        match answer {
            Ok(object) => take_source(&mut sources, key, Some(&object)),
            Err(ClientError::NotFound { .. }) => {}
            Err(error) => {
                return Err(trouble(&key.name, &format!("failed to read {key}: {}", spelled(&error))));
            }
        }
    }
    Ok(sources)
}

/// The secrets that hold a pod's credentials for registries; those that cannot be read are left out.
pub async fn read_pull_secrets(agent: &Agent, pod: &PodView) -> Sources {
    let mut sources = Sources::default();
    for name in pod.spec().image_pull_secrets.iter().flatten() {
        let key = Key::new(&gvr::SECRET, pod.namespace.clone(), name.name.clone());
        if let Ok(object) = agent.means.client.get(&key).await {
            take_source(&mut sources, &key, Some(&object));
        }
    }
    sources
}

/// Takes a ConfigMap or Secret as it is now.
pub fn take_source(sources: &mut Sources, key: &Key, object: Option<&model::Object>) {
    if key.gvr == gvr::SECRET {
        match object.and_then(|object| object.view().ok()) {
            Some(secret) => sources.secrets.insert(key.name.clone(), secret),
            None => sources.secrets.remove(&key.name),
        };
    } else {
        match object.and_then(|object| object.view().ok()) {
            Some(map) => sources.config_maps.insert(key.name.clone(), map),
            None => sources.config_maps.remove(&key.name),
        };
    }
}

/// Has an image, by its pull policy. The second part says what happened, for an event.
pub async fn have_image(
    agent: &Agent,
    wish: &Wish,
    sources: &Sources,
    pod: &PodView,
) -> Result<(Image, Option<String>), PullFault> {
    let reference = wish.reference.as_str();
    let asked = wish.policy.as_deref().unwrap_or(default_policy(reference));
    // A restart in place goes on with the image it had: it must not wait for a registry, nor fail with it.
    let policy = if wish.has_run && asked == "Always" { "IfNotPresent" } else { asked };
    let credentials = credentials(pod, sources);
    if policy != "Always" {
        let here = agent.means.runtime.image(reference).await.map_err(|error| pull_fault(&error))?;
        // Who runs already has shown its right to it.
        let here = here.filter(|image| wish.has_run || image.is_open_to(&credentials));
        match here {
            Some(image) => {
                return Ok((
                    image,
                    Some(format!(
                        "Container image {reference:?} already present on machine and can be accessed by the pod"
                    )),
                ));
            }
            None if policy == "Never" => {
                return Err(PullFault {
                    reason: "ErrImageNeverPull",
                    message: format!(
                        "Container image {reference:?} is not present with pull policy of Never"
                    ),
                });
            }
            None => {}
        }
    }
    agent.events.normal(wish.about.clone(), "Pulling", format!("Pulling image {reference:?}"));
    let began = agent.means.host.moment();
    let pulled = agent.means.runtime.pull(reference, &credentials).await;
    let image = pulled.map_err(|error| pull_fault(&error))?;
    let took = agent.means.host.moment().since(began);
    let took =
        crate::backoff::spell(std::time::Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(0)));
    let size = image.size;
    Ok((
        image,
        Some(format!(
            "Successfully pulled image {reference:?} in {took} ({took} including waiting). Image size: {size} bytes."
        )),
    ))
}

fn default_policy(reference: &str) -> &'static str {
    let name = reference.rsplit('/').next().unwrap_or("");
    let is_pinned = name.contains('@') || name.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest");
    if is_pinned { "IfNotPresent" } else { "Always" }
}

fn pull_fault(error: &RuntimeError) -> PullFault {
    let reason = match error {
        RuntimeError::ImageName { .. } => "InvalidImageName",
        _ => "ErrImagePull",
    };
    PullFault { reason, message: spelled(error) }
}

/// The credentials in a pod's image pull secrets.
fn credentials(pod: &PodView, sources: &Sources) -> Vec<RegistryAuth> {
    let names = pod.spec().image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str());
    names.filter_map(|name| sources.secrets.get(name)).flat_map(of_secret).collect()
}

fn of_secret(secret: &Secret) -> Vec<RegistryAuth> {
    let data = secret.data.as_ref();
    let field = |name: &str| {
        let bytes = data.and_then(|data| data.get(name))?;
        serde_json::from_slice::<serde_json::Value>(&bytes.0).ok()
    };
    let auths = match (field(".dockerconfigjson"), field(".dockercfg")) {
        (Some(config), _) => config["auths"].clone(),
        (None, Some(auths)) => auths,
        (None, None) => return Vec::new(),
    };
    auths
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(registry, entry)| credential(registry, entry))
        .collect()
}

fn credential(registry: &str, entry: &serde_json::Value) -> Option<RegistryAuth> {
    let text = |name: &str| entry[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (username, password) = match text("auth") {
        Some(auth) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(auth).ok()?;
            let pair = String::from_utf8(bytes).ok()?;
            let (name, password) = pair.split_once(':')?;
            (name.to_owned(), password.to_owned())
        }
        None => (text("username")?, text("password")?),
    };
    let registry = registry.trim_start_matches("https://").trim_start_matches("http://");
    let registry = registry.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches("/v2");
    Some(RegistryAuth { registry: registry.to_owned(), username, password })
}

/// Starts a container.
pub async fn start(agent: &Agent, start: Start) -> Result<(ContainerStatus, Resources), StartFault> {
    show_images(agent, &start).await?;
    let services = agent.services(&start.pod.namespace);
    let (pod, ground) = (start.pod.clone(), start.ground.clone());
    let settings = agent.settings.clone();
    let (files, node) = (agent.means.files.clone(), agent.node.clone());
    let version = format!("{:016x}", agent.means.host.chance().u64());
    let work = move || {
        let paths = Paths::new(&settings.data_dir, &start.pod.uid);
        let root = settings.root();
        let hostname = texts::hostname(&start.pod, &settings.cluster_domain).0;
        let facts = Facts {
            pod: &start.pod,
            addresses: &start.addresses,
            hostname: &hostname,
            node: &node,
            sources: &start.ground.sources,
            services: &services,
        };
        let making = Making {
            files: &*files,
            paths: &paths,
            root: &root,
            facts,
            tokens: &start.ground.tokens,
            claims: &start.ground.claims,
            version: &version,
        };
        container_spec(&settings, &start, &making)
    };
    let spec = agent.means.host.blocking(work).await.map_err(|missing| StartFault::Config(missing.0))?;
    let wanted = Resources { oom_score_adj: None, ..spec.resources.clone() };
    let started = async {
        let armed = agent.fence.arm(agent, &pod).await;
        armed.map_err(|error| StartFault::Runtime(spelled(&error)))?;
        if csi::is_shut(agent, &pod, &ground.claims).await {
            return Err(StartFault::Shut);
        }
        agent.means.runtime.start(spec).await.map_err(start_fault)
    };
    match started.await {
        Ok(status) => Ok((status, wanted)),
        Err(StartFault::Runtime(_) | StartFault::ImageGone) if !is_here(agent, &pod.uid).await => {
            Err(StartFault::SandboxGone)
        }
        Err(fault) => Err(fault),
    }
}

/// Whether a pod has a sandbox, as far as can be known.
async fn is_here(agent: &Agent, uid: &str) -> bool {
    let all = agent.means.runtime.sandboxes().await;
    all.map_or(true, |all| all.iter().any(|sandbox| sandbox.spec.pod_uid == uid))
}

/// Shows the images of the volumes that a container mounts.
async fn show_images(agent: &Agent, start: &Start) -> Result<(), StartFault> {
    let paths = Paths::new(&agent.settings.data_dir, &start.pod.uid);
    for (volume, _) in start.pod.shown_images(&start.member) {
        let image = start.shown_images.get(volume).map(|shown| &shown.image);
        let Some(Step::Done(here)) = image else { return Err(StartFault::ImageGone) };
        let shown = agent.means.runtime.show_image(&here.image.id, &paths.volume(volume)).await;
        shown.map_err(start_fault)?;
    }
    Ok(())
}

fn start_fault(error: RuntimeError) -> StartFault {
    match error {
        RuntimeError::Config(why) => StartFault::Config(why),
        RuntimeError::Start(why) => StartFault::Program(why),
        RuntimeError::Shut => StartFault::Shut,
        error @ RuntimeError::NotFound(_) => {
            tracing::debug!(%error, "a container could not be started");
            StartFault::ImageGone
        }
        error => StartFault::Runtime(spelled(&error)),
    }
}

fn container_spec(
    settings: &crate::settings::Settings,
    start: &Start,
    making: &Making<'_>,
) -> Result<ContainerSpec, Missing> {
    let (pod, member, image) = (&start.pod, &start.member, &start.image.image);
    let container = &member.container;
    let security = security::merge(pod, member, image, &settings.data_dir.join("seccomp"))?;
    let (env, args) = environment::resolve(member, &making.facts, image)?;
    if args.is_empty() {
        return Err(Missing("no command specified".into()));
    }
    let mut mounts = texts_mounts(settings, start, making, security.readonly_root)?;
    let log_path = container.termination_message_path.clone().filter(|path| !path.is_empty());
    let log_path = log_path.unwrap_or_else(|| "/dev/termination-log".into());
    let log = making.paths.termination_log(member.name(), start.attempt);
    making.files.write(&log, b"", 0o666).map_err(|error| Missing(error.to_string()))?;
    let own = volumes::mounts(making, member)?;
    let devices = volumes::devices(making, member)?;
    let is_covered = |mount: &Mount| own.iter().any(|other| other.target == mount.target);
    mounts.retain(|mount| !is_covered(mount));
    mounts.extend(own);
    mounts.push(file_mount(log.clone(), &log_path, false));
    let mut limits = resources::limits(member, pod);
    limits.oom_score_adj = Some(resources::oom_score_adj(member, pod, settings.machine.capacity.memory));
    let shown = image.digests.first().cloned().unwrap_or_else(|| image.id.clone());
    let kept = [(HASH, Some(member.hash.clone())), (IMAGE_ID, Some(shown)), (TARGET, member.target.clone())];
    let annotations = kept.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(ContainerSpec {
        pod_uid: pod.uid.clone(),
        name: member.name().to_owned(),
        attempt: start.attempt,
        image_id: image.id.clone(),
        image: member.image().to_owned(),
        args,
        env,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        exclusive: exclusive(making),
        devices,
        resources: limits,
        security,
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        log_len_max: settings.log_len_max,
        log_files_max: settings.log_files_max,
        termination_log: Some(log),
        annotations: annotations.collect(),
    })
}

/// The volumes that nobody may write to any more once the pod's deadline has passed, also not the kernel.
fn exclusive(making: &Making<'_>) -> Option<Exclusive> {
    let all = csi::exclusive(making.facts.pod, making.claims);
    let mounts: Vec<_> = all.iter().map(|(path, _)| path.to_path_buf()).collect();
    let within = vec![making.root.pods(), making.root.stages()];
    (!mounts.is_empty()).then_some(Exclusive { mounts, within })
}

fn file_mount(source: std::path::PathBuf, target: &str, readonly: bool) -> Mount {
    Mount { source, target: target.into(), readonly, recursive: false, propagation: "private".into() }
}

/// Writes the small files that every container finds, and gives their mounts.
fn texts_mounts(
    settings: &crate::settings::Settings,
    start: &Start,
    making: &Making<'_>,
    is_readonly: bool,
) -> Result<Vec<Mount>, Missing> {
    let (pod, machine) = (&start.pod, &settings.machine);
    let domain = &settings.cluster_domain;
    let node = texts::Resolver::read(&machine.resolv_conf);
    let resolver = texts::resolver(pod, &settings.cluster_dns, domain, &node);
    let own = if pod.is_on_host_network() { &[] } else { start.addresses.as_slice() };
    let all = [
        ("hosts", texts::hosts(pod, own, domain, &machine.hosts), false),
        ("hostname", format!("{}\n", making.facts.hostname), is_readonly),
        ("resolv.conf", resolver.write(), is_readonly),
    ];
    let mut mounts = Vec::new();
    for (name, text, readonly) in all {
        let path = making.paths.text(name);
        // A running container has the file open by its mount: it is written in place, and only when it changed.
        if making.files.read(&path).ok().as_deref() != Some(text.as_bytes()) {
            making.files.write(&path, text.as_bytes(), 0o644).map_err(|error| Missing(error.to_string()))?;
        }
        mounts.push(file_mount(path, &format!("/etc/{name}"), readonly));
    }
    Ok(mounts)
}

/// Takes down what of a pod's volumes was shut down, and then its sandbox: as long as that is there, its monitor knows why.
pub async fn take_down(agent: &Agent, pod: &PodView, ground: &Ground) -> Result<(), String> {
    csi::take_down(agent, pod, &ground.claims).await?;
    drop_sandbox(agent, &pod.uid).await
}

/// Removes a sandbox and its network, so that the pod gets another one.
pub async fn drop_sandbox(agent: &Agent, uid: &str) -> Result<(), String> {
    let detached = agent.means.network.detach(uid).await.map_err(|error| spelled(&error));
    let removed = agent.means.runtime.drop_sandbox(uid).await.map_err(|error| spelled(&error));
    detached.and(removed)
}

/// Gives back what a pod that is over holds for nobody: its addresses, and its drivers' volumes.
pub async fn release(agent: &Agent, uid: &str) -> Result<(), String> {
    agent.means.network.detach(uid).await.map_err(|error| spelled(&error))?;
    csi::tear_down(agent, uid).await
}

/// Removes everything of a pod from this node.
pub async fn remove(agent: &Agent, uid: &str) -> Result<(), String> {
    agent.means.network.detach(uid).await.map_err(|error| spelled(&error))?;
    agent.means.runtime.remove_sandbox(uid).await.map_err(|error| spelled(&error))?;
    csi::tear_down(agent, uid).await?;
    let (files, paths) = (agent.means.files.clone(), Paths::new(&agent.settings.data_dir, uid));
    let work = agent.means.host.blocking(move || volumes::clear(&*files, &paths));
    let cleared = agent.means.host.within(CLEAR_MAX, work).await;
    let cleared =
        cleared.unwrap_or_else(|| Err(std::io::Error::other("its volumes do not let go of their mounts")));
    agent.tokens.forget(uid);
    agent.health.forget(uid);
    agent.fence.forget(uid);
    agent.unused.notify_one();
    cleared.map_err(|error| error.to_string())
}
