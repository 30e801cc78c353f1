//! GET of one object, and how an object is shown.

use bytes::Bytes;
use http::StatusCode;
use model::Tree;
use store::Record;

use super::Call;
use crate::answer::Answer;
use crate::convert;
use crate::http::negotiate::{self, Form, Offer, Syntax, View};
use crate::refusal::Refusal;
use crate::registry::Meaning;
use crate::table;

impl Call<'_> {
    pub(super) async fn get(&self) -> Result<Answer, Refusal> {
        let form = self.form()?;
        let record = self.record()?;
        self.show(form, StatusCode::OK, &record.value).await
    }

    /// The form in which objects are wanted.
    pub(super) fn form(&self) -> Result<Form, Refusal> {
        self.form_of(&[View::Object, View::Table, View::Metadata])
    }

    /// The form in which an answer is wanted that can be shown so.
    pub(super) fn form_of(&self, views: &[View]) -> Result<Form, Refusal> {
        // What subresources take and give is built in, whatever they belong to.
        let protobuf = !matches!(self.resource.meaning, Meaning::Custom(_));
        negotiate::form(self.headers, &self.query, Offer { views, protobuf })
    }

    /// What lies where the request points.
    pub(super) fn record(&self) -> Result<Record, Refusal> {
        let record = self.inner.store.get(&self.path()?);
        record.ok_or_else(|| Refusal::not_found(&self.about()))
    }

    /// An object as the caller wants to see it. `stored` are bytes as they are stored.
    pub(super) async fn show(
        &self,
        form: Form,
        status: StatusCode,
        stored: &Bytes,
    ) -> Result<Answer, Refusal> {
        let stored = self.inner.converter.one(&self.resource, stored.clone()).await?;
        let bytes = convert::served(&self.resource, &stored);
        match form {
            Form { view: View::Object, syntax: Syntax::Json } => Ok(Answer::json(status, bytes)),
            Form { view: View::Object, syntax: Syntax::Protobuf } => Ok(Answer::protobuf(status, bytes)),
            Form { view: View::Object, syntax } => Ok(written(status, syntax, &parse(&bytes)?)),
            Form { view: View::Table, .. } => {
                let include = table::Include::read(&self.query)?;
                let shown =
                    table::table(&self.resource, &[bytes], include, self.inner.host.now(), &Tree::Null);
                Ok(written(status, form.syntax, &shown))
            }
            Form { view: View::Metadata, .. } => {
                Ok(written(status, form.syntax, &parse(&table::partial(&bytes)?)?))
            }
        }
    }
}

/// A tree in a syntax.
pub(super) fn written(status: StatusCode, syntax: Syntax, tree: &Tree) -> Answer {
    match syntax {
        Syntax::Json => Answer::tree(status, tree),
        Syntax::Protobuf => Answer::protobuf(status, model::schema::to_bytes(tree)),
        Syntax::Pretty => {
            let mut text = serde_json::to_vec_pretty(tree).unwrap_or_default();
            text.push(b'\n');
            Answer::json(status, Bytes::from(text))
        }
        Syntax::Yaml => Answer::bytes(status, "application/yaml", crate::yaml::from_tree(tree)),
    }
}

/// Bytes of ours as a tree.
pub(super) fn parse(bytes: &[u8]) -> Result<Tree, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|why| Refusal::internal(format!("a stored object cannot be read: {why}")))
}
