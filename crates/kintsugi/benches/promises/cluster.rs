//! A cluster to measure: the release binary in a network namespace and a folder of its own, removed at the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use client::{Access, Client, Https, Select, WatchKind};
use futures_util::StreamExt;
use http::Method;
use kintsugi::images::DEMO_IMAGE;
use model::{Object, Tree, kinds};
use serde_json::json;

use crate::processes;

/// The pause between two looks at something that cannot be watched.
pub const GLANCE: Duration = Duration::from_millis(2);
/// How long anything may take: far beyond every aim.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long the server may take to end.
const END_PATIENCE: Duration = Duration::from_secs(15);
/// The port of the demo's web server in its pods.
pub const PORT: u16 = 8080;
/// The namespace in which is measured.
pub const NAMESPACE: &str = "default";

/// A cluster of its own; dropping it removes everything.
pub struct Cluster {
    dir: tempfile::TempDir,
    binary: PathBuf,
    server: Option<Child>,
    nodes: u8,
}

impl Cluster {
    /// An empty data directory, but for the demo's image, in a new network namespace.
    pub fn new(binary: &Path) -> Result<Self> {
        enter_new_network()?;
        let dir = tempfile::Builder::new().prefix("kintsugi-bench-").tempdir()?;
        let cluster = Self { dir, binary: binary.to_owned(), server: None, nodes: 1 };
        let output = cluster.command(&["image", "demo"]).output().context("cannot run the binary")?;
        ensure!(output.status.success(), "image demo: {}", String::from_utf8_lossy(&output.stderr));
        Ok(cluster)
    }

    /// A cluster of several nodes with storage that all of them reach, started and ready; with a client.
    pub async fn of_nodes(binary: &Path, nodes: u8) -> Result<(Self, Client)> {
        let mut cluster = Self::new(binary)?;
        cluster.nodes = nodes;
        std::fs::create_dir(cluster.shared_dir())?;
        cluster.begin().await?;
        // The further nodes have no image yet.
        let output = cluster.command(&["image", "demo"]).output().context("cannot run the binary")?;
        ensure!(output.status.success(), "image demo: {}", String::from_utf8_lossy(&output.stderr));
        // This thread answered no ping meanwhile, so a connection of before may be given up.
        let client = Client::new(Arc::new(Https::new(&cluster.access()?)?), "bench");
        Ok((cluster, client))
    }

    /// Starts the server, and waits until everything is ready; with a client.
    pub async fn begin(&mut self) -> Result<Client> {
        let began = self.up()?;
        let client = self.answering(began).await?;
        self.told_ready(began).await?;
        Ok(client)
    }

    /// The storage that all nodes reach.
    pub fn shared_dir(&self) -> PathBuf {
        self.dir.path().join("shared")
    }

    /// The same as [`Cluster::new`], started and ready; with a client.
    pub async fn started(binary: &Path) -> Result<(Self, Client)> {
        let mut cluster = Self::new(binary)?;
        let client = cluster.begin().await?;
        Ok((cluster, client))
    }

    /// Where the cluster keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn ready_file(&self) -> PathBuf {
        self.dir.path().join("ready")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(words).arg("--data-dir").arg(self.data_dir()).stdin(Stdio::null());
        command
    }

    /// Starts the server with its nodes; says when.
    pub fn up(&mut self) -> Result<Instant> {
        let mut command = self.command(&["up"]);
        if self.nodes > 1 {
            command.arg("--nodes").arg(self.nodes.to_string()).arg("--shared-dir").arg(self.shared_dir());
        }
        self.start(command)
    }

    /// Starts the server without a node; with a client.
    pub async fn begin_server_alone(&mut self) -> Result<Client> {
        let began = self.start(self.command(&["server"]))?;
        self.answering(began).await
    }

    fn start(&mut self, mut command: Command) -> Result<Instant> {
        let _ = std::fs::remove_file(self.ready_file());
        let log = File::options().create(true).append(true).open(self.dir.path().join("server.log"))?;
        command.arg("--ready-file").arg(self.ready_file()).stdout(Stdio::null()).stderr(log);
        let began = Instant::now();
        self.server = Some(command.spawn().context("cannot run the binary")?);
        Ok(began)
    }

    /// The server's process.
    pub fn server_pid(&self) -> Result<u32> {
        self.server.as_ref().map(Child::id).context("the server runs")
    }

    /// How to reach the API.
    pub fn access(&self) -> Result<Access> {
        Ok(Access::from_kubeconfig(&std::fs::read(self.data_dir().join("kubeconfig"))?)?)
    }

    /// Waits until the API says that it is ready.
    pub async fn answering(&mut self, began: Instant) -> Result<Client> {
        let mut known: Option<(Vec<u8>, Client)> = None;
        loop {
            let text = std::fs::read(self.data_dir().join("kubeconfig")).unwrap_or_default();
            if !text.is_empty() && known.as_ref().is_none_or(|(old, _)| *old != text) {
                // Read while it is written, it is not yet usable.
                known = Https::from_kubeconfig(&text)
                    .ok()
                    .map(|https| (text, Client::new(Arc::new(https), "bench")));
            }
            if let Some((_, client)) = &known {
                let request = client.request(Method::GET, "/readyz".to_owned(), None, Bytes::new())?;
                if client.call(request).await.is_ok() {
                    return Ok(client.clone());
                }
            }
            self.still_waiting(began)?;
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Waits until the server has said that everything is ready.
    pub async fn told_ready(&mut self, began: Instant) -> Result<()> {
        while !self.ready_file().exists() {
            self.still_waiting(began)?;
            tokio::time::sleep(GLANCE).await;
        }
        Ok(())
    }

    fn still_waiting(&mut self, began: Instant) -> Result<()> {
        if let Some(server) = &mut self.server
            && let Some(status) = server.try_wait()?
        {
            bail!("the server ended with {status}:\n{}", self.log());
        }
        ensure!(began.elapsed() < PATIENCE, "the server is not ready:\n{}", self.log());
        Ok(())
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// Ends the server with a signal.
    pub fn end_server(&mut self, signal: i32) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        processes::signal(server.id(), signal);
        let began = Instant::now();
        while server.try_wait()?.is_none() {
            if began.elapsed() > END_PATIENCE {
                server.kill()?;
            }
            std::thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Loses power: every process, mount, link and control group is gone; what is stored stays.
    pub fn reboot(&mut self) -> Result<()> {
        self.end_server(libc::SIGKILL)?;
        processes::lose_power(&self.data_dir())?;
        enter_new_network()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What can be removed is removed, whatever fails on the way.
        let _ = self.end_server(libc::SIGTERM);
        match self.command(&["down", "--purge"]).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("bench: down: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("bench: down: {error}"),
        }
        if std::env::var_os("KINTSUGI_BENCH_LOG").is_some() {
            eprintln!("{}", self.log());
        }
    }
}

/// Waits until a node is Ready.
pub async fn node_ready(client: &Client) -> Result<()> {
    let mut events = client.watch(&kinds::NODE, "", &Select::all(), &[]).await?;
    loop {
        let event = events.next().await.context("the watch of nodes ended")??;
        if !matches!(event.kind, WatchKind::Added | WatchKind::Modified) {
            continue;
        }
        let node: k8s_openapi::api::core::v1::Node = Object::read(event.object)?.view()?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return Ok(());
        }
    }
}

/// A container of the demo's web server with a readiness probe.
fn web(probe_seconds: u32) -> Tree {
    json!({
        "name": "web", "image": DEMO_IMAGE, "args": [PORT.to_string()], "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": PORT}, "periodSeconds": probe_seconds, "failureThreshold": 1,
        },
    })
}

/// A pod of the demo's web server.
pub fn pod(name: &str) -> Tree {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [web(10)]},
    })
}

/// A Deployment of the demo's web server, labelled `app=NAME`.
pub fn deployment(name: &str, replicas: usize, probe_seconds: u32) -> Tree {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [web(probe_seconds)]},
            },
        },
    })
}

/// Moves this thread, and with it all that it starts, into a new network namespace with its loopback up.
fn enter_new_network() -> Result<()> {
    // SAFETY: one system call; this program has one thread that opens sockets.
    ensure!(
        unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0,
        "a network namespace of its own needs root: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: plain ioctls on a socket of this function, with a request structure that it owns.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        let raised = libc::ioctl(socket, libc::SIOCSIFFLAGS, &request);
        libc::close(socket);
        ensure!(raised == 0, "cannot raise the loopback link");
    }
    Ok(())
}
