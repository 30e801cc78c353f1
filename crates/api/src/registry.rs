//! Which resources are served, built-in and custom, and where their objects lie in the store.
//!
//! A snapshot: it is replaced as a whole when a CustomResourceDefinition comes or goes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use model::Gvr;
use model::kinds::{KINDS, Kind, Part, Verbs};

use crate::custom::Custom;
use crate::refusal::About;

/// One resource of one version, as it is served.
#[derive(Debug)]
pub struct Resource {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// The kind.
    pub kind: Cow<'static, str>,
    /// The kind of its lists.
    pub list_kind: Cow<'static, str>,
    /// The singular in lower case.
    pub singular: Cow<'static, str>,
    /// Short names.
    pub short: Vec<Cow<'static, str>>,
    /// Categories.
    pub categories: Vec<Cow<'static, str>>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Which verbs it has.
    pub verbs: Verbs,
    /// Whether it has `/status`.
    pub status: bool,
    /// Whether it has `/scale`, and where that reads and writes.
    pub scale: Option<Scale>,
    /// Other subresources.
    pub others: Vec<Other>,
    /// The group, version and plural that its objects are stored as.
    pub stored: Gvr,
    /// What is known of it beyond names.
    pub meaning: Meaning,
    /// The start of the paths of its objects, such as `/pods/`.
    pub prefix: String,
}

/// Where `/scale` reads and writes.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Such as `spec.replicas`.
    pub spec: Cow<'static, str>,
    /// Such as `status.replicas`.
    pub status: Cow<'static, str>,
    /// Such as `spec.selector`; empty for none.
    pub selector: Cow<'static, str>,
}

/// A subresource that is neither `status` nor `scale`.
#[derive(Debug, Clone)]
pub struct Other {
    /// Its name.
    pub name: &'static str,
    /// The kind it takes and gives: group, version, kind.
    pub kind: (&'static str, &'static str, &'static str),
    /// Its verbs.
    pub verbs: &'static [&'static str],
}

/// What is known of a resource beyond its names.
#[derive(Debug, Clone)]
pub enum Meaning {
    /// Built in.
    BuiltIn(&'static Kind),
    /// Of a CustomResourceDefinition.
    Custom(Arc<Custom>),
}

impl Resource {
    /// The resource of a built-in kind.
    pub fn built_in(kind: &'static Kind) -> Self {
        let stored = kind.storage().clone();
        let scale = kind.parts.iter().find_map(|part| match part {
            Part::Scale { spec, status, selector } => {
                Some(Scale { spec: (*spec).into(), status: (*status).into(), selector: (*selector).into() })
            }
            _ => None,
        });
        let others = kind.parts.iter().filter_map(|part| match part {
            Part::Other { name, kind, verbs } => Some(Other { name, kind: *kind, verbs }),
            _ => None,
        });
        Self {
            gvr: kind.gvr.clone(),
            kind: kind.kind.into(),
            list_kind: format!("{}List", kind.kind).into(),
            singular: kind.singular.into(),
            short: kind.short.iter().map(|&name| name.into()).collect(),
            categories: kind.categories.iter().map(|&name| name.into()).collect(),
            namespaced: kind.namespaced,
            verbs: kind.verbs,
            status: kind.parts.contains(&Part::Status),
            scale,
            others: others.collect(),
            prefix: format!("/{stored}/"),
            stored,
            meaning: Meaning::BuiltIn(kind),
        }
    }

    /// What whoever asks for it is warned of, where it is going out of use.
    pub fn deprecation(&self) -> Option<&str> {
        match &self.meaning {
            Meaning::Custom(custom) => custom.deprecation.as_deref(),
            Meaning::BuiltIn(_) if self.is(&model::kinds::ENDPOINTS) => {
                Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            }
            Meaning::BuiltIn(_) if self.is(&model::kinds::COMPONENT_STATUS) => {
                Some("v1 ComponentStatus is deprecated in v1.19+")
            }
            Meaning::BuiltIn(_) => None,
        }
    }

    /// Whether a verb that nearly all resources have is one of this resource's: namespaces go one by one.
    pub fn has(&self, verb: &str) -> bool {
        verb != "deletecollection" || !self.is(&model::kinds::NAMESPACE)
    }

    /// Where an object lies.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        if self.namespaced {
            format!("{}{namespace}/{name}", self.prefix)
        } else {
            format!("{}{name}", self.prefix)
        }
    }

    /// Where the objects of a namespace lie (`""`: of all).
    pub fn range(&self, namespace: &str) -> String {
        match namespace {
            "" => self.prefix.clone(),
            namespace => format!("{}{namespace}/", self.prefix),
        }
    }

    /// What refusals say of an object (`""`: of the collection).
    pub fn about(&self, name: &str) -> About {
        About {
            group: self.gvr.group.to_string(),
            resource: self.gvr.plural.to_string(),
            kind: self.kind.to_string(),
            name: name.to_owned(),
            uid: String::new(),
        }
    }

    /// Whether this is the built-in resource `gvr`, or another version of it.
    pub fn is(&self, gvr: &Gvr) -> bool {
        // Plurals first: most resources are of `v1` in some group, and hardly two have one plural.
        self.stored.plural == gvr.plural && self.stored == *gvr
    }

    /// Whether a selector may ask for a field.
    pub fn selects(&self, field: &str) -> bool {
        matches!(field, "metadata.name" | "metadata.namespace")
            || match &self.meaning {
                Meaning::BuiltIn(kind) => kind.fields.contains(&field),
                Meaning::Custom(custom) => custom.fields.iter().any(|(name, _)| name == field),
            }
    }

    /// `apiVersion` of its objects as served.
    pub fn api_version(&self) -> String {
        self.gvr.api_version()
    }
}

/// All resources that are served.
#[derive(Debug, Default)]
pub struct Registry {
    resources: BTreeMap<Gvr, Arc<Resource>>,
    /// The same by plural: each request looks some up.
    by_plural: HashMap<String, Vec<Arc<Resource>>>,
    /// Groups in the order in which discovery shows them, with their versions, preferred first.
    pub groups: Vec<(String, Vec<String>)>,
}

impl Registry {
    /// The built-in resources alone.
    pub fn built_in() -> Self {
        let mut registry = Self::default();
        for kind in KINDS {
            registry.add(Resource::built_in(kind));
        }
        registry
    }

    /// Serves one more resource.
    pub fn add(&mut self, resource: impl Into<Arc<Resource>>) {
        let resource = resource.into();
        let (group, version) = (resource.gvr.group.to_string(), resource.gvr.version.to_string());
        match self.groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => {
                versions.push(version);
                versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
            }
            None => self.groups.push((group, vec![version])),
        }
        let of = self.by_plural.entry(resource.gvr.plural.to_string()).or_default();
        of.retain(|known| known.gvr != resource.gvr);
        of.push(resource.clone());
        self.resources.insert(resource.gvr.clone(), resource);
    }

    /// The resource of a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let mut of = self.by_plural.get(plural)?.iter();
        of.find(|known| known.gvr.version == version && known.gvr.group == group)
    }

    /// The resource of a built-in name.
    pub fn get(&self, gvr: &Gvr) -> Option<&Arc<Resource>> {
        self.find(&gvr.group, &gvr.version, &gvr.plural)
    }

    /// The resources of a group's version, ordered by plural.
    pub fn of_version<'a>(
        &'a self,
        group: &'a str,
        version: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.resources
            .values()
            .filter(move |resource| resource.gvr.group == group && resource.gvr.version == version)
    }

    /// All resources.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Whether a group's version is served.
    pub fn has_version(&self, group: &str, version: &str) -> bool {
        self.groups
            .iter()
            .any(|(known, versions)| known == group && versions.iter().any(|own| own == version))
    }
}

/// Orders versions as Kubernetes prefers them: v2, v1, v1beta2, v1beta1, v1alpha1, then others.
pub fn version_rank(version: &str) -> (u8, u32, u32) {
    let numbers = |text: &str| text.parse::<u32>().ok();
    let Some(rest) = version.strip_prefix('v') else { return (0, 0, 0) };
    for (stage, word) in [(2, "beta"), (1, "alpha")] {
        if let Some((major, minor)) = rest.split_once(word) {
            return match (numbers(major), numbers(minor)) {
                (Some(major), Some(minor)) => (stage, major, minor),
                _ => (0, 0, 0),
            };
        }
    }
    numbers(rest).map_or((0, 0, 0), |major| (3, major, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_kubernetes_does() {
        let mut versions = vec!["foo1", "v1alpha1", "v2", "v1beta1", "v1", "v1beta2"];
        versions.sort_by_key(|version| std::cmp::Reverse(version_rank(version)));
        assert_eq!(versions, ["v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo1"]);
    }
}
