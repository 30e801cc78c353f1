//! How a kind's file says what differs from a plain kind: one call a fact.

use super::{Column, Faults, Kind, Part, Verbs};
use crate::{Gvr, Tree};

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
            nameless: false,
            stored_as: None,
            to_stored: |_| {},
            from_stored: |_| {},
            first: |_| {},
            next: |_, _| {},
        }
    }

    /// Its objects live in namespaces.
    pub const fn namespaced(mut self) -> Self {
        self.namespaced = true;
        self
    }

    /// Its short names.
    pub const fn short(mut self, short: &'static [&'static str]) -> Self {
        self.short = short;
        self
    }

    /// Its categories.
    pub const fn categories(mut self, categories: &'static [&'static str]) -> Self {
        self.categories = categories;
        self
    }

    /// Its verbs.
    pub const fn verbs(mut self, verbs: Verbs) -> Self {
        self.verbs = verbs;
        self
    }

    /// Its subresources.
    pub const fn parts(mut self, parts: &'static [Part]) -> Self {
        self.parts = parts;
        self
    }

    /// Its columns.
    pub const fn columns(mut self, columns: &'static [Column]) -> Self {
        self.columns = columns;
        self
    }

    /// Its selectable fields.
    pub const fn fields(mut self, fields: &'static [&'static str]) -> Self {
        self.fields = fields;
        self
    }

    /// How what was left out is filled in.
    pub const fn filling(mut self, fill: fn(&mut Tree)) -> Self {
        self.fill = fill;
        self
    }

    /// What is asked of an object.
    pub const fn checking(mut self, check: fn(&Tree, &mut Faults)) -> Self {
        self.check = check;
        self
    }

    /// What is asked of a change.
    pub const fn changing(mut self, change: fn(&Tree, &Tree, &mut Faults)) -> Self {
        self.change = change;
        self
    }

    /// What a name may look like.
    pub const fn named(mut self, rule: fn(&str) -> Vec<String>) -> Self {
        self.name_rule = rule;
        self
    }

    /// Its generation is counted.
    pub const fn counts(mut self) -> Self {
        self.counts = true;
        self
    }

    /// Its generation is counted, changes of annotations included.
    pub const fn counts_annotations(mut self) -> Self {
        self.counts = true;
        self.counts_annotations = true;
        self
    }

    /// A status that comes with a creation is kept.
    pub const fn keeps_status(mut self) -> Self {
        self.keeps_status = true;
        self
    }

    /// Its table has no column of names: its own columns say it better.
    pub const fn nameless(mut self) -> Self {
        self.nameless = true;
        self
    }

    /// `kubectl get` shows no age.
    pub const fn ageless(mut self) -> Self {
        self.ageless = true;
        self
    }

    /// Its objects are those of another version, in the same form.
    pub const fn stored_as(mut self, gvr: &'static Gvr) -> Self {
        self.stored_as = Some(gvr);
        self
    }

    /// How its objects turn into those of the stored version and back.
    pub const fn converting(mut self, to_stored: fn(&mut Tree), from_stored: fn(&mut Tree)) -> Self {
        self.to_stored = to_stored;
        self.from_stored = from_stored;
        self
    }

    /// What the API writes into a new object.
    pub const fn beginning(mut self, first: fn(&mut Tree)) -> Self {
        self.first = first;
        self
    }

    /// What the API writes into a changed object.
    pub const fn continuing(mut self, next: fn(&Tree, &mut Tree)) -> Self {
        self.next = next;
        self
    }
}
