//! What the kubelet asks of containers. Two real implementations: the kernel's, and the simulator's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use model::fence::Deadline;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::layout::hex;

/// A point in wall-clock time.
pub type Time = jiff::Timestamp;

/// Runs containers. One sandbox (and one monitor) a pod.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// The image that a reference names, if it is here.
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError>;
    /// Pulls an image. Two pulls of one reference at once are one.
    async fn pull(&self, reference: &str, auth: &[RegistryAuth]) -> Result<Image, RuntimeError>;
    /// All images here.
    async fn images(&self) -> Result<Vec<Image>, RuntimeError>;
    /// Removes an image that no container uses.
    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError>;
    /// Shows the files of an image, its layers merged, at a folder of the node: read-only, and no program of them can
    /// be started from there. Does nothing when something is shown there already. Unmounting ends it.
    async fn show_image(&self, image_id: &str, target: &Path) -> Result<(), RuntimeError>;

    /// Makes a pod's sandbox: its monitor, namespaces and cgroup. Making one that exists gives the one that exists;
    /// one whose monitor died is made anew, without the containers it had.
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError>;
    /// Kills what runs in it and removes it with its containers and files. Gone already counts as done.
    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError>;
    /// The same, but its logs stay: the pod is about to get another sandbox.
    async fn drop_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        self.remove_sandbox(pod_uid).await
    }
    /// Everything here, found anew from the monitors: what a restarted agent adopts.
    async fn sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError>;

    /// Creates and starts a container; returns when its program runs. News of its exit may come before this returns.
    /// Without arguments, environment entries or a working directory, the image's count.
    async fn start(&self, spec: ContainerSpec) -> Result<ContainerStatus, RuntimeError>;
    /// Sends a signal to a container's first process.
    async fn signal(&self, container: &ContainerRef, signal: i32) -> Result<(), RuntimeError>;
    /// Removes an ended container's root and state; its log stays until the sandbox goes or the log is pruned.
    async fn remove(&self, container: &ContainerRef) -> Result<(), RuntimeError>;
    /// Says until when a fenced pod may run. Its monitor kills it when that passes, whoever else is dead or hangs by then,
    /// and starts nothing afterwards until told a later time. A pod that is not fenced, or not here, is let be.
    async fn fence(&self, pod_uid: &str, deadline: Deadline) -> Result<(), RuntimeError>;
    /// Changes the limits of a running container.
    async fn resize(&self, container: &ContainerRef, resources: Resources) -> Result<(), RuntimeError>;
    /// Changes the limits of a pod as a whole.
    async fn resize_sandbox(&self, pod_uid: &str, resources: Resources) -> Result<(), RuntimeError>;

    /// Runs a command in a container and collects its output (probes, hooks): at most `output_len_max` bytes of it.
    async fn exec(
        &self,
        container: &ContainerRef,
        command: Vec<String>,
        output_len_max: usize,
    ) -> Result<ExecOutput, RuntimeError>;
    /// Runs a command in a container with streams.
    async fn exec_stream(&self, container: &ContainerRef, spec: ExecSpec) -> Result<Streams, RuntimeError>;
    /// Joins the streams of a container's first process.
    async fn attach(&self, container: &ContainerRef, spec: AttachSpec) -> Result<Streams, RuntimeError>;
    /// Opens a TCP connection to a port inside the pod's network namespace (port-forward, probes of host-less addresses).
    async fn connect(&self, pod_uid: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError>;
    /// The log of a container (one run of it), as the options ask; ends when the log ends, or never when following a running one.
    async fn log(&self, log: LogRequest) -> Result<mpsc::Receiver<Bytes>, RuntimeError>;

    /// What happens to containers, from now on. One receiver is fed; taking a new one ends the old.
    fn events(&self) -> mpsc::Receiver<RuntimeEvent>;
    /// What the containers of a pod use now.
    async fn usage(&self, pod_uid: &str) -> Result<Vec<Usage>, RuntimeError>;
}

/// A stream of bytes both ways.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// An image that is here.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// Names with tags.
    pub tags: Vec<String>,
    /// Names with digests.
    pub digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// The user its configuration names: `uid`, `name`, either with `:group`.
    pub user: String,
    /// Its entry point.
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    pub command: Vec<String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// Its working directory.
    pub working_dir: String,
    /// Volumes it declares.
    pub volumes: Vec<String>,
    /// The signal that stops it, such as `SIGTERM`; empty for the usual one.
    pub stop_signal: String,
    /// The credentials that pulled it, by [`RegistryAuth::mark`]; `None`: anybody may use it, since it was pulled by nobody in
    /// particular, or imported.
    pub pulled_with: Option<BTreeSet<String>>,
}

impl Image {
    /// Whether who has these credentials may use it without asking its registry (KEP-2535).
    pub fn is_open_to(&self, auth: &[RegistryAuth]) -> bool {
        self.pulled_with.as_ref().is_none_or(|marks| auth.iter().any(|auth| marks.contains(&auth.mark())))
    }
}

/// Credentials for a registry.
#[derive(Debug, Clone)]
pub struct RegistryAuth {
    /// `host`, `host:port` or `host/path`, as in a `dockerconfigjson`.
    pub registry: String,
    /// User name.
    pub username: String,
    /// Password or token.
    pub password: String,
}

impl RegistryAuth {
    /// What tells these credentials from others without telling them: `sha256:` of all three.
    pub fn mark(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.registry, &self.username, &self.password] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        format!("sha256:{}", hex(&hash.finalize()))
    }
}

/// What a pod's sandbox is made of.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct SandboxSpec {
    /// The pod's uid, which names the sandbox.
    pub pod_uid: String,
    /// The pod's name.
    pub name: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The host name inside.
    pub hostname: String,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// Whether it shares the node's process ids.
    pub host_pid: bool,
    /// Whether it shares the node's IPC.
    pub host_ipc: bool,
    /// Whether its containers share their process ids.
    pub share_pids: bool,
    /// Kernel settings of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of the pod as a whole.
    pub resources: Resources,
    /// Annotations kept with it, for whoever adopts it.
    pub annotations: BTreeMap<String, String>,
    /// Until when its containers may run; `None`: as long as they like. Older ones have none.
    #[serde(default)]
    pub fence: Option<Deadline>,
}

/// A sandbox as it is.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// What it was made of.
    pub spec: SandboxSpec,
    /// When it was made.
    pub created_at: Time,
    /// Where its network namespace is mounted; `None` on the node's network.
    pub netns: Option<PathBuf>,
    /// Whether its monitor answers.
    pub alive: bool,
    /// Its containers, every run of each that was not removed, oldest first.
    pub containers: Vec<ContainerStatus>,
}

/// Names one run of a container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ContainerRef {
    /// The pod's uid.
    pub pod_uid: String,
    /// The container's id, 64 hex digits.
    pub id: String,
}

/// What a container is made of, everything resolved.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct ContainerSpec {
    /// The pod's uid.
    pub pod_uid: String,
    /// The container's name in the pod.
    pub name: String,
    /// Which run of it this is, from 0.
    pub attempt: u32,
    /// The id of the image (`sha256:…`).
    pub image_id: String,
    /// The reference that the pod names.
    pub image: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// The environment, `NAME=value`.
    pub env: Vec<String>,
    /// The working directory; empty for the image's.
    pub working_dir: String,
    /// Mounts, in order.
    pub mounts: Vec<Mount>,
    /// Volumes whose file systems are shut down when the pod's deadline passes. Older ones have none.
    #[serde(default)]
    pub exclusive: Option<Exclusive>,
    /// Device nodes that are passed through, host path and path inside.
    pub devices: Vec<(PathBuf, PathBuf)>,
    /// Limits.
    pub resources: Resources,
    /// Who it runs as and what it may do.
    pub security: Security,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input is open.
    pub stdin: bool,
    /// Whether standard input closes after the first attach.
    pub stdin_once: bool,
    /// Bytes after which its log is rotated.
    pub log_len_max: u64,
    /// Rotated files kept, the current one included.
    pub log_files_max: u32,
    /// A file on the host whose content is the termination message; mounted by `mounts`.
    pub termination_log: Option<PathBuf>,
    /// Annotations kept with it, for whoever adopts it.
    pub annotations: BTreeMap<String, String>,
}

/// One mount of a container.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Mount {
    /// The path on the host (or the size in bytes for tmpfs as `tmpfs:SIZE`, `tmpfs:` without limit).
    pub source: PathBuf,
    /// The path inside.
    pub target: PathBuf,
    /// Whether it is read-only.
    pub readonly: bool,
    /// Whether mounts below the source come along.
    pub recursive: bool,
    /// How mounts propagate: `private`, `rslave`, `rshared`.
    pub propagation: String,
}

/// Volumes of a fenced pod that nobody else may write to, also not the kernel once the pod's deadline has passed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Exclusive {
    /// Where each is mounted on the host.
    pub mounts: Vec<PathBuf>,
    /// The folders in which all mounts of such a file system must be: one that is mounted elsewhere too has other users,
    /// and goes on.
    pub within: Vec<PathBuf>,
}

/// Limits and requests in the kernel's terms; `None` leaves the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// cgroup v1 `cpu.shares` (v2's weight follows from it).
    pub cpu_shares: Option<u64>,
    /// Thousandths of a core at most.
    pub cpu_limit_millis: Option<u64>,
    /// Bytes of memory at most.
    pub memory_limit: Option<u64>,
    /// Processes at most.
    pub pids_limit: Option<u64>,
    /// `oom_score_adj`; a lack of the right to lower it is tolerated.
    pub oom_score_adj: Option<i32>,
}

/// Who a container runs as and what it may do.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Security {
    /// The user; `None` for the image's.
    pub user: Option<i64>,
    /// The group; `None` for the image's or the user's.
    pub group: Option<i64>,
    /// Further groups.
    pub groups: Vec<i64>,
    /// Whether the user must not be 0.
    pub must_not_be_root: bool,
    /// Everything allowed.
    pub privileged: bool,
    /// Capabilities added, without `CAP_`; `ALL` for all.
    pub capabilities_add: Vec<String>,
    /// Capabilities dropped.
    pub capabilities_drop: Vec<String>,
    /// Whether the root is read-only.
    pub readonly_root: bool,
    /// Whether `no_new_privs` is set.
    pub no_new_privileges: bool,
    /// Which system calls are allowed.
    pub seccomp: Seccomp,
    /// Whether `/proc` is unmasked.
    pub unmasked_proc: bool,
}

/// Which system calls a container may make.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Seccomp {
    /// The runtime's default list.
    #[default]
    RuntimeDefault,
    /// All.
    Unconfined,
    /// An OCI profile on the host.
    Localhost(PathBuf),
}

/// One run of a container as it is.
#[derive(Debug, Clone)]
pub struct ContainerStatus {
    /// Which one.
    pub container: ContainerRef,
    /// Its name in the pod.
    pub name: String,
    /// Which run of it.
    pub attempt: u32,
    /// The reference that the pod names.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// When it was created.
    pub created_at: Time,
    /// Running or ended.
    pub state: ContainerState,
    /// The limits that it has.
    pub resources: Resources,
    /// The annotations it was made with.
    pub annotations: BTreeMap<String, String>,
}

/// Whether a container runs.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerState {
    /// Its first process runs.
    Running {
        /// Since when.
        started_at: Time,
        /// Its process id in the node's terms.
        pid: u32,
    },
    /// Its first process ended.
    Exited(Exit),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Exit {
    /// The exit code; 128 plus the signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether the kernel killed it for want of memory.
    pub oom_killed: bool,
    /// When it had started.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
    /// The termination message, at most 4,096 bytes.
    pub message: String,
}

/// What happens to containers.
#[derive(Debug, Clone)]
pub enum RuntimeEvent {
    /// A container's first process ended.
    Exited {
        /// Which one.
        container: ContainerRef,
        /// Its name in the pod.
        name: String,
        /// How.
        exit: Exit,
    },
    /// A monitor ended, and its containers with it.
    MonitorLost {
        /// Whose.
        pod_uid: String,
    },
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct ExecOutput {
    /// The exit code.
    pub code: i32,
    /// Standard output and error, in the order they came.
    pub output: Vec<u8>,
}

/// A command to run with streams.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether its standard input is open.
    pub stdin: bool,
}

/// Which streams of a running container to join.
#[derive(Debug, Clone, Default)]
pub struct AttachSpec {
    /// Whether to feed its standard input.
    pub stdin: bool,
    /// Whether it has a terminal.
    pub tty: bool,
}

/// The streams of a command or container.
pub struct Streams {
    /// Feeds standard input; dropping it closes the input.
    pub stdin: Option<mpsc::Sender<Bytes>>,
    /// What it prints.
    pub output: mpsc::Receiver<StreamOutput>,
    /// New sizes of the terminal: columns, rows.
    pub resize: mpsc::Sender<(u16, u16)>,
}

/// What comes out of a command.
#[derive(Debug, Clone)]
pub enum StreamOutput {
    /// Standard output (or the terminal).
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// It ended with this code; nothing follows.
    Ended(i32),
}

/// Which log, and what of it.
#[derive(Debug, Clone, Default)]
pub struct LogRequest {
    /// The pod's uid.
    pub pod_uid: String,
    /// The container's name.
    pub name: String,
    /// Which run of it; `None` for the last.
    pub attempt: Option<u32>,
    /// Whether to go on while it runs.
    pub follow: bool,
    /// Whether each line begins with its time.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines from this time on.
    pub since: Option<Time>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
}

/// What a container uses.
#[derive(Debug, Clone)]
pub struct Usage {
    /// Its name in the pod.
    pub name: String,
    /// CPU time so far, in nanoseconds.
    pub cpu_nanos: u64,
    /// Working set in bytes.
    pub memory: u64,
}

/// The addresses of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodAddresses(pub Vec<IpAddr>);

/// Why the runtime did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such image, container or sandbox here.
    #[error("{0} is not here")]
    NotFound(String),
    /// The image's name is not one (`InvalidImageName`).
    #[error("invalid image name {reference}: {why}")]
    ImageName {
        /// What was named.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// The image could not be pulled (`ErrImagePull`).
    #[error("cannot pull {reference}: {why}")]
    Pull {
        /// What was asked for.
        reference: String,
        /// Why not.
        why: String,
    },
    /// The container cannot be made as specified (`CreateContainerConfigError`): changing the pod helps, retrying does not.
    #[error("{0}")]
    Config(String),
    /// The container's program could not be started (`StartError`, exit code 128).
    #[error("{0}")]
    Start(String),
    /// The deadline has passed, and file systems of its volumes were shut down: nothing starts in this sandbox any more.
    /// A fresh one helps, once those volumes have been made anew.
    #[error("fenced: the file systems of its volumes were shut down; the pod needs a fresh sandbox")]
    Shut,
    /// The kernel or a monitor did not do it: try again.
    #[error("{doing}")]
    Failed {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
