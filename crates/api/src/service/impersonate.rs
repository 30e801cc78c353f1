//! `Impersonate-*`: a user who may acts as another.

use std::borrow::Cow;

use http::HeaderMap;

use super::Inner;
use crate::auth::{AUTHENTICATED, Attributes, Identity};
use crate::refusal::Refusal;

const EXTRA_PREFIX: &str = "impersonate-extra-";

impl Inner {
    /// Who the request is for: the user, or whom they act as.
    pub(super) fn impersonated<'a>(
        &self,
        who: &'a Identity,
        headers: &HeaderMap,
    ) -> Result<Cow<'a, Identity>, Refusal> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let Some(name) = text("impersonate-user") else {
            let stray = headers.keys().any(|name| name.as_str().starts_with("impersonate-"));
            return match stray {
                true => {
                    Err(Refusal::bad_request("requested groups, uid or extra without impersonating a user"))
                }
                false => Ok(Cow::Borrowed(who)),
            };
        };
        let mut other =
            Identity { name, uid: text("impersonate-uid").unwrap_or_default(), ..Identity::default() };
        other.groups = all(headers, "impersonate-group");
        for header in headers.keys().filter(|name| name.as_str().starts_with(EXTRA_PREFIX)) {
            let key = header.as_str()[EXTRA_PREFIX.len()..].to_owned();
            other.extra.insert(key, all(headers, header.as_str()));
        }
        self.check_impersonation(who, &other)?;
        if other.groups.is_empty() {
            other.groups = implied_groups(&other.name);
        }
        if !other.is_in(AUTHENTICATED) && other.name != crate::auth::ANONYMOUS {
            other.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(Cow::Owned(other))
    }

    fn check_impersonation(&self, who: &Identity, other: &Identity) -> Result<(), Refusal> {
        let may = |group: &str, resource: &str, part: &str, namespace: &str, name: &str| {
            let what = Attributes {
                verb: "impersonate".into(),
                group: group.into(),
                version: "v1".into(),
                resource: resource.into(),
                subresource: part.into(),
                namespace: namespace.into(),
                name: name.into(),
                ..Attributes::default()
            };
            self.authorize(who, &what)
        };
        match service_account(&other.name) {
            Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name)?,
            None => may("", "users", "", "", &other.name)?,
        }
        for group in &other.groups {
            may("", "groups", "", "", group)?;
        }
        if !other.uid.is_empty() {
            may("authentication.k8s.io", "uids", "", "", &other.uid)?;
        }
        for (key, values) in &other.extra {
            for value in values {
                may("authentication.k8s.io", "userextras", key, "", value)?;
            }
        }
        Ok(())
    }
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
}

fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

fn implied_groups(user: &str) -> Vec<String> {
    match service_account(user) {
        Some((namespace, _)) => {
            vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]
        }
        None => Vec::new(),
    }
}
