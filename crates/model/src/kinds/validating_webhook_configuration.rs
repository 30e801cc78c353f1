//! ValidatingWebhookConfiguration of `admissionregistration.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::number;
use super::{Column, Kind, of, webhooks};
use crate::Tree;
use crate::tree::items;

/// What the house knows of `admissionregistration.k8s.io/v1` ValidatingWebhookConfiguration.
pub static KIND: Kind = Kind::new(
    of::VALIDATING_WEBHOOK_CONFIGURATION,
    "ValidatingWebhookConfiguration",
    "validatingwebhookconfiguration",
    "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
)
.categories(&["api-extensions"])
.columns(COLUMNS)
.filling(fill)
.checking(webhooks::check)
.counts();

const COLUMNS: &[Column] = &[number("Webhooks", |object, _| items(object, "webhooks").len().into())];

fn fill(object: &mut Tree) {
    webhooks::fill(object, false);
}
