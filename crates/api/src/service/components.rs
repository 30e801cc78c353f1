//! ComponentStatuses: how the parts of the control plane are. They are looked at when somebody asks, and stored nowhere.

use bytes::Bytes;
use http::StatusCode;
use model::Tree;
use serde_json::{Value, json};
use store::{Tags, Txn};

use super::read::written;
use super::{Call, Inner};
use crate::answer::Answer;
use crate::http::negotiate::{Form, View};
use crate::refusal::Refusal;
use crate::table;

/// The parts, by the names that upstream gives them, as they are listed.
const NAMES: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

/// Says how the loops are that decide over the API; `Err` says what is wrong.
pub type Loops = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

impl Inner {
    /// How a part is: `Err` says what is wrong.
    async fn condition_of(&self, name: &str) -> Result<(), String> {
        match name {
            // A store that takes a transaction that changes nothing takes others too.
            "etcd-0" if self.store.is_shared() => self.store.catch_up().await.map_err(|why| why.to_string()),
            "etcd-0" => self.store.commit(Txn::default()).await.map(drop).map_err(|why| why.to_string()),
            _ => match self.loops.get() {
                Some(loops) => loops(),
                None => Err("nothing runs it here".to_owned()),
            },
        }
    }
}

impl Call<'_> {
    pub(super) async fn component(&self) -> Result<Answer, Refusal> {
        let form = self.form()?;
        let name = NAMES.into_iter().find(|name| *name == self.target.name);
        let name = name.ok_or_else(|| Refusal::not_found(&self.about()))?;
        let status = self.component_status(name).await;
        Ok(written(
            StatusCode::OK,
            form.syntax,
            &match form.view {
                View::Object => status,
                View::Table => self.components_table(&[status])?,
                View::Metadata => self.partial(&status)?,
            },
        ))
    }

    pub(super) async fn components(&self) -> Result<Answer, Refusal> {
        let form: Form = self.form()?;
        let selection = self.list_options()?.selection;
        let mut items = Vec::new();
        for name in NAMES {
            // They have no labels, and no fields but their names.
            let none: [(&str, &str); 0] = [];
            if selection.matches(&format!("/{}/{name}", self.resource.gvr.plural), &Tags::new(none, none)) {
                items.push(self.component_status(name).await);
            }
        }
        let list = |api_version: &str, kind: &str, items: Vec<Tree>| json!({"kind": kind, "apiVersion": api_version, "metadata": {}, "items": items});
        let shown = match form.view {
            View::Object => {
                for item in items.iter_mut().filter_map(Value::as_object_mut) {
                    item.remove("kind");
                    item.remove("apiVersion");
                }
                list(&self.resource.api_version(), &self.resource.list_kind, items)
            }
            View::Table => self.components_table(&items)?,
            View::Metadata => {
                let items = items.iter().map(|item| self.partial(item)).collect::<Result<_, _>>()?;
                list("meta.k8s.io/v1", "PartialObjectMetadataList", items)
            }
        };
        Ok(written(StatusCode::OK, form.syntax, &shown))
    }

    async fn component_status(&self, name: &str) -> Tree {
        let condition = match self.inner.condition_of(name).await {
            Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
            Err(why) => json!({"type": "Healthy", "status": "False", "error": why}),
        };
        json!({
            "kind": self.resource.kind, "apiVersion": self.resource.api_version(),
            "metadata": {"name": name}, "conditions": [condition],
        })
    }

    fn components_table(&self, items: &[Tree]) -> Result<Tree, Refusal> {
        let items: Vec<Bytes> = items.iter().map(|item| Bytes::from(item.to_string())).collect();
        let include = table::Include::read(&self.query)?;
        Ok(table::table(&self.resource, &items, include, self.inner.host.now(), &Tree::Null))
    }

    fn partial(&self, item: &Tree) -> Result<Tree, Refusal> {
        super::read::parse(&table::partial(&Bytes::from(item.to_string()))?)
    }
}
