//! Bad input and a clean end.

use std::path::Path;

use crate::harness::{Cluster, Space, process_of};
use crate::with_web;

#[test]
fn bad_input_is_refused_with_the_path_of_the_field() {
    let space = Space::new("bad");
    let refused =
        |manifest: &str| space.kubectl_refused(&["create", "--validate=strict", "-f", "-"], manifest);
    let cases = [
        (
            "metadata: {name: p}\nspec: {containers: [{name: a, image: b, portss: 3}]}",
            "unknown field \"spec.containers[0].portss\"",
        ),
        (
            "metadata: {name: P_}\nspec: {containers: [{name: a, image: b}]}",
            "metadata.name: Invalid value: \"P_\"",
        ),
        ("metadata: {name: p}\nspec: {containers: []}", "spec.containers: Required value"),
        (
            "metadata: {name: p}\nspec: {containers: [{name: a, image: b}, {name: a, image: b}]}",
            "spec.containers[1].name: Duplicate value",
        ),
        (
            "metadata: {name: p}\nspec: {containers: [{name: a, image: b, volumeMounts: [{name: v, mountPath: /v}]}]}",
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            "metadata: {name: p}\nspec: {restartPolicy: Sometimes, containers: [{name: a, image: b}]}",
            "spec.restartPolicy: Unsupported value: \"Sometimes\"",
        ),
        (
            "metadata: {name: p}\nspec: {containers: [{name: a, image: b, ports: [{containerPort: 70000}]}]}",
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000",
        ),
        (
            "metadata: {name: p}\nspec: {containers: [{name: a, image: b, resources: {limits: {memory: lots}}}]}",
            "quantities must match the regular expression",
        ),
        ("metadata: {name: p}\nspec: {containers: 7}", "spec.containers"),
    ];
    for (rest, wanted) in cases {
        let said = refused(&format!("apiVersion: v1\nkind: Pod\n{rest}\n"));
        assert!(said.contains(wanted), "{rest}\n{said}");
    }
    let said = space.kubectl_refused(&["get", "pods", "-l", "a in (b"], "");
    assert!(said.contains("BadRequest") && said.contains("a in (b"), "{said}");
    let said = space.kubectl_refused(&["get", "pods", "--field-selector=no.such=field"], "");
    assert!(said.contains("BadRequest") && said.contains("no.such"), "{said}");
    assert_eq!(space.kubectl(&["get", "pods", "-o", "name"]), "");
}

#[test]
fn what_cannot_change_is_said_to_be_so() {
    let space = Space::new("immutable");
    space.apply(crate::WEB);
    let said = space.kubectl_refused(
        &[
            "patch",
            "deployment",
            "web",
            "--type=merge",
            "-p",
            r#"{"spec":{"selector":{"matchLabels":{"app":"other"}}}}"#,
        ],
        "",
    );
    assert!(said.contains("spec.selector") && said.contains("immutable"), "{said}");
    let said = space
        .kubectl_refused(&["patch", "service", "web", "-p", r#"{"spec":{"clusterIP":"10.96.1.2"}}"#], "");
    assert!(said.contains("spec.clusterIPs[0]") && said.contains("may not change once set"), "{said}");
    let said = space.kubectl_refused(&["delete", "namespace", "default"], "");
    assert!(said.contains("Forbidden"), "{said}");
}

#[test]
fn down_leaves_nothing_behind() {
    let mut cluster = with_web();
    let pod = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    let group = group_of(process_of(&pod, &["/kintsugi", "web", "8080"]));
    assert!(!groups_named(&group).is_empty() && !links(&cluster).is_empty() && has_rules(&cluster));
    cluster.end_server(libc::SIGTERM);
    let down = cluster.binary("down").output().expect("the binary runs");
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    let dir = cluster.data_dir().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs is mounted");
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&dir)).collect();
    assert!(left.is_empty(), "{left:?}");
    let processes: Vec<String> = processes_naming(&dir);
    assert!(processes.is_empty(), "{processes:?}");
    assert_eq!(groups_named(&group), Vec::<String>::new());
    assert_eq!(links(&cluster), Vec::<String>::new());
    assert!(!has_rules(&cluster), "packet rules are left");
}

/// The command lines of processes that name a folder.
fn processes_naming(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("procfs is mounted");
    let lines =
        entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(dir)).map(|line| line.replace('\0', " ")).collect()
}

/// The control group that a cluster made for all its pods, found by one of their processes.
fn group_of(pid: i32) -> String {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("the process lives");
    let mut words = groups.lines().flat_map(|line| line.split(['/', ':']));
    words.find(|word| word.starts_with("kintsugi-")).expect("a pod is in a group of ours").to_owned()
}

/// Where a control group of this name is, in the one hierarchy or in those of the first version.
fn groups_named(name: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let below = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let places = std::iter::once(root.to_owned()).chain(below).map(|place| place.join(name));
    places.filter(|place| place.exists()).map(|place| place.display().to_string()).collect()
}

/// The links in the cluster's network beside its loopback.
fn links(cluster: &Cluster) -> Vec<String> {
    let table = cluster.within(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let table = table.expect("procfs is mounted");
    let names = table.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
    names.filter(|name| *name != "lo").map(str::to_owned).collect()
}

/// Whether the cluster's network has any table of packet rules.
fn has_rules(cluster: &Cluster) -> bool {
    cluster.within(|| {
        // nlmsghdr (length, NFT_MSG_GETTABLE of the nftables subsystem, request and dump) and nfgenmsg.
        let mut request = Vec::new();
        request.extend(20_u32.to_ne_bytes());
        request.extend(((10_u16 << 8) | 1).to_ne_bytes());
        request.extend(0x301_u16.to_ne_bytes());
        request.extend([0; 12]);
        let mut answer = [0_u8; 8192];
        // SAFETY: plain system calls on a socket of this function, with buffers that it owns.
        let len = unsafe {
            let socket =
                libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
            assert!(socket >= 0, "netlink is there");
            libc::send(socket, request.as_ptr().cast(), request.len(), 0);
            let len = libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0);
            libc::close(socket);
            usize::try_from(len).expect("the kernel answers")
        };
        answer[..len].windows(9).any(|bytes| bytes == b"kintsugi-")
    })
}
