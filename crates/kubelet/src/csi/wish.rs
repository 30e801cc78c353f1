//! What a pod's volume asks of its driver. Pure: objects go in, messages come out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::CSIVolumeSource;
use model::kinds as gvr;
use model::{Key, Tree, storage};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::VolumeId;
use super::driver::{Ability, Driver};
use super::messages::{Access, AccessMode, Empty, MountVolume, Publish, Stage, VolumeCapability};
use crate::places::KUBELET_DIR;
use crate::pod::PodView;
use crate::volumes::payload::TokenWish;

/// A volume that a driver is to give to a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The driver.
    pub driver: String,
    /// The volume, in the driver's words.
    pub handle: String,
    /// The name of the PersistentVolume, or that of the volume in the pod.
    pub name: String,
    /// Whether it lives and dies with the pod.
    pub is_inline: bool,
    /// Whether the pod gets a device.
    pub is_block: bool,
    /// Whether it may only be read.
    pub is_readonly: bool,
    /// The file system.
    pub fs_type: String,
    /// Options of the mount.
    pub flags: Vec<String>,
    /// The volume's access modes.
    pub modes: Vec<String>,
    /// What its maker said of it.
    pub attributes: BTreeMap<String, String>,
    /// The secret for staging.
    pub stage_secret: Option<Key>,
    /// The secret for publishing.
    pub publish_secret: Option<Key>,
    /// The secret for growing.
    pub expand_secret: Option<Key>,
}

/// What a CSIDriver object says of its driver.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// Whether volumes are attached first.
    pub is_attached: bool,
    /// Whether it is told of the pod.
    pub wants_pod: bool,
    /// Whether it is asked again and again.
    pub is_republished: bool,
    /// `ReadWriteOnceWithFSType`, `File`, `None`.
    pub group_policy: String,
    /// `Persistent`, `Ephemeral`.
    pub lives: Vec<String>,
    /// The tokens it wants.
    pub tokens: Vec<TokenWish>,
    /// Whether they go with the secrets.
    pub tokens_are_secret: bool,
}

/// How long a token for a driver is good where nobody says, in seconds: upstream's hour.
const TOKEN_SECONDS: i64 = 3600;

impl Terms {
    /// What is said, or what holds when nothing is.
    pub fn of(driver: Option<&Tree>) -> Terms {
        let spec = driver.map_or(&Tree::Null, |driver| &driver["spec"]);
        let texts = |list: &Tree| strings(list);
        let token = |wish: &Tree| TokenWish {
            audience: wish["audience"].as_str().unwrap_or_default().to_owned(),
            seconds: wish["expirationSeconds"].as_i64().unwrap_or(TOKEN_SECONDS),
        };
        Terms {
            is_attached: spec["attachRequired"] != false,
            wants_pod: spec["podInfoOnMount"] == true,
            is_republished: spec["requiresRepublish"] == true,
            group_policy: spec["fsGroupPolicy"].as_str().unwrap_or("ReadWriteOnceWithFSType").to_owned(),
            lives: match texts(&spec["volumeLifecycleModes"]) {
                none if none.is_empty() => vec!["Persistent".to_owned()],
                all => all,
            },
            tokens: spec["tokenRequests"].as_array().into_iter().flatten().map(token).collect(),
            tokens_are_secret: spec["serviceAccountTokenInSecrets"] == true,
        }
    }
}

fn strings(list: &Tree) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Tree::as_str).map(str::to_owned).collect()
}

impl Wish {
    /// That of a PersistentVolume.
    pub fn of_volume(name: &str, volume: &Tree, is_readonly_claim: bool) -> Wish {
        let (spec, source) = (&volume["spec"], &volume["spec"]["csi"]);
        let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
        let secret = |field: &str| {
            let (namespace, name) = (source[field]["namespace"].as_str()?, source[field]["name"].as_str()?);
            Some(Key::new(&gvr::SECRET, namespace, name)).filter(|key| !key.name.is_empty())
        };
        let attributes = source["volumeAttributes"].as_object().into_iter().flatten();
        let attributes =
            attributes.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        Wish {
            driver: text("driver"),
            handle: text("volumeHandle"),
            name: name.to_owned(),
            is_inline: false,
            is_block: spec["volumeMode"] == "Block",
            is_readonly: is_readonly_claim || source["readOnly"] == true,
            fs_type: text("fsType"),
            flags: strings(&spec["mountOptions"]),
            modes: strings(&spec["accessModes"]),
            attributes: attributes.collect(),
            stage_secret: secret("nodeStageSecretRef"),
            publish_secret: secret("nodePublishSecretRef"),
            expand_secret: secret("nodeExpandSecretRef"),
        }
    }

    /// That of a volume that lives and dies with its pod.
    pub fn inline(pod: &PodView, name: &str, source: &CSIVolumeSource) -> Wish {
        let secret = source.node_publish_secret_ref.as_ref().filter(|secret| !secret.name.is_empty());
        Wish {
            driver: source.driver.clone(),
            handle: format!("csi-{}", hex(&format!("{}{name}", pod.uid))),
            name: name.to_owned(),
            is_inline: true,
            is_readonly: source.read_only.unwrap_or(false),
            fs_type: source.fs_type.clone().unwrap_or_default(),
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            publish_secret: secret
                .map(|secret| Key::new(&gvr::SECRET, pod.namespace.clone(), secret.name.clone())),
            ..Wish::default()
        }
    }

    /// The volume.
    pub fn id(&self) -> VolumeId {
        (self.driver.clone(), self.handle.clone())
    }

    /// Whether it is a file system that one node at a time writes to.
    pub fn is_exclusive(&self) -> bool {
        !self.is_inline && !self.is_block && storage::is_exclusive(&json!(self.modes))
    }

    /// Where the driver is to put it for a pod, as the driver sees it.
    pub fn target(&self, pod_uid: &str) -> PathBuf {
        let root = PathBuf::from(KUBELET_DIR);
        match self.is_block {
            true => root.join(DEVICES).join("publish").join(&self.name).join(pod_uid),
            false => root.join("pods").join(pod_uid).join(VOLUMES).join(&self.name).join("mount"),
        }
    }

    /// Where it is staged, as the driver sees it.
    pub fn staging(&self) -> PathBuf {
        let root = PathBuf::from(KUBELET_DIR);
        match self.is_block {
            true => root.join(DEVICES).join("staging").join(&self.name),
            false => root.join(STAGED).join(&self.driver).join(hex(&self.handle)).join("globalmount"),
        }
    }

    /// Whether the pod's group is to own the files, and the node is to see to it.
    pub fn is_given_to_group(&self, terms: &Terms) -> bool {
        let is_once = self.is_inline || self.modes.iter().any(|mode| mode == "ReadWriteOnce");
        match terms.group_policy.as_str() {
            _ if self.is_block || self.is_readonly => false,
            "File" => true,
            "ReadWriteOnceWithFSType" => !self.fs_type.is_empty() && is_once,
            _ => false,
        }
    }

    /// How it is used, for the driver.
    pub fn capability(&self, driver: &Driver, group: Option<i64>) -> VolumeCapability {
        let access = match self.is_block {
            true => Access::Block(Empty {}),
            false => Access::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                flags: self.flags.clone(),
                group: group
                    .filter(|_| driver.can(Ability::Group))
                    .map(|group| group.to_string())
                    .unwrap_or_default(),
            }),
        };
        let mode = self.modes.first().map_or("ReadWriteOnce", String::as_str);
        let mode = mode_number(mode, driver.can(Ability::OnePodModes));
        VolumeCapability { access: Some(access), mode: Some(AccessMode { mode }) }
    }

    /// The request that stages it.
    pub fn stage(
        &self,
        capability: VolumeCapability,
        publish_context: BTreeMap<String, String>,
        secrets: BTreeMap<String, String>,
    ) -> Stage {
        Stage {
            volume_id: self.handle.clone(),
            publish_context,
            staging_path: text(&self.staging()),
            capability: Some(capability),
            secrets,
            volume_context: self.attributes.clone(),
        }
    }

    /// The request that gives it to a pod.
    pub fn publish(
        &self,
        pod: &PodView,
        terms: &Terms,
        capability: VolumeCapability,
        is_staged: bool,
        context: Context,
    ) -> Publish {
        let Context { publish_context, mut secrets, tokens } = context;
        let mut volume_context = self.attributes.clone();
        if terms.wants_pod {
            let account = pod.spec().service_account_name.clone().unwrap_or_default();
            let about = [
                ("pod.name", pod.name.clone()),
                ("pod.namespace", pod.namespace.clone()),
                ("pod.uid", pod.uid.clone()),
                ("serviceAccount.name", account),
                ("ephemeral", self.is_inline.to_string()),
            ];
            volume_context.extend(about.map(|(name, value)| (format!("csi.storage.k8s.io/{name}"), value)));
        }
        if let Some(tokens) = tokens {
            let place = if terms.tokens_are_secret { &mut secrets } else { &mut volume_context };
            place.insert("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), tokens);
        }
        Publish {
            volume_id: self.handle.clone(),
            publish_context,
            staging_path: if is_staged { text(&self.staging()) } else { String::new() },
            target_path: text(&self.target(&pod.uid)),
            capability: Some(capability),
            is_readonly: self.is_readonly,
            secrets,
            volume_context,
        }
    }
}

/// What goes with a volume that others said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Context {
    /// The attacher.
    pub publish_context: BTreeMap<String, String>,
    /// The author's secret.
    pub secrets: BTreeMap<String, String>,
    /// Tokens of the pod's account, as JSON.
    pub tokens: Option<String>,
}

/// The folder of a pod's folder with its volumes.
pub const VOLUMES: &str = "volumes/kubernetes.io~csi";
/// The folder of a pod's folder that names the devices it uses.
pub const POD_DEVICES: &str = "volumeDevices/kubernetes.io~csi";
/// Where volumes are staged.
pub const STAGED: &str = "plugins/kubernetes.io/csi";
/// Where devices are.
pub const DEVICES: &str = "plugins/kubernetes.io/csi/volumeDevices";

/// CSI's number of an access mode.
fn mode_number(mode: &str, knows_pods: bool) -> i32 {
    match mode {
        "ReadOnlyMany" => 3,
        "ReadWriteMany" => 5,
        "ReadWriteOncePod" if knows_pods => 6,
        "ReadWriteOnce" if knows_pods => 7,
        _ => 1,
    }
}

fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> PodView {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"serviceAccountName": "sa", "containers": [{"name": "c", "image": "i"}]},
        });
        PodView::read(&model::Object::read(object.to_string().into()).expect("an object")).expect("a pod")
    }

    fn wish(more: Tree) -> Wish {
        let mut volume = json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "mountOptions": ["noatime"],
            "csi": {"driver": "d", "volumeHandle": "h", "fsType": "ext4", "volumeAttributes": {"a": "b"}},
        }});
        for (name, value) in more.as_object().into_iter().flatten() {
            volume["spec"][name] = value.clone();
        }
        Wish::of_volume("pv", &volume, false)
    }

    #[test]
    fn paths_are_those_that_drivers_know() {
        let files = wish(json!({}));
        assert_eq!(text(&files.target("u")), "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/pv/mount");
        let staged = text(&files.staging());
        let hash = hex("h");
        assert_eq!(staged, format!("/var/lib/kubelet/plugins/kubernetes.io/csi/d/{hash}/globalmount"));
        let device = wish(json!({"volumeMode": "Block"}));
        let devices = "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices";
        assert_eq!(text(&device.target("u")), format!("{devices}/publish/pv/u"));
        assert_eq!(text(&device.staging()), format!("{devices}/staging/pv"));
    }

    #[test]
    fn a_driver_that_wants_to_know_is_told_of_the_pod() {
        let terms = Terms::of(Some(&json!({"spec": {"podInfoOnMount": true}})));
        let asked =
            wish(json!({})).publish(&pod(), &terms, VolumeCapability::default(), true, Context::default());
        assert_eq!(asked.volume_context["csi.storage.k8s.io/pod.uid"], "u");
        assert_eq!(asked.volume_context["csi.storage.k8s.io/serviceAccount.name"], "sa");
        assert_eq!(asked.volume_context["csi.storage.k8s.io/ephemeral"], "false");
        assert_eq!(asked.volume_context["a"], "b");
        let silent = Terms::of(None);
        let asked =
            wish(json!({})).publish(&pod(), &silent, VolumeCapability::default(), false, Context::default());
        assert_eq!((asked.volume_context.len(), asked.staging_path.as_str()), (1, ""));
    }

    #[test]
    fn tokens_go_where_the_driver_wants_them() {
        let tokens = Context { tokens: Some("{}".into()), ..Context::default() };
        let name = "csi.storage.k8s.io/serviceAccount.tokens";
        for (is_secret, spec) in [(false, json!({})), (true, json!({"serviceAccountTokenInSecrets": true}))] {
            let terms = Terms::of(Some(&json!({ "spec": spec })));
            let asked =
                wish(json!({})).publish(&pod(), &terms, VolumeCapability::default(), true, tokens.clone());
            assert_eq!(asked.secrets.contains_key(name), is_secret);
            assert_eq!(asked.volume_context.contains_key(name), !is_secret);
        }
    }

    #[test]
    fn groups_own_files_as_the_driver_wants() {
        let check = |policy: &str, more: Tree, expected: bool| {
            let terms = Terms::of(Some(&json!({"spec": {"fsGroupPolicy": policy}})));
            assert_eq!(wish(more.clone()).is_given_to_group(&terms), expected, "{policy} {more}");
        };
        check("ReadWriteOnceWithFSType", json!({}), true);
        check("ReadWriteOnceWithFSType", json!({"accessModes": ["ReadWriteMany"]}), false);
        check("ReadWriteOnceWithFSType", json!({"csi": {"driver": "d", "volumeHandle": "h"}}), false);
        check("File", json!({"accessModes": ["ReadWriteMany"]}), true);
        check("File", json!({"volumeMode": "Block"}), false);
        check("None", json!({}), false);
    }
}
