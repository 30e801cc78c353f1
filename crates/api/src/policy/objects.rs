//! What mutations make: `Object{…}` and `JSONPatch{…}`. Pure.

use std::sync::Arc;

use cel::{Key, Map, Shape, Type, Value};
use model::Tree;

/// An object at a path from the root, of which anything may be said; the merge checks it against the schema.
#[derive(Debug)]
struct At(String);

impl Shape for At {
    fn name(&self) -> &str {
        &self.0
    }

    fn field(&self, name: &str) -> Option<(String, Type)> {
        Some((name.to_owned(), Type::Dyn))
    }

    fn can_be_made(&self) -> bool {
        true
    }
}

/// One operation of a JSON patch.
#[derive(Debug)]
struct Operation;

impl Shape for Operation {
    fn name(&self) -> &str {
        "JSONPatch"
    }

    fn field(&self, name: &str) -> Option<(String, Type)> {
        let of = match name {
            "op" | "path" | "from" => Type::TEXT,
            "value" => Type::Dyn,
            _ => return None,
        };
        Some((name.to_owned(), of))
    }

    fn can_be_made(&self) -> bool {
        true
    }
}

/// The object of a name that an expression may make.
pub fn named(name: &str) -> Option<Arc<dyn Shape>> {
    match name {
        "JSONPatch" => Some(Arc::new(Operation)),
        name if name == "Object" || name.starts_with("Object.") => Some(Arc::new(At(name.to_owned()))),
        _ => None,
    }
}

/// Whether a type is what a mutation has to give.
pub fn is_change(of: &Type, patch: bool) -> bool {
    match (of, patch) {
        (Type::Dyn, _) => true,
        (Type::Object(shape), false) => shape.name() == "Object",
        (of, true) => of.item().is_some_and(|item| match item {
            Type::Dyn => true,
            Type::Object(shape) => shape.name() == "JSONPatch",
            _ => false,
        }),
        _ => false,
    }
}

/// Whether objects are named for the path at which they stand, as `Object.spec` in `spec`.
pub fn check_names(value: &Value<'_>, path: &str) -> Result<(), String> {
    match value {
        Value::Map(map) => {
            if let Map::Struct(name, _) = map
                && **name != *path
            {
                return Err(format!(
                    "unexpected type name {:?}, expected {path:?}, which matches field name path from root Object type",
                    &**name
                ));
            }
            for key in map.keys() {
                let name = match &key {
                    Key::Text(text) => text.as_str().to_owned(),
                    _ => continue,
                };
                if let Some(value) = map.get(&key) {
                    check_names(&value, &format!("{path}.{name}"))?;
                }
            }
            Ok(())
        }
        Value::List(list) => list.iter().try_for_each(|item| check_names(&item, path)),
        _ => Ok(()),
    }
}

/// The JSON patch that a list of operations is.
pub fn patch(value: &Value<'_>) -> Result<Tree, String> {
    let Value::List(list) = value else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    let mut all = Vec::new();
    for item in list.iter() {
        let Value::Map(map @ Map::Struct(name, _)) = &item else {
            return Err(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into()
            );
        };
        if **name != *"JSONPatch" {
            return Err(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch".into()
            );
        }
        if let Some(Value::Map(Map::Struct(name, _))) = map.field("value") {
            let value = map.field("value").unwrap_or(Value::Null);
            check_names(&value, &name).map_err(|why| format!("type mismatch: {why}"))?;
        }
        all.push(item.to_tree()?);
    }
    Ok(Tree::Array(all))
}
