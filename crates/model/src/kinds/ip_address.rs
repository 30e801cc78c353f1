//! IPAddress of `networking.k8s.io/v1`, `networking.k8s.io/v1beta1`: its constants.

use super::table::column;
use super::{Column, Kind, of};
use crate::tree::text;

/// What the house knows of `networking.k8s.io/v1` IPAddress.
pub static KIND: Kind =
    Kind::new(of::IP_ADDRESS, "IPAddress", "ipaddress", "io.k8s.api.networking.v1.IPAddress")
        .short(&["ip"])
        .named(crate::syntax::canonical_ip)
        .columns(COLUMNS)
        .ageless();

/// What the house knows of `networking.k8s.io/v1beta1` IPAddress.
pub static V1BETA1: Kind =
    Kind::new(of::IP_ADDRESS_V1BETA1, "IPAddress", "ipaddress", "io.k8s.api.networking.v1beta1.IPAddress")
        .short(&["ip"])
        .named(crate::syntax::canonical_ip)
        .columns(COLUMNS)
        .ageless()
        .stored_as(&super::IP_ADDRESS);

const COLUMNS: &[Column] = &[column("ParentRef", |object, _| {
    format!(
        "{}/{}/{}",
        text(object, "spec.parentRef.resource"),
        text(object, "spec.parentRef.namespace"),
        text(object, "spec.parentRef.name")
    )
    .into()
})];
