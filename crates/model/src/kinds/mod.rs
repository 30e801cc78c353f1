//! The kinds: one file each, one line in [`KINDS`]. What the schema table cannot say about a kind stands in its file.

mod faults;
mod gvr;
mod meta;
mod prepare;
mod table;

pub use gvr::*;
pub use meta::{
    ANNOTATIONS_SIZE_MAX, MetaRules, change_meta, check_annotations, check_labels, check_meta, check_selector,
};
pub use prepare::{prepare_create, prepare_status, prepare_update};
pub use table::{AGE, NAME, table};

use crate::{Gvr, Tree};

/// What the house knows of a kind beyond its schema.
#[derive(Debug)]
pub struct Kind {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// The kind, such as `Pod`.
    pub kind: &'static str,
    /// The singular in lower case, such as `pod`.
    pub singular: &'static str,
    /// Short names, such as `po`.
    pub short: &'static [&'static str],
    /// Categories, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// The published name of its type, such as `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// Which verbs it has: all of the usual ones, or `create` alone for reviews.
    pub verbs: Verbs,
    /// Its subresources.
    pub parts: &'static [Part],
    /// Columns of `kubectl get` between NAME and AGE.
    pub columns: &'static [Column],
    /// Field selectors beyond `metadata.name` and `metadata.namespace`: the label, which is also the path.
    pub fields: &'static [&'static str],
    /// Fills in what the author left out and the table cannot know (defaults that depend on other fields).
    pub fill: fn(&mut Tree),
    /// May this object exist at all?
    pub check: fn(&Tree, &mut Faults),
    /// May the first become the second?
    pub change: fn(&Tree, &Tree, &mut Faults),
    /// What a name may look like: what is wrong with it, or nothing.
    pub name_rule: fn(&str) -> Vec<String>,
    /// Whether `metadata.generation` counts changes of what its author wants.
    pub counts: bool,
    /// Whether it counts changes of annotations too.
    pub counts_annotations: bool,
    /// Whether a status that comes with a creation is kept.
    pub keeps_status: bool,
    /// Whether `kubectl get` shows no age.
    pub ageless: bool,
    /// Where its objects are stored, when it is another version's (or group's) name for the same objects.
    pub stored_as: Option<&'static Gvr>,
    /// Turns an object of this version into one of the stored version, but for `apiVersion`.
    pub to_stored: fn(&mut Tree),
    /// Turns a stored object into one of this version, but for `apiVersion`.
    pub from_stored: fn(&mut Tree),
    /// What the API writes into a new object, once the status is gone: the first status.
    pub first: fn(&mut Tree),
    /// What the API writes into a changed object (the second), given the old one.
    pub next: fn(&Tree, &mut Tree),
}

impl Kind {
    /// A cluster-wide kind with the usual verbs and nothing else.
    pub const fn new(gvr: Gvr, kind: &'static str, singular: &'static str, schema: &'static str) -> Self {
        Self {
            gvr,
            kind,
            singular,
            short: &[],
            categories: &[],
            namespaced: false,
            schema,
            verbs: Verbs::All,
            parts: &[],
            columns: &[],
            fields: &[],
            fill: |_| {},
            check: |_, _| {},
            change: |_, _, _| {},
            name_rule: crate::syntax::dns1123_subdomain,
            counts: false,
            counts_annotations: false,
            keeps_status: false,
            ageless: false,
            stored_as: None,
            to_stored: |_| {},
            from_stored: |_| {},
            first: |_| {},
            next: |_, _| {},
        }
    }

    /// Where its objects are stored.
    pub fn storage(&self) -> &Gvr {
        self.stored_as.unwrap_or(&self.gvr)
    }

    /// What [`check_meta`] needs to know of it.
    pub fn meta_rules(&self) -> MetaRules {
        MetaRules { namespaced: self.namespaced, name: self.name_rule }
    }
}

/// Which verbs a kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// create, delete, deletecollection, get, list, patch, update, watch.
    All,
    /// `create` alone: a question that is answered and not stored.
    CreateOnly,
    /// get, list alone (ComponentStatus).
    ReadOnly,
}

/// A subresource of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// `/status`: the status alone may change there, and nowhere else.
    Status,
    /// `/scale`, with the paths of replicas in spec and status, and of the selector.
    Scale {
        /// Such as `spec.replicas`.
        spec: &'static str,
        /// Such as `status.replicas`.
        status: &'static str,
        /// Such as `spec.selector` (a label selector or a map) or `status.selector` (text).
        selector: &'static str,
    },
    /// Any other, by name, with the kind that it takes and gives (group, version, kind).
    Other {
        /// Such as `binding` or `exec`.
        name: &'static str,
        /// Such as `("policy", "v1", "Eviction")`.
        kind: (&'static str, &'static str, &'static str),
        /// Its verbs.
        verbs: &'static [&'static str],
    },
}

/// One printer column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The heading, such as `READY`.
    pub name: &'static str,
    /// `string`, `integer`, `date` …
    pub kind: &'static str,
    /// Whether it shows only with `-o wide`.
    pub wide: bool,
    /// What a row shows; `now` is for ages.
    pub cell: fn(&Tree, crate::Time) -> Tree,
}

/// What is wrong with an object, collected: all faults are told at once.
#[derive(Debug, Default)]
pub struct Faults(pub Vec<Fault>);

/// One fault: where, of what sort, and what to say (the `causes` of a 422 `Status`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The path, such as `spec.containers[0].name`.
    pub field: String,
    /// The cause's reason.
    pub reason: FaultReason,
    /// The cause's message, without the path: `Required value: must name a container`.
    pub message: String,
}

/// The reasons of causes, as the API words them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultReason {
    /// `FieldValueRequired`.
    Required,
    /// `FieldValueInvalid`.
    Invalid,
    /// `FieldValueNotSupported`.
    NotSupported,
    /// `FieldValueDuplicate`.
    Duplicate,
    /// `FieldValueForbidden`.
    Forbidden,
    /// `FieldValueTooLong`.
    TooLong,
    /// `FieldValueTooMany`.
    TooMany,
    /// `FieldValueTypeInvalid`.
    TypeInvalid,
    /// `FieldValueNotFound`.
    NotFound,
    /// `InternalError`.
    Internal,
}

/// Every built-in kind.
pub static KINDS: &[&Kind] = &[];

/// The kind that is served under a resource.
pub fn by_gvr(gvr: &Gvr) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.gvr == *gvr)
}
