//! POST, PUT, PATCH and DELETE: read, decide, admit, commit at the revision that was read; again when somebody was
//! faster and the caller named no revision.

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{StreamExt, stream};
use http::{Method, StatusCode};
use model::{Time, Tree, World, kinds};
use serde_json::json;
use store::{Change, Expect, Record, StoreError, Txn};

use super::admission::Memo;
use super::list::Found;
use super::read::{parse, written};
use super::{Call, fence};
use crate::admit::{self, Asked, Extra, Operation};
use crate::answer::Answer;
use crate::codec::{self, Read};
use crate::convert;
use crate::encode;
use crate::hooks::{Act, Operation as Hooked};
use crate::http::negotiate::Form;
use crate::http::status;
use crate::patch;
use crate::patch::managed::{self, Manager};
use crate::patch::ssa::Intent;
use crate::policy;
use crate::refusal::{Reason, Refusal};
use crate::registry::Scale;
use crate::request::{Query, WriteOptions};
use crate::tags;
use crate::verbs::delete::DeleteOptions;
use crate::verbs::{Drawn, Verdict, create, delete, meta, metadata, scale, update};

/// How often a write is decided anew when others keep being faster. Upstream tries five times; more would only hide a
/// writer that never gets through.
const TRIES: usize = 8;
/// How often a creation is tried: a quota or an address is shared by all who create in a namespace, and of 64 who come at
/// once the last has to wait for 63.
const CREATE_TRIES: usize = 80;
/// How many objects of a collection are deleted at once: enough to share the store's syncs, few enough to be fair.
const DELETES_AT_ONCE: usize = 64;

/// What a write came to.
pub(super) enum Done {
    /// It is stored like this.
    Stored(Bytes),
    /// It is gone; this is how it went.
    Gone(Bytes),
}

impl Done {
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Stored(bytes) | Self::Gone(bytes) => bytes,
        }
    }
}

/// How one try at a write ended, when not in a refusal.
pub(super) enum Tried {
    Done(Done),
    /// Somebody was faster at this path.
    Beaten(store::Path),
}

/// An object as it is stored, and as it is served.
pub(super) struct Held {
    pub record: Record,
    pub object: Tree,
}

impl Call<'_> {
    pub(super) async fn create(&self) -> Result<Answer, Refusal> {
        if !self.target.name.is_empty() || (self.resource.namespaced && self.target.namespace.is_empty()) {
            return Err(Refusal::method_not_allowed());
        }
        let form = self.form()?;
        let options = WriteOptions::read(&self.query, self.headers)?;
        let read = codec::read(&self.resource, &self.media(), self.body, options.validation)?;
        let again = || Ok(codec::read(&self.resource, &self.media(), self.body, options.validation)?.object);
        let (done, warnings) = self.create_object(read.object, &again, options.dry_run).await?;
        let answer = self.show(form, StatusCode::CREATED, done.bytes()).await?;
        Ok(answer.warned(&read.warnings).warned(&warnings))
    }

    /// Makes a new object, with a name of its own where it wants one; says what its author is to be warned of. `again` reads
    /// the object once more where another try has to be made: few need one, so nobody keeps a copy.
    pub(super) async fn create_object(
        &self,
        object: Tree,
        again: &(dyn Fn() -> Result<Tree, Refusal> + Sync),
        dry_run: bool,
    ) -> Result<(Done, Vec<String>), Refusal> {
        let generated = meta(&object, "name").is_empty();
        let (mut first, mut taken) = (Some(object), None);
        let mut memo = Memo::default();
        // One object is made, under another name where one is taken.
        let mut drawn = self.draw();
        for _ in 0..CREATE_TRIES {
            if taken.is_some() && generated {
                drawn.suffix = self.draw().suffix;
            }
            let object = first.take().map_or_else(again, Ok)?;
            let made = create::create(&self.resource, &self.target.namespace, object, &drawn)?;
            let about = self.resource.about(meta(&made, "name"));
            let path: store::Path = self.resource.path(&self.target.namespace, &about.name).into();
            // What is known to be taken need not be admitted; the commit sees to it that nothing slips in between.
            if self.inner.store.get(&path).is_some() {
                if generated {
                    taken = Some(Refusal::already_exists(&about));
                    continue;
                }
                // Admission may know better why it cannot be: in a namespace that is going, nothing new is made.
                self.admit_new(made, &drawn)?;
                return Err(Refusal::already_exists(&about));
            }
            let asked_name = if generated { "" } else { about.name.as_str() };
            let mut act = self.act(Hooked::Create, "", None, dry_run);
            act.name = asked_name;
            let (made, mut extra) = self.prepare_new(made, &drawn, act, &mut memo).await?;
            extra.expect.push((path.clone(), Expect::Absent));
            let warnings = std::mem::take(&mut extra.warnings);
            match self.commit(Some(made), path.clone(), extra, dry_run).await? {
                Tried::Done(done) => return Ok((done, warnings)),
                Tried::Beaten(at) if at == path && !generated => return Err(Refusal::already_exists(&about)),
                Tried::Beaten(at) if at == path => taken = Some(Refusal::already_exists(&about)),
                Tried::Beaten(at) => {
                    let why = format!("{at} is being changed by many at once");
                    taken = Some(Refusal::new(Reason::TooManyRequests, why).about(&about));
                }
            }
        }
        Err(taken.unwrap_or_else(|| Refusal::internal("no name could be made")).retry_after(1))
    }

    /// Fills in a new object and lets the plugins have it as its author sent it.
    fn admit_new(&self, mut object: Tree, drawn: &Drawn) -> Result<(Tree, Extra), Refusal> {
        codec::settle(&self.resource, &mut object);
        let mut extra = Extra::default();
        let view = self.inner.view();
        admit::mutate(&self.asked(Operation::Create, "", None, drawn, &view), &mut object, &mut extra)?;
        Ok((object, extra))
    }

    /// Fills in, admits and checks a new object.
    async fn prepare_new(
        &self,
        object: Tree,
        drawn: &Drawn,
        mut act: Act<'_>,
        memo: &mut Memo,
    ) -> Result<(Tree, Extra), Refusal> {
        let name = meta(&object, "name").to_owned();
        let (object, extra) = self.admit_new(object, drawn)?;
        let redo = |object: Tree| {
            let again = create::create(&self.resource, &self.target.namespace, object, drawn)?;
            if meta(&again, "name") != name {
                return Err(Refusal::internal("admission webhooks cannot give an object another name"));
            }
            self.admit_new(again, drawn)
        };
        let (object, extra) = match self.mutated(&act, &object, memo, &redo).await? {
            Some(changed) => changed,
            None => (object, extra),
        };
        let (object, extra) = self.complete_new(object, extra, drawn)?;
        act.name = &name;
        self.validated(&act, Some(&object), memo).await?;
        Ok((object, extra))
    }

    /// Gives a new object what only the whole of it tells, and judges it.
    fn complete_new(
        &self,
        mut object: Tree,
        mut extra: Extra,
        drawn: &Drawn,
    ) -> Result<(Tree, Extra), Refusal> {
        let view = self.inner.view();
        let asked = self.asked(Operation::Create, "", None, drawn, &view);
        codec::settle(&self.resource, &mut object);
        admit::finish(&asked, &mut object, &mut extra)?;
        policy::typing::settle(&self.resource, &mut object, &self.inner.registry());
        codec::check(&self.resource, None, &object, "")?;
        let judged = admit::judge(&asked, &object, &mut extra);
        extra.notes.iter().for_each(|(key, value)| self.told.note(key, value));
        judged?;
        self.note_owner(None, &mut object, "", drawn.now)?;
        Ok((object, extra))
    }

    pub(super) async fn update(&self, part: &str) -> Result<Answer, Refusal> {
        let form = self.form()?;
        let options = WriteOptions::read(&self.query, self.headers)?;
        let read = codec::read(&self.resource, &self.media(), self.body, options.validation)?;
        let decide = |held: &Held| -> Result<(Tree, Vec<String>), Refusal> {
            Ok((update::update(&self.resource, &held.object, read.object.clone(), part)?, Vec::new()))
        };
        let (done, warnings) = self.change(part, options.dry_run, decide).await?;
        Ok(self.show(form, StatusCode::OK, done.bytes()).await?.warned(&read.warnings).warned(&warnings))
    }

    pub(super) async fn patch(&self, part: &str) -> Result<Answer, Refusal> {
        let form = self.form()?;
        let options = WriteOptions::read(&self.query, self.headers)?;
        let media = self.media();
        if self.body.len() > codec::BODY_LEN_MAX {
            return Err(Refusal::new(Reason::TooLarge, "the patch is too large"));
        }
        if media == patch::APPLY {
            return self.apply(part, form, &options).await;
        }
        let decide = |held: &Held| -> Result<(Tree, Vec<String>), Refusal> {
            let patched = patch::patched(&self.resource, &held.object, self.body, &media)?;
            let Read { object, warnings } = codec::recheck(&self.resource, patched, options.validation)?;
            Ok((update::update(&self.resource, &held.object, object, part)?, warnings))
        };
        let (done, warnings) = self.change(part, options.dry_run, decide).await?;
        Ok(self.show(form, StatusCode::OK, done.bytes()).await?.warned(&warnings))
    }

    /// Server-side apply: the body is all that its manager wants; what is not there yet is made.
    async fn apply(&self, part: &str, form: Form, options: &WriteOptions) -> Result<Answer, Refusal> {
        if self.query.get("fieldManager").unwrap_or_default().is_empty() {
            let message = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch";
            return Err(Refusal::new(Reason::Invalid, message));
        }
        let read = codec::read_apply(&self.resource, self.body, options.validation)?;
        let config = self.intended(read.object)?;
        let manager = self.writer(part, true)?;
        let intent = Intent { config: &config, manager: &manager, force: options.force };
        let now = self.inner.host.now();
        let decide = |held: &Held| -> Result<(Tree, Vec<String>), Refusal> {
            let merged = patch::applied(&self.resource, &held.object, &intent, now)?;
            Ok((update::update(&self.resource, &held.object, merged, part)?, Vec::new()))
        };
        let (code, (done, warnings)) = match self.change(part, options.dry_run, decide).await {
            Err(refusal) if refusal.reason == Reason::NotFound && part.is_empty() => {
                let made = || patch::applied(&self.resource, &json!({}), &intent, now);
                (StatusCode::CREATED, self.create_object(made()?, &made, options.dry_run).await?)
            }
            other => (StatusCode::OK, other?),
        };
        Ok(self.show(form, code, done.bytes()).await?.warned(&read.warnings).warned(&warnings))
    }

    /// An applied configuration has to say what it is, and may not say who owns what.
    fn intended(&self, mut config: Tree) -> Result<Tree, Refusal> {
        if config["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        create::check_type(&self.resource, &config)?;
        create::set_type(&self.resource, &mut config);
        let name = meta(&config, "name");
        if !name.is_empty() && name != self.target.name {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.target.name
            )));
        }
        metadata(&mut config).insert("name".into(), json!(self.target.name));
        Ok(config)
    }

    /// Who writes, as managed fields name them.
    fn writer(&self, part: &str, applies: bool) -> Result<Manager, Refusal> {
        let name = WriteOptions::read(&self.query, self.headers)?.manager;
        Ok(Manager { name, applies, api_version: self.resource.api_version(), part: part.to_owned() })
    }

    /// Notes who owns what from now on; an apply has said so itself.
    fn note_owner(&self, old: Option<&Tree>, new: &mut Tree, part: &str, now: Time) -> Result<(), Refusal> {
        if self.media() != patch::APPLY || self.method != Method::PATCH {
            let (schema, shape) = codec::shape(&self.resource);
            let manager = self.writer(part, false)?;
            match old {
                Some(old) => managed::note_update(schema, &shape, old, new, &manager, now),
                None => managed::note_creation(schema, &shape, new, &manager, now),
            }
        }
        Ok(())
    }

    /// Reads the object, lets `decide` say what it becomes, and commits that; again when somebody was faster.
    pub(super) async fn change(
        &self,
        part: &str,
        dry_run: bool,
        decide: impl Fn(&Held) -> Result<(Tree, Vec<String>), Refusal>,
    ) -> Result<(Done, Vec<String>), Refusal> {
        let mut memo = Memo::default();
        for _ in 0..TRIES {
            let held = self.hold().await?;
            let (new, mut warnings) = decide(&held)?;
            let (verdict, mut extra) = self.prepare_change(&held, new, part, dry_run, &mut memo).await?;
            warnings.append(&mut extra.warnings);
            match self.carry_out(&held, verdict, extra, dry_run).await? {
                Tried::Done(done) => return Ok((done, warnings)),
                Tried::Beaten(_) => {}
            }
        }
        Err(Refusal::stale(&self.about()))
    }

    /// The object that the request points at.
    pub(super) async fn hold(&self) -> Result<Held, Refusal> {
        let record = self.record()?;
        let value = self.inner.converter.one(&self.resource, record.value.clone()).await?;
        let object = convert::to_served(&self.resource, parse(&value)?);
        Ok(Held { record, object })
    }

    /// Fills in, admits and checks a changed object, and says what is to be stored.
    async fn prepare_change(
        &self,
        held: &Held,
        new: Tree,
        part: &str,
        dry_run: bool,
        memo: &mut Memo,
    ) -> Result<(Verdict, Extra), Refusal> {
        let old = &held.object;
        let drawn = self.draw();
        // Through `/scale` webhooks see a scale; the object itself is what it changes.
        let scale = self.resource.scale.as_ref().filter(|_| part == "scale");
        let own_part = if scale.is_some() { "" } else { part };
        let (mut new, mut extra) = self.admit_change(old, new, own_part, &drawn)?;
        let old_seen = seen(scale, old);
        let act = self.act(Hooked::Update, part, Some(&old_seen), dry_run);
        let redo = |object: Tree| {
            let again = match scale {
                Some(paths) => scale::apply(&self.resource, paths, old, &object)?,
                None => update::update(&self.resource, old, object, own_part)?,
            };
            let (new, extra) = self.admit_change(old, again, own_part, &drawn)?;
            Ok((seen(scale, &new).into_owned(), (new, extra)))
        };
        if let Some((_, changed)) = self.mutated(&act, &seen(scale, &new), memo, &redo).await? {
            (new, extra) = changed;
        }
        let (new, mut extra) = self.complete_change(old, new, own_part, &drawn, extra)?;
        self.validated(&act, Some(&seen(scale, &new)), memo).await?;
        let verdict = update::conclude(&self.resource, old, new);
        if matches!(verdict, Verdict::Remove(_)) {
            admit::release(&self.resource, old, &self.inner.view(), &mut extra);
        }
        Ok((verdict, extra))
    }

    /// Fills in a changed object and lets the plugins have it as its author sent it.
    fn admit_change(
        &self,
        old: &Tree,
        mut new: Tree,
        part: &str,
        drawn: &Drawn,
    ) -> Result<(Tree, Extra), Refusal> {
        codec::settle(&self.resource, &mut new);
        let mut extra = Extra::default();
        let view = self.inner.view();
        admit::mutate(&self.asked(Operation::Update, part, Some(old), drawn, &view), &mut new, &mut extra)?;
        Ok((new, extra))
    }

    /// Gives a changed object what only the whole of it tells, and judges it.
    fn complete_change(
        &self,
        old: &Tree,
        mut new: Tree,
        part: &str,
        drawn: &Drawn,
        mut extra: Extra,
    ) -> Result<(Tree, Extra), Refusal> {
        let view = self.inner.view();
        let asked = self.asked(Operation::Update, part, Some(old), drawn, &view);
        update::prepare(&self.resource, old, &mut new, part);
        admit::finish(&asked, &mut new, &mut extra)?;
        if part.is_empty() {
            policy::typing::settle(&self.resource, &mut new, &self.inner.registry());
        }
        codec::check(&self.resource, Some(old), &new, part)?;
        let judged = admit::judge(&asked, &new, &mut extra);
        extra.notes.iter().for_each(|(key, value)| self.told.note(key, value));
        judged?;
        self.note_owner(Some(old), &mut new, part, drawn.now)?;
        Ok((new, extra))
    }

    /// Commits a verdict at the revision at which the object was read.
    pub(super) async fn carry_out(
        &self,
        held: &Held,
        verdict: Verdict,
        mut extra: Extra,
        dry_run: bool,
    ) -> Result<Tried, Refusal> {
        let path = held.record.path.clone();
        extra.expect.push((path.clone(), Expect::At(held.record.revision)));
        match self.fenced(held, verdict) {
            Verdict::Keep(_) => self.keep(held).await,
            Verdict::Put(new) => self.commit(Some(new), path, extra, dry_run).await,
            Verdict::Remove(last) => {
                let stored = self.stored(last).await?;
                if dry_run {
                    return Ok(Tried::Done(Done::Gone(encode::canonical(&stored))));
                }
                let remove = Change::Remove { path, last: Some(encode::halves(&stored)) };
                extra.changes.insert(0, remove);
                Ok(match self.transact(extra).await? {
                    Ok(record) => Tried::Done(Done::Gone(record.value.clone())),
                    Err(beaten) => Tried::Beaten(beaten),
                })
            }
        }
    }

    /// Nothing is to be changed. Where other servers write too, that is true only of what is newest.
    async fn keep(&self, held: &Held) -> Result<Tried, Refusal> {
        let (store, path) = (&self.inner.store, &held.record.path);
        if store.is_shared() {
            store.catch_up().await?;
            if store.get(path).is_none_or(|record| record.revision != held.record.revision) {
                return Ok(Tried::Beaten(path.clone()));
            }
        }
        Ok(Tried::Done(Done::Stored(held.record.value.clone())))
    }

    /// What the fence makes of a verdict about a pod.
    fn fenced(&self, held: &Held, verdict: Verdict) -> Verdict {
        if !self.resource.is(&kinds::POD) {
            return verdict;
        }
        let deleter = (self.method == Method::DELETE).then_some(self.identity);
        match verdict {
            Verdict::Put(mut new) => {
                fence::keep(&held.object, &mut new);
                Verdict::Put(new)
            }
            Verdict::Remove(last) if fence::reserves(&held.object, deleter, &self.inner.view()) => {
                if last == held.object { Verdict::Keep(last) } else { Verdict::Put(last) }
            }
            other => other,
        }
    }

    /// Commits an object, with whatever admission wants done in the same moment.
    async fn commit(
        &self,
        object: Option<Tree>,
        path: store::Path,
        mut extra: Extra,
        dry_run: bool,
    ) -> Result<Tried, Refusal> {
        if let Some(object) = object {
            let stored = self.stored(object).await?;
            if dry_run {
                return Ok(Tried::Done(Done::Stored(encode::canonical(&stored))));
            }
            let registry = self.inner.registry();
            let kept = registry.get(&self.resource.stored).unwrap_or(&self.resource);
            let tags = tags::tags(&tags::tagged(kept), &stored);
            let put = Change::Put { path, body: encode::halves(&stored), tags };
            extra.changes.insert(0, put);
        }
        Ok(match self.transact(extra).await? {
            Ok(record) => Tried::Done(Done::Stored(record.value.clone())),
            Err(beaten) => Tried::Beaten(beaten),
        })
    }

    /// An object as it is stored.
    async fn stored(&self, object: Tree) -> Result<Tree, Refusal> {
        let registry = self.inner.registry();
        let kept = registry.get(&self.resource.stored).unwrap_or(&self.resource);
        let object = self.inner.converter.to_stored(&self.resource, object).await?;
        Ok(convert::to_stored(&self.resource, kept, object))
    }

    /// Does a transaction; gives the record of its first change, or the path at which somebody was faster.
    async fn transact(&self, extra: Extra) -> Result<Result<Record, store::Path>, Refusal> {
        if self.patience.as_ref().is_some_and(|patience| patience.is_open()) {
            // Nobody hears it: the request is decided again.
            return Err(Refusal::internal("others are still to be asked"));
        }
        let txn = Txn { expect: extra.expect, changes: extra.changes };
        match self.inner.store.commit(txn).await {
            Ok(mut committed) if !committed.records.is_empty() => Ok(Ok(committed.records.swap_remove(0))),
            Ok(_) => Err(Refusal::internal("the store wrote nothing")),
            Err(StoreError::Conflict { path, .. }) => Ok(Err(path)),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn delete(&self) -> Result<Answer, Refusal> {
        let form = self.form()?;
        let body = codec::read_plain(&self.media(), self.body)?;
        let options = DeleteOptions::read(&body, &self.query)?;
        let done = self.delete_object(&options, false).await?;
        if let Done::Gone(last) = &done
            && !shows_deleted(&self.resource)
        {
            let mut about = self.about();
            about.uid = meta(&parse(last)?, "uid").to_owned();
            return Ok(written(StatusCode::OK, form.syntax, &status::success(&about)));
        }
        self.show(form, StatusCode::OK, done.bytes()).await
    }

    /// Deletes the object that the request points at, alone or with the others of a collection.
    async fn delete_object(&self, options: &DeleteOptions, in_collection: bool) -> Result<Done, Refusal> {
        let mut memo = Memo::default();
        for _ in 0..TRIES {
            let held = self.hold().await?;
            let now = self.inner.host.now();
            admit::protect(&self.resource, self.identity, &held.object, "")?;
            let verdict = delete::delete(&self.resource, &held.object, options, now)?;
            self.admitted_end(&held.object, options, in_collection, &mut memo).await?;
            let mut extra = Extra::default();
            let verdict = admit::end(&self.resource, &held.object, verdict, &self.inner.view(), now);
            if matches!(verdict, Verdict::Remove(_)) {
                admit::release(&self.resource, &held.object, &self.inner.view(), &mut extra);
            }
            match self.carry_out(&held, verdict, extra, options.dry_run).await? {
                Tried::Done(done) => return Ok(done),
                Tried::Beaten(_) => {}
            }
        }
        Err(Refusal::stale(&self.about()))
    }

    pub(super) async fn delete_collection(&self) -> Result<Answer, Refusal> {
        if self.resource.namespaced && self.target.namespace.is_empty() {
            return Err(Refusal::method_not_allowed());
        }
        let form = self.form()?;
        let body = codec::read_plain(&self.media(), self.body)?;
        let options = DeleteOptions::read(&body, &self.query)?;
        let found = self.find(&self.list_options()?).await?;
        let deletes: Vec<BoxFuture<'_, Result<(), Refusal>>> =
            found.records.iter().map(|record| self.delete_one(record, &options).boxed()).collect();
        let ends: Vec<Result<(), Refusal>> =
            stream::iter(deletes).buffer_unordered(DELETES_AT_ONCE).collect().await;
        if let Some(refusal) = ends.into_iter().find_map(Result::err) {
            return Err(refusal);
        }
        let found = Found { continue_token: None, remaining: None, ..found };
        self.show_list(form, found)
    }

    async fn delete_one(&self, record: &Record, options: &DeleteOptions) -> Result<(), Refusal> {
        let mut target = self.target.clone();
        target.name = record.path.rsplit('/').next().unwrap_or_default().to_owned();
        let one = Call {
            inner: self.inner,
            identity: self.identity,
            resource: self.resource.clone(),
            target,
            query: Query::default(),
            method: self.method.clone(),
            headers: self.headers,
            body: self.body,
            told: self.told.clone(),
            patience: self.patience.clone(),
        };
        match one.delete_object(options, true).await {
            Ok(_) => Ok(()),
            // Somebody else deleted it, or it is going already.
            Err(refusal) if matches!(refusal.reason, Reason::NotFound | Reason::Conflict) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    }

    /// What is drawn from outside for one try.
    pub(super) fn draw(&self) -> Drawn {
        let host = &self.inner.host;
        Drawn { now: host.now(), uid: host.chance().uuid(), suffix: host.chance().suffix(5) }
    }

    fn asked<'b>(
        &'b self,
        operation: Operation,
        part: &'b str,
        old: Option<&'b Tree>,
        drawn: &'b Drawn,
        view: &'b dyn World,
    ) -> Asked<'b> {
        Asked {
            resource: &self.resource,
            operation,
            part,
            namespace: &self.target.namespace,
            identity: self.identity,
            old,
            drawn,
            place: self.inner.host.chance().u64(),
            service_cidr: self.inner.settings.service_cidr,
            guard: self.guard(),
            security: &self.inner.settings.security,
            world: view,
        }
    }
}

/// An object as webhooks see it: through `/scale`, a scale.
fn seen<'t>(scale: Option<&Scale>, object: &'t Tree) -> Cow<'t, Tree> {
    match scale {
        Some(paths) => Cow::Owned(scale::show(paths, object)),
        None => Cow::Borrowed(object),
    }
}

/// Kinds whose last state is the answer to their deletion; for others it is a `Status`.
fn shows_deleted(resource: &crate::registry::Resource) -> bool {
    [
        &kinds::POD,
        &kinds::SERVICE,
        &kinds::SERVICE_ACCOUNT,
        &kinds::POD_TEMPLATE,
        &kinds::RESOURCE_QUOTA,
        &kinds::PERSISTENT_VOLUME,
        &kinds::PERSISTENT_VOLUME_CLAIM,
        &kinds::STORAGE_CLASS,
        &kinds::CSI_DRIVER,
        &kinds::CSI_NODE,
        &kinds::VOLUME_ATTACHMENT,
    ]
    .into_iter()
    .any(|gvr| resource.is(gvr))
}
