//! CSIStorageCapacity of `storage.k8s.io/v1`: its constants.

use super::table::{column, or, or_unset};
use super::{Column, Kind, of};

/// What the house knows of `storage.k8s.io/v1` CSIStorageCapacity.
pub static KIND: Kind = Kind::new(
    of::CSI_STORAGE_CAPACITY,
    "CSIStorageCapacity",
    "csistoragecapacity",
    "io.k8s.api.storage.v1.CSIStorageCapacity",
)
.namespaced()
.columns(COLUMNS)
.ageless();

const COLUMNS: &[Column] = &[
    column("StorageClassName", |object, _| or(object, "storageClassName", "")),
    column("Capacity", |object, _| or_unset(object, "capacity")),
];
