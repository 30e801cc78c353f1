//! Machines that join: a server and two agents in network namespaces that share no link, with a router between them.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::json;

use crate::harness::{inside, new_network_namespace, tool_pod, until_true, web_pod};

/// Where the server is.
const SERVER: &str = "https://10.1.1.2:6443";

/// Three machines and the router between them, and what runs on them.
struct Site {
    dir: tempfile::TempDir,
    router: OwnedFd,
    machines: Vec<(&'static str, OwnedFd)>,
    running: Vec<(&'static str, Child)>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kintsugi-join-").tempdir().expect("a temporary folder");
        let machines = ["server", "a", "b"].map(|name| (name, new_network_namespace())).into();
        let site = Self { dir, router: new_network_namespace(), machines, running: Vec::new() };
        for (number, (_, machine)) in (1..).zip(&site.machines) {
            let (port, there) = (format!("port{number}"), site.path_of(machine));
            site.ip(&site.router, &format!("link add {port} type veth peer name eth0 netns {there}"));
            site.ip(&site.router, &format!("addr add 10.1.{number}.1/24 dev {port}"));
            site.ip(&site.router, &format!("link set {port} up"));
            site.ip(machine, &format!("addr add 10.1.{number}.2/24 dev eth0"));
            site.ip(machine, "link set eth0 up");
            site.ip(machine, &format!("route add default via 10.1.{number}.1"));
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        let done = inside(&site.router, Path::new("sh")).args(["-c", forward]).status();
        assert!(done.expect("sh is there").success());
        site
    }

    fn path_of(&self, namespace: &OwnedFd) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
    }

    fn ip(&self, namespace: &OwnedFd, words: &str) {
        let output = inside(namespace, Path::new("ip"))
            .args(words.split(' '))
            .output()
            .expect("iproute2 is installed");
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn machine(&self, name: &str) -> &OwnedFd {
        &self.machines.iter().find(|(own, _)| *own == name).expect("a machine of the site").1
    }

    fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary on a machine, with the machine's folder.
    fn binary(&self, machine: &str, words: &[&str]) -> Command {
        let mut command = inside(self.machine(machine), Path::new(env!("CARGO_BIN_EXE_kintsugi")));
        command.args(words).arg("--data-dir").arg(self.data_dir(machine));
        command
    }

    /// The same, to its end.
    fn act(&self, machine: &str, words: &[&str]) -> Output {
        self.binary(machine, words).output().expect("the binary runs")
    }

    fn said(&self, machine: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{machine}.log"))).unwrap_or_default()
    }

    fn start(&mut self, machine: &'static str, words: &[&str]) {
        let log = std::fs::File::create(self.dir.path().join(format!("{machine}.log")))
            .expect("the folder is ours");
        let child =
            self.binary(machine, words).stdout(Stdio::null()).stderr(log).spawn().expect("the binary runs");
        self.running.push((machine, child));
    }

    fn end(&mut self, machine: &str) {
        let at = self.running.iter().position(|(own, _)| *own == machine).expect("it runs");
        let (_, mut child) = self.running.remove(at);
        // SAFETY: the process is our own child and has not been waited for.
        unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
        child.wait().expect("our own child");
    }

    fn kubectl(&self, words: &[&str], input: &str) -> (bool, String) {
        use std::io::Write;
        let mut command = inside(self.machine("server"), Path::new("kubectl"));
        command.arg("--kubeconfig").arg(self.data_dir("server").join("kubeconfig")).args(words);
        command.env("KUBECACHEDIR", self.dir.path().join("kubectl-cache"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is installed");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("our own child");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn until(&self, words: &[&str], wanted: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let logs = || self.machines.iter().map(|(name, _)| self.said(name)).collect::<Vec<_>>().join("\n");
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_true(&format!("kubectl {}", words.join(" ")), || {
                let (good, said) = self.kubectl(words, "");
                last.clone_from(&said);
                good && wanted(&said)
            });
        }));
        assert!(told.is_ok(), "kubectl {} prints still:\n{last}\n{}", words.join(" "), logs());
    }

    fn until_ready(&self, node: &str) {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        self.until(&["get", "node", node, "-o", path], |said| said == "True");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for name in ["a", "b", "server"] {
            if self.running.iter().any(|(own, _)| *own == name) {
                self.end(name);
            }
            let _ = self.act(name, &["down"]);
        }
    }
}

#[test]
fn machines_join_by_a_token_and_their_pods_reach_each_other_through_a_router() {
    let mut site = Site::new();
    site.start("server", &["server", "--listen", "10.1.1.2:6443"]);
    until_true("the server to answer", || site.kubectl(&["get", "--raw", "/readyz"], "").0);
    let made = site.act("server", &["token", "create", "--description", "for tests"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let made = String::from_utf8_lossy(&made.stdout).into_owned();
    let words: Vec<&str> = made.split_whitespace().collect();
    let (token, pin) = (words[0], *words.last().expect("the hash is the last word"));
    assert!(made.contains(&format!("--server {SERVER} --token {token}")), "{made}");

    // Neither another authority's hash nor another token gets far.
    let wrong = format!("sha256:{}", "0".repeat(64));
    for (name, token, pin, why) in [
        ("a", token, wrong.as_str(), "this may be another server"),
        ("a", "abcdef.0123456789abcdef", pin, "the server gave no certificate"),
    ] {
        let refused = site.act(
            name,
            &["agent", "--server", SERVER, "--token", token, "--ca-hash", pin, "--node-name", name],
        );
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(why), "{said}");
    }

    site.start("a", &["agent", "--server", SERVER, "--token", token, "--ca-hash", pin, "--node-name", "a"]);
    site.start("b", &["agent", "--server", SERVER, "--token", token, "--node-name", "b"]);
    for name in ["a", "b"] {
        site.until_ready(name);
        let built = site.act(name, &["image", "demo"]);
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let mut pod = web_pod(&format!("web-{name}"));
        pod["metadata"]["labels"] = json!({"app": "web"});
        pod["spec"]["nodeName"] = json!(name);
        let (good, said) = site.kubectl(&["apply", "-f", "-"], &pod.to_string());
        assert!(good, "{said}");
    }
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}});
    assert!(site.kubectl(&["apply", "-f", "-"], &service.to_string()).0);
    for pod in ["web-a", "web-b"] {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        site.until(&["get", "pod", pod, "-o", path], |said| said == "True");
    }
    let ip = |pod: &str| site.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"], "").1;

    // From a pod on one machine: the pod on the other, by address and by the Service's name.
    for (from, to) in [("a", "b"), ("b", "a")] {
        let steps =
            format!("get {}:8080 then get web.default.svc.cluster.local:80", ip(&format!("web-{to}")));
        let mut pod = tool_pod(&format!("ask-{from}"), &steps);
        pod["spec"]["nodeName"] = json!(from);
        assert!(site.kubectl(&["apply", "-f", "-"], &pod.to_string()).0);
        let name = format!("ask-{from}");
        site.until(&["get", "pod", &name, "-o", "jsonpath={.status.phase}"], |phase| {
            assert_ne!(phase, "Failed", "{}", site.kubectl(&["logs", &name], "").1);
            phase == "Succeeded"
        });
        let (_, logs) = site.kubectl(&["logs", &name], "");
        assert!(logs.contains(&format!("web-{to}")), "{logs}");
    }

    // An agent that starts again needs no token, and its pod ran on.
    let uid = "jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID}";
    let before = site.kubectl(&["get", "pod", "web-a", "-o", uid], "").1;
    site.end("a");
    site.start("a", &["agent", "--node-name", "a"]);
    site.until_ready("a");
    assert_eq!(site.kubectl(&["get", "pod", "web-a", "-o", uid], "").1, before);

    // One that slept through the end of its certificate needs a token again, and is the node that it was.
    site.end("a");
    expire(&site.data_dir("server"), &site.data_dir("a").join("nodes/a/joined.json"));
    let refused = site.act("a", &["agent", "--node-name", "a"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("the certificate of node a has expired"), "{said}");
    site.start("a", &["agent", "--node-name", "a", "--token", token, "--ca-hash", pin]);
    site.until_ready("a");
    assert_eq!(site.kubectl(&["get", "pod", "web-a", "-o", uid], "").1, before);

    // A deleted token lets nobody in.
    let gone = site.act("server", &["token", "delete", token]);
    assert!(gone.status.success());
    let listed = site.act("server", &["token", "list"]);
    assert!(!String::from_utf8_lossy(&listed.stdout).contains(&token[..6]));
}

/// Puts a certificate whose time is over in the place of a node's own.
fn expire(server: &Path, file: &Path) {
    use api::auth::{pki, signing};
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("it is there");
    let authority =
        pki::PemPair { cert: read(server.join("pki/ca.crt")), key: read(server.join("pki/ca.key")) };
    let (key, request) =
        signing::new_request("system:node:a", "system:nodes", &[]).expect("keys can be drawn");
    let request = signing::read(&request).expect("own request");
    let then = "2020-01-01T00:00:00Z".parse().expect("a fixed time");
    let usages = ["digital signature".to_owned(), "client auth".to_owned()];
    let cert = signing::sign(&authority, &request, &usages, None, [1; 16], then).expect("a good authority");
    let mut joined: serde_json::Value = serde_json::from_str(&read(file.to_owned())).expect("JSON");
    joined["node"]["client"] = json!({"cert": cert, "key": key});
    std::fs::write(file, joined.to_string()).expect("it is ours");
}
