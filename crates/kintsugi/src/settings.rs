//! Every setting and subcommand, with its default, unit and help: one row each, here and nowhere else.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Start a cluster, break it in five ways, and show how it heals
    Demo(Demo),
    /// List, import, pull and remove the node's images
    Image(Image),
    /// Say what this machine lacks to run a cluster, and change nothing
    Preflight,
    /// Tell why an object is as it is: what is known of it, what happened, what was mended, what to try next
    Why(Why),
    /// Break a running cluster on purpose, and say whether it kept its promises
    Drill(Drill),
    /// Run one more node of a cluster (started by `up --nodes N`)
    #[command(hide = true)]
    Agent(Agent),
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
    /// The DNS domain under which Services and pods are named
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
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

/// The settings of a further node's agent.
#[derive(Debug, Clone, Args)]
pub struct Agent {
    /// The agent's own settings, as the server wrote them (JSON)
    #[arg(long, value_name = "FILE")]
    pub settings: PathBuf,
}
