//! Several servers on one etcd, in a network namespace of their own: both serve, one leads, and losing one changes nothing but
//! the leader.
//!
//! Needs `etcd`; says so and passes where there is none, unless KINTSUGI_ETCD=required.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use kintsugi::vault::{Phase, Vault};

use crate::WEB;
use crate::harness::{inside, new_network_namespace, until_true};

const ETCD: &str = "http://127.0.0.1:2379";
const SERVERS: [(&str, &str); 3] =
    [("one", "10.77.0.1:6443"), ("two", "10.77.0.2:6443"), ("three", "10.77.0.3:6443")];

/// The processes of a cluster, by name, in one namespace.
struct Site {
    dir: tempfile::TempDir,
    namespace: OwnedFd,
    running: Vec<(&'static str, Child)>,
}

impl Site {
    /// One with etcd running; `None` where there is none.
    fn new() -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            let required = std::env::var("KINTSUGI_ETCD").is_ok_and(|value| value == "required");
            assert!(!required, "KINTSUGI_ETCD=required, and there is no etcd on the path");
            eprintln!("skipped: no etcd");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("kintsugi-servers-").tempdir().expect("a temporary folder");
        let mut site = Self { dir, namespace: new_network_namespace(), running: Vec::new() };
        for address in ["10.77.0.1/32", "10.77.0.2/32", "10.77.0.3/32"] {
            let added = site.inside("ip").args(["addr", "add", address, "dev", "lo"]).status();
            assert!(added.expect("iproute2 is installed").success());
        }
        site.start_etcd();
        Some(site)
    }

    fn inside(&self, program: &str) -> Command {
        inside(&self.namespace, Path::new(program))
    }

    fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self, name: &'static str, mut command: Command) {
        let log = File::create(self.dir.path().join(format!("{name}.log"))).expect("the folder is ours");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the program is installed");
        self.running.push((name, child));
    }

    fn start_etcd(&mut self) {
        let mut etcd = self.inside("etcd");
        etcd.args(["--log-level", "error", "--logger", "zap", "--data-dir"]).arg(self.data_dir("etcd"));
        etcd.args(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
        self.start("etcd", etcd);
    }

    fn server(&self, name: &str) -> Command {
        let (_, address) = SERVERS.iter().find(|(own, _)| *own == name).expect("one of them");
        let mut server = self.inside(env!("CARGO_BIN_EXE_kintsugi"));
        server.args(["server", "--listen", address, "--store", &format!("etcd={ETCD}"), "--data-dir"]);
        server.arg(self.data_dir(name)).env("KINTSUGI_LOG", "info");
        server
    }

    fn start_server(&mut self, name: &'static str) {
        let server = self.server(name);
        self.start(name, server);
        until_true(&format!("{name} to answer: {}", self.said(name)), || {
            self.kubectl(name, &["get", "--raw", "/readyz"]).0
        });
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    fn signal(&self, name: &str, signal: i32) {
        let (_, child) = self.running.iter().find(|(own, _)| *own == name).expect("it runs");
        // SAFETY: the process is our own child and has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
    }

    fn end(&mut self, name: &str, signal: i32) {
        let at = self.running.iter().position(|(own, _)| *own == name).expect("it runs");
        let (_, mut child) = self.running.remove(at);
        // SAFETY: the process is our own child and has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        child.wait().expect("our own child");
    }

    fn kubectl_of(&self, server: &str) -> Command {
        let mut command = self.inside("kubectl");
        command.arg("--kubeconfig").arg(self.data_dir(server).join("kubeconfig"));
        command.env("KUBECACHEDIR", self.data_dir("kubectl-cache"));
        command
    }

    fn kubectl(&self, server: &str, words: &[&str]) -> (bool, String) {
        let output = self.kubectl_of(server).args(words).output().expect("kubectl is installed");
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        // Warnings are no part of an answer.
        let beside = String::from_utf8_lossy(&output.stderr);
        beside.lines().filter(|line| !line.starts_with("Warning: ")).for_each(|line| said += line);
        (output.status.success(), said)
    }

    fn apply(&self, server: &str, manifest: &str) {
        let file = self.data_dir("manifest.yaml");
        std::fs::write(&file, manifest).expect("the folder is ours");
        let (good, said) = self.kubectl(server, &["apply", "-f", file.to_str().expect("plain text")]);
        assert!(good, "{said}");
    }

    fn until(&self, server: &str, words: &[&str], wanted: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until_true(&format!("kubectl {}", words.join(" ")), || {
                let (good, said) = self.kubectl(server, words);
                last.clone_from(&said);
                good && wanted(&said)
            });
        }));
        let logs = || ["one", "two", "a"].map(|name| format!("{name}: {}", self.said(name))).join("\n");
        assert!(seen.is_ok(), "kubectl {} prints still:\n{last}\n{}", words.join(" "), logs());
    }

    /// Does something with the store, by the keys of a server: in etcd, or in its data directory.
    fn store_command(&self, name: &str, words: &[&str], in_etcd: bool) -> Command {
        let mut command = self.inside(env!("CARGO_BIN_EXE_kintsugi"));
        command.arg("store").args(words).arg("--data-dir").arg(self.data_dir(name));
        if in_etcd {
            command.args(["--store", &format!("etcd={ETCD}")]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn store(&self, name: &str, words: &[&str], in_etcd: bool) -> (bool, String) {
        let output = self.store_command(name, words, in_etcd).output().expect("the binary runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn well(&self, name: &str, words: &[&str], in_etcd: bool) -> String {
        let (is_well, said) = self.store(name, words, in_etcd);
        assert!(is_well, "store {words:?}: {said}");
        said
    }

    /// All keys and values in etcd whose keys begin so.
    fn raw(&self, begin: &str) -> String {
        let mut command = self.inside("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", ETCD, "get", "--prefix", begin]);
        String::from_utf8_lossy(&command.output().expect("etcdctl is beside etcd").stdout).into_owned()
    }

    fn value(&self, server: &str, of: &str, path: &str) -> String {
        let (good, said) = self.kubectl(server, &["get", of, "-o", &format!("jsonpath={path}")]);
        assert!(good, "{said}");
        said
    }

    fn holder(&self, server: &str) -> String {
        let lease = ["-n", "kube-system", "get", "lease", "kintsugi-controllers"];
        self.kubectl(server, &[&lease[..], &["-o", "jsonpath={.spec.holderIdentity}"]].concat()).1
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        while let Some((name, _)) = self.running.last() {
            let name = *name;
            self.end(name, libc::SIGTERM);
        }
        for name in ["a", "one", "two", "three"] {
            let mut down = self.inside(env!("CARGO_BIN_EXE_kintsugi"));
            // What is left is found by its folder.
            let _ = down.args(["down", "--data-dir"]).arg(self.data_dir(name)).output();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the folder is ours");
    for entry in std::fs::read_dir(from).expect("it is there").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("plain files");
    }
}

#[test]
fn losing_a_server_changes_nothing_but_the_leader() {
    let Some(mut site) = Site::new() else { return };
    site.start_server("one");

    // Who has not the cluster's keys is told what to do, and makes none of its own.
    let refused = site.server("two").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("copy that folder from one of its servers"), "{said}");
    assert!(!site.data_dir("two").join("pki/ca.crt").exists());
    copy(&site.data_dir("one").join("pki"), &site.data_dir("two").join("pki"));
    site.start_server("two");

    // Both serve, what one writes the other reads at once, and pods find both.
    for number in 0..20 {
        let (from, to) = if number % 2 == 0 { ("one", "two") } else { ("two", "one") };
        let name = format!("n{number}");
        let (good, said) = site.kubectl(from, &["create", "configmap", &name, "--from-literal=a=b"]);
        assert!(good, "{said}");
        let (good, said) = site.kubectl(to, &["get", "configmap", &name]);
        assert!(good, "{said}");
    }
    let both = "10.77.0.1 10.77.0.2";
    let endpoints = ["get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[*].addresses[*].ip}"];
    site.until("two", &endpoints, |said| said == both);

    // A machine joins by both.
    let made = site
        .inside(env!("CARGO_BIN_EXE_kintsugi"))
        .args(["token", "create", "--data-dir"])
        .arg(site.data_dir("one"))
        .output()
        .expect("the binary runs");
    let token =
        String::from_utf8_lossy(&made.stdout).split_whitespace().next().unwrap_or_default().to_owned();
    let mut agent = site.inside(env!("CARGO_BIN_EXE_kintsugi"));
    agent.args(["agent", "--node-name", "a", "--node-address", "10.77.0.3", "--token", &token, "--data-dir"]);
    agent.arg(site.data_dir("a"));
    for (_, address) in &SERVERS[..2] {
        agent.args(["--server", &format!("https://{address}")]);
    }
    site.start("a", agent);
    let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    site.until("two", &["get", "node", "a", "-o", ready], |said| said == "True");
    let built = site
        .inside(env!("CARGO_BIN_EXE_kintsugi"))
        .args(["image", "demo", "--data-dir"])
        .arg(site.data_dir("a"))
        .status();
    assert!(built.expect("the binary runs").success());
    site.apply("one", WEB);
    let replicas = ["get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}"];
    site.until("two", &replicas, |said| said == "3");

    // A watch on the other server goes on over the loss of the leader.
    let leader = site.holder("two");
    let mut watching = site
        .kubectl_of("two")
        .args(["get", "pods", "--watch", "-o", "name"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl is installed");
    let (seen, pods) = mpsc::channel();
    let lines = BufReader::new(watching.stdout.take().expect("it is piped")).lines();
    let reading =
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| _ = seen.send(line)));
    site.end("one", libc::SIGKILL);
    let (good, said) = site.kubectl("two", &["scale", "deployment", "web", "--replicas=4"]);
    assert!(good, "{said}");
    site.until("two", &replicas, |said| said == "4");
    assert_ne!(site.holder("two"), leader);
    site.until("two", &endpoints, |said| said == "10.77.0.2");
    site.until("two", &["get", "node", "a", "-o", ready], |said| said == "True");
    let names = site.kubectl("two", &["get", "pods", "-o", "name"]).1;
    let mut unseen: Vec<&str> = names.lines().collect();
    until_true("the watch to show every pod", || {
        pods.try_iter().for_each(|line| unseen.retain(|name| *name != line));
        unseen.is_empty()
    });
    watching.kill().and_then(|()| watching.wait()).expect("our own child");
    reading.join().expect("reading does not panic");

    // It comes back, and takes the lead at once when the other is stopped.
    site.start_server("one");
    site.until("one", &endpoints, |said| said == both);
    let leader = site.holder("one");
    site.end("two", libc::SIGTERM);
    site.until("one", &endpoints, |said| said == "10.77.0.1");
    until_true("the lead to change", || site.holder("one") != leader && !site.holder("one").is_empty());

    // Etcd comes and goes, and nothing else changes.
    let uids = ["get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"];
    let before = site.kubectl("one", &uids).1;
    site.end("etcd", libc::SIGKILL);
    let (good, said) = site.kubectl("one", &["get", "--raw", "/readyz"]);
    assert!(!good && said.contains("[-]etcd failed"), "{said}");
    assert!(site.kubectl("one", &["get", "--raw", "/livez"]).0);
    site.start_etcd();
    site.until("one", &uids, |said| said == before);
    let (good, said) = site.kubectl("one", &["scale", "deployment", "web", "--replicas=2"]);
    assert!(good, "{said}");
    site.until("one", &replicas, |said| said == "2");
}

#[test]
fn a_backup_goes_from_etcd_into_a_data_directory_and_back() {
    let Some(mut site) = Site::new() else { return };
    site.start_server("one");
    let secret = ["create", "secret", "generic", "s", "--from-literal=word=open-sesame"];
    assert!(site.kubectl("one", &secret).0);
    assert!(site.kubectl("one", &["create", "configmap", "before"]).0);
    let word = site.value("one", "secret/s", "{.data.word}");
    let [file, again, third] =
        ["backup", "again", "third"].map(|name| site.data_dir(name).display().to_string());
    site.well("one", &["backup", &file], true);
    assert!(!site.store("one", &["backup", &file], true).0, "a backup takes the place of nothing");
    assert!(site.well("one", &["check", "--backup", &file], true).contains("sound"));
    assert!(site.well("one", &["check"], true).contains("sound"));
    assert!(site.well("one", &["compact"], true).contains("forgotten"));
    assert!(!std::fs::read(&file).expect("it was made").windows(word.len()).any(|at| at == word.as_bytes()));

    // Neither on its own data directory nor from elsewhere while it runs.
    let restore = ["restore", &file, "--overwrite"];
    let (is_well, said) = site.store("one", &restore, true);
    assert!(!is_well && said.contains("is in use"), "{said}");
    copy(&site.data_dir("one").join("pki"), &site.data_dir("two").join("pki"));
    let (is_well, said) = site.store("two", &restore, true);
    assert!(!is_well && said.contains("a server serves on this store"), "{said}");
    assert!(site.kubectl("one", &["create", "configmap", "after"]).0);
    let newest: u64 =
        site.value("one", "configmap/after", "{.metadata.resourceVersion}").parse().expect("a number");
    site.end("one", libc::SIGTERM);
    let (is_well, said) = site.store("one", &["restore", &file], true);
    assert!(!is_well && said.contains("--overwrite takes its place"), "{said}");
    let said = site.well("one", &restore, true);
    assert!(said.contains("store.before-1.backup"), "{said}");

    // The cluster is as it was, at revisions that nobody has seen.
    site.start_server("one");
    assert_eq!(site.value("one", "secret/s", "{.data.word}"), word);
    let maps = site.kubectl("one", &["get", "configmaps", "-o", "name"]).1;
    assert!(maps.contains("configmap/before") && !maps.contains("configmap/after"), "{maps}");
    let revision = site.value("one", "configmap/before", "{.metadata.resourceVersion}");
    assert!(revision.parse::<u64>().is_ok_and(|revision| revision > newest), "{revision} {newest}");
    let watch = format!("/api/v1/configmaps?watch=1&timeoutSeconds=1&resourceVersion={newest}");
    let (_, told) = site.kubectl("one", &["get", "--raw", &watch]);
    assert!(told.contains("too old") || told.contains("Expired"), "{told}");
    assert!(!site.raw("/kintsugi/secrets/").contains(&word));
    site.end("one", libc::SIGTERM);

    // A store in a data directory is made of it, and etcd's of that one's, under another prefix.
    assert!(site.well("two", &["restore", &file], false).contains("objects"));
    assert!(site.well("two", &["check"], false).contains("sound"));
    site.well("two", &["backup", &again], false);
    let elsewhere = ["--store-prefix", "/other"];
    site.well("two", &[&["restore", &again][..], &elsewhere].concat(), true);
    assert!(site.well("two", &[&["check"][..], &elsewhere].concat(), true).contains("sound"));
    assert!(site.raw("/other/configmaps/default/before").contains("ConfigMap"));
    assert!(!site.raw("/other/").contains(&word));

    // What is none of ours, or no object, is found, and no backup pretends to hold it.
    for (key, value) in [("/other/pods/a/x", "?"), ("/other/pods/a/y", "{bad\n0 -")] {
        let mut put = site.inside("etcdctl");
        put.env("ETCDCTL_API", "3").args(["--endpoints", ETCD, "put", key, value]);
        assert!(put.output().expect("etcdctl is beside etcd").status.success());
    }
    let (is_well, said) = site.store("two", &[&["check"][..], &elsewhere].concat(), true);
    for wanted in ["/other/pods/a/x in etcd: Kintsugi did not write it", "/pods/a/y in etcd: it is no object"]
    {
        assert!(!is_well && said.contains(&format!("DAMAGED   {wanted}")), "{said}");
    }
    let (is_well, said) = site.store("two", &[&["backup", &third][..], &elsewhere].concat(), true);
    assert!(!is_well && said.contains("/other/pods/a/x"), "{said}");
}

/// The names of the keys in a server's file, the one that seals first.
fn key_names(site: &Site, server: &str) -> Vec<String> {
    let file = std::fs::read(site.data_dir(server).join("pki/store.keys")).expect("it has keys");
    let kept: serde_json::Value = serde_json::from_slice(&file).expect("they are JSON");
    let keys = kept["keys"].as_array().expect("a list").iter();
    keys.map(|key| key["id"].as_str().expect("a name").to_owned()).collect()
}

/// The key of a server after a rotation; on a slow machine whoever asked for it may have been told that it goes on by itself.
fn rotated(site: &Site, old: &[String], is_done: bool, said: &str) -> Vec<String> {
    assert!(is_done || said.contains("goes on by itself"), "{said}");
    until_true("the rotation to end", || {
        let names = key_names(site, "one");
        names.len() == 1 && names != old
    });
    key_names(site, "one")
}

/// The name of the key by which a Secret is sealed in etcd.
fn sealed_by(site: &Site, secret: &str) -> String {
    let mut command = site.inside("etcdctl");
    let key = format!("/kintsugi/secrets/default/{secret}");
    command.env("ETCDCTL_API", "3").args(["--endpoints", ETCD, "get", "--print-value-only", &key]);
    let value = command.output().expect("etcdctl is beside etcd").stdout;
    value.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_new_key_seals_on_all_servers_at_once() {
    let Some(mut site) = Site::new() else { return };
    site.start_server("one");
    copy(&site.data_dir("one").join("pki"), &site.data_dir("two").join("pki"));
    copy(&site.data_dir("one").join("pki"), &site.data_dir("three").join("pki"));
    site.start_server("two");
    let make = |site: &Site, server: &str, name: &str| {
        let made =
            site.kubectl(server, &["create", "secret", "generic", name, "--from-literal=word=open-sesame"]);
        assert!(made.0, "{}", made.1);
    };
    make(&site, "one", "s");
    let word = site.value("two", "secret/s", "{.data.word}");
    let old = key_names(&site, "one");
    assert_eq!((&old, sealed_by(&site, "s")), (&key_names(&site, "two"), old[0].clone()));

    // Both go on serving, and reading the same, while it goes on.
    let rotating = site.store_command("one", &["rotate-key"], true).spawn().expect("the binary runs");
    for number in 0..10 {
        let server = if number % 2 == 0 { "one" } else { "two" };
        make(&site, server, &format!("s{number}"));
        assert_eq!(site.value(server, "secret/s", "{.data.word}"), word);
    }
    let done = rotating.wait_with_output().expect("our own child");
    let new = rotated(&site, &old, done.status.success(), &String::from_utf8_lossy(&done.stderr));
    until_true("the other server to let go of the old key", || key_names(&site, "two") == new);
    for secret in ["s", "s0", "s3", "s9"] {
        assert_eq!(sealed_by(&site, secret), new[0], "{secret}");
        for server in ["one", "two"] {
            assert_eq!(site.value(server, &format!("secret/{secret}"), "{.data.word}"), word);
        }
    }
    assert!(!site.raw("/kintsugi/.sealing").contains("\"key\""), "the new key is not in etcd any more");

    // Who has the old key alone is told what to do; with a copy it starts, as do the others.
    let refused = site.server("three").output().expect("the binary runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("copy it from one of the servers"), "{said}");
    copy(&site.data_dir("two").join("pki"), &site.data_dir("three").join("pki"));
    site.end("one", libc::SIGTERM);
    site.start_server("three");
    site.start_server("one");
    assert_eq!(site.value("three", "secret/s", "{.data.word}"), word);
    assert_eq!(site.value("one", "secret/s9", "{.data.word}"), word);

    // A rotation that was begun and left goes on by whoever starts, also one that has the old key alone.
    for server in ["one", "two", "three"] {
        site.end(server, libc::SIGKILL);
    }
    let mut last = new;
    for phase in [Phase::Opening, Phase::Sealing] {
        let vault = Vault::open(&site.data_dir("two").join("pki/store.keys")).expect("it has keys");
        let begun = vault.propose().and_then(|agreed| agreed.at(phase).spelled()).expect("chance");
        let mut put = site.inside("etcdctl");
        put.env("ETCDCTL_API", "3").args(["--endpoints", ETCD, "put", "/kintsugi/.sealing", &begun]);
        assert!(put.output().expect("etcdctl is beside etcd").status.success());
        site.start_server("two");
        until_true("the rotation to end", || {
            let names = key_names(&site, "two");
            names.len() == 1 && names != last
        });
        last = key_names(&site, "two");
        assert_eq!(sealed_by(&site, "s"), last[0], "{phase:?}");
        assert_eq!(site.value("two", "secret/s", "{.data.word}"), word);
        site.end("two", libc::SIGKILL);
    }
    site.start_server("two");

    // From a data directory on which no server runs.
    copy(&site.data_dir("two").join("pki"), &site.data_dir("one").join("pki"));
    until_true("a rotation from there", || site.store("one", &["rotate-key"], true).0);
    assert_ne!(key_names(&site, "one"), last);
    assert_eq!(sealed_by(&site, "s"), key_names(&site, "one")[0]);
    until_true("the server to let go of the old key", || key_names(&site, "two") == key_names(&site, "one"));
    assert_eq!(site.value("two", "secret/s", "{.data.word}"), word);
}

#[test]
fn a_server_that_stood_still_while_a_key_was_rotated_seals_nothing_with_the_old_one() {
    let Some(mut site) = Site::new() else { return };
    site.start_server("one");
    copy(&site.data_dir("one").join("pki"), &site.data_dir("two").join("pki"));
    site.start_server("two");
    assert!(site.kubectl("one", &["create", "secret", "generic", "s", "--from-literal=a=b"]).0);
    let old = key_names(&site, "one");
    site.signal("two", libc::SIGSTOP);
    let (is_done, said) = site.store("one", &["rotate-key"], true);
    let new = rotated(&site, &old, is_done, &said);
    site.signal("two", libc::SIGCONT);
    // It hears of the new key before it writes; or it cannot any more, and then it serves nothing.
    let (good, said) = site.kubectl("two", &["create", "secret", "generic", "late", "--from-literal=a=b"]);
    if good {
        assert_eq!(sealed_by(&site, "late"), new[0]);
        until_true("the server to have the new key alone", || key_names(&site, "two") == new);
        assert_eq!(site.value("two", "secret/s", "{.data.a}"), "Yg==");
    } else {
        assert!(!site.kubectl("two", &["get", "--raw", "/readyz"]).0, "{said}");
        assert!(site.raw("/kintsugi/secrets/default/late").is_empty(), "{said}");
    }
    assert_eq!(site.value("one", "secret/s", "{.data.a}"), "Yg==");
}

#[test]
fn a_definition_goes_with_all_its_objects_though_its_server_is_killed() {
    let Some(mut site) = Site::new() else { return };
    site.start_server("one");
    let definition = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: leaves.trees.example.com}
spec:
  group: trees.example.com
  scope: Namespaced
  names: {plural: leaves, kind: Leaf}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";
    site.apply("one", definition);
    site.until("one", &["get", "leaves"], |out| out.contains("No resources found"));
    // More than one transaction of etcd can take.
    let leaf = |number: u32| {
        format!("---\napiVersion: trees.example.com/v1\nkind: Leaf\nmetadata: {{name: l{number}}}\n")
    };
    site.apply("one", &(0..400).map(leaf).collect::<String>());
    let definitions = ["get", "crd", "leaves.trees.example.com", "-o", "name", "--ignore-not-found"];
    let (good, said) = site.kubectl("one", &["delete", "crd", "leaves.trees.example.com", "--wait=false"]);
    assert!(good, "{said}");
    site.end("one", libc::SIGKILL);
    site.start_server("one");
    site.until("one", &definitions, |out| out.is_empty());
    // Nothing of them comes back with a definition of the same name.
    site.apply("one", definition);
    site.until("one", &["get", "leaves"], |out| out.contains("No resources found"));
    assert_eq!(site.kubectl("one", &["get", "leaves", "-o", "jsonpath={.items[*].metadata.name}"]).1, "");
}
