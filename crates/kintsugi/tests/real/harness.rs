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
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use host::Host;
use kintsugi::faults::Faults;
use kintsugi::place::Place;
use network::links::Way;
use serde_json::{Value, json};

/// How long a cluster may take to be ready, and anything in it to happen: far beyond every promise, so that a busy
/// machine fails no test.
const PATIENCE: Duration = Duration::from_secs(120);
/// The pause between two looks.
const GLANCE: Duration = Duration::from_millis(50);
/// Clusters that run at once: each takes about a core while it starts, and memory for its pods.
const CLUSTERS_MAX: usize = 3;
/// The image that every cluster here has: this project's own binary.
pub const IMAGE: &str = "kintsugi.dev/demo/web:latest";

/// How many clusters run.
static CLUSTERS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());
/// The cluster that tests of objects share while any of them runs.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// The right to run one cluster.
struct Turn;

impl Turn {
    fn take() -> Self {
        let running = CLUSTERS.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = CLUSTERS.1.wait_while(running, |running| *running >= CLUSTERS_MAX);
        *free.unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *CLUSTERS.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        CLUSTERS.1.notify_one();
    }
}

/// A namespace of this test alone, in a cluster of one node with the demo's image that other tests use as well.
pub struct Space {
    cluster: Arc<Cluster>,
    name: &'static str,
}

impl Space {
    /// Makes a namespace in the shared cluster.
    pub fn new(name: &'static str) -> Self {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = shared.upgrade().unwrap_or_else(|| {
            let cluster = Arc::new(Cluster::start(1));
            cluster.import_demo_image();
            cluster
        });
        *shared = Arc::downgrade(&cluster);
        drop(shared);
        cluster.kubectl(&["create", "namespace", name]);
        cluster.until(&["-n", name, "get", "serviceaccount", "-o", "name"], |out| !out.is_empty());
        Self { cluster, name }
    }

    /// The cluster, where a test looks beyond its namespace.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The namespace's name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// `kubectl` in the namespace that must succeed; what it printed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.kubectl_with(args, "")
    }

    /// The same with an input.
    pub fn kubectl_with(&self, args: &[&str], input: &str) -> String {
        self.cluster.kubectl_with(&[&["-n", self.name], args].concat(), input)
    }

    /// `kubectl` in the namespace, whatever comes of it.
    pub fn kubectl_output(&self, args: &[&str], input: &str) -> Output {
        self.cluster.kubectl_output(&[&["-n", self.name], args].concat(), input)
    }

    /// `kubectl` that must fail; what it complained.
    pub fn kubectl_refused(&self, args: &[&str], input: &str) -> String {
        let output = self.kubectl_output(args, input);
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "kubectl {} succeeded:\n{out}", args.join(" "));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Applies an object or a manifest.
    pub fn apply(&self, manifest: impl std::fmt::Display) {
        self.kubectl_with(&["apply", "-f", "-"], &manifest.to_string());
    }

    /// Asks again and again until the answer is as wanted.
    pub fn until(&self, args: &[&str], wanted: impl Fn(&str) -> bool) -> String {
        self.cluster.until(&[&["-n", self.name], args].concat(), wanted)
    }

    /// Waits until a value of an object is as wanted; what it is then.
    pub fn until_value(&self, object: &str, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.until(&["get", object, "-o", &format!("jsonpath={path}")], wanted)
    }

    /// A value of an object by JSON path.
    pub fn value(&self, object: &str, path: &str) -> String {
        self.kubectl(&["get", object, "-o", &format!("jsonpath={path}")])
    }

    /// Runs a pod to its end, which must be good; what it said.
    pub fn run(&self, pod: &Value) -> String {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        self.apply(pod);
        let phase = self.until_value(&format!("pod/{name}"), "{.status.phase}", |phase| {
            phase == "Succeeded" || phase == "Failed"
        });
        let logs = self.kubectl(&["logs", name]);
        assert_eq!(phase, "Succeeded", "{}\n{logs}", self.kubectl(&["describe", "pod", name]));
        logs
    }

    /// Applies a pod and waits until it is Ready.
    pub fn start(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().expect("a pod has a name");
        self.apply(pod);
        self.until_ready(name);
    }

    /// Waits until a pod is Ready.
    pub fn until_ready(&self, pod: &str) {
        let ready = "{.status.conditions[?(@.type=='Ready')].status}";
        self.until_value(&format!("pod/{pod}"), ready, |status| status == "True");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // With the cluster goes whatever this leaves.
        self.cluster.kubectl_output(&["delete", "namespace", self.name, "--wait=false"], "");
    }
}

/// A pod of the web server on port 8080.
pub fn web_pod(name: &str) -> Value {
    pod(
        name,
        &json!({"args": ["8080"], "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1}}),
    )
}

/// A pod whose container does steps of `kintsugi tool` once.
pub fn tool_pod(name: &str, steps: &str) -> Value {
    let mut pod = pod(name, &json!({"command": tool(steps)}));
    pod["spec"]["restartPolicy"] = json!("Never");
    pod
}

/// The command of `kintsugi tool` with steps.
pub fn tool(steps: &str) -> Vec<&str> {
    [vec!["/kintsugi", "tool"], steps.split(' ').collect()].concat()
}

fn pod(name: &str, container: &Value) -> Value {
    let mut main = json!({"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent"});
    let fields = container.as_object().expect("a container is an object").clone();
    main.as_object_mut().expect("just made").extend(fields);
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [main]},
    })
}

/// The process on this machine that runs a program in the container of a pod.
pub fn process_of(pod: &str, words: &[&str]) -> i32 {
    let command: String = words.iter().map(|word| format!("{word}\0")).collect();
    let host = format!("HOSTNAME={pod}");
    let is_it = |pid: &i32| {
        let read = |what: &str| std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        read("cmdline") == command.as_bytes()
            && read("environ").split(|&b| b == 0).any(|v| v == host.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").expect("procfs is mounted");
    let mut pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(is_it).unwrap_or_else(|| panic!("no process of {pod} runs {words:?}"))
}

/// Sends a signal to a process that a cluster of ours started.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: plain system call.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "process {pid} is there");
}

/// A cluster of this test alone.
pub struct Cluster {
    dir: tempfile::TempDir,
    namespace: OwnedFd,
    server: Option<Child>,
    nodes: u8,
    /// Further settings.
    more: Vec<String>,
    _turn: Turn,
}

impl Cluster {
    /// Starts a cluster of so many nodes on an empty data directory, and waits until it is ready.
    pub fn start(nodes: u8) -> Self {
        Self::start_with(nodes, &[])
    }

    /// The same with further settings.
    pub fn start_with(nodes: u8, more: &[&str]) -> Self {
        Self::start_beside(nodes, |_| more.iter().map(|&word| word.to_owned()).collect())
    }

    /// The same, where the settings tell of programs that are started in the cluster's network before it.
    pub fn start_beside(nodes: u8, before: impl FnOnce(&Self) -> Vec<String>) -> Self {
        let (more, _turn) = (Vec::new(), Turn::take());
        let dir = tempfile::Builder::new().prefix("kintsugi-test-").tempdir().expect("a temporary folder");
        let mut cluster = Self { dir, namespace: new_network_namespace(), server: None, nodes, more, _turn };
        cluster.more = before(&cluster);
        cluster.up();
        cluster
    }

    /// The folder of the cluster, with room for a test's own files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the cluster keeps everything.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts the server and waits until it is ready.
    pub fn up(&mut self) {
        let ready = self.dir.path().join("ready");
        // Of the server before this one; that there is none is as good.
        let _ = std::fs::remove_file(&ready);
        let log = File::create(self.dir.path().join("server.log")).expect("the folder is ours");
        let mut command = self.binary("up");
        command.args(["--nodes", &self.nodes.to_string()]);
        if !self.more.iter().any(|word| word == "--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.arg("--ready-file").arg(&ready).args(&self.more);
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
        let began = Instant::now();
        while server.try_wait().expect("our own child").is_none() {
            if began.elapsed() > PATIENCE {
                server.kill().and_then(|()| server.wait()).expect("our own child");
                // A test that fails anyway keeps its own reason.
                assert!(
                    std::thread::panicking(),
                    "the server does not end at signal {signal}:\n{}",
                    self.log()
                );
            }
            std::thread::sleep(GLANCE);
        }
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
        inside(&self.namespace, program)
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

    /// `kubectl` of a user who has nothing but a token, whatever comes of it; what it printed, and what it complained.
    pub fn kubectl_as(&self, token: &str, args: &[&str]) -> (String, String) {
        let server = self.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
        let mut command = self.inside(Path::new("kubectl"));
        command.args(["--kubeconfig", "/dev/null", "--server", &server, "--token", token]);
        command.arg("--certificate-authority").arg(self.data_dir().join("pki/ca.crt")).args(args);
        command.env("KUBECACHEDIR", self.dir.path().join("kubectl-cache"));
        let output = command.output().expect("kubectl is installed");
        (String::from_utf8_lossy(&output.stdout).into(), String::from_utf8_lossy(&output.stderr).into())
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
        self.http("GET", address, path)
    }

    /// One HTTP request from inside the cluster's network to an address; the body of a 200.
    pub fn http(&self, method: &str, address: &str, path: &str) -> Option<String> {
        self.within(|| request(method, address, path).ok().flatten())
    }

    /// Asks an address until it answers.
    pub fn until_http(&self, address: &str, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            if let Some(body) = self.http_get(address, path).filter(|body| wanted(body)) {
                return body;
            }
            assert!(began.elapsed() < PATIENCE, "{address}{path} does not answer as wanted\n{}", self.log());
            std::thread::sleep(GLANCE);
        }
    }

    /// Does something on a thread in the cluster's network.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = self.namespace.as_raw_fd();
        std::thread::scope(|scope| {
            let working = scope.spawn(move || {
                // SAFETY: the thread is ours alone and ends after this; the descriptor is open.
                assert_eq!(
                    unsafe { libc::setns(namespace, libc::CLONE_NEWNET) },
                    0,
                    "the namespace is there"
                );
                work()
            });
            working.join().expect("the work does not panic")
        })
    }

    /// Does something to the cluster from inside its network.
    pub fn fault<T: Send>(&self, work: impl AsyncFnOnce(Faults) -> anyhow::Result<T> + Send) -> T {
        let place = Place::open(&self.data_dir()).expect("it is there");
        self.within(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let done = runtime.expect("a runtime").block_on(work(Faults::new(Host::real(), place)));
            done.expect("a fault that can be done")
        })
    }

    /// Cuts a node off.
    pub fn cut(&self, node: &str, way: Way) {
        self.fault(async |faults| faults.cut(node, way).await);
    }

    /// Undoes a cut.
    pub fn join(&self, node: &str) {
        self.fault(async |faults| faults.join(node).await);
    }

    /// `kubectl` running beside the test; it is killed when it is dropped.
    pub fn kubectl_beside(&self, args: &[&str]) -> Beside {
        let mut command = self.inside(Path::new("kubectl"));
        command.arg("--kubeconfig").arg(self.data_dir().join("kubeconfig")).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Beside::new(command)
    }
}

/// A program that runs beside the test.
pub struct Beside {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Beside {
    /// Starts it; its standard output has to be piped.
    pub fn new(mut command: Command) -> Self {
        let mut child = command.spawn().expect("it is installed");
        let mut out = child.stdout.take().expect("it is piped");
        let said = Arc::new(Mutex::new(String::new()));
        let hearing = said.clone();
        // Ends with the child.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = out.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..len]);
                hearing.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { child, said }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is our own child and has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Waits until it has printed what is wanted; everything it has printed.
    pub fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if wanted(&said) {
                return said;
            }
            assert!(began.elapsed() < PATIENCE, "it has printed no more than {said:?}");
            std::thread::sleep(GLANCE);
        }
    }

    /// Writes to its standard input.
    pub fn write(&mut self, text: &str) {
        use std::io::Write;
        let stdin = self.child.stdin.as_mut().expect("it is piped");
        stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).expect("it reads");
    }

    /// Waits for its end.
    pub fn end(mut self) -> std::process::ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().expect("our own child")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that no `kubectl` tells.
pub fn until_true(what: &str, mut seen: impl FnMut() -> bool) {
    let began = Instant::now();
    while !seen() {
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(GLANCE);
    }
}

fn request(method: &str, address: &str, path: &str) -> std::io::Result<Option<String>> {
    use std::io::Write;
    let address = address.parse().map_err(std::io::Error::other)?;
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
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

/// A program in a network namespace.
pub fn inside(namespace: &OwnedFd, program: &Path) -> Command {
    let mut command = Command::new(program);
    let namespace = namespace.as_raw_fd();
    // SAFETY: setns is one system call, on a descriptor that outlives the child's start.
    unsafe {
        command.pre_exec(move || match libc::setns(namespace, libc::CLONE_NEWNET) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command
}

/// A network namespace of its own with its loopback up; it goes with the descriptor and the processes inside.
pub fn new_network_namespace() -> OwnedFd {
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
