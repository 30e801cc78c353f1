//! VolumeAttachment of `storage.k8s.io/v1`: its constants.

use super::table::{column, or};
use super::{Column, Kind, Part, of};

/// What the house knows of `storage.k8s.io/v1` VolumeAttachment.
pub static KIND: Kind = Kind::new(
    of::VOLUME_ATTACHMENT,
    "VolumeAttachment",
    "volumeattachment",
    "io.k8s.api.storage.v1.VolumeAttachment",
)
.parts(&[Part::Status])
.columns(COLUMNS);

const COLUMNS: &[Column] = &[
    column("Attacher", |object, _| or(object, "spec.attacher", "")),
    column("PV", |object, _| or(object, "spec.source.persistentVolumeName", "")),
    column("Node", |object, _| or(object, "spec.nodeName", "")),
    column("Attached", |object, _| or(object, "status.attached", "false")),
];
