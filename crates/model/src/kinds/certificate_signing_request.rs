//! CertificateSigningRequest of `certificates.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, or, or_none};
use super::{AGE, Column, Faults, Kind, Part, of};
use crate::tree::{at, is_set, items, text, whole};
use crate::{Tree, syntax, time};

/// What the house knows of `certificates.k8s.io/v1` CertificateSigningRequest.
pub static KIND: Kind = Kind::new(
    of::CERTIFICATE_SIGNING_REQUEST,
    "CertificateSigningRequest",
    "certificatesigningrequest",
    "io.k8s.api.certificates.v1.CertificateSigningRequest",
)
.short(&["csr"])
.parts(&[
    Part::Other {
        name: "approval",
        kind: ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
        verbs: &["get", "patch", "update"],
    },
    Part::Status,
])
.columns(COLUMNS)
.fields(&["spec.signerName"])
.named(crate::syntax::dns1123_subdomain)
.checking(check)
.changing(change);

const COLUMNS: &[Column] = &[
    AGE,
    column("SignerName", |object, _| or_none(object, "spec.signerName")),
    column("Requestor", |object, _| or(object, "spec.username", "")),
    column("RequestedDuration", |object, _| lifetime(object)),
    column("Condition", |object, _| condition(object)),
];

fn check(object: &Tree, faults: &mut Faults) {
    if !is_set(object, "spec.request") {
        faults.required("spec.request", "");
    }
    if !is_set(object, "spec.usages") {
        faults.required("spec.usages", "usages must be provided");
    }
    let signer = text(object, "spec.signerName");
    match signer.split_once('/') {
        _ if signer.is_empty() => faults.required("spec.signerName", ""),
        Some((domain, path)) if !path.is_empty() => {
            faults.each("spec.signerName", signer, syntax::dns1123_subdomain(domain));
        }
        _ => faults.invalid(
            "spec.signerName",
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
    }
    if whole(object, "spec.expirationSeconds").is_some_and(|seconds| seconds < 600) {
        let seconds = at(object, "spec.expirationSeconds").clone();
        faults.invalid(
            "spec.expirationSeconds",
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec", &old["spec"], &new["spec"]);
}

fn condition(object: &Tree) -> Tree {
    let has = |kind: &str| {
        items(object, "status.conditions").iter().any(|condition| text(condition, "type") == kind)
    };
    let decided = match () {
        () if has("Denied") => "Denied",
        () if has("Approved") => "Approved",
        () => "Pending",
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if is_set(object, "status.certificate") { ",Issued" } else { "" };
    format!("{decided}{failed}{issued}").into()
}

fn lifetime(object: &Tree) -> Tree {
    whole(object, "spec.expirationSeconds").map_or("<none>".into(), |seconds| time::short(seconds).into())
}
