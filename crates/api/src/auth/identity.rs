//! Who asks, and what for.

use std::collections::BTreeMap;

use model::Tree;

/// The group of everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of those who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user name of those who did not.
pub const ANONYMOUS: &str = "system:anonymous";
/// The group that may do everything; membership comes from certificates alone.
pub const MASTERS: &str = "system:masters";

/// An authenticated (or anonymous) user, as `authentication.k8s.io/v1` `UserInfo` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user name.
    pub name: String,
    /// The user's uid; empty for most.
    pub uid: String,
    /// The groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// Further facts, such as which pod a token is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// A user in these groups who proved who they are.
    pub fn user(name: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|&group| group.to_owned()).collect();
        groups.push(AUTHENTICATED.to_owned());
        Self { name: name.into(), groups, ..Self::default() }
    }

    /// One of our own components, which acts as its own user.
    pub fn component(name: &str) -> Self {
        Self::user(format!("system:{name}"), &[])
    }

    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.to_owned(), groups: vec![UNAUTHENTICATED.to_owned()], ..Self::default() }
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// What is asked for: an act on a resource, or on a path that is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or a path's lower-case method.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The plural; empty for a path that is no resource.
    pub resource: String,
    /// The subresource; empty for none.
    pub subresource: String,
    /// The namespace; empty for all or none.
    pub namespace: String,
    /// The object's name; empty for a collection.
    pub name: String,
    /// The path when it is no resource, such as `/version`.
    pub path: String,
    /// The fields that a list or watch asks to have certain values.
    pub fields: Vec<(String, String)>,
    /// Its `fieldSelector` and `labelSelector`, as reviews have them; null where it has none.
    pub selectors: Tree,
}

impl Attributes {
    /// Whether it is an act on a resource.
    pub fn is_resource(&self) -> bool {
        !self.resource.is_empty()
    }

    /// The value that a list or watch asks a field to have.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str())
    }

    /// `resource` or `resource/subresource`, as rules name it.
    pub fn full_resource(&self) -> String {
        match self.subresource.as_str() {
            "" => self.resource.clone(),
            part => format!("{}/{part}", self.resource),
        }
    }
}

/// What an authorizer says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may be done.
    pub allowed: bool,
    /// Which rule allowed it, or why nothing did.
    pub reason: String,
    /// What went wrong while it was asked; empty where nothing did.
    pub error: String,
}
