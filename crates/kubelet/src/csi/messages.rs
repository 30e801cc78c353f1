//! The messages of CSI's node service and of the registration of plugins, as far as a node uses them.
//!
//! Field numbers are those of `csi.v1` and `pluginregistration`.

use std::collections::BTreeMap;

use prost::Message;

/// Nothing said.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// `pluginregistration.PluginInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct PluginInfo {
    /// What kind of plugin: `CSIPlugin` is ours.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The driver's name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its socket; empty: the one that was asked.
    #[prost(string, tag = "3")]
    pub endpoint: String,
    /// The versions of CSI it speaks.
    #[prost(string, repeated, tag = "4")]
    pub versions: Vec<String>,
}

/// `pluginregistration.RegistrationStatus`.
#[derive(Clone, PartialEq, Message)]
pub struct RegistrationStatus {
    /// Whether it is registered.
    #[prost(bool, tag = "1")]
    pub is_registered: bool,
    /// Why not.
    #[prost(string, tag = "2")]
    pub error: String,
}

/// `csi.v1.NodeGetCapabilitiesResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Capabilities {
    /// What it can do.
    #[prost(message, repeated, tag = "1")]
    pub all: Vec<ServiceCapability>,
}

/// `csi.v1.NodeServiceCapability`.
#[derive(Clone, PartialEq, Message)]
pub struct ServiceCapability {
    /// One call.
    #[prost(message, optional, tag = "1")]
    pub rpc: Option<Rpc>,
}

/// `csi.v1.NodeServiceCapability.RPC`.
#[derive(Clone, PartialEq, Message)]
pub struct Rpc {
    /// Which.
    #[prost(int32, tag = "1")]
    pub kind: i32,
}

/// `csi.v1.NodeGetInfoResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct NodeInfo {
    /// The node's name in the driver's own words.
    #[prost(string, tag = "1")]
    pub node_id: String,
    /// How many volumes it takes; 0: it does not say.
    #[prost(int64, tag = "2")]
    pub volumes_max: i64,
    /// Where it is.
    #[prost(message, optional, tag = "3")]
    pub topology: Option<Topology>,
}

/// `csi.v1.Topology`.
#[derive(Clone, PartialEq, Message)]
pub struct Topology {
    /// Labels.
    #[prost(btree_map = "string, string", tag = "1")]
    pub segments: BTreeMap<String, String>,
}

/// `csi.v1.VolumeCapability`.
#[derive(Clone, PartialEq, Message)]
pub struct VolumeCapability {
    /// As a block device, or as files.
    #[prost(oneof = "Access", tags = "1, 2")]
    pub access: Option<Access>,
    /// Who may write.
    #[prost(message, optional, tag = "3")]
    pub mode: Option<AccessMode>,
}

/// How a volume is given to a pod.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Access {
    /// As a device.
    #[prost(message, tag = "1")]
    Block(Empty),
    /// As files.
    #[prost(message, tag = "2")]
    Mount(MountVolume),
}

/// `csi.v1.VolumeCapability.MountVolume`.
#[derive(Clone, PartialEq, Message)]
pub struct MountVolume {
    /// The file system.
    #[prost(string, tag = "1")]
    pub fs_type: String,
    /// Options of the mount.
    #[prost(string, repeated, tag = "2")]
    pub flags: Vec<String>,
    /// The group that is to own the files.
    #[prost(string, tag = "3")]
    pub group: String,
}

/// `csi.v1.VolumeCapability.AccessMode`.
#[derive(Clone, PartialEq, Message)]
pub struct AccessMode {
    /// Its number.
    #[prost(int32, tag = "1")]
    pub mode: i32,
}

/// `csi.v1.NodeStageVolumeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Stage {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// What the attacher said of it.
    #[prost(btree_map = "string, string", tag = "2")]
    pub publish_context: BTreeMap<String, String>,
    /// Where to stage it.
    #[prost(string, tag = "3")]
    pub staging_path: String,
    /// How.
    #[prost(message, optional, tag = "4")]
    pub capability: Option<VolumeCapability>,
    /// Secrets.
    #[prost(btree_map = "string, string", tag = "5")]
    pub secrets: BTreeMap<String, String>,
    /// What its maker said of it.
    #[prost(btree_map = "string, string", tag = "6")]
    pub volume_context: BTreeMap<String, String>,
}

/// `csi.v1.NodeUnstageVolumeRequest` and `NodeUnpublishVolumeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Undo {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it was staged or published.
    #[prost(string, tag = "2")]
    pub path: String,
}

/// `csi.v1.NodePublishVolumeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Publish {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// What the attacher said of it.
    #[prost(btree_map = "string, string", tag = "2")]
    pub publish_context: BTreeMap<String, String>,
    /// Where it is staged.
    #[prost(string, tag = "3")]
    pub staging_path: String,
    /// Where it is to be.
    #[prost(string, tag = "4")]
    pub target_path: String,
    /// How.
    #[prost(message, optional, tag = "5")]
    pub capability: Option<VolumeCapability>,
    /// Whether it may only be read.
    #[prost(bool, tag = "6")]
    pub is_readonly: bool,
    /// Secrets.
    #[prost(btree_map = "string, string", tag = "7")]
    pub secrets: BTreeMap<String, String>,
    /// What its maker said of it, and what is said of the pod.
    #[prost(btree_map = "string, string", tag = "8")]
    pub volume_context: BTreeMap<String, String>,
}

/// `csi.v1.NodeGetVolumeStatsRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct VolumeStats {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it is.
    #[prost(string, tag = "2")]
    pub volume_path: String,
    /// Where it is staged.
    #[prost(string, tag = "3")]
    pub staging_path: String,
}

/// `csi.v1.NodeGetVolumeStatsResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct VolumeStatsAnswer {
    /// How much of it is used, by unit.
    #[prost(message, repeated, tag = "1")]
    pub usage: Vec<AmountUsed>,
    /// Whether it is well.
    #[prost(message, optional, tag = "2")]
    pub condition: Option<VolumeCondition>,
}

/// `csi.v1.VolumeUsage`.
#[derive(Clone, PartialEq, Message)]
pub struct AmountUsed {
    /// What may still be used.
    #[prost(int64, tag = "1")]
    pub available: i64,
    /// In all.
    #[prost(int64, tag = "2")]
    pub total: i64,
    /// What is used.
    #[prost(int64, tag = "3")]
    pub used: i64,
    /// Of what.
    #[prost(int32, tag = "4")]
    pub unit: i32,
}

/// `csi.v1.VolumeCondition`.
#[derive(Clone, PartialEq, Message)]
pub struct VolumeCondition {
    /// Whether something is wrong with it.
    #[prost(bool, tag = "1")]
    pub is_abnormal: bool,
    /// What.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// `csi.v1.NodeExpandVolumeRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct Expand {
    /// Which volume.
    #[prost(string, tag = "1")]
    pub volume_id: String,
    /// Where it is.
    #[prost(string, tag = "2")]
    pub volume_path: String,
    /// How large it is to be.
    #[prost(message, optional, tag = "3")]
    pub range: Option<CapacityRange>,
    /// Where it is staged.
    #[prost(string, tag = "4")]
    pub staging_path: String,
    /// How it is used.
    #[prost(message, optional, tag = "5")]
    pub capability: Option<VolumeCapability>,
    /// Secrets.
    #[prost(btree_map = "string, string", tag = "6")]
    pub secrets: BTreeMap<String, String>,
}

/// `csi.v1.CapacityRange`.
#[derive(Clone, PartialEq, Message)]
pub struct CapacityRange {
    /// At least.
    #[prost(int64, tag = "1")]
    pub required: i64,
}

/// `csi.v1.NodeExpandVolumeResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Expanded {
    /// How large it is now.
    #[prost(int64, tag = "1")]
    pub capacity: i64,
}
