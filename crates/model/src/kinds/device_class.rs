//! DeviceClass of `resource.k8s.io/v1`, `resource.k8s.io/v1beta2`, `resource.k8s.io/v1beta1`: its constants.

use super::{Kind, of};

/// What the house knows of `resource.k8s.io/v1` DeviceClass.
pub static KIND: Kind =
    Kind::new(of::DEVICE_CLASS, "DeviceClass", "deviceclass", "io.k8s.api.resource.v1.DeviceClass").counts();

/// What the house knows of `resource.k8s.io/v1beta2` DeviceClass.
pub static V1BETA2: Kind = Kind::new(
    of::DEVICE_CLASS_V1BETA2,
    "DeviceClass",
    "deviceclass",
    "io.k8s.api.resource.v1beta2.DeviceClass",
)
.counts()
.stored_as(&super::DEVICE_CLASS);

/// What the house knows of `resource.k8s.io/v1beta1` DeviceClass.
pub static V1BETA1: Kind = Kind::new(
    of::DEVICE_CLASS_V1BETA1,
    "DeviceClass",
    "deviceclass",
    "io.k8s.api.resource.v1beta1.DeviceClass",
)
.counts()
.stored_as(&super::DEVICE_CLASS);
