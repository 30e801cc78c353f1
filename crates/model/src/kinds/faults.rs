//! How faults are collected, in the words that clients know.

use std::fmt;

use super::{Fault, FaultReason, Faults};
use crate::Tree;

impl Faults {
    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The field must be there.
    pub fn required(&mut self, field: impl Into<String>, detail: &str) {
        self.add(field, FaultReason::Required, None, detail);
    }

    /// The value may not be.
    pub fn invalid(&mut self, field: impl Into<String>, value: impl Into<Tree>, detail: &str) {
        self.add(field, FaultReason::Invalid, Some(value.into()), detail);
    }

    /// The value is none of those that may be.
    pub fn not_supported(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        let mut quoted: Vec<String> = supported.iter().map(|text| Tree::from(*text).to_string()).collect();
        quoted.sort();
        let detail = format!("supported values: {}", quoted.join(", "));
        self.add(field, FaultReason::NotSupported, Some(value.into()), &detail);
    }

    /// The value is there already.
    pub fn duplicate(&mut self, field: impl Into<String>, value: impl Into<Tree>) {
        self.add(field, FaultReason::Duplicate, Some(value.into()), "");
    }

    /// What the value names is not there.
    pub fn not_found(&mut self, field: impl Into<String>, value: impl Into<Tree>) {
        self.add(field, FaultReason::NotFound, Some(value.into()), "");
    }

    /// The field may not be there, or not be changed so.
    pub fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.add(field, FaultReason::Forbidden, None, detail);
    }

    /// The value is too long.
    pub fn too_long(&mut self, field: impl Into<String>, len_max: usize) {
        self.add(field, FaultReason::TooLong, None, &format!("may not be more than {len_max} bytes"));
    }

    /// There are too many items.
    pub fn too_many(&mut self, field: impl Into<String>, len: usize, len_max: usize) {
        let detail = format!("must have at most {len_max} items");
        self.add(field, FaultReason::TooMany, Some(len.into()), &detail);
    }

    /// The value is invalid for each of these reasons (as the checks in [`crate::syntax`] return them). Nothing is written
    /// where there is none: most values are good.
    pub fn each(&mut self, field: impl fmt::Display, value: impl Into<Tree>, reasons: Vec<String>) {
        if reasons.is_empty() {
            return;
        }
        let (field, value) = (field.to_string(), value.into());
        for reason in reasons {
            self.invalid(field.as_str(), value.clone(), &reason);
        }
    }

    /// The value may not change.
    pub fn immutable(&mut self, field: impl fmt::Display, old: &Tree, new: &Tree) {
        if old != new {
            self.invalid(field.to_string(), new.clone(), "field is immutable");
        }
    }

    /// The value is one of these; empty is taken as left out, and told as required.
    pub fn one_of(&mut self, field: impl fmt::Display, value: &str, supported: &[&str]) {
        match value {
            "" => self.required(field.to_string(), ""),
            _ if !supported.contains(&value) => self.not_supported(field.to_string(), value, supported),
            _ => {}
        }
    }

    /// The number is there and not below zero, or is left out.
    pub fn non_negative(&mut self, field: impl fmt::Display, value: &Tree) {
        if value.as_i64().is_some_and(|number| number < 0) {
            self.invalid(field.to_string(), value.clone(), "must be greater than or equal to 0");
        }
    }

    fn add(&mut self, field: impl Into<String>, reason: FaultReason, value: Option<Tree>, detail: &str) {
        let mut message = reason.words().to_owned();
        if let Some(value) = value {
            message.push_str(&format!(": {value}"));
        }
        if !detail.is_empty() {
            message.push_str(&format!(": {detail}"));
        }
        self.0.push(Fault { field: field.into(), reason, message });
    }
}

impl FaultReason {
    /// The reason as it stands in a cause.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }

    /// The reason as a message begins with it.
    pub fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
