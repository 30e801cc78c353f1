//! May a pod be asked for so? The parts have files of their own; here is what speaks of the pod as a whole.

use super::super::Faults;
use super::{containers, placement, volumes};
use crate::tree::{at, entries, flag, is_set, is_there, items, text, whole};
use crate::{Tree, syntax};

/// How many name servers, search domains and characters of search domains a pod may have (what resolvers take).
const NAMESERVERS_LEN_MAX: usize = 3;
const SEARCHES_LEN_MAX: usize = 32;
const SEARCHES_SIZE_MAX: usize = 2048;

/// Where a spec stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a pod.
    Pod,
    /// In the template of something that makes pods.
    Template,
}

/// May a pod be asked for so?
pub fn check(spec: &Tree, field: &str, place: Place, faults: &mut Faults) {
    volumes::check(spec, field, faults);
    containers::check(spec, field, faults);
    check_policies(spec, field, faults);
    check_names(spec, field, faults);
    check_dns(spec, field, faults);
    check_security(&spec["securityContext"], spec, &format!("{field}.securityContext"), faults);
    placement::check(spec, field, faults);
    check_hosts(spec, field, faults);
    if let Some(seconds) = whole(spec, "activeDeadlineSeconds") {
        let reasons = syntax::within(seconds, 1, i64::from(i32::MAX));
        faults.each(format_args!("{field}.activeDeadlineSeconds"), seconds, reasons);
    }
    if place == Place::Template && is_set(spec, "ephemeralContainers") {
        let detail = "ephemeral containers not allowed in pod template";
        faults.forbidden(format!("{field}.ephemeralContainers"), detail);
    }
}

fn check_policies(spec: &Tree, field: &str, faults: &mut Faults) {
    let policies = &["Always", "OnFailure", "Never"];
    faults.one_of(format_args!("{field}.restartPolicy"), text(spec, "restartPolicy"), policies);
    let dns = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    faults.one_of(format_args!("{field}.dnsPolicy"), text(spec, "dnsPolicy"), dns);
    match text(spec, "preemptionPolicy") {
        "" => {}
        policy => {
            faults.one_of(
                format_args!("{field}.preemptionPolicy"),
                policy,
                &["Never", "PreemptLowerPriority"],
            );
        }
    }
    if !is_there(spec, "terminationGracePeriodSeconds") {
        faults.required(format!("{field}.terminationGracePeriodSeconds"), "");
    }
    for (name, amount) in entries(spec, "overhead") {
        containers::check_amount(name, amount, &format!("{field}.overhead[{name}]"), faults);
    }
    match text(spec, "os.name") {
        "" if is_there(spec, "os") => faults.required(format!("{field}.os.name"), "cannot be empty"),
        "" => {}
        name => faults.one_of(format_args!("{field}.os.name"), name, &["linux", "windows"]),
    }
}

type Rule = fn(&str) -> Vec<String>;

fn check_names(spec: &Tree, field: &str, faults: &mut Faults) {
    const NAMES: [(&str, Rule); 6] = [
        ("serviceAccountName", syntax::dns1123_subdomain),
        ("nodeName", syntax::dns1123_subdomain),
        ("hostname", syntax::dns1123_label),
        ("subdomain", syntax::dns1123_label),
        ("priorityClassName", syntax::dns1123_subdomain),
        ("runtimeClassName", syntax::dns1123_subdomain),
    ];
    for (name, rule) in NAMES {
        let value = text(spec, name);
        if !value.is_empty() {
            faults.each(format_args!("{field}.{name}"), value, rule(value));
        }
    }
    for (index, gate) in items(spec, "readinessGates").iter().enumerate() {
        let kind = text(gate, "conditionType");
        let field = format!("{field}.readinessGates[{index}].conditionType");
        faults.each(&field, kind, syntax::qualified_name(kind));
    }
    let gates: Vec<&str> = items(spec, "schedulingGates").iter().map(|gate| text(gate, "name")).collect();
    for (index, gate) in gates.iter().enumerate() {
        let field = format!("{field}.schedulingGates[{index}]");
        faults.each(&field, *gate, syntax::qualified_name(gate));
        if gates[..index].contains(gate) {
            faults.duplicate(field, *gate);
        }
    }
}

fn check_dns(spec: &Tree, field: &str, faults: &mut Faults) {
    let (config, field) = (&spec["dnsConfig"], format!("{field}.dnsConfig"));
    let (servers, searches) = (items(config, "nameservers"), items(config, "searches"));
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            return faults.required(field, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return faults.required(format!("{field}.nameservers"), detail);
        }
    }
    if servers.len() > NAMESERVERS_LEN_MAX {
        let detail = format!("must not have more than {NAMESERVERS_LEN_MAX} nameservers");
        faults.invalid(format!("{field}.nameservers"), servers.to_vec(), &detail);
    }
    for (index, server) in servers.iter().filter_map(Tree::as_str).enumerate() {
        if server.parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            faults.invalid(format!("{field}.nameservers[{index}]"), server, detail);
        }
    }
    let size: usize = searches.iter().filter_map(Tree::as_str).map(|name| name.len() + 1).sum();
    if searches.len() > SEARCHES_LEN_MAX {
        let detail = format!("must not have more than {SEARCHES_LEN_MAX} search paths");
        faults.invalid(format!("{field}.searches"), searches.to_vec(), &detail);
    }
    if size > SEARCHES_SIZE_MAX + 1 {
        let detail = format!(
            "must not have more than {SEARCHES_SIZE_MAX} characters (including spaces) in the search list"
        );
        faults.invalid(format!("{field}.searches"), searches.to_vec(), &detail);
    }
    for (index, name) in searches.iter().filter_map(Tree::as_str).enumerate().filter(|(_, name)| *name != ".")
    {
        // Underscores are taken here, as resolvers take them.
        let plain = name.strip_suffix('.').unwrap_or(name).replace('_', "a");
        faults.each(format_args!("{field}.searches[{index}]"), name, syntax::dns1123_subdomain(&plain));
    }
    for (index, _) in
        items(config, "options").iter().enumerate().filter(|(_, option)| !is_set(option, "name"))
    {
        faults.required(format!("{field}.options[{index}]"), "must not be empty");
    }
}

fn check_security(context: &Tree, spec: &Tree, field: &str, faults: &mut Faults) {
    check_ids(context, field, faults);
    for (index, group) in items(context, "supplementalGroups").iter().filter_map(Tree::as_i64).enumerate() {
        let reasons = syntax::within(group, 0, i64::from(i32::MAX));
        faults.each(format_args!("{field}.supplementalGroups[{index}]"), group, reasons);
    }
    let parent = field.trim_end_matches(".securityContext");
    if flag(spec, "shareProcessNamespace") && flag(spec, "hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        faults.invalid(format!("{parent}.shareProcessNamespace"), true, detail);
    }
    let mut names = std::collections::BTreeSet::new();
    for (index, sysctl) in items(context, "sysctls").iter().enumerate() {
        let (field, name) = (format!("{field}.sysctls[{index}].name"), text(sysctl, "name"));
        match name {
            "" => faults.required(field, ""),
            _ if !is_sysctl(name) => {
                faults.invalid(field, name, "must be a sysctl name such as kernel.shm_rmid_forced")
            }
            _ if !names.insert(name) => faults.duplicate(field, name),
            _ => {}
        }
    }
    check_seccomp(&context["seccompProfile"], &format!("{field}.seccompProfile"), faults);
    match text(context, "fsGroupChangePolicy") {
        "" => {}
        policy => {
            faults.one_of(format_args!("{field}.fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"])
        }
    }
}

/// Segments of lower case letters and digits, with `-` and `_` inside, parted by dots or slashes.
fn is_sysctl(name: &str) -> bool {
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let segment = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
            && bytes.iter().all(|b| plain(b) || matches!(b, b'-' | b'_'))
    };
    name.len() <= syntax::DNS_SUBDOMAIN_LEN_MAX && name.split(['.', '/']).all(segment)
}

/// The ids that a process, or a pod's files, may have.
pub(super) fn check_ids(context: &Tree, field: &str, faults: &mut Faults) {
    for name in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = whole(context, name) {
            faults.each(format_args!("{field}.{name}"), id, syntax::within(id, 0, i64::from(i32::MAX)));
        }
    }
}

/// A seccomp profile names a file if it is a local one, and then only.
pub(super) fn check_seccomp(profile: &Tree, field: &str, faults: &mut Faults) {
    if profile.is_null() {
        return;
    }
    let (kind, file) = (text(profile, "type"), text(profile, "localhostProfile"));
    faults.one_of(format_args!("{field}.type"), kind, &["Localhost", "RuntimeDefault", "Unconfined"]);
    match (kind, file) {
        ("Localhost", "") => {
            faults
                .required(format!("{field}.localhostProfile"), "must be set when seccomp type is Localhost");
        }
        ("Localhost", file) => volumes::check_local_path(file, &format!("{field}.localhostProfile"), faults),
        (_, "") => {}
        (_, file) => {
            let detail = "can only be set when seccomp type is Localhost";
            faults.invalid(format!("{field}.localhostProfile"), file, detail);
        }
    }
}

fn check_hosts(spec: &Tree, field: &str, faults: &mut Faults) {
    for (index, alias) in items(spec, "hostAliases").iter().enumerate() {
        let (field, address) = (format!("{field}.hostAliases[{index}]"), text(alias, "ip"));
        if address.parse::<std::net::IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            faults.invalid(format!("{field}.ip"), address, detail);
        }
        for name in items(alias, "hostnames").iter().filter_map(Tree::as_str) {
            faults.each(format_args!("{field}.hostnames"), name, syntax::dns1123_subdomain(name));
        }
    }
    if !flag(spec, "hostNetwork") {
        return;
    }
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec, list).iter().enumerate() {
            for (at, port) in items(container, "ports").iter().enumerate() {
                let (inside, outside) = (whole(port, "containerPort"), whole(port, "hostPort").unwrap_or(0));
                if outside != 0 && Some(outside) != inside {
                    let field = format!("{field}.{list}[{index}].ports[{at}].containerPort");
                    faults.invalid(field, inside, "must match `hostPort` when `hostNetwork` is true");
                }
            }
        }
    }
    if at(spec, "hostUsers").as_bool() == Some(false) {
        faults.forbidden(format!("{field}.hostNetwork"), "when `hostUsers` is false");
    }
}
