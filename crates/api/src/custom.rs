//! Custom resources: what a CustomResourceDefinition says, in the form that the verbs use.

use std::sync::Arc;

use model::schema::Schema;

/// One version of a custom resource.
#[derive(Debug, Default)]
pub struct Custom {
    /// Its table of types; `None` keeps every field.
    pub schema: Option<Arc<Schema>>,
    /// Fields that selectors may ask for: the label and its path.
    pub fields: Vec<(String, String)>,
}
