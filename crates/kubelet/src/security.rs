//! Who a container runs as and what it may do: the pod's and the container's wishes as one. Pure.

use std::path::Path;

use k8s_openapi::api::core::v1::{PodSecurityContext, SeccompProfile, SecurityContext};
use runtime::{Image, Seccomp, Security};

use crate::environment::Missing;
use crate::pod::{Member, PodView};

/// Merges pod and container; refuses root where root is not wanted. `profiles` holds the node's seccomp profiles.
pub fn merge(pod: &PodView, member: &Member, image: &Image, profiles: &Path) -> Result<Security, Missing> {
    let none = (PodSecurityContext::default(), SecurityContext::default());
    let whole = pod.spec().security_context.as_ref().unwrap_or(&none.0);
    let own = member.container.security_context.as_ref().unwrap_or(&none.1);
    let user = own.run_as_user.or(whole.run_as_user);
    let must_not_be_root = own.run_as_non_root.or(whole.run_as_non_root).unwrap_or(false);
    if must_not_be_root {
        check_not_root(pod, member, user, image)?;
    }
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let plain = |names: Option<Vec<String>>| -> Vec<String> {
        names.into_iter().flatten().map(|name| name.trim_start_matches("CAP_").to_uppercase()).collect()
    };
    let groups = whole.supplemental_groups.iter().flatten().copied().chain(whole.fs_group);
    Ok(Security {
        user,
        group: own.run_as_group.or(whole.run_as_group),
        groups: groups.collect(),
        must_not_be_root,
        privileged,
        capabilities_add: plain(capabilities.add),
        capabilities_drop: plain(capabilities.drop),
        readonly_root: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        seccomp: seccomp(
            own.seccomp_profile.as_ref().or(whole.seccomp_profile.as_ref()),
            privileged,
            profiles,
        )?,
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn check_not_root(pod: &PodView, member: &Member, user: Option<i64>, image: &Image) -> Result<(), Missing> {
    let place =
        format!("(pod: \"{}_{}({})\", container: {})", pod.name, pod.namespace, pod.uid, member.name());
    if let Some(user) = user {
        if user == 0 {
            return Err(Missing(format!("container's runAsUser breaks non-root policy {place}")));
        }
        return Ok(());
    }
    let named = image.user.split(':').next().unwrap_or("");
    match named.parse::<i64>() {
        Ok(0) => Err(Missing(format!("container has runAsNonRoot and image will run as root {place}"))),
        Ok(_) => Ok(()),
        Err(_) if named.is_empty() => {
            Err(Missing(format!("container has runAsNonRoot and image will run as root {place}")))
        }
        Err(_) => Err(Missing(format!(
            "container has runAsNonRoot and image has non-numeric user ({named}), cannot verify user is non-root {place}"
        ))),
    }
}

fn seccomp(profile: Option<&SeccompProfile>, privileged: bool, profiles: &Path) -> Result<Seccomp, Missing> {
    if privileged {
        return Ok(Seccomp::Unconfined);
    }
    let Some(profile) = profile else { return Ok(Seccomp::RuntimeDefault) };
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Unconfined", _) => Ok(Seccomp::Unconfined),
        ("Localhost", Some(name)) if is_inside(name) => Ok(Seccomp::Localhost(profiles.join(name))),
        ("Localhost", name) => Err(Missing(format!("invalid seccomp profile {:?}", name.unwrap_or("")))),
        _ => Ok(Seccomp::RuntimeDefault),
    }
}

/// Kernel settings that a pod may have of its own: each is kept apart by a namespace and harms nobody else.
const SAFE_SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_notsent_lowat",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// Why a pod may not run here for its kernel settings, if it may not.
pub fn forbidden_sysctl(pod: &PodView) -> Option<String> {
    let spec = pod.spec();
    let wanted = spec.security_context.iter().flat_map(|whole| whole.sysctls.iter().flatten());
    wanted.into_iter().find_map(|sysctl| {
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return Some(format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        if name.starts_with("net.") && pod.is_on_host_network() {
            return Some(format!("forbidden sysctl: {:?} not allowed with host net enabled", sysctl.name));
        }
        let is_shared = name.starts_with("kernel.shm") && spec.host_ipc.unwrap_or(false);
        is_shared.then(|| format!("forbidden sysctl: {:?} not allowed with host ipc enabled", sysctl.name))
    })
}

/// Whether a path stays inside the folder that it is relative to.
fn is_inside(path: &str) -> bool {
    !path.is_empty() && !path.starts_with('/') && path.split('/').all(|part| part != "..")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::testing::pod;

    fn check(whole: Value, own: Value, image_user: &str, look: impl FnOnce(Result<Security, String>)) {
        let pod = pod(json!({
            "securityContext": whole, "containers": [{"name": "a", "image": "i", "securityContext": own}],
        }));
        let image = Image { user: image_user.into(), ..Image::default() };
        look(merge(&pod, &pod.members[0], &image, Path::new("/profiles")).map_err(|missing| missing.0));
    }

    #[test]
    fn the_container_speaks_before_the_pod() {
        check(json!({"runAsUser": 1, "runAsGroup": 2}), json!({"runAsUser": 3}), "", |seen| {
            let seen = seen.expect("nothing forbids it");
            assert_eq!((seen.user, seen.group), (Some(3), Some(2)));
        });
    }

    #[test]
    fn root_is_refused_where_it_is_not_wanted() {
        let refused = |own: Value, user: &str, part: &str| {
            check(json!({"runAsNonRoot": true}), own, user, |seen| {
                let why = seen.expect_err("root is not wanted");
                assert!(why.contains(part), "{why}");
            });
        };
        refused(json!({}), "", "image will run as root");
        refused(json!({}), "0:5", "image will run as root");
        refused(json!({}), "web", "non-numeric user (web)");
        refused(json!({"runAsUser": 0}), "7", "breaks non-root policy");
        check(json!({"runAsNonRoot": true}), json!({}), "7", |seen| assert!(seen.is_ok()));
    }

    #[test]
    fn system_calls_are_filtered_unless_asked_otherwise() {
        let check_seccomp = |whole: Value, own: Value, expected: Option<Seccomp>| {
            check(whole, own, "", |seen| assert_eq!(seen.ok().map(|seen| seen.seccomp), expected));
        };
        check_seccomp(json!({}), json!({}), Some(Seccomp::RuntimeDefault));
        check_seccomp(json!({}), json!({"privileged": true}), Some(Seccomp::Unconfined));
        check_seccomp(
            json!({"seccompProfile": {"type": "Unconfined"}}),
            json!({}),
            Some(Seccomp::Unconfined),
        );
        let local = |name: &str| json!({"seccompProfile": {"type": "Localhost", "localhostProfile": name}});
        check_seccomp(json!({}), local("a/b.json"), Some(Seccomp::Localhost("/profiles/a/b.json".into())));
        check_seccomp(json!({}), local("../b.json"), None);
    }

    #[test]
    fn kernel_settings_that_reach_others_are_forbidden() {
        let check_sysctl = |name: &str, on_host: bool, expected: Option<&str>| {
            let sysctls = json!({"sysctls": [{"name": name, "value": "1"}]});
            let pod = pod(json!({"hostNetwork": on_host, "securityContext": sysctls}));
            assert_eq!(forbidden_sysctl(&pod).as_deref(), expected);
        };
        check_sysctl("kernel.shm_rmid_forced", false, None);
        check_sysctl("kernel.msgmax", false, Some("forbidden sysctl: \"kernel.msgmax\" not allowlisted"));
        check_sysctl("net/ipv4/tcp_rmem", false, None);
        let told = "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host net enabled";
        check_sysctl("net.ipv4.tcp_rmem", true, Some(told));
    }

    #[test]
    fn groups_and_capabilities_are_passed_on() {
        let whole = json!({"supplementalGroups": [5, 6], "fsGroup": 7});
        let own = json!({"capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]}, "allowPrivilegeEscalation": false});
        check(whole, own, "", |seen| {
            let seen = seen.expect("nothing forbids it");
            assert_eq!(seen.groups, [5, 6, 7]);
            assert_eq!(
                (seen.capabilities_add, seen.capabilities_drop),
                (vec!["NET_ADMIN".into()], vec!["ALL".into()])
            );
            assert!(seen.no_new_privileges);
        });
    }
}
