//! ServiceCIDR of `networking.k8s.io/v1`, `networking.k8s.io/v1beta1`: its constants.

use super::table::{column, joined};
use super::{Column, Kind, Part, of};
use crate::Tree;
use crate::tree::items;

/// What the house knows of `networking.k8s.io/v1` ServiceCIDR.
pub static KIND: Kind =
    Kind::new(of::SERVICE_CIDR, "ServiceCIDR", "servicecidr", "io.k8s.api.networking.v1.ServiceCIDR")
        .parts(&[Part::Status])
        .columns(COLUMNS);

/// What the house knows of `networking.k8s.io/v1beta1` ServiceCIDR.
pub static V1BETA1: Kind = Kind::new(
    of::SERVICE_CIDR_V1BETA1,
    "ServiceCIDR",
    "servicecidr",
    "io.k8s.api.networking.v1beta1.ServiceCIDR",
)
.parts(&[Part::Status])
.columns(COLUMNS)
.stored_as(&super::SERVICE_CIDR);

const COLUMNS: &[Column] = &[column("CIDRs", |object, _| {
    joined(items(object, "spec.cidrs").iter().filter_map(Tree::as_str)).into()
})];
