//! Real clusters for tests: the real binary in a network namespace and a folder of its own, driven by real `kubectl`.
//!
//! Whatever a test leaves behind is removed when it ends, also when it fails: `kintsugi down` runs, then the folder and
//! the namespace go.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a cluster may take to be ready, and anything in it to happen: far beyond every promise, so that a busy
/// machine fails no test.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two looks.
const GLANCE: Duration = Duration::from_millis(50);

/// A cluster of this test alone.
pub struct Cluster {
    dir: tempfile::TempDir,
    namespace: OwnedFd,
    server: Option<Child>,
    nodes: u8,
}

impl Cluster {
    /// Starts a cluster of so many nodes on an empty data directory, and waits until it is ready.
    pub fn start(nodes: u8) -> Self {
        let dir = tempfile::Builder::new().prefix("kintsugi-test-").tempdir().expect("a temporary folder");
        let mut cluster = Self { dir, namespace: new_network_namespace(), server: None, nodes };
        cluster.up();
        cluster
    }

    /// Where the cluster keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the server and waits until it is ready.
    pub fn up(&mut self) {
        let ready = self.dir.path().join("ready");
        let log = File::create(self.dir.path().join("server.log")).expect("the folder is ours");
        let mut command = self.binary("up");
        command.args(["--listen", "127.0.0.1:0", "--nodes", &self.nodes.to_string()]);
        command.arg("--ready-file").arg(&ready);
        command.stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().expect("the binary runs"));
        let began = Instant::now();
        while !ready.exists() {
            let server = self.server.as_mut().expect("just started");
            if let Some(status) = server.try_wait().expect("our own child") {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            assert!(began.elapsed() < PATIENCE, "the server is not ready:\n{}", self.log());
            std::thread::sleep(GLANCE);
        }
    }

    /// Ends the server with a signal, and waits for its end.
    pub fn end_server(&mut self, signal: i32) {
        let Some(mut server) = self.server.take() else { return };
        // SAFETY: the process is our own child and has not been waited for.
        unsafe { libc::kill(server.id() as i32, signal) };
        server.wait().expect("our own child");
    }

    /// The server's process id.
    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().expect("the server runs").id()
    }

    /// What the server has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    /// The binary with a subcommand and this cluster's folder, in its network.
    pub fn binary(&self, subcommand: &str) -> Command {
        let mut command = self.inside(Path::new(env!("CARGO_BIN_EXE_kintsugi")));
        command.arg(subcommand).arg("--data-dir").arg(self.data_dir());
        command
    }

    /// A program in the cluster's network.
    pub fn inside(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let namespace = self.namespace.as_raw_fd();
        // SAFETY: setns is one system call, on a descriptor that outlives the child's start.
        unsafe {
            command.pre_exec(move || match libc::setns(namespace, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        command
    }

    /// `kubectl` with arguments and perhaps an input; its output.
    pub fn kubectl_output(&self, args: &[&str], input: &str) -> Output {
        use std::io::Write;
        let mut command = self.inside(Path::new("kubectl"));
        command.arg("--kubeconfig").arg(self.data_dir().join("kubeconfig")).args(args);
        command.env("KUBECACHEDIR", self.dir.path().join("kubectl-cache"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("kubectl is installed");
        let mut stdin = child.stdin.take().expect("it is piped");
        let input = input.to_owned();
        // A kubectl that reads nothing may be gone before all is written.
        let feeding = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().expect("our own child");
        feeding.join().expect("writing does not panic");
        output
    }

    /// `kubectl` that must succeed; what it printed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.kubectl_with(args, "")
    }

    /// The same with an input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> String {
        let output = self.kubectl_output(args, input);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl {}:\n{out}{err}\nserver:\n{}", args.join(" "), self.log());
        out.into_owned()
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) {
        self.kubectl_with(&["apply", "-f", "-"], manifest);
    }

    /// Asks `kubectl` again and again until it prints what is wanted; what it printed then.
    pub fn until(&self, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let output = self.kubectl_output(args, "");
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && wanted(&out) {
                return out;
            }
            if began.elapsed() > PATIENCE {
                let err = String::from_utf8_lossy(&output.stderr);
                let pods = self.kubectl_output(&["describe", "pods", "-A"], "").stdout;
                let pods = String::from_utf8_lossy(&pods);
                panic!(
                    "kubectl {} prints still:\n{out}{err}\n{pods}\nserver:\n{}",
                    args.join(" "),
                    self.log()
                );
            }
            std::thread::sleep(GLANCE);
        }
    }

    /// A value of an object by JSON path.
    pub fn value(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// Puts the demo's web image on the first node.
    pub fn import_demo_image(&self) {
        let output = self.binary_act(&["image", "demo"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The binary with several words before the data directory.
    pub fn binary_act(&self, words: &[&str]) -> Output {
        let mut command = self.inside(Path::new(env!("CARGO_BIN_EXE_kintsugi")));
        command.args(words).arg("--data-dir").arg(self.data_dir());
        command.output().expect("the binary runs")
    }

    /// One HTTP GET from inside the cluster's network to an address; the body of a 200.
    pub fn http_get(&self, address: &str, path: &str) -> Option<String> {
        let namespace = self.namespace.as_raw_fd();
        let (address, path) = (address.to_owned(), path.to_owned());
        let asking = std::thread::spawn(move || {
            // SAFETY: the thread is ours alone and ends after this; the descriptor is open.
            assert_eq!(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) }, 0, "the namespace is there");
            get(&address, &path).ok().flatten()
        });
        asking.join().expect("asking does not panic")
    }
}

fn get(address: &str, path: &str) -> std::io::Result<Option<String>> {
    use std::io::Write;
    let address = address.parse().map_err(std::io::Error::other)?;
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    Ok(body.filter(|_| text.starts_with("HTTP/1.1 200")))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.log());
        }
        self.end_server(libc::SIGTERM);
        let _ = self.binary("down").output();
    }
}

/// A network namespace of its own with its loopback up; it goes with the descriptor and the processes inside.
fn new_network_namespace() -> OwnedFd {
    let making = std::thread::spawn(|| {
        // SAFETY: the thread is ours alone and ends after this.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "the tests have to run as root");
        raise_loopback();
        OwnedFd::from(File::open("/proc/thread-self/ns/net").expect("procfs is mounted"))
    });
    making.join().expect("making a namespace does not panic")
}

fn raise_loopback() {
    // SAFETY: plain ioctls on a socket of this function, with a request structure that it owns.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        assert_eq!(libc::ioctl(socket, libc::SIOCSIFFLAGS, &request), 0, "loopback can be raised");
        libc::close(socket);
    }
}
