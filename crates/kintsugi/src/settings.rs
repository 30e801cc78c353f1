//! Every setting and subcommand, with its default, unit and help: one row each, here and nowhere else.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kubelet::Curve;
use model::fence::{Terms, WrongTerms};
use serde::{Deserialize, Serialize};

/// A Kubernetes that mends itself in seconds and shows every mend.
#[derive(Debug, Parser)]
#[command(name = "kintsugi", version, about, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster on this machine and serve it until stopped; its containers outlive a stop
    Up(Up),
    /// Stop and remove everything that the data directory's cluster started; what is stored stays
    Down(Down),
    /// Start a cluster, break it on purpose, and show how it heals; with three nodes and more, nodes and the server too
    Demo(Demo),
    /// List, import, pull and remove the node's images
    Image(Image),
    /// Say what this machine lacks to run a cluster, and change nothing
    Preflight,
    /// Tell why an object is as it is: what is known of it, what happened, what was mended, what to try next
    Why(Why),
    /// Break a running cluster on purpose, and say whether it kept its promises
    Drill(Drill),
    /// Serve a cluster for other machines, without a node of its own; they join by `agent`
    Server(Server),
    /// Join this machine to a cluster as a node, and run it until stopped; its containers outlive a stop
    Agent(Agent),
    /// Have a node of this machine leave: its pods end, start elsewhere at once, and its agent ends
    Leave(Leave),
    /// Make, list and delete the tokens by which machines join
    Token(Token),
    /// Look over, back up, restore and shrink what the cluster stores
    Store(Store),
}

/// Where a cluster keeps everything.
#[derive(Debug, Clone, Args)]
pub struct DataDir {
    /// The folder in which the cluster keeps everything: store, keys, images, logs, kubeconfig
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kintsugi")]
    pub data_dir: PathBuf,
}

/// The settings of `up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// Where the cluster is kept.
    #[command(flatten)]
    pub data: DataDir,
    /// What the cluster is made of.
    #[command(flatten)]
    pub cluster: Cluster,
    /// A file to write when the API answers and all nodes are Ready, for scripts; removed at the start
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// What a cluster is made of.
#[derive(Debug, Clone, Args)]
pub struct Cluster {
    /// The address and TCP port at which the API is served beside the cluster's own link; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:6443")]
    pub listen: SocketAddr,
    /// How many nodes to run; the first one in the server's own process, further ones each in a process and a network
    /// namespace of their own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=NODES_MAX))]
    pub nodes: u8,
    /// The range of addresses of Services (IPv4, /12 to /28); its first address is the API's, its tenth the cluster's
    /// name server
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    pub service_cidr: String,
    /// The range of addresses of pods (IPv4, /8 to /20); each node takes a /24 of it
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub pod_cidr: String,
    /// The range of addresses of this machine's nodes among themselves (IPv4, /24); the first is the server's. Unless
    /// given it is one of the 512 in 198.18.0.0/15, chosen by the data directory's path
    #[arg(long, value_name = "CIDR")]
    pub node_cidr: Option<String>,
    /// A further DNS name or address by which the API is reached, for its certificate; may be given several times
    #[arg(long, value_name = "NAME")]
    pub tls_san: Vec<String>,
    /// The DNS domain under which Services and pods are named
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// The directory where storage is mounted that every node reaches, such as an NFS mount; the storage class "shared"
    /// makes volumes on it that follow their pods from node to node
    #[arg(long, value_name = "DIR", value_parser = whole_path)]
    pub shared_dir: Option<PathBuf>,
    /// How failures are noticed and mended.
    #[command(flatten)]
    pub healing: Healing,
    /// Where the cluster's objects are stored.
    #[command(flatten)]
    pub store: StoreSettings,
    /// A file (AdmissionConfiguration of apiserver.config.k8s.io/v1) that says what is shown to webhooks of admission
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Who says what may be done.
    #[command(flatten)]
    pub rights: Rights,
    /// What is written down of requests.
    #[command(flatten)]
    pub audit: Audit,
    /// Who else may prove who users are.
    #[command(flatten)]
    pub strangers: Strangers,
}

/// Who says what may be done.
#[derive(Debug, Clone, Default, Args)]
pub struct Rights {
    /// Who says what may be done, in the order in which they are asked: Node, RBAC, Webhook, AlwaysAllow, AlwaysDeny
    #[arg(long, value_name = "NAME,…", default_value = "Node,RBAC", value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// A file (AuthorizationConfiguration of apiserver.config.k8s.io) that says so instead, and is read again when it changes
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "authorization_mode", "authorization_webhook_config_file", "authorization_webhook_version",
        "authorization_webhook_cache_authorized_ttl", "authorization_webhook_cache_unauthorized_ttl",
    ])]
    pub authorization_config: Option<PathBuf>,
    /// A kubeconfig that says where the webhook is that says what may be done (SubjectAccessReview)
    #[arg(long, value_name = "FILE")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// In which version of authorization.k8s.io it is asked: v1 or v1beta1
    #[arg(long, value_name = "VERSION", default_value = "v1beta1")]
    pub authorization_webhook_version: String,
    /// How long it is remembered that it allowed something
    #[arg(long, value_name = "DURATION", default_value = "5m0s")]
    pub authorization_webhook_cache_authorized_ttl: String,
    /// How long it is remembered that it did not
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub authorization_webhook_cache_unauthorized_ttl: String,
}

impl Rights {
    /// The words of a command line that say the same.
    pub fn arguments(&self) -> Vec<String> {
        if let Some(file) = &self.authorization_config {
            return vec![format!("--authorization-config={}", file.display())];
        }
        let webhook = self.authorization_webhook_config_file.as_ref().map(|file| file.display().to_string());
        let pairs = [
            ("authorization-mode", Some(self.authorization_mode.join(","))),
            ("authorization-webhook-config-file", webhook),
            ("authorization-webhook-version", Some(self.authorization_webhook_version.clone())),
            (
                "authorization-webhook-cache-authorized-ttl",
                Some(self.authorization_webhook_cache_authorized_ttl.clone()),
            ),
            (
                "authorization-webhook-cache-unauthorized-ttl",
                Some(self.authorization_webhook_cache_unauthorized_ttl.clone()),
            ),
        ];
        pairs.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?))).collect()
    }
}

/// Who else may prove who users are.
#[derive(Debug, Clone, Default, Args)]
pub struct Strangers {
    /// The URL of an OpenID Connect provider whose tokens are taken (https), as its tokens name it
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,
    /// For whom the provider's tokens have to be meant
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// Which claim is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    pub oidc_username_claim: String,
    /// What is put before the name; - for nothing. Unless given the issuer's URL and #, and nothing before an email address
    #[arg(long, value_name = "PREFIX", allow_hyphen_values = true)]
    pub oidc_username_prefix: Option<String>,
    /// Which claim holds the user's groups; without it there are none
    #[arg(long, value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What is put before each group
    #[arg(long, value_name = "PREFIX")]
    pub oidc_groups_prefix: Option<String>,
    /// What another claim must say; may be given several times
    #[arg(long, value_name = "NAME=VALUE")]
    pub oidc_required_claim: Vec<String>,
    /// The authorities that may have signed the provider's certificate (PEM); those that the machine trusts unless given
    #[arg(long, value_name = "FILE")]
    pub oidc_ca_file: Option<PathBuf>,
    /// By which algorithms the provider's tokens may be signed
    #[arg(long, value_name = "ALG,…", default_value = "RS256", value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,
    /// A kubeconfig that says where a webhook is that knows tokens (TokenReview of authentication.k8s.io/v1), and the token
    /// by which it knows us
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// How many seconds what the webhook said of a token is remembered
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub authentication_token_webhook_cache_seconds: u64,
}

impl Strangers {
    /// The words of a command line that say the same.
    pub fn arguments(&self) -> Vec<String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let seconds = self.authentication_token_webhook_cache_seconds.to_string();
        let mut pairs = vec![
            ("oidc-issuer-url", self.oidc_issuer_url.clone()),
            ("oidc-client-id", self.oidc_client_id.clone()),
            ("oidc-username-claim", Some(self.oidc_username_claim.clone())),
            ("oidc-username-prefix", self.oidc_username_prefix.clone()),
            ("oidc-groups-claim", self.oidc_groups_claim.clone()),
            ("oidc-groups-prefix", self.oidc_groups_prefix.clone()),
            ("oidc-ca-file", path(&self.oidc_ca_file)),
            ("oidc-signing-algs", Some(self.oidc_signing_algs.join(","))),
            (
                "authentication-token-webhook-config-file",
                path(&self.authentication_token_webhook_config_file),
            ),
            ("authentication-token-webhook-cache-seconds", Some(seconds)),
        ];
        pairs.extend(
            self.oidc_required_claim.iter().map(|claim| ("oidc-required-claim", Some(claim.clone()))),
        );
        pairs.into_iter().filter_map(|(name, value)| Some(format!("--{name}={}", value?))).collect()
    }
}

/// Where the cluster's objects are stored.
#[derive(Debug, Clone, Args)]
pub struct StoreSettings {
    /// An etcd cluster (v3.4 or newer) as store, so that several servers share it; `http` for loopback addresses alone.
    /// Unless given the store is in the data directory, for one server
    #[arg(long, value_name = "etcd=URL[,URL...]")]
    pub store: Option<String>,
    /// The prefix of all keys in etcd
    #[arg(long, value_name = "PREFIX", default_value = etcd::PREFIX)]
    pub store_prefix: String,
    /// The certificate of the authority that has signed those of etcd's members (PEM)
    #[arg(long, value_name = "FILE")]
    pub store_cafile: Option<PathBuf>,
    /// The certificate by which etcd knows this server (PEM)
    #[arg(long, value_name = "FILE", requires = "store_keyfile")]
    pub store_certfile: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "store_certfile")]
    pub store_keyfile: Option<PathBuf>,
}

/// Where a cluster is kept, and where its objects are stored.
#[derive(Debug, Clone, Args)]
pub struct Kept {
    /// Where the cluster is kept.
    #[command(flatten)]
    pub data: DataDir,
    /// Where its objects are stored.
    #[command(flatten)]
    pub store: StoreSettings,
}

/// How failures are noticed and mended; the same on the server and on all its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Healing {
    /// How long a node's lease lasts, in whole seconds (2 to 600): a node that is silent for longer is given up. While
    /// nodes hold a longer one, that one counts
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    pub lease_seconds: u64,
    /// How long before the end of its lease a node stops what must not run twice, in milliseconds: the time from there
    /// to the last process gone and the last write out
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub kill_millis: u64,
    /// How far any two machines' clocks may run apart, in thousandths: a lease counts as over that much later
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub clock_drift_per_mille: u32,
    /// After how long without a renewal a node's addresses are taken out of Services, in milliseconds; renewals come
    /// every quarter of a lease. Three eighths of the lease unless given
    #[arg(long, value_name = "MS")]
    pub suspicion_millis: Option<u64>,
    /// How restarts of a container that keeps ending are spaced
    #[arg(long, value_name = "CURVE", value_enum, default_value_t = RestartCurve::Healing)]
    pub restart_curve: RestartCurve,
}

/// How restarts of a container that keeps ending are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RestartCurve {
    /// Three at once, then 0.5 s, 1 s, 2 s … at most 60 s after the last start
    Healing,
    /// As Kubernetes: one at once, then 10 s, 20 s, 40 s … at most 300 s after the last end
    Kubernetes,
}

impl Default for Healing {
    fn default() -> Self {
        Self {
            lease_seconds: 4,
            kill_millis: 500,
            clock_drift_per_mille: 10,
            suspicion_millis: None,
            restart_curve: RestartCurve::Healing,
        }
    }
}

impl Healing {
    /// What the fence counts with, if it holds.
    pub fn terms(&self) -> Result<Terms, WrongTerms> {
        let told = Terms {
            kill: Duration::from_millis(self.kill_millis),
            drift_per_mille: self.clock_drift_per_mille,
            ..Terms::LAN.of_lease(Duration::from_secs(self.lease_seconds))
        };
        let suspicion = self.suspicion_millis.map_or(told.suspicion, Duration::from_millis);
        let terms = Terms { suspicion, ..told };
        terms.check().map(|()| terms)
    }

    /// How restarts are spaced.
    pub fn curve(&self) -> Curve {
        match self.restart_curve {
            RestartCurve::Healing => Curve::HEALING,
            RestartCurve::Kubernetes => Curve::KUBERNETES,
        }
    }

    /// The words of a command line that say the same.
    pub fn arguments(&self) -> Vec<String> {
        let curve = match self.restart_curve {
            RestartCurve::Healing => "healing",
            RestartCurve::Kubernetes => "kubernetes",
        };
        let mut words: Vec<String> = [
            ("--lease-seconds", self.lease_seconds.to_string()),
            ("--kill-millis", self.kill_millis.to_string()),
            ("--clock-drift-per-mille", self.clock_drift_per_mille.to_string()),
            ("--restart-curve", curve.to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        if let Some(millis) = self.suspicion_millis {
            words.extend(["--suspicion-millis".to_owned(), millis.to_string()]);
        }
        words
    }
}

/// What is written down of requests.
#[derive(Debug, Clone, Default, Args)]
pub struct Audit {
    /// A file with a Policy (audit.k8s.io/v1) that says what is written to the audit log; without one there is none
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// The file of the audit log, one event a line; - for the standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// The size in megabytes at which the file is set aside and a new one is begun; 0 for 100
    #[arg(long, value_name = "MB", default_value_t = 0)]
    pub audit_log_maxsize: u64,
    /// How many days old files are kept; 0 for ever
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    pub audit_log_maxage: u64,
    /// How many old files are kept; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub audit_log_maxbackup: usize,
    /// A kubeconfig that says where a webhook is that takes the audit log (EventLists of audit.k8s.io/v1), and the token by
    /// which it knows us
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// How many events go to the webhook at once, at most
    #[arg(long, value_name = "N", default_value_t = api::audit::BATCH_LEN, value_parser = batch_len)]
    pub audit_webhook_batch_max_size: usize,
    /// How many seconds an event waits for others that go to the webhook with it, at most
    #[arg(long, value_name = "SECONDS", default_value_t = api::audit::BATCH_WAIT.as_secs())]
    pub audit_webhook_batch_wait_seconds: u64,
    /// Whether events that are too long for the file go there without what was sent and answered, marked as cut short
    #[arg(long)]
    pub audit_log_truncate_enabled: bool,
    /// The bytes from which an event is too long for the file; one that is so even without bodies is left out
    #[arg(long, value_name = "BYTES", default_value_t = api::audit::EVENT_LEN, value_parser = bytes)]
    pub audit_log_truncate_max_event_size: usize,
    /// Taken as upstream's; events are written to the file one after the other, whatever this says
    #[arg(long, value_name = "BYTES", default_value_t = api::audit::BATCH_LEN_BYTES, value_parser = bytes)]
    pub audit_log_truncate_max_batch_size: usize,
    /// Whether events that are too long for the webhook go there without what was sent and answered, marked as cut short
    #[arg(long)]
    pub audit_webhook_truncate_enabled: bool,
    /// The bytes from which an event is too long for the webhook; one that is so even without bodies is left out
    #[arg(long, value_name = "BYTES", default_value_t = api::audit::EVENT_LEN, value_parser = bytes)]
    pub audit_webhook_truncate_max_event_size: usize,
    /// How many bytes of events go to the webhook at once, at most
    #[arg(long, value_name = "BYTES", default_value_t = api::audit::BATCH_LEN_BYTES, value_parser = bytes)]
    pub audit_webhook_truncate_max_batch_size: usize,
}

fn bytes(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("must be a positive number".into()),
        Ok(bytes) => Ok(bytes),
    }
}

fn batch_len(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(len @ 1..=10_000) => Ok(len),
        _ => Err("a number from 1 to 10000".into()),
    }
}

/// Nodes of one machine: a /24 of node addresses holds more, but each takes a process and two dozen MiB.
pub const NODES_MAX: i64 = 64;

/// The settings of `down`.
#[derive(Debug, Clone, Args)]
pub struct Down {
    /// Where the cluster is kept.
    #[command(flatten)]
    pub data: DataDir,
    /// Remove the data directory as well: store, keys, images
    #[arg(long)]
    pub purge: bool,
}

/// The settings of `demo`.
#[derive(Debug, Clone, Args)]
pub struct Demo {
    /// The folder in which the demo's cluster keeps everything; a new one under the temporary folder unless given
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// What the cluster is made of.
    #[command(flatten)]
    pub cluster: Cluster,
    /// Leave the cluster up when the story is over, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
}

/// The settings of `image`.
#[derive(Debug, Clone, Args)]
pub struct Image {
    /// What to do.
    #[command(subcommand)]
    pub act: ImageAct,
}

/// What to do with images.
#[derive(Debug, Clone, Subcommand)]
pub enum ImageAct {
    /// Import OCI layouts and `docker save` archives (folders, tar, tar.gz, tar.zst)
    Import {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
        /// The archives or layout folders
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Build the demo's web image from this very binary, for the examples
    Demo {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
    },
    /// List the images that are here
    List {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
    },
    /// Pull images from their registries
    Pull {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
        /// The references, such as `registry.example/app:1.2`
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove images that no container uses
    Remove {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
        /// The references or ids
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

/// The settings of `drill`.
#[derive(Debug, Clone, Args)]
pub struct Drill {
    /// What to do.
    #[command(subcommand)]
    pub act: DrillAct,
}

/// What to do with drills.
#[derive(Debug, Clone, Subcommand)]
pub enum DrillAct {
    /// Name the drills, and what each promises
    List,
    /// Run drills on the cluster of this machine, in a namespace of their own; succeeds if every promise was kept
    Run {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
        /// Which drills, in their order
        #[arg(required = true, value_name = "DRILL")]
        drills: Vec<String>,
    },
}

/// The settings of `why`.
#[derive(Debug, Clone, Args)]
pub struct Why {
    /// The object, such as `pod/web-1`, `deployment/web` or `node/node-2`
    #[arg(value_name = "KIND/NAME")]
    pub subject: String,
    /// The object's namespace, for those that have one
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Where the cluster is kept.
    #[command(flatten)]
    pub data: DataDir,
    /// The kubeconfig to ask with; the one in the data directory unless given
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// The settings of `server`.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// Where the cluster is kept.
    #[command(flatten)]
    pub data: DataDir,
    /// What the cluster is made of.
    #[command(flatten)]
    pub cluster: Cluster,
    /// The address at which other machines and their pods reach the API; that of --listen unless given
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<IpAddr>,
    /// A file to write when the API answers, for scripts; removed at the start
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// The settings of a node's agent.
#[derive(Debug, Clone, Args)]
pub struct Agent {
    /// The agent's own settings, as `up` wrote them (JSON)
    #[arg(long, value_name = "FILE", hide = true)]
    pub settings: Option<PathBuf>,
    /// Where the node is kept.
    #[command(flatten)]
    pub data: DataDir,
    /// The server, such as `https://10.0.0.1:6443`; needed the first time. Given several times where several servers share
    /// the cluster: another one is asked when one cannot be reached
    #[arg(long, value_name = "URL")]
    pub server: Vec<String>,
    /// The token by which to join (`kintsugi token create`); needed the first time, and when the node's certificate has expired
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// The hash by which the cluster's authority is known, as `token create` prints it; without it the token's signature must do
    #[arg(long, value_name = "sha256:HEX")]
    pub ca_hash: Option<String>,
    /// The node's name; the machine's name unless given
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// The address at which others reach the node; the one from which the server is reached unless given
    #[arg(long, value_name = "ADDR")]
    pub node_address: Option<IpAddr>,
    /// The directory where storage is mounted that every node reaches, the same as the server's
    #[arg(long, value_name = "DIR", value_parser = whole_path)]
    pub shared_dir: Option<PathBuf>,
    /// How long the node's certificates are to be good for, in seconds; the server's year unless given
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(600..))]
    pub certificate_seconds: Option<u64>,
}

/// The settings of `leave`.
#[derive(Debug, Clone, Args)]
pub struct Leave {
    /// Where the node is kept.
    #[command(flatten)]
    pub data: DataDir,
    /// The node's name; the one whose agent runs, unless given
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
}

/// The settings of `token`.
#[derive(Debug, Clone, Args)]
pub struct Token {
    /// What to do.
    #[command(subcommand)]
    pub act: TokenAct,
}

/// What to do with tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenAct {
    /// Make a token, and print it and the command by which a machine joins with it
    Create {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
        /// How long the token is good for, in seconds; 0 for ever
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
        ttl_seconds: u64,
        /// What it is for, in words
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List the tokens, without what is secret of them
    List {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
    },
    /// Sign the tokens of service accounts with a new key; those that older keys signed stay good. Works while the server runs
    RotateKey {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
        /// Let go of all keys but the newest instead: what they signed is good no more
        #[arg(long)]
        drop_old: bool,
    },
    /// Delete a token: nobody joins with it any more
    Delete {
        /// Where the cluster is kept.
        #[command(flatten)]
        data: DataDir,
        /// The token, or its first six characters
        #[arg(value_name = "TOKEN")]
        token: String,
    },
}

/// The settings of `store`.
#[derive(Debug, Clone, Args)]
pub struct Store {
    /// What to do.
    #[command(subcommand)]
    pub act: StoreAct,
}

/// What to do with the store.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreAct {
    /// Say what is damaged, where, and what to do; changes nothing, and works while the server runs
    Check {
        /// Where the cluster is kept.
        #[command(flatten)]
        kept: Kept,
        /// Look over this backup instead
        #[arg(long, value_name = "FILE")]
        backup: Option<PathBuf>,
    },
    /// Write all that is stored, as of one revision, into a new file; works while the server runs
    Backup {
        /// Where the cluster is kept.
        #[command(flatten)]
        kept: Kept,
        /// The file to be made
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make the store of a data directory, or one in etcd, from a backup, while no server runs on it
    Restore {
        /// Where the cluster is kept.
        #[command(flatten)]
        kept: Kept,
        /// The backup
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The keys with which the backup is sealed, where they are not those of the data directory: its `pki/store.keys` as
        /// it was when the backup was made
        #[arg(long, value_name = "FILE")]
        keys: Option<PathBuf>,
        /// Take the place of the store that is there, which is kept beside it; of one in etcd a backup is kept
        #[arg(long)]
        overwrite: bool,
        /// Your word that no node runs anything of this cluster: pods of StatefulSets and those with exclusive volumes need
        /// not wait until every node has said so. If one does, its volumes may be written twice
        #[arg(long)]
        nothing_runs: bool,
    },
    /// Shrink the log on the disk to what it takes to hold the present, or have etcd forget the past; works while the server
    /// runs
    Compact {
        /// Where the cluster is kept.
        #[command(flatten)]
        kept: Kept,
    },
    /// Seal what is secret with a new key, and let go of the old one; works while the server runs, or several on one etcd.
    /// Backups made before need the keys that they were sealed with
    RotateKey {
        /// Where the cluster is kept.
        #[command(flatten)]
        kept: Kept,
    },
}

/// A path that means the same to every process. Nothing is asked of what is there: it may be storage that does not answer.
fn whole_path(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Healing {
        let words = ["kintsugi", "up"].iter().chain(words);
        match Cli::try_parse_from(words).expect("these are settings").command {
            Command::Up(up) => up.cluster.healing,
            other => panic!("{other:?} is not up"),
        }
    }

    #[test]
    fn what_is_not_said_is_as_on_one_network() {
        assert_eq!(read(&[]), Healing::default());
        assert_eq!(read(&[]).terms(), Ok(Terms::LAN));
    }

    #[test]
    fn lengths_that_make_no_fence_are_refused() {
        let said = |words: &[&str]| read(words).terms().map_err(|why| why.to_string());
        let long = said(&["--lease-seconds", "40"]).expect("it holds");
        assert_eq!(long.suspicion, Duration::from_secs(15));
        assert_eq!(long.silence(), Duration::from_millis(40_400));
        let why = said(&["--suspicion-millis", "900"]).expect_err("renewals come every second");
        assert!(why.contains("renewed every 1s"), "{why}");
        let why = said(&["--kill-millis", "3000"]).expect_err("no time is left");
        assert!(why.contains("too short"), "{why}");
    }

    #[test]
    fn the_words_of_a_command_line_say_the_same() {
        let healing = Healing {
            lease_seconds: 8,
            suspicion_millis: Some(2500),
            restart_curve: RestartCurve::Kubernetes,
            ..Healing::default()
        };
        let words = healing.arguments();
        assert_eq!(read(&words.iter().map(String::as_str).collect::<Vec<_>>()), healing);
    }
}
