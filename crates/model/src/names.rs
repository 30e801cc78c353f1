//! What things are called: resources and keys of objects.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A resource of the API: group, version and plural, as in `/apis/{group}/{version}/{plural}`.
///
/// Built-in ones are constants (see [`crate::kinds`]); those of CustomResourceDefinitions are made at run time.
#[derive(Debug, Clone, Eq, PartialOrd, Ord)]
pub struct Gvr {
    /// The API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// The version, such as `v1`.
    pub version: Cow<'static, str>,
    /// The plural in lower case, such as `pods`.
    pub plural: Cow<'static, str>,
}

/// Resources are looked up many times for each object that is written: most are constants, which are the same where they lie
/// at the same place, and hardly two of them have one plural.
impl PartialEq for Gvr {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &str, b: &str| a.len() == b.len() && (a.as_ptr() == b.as_ptr() || a == b);
        same(&self.plural, &other.plural)
            && same(&self.group, &other.group)
            && same(&self.version, &other.version)
    }
}

impl Hash for Gvr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plural.hash(state);
    }
}

impl Gvr {
    /// A resource known when the program is built.
    pub const fn new(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), version: Cow::Borrowed(version), plural: Cow::Borrowed(plural) }
    }

    /// `apiVersion` as objects carry it: `group/version`, or the version alone in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path under which the resource is served: `/api/v1` or `/apis/group/version`.
    pub fn root_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        }
    }

    /// The path of a collection; an empty namespace means all namespaces or a cluster-wide resource.
    pub fn collection_path(&self, namespace: &str) -> String {
        match namespace {
            "" => format!("{}/{}", self.root_path(), self.plural),
            _ => format!("{}/namespaces/{namespace}/{}", self.root_path(), self.plural),
        }
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            write!(f, "{}", self.plural)
        } else {
            write!(f, "{}.{}", self.plural, self.group)
        }
    }
}

/// Names one object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which resource it is of.
    pub gvr: Gvr,
    /// Its namespace; empty for cluster-wide objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of an object in a namespace (`""` for cluster-wide ones).
    pub fn new(gvr: &Gvr, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { gvr: gvr.clone(), namespace: namespace.into(), name: name.into() }
    }

    /// The path under which the object is served.
    pub fn path(&self) -> String {
        format!("{}/{}", self.gvr.collection_path(&self.namespace), self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.gvr, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.gvr, self.name),
        }
    }
}
