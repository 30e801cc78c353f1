//! DeviceTaintRule of `resource.k8s.io/v1beta2`, `resource.k8s.io/v1alpha3`: its constants.

use super::{Kind, Part, of};

/// What the house knows of `resource.k8s.io/v1beta2` DeviceTaintRule.
pub static KIND: Kind = Kind::new(
    of::DEVICE_TAINT_RULE,
    "DeviceTaintRule",
    "devicetaintrule",
    "io.k8s.api.resource.v1beta2.DeviceTaintRule",
)
.parts(&[Part::Status])
.counts();

/// What the house knows of `resource.k8s.io/v1alpha3` DeviceTaintRule.
pub static V1ALPHA3: Kind = Kind::new(
    of::DEVICE_TAINT_RULE_V1ALPHA3,
    "DeviceTaintRule",
    "devicetaintrule",
    "io.k8s.api.resource.v1alpha3.DeviceTaintRule",
)
.parts(&[Part::Status])
.counts()
.stored_as(&super::DEVICE_TAINT_RULE);
