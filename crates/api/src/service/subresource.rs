//! Subresources: which part of which resource goes where.

use http::StatusCode;
use model::{Gvr, Tree, kinds};
use serde_json::json;
use store::{Expect, Record};

use super::Call;
use super::read::{parse, written};
use super::write::{Held, Tried};
use crate::admit::{self, Extra};
use crate::answer::Answer;
use crate::codec;
use crate::encode;
use crate::hooks::Operation;
use crate::hooks::matching::kind_of;
use crate::http::negotiate::View as Shown;
use crate::http::status;
use crate::refusal::{About, Refusal};
use crate::registry::Scale;
use crate::request::WriteOptions;
use crate::verbs::delete::DeleteOptions;
use crate::verbs::evict::Spent;
use crate::verbs::{Verdict, bind, delete, evict, scale};
use crate::view::View;

/// How often an eviction or binding is decided anew when others are faster.
const TRIES: usize = 8;

impl Call<'_> {
    /// The table of cases for subresources.
    pub(super) async fn answer_part(&self, verb: &str) -> Result<Answer, Refusal> {
        let part = self.target.part.as_str();
        let known = match part {
            "status" => self.resource.status,
            "scale" => self.resource.scale.is_some(),
            part => self.resource.others.iter().any(|other| other.name == part),
        };
        if !known || self.target.name.is_empty() {
            return Err(Refusal::no_such_path());
        }
        match (part, verb) {
            ("log" | "exec" | "attach" | "portforward" | "proxy", _) => self.connect().await,
            ("scale", _) => self.scale(verb).await,
            ("binding", "create") => {
                let dry_run = WriteOptions::read(&self.query, self.headers)?.dry_run;
                let binding = self.typed_part()?;
                let binding = self.admitted_part(Operation::Create, part, binding, dry_run).await?;
                self.bind(&binding).await
            }
            ("eviction", "create") => self.evict().await,
            ("token", "create") => {
                let dry_run = WriteOptions::read(&self.query, self.headers)?.dry_run;
                let request = self.typed_part()?;
                self.token(self.admitted_part(Operation::Create, part, request, dry_run).await?)
            }
            ("binding" | "eviction" | "token", _) => Err(Refusal::method_not_allowed()),
            (_, "get") => self.get().await,
            (part, "update") => self.update(part).await,
            (part, "patch") => self.patch(part).await,
            _ => Err(Refusal::method_not_allowed()),
        }
    }

    /// The body, as an object of the subresource's own kind.
    pub(super) fn read_part(&self) -> Result<Tree, Refusal> {
        let body = codec::read_plain(&self.media(), self.body)?;
        if body.is_object() { Ok(body) } else { Err(Refusal::bad_request("the body is not an object")) }
    }

    /// The same, with the kind that the subresource takes where the body says none.
    fn typed_part(&self) -> Result<Tree, Refusal> {
        let mut body = self.read_part()?;
        if let Some((group, version, kind)) = kind_of(&self.resource, &self.target.part) {
            let version = if group.is_empty() { version } else { format!("{group}/{version}") };
            model::tree::fill(&mut body, "apiVersion", version);
            model::tree::fill(&mut body, "kind", kind);
        }
        Ok(body)
    }

    async fn scale(&self, verb: &str) -> Result<Answer, Refusal> {
        let Some(paths) = &self.resource.scale else { return Err(Refusal::no_such_path()) };
        let form = self.form_of(&[Shown::Object])?;
        let shown = match verb {
            "get" => scale::show(paths, &self.hold().await?.object),
            "update" => {
                let body = self.read_part()?;
                self.rescale(paths, |_| Ok(body.clone())).await?
            }
            "patch" => {
                let media = self.media();
                let patch = |old: &Tree| crate::patch::patched(&self.resource, old, self.body, &media);
                self.rescale(paths, patch).await?
            }
            _ => return Err(Refusal::method_not_allowed()),
        };
        Ok(written(StatusCode::OK, form.syntax, &shown))
    }

    /// Sets the replicas to what `decide` makes of the scale that is.
    async fn rescale(
        &self,
        paths: &Scale,
        decide: impl Fn(&Tree) -> Result<Tree, Refusal>,
    ) -> Result<Tree, Refusal> {
        let options = WriteOptions::read(&self.query, self.headers)?;
        let decide = |held: &Held| {
            let wanted = decide(&scale::show(paths, &held.object))?;
            Ok((scale::apply(&self.resource, paths, &held.object, &wanted)?, Vec::new()))
        };
        let (done, _) = self.change("scale", options.dry_run, decide).await?;
        let stored = self.inner.converter.one(&self.resource, done.bytes().clone()).await?;
        Ok(scale::show(paths, &crate::convert::to_served(&self.resource, parse(&stored)?)))
    }

    /// Gives the pod its node.
    pub(super) async fn bind(&self, binding: &Tree) -> Result<Answer, Refusal> {
        let form = self.form_of(&[Shown::Object])?;
        let options = WriteOptions::read(&self.query, self.headers)?;
        let now = self.inner.host.now();
        for _ in 0..TRIES {
            let held = self.hold().await?;
            let mut new = bind::bind(&self.resource, &held.object, binding, now)?;
            super::fence::stamp(&mut new, &self.about(), &View(&self.inner.store))?;
            if let Tried::Done(_) =
                self.carry_out(&held, Verdict::Put(new), Extra::default(), options.dry_run).await?
            {
                return Ok(written(StatusCode::CREATED, form.syntax, &status::success(&About::default())));
            }
        }
        Err(Refusal::stale(&self.about()))
    }

    async fn evict(&self) -> Result<Answer, Refusal> {
        let eviction = self.typed_part()?;
        let dry_run = WriteOptions::read(&self.query, self.headers)?.dry_run
            || DeleteOptions::read(&eviction["deleteOptions"], &self.query)?.dry_run;
        let eviction = self.admitted_part(Operation::Create, "eviction", eviction, dry_run).await?;
        let form = self.form_of(&[Shown::Object])?;
        let mut options = DeleteOptions::read(&eviction["deleteOptions"], &self.query)?;
        options.dry_run |= dry_run;
        for _ in 0..TRIES {
            let held = self.hold().await?;
            admit::protect(&self.resource, self.identity, &held.object, "eviction")?;
            let now = self.inner.host.now();
            let records = self.budgets();
            let budgets = records.iter().map(|record| parse(&record.value)).collect::<Result<Vec<_>, _>>()?;
            let spent = evict::evict(&held.object, &budgets, now)?;
            let verdict = delete::delete(&self.resource, &evict::marked(&held.object, now), &options, now)?;
            let mut extra = spend(&records, spent);
            if matches!(verdict, Verdict::Remove(_)) {
                admit::release(&self.resource, &held.object, &View(&self.inner.store), &mut extra);
            }
            if let Tried::Done(_) = self.carry_out(&held, verdict, extra, options.dry_run).await? {
                return Ok(written(StatusCode::CREATED, form.syntax, &status::success(&About::default())));
            }
        }
        Err(Refusal::stale(&self.about()).retry_after(1))
    }

    fn budgets(&self) -> Vec<Record> {
        let prefix = format!("/{}/{}/", kinds::POD_DISRUPTION_BUDGET, self.target.namespace);
        let page = self.inner.store.list(&store::Range { prefix, ..store::Range::default() });
        page.map(|page| page.records).unwrap_or_default()
    }

    /// The same request, for an object of another built-in resource.
    pub(super) fn redirected(&self, gvr: &Gvr, name: &str) -> Result<Call<'_>, Refusal> {
        let resource = self.inner.registry().get(gvr).ok_or_else(Refusal::no_such_path)?.clone();
        let mut target = self.target.clone();
        target.name = name.to_owned();
        Ok(Call {
            inner: self.inner,
            identity: self.identity,
            resource,
            target,
            query: self.query.clone(),
            method: self.method.clone(),
            headers: self.headers,
            body: self.body,
            told: self.told.clone(),
            patience: self.patience.clone(),
        })
    }
}

/// What is stored together with the eviction: the budget with one disruption less, if nobody changed it meanwhile.
fn spend(records: &[Record], spent: Spent) -> Extra {
    let mut extra = Extra::default();
    if let Spent::Budget(budget) = spent {
        let name = budget["metadata"]["name"].as_str().unwrap_or_default();
        if let Some(record) = records.iter().find(|record| record.path.rsplit('/').next() == Some(name)) {
            extra.expect.push((record.path.clone(), Expect::At(record.revision)));
            extra.changes.push(encode::put_built_in(&kinds::POD_DISRUPTION_BUDGET, &budget));
        }
    }
    extra
}

/// `/api/v1/namespaces/N/bindings`: the pod is named by the body.
pub(super) fn binding_name(binding: &Tree) -> Result<&str, Refusal> {
    let name = binding["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(Refusal::bad_request(format!(
            "the binding names no pod: {}",
            json!(binding["metadata"])
        )));
    }
    Ok(name)
}
