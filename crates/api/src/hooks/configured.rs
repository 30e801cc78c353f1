//! Which webhooks are configured: a snapshot of the stored configurations, read anew when one of them changes.

use std::sync::Arc;
use std::time::Duration;

use model::tree::{items, text, whole};
use model::{Gvr, Selector, Tree, kinds};
use store::{Range, Store, StoreError, Watch};

use super::matching::Rule;
use crate::cel::Conditions;
use crate::outbound::{Callee, Introductions};

/// What is shown to webhooks of each sort.
#[derive(Clone, Default)]
pub struct Introduced {
    /// To mutating ones.
    pub mutating: Arc<Introductions>,
    /// To validating ones.
    pub validating: Arc<Introductions>,
}

/// What a webhook may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Change objects, and refuse them.
    Mutating,
    /// Refuse objects.
    Validating,
}

/// One webhook.
#[derive(Debug, Clone)]
pub struct Hook {
    /// The configuration's name and its place in it: by this it is known within a request.
    pub id: (String, usize),
    /// Its own name.
    pub name: String,
    /// What it may do.
    pub sort: Sort,
    /// Whom to ask; or why there is nobody.
    pub callee: Result<Callee, String>,
    /// What it is asked about.
    pub rules: Vec<Rule>,
    /// Whether it is asked about other versions of its resources too.
    pub equivalent: bool,
    /// Of which namespaces.
    pub namespaces: Selector,
    /// Of which objects.
    pub objects: Selector,
    /// Whether it is asked about an act at all.
    pub conditions: Arc<Conditions>,
    /// Whether a request goes on when it cannot be asked.
    pub ignorable: bool,
    /// Whether it may be asked about what is not stored.
    pub dry_runs: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// The first version of reviews that we and it know; `None` when there is none.
    pub review: Option<&'static str>,
    /// Whether it is asked again when others changed the object after it.
    pub again: bool,
}

/// A snapshot of what is configured, and a place in the history from which to look for newer configurations.
pub struct Configured {
    introduced: Introduced,
    watches: [Watch; 2],
    mutating: Arc<[Hook]>,
    validating: Arc<[Hook]>,
}

impl Configured {
    /// What is configured now.
    pub fn new(store: &Store, introduced: Introduced) -> Result<Self, StoreError> {
        let (mutating, first) = read(store, Sort::Mutating, &introduced.mutating)?;
        let (validating, second) = read(store, Sort::Validating, &introduced.validating)?;
        Ok(Self { introduced, watches: [first, second], mutating, validating })
    }

    /// The webhooks of a sort, read anew when a configuration came, changed or went.
    pub fn now(&mut self, sort: Sort, store: &Store) -> Arc<[Hook]> {
        // Nothing to be read means that nothing changed; anything else, an error too, is a reason to look.
        if self.watches.iter_mut().any(|watch| !matches!(watch.try_next(), Ok(None)))
            && let Ok(newer) = Self::new(store, self.introduced.clone())
        {
            *self = newer;
        }
        match sort {
            Sort::Mutating => self.mutating.clone(),
            Sort::Validating => self.validating.clone(),
        }
    }
}

fn gvr(sort: Sort) -> &'static Gvr {
    match sort {
        Sort::Mutating => &kinds::MUTATING_WEBHOOK_CONFIGURATION,
        Sort::Validating => &kinds::VALIDATING_WEBHOOK_CONFIGURATION,
    }
}

fn read(
    store: &Store,
    sort: Sort,
    introductions: &Introductions,
) -> Result<(Arc<[Hook]>, Watch), StoreError> {
    let range = Range { prefix: format!("/{}/", gvr(sort)), ..Range::default() };
    let page = store.list(&range)?;
    let watch = store.watch(&range.prefix, page.revision)?;
    // The store lists by name, which is the order in which they are asked.
    let all = page.records.iter().filter_map(|record| serde_json::from_slice::<Tree>(&record.value).ok());
    let hooks = all.flat_map(|configuration| hooks(&configuration, sort)).map(|hook| {
        let callee = hook.callee.map(|callee| callee.introduced(introductions));
        Hook { callee, ..hook }
    });
    let hooks: Vec<Hook> = hooks.collect();
    Ok((hooks.into(), watch))
}

/// The webhooks of a configuration, in its order.
pub fn hooks(configuration: &Tree, sort: Sort) -> Vec<Hook> {
    let own = text(configuration, "metadata.name");
    items(configuration, "webhooks").iter().enumerate().map(|(at, hook)| one(own, at, hook, sort)).collect()
}

fn one(configuration: &str, at: usize, hook: &Tree, sort: Sort) -> Hook {
    let selector = |field: &str| match hook.get(field).filter(|selector| !selector.is_null()) {
        // What validation let in can be read; what cannot be read selects everything, and so is not bypassed.
        Some(selector) => Selector::of_tree(Some(selector)).unwrap_or_else(|_| Selector::everything()),
        None => Selector::everything(),
    };
    let seconds = whole(hook, "timeoutSeconds").and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(10);
    let known = items(hook, "admissionReviewVersions").iter().filter_map(Tree::as_str);
    let mut known = known.filter_map(|version| ["v1", "v1beta1"].into_iter().find(|ours| *ours == version));
    Hook {
        id: (configuration.to_owned(), at),
        name: text(hook, "name").to_owned(),
        sort,
        callee: Callee::of_client_config(&hook["clientConfig"]),
        rules: items(hook, "rules").iter().map(Rule::read).collect(),
        equivalent: text(hook, "matchPolicy") != "Exact",
        namespaces: selector("namespaceSelector"),
        objects: selector("objectSelector"),
        conditions: Arc::new(Conditions::compile(items(hook, "matchConditions"), false)),
        ignorable: text(hook, "failurePolicy") == "Ignore",
        dry_runs: matches!(text(hook, "sideEffects"), "None" | "NoneOnDryRun"),
        timeout: Duration::from_secs(seconds),
        review: known.next(),
        again: text(hook, "reinvocationPolicy") == "IfNeeded",
    }
}
