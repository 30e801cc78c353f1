//! One etcd of its own for a test, behind a gate that can be shut.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use etcd::{Care, Etcd, Heed, Settings};
use host::{Host, Tasks};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use store::{Limits, Store};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::suite;

/// How long anything may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An etcd of its own; it ends with the test.
pub struct Lab {
    host: Host,
    dir: TempDir,
    port: u16,
    tls_port: u16,
    peer_port: u16,
    gate_port: u16,
    open: Arc<watch::Sender<bool>>,
    child: Option<Child>,
    _gate: Tasks,
}

impl Lab {
    /// Starts one; `None` where there is none to start.
    pub async fn start() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            assert!(
                std::env::var("KINTSUGI_ETCD").as_deref() != Ok("required"),
                "KINTSUGI_ETCD=required, and there is no etcd on the path"
            );
            skipped();
            return None;
        }
        let (port, tls_port, peer_port) = (free_port(), free_port(), free_port());
        let gate = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let gate_port = gate.local_addr().expect("it is bound").port();
        let open = Arc::new(watch::Sender::new(true));
        let mut tasks = Tasks::new();
        tasks.spawn(keep_gate(gate, port, open.clone()));
        let dir = tempfile::tempdir().expect("a temporary folder");
        certificates(dir.path());
        let host = Host::real();
        let mut lab =
            Self { host, dir, port, tls_port, peer_port, gate_port, open, child: None, _gate: tasks };
        lab.restart().await;
        Some(lab)
    }

    /// A server's store over it.
    pub async fn store(&self) -> Store {
        self.open().await.0
    }

    /// The same, with its journal.
    pub async fn open(&self) -> (Store, Etcd) {
        self.try_open().await.expect("etcd is there")
    }

    /// The same, where it may be refused.
    pub async fn try_open(&self) -> Result<(Store, Etcd), etcd::OpenError> {
        self.open_as(suite::tagger().into(), heed()).await
    }

    /// The same, with keys that hear what the servers agree on.
    pub async fn open_as(&self, form: store::Form, heed: Heed) -> Result<(Store, Etcd), etcd::OpenError> {
        etcd::open(&self.host, &self.settings(), form, heed, Limits::default()).await
    }

    fn settings(&self) -> Settings {
        Settings::new(&format!("http://127.0.0.1:{}", self.gate_port)).expect("an address")
    }

    /// What looks after it beside the servers.
    pub fn care(&self) -> Care {
        Care::open(&self.host, &self.settings()).expect("the settings are good")
    }

    /// How it is reached over TLS, by the certificate of its authority and a client's own.
    pub fn tls(&self, authority: &str) -> Settings {
        let read = |name: &str| std::fs::read(self.dir.path().join(name)).expect("it was written");
        let url = format!("https://127.0.0.1:1,https://localhost:{}", self.tls_port);
        let mut settings = Settings::new(&url).expect("two addresses");
        settings.authority_pem = Some(read(authority));
        settings.certificate = Some((read("client.crt"), read("client.key")));
        settings
    }

    /// Starts etcd on what it had, and waits until it answers.
    pub async fn restart(&mut self) {
        let client = format!("http://127.0.0.1:{},https://127.0.0.1:{}", self.port, self.tls_port);
        let file = |name: &str| self.dir.path().join(name);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let log = std::fs::File::create(self.dir.path().join("log")).expect("the folder is there");
        let child = Command::new("etcd")
            .args(["--name", "one", "--log-level", "warn", "--logger", "zap"])
            .args(["--initial-cluster", &format!("one={peer}"), "--initial-advertise-peer-urls", &peer])
            .arg("--client-cert-auth")
            .arg("--trusted-ca-file")
            .arg(file("ca.crt"))
            .arg("--cert-file")
            .arg(file("server.crt"))
            .arg("--key-file")
            .arg(file("server.key"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--data-dir"])
            .arg(self.dir.path().join("data"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd can be started");
        self.child = Some(child);
        self.until(|| async { self.etcdctl_works() }).await;
    }

    /// Kills etcd, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it is ours");
        }
    }

    /// Loses all that etcd had.
    pub fn forget(&self) {
        std::fs::remove_dir_all(self.dir.path().join("data")).expect("etcd is not running");
    }

    /// Lets servers reach etcd no more; those who talk to it by `etcdctl` still do.
    pub async fn hide(&self) {
        self.open.send_replace(false);
        self.until(|| async { self.open.receiver_count() == 0 }).await;
    }

    /// Lets servers reach it again.
    pub fn show(&self) {
        self.open.send_replace(true);
    }

    /// Lets etcd forget all that is superseded now.
    pub fn compact(&self) {
        let told = self.etcdctl(&["get", "--write-out=json", "none"]);
        let revision = told.split("\"revision\":").nth(1).expect("the answer has a revision");
        let revision: String = revision.chars().take_while(char::is_ascii_digit).collect();
        self.etcdctl(&["compaction", &revision]);
    }

    /// Says something to etcd directly.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().expect("etcdctl is beside etcd");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn etcdctl_works(&self) -> bool {
        let answer = self.command().args(["endpoint", "health"]).output();
        answer.is_ok_and(|answer| answer.status.success())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints=http://127.0.0.1:{}", self.port));
        command
    }

    /// Waits until something is so.
    pub async fn until<F: Future<Output = bool>>(&self, is_so: impl Fn() -> F) {
        let waiting = async {
            while !is_so().await {
                self.host.sleep(Duration::from_millis(20)).await;
            }
        };
        self.host.within(PATIENCE, waiting).await.expect("it comes about");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An authority, another one, and what the first has signed for etcd and for a client.
fn certificates(dir: &Path) {
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("the folder is ours");
    let mut issuer = None;
    for name in ["other", "ca"] {
        let key = KeyPair::generate().expect("keys can be drawn");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        write(&format!("{name}.crt"), params.self_signed(&key).expect("a good request").pem());
        issuer = Some(Issuer::new(params, key));
    }
    let issuer = issuer.expect("two were made");
    for name in ["server", "client"] {
        let key = KeyPair::generate().expect("keys can be drawn");
        let mut params = CertificateParams::new(vec!["localhost".into()]).expect("a good name");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        write(&format!("{name}.crt"), params.signed_by(&key, &issuer).expect("a good request").pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// Hears of no keys.
pub fn heed() -> Heed {
    Arc::new(|_| Ok(()))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Passes connections on while it is open, and cuts them when it shuts.
async fn keep_gate(gate: tokio::net::TcpListener, port: u16, open: Arc<watch::Sender<bool>>) {
    let mut pipes = Tasks::new();
    while let Ok((mut ours, _)) = gate.accept().await {
        let mut shut = open.subscribe();
        pipes.spawn(async move {
            if !*shut.borrow() {
                return;
            }
            let Ok(mut theirs) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            tokio::select! {
                biased;
                _ = shut.wait_for(|open| !open) => {}
                _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs) => {}
            }
        });
    }
}

#[expect(clippy::print_stderr, reason = "whoever runs the tests is to know")]
fn skipped() {
    eprintln!("skipped: no etcd");
}
