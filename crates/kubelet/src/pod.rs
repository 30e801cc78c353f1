//! A pod as the agent reads it: the typed view, with its containers in one list and their roles named.

use std::collections::BTreeMap;

use host::Time;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, ResourceRequirements};
use model::Object;
use sha2::{Digest, Sha256};

/// What part a container plays in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container that keeps running (`restartPolicy: Always`).
    Sidecar,
    /// An ordinary container.
    Main,
    /// Added to a running pod for debugging; never restarted.
    Ephemeral,
}

/// One container of a pod.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its part.
    pub role: Role,
    /// Its specification.
    pub container: Container,
    /// The container whose process ids an ephemeral one wants to see.
    pub target: Option<String>,
    /// Changes when the container must be made anew.
    pub hash: String,
}

impl Member {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.container.name
    }

    /// The image that it names.
    pub fn image(&self) -> &str {
        self.container.image.as_deref().unwrap_or("")
    }
}

/// Which ends of a container call for a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// All.
    Always,
    /// Those with an exit code other than 0.
    OnFailure,
    /// None.
    Never,
}

impl RestartPolicy {
    fn read(text: Option<&str>) -> RestartPolicy {
        match text {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        }
    }
}

/// A pod bound to this node.
#[derive(Debug, Clone)]
pub struct PodView {
    /// The typed view.
    pub pod: Pod,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The revision of this view.
    pub revision: u64,
    /// When its deletion was asked for, if it was.
    pub deleted_at: Option<Time>,
    /// Init containers in order, then the ordinary ones, then the ephemeral ones.
    pub members: Vec<Member>,
    /// The pod's restart policy.
    pub policy: RestartPolicy,
    /// The amounts that the specification asks for, by container; those of `members` are what the node has allotted.
    pub asked: Allotment,
}

/// Amounts of resources, by container.
pub type Allotment = BTreeMap<String, ResourceRequirements>;

impl PodView {
    /// Reads a pod.
    pub fn read(object: &Object) -> Result<PodView, model::object::NotAnObject> {
        let pod: Pod = object.view()?;
        let members = members(pod.spec.as_ref());
        let amounts = |member: &Member| member.container.resources.clone().unwrap_or_default();
        Ok(PodView {
            asked: members.iter().map(|member| (member.name().to_owned(), amounts(member))).collect(),
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            revision: object.revision(),
            deleted_at: object.meta().deletion_timestamp,
            members,
            policy: RestartPolicy::read(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref())),
            pod,
        })
    }

    /// Gives its containers what the node has allotted them. Who is not named gets what it asks for.
    pub fn allot(&mut self, allotted: &Allotment) {
        for member in &mut self.members {
            let amounts = allotted.get(member.name()).or_else(|| self.asked.get(member.name()));
            member.container.resources = amounts.cloned();
        }
    }

    /// Whether a container has been allotted less, or more, than is asked for.
    pub fn is_misfit(&self, member: &Member) -> bool {
        let asked = self.asked.get(member.name());
        asked.is_some_and(|asked| member.container.resources.as_ref().unwrap_or(&Default::default()) != asked)
    }

    /// The specification.
    pub fn spec(&self) -> &PodSpec {
        static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
        self.pod.spec.as_ref().unwrap_or(&EMPTY)
    }

    /// The container of this name.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name() == name)
    }

    /// The containers of these roles, in order.
    pub fn with_role<'a>(&'a self, roles: &'a [Role]) -> impl DoubleEndedIterator<Item = &'a Member> {
        self.members.iter().filter(move |member| roles.contains(&member.role))
    }

    /// Whether the pod uses the node's network.
    pub fn is_on_host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    /// The volumes among a container's mounts that show an image, with its reference.
    pub fn shown_images<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mounted = member.container.volume_mounts.iter().flatten();
        let mut seen = std::collections::BTreeSet::new();
        mounted.filter_map(move |mount| {
            let volume = self.spec().volumes.iter().flatten().find(|volume| volume.name == mount.name)?;
            let reference = volume.image.as_ref()?.reference.as_deref().unwrap_or("");
            seen.insert(&volume.name).then_some((volume.name.as_str(), reference))
        })
    }

    /// The generation of the specification.
    pub fn generation(&self) -> Option<i64> {
        self.pod.metadata.generation
    }

    /// How long its containers get to end, in seconds, as the specification says.
    pub fn grace_seconds(&self) -> i64 {
        self.spec().termination_grace_period_seconds.unwrap_or(30)
    }

    /// The phase that the API shows.
    pub fn phase(&self) -> &str {
        self.pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
    }

    /// Whether a container that ended with `code` is to be started again.
    pub fn restarts(&self, member: &Member, code: i32) -> bool {
        for rule in member.container.restart_policy_rules.iter().flatten() {
            let Some(on) = &rule.exit_codes else { continue };
            let listed = on.values.iter().flatten().any(|value| *value == code);
            if rule.action.starts_with("Restart") && listed == (on.operator == "In") {
                return true;
            }
        }
        let policy = match &member.container.restart_policy {
            Some(own) => RestartPolicy::read(Some(own)),
            None => self.policy,
        };
        match (member.role, policy) {
            (Role::Ephemeral, _) | (_, RestartPolicy::Never) => false,
            (Role::Sidecar, _) => true,
            (Role::Init, _) | (_, RestartPolicy::OnFailure) => code != 0,
            (_, RestartPolicy::Always) => true,
        }
    }
}

fn members(spec: Option<&PodSpec>) -> Vec<Member> {
    let Some(spec) = spec else { return Vec::new() };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let role = match container.restart_policy.as_deref() {
            Some("Always") => Role::Sidecar,
            _ => Role::Init,
        };
        member(role, container.clone(), None)
    });
    let main = spec.containers.iter().map(|container| member(Role::Main, container.clone(), None));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| {
        member(Role::Ephemeral, ordinary(container), container.target_container_name.clone())
    });
    init.chain(main).chain(ephemeral).collect()
}

fn member(role: Role, container: Container, target: Option<String>) -> Member {
    let mut digest = Sha256::new();
    digest.update(container.name.as_bytes());
    digest.update([0]);
    digest.update(container.image.as_deref().unwrap_or("").as_bytes());
    let hash = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Member { role, container, target, hash }
}

/// An ephemeral container has the fields of an ordinary one.
fn ordinary(e: &EphemeralContainer) -> Container {
    let e = e.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        name: e.name,
        resources: e.resources,
        security_context: e.security_context,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
        ..Container::default()
    }
}

#[cfg(test)]
pub mod testing {
    //! Pods for tests, from a few fields.

    use super::*;

    /// A pod of uid `u1` named `web` in `shop`, with this specification.
    pub fn pod(spec: serde_json::Value) -> PodView {
        pod_with(serde_json::json!({}), spec, serde_json::json!({}))
    }

    /// The same with further metadata and a status.
    pub fn pod_with(meta: serde_json::Value, spec: serde_json::Value, status: serde_json::Value) -> PodView {
        let mut metadata = serde_json::json!({
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "generation": 1,
        });
        if let (Some(all), Some(more)) = (metadata.as_object_mut(), meta.as_object()) {
            all.extend(more.clone());
        }
        let tree = serde_json::json!({"metadata": metadata, "spec": spec, "status": status});
        let object = Object::read(tree.to_string().into()).expect("a test's pod is an object");
        PodView::read(&object).expect("a test's pod is a pod")
    }

    #[test]
    fn who_is_restarted_after_which_end() {
        let check = |policy: &str, own: serde_json::Value, code: i32, expected: bool| {
            let mut container = serde_json::json!({"name": "a", "image": "i"});
            if let (Some(all), Some(more)) = (container.as_object_mut(), own.as_object()) {
                all.extend(more.clone());
            }
            let view = pod(serde_json::json!({"restartPolicy": policy, "containers": [container]}));
            assert_eq!(view.restarts(&view.members[0], code), expected, "{policy} {own} {code}");
        };
        let none = serde_json::json!({});
        check("Always", none.clone(), 0, true);
        check("OnFailure", none.clone(), 0, false);
        check("OnFailure", none.clone(), 1, true);
        check("Never", none, 1, false);
        check("Always", serde_json::json!({"restartPolicy": "Never"}), 1, false);
        let rule = serde_json::json!({"restartPolicy": "Never", "restartPolicyRules":
            [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]});
        check("Never", rule.clone(), 42, true);
        check("Never", rule, 41, false);
        let rule = serde_json::json!({"restartPolicy": "Never", "restartPolicyRules":
            [{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [42]}}]});
        check("Never", rule, 41, true);
    }

    #[test]
    fn init_containers_that_stay_are_sidecars() {
        let view = pod(serde_json::json!({
            "initContainers": [{"name": "a"}, {"name": "b", "restartPolicy": "Always"}],
            "containers": [{"name": "c"}],
            "ephemeralContainers": [{"name": "d", "targetContainerName": "c"}],
        }));
        let roles: Vec<_> =
            view.members.iter().map(|member| (member.name().to_owned(), member.role)).collect();
        let expected = [("a", Role::Init), ("b", Role::Sidecar), ("c", Role::Main), ("d", Role::Ephemeral)];
        assert_eq!(roles, expected.map(|(name, role)| (name.to_owned(), role)));
    }
}
