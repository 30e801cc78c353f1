//! What each level of Pod Security forbids, as one table: a line says which check holds from which version on.

use std::collections::BTreeSet;

use model::Tree;
use model::tree::{at, entries, flag, is_there, items, text, whole};

/// A pod, or the template of one.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    /// Its metadata.
    pub metadata: &'a Tree,
    /// Its spec.
    pub spec: &'a Tree,
}

/// What is forbidden, in short and in full.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// In short.
    pub reason: String,
    /// In full.
    pub detail: String,
}

/// How a check looks at a pod.
type Look = fn(&Pod<'_>) -> Option<Finding>;

/// One line of the table: from this minor version on, this holds, and the baseline check it stands in for rests.
struct Line {
    id: &'static str,
    since: u32,
    look: Look,
    instead_of: &'static str,
}

const fn line(id: &'static str, since: u32, look: Look) -> Line {
    Line { id, since, look, instead_of: "" }
}

const fn instead(id: &'static str, since: u32, look: Look, instead_of: &'static str) -> Line {
    Line { id, since, look, instead_of }
}

/// The baseline level, ordered by id and version.
const BASELINE: &[Line] = &[
    line("appArmorProfile", 0, app_armor),
    line("capabilities_baseline", 0, capabilities),
    line("hostNamespaces", 0, host_namespaces),
    line("hostPathVolumes", 0, host_paths),
    line("hostPorts", 0, host_ports),
    line("hostProbesAndHostLifecycle", 34, probed_hosts),
    line("privileged", 0, privileged),
    line("procMount", 0, proc_mount),
    line("procMount", 35, |pod| pod.unless_apart(proc_mount)),
    line("seLinuxOptions", 0, |pod| se_linux(pod, SE_LINUX_TYPES)),
    line("seLinuxOptions", 31, |pod| se_linux(pod, SE_LINUX_TYPES_31)),
    line("seccompProfile_baseline", 0, seccomp_annotations),
    line("seccompProfile_baseline", 19, |pod| seccomp(pod, false)),
    line("sysctls", 0, |pod| sysctls(pod, 0)),
    line("sysctls", 27, |pod| sysctls(pod, 27)),
    line("sysctls", 29, |pod| sysctls(pod, 29)),
    line("sysctls", 32, |pod| sysctls(pod, 32)),
    line("windowsHostProcess", 0, host_process),
];

/// What the restricted level adds, ordered by id and version.
const RESTRICTED: &[Line] = &[
    line("allowPrivilegeEscalation", 8, privilege_escalation),
    line("allowPrivilegeEscalation", 25, |pod| pod.unless_windows(privilege_escalation)),
    instead("capabilities_restricted", 22, dropped_capabilities, "capabilities_baseline"),
    instead(
        "capabilities_restricted",
        25,
        |pod| pod.unless_windows(dropped_capabilities),
        "capabilities_baseline",
    ),
    instead("procMount_restricted", 35, proc_mount, "procMount"),
    instead("restrictedVolumes", 0, volumes, "hostPathVolumes"),
    line("runAsNonRoot", 0, non_root),
    line("runAsNonRoot", 35, |pod| pod.unless_apart(non_root)),
    line("runAsUser", 23, root_user),
    line("runAsUser", 35, |pod| pod.unless_apart(root_user)),
    instead("seccompProfile_restricted", 19, |pod| seccomp(pod, true), "seccompProfile_baseline"),
    instead(
        "seccompProfile_restricted",
        25,
        |pod| pod.unless_windows(|pod| seccomp(pod, true)),
        "seccompProfile_baseline",
    ),
];

/// What a level of a minor version (`None`: the newest) forbids of a pod.
pub fn findings(restricted: bool, minor: Option<u32>, pod: &Pod<'_>) -> Vec<Finding> {
    let minor = minor.unwrap_or(u32::MAX);
    let upper = if restricted { held(RESTRICTED, minor) } else { Vec::new() };
    let rests = |line: &&Line| !upper.iter().any(|above| above.instead_of == line.id);
    let lower = held(BASELINE, minor).into_iter().filter(rests);
    lower.chain(upper.iter().copied()).filter_map(|line| (line.look)(pod)).collect()
}

/// The lines that hold at a minor version: of each check the newest that is not newer.
fn held(lines: &'static [Line], minor: u32) -> Vec<&'static Line> {
    let mut held: Vec<&Line> = Vec::new();
    for line in lines.iter().filter(|line| line.since <= minor) {
        match held.last_mut() {
            Some(last) if last.id == line.id => *last = line,
            _ => held.push(line),
        }
    }
    held
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

const SE_LINUX_TYPES: &[&str] = &["", "container_t", "container_init_t", "container_kvm_t"];
const SE_LINUX_TYPES_31: &[&str] =
    &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Kernel settings that a pod may have, and the minor version from which on it may.
const SYSCTLS: [(&str, u32); 12] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

/// Sources of volumes that a restricted pod may have.
const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_PREFIX: &str = "container.seccomp.security.alpha.kubernetes.io/";

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Tree> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| items(spec, list))
    }

    /// The names of the containers of which something is true.
    fn that(&self, is: impl FnMut(&&'a Tree) -> bool) -> Vec<&'a str> {
        self.containers().filter(is).map(|container| text(container, "name")).collect()
    }

    fn security(&self) -> &'a Tree {
        at(self.spec, "securityContext")
    }

    fn unless_windows(&self, look: Look) -> Option<Finding> {
        if text(self.spec, "os.name") == "windows" { None } else { look(self) }
    }

    /// Root in a user namespace of its own is nobody outside.
    fn unless_apart(&self, look: Look) -> Option<Finding> {
        if at(self.spec, "hostUsers").as_bool() == Some(false) { None } else { look(self) }
    }
}

fn finding(reason: impl Into<String>, detail: impl Into<String>) -> Option<Finding> {
    Some(Finding { reason: reason.into(), detail: detail.into() })
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
fn named(bad: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", bad.len()), quoted(bad))
}

/// Who set something: `pod`, containers, or both; nothing for nobody.
fn setters(pod: bool, bad: &[&str]) -> Option<String> {
    let parts: Vec<String> =
        pod.then(|| "pod".to_owned()).into_iter().chain((!bad.is_empty()).then(|| named(bad))).collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Finding> {
    let bad = pod
        .that(|container| at(container, "securityContext.allowPrivilegeEscalation").as_bool() != Some(false));
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", named(&bad));
    finding("allowPrivilegeEscalation != false", detail)
}

fn app_armor(pod: &Pod<'_>) -> Option<Finding> {
    let mut values = BTreeSet::new();
    let mut is_bad = |context: &Tree| {
        let profile = at(context, "appArmorProfile");
        let kind = text(profile, "type").to_owned();
        let bad = profile.is_object() && !matches!(kind.as_str(), "RuntimeDefault" | "Localhost");
        bad && {
            values.insert(kind);
            true
        }
    };
    let by_pod = is_bad(pod.security());
    let bad = pod.that(|container| is_bad(at(container, "securityContext")));
    let mut who: Vec<String> = setters(by_pod, &bad).into_iter().collect();
    let mut annotations: Vec<String> = Vec::new();
    for (key, value) in entries(pod.metadata, "annotations") {
        let value = value.as_str().unwrap_or_default();
        let fine = value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
        if key.starts_with(APP_ARMOR_PREFIX) && !fine {
            annotations.push(format!("{key}=\"{value}\""));
        }
    }
    annotations.sort();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(annotations).collect();
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len());
    finding(
        reason,
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&values)),
    )
}

/// The texts of a list.
fn texts<'a>(tree: &'a Tree, path: &str) -> impl Iterator<Item = &'a str> {
    items(tree, path).iter().filter_map(Tree::as_str)
}

fn capabilities(pod: &Pod<'_>) -> Option<Finding> {
    let mut beyond = BTreeSet::new();
    let bad = pod.that(|container| {
        let added = texts(container, "securityContext.capabilities.add");
        let before: Vec<&str> = added.filter(|one| !CAPABILITIES.contains(one)).collect();
        beyond.extend(before.iter().copied());
        !before.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not include {} in securityContext.capabilities.add", named(&bad), quoted(beyond));
    finding("non-default capabilities", detail)
}

fn dropped_capabilities(pod: &Pod<'_>) -> Option<Finding> {
    let keeping = pod.that(|container| {
        !texts(container, "securityContext.capabilities.drop").any(|dropped| dropped == "ALL")
    });
    let mut forbidden = BTreeSet::new();
    let adding = pod.that(|container| {
        let added = texts(container, "securityContext.capabilities.add");
        let more: Vec<&str> = added.filter(|one| *one != "NET_BIND_SERVICE").collect();
        forbidden.extend(more.iter().copied());
        !more.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", named(&keeping)));
    }
    if !adding.is_empty() {
        let added = quoted(forbidden);
        details
            .push(format!("{} must not include {added} in securityContext.capabilities.add", named(&adding)));
    }
    if details.is_empty() { None } else { finding("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Finding> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|name| flag(pod.spec, name))
        .map(|name| format!("{name}=true"))
        .collect();
    if shared.is_empty() { None } else { finding("host namespaces", shared.join(", ")) }
}

fn host_paths(pod: &Pod<'_>) -> Option<Finding> {
    let bad: Vec<&str> = items(pod.spec, "volumes")
        .iter()
        .filter(|volume| is_there(volume, "hostPath"))
        .map(|volume| text(volume, "name"))
        .collect();
    if bad.is_empty() {
        return None;
    }
    finding("hostPath volumes", format!("{} {}", plural("volume", "volumes", bad.len()), quoted(bad)))
}

fn host_ports(pod: &Pod<'_>) -> Option<Finding> {
    let mut ports = BTreeSet::new();
    let bad = pod.that(|container| {
        let own = items(container, "ports").iter().filter_map(|port| whole(port, "hostPort"));
        let own: Vec<String> = own.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        let any = !own.is_empty();
        ports.extend(own);
        any
    });
    if bad.is_empty() {
        return None;
    }
    let (uses, word) =
        (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", ports.len()).to_owned());
    let ports: Vec<String> = ports.into_iter().collect();
    finding("hostPort", format!("{} {uses} {word} {}", named(&bad), ports.join(", ")))
}

fn probed_hosts(pod: &Pod<'_>) -> Option<Finding> {
    const HANDLERS: [&str; 5] =
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop"];
    let mut hosts = BTreeSet::new();
    let bad: BTreeSet<&str> = pod
        .that(|container| {
            let before = HANDLERS.iter().flat_map(|handler| {
                ["httpGet", "tcpSocket"].map(|way| text(container, &format!("{handler}.{way}.host")))
            });
            let own: Vec<&str> = before.filter(|host| !host.is_empty()).collect();
            hosts.extend(own.iter().copied());
            !own.is_empty()
        })
        .into_iter()
        .collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let (uses, word) = (
        plural("uses", "use", bad.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
    );
    finding("probe or lifecycle host", format!("{} {uses} {word} {}", named(&bad), quoted(hosts)))
}

fn privileged(pod: &Pod<'_>) -> Option<Finding> {
    let bad = pod.that(|container| flag(container, "securityContext.privileged"));
    if bad.is_empty() {
        return None;
    }
    finding("privileged", format!("{} must not set securityContext.privileged=true", named(&bad)))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Finding> {
    let mut kinds = BTreeSet::new();
    let bad = pod.that(|container| {
        let kind = text(container, "securityContext.procMount");
        let bad = !matches!(kind, "" | "Default");
        if bad {
            kinds.insert(kind);
        }
        bad
    });
    if bad.is_empty() {
        return None;
    }
    let detail = format!("{} must not set securityContext.procMount to {}", named(&bad), quoted(kinds));
    finding("procMount", detail)
}

fn volumes(pod: &Pod<'_>) -> Option<Finding> {
    let mut kinds = BTreeSet::new();
    let mut bad = Vec::new();
    for volume in items(pod.spec, "volumes") {
        let sources = || volume.as_object().into_iter().flatten().filter(|(_, value)| value.is_object());
        if sources().any(|(source, _)| VOLUMES.contains(&source.as_str())) {
            continue;
        }
        bad.push(text(volume, "name"));
        kinds.insert(sources().next().map_or("unknown", |(source, _)| source.as_str()));
    }
    if bad.is_empty() {
        return None;
    }
    let (word, uses) = (plural("volume", "volumes", bad.len()), plural("uses", "use", bad.len()));
    let sorts = plural("restricted volume type", "restricted volume types", kinds.len());
    finding("restricted volume types", format!("{word} {} {uses} {sorts} {}", quoted(bad), quoted(kinds)))
}

fn non_root(pod: &Pod<'_>) -> Option<Finding> {
    let of_pod = at(pod.security(), "runAsNonRoot").as_bool();
    let said = |container: &Tree| at(container, "securityContext.runAsNonRoot").as_bool();
    let reason = "runAsNonRoot != true";
    let explicit = pod.that(|container| said(container) == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &explicit) {
        return finding(reason, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.that(|container| said(container).is_none() && of_pod.is_none());
    if silent.is_empty() {
        return None;
    }
    finding(reason, format!("pod or {} must set securityContext.runAsNonRoot=true", named(&silent)))
}

fn root_user(pod: &Pod<'_>) -> Option<Finding> {
    let bad = pod.that(|container| whole(container, "securityContext.runAsUser") == Some(0));
    let who = setters(whole(pod.security(), "runAsUser") == Some(0), &bad)?;
    finding("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

fn se_linux(pod: &Pod<'_>, allowed: &[&str]) -> Option<Finding> {
    let (mut kinds, mut user, mut role) = (BTreeSet::new(), false, false);
    let mut is_bad = |context: &Tree| {
        let options = at(context, "seLinuxOptions");
        let kind = text(options, "type");
        let (bad_kind, has_user, has_role) =
            (!allowed.contains(&kind), !text(options, "user").is_empty(), !text(options, "role").is_empty());
        if bad_kind {
            kinds.insert(kind.to_owned());
        }
        (user, role) = (user || has_user, role || has_role);
        bad_kind || has_user || has_role
    };
    let by_pod = is_bad(pod.security());
    let bad = pod.that(|container| is_bad(at(container, "securityContext")));
    let who = setters(by_pod, &bad)?;
    let mut what = Vec::new();
    if !kinds.is_empty() {
        what.push(format!("{} {}", plural("type", "types", kinds.len()), quoted(kinds)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    let detail = format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; "));
    finding("seLinuxOptions", detail)
}

fn seccomp_annotations(pod: &Pod<'_>) -> Option<Finding> {
    let mut forbidden = BTreeSet::new();
    let keys = std::iter::once(SECCOMP_POD.to_owned())
        .chain(pod.containers().map(|container| format!("{SECCOMP_PREFIX}{}", text(container, "name"))));
    let annotations = at(pod.metadata, "annotations");
    for key in keys {
        let Some(value) = annotations.get(&key).and_then(Tree::as_str) else { continue };
        if !matches!(value, "runtime/default" | "docker/default") && !value.starts_with("localhost/") {
            forbidden.insert(format!("{key}=\"{value}\""));
        }
    }
    if forbidden.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", forbidden.len());
    let list: Vec<String> = forbidden.into_iter().collect();
    finding("seccompProfile", format!("forbidden {word} {}", list.join(", ")))
}

/// Profiles that are set must be good ones; `must` says whether one has to be set.
fn seccomp(pod: &Pod<'_>, must: bool) -> Option<Finding> {
    let mut values = BTreeSet::new();
    let mut is_bad = |context: &Tree| {
        let profile = at(context, "seccompProfile");
        let kind = text(profile, "type").to_owned();
        let bad = profile.is_object() && !matches!(kind.as_str(), "RuntimeDefault" | "Localhost");
        bad && {
            values.insert(kind);
            true
        }
    };
    let by_pod = is_bad(pod.security());
    let bad = pod.that(|container| is_bad(at(container, "securityContext")));
    if let Some(who) = setters(by_pod, &bad) {
        let detail = format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(values));
        return finding("seccompProfile", detail);
    }
    let of_pod = at(pod.security(), "seccompProfile").is_object();
    let silent =
        pod.that(|container| !of_pod && !at(container, "securityContext.seccompProfile").is_object());
    if !must || silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named(&silent)
    );
    finding("seccompProfile", detail)
}

fn sysctls(pod: &Pod<'_>, minor: u32) -> Option<Finding> {
    let may = |name: &str| SYSCTLS.iter().any(|(known, since)| *known == name && *since <= minor);
    let bad: Vec<&str> = items(pod.security(), "sysctls")
        .iter()
        .map(|sysctl| text(sysctl, "name"))
        .filter(|name| !may(name))
        .collect();
    if bad.is_empty() { None } else { finding("forbidden sysctls", bad.join(", ")) }
}

fn host_process(pod: &Pod<'_>) -> Option<Finding> {
    let is_set = |context: &Tree| flag(context, "windowsOptions.hostProcess");
    let bad = pod.that(|container| is_set(at(container, "securityContext")));
    let who = setters(is_set(pod.security()), &bad)?;
    finding("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What a level of a version says of a pod's spec, as a refusal tells it.
    fn check(level: &str, minor: u32, spec: &str, wanted: &str) {
        let mut spec: Tree = serde_json::from_str(spec).unwrap_or_else(|why| panic!("{spec}: {why}"));
        let metadata = spec.as_object_mut().and_then(|spec| spec.remove("metadata")).unwrap_or(json!({}));
        let pod = Pod { metadata: &metadata, spec: &spec };
        let found = findings(level == "restricted", (minor > 0).then_some(minor), &pod);
        let told: Vec<String> = found.iter().map(|one| format!("{} ({})", one.reason, one.detail)).collect();
        assert_eq!(told.join(", "), wanted, "{level} {minor} {spec}");
    }

    const GOOD: &str = r#"{"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {"allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "m"}}]}"#;

    #[test]
    fn a_good_pod_is_never_minded() {
        for minor in 0..40 {
            check("restricted", minor, GOOD, "");
            check("baseline", minor, GOOD, "");
        }
    }

    #[test]
    fn a_plain_pod_is_baseline_and_not_restricted() {
        let plain = r#"{"containers": [{"name": "c"}]}"#;
        check("baseline", 0, plain, "");
        check(
            "restricted",
            0,
            plain,
            r#"allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")"#,
        );
        check(
            "restricted",
            7,
            plain,
            r#"runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)"#,
        );
    }

    #[test]
    fn baseline_minds_each_way_out_of_the_container() {
        for (spec, wanted) in [
            (r#"{"hostNetwork": true, "hostPID": true}"#, "host namespaces (hostNetwork=true, hostPID=true)"),
            (
                r#"{"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}"#,
                r#"hostPath volumes (volume "v")"#,
            ),
            (
                r#"{"initContainers": [{"name": "a", "ports": [{"hostPort": 80}]}], "containers": [{"name": "b", "ports": [{"hostPort": 8080}, {"containerPort": 1}]}]}"#,
                r#"hostPort (containers "a", "b" use hostPorts 80, 8080)"#,
            ),
            (
                r#"{"containers": [{"name": "c", "securityContext": {"privileged": true}}]}"#,
                r#"privileged (container "c" must not set securityContext.privileged=true)"#,
            ),
            (
                r#"{"ephemeralContainers": [{"name": "e", "securityContext": {"capabilities": {"add": ["NET_RAW", "KILL"]}}}]}"#,
                r#"non-default capabilities (container "e" must not include "NET_RAW" in securityContext.capabilities.add)"#,
            ),
            (
                r#"{"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}"#,
                r#"probe or lifecycle host (container "c" uses probe or lifecycle host "10.0.0.1")"#,
            ),
            (
                r#"{"securityContext": {"seLinuxOptions": {"type": "foo", "user": "u"}}}"#,
                r#"seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "foo"; user may not be set)"#,
            ),
            (
                r#"{"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "containers": [{"name": "c", "securityContext": {"seccompProfile": {"type": "Unconfined"}}}]}"#,
                r#"seccompProfile (pod and container "c" must not set securityContext.seccompProfile.type to "Unconfined")"#,
            ),
            (
                r#"{"securityContext": {"sysctls": [{"name": "a"}, {"name": "net.ipv4.tcp_rmem"}]}}"#,
                "forbidden sysctls (a)",
            ),
            (
                r#"{"containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}"#,
                r#"procMount (container "c" must not set securityContext.procMount to "Unmasked")"#,
            ),
            (
                r#"{"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}}"#,
                "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/c=\"unconfined\"\")",
            ),
            (
                r#"{"securityContext": {"windowsOptions": {"hostProcess": true}}}"#,
                "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
            ),
        ] {
            check("baseline", 0, spec, wanted);
        }
    }

    #[test]
    fn what_is_minded_depends_on_the_version() {
        let sysctl = r#"{"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}}"#;
        check("baseline", 31, sysctl, "forbidden sysctls (net.ipv4.tcp_rmem)");
        check("baseline", 32, sysctl, "");
        let apart = r#"{"hostUsers": false, "containers": [{"name": "c", "securityContext": {"procMount": "Unmasked"}}]}"#;
        check("baseline", 35, apart, "");
        check(
            "baseline",
            34,
            apart,
            r#"procMount (container "c" must not set securityContext.procMount to "Unmasked")"#,
        );
        let annotated =
            r#"{"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}}"#;
        check(
            "baseline",
            18,
            annotated,
            r#"seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod="unconfined")"#,
        );
        check("baseline", 19, annotated, "");
        check(
            "restricted",
            0,
            r#"{"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": true}, "containers": [{"name": "c"}]}"#,
            "",
        );
    }

    #[test]
    fn restricted_stands_in_for_what_baseline_says_of_the_same() {
        check(
            "restricted",
            7,
            r#"{"securityContext": {"runAsNonRoot": true}, "volumes": [{"name": "v", "hostPath": {}}, {"name": "n", "nfs": {}}]}"#,
            r#"restricted volume types (volumes "v", "n" use restricted volume types "hostPath", "nfs")"#,
        );
        check(
            "restricted",
            34,
            r#"{"securityContext": {"runAsNonRoot": true, "runAsUser": 0}}"#,
            "runAsUser=0 (pod must not set runAsUser=0)",
        );
    }
}
