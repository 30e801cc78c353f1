//! PodCertificateRequest of `certificates.k8s.io/v1beta1`: its constants.

use super::table::{column, or};
use super::{Column, Kind, Part, of};

/// What the house knows of `certificates.k8s.io/v1beta1` PodCertificateRequest.
pub static KIND: Kind = Kind::new(
    of::POD_CERTIFICATE_REQUEST,
    "PodCertificateRequest",
    "podcertificaterequest",
    "io.k8s.api.certificates.v1beta1.PodCertificateRequest",
)
.namespaced()
.parts(&[Part::Status])
.columns(COLUMNS)
.fields(&["spec.signerName", "spec.podName", "spec.nodeName"])
.ageless();

const COLUMNS: &[Column] = &[
    column("PodName", |object, _| or(object, "spec.podName", "")),
    column("ServiceAccountName", |object, _| or(object, "spec.serviceAccountName", "")),
    column("NodeName", |object, _| or(object, "spec.nodeName", "")),
    column("SignerName", |object, _| or(object, "spec.signerName", "")),
];
