//! Where a write meets policies and webhooks: after our own plugins changed it and before it is stored.
//!
//! What a webhook changed goes through our own plugins, defaults and checks again. Nobody is asked before the server
//! has what a new cluster needs: until then only the server itself writes.

use model::Tree;
use serde_json::{Value, json};

use super::Call;
use crate::admit::Extra;
use crate::hooks::{Act, Asking, Hooks, Mutated, Operation, Sort};
use crate::patch;
use crate::policy;
use crate::refusal::Refusal;
use crate::request::WriteOptions;
use crate::verbs::delete::{DeleteOptions, Propagation};
use crate::verbs::{meta, metadata};

/// What webhooks said already, for as long as one request is tried: they are not asked the same again because
/// somebody else was faster.
#[derive(Default)]
pub(super) struct Memo {
    mutated: Option<(Option<Tree>, Mutated)>,
    validated: Option<(Option<Tree>, Option<Tree>)>,
}

/// What policies made of an object.
struct ByPolicies {
    /// The object; `None` when it is as before.
    object: Option<Tree>,
    /// Those that want to see it again should it change.
    again: policy::Again,
}

impl Call<'_> {
    /// What webhooks are asked about this request.
    pub(super) fn act<'b>(
        &'b self,
        operation: Operation,
        part: &'b str,
        old: Option<&'b Tree>,
        dry_run: bool,
    ) -> Act<'b> {
        Act {
            identity: self.identity,
            resource: &self.resource,
            part,
            operation,
            namespace: &self.target.namespace,
            name: &self.target.name,
            old,
            options: self.options(operation, dry_run),
            dry_run,
        }
    }

    /// The webhooks of a sort, when there are any.
    fn hooks(&self, sort: Sort) -> Option<&Hooks> {
        let hooks = self.inner.hooks.get()?;
        (!hooks.now(sort, &self.inner.store).is_empty()).then_some(hooks)
    }

    /// Lets the mutating policies, and then the mutating webhooks, have an object; `redo` puts what they changed through our own plugins again. `None`
    /// when they change nothing.
    pub(super) async fn mutated<T>(
        &self,
        act: &Act<'_>,
        object: &Tree,
        memo: &mut Memo,
        redo: &(dyn Fn(Tree) -> Result<(Tree, T), Refusal> + Sync),
    ) -> Result<Option<(Tree, T)>, Refusal> {
        let Some(first) = self.by_policies(act, object, None)? else {
            return self.by_hooks(act, object, memo, redo).await;
        };
        let done = match &first.object {
            Some(new) => Some(redo(new.clone())?),
            None => None,
        };
        let now = done.as_ref().map_or(object, |(now, _)| now);
        let Some(hooked) = self.by_hooks(act, now, memo, redo).await? else { return Ok(done) };
        // What webhooks changed, those policies see again who want to.
        let again =
            if first.again.is_empty() { None } else { self.by_policies(act, &hooked.0, Some(&first.again))? };
        match again.and_then(|again| again.object) {
            Some(new) => redo(new).map(Some),
            None => Ok(Some(hooked)),
        }
    }

    /// Lets the mutating policies have an object; `None` when there are none.
    fn by_policies(
        &self,
        act: &Act<'_>,
        object: &Tree,
        only: Option<&policy::Again>,
    ) -> Result<Option<ByPolicies>, Refusal> {
        let Some(policies) = self.inner.policies.get().map(|kept| kept.now(&self.inner.store)) else {
            return Ok(None);
        };
        if policies.mutating.is_empty() {
            return Ok(None);
        }
        let sent = unstamped(act, object);
        let (registry, view) = (self.inner.registry(), self.inner.view());
        let asking = policy::Asking {
            registry: &registry,
            world: &view,
            guard: self.guard(),
            patience: self.patience.as_deref(),
        };
        let changed = policy::mutate(&policies, act, &sent, only, &asking)?;
        let object = Some(changed.object).filter(|new| *new != sent);
        Ok(Some(ByPolicies { object, again: changed.again }))
    }

    /// Asks the validating policies about an object as it will be stored.
    fn judged(&self, act: &Act<'_>, object: Option<&Tree>) -> Result<(), Refusal> {
        let Some(policies) = self.inner.policies.get().map(|kept| kept.now(&self.inner.store)) else {
            return Ok(());
        };
        if policies.validating.is_empty() {
            return Ok(());
        }
        let (registry, view) = (self.inner.registry(), self.inner.view());
        let asking = policy::Asking {
            registry: &registry,
            world: &view,
            guard: self.guard(),
            patience: self.patience.as_deref(),
        };
        let judged = policy::validate(&policies, act, object, &asking);
        judged.warnings.iter().for_each(|warning| self.told.warn(warning));
        judged.notes.iter().for_each(|(key, value)| self.told.note(key, value));
        judged.verdict(act, object)
    }

    /// Lets the mutating webhooks have an object.
    async fn by_hooks<T>(
        &self,
        act: &Act<'_>,
        object: &Tree,
        memo: &mut Memo,
        redo: &(dyn Fn(Tree) -> Result<(Tree, T), Refusal> + Sync),
    ) -> Result<Option<(Tree, T)>, Refusal> {
        let Some(first) = self.mutated_once(act, Some(object), memo).await? else { return Ok(None) };
        let (true, Some(new)) = (first.changed, first.object) else { return Ok(None) };
        let (again, extra) = redo(new.clone())?;
        // What our own plugins then change, all want to see who want to be asked again; else those before the change.
        let registry = self.inner.registry();
        let Some(hooks) = self.hooks(Sort::Mutating) else { return Ok(Some((again, extra))) };
        let sent = unstamped(act, &again);
        let wanting = if sent == new { &first.again } else { &first.asked };
        if wanting.is_empty() {
            return Ok(Some((again, extra)));
        }
        let second = self.asking(hooks, &registry).mutate(act, Some(sent), Some(wanting)).await?;
        match second.object.filter(|_| second.changed) {
            Some(new) => redo(new).map(Some),
            None => Ok(Some((again, extra))),
        }
    }

    /// The first round, unless it was asked with the same object before.
    async fn mutated_once(
        &self,
        act: &Act<'_>,
        object: Option<&Tree>,
        memo: &mut Memo,
    ) -> Result<Option<Mutated>, Refusal> {
        let Some(hooks) = self.hooks(Sort::Mutating) else { return Ok(None) };
        let sent = object.map(|object| unstamped(act, object));
        if let Some((known, mutated)) = &memo.mutated
            && *known == sent
        {
            return Ok(Some(mutated.clone()));
        }
        let registry = self.inner.registry();
        let mutated = self.asking(hooks, &registry).mutate(act, sent.clone(), None).await?;
        memo.mutated = Some((sent, mutated.clone()));
        Ok(Some(mutated))
    }

    /// Asks the validating policies, and then the validating webhooks, about an object as it will be stored.
    pub(super) async fn validated(
        &self,
        act: &Act<'_>,
        object: Option<&Tree>,
        memo: &mut Memo,
    ) -> Result<(), Refusal> {
        self.judged(act, object)?;
        let Some(hooks) = self.hooks(Sort::Validating) else { return Ok(()) };
        let asked = (object.cloned(), act.old.cloned());
        if memo.validated.as_ref() == Some(&asked) {
            return Ok(());
        }
        let registry = self.inner.registry();
        self.asking(hooks, &registry).validate(act, object).await?;
        memo.validated = Some(asked);
        Ok(())
    }

    /// Lets webhooks have what goes through a part that is no object of its own, such as an eviction, and judge it.
    pub(super) async fn admitted_part(
        &self,
        operation: Operation,
        part: &str,
        body: Tree,
        dry_run: bool,
    ) -> Result<Tree, Refusal> {
        let act = self.act(operation, part, None, dry_run);
        let mut memo = Memo::default();
        let redo = |body: Tree| Ok((body, Extra::default()));
        let body = match self.mutated(&act, &body, &mut memo, &redo).await? {
            Some((new, _)) => new,
            None => body,
        };
        self.validated(&act, Some(&body), &mut memo).await?;
        Ok(body)
    }

    /// Asks whether an object may be deleted. In a collection the request names none.
    pub(super) async fn admitted_end(
        &self,
        old: &Tree,
        options: &DeleteOptions,
        in_collection: bool,
        memo: &mut Memo,
    ) -> Result<(), Refusal> {
        let mut act = self.act(Operation::Delete, "", Some(old), options.dry_run);
        act.options = delete_options(options);
        if in_collection {
            act.name = "";
        }
        self.mutated_once(&act, None, memo).await?;
        self.validated(&act, None, memo).await
    }

    fn asking<'b>(&'b self, hooks: &'b Hooks, registry: &'b crate::registry::Registry) -> Asking<'b> {
        Asking {
            hooks,
            outbound: &self.inner.outbound,
            host: &self.inner.host,
            store: &self.inner.store,
            converter: &self.inner.converter,
            registry,
            guard: self.guard(),
            told: &self.told,
        }
    }

    /// The options of the request, as reviews show them.
    fn options(&self, operation: Operation, dry_run: bool) -> Tree {
        let kind = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update if self.method == http::Method::PATCH => "PatchOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete | Operation::Connect => return Tree::Null,
        };
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        for name in ["fieldManager", "fieldValidation"] {
            if let Some(value) = self.query.get(name) {
                options[name] = json!(value);
            }
        }
        if dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if self.media() == patch::APPLY {
            options["force"] =
                json!(WriteOptions::read(&self.query, self.headers).is_ok_and(|own| own.force));
        }
        options
    }
}

/// An object as it is shown before it has what the server alone gives it: a new one has no uid and no time yet, and no
/// name where it wants one to be made.
fn unstamped(act: &Act<'_>, object: &Tree) -> Tree {
    let mut object = object.clone();
    if act.operation == Operation::Create && act.part.is_empty() {
        let generated = act.name.is_empty() && !meta(&object, "generateName").is_empty();
        let metadata = metadata(&mut object);
        metadata.remove("uid");
        metadata.remove("creationTimestamp");
        if generated {
            metadata.remove("name");
        }
    }
    object
}

fn delete_options(options: &DeleteOptions) -> Tree {
    let mut shown = json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"});
    if let Some(seconds) = options.grace_seconds {
        shown["gracePeriodSeconds"] = json!(seconds);
    }
    if !options.preconditions.is_null() {
        shown["preconditions"] = options.preconditions.clone();
    }
    if let Some(propagation) = options.propagation {
        shown["propagationPolicy"] = json!(match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        });
    }
    if options.dry_run {
        shown["dryRun"] = json!(["All"]);
    }
    shown
}

/// What somebody asks for who connects: the query, as the part's options.
pub(super) fn connect_options(
    kind: (&str, &str, &str),
    pairs: &[(String, String)],
    path: Option<&str>,
) -> Tree {
    let (group, version, kind) = kind;
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let mut options = json!({"kind": kind, "apiVersion": api_version});
    for (name, value) in pairs {
        match (kind, name.as_str()) {
            (_, "stdin" | "stdout" | "stderr" | "tty") => {
                options[name] = json!(!matches!(value.as_str(), "false" | "0"));
            }
            (_, "container") => options[name] = json!(value),
            (_, "command") => push(&mut options, "command", json!(value)),
            ("PodPortForwardOptions", "ports") => {
                let ports = value.split(',').filter_map(|port| port.parse::<u16>().ok());
                ports.for_each(|port| push(&mut options, "ports", json!(port)));
            }
            _ => {}
        }
    }
    if kind.ends_with("ProxyOptions") {
        options["path"] = json!(path.unwrap_or_default());
    }
    options
}

fn push(tree: &mut Tree, key: &str, item: Tree) {
    match tree.get_mut(key) {
        Some(Value::Array(items)) => items.push(item),
        _ => tree[key] = json!([item]),
    }
}
