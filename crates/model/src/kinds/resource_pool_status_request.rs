//! ResourcePoolStatusRequest of `resource.k8s.io/v1alpha3`: its constants.

use super::{Kind, Part, of};

/// What the house knows of `resource.k8s.io/v1alpha3` ResourcePoolStatusRequest.
pub static KIND: Kind = Kind::new(
    of::RESOURCE_POOL_STATUS_REQUEST,
    "ResourcePoolStatusRequest",
    "resourcepoolstatusrequest",
    "io.k8s.api.resource.v1alpha3.ResourcePoolStatusRequest",
)
.parts(&[Part::Status]);
