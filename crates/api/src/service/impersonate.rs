//! `Impersonate-*`: a user who may acts as another.

use std::borrow::Cow;

use http::HeaderMap;

use super::Inner;
use crate::auth::{AUTHENTICATED, Attributes, Identity};
use crate::refusal::Refusal;

const EXTRA_PREFIX: &str = "impersonate-extra-";

impl Inner {
    /// Who the request is for: the user, or whom they act as.
    pub(super) async fn impersonated<'a>(
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
        for what in impersonation(&other) {
            self.authorize(who, &what).await?;
        }
        if other.groups.is_empty() {
            other.groups = implied_groups(&other.name);
        }
        if !other.is_in(AUTHENTICATED) && other.name != crate::auth::ANONYMOUS {
            other.groups.push(AUTHENTICATED.to_owned());
        }
        Ok(Cow::Owned(other))
    }
}

/// What whoever acts as this user must be allowed to do.
fn impersonation(other: &Identity) -> Vec<Attributes> {
    let may = |group: &str, resource: &str, part: &str, namespace: &str, name: &str| Attributes {
        verb: "impersonate".into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: part.into(),
        namespace: namespace.into(),
        name: name.into(),
        ..Attributes::default()
    };
    let mut all = vec![match service_account(&other.name) {
        Some((namespace, name)) => may("", "serviceaccounts", "", namespace, name),
        None => may("", "users", "", "", &other.name),
    }];
    all.extend(other.groups.iter().map(|group| may("", "groups", "", "", group)));
    if !other.uid.is_empty() {
        all.push(may("authentication.k8s.io", "uids", "", "", &other.uid));
    }
    for (key, values) in &other.extra {
        all.extend(values.iter().map(|value| may("authentication.k8s.io", "userextras", key, "", value)));
    }
    all
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
