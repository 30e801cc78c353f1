//! StorageVersion of `internal.apiserver.k8s.io/v1alpha1`: its constants.

use super::{Kind, Part, of};

/// What the house knows of `internal.apiserver.k8s.io/v1alpha1` StorageVersion.
pub static KIND: Kind = Kind::new(
    of::STORAGE_VERSION,
    "StorageVersion",
    "storageversion",
    "io.k8s.api.apiserverinternal.v1alpha1.StorageVersion",
)
.parts(&[Part::Status]);
