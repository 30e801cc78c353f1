//! GET of a collection: a consistent snapshot, in pages.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Page, Range, Record, StoreError};

use super::Call;
use super::read::{parse, written};
use super::turns::LONG_MIN;
use crate::answer::{Answer, Body};
use crate::convert;
use crate::encode::type_prefix;
use crate::http::negotiate::{Form, Syntax, View};
use crate::pieces::{Item, Pieces};
use crate::refusal::{Reason, Refusal};
use crate::request::{self, ListOptions, RevisionMatch};
use crate::table;

/// Lists of so many bytes and more go out in pieces: below it, one copy costs less than keeping the records.
const PIECES_LEN_MIN: usize = 128 * 1024;

/// Where a page ended: what a `continue` token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    /// The revision of the walk; 0: go on at the newest.
    #[serde(rename = "rv")]
    revision: u64,
    /// The path of the last object that was shown.
    after: String,
}

impl Token {
    fn write(&self) -> String {
        // Two plain members always have a JSON form.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn read(text: &str) -> Result<Self, Refusal> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        token.ok_or_else(|| Refusal::bad_request("continue key is not valid"))
    }
}

/// What a list found.
pub(super) struct Found {
    pub records: Vec<Record>,
    pub revision: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

impl Call<'_> {
    pub(super) async fn list(&self) -> Result<Answer, Refusal> {
        let form = self.form()?;
        let options = self.list_options()?;
        let found = self.find(&options).await?;
        self.show_list(form, found)
    }

    /// Whether it is a list of so many objects that writing it takes a while.
    pub(super) fn lists_many(&self) -> bool {
        let lists =
            self.target.part.is_empty() && request::verb(&self.target, &self.method, &self.query) == "list";
        let limit = self.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(0);
        lists
            && (limit == 0 || limit >= LONG_MIN)
            && self.inner.store.count(&self.resource.prefix) >= LONG_MIN
    }

    /// What the query asks for, with its fields by their stored names.
    pub(super) fn list_options(&self) -> Result<ListOptions, Refusal> {
        let mut options = ListOptions::read(&self.query)?;
        for condition in &mut options.selection.fields.conditions {
            if !self.resource.selects(&condition.path) {
                let message = format!("field label not supported: {}", condition.path);
                return Err(Refusal::bad_request(message));
            }
            condition.path = convert::stored_field(&self.resource, &condition.path).into_owned();
        }
        Ok(options)
    }

    /// The records that a list asks for, all as they were at one revision.
    pub(super) async fn find(&self, options: &ListOptions) -> Result<Found, Refusal> {
        let token = options.continue_token.as_deref().map(Token::read).transpose()?;
        check_match(options)?;
        let selection = &options.selection;
        if let Some(token) = &token {
            self.inner.store.reach(token.revision).await?;
        }
        let mut range = Range { prefix: self.resource.range(&self.target.namespace), ..Range::default() };
        range.at = at(options, token.as_ref(), self.inner.store.revision())?;
        range.after = token.as_ref().map(|token| token.after.clone());
        // With a selector, how far a page reaches is known only when it is filled.
        let plain = selection.is_everything();
        range.limit = if plain { options.limit } else { 0 };
        let mut page = self.inner.store.list(&range).map_err(|error| expired(error, token.as_ref()))?;
        page.records = self.inner.converter.records(&self.resource, page.records).await?;
        Ok(if plain {
            whole(page)
        } else {
            selected(page, |record| convert::selects(&self.resource, selection, record), options.limit)
        })
    }

    pub(super) fn show_list(&self, form: Form, found: Found) -> Result<Answer, Refusal> {
        let mut metadata = json!({"resourceVersion": found.revision.to_string()});
        if let Some(token) = &found.continue_token {
            metadata["continue"] = json!(token);
        }
        if let Some(remaining) = found.remaining.filter(|_| found.continue_token.is_some()) {
            metadata["remainingItemCount"] = json!(remaining);
        }
        let records = found.records.into_iter();
        let served = |record: &Record| convert::served(&self.resource, &record.value);
        match form.view {
            View::Object => {
                let head = list_head(&self.resource.api_version(), &self.resource.list_kind, &metadata);
                // Each item goes without its type: the list says it once.
                let prefix = type_prefix(&self.resource.api_version(), &self.resource.kind);
                let item = |record: Record| match convert::is_served_so(&self.resource, &record.value) {
                    true => Item::Stored(record),
                    false => Item::Made(served(&record)),
                };
                written_pieces(form.syntax, Pieces::new(head, prefix, records.map(item).collect()))
            }
            View::Table => {
                let include = table::Include::read(&self.query)?;
                let items: Vec<Bytes> = records.map(|record| served(&record)).collect();
                let shown = table::table(&self.resource, &items, include, self.inner.host.now(), &metadata);
                Ok(written(StatusCode::OK, form.syntax, &shown))
            }
            View::Metadata => {
                let partial = |record: Record| table::partial(&served(&record)).map(Item::Made);
                let items = records.map(partial).collect::<Result<Vec<_>, _>>()?;
                let head = list_head("meta.k8s.io/v1", "PartialObjectMetadataList", &metadata);
                written_pieces(form.syntax, Pieces::new(head, String::new(), items))
            }
        }
    }
}

/// A list's JSON in a syntax.
fn written_pieces(syntax: Syntax, pieces: Pieces) -> Result<Answer, Refusal> {
    match syntax {
        Syntax::Json if pieces.len_max() >= PIECES_LEN_MIN => {
            let answer = Answer::json(StatusCode::OK, Bytes::new());
            Ok(Answer { body: Body::Pieces(pieces), ..answer })
        }
        Syntax::Json => Ok(Answer::json(StatusCode::OK, pieces.whole())),
        Syntax::Protobuf => Ok(Answer::protobuf(StatusCode::OK, pieces.whole())),
        Syntax::Pretty | Syntax::Yaml => Ok(written(StatusCode::OK, syntax, &parse(&pieces.whole())?)),
    }
}

fn list_head(api_version: &str, kind: &str, metadata: &Value) -> String {
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[")
}

fn check_match(options: &ListOptions) -> Result<(), Refusal> {
    let forbid = |why: &str| Err(Refusal::bad_request(format!("resourceVersionMatch is forbidden {why}")));
    match options.revision_match {
        RevisionMatch::Unset => Ok(()),
        _ if options.continue_token.is_some() => forbid("with continue"),
        _ if options.revision.is_none() => forbid("unless resourceVersion is provided"),
        RevisionMatch::Exact if options.revision == Some(0) => forbid("\"Exact\" for resourceVersion \"0\""),
        _ => Ok(()),
    }
}

/// The revision to list at; `None` for the newest.
fn at(options: &ListOptions, token: Option<&Token>, newest: u64) -> Result<Option<u64>, Refusal> {
    if let Some(token) = token {
        return Ok((token.revision != 0).then_some(token.revision));
    }
    let Some(asked) = options.revision.filter(|asked| *asked != 0) else { return Ok(None) };
    let exact = options.revision_match == RevisionMatch::Exact
        || (options.revision_match == RevisionMatch::Unset && options.limit > 0);
    if exact {
        return Ok(Some(asked));
    }
    if asked > newest {
        return Err(StoreError::Future { asked, newest }.into());
    }
    Ok(None)
}

/// An expired walk is told where to go on, on newer ground.
fn expired(error: StoreError, token: Option<&Token>) -> Refusal {
    match (error, token) {
        (StoreError::Compacted { .. }, Some(token)) => {
            let message = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
            let mut refusal = Refusal::new(Reason::Expired, message);
            refusal.continue_token = Some(Token { revision: 0, after: token.after.clone() }.write());
            refusal
        }
        (error, _) => error.into(),
    }
}

fn whole(page: Page) -> Found {
    let token = page
        .records
        .last()
        .filter(|_| page.more)
        .map(|last| Token { revision: page.revision, after: last.path.to_string() }.write());
    Found {
        records: page.records,
        revision: page.revision,
        continue_token: token,
        remaining: Some(page.remaining),
    }
}

fn selected(page: Page, selects: impl Fn(&Record) -> bool, limit: usize) -> Found {
    let mut records = page.records;
    records.retain(selects);
    let more = limit > 0 && records.len() > limit;
    if more {
        records.truncate(limit);
    }
    let token = records
        .last()
        .filter(|_| more)
        .map(|last| Token { revision: page.revision, after: last.path.to_string() }.write());
    // As upstream: with a selector nobody counts what is left.
    Found { records, revision: page.revision, continue_token: token, remaining: None }
}
