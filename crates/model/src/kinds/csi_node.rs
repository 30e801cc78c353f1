//! CSINode of `storage.k8s.io/v1`: its constants.

use super::table::number;
use super::{Column, Kind, of};
use crate::tree::items;

/// What the house knows of `storage.k8s.io/v1` CSINode.
pub static KIND: Kind =
    Kind::new(of::CSI_NODE, "CSINode", "csinode", "io.k8s.api.storage.v1.CSINode").columns(COLUMNS);

const COLUMNS: &[Column] = &[number("Drivers", |object, _| items(object, "spec.drivers").len().into())];
