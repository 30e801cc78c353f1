//! StorageVersionMigration of `storagemigration.k8s.io/v1beta1`: its constants.

use super::{Kind, Part, of};

/// What the house knows of `storagemigration.k8s.io/v1beta1` StorageVersionMigration.
pub static KIND: Kind = Kind::new(
    of::STORAGE_VERSION_MIGRATION,
    "StorageVersionMigration",
    "storageversionmigration",
    "io.k8s.api.storagemigration.v1beta1.StorageVersionMigration",
)
.parts(&[Part::Status]);
