//! VolumeAttributesClass of `storage.k8s.io/v1`, `storage.k8s.io/v1beta1`: its constants.

use super::table::{column, or};
use super::{Column, Kind, of};

/// What the house knows of `storage.k8s.io/v1` VolumeAttributesClass.
pub static KIND: Kind = Kind::new(
    of::VOLUME_ATTRIBUTES_CLASS,
    "VolumeAttributesClass",
    "volumeattributesclass",
    "io.k8s.api.storage.v1.VolumeAttributesClass",
)
.short(&["vac"])
.columns(COLUMNS);

/// What the house knows of `storage.k8s.io/v1beta1` VolumeAttributesClass.
pub static V1BETA1: Kind = Kind::new(
    of::VOLUME_ATTRIBUTES_CLASS_V1BETA1,
    "VolumeAttributesClass",
    "volumeattributesclass",
    "io.k8s.api.storage.v1beta1.VolumeAttributesClass",
)
.short(&["vac"])
.columns(COLUMNS)
.stored_as(&super::VOLUME_ATTRIBUTES_CLASS);

const COLUMNS: &[Column] = &[column("DriverName", |object, _| or(object, "driverName", ""))];
