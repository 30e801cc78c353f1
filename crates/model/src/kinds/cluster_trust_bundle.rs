//! ClusterTrustBundle of `certificates.k8s.io/v1beta1`, `certificates.k8s.io/v1alpha1`: its constants.

use super::table::{column, or_none};
use super::{Column, Kind, of};

/// What the house knows of `certificates.k8s.io/v1beta1` ClusterTrustBundle.
pub static KIND: Kind = Kind::new(
    of::CLUSTER_TRUST_BUNDLE,
    "ClusterTrustBundle",
    "clustertrustbundle",
    "io.k8s.api.certificates.v1beta1.ClusterTrustBundle",
)
.columns(COLUMNS)
.fields(&["spec.signerName"])
.ageless();

/// What the house knows of `certificates.k8s.io/v1alpha1` ClusterTrustBundle.
pub static V1ALPHA1: Kind = Kind::new(
    of::CLUSTER_TRUST_BUNDLE_V1ALPHA1,
    "ClusterTrustBundle",
    "clustertrustbundle",
    "io.k8s.api.certificates.v1alpha1.ClusterTrustBundle",
)
.columns(COLUMNS)
.fields(&["spec.signerName"])
.ageless()
.stored_as(&super::CLUSTER_TRUST_BUNDLE);

const COLUMNS: &[Column] = &[column("SignerName", |object, _| or_none(object, "spec.signerName"))];
