//! Reading and filling JSON trees by path, without a panic where something is missing or of another type.

use crate::Tree;

static NULL: Tree = Tree::Null;

/// What stands at a path such as `spec.replicas`; null where nothing does.
pub fn at<'a>(tree: &'a Tree, path: &str) -> &'a Tree {
    let (mut found, mut rest) = (tree, path);
    // Paths are short and most have one name: looking at each byte is the fastest way.
    while let Some(end) = rest.bytes().position(|byte| byte == b'.') {
        let Some(next) = found.get(&rest[..end]) else { return &NULL };
        (found, rest) = (next, &rest[end + 1..]);
    }
    found.get(rest).unwrap_or(&NULL)
}

/// The text at a path; empty where there is none.
pub fn text<'a>(tree: &'a Tree, path: &str) -> &'a str {
    at(tree, path).as_str().unwrap_or_default()
}

/// The integer at a path.
pub fn whole(tree: &Tree, path: &str) -> Option<i64> {
    at(tree, path).as_i64()
}

/// Whether `true` stands at a path.
pub fn flag(tree: &Tree, path: &str) -> bool {
    at(tree, path).as_bool().unwrap_or(false)
}

/// The list at a path; empty where there is none.
pub fn items<'a>(tree: &'a Tree, path: &str) -> &'a [Tree] {
    at(tree, path).as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The entries of the object at a path; none where there is no object.
pub fn entries<'a>(tree: &'a Tree, path: &str) -> impl Iterator<Item = (&'a str, &'a Tree)> {
    at(tree, path).as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// Whether something stands at a path; null, an empty text, list or object is nothing.
pub fn is_set(tree: &Tree, path: &str) -> bool {
    match at(tree, path) {
        Tree::Null => false,
        Tree::String(text) => !text.is_empty(),
        Tree::Array(items) => !items.is_empty(),
        Tree::Object(entries) => !entries.is_empty(),
        _ => true,
    }
}

/// Whether a value stands at a path, be it an empty one.
pub fn is_there(tree: &Tree, path: &str) -> bool {
    !at(tree, path).is_null()
}

/// Puts a value under a key where nothing, null or an empty text stands.
pub fn fill(tree: &mut Tree, key: &str, value: impl Into<Tree>) {
    let Some(object) = tree.as_object_mut() else { return };
    match object.get(key) {
        None | Some(Tree::Null) => {}
        Some(Tree::String(text)) if text.is_empty() => {}
        Some(_) => return,
    }
    object.insert(key.to_owned(), value.into());
}

/// Puts a value under a key.
pub fn set(tree: &mut Tree, key: &str, value: impl Into<Tree>) {
    if let Some(object) = tree.as_object_mut() {
        object.insert(key.to_owned(), value.into());
    }
}

/// Takes away what stands under a key.
pub fn remove(tree: &mut Tree, key: &str) {
    if let Some(object) = tree.as_object_mut() {
        object.remove(key);
    }
}

/// The object under a key, made where there is none; `None` when something else stands there.
pub fn object<'a>(tree: &'a mut Tree, key: &str) -> Option<&'a mut Tree> {
    let object = tree.as_object_mut()?;
    let child = object.entry(key).or_insert_with(|| Tree::Object(Default::default()));
    if child.is_null() {
        *child = Tree::Object(Default::default());
    }
    Some(child).filter(|child| child.is_object())
}

/// The items of the list under a key, to be changed.
pub fn items_mut<'a>(tree: &'a mut Tree, key: &str) -> impl Iterator<Item = &'a mut Tree> + use<'a> {
    tree.get_mut(key).and_then(Tree::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_reads_as_nothing() {
        let tree = json!({"a": {"b": "c", "n": 3, "l": [1]}, "e": ""});
        assert_eq!((text(&tree, "a.b"), text(&tree, "a.x.y"), text(&tree, "a.n")), ("c", "", ""));
        assert_eq!((whole(&tree, "a.n"), whole(&tree, "a")), (Some(3), None));
        assert_eq!(items(&tree, "a.l").len() + items(&tree, "a.b").len(), 1);
        assert!(is_set(&tree, "a") && !is_set(&tree, "e") && is_there(&tree, "e"));
    }

    #[test]
    fn filling_in_leaves_what_was_said() {
        let mut tree = json!({"a": 1, "b": "", "c": null});
        for key in ["a", "b", "c", "d"] {
            fill(&mut tree, key, 2);
        }
        assert_eq!(tree, json!({"a": 1, "b": 2, "c": 2, "d": 2}));
        fill(&mut json!([]), "a", 1);
        assert!(object(&mut tree, "a").is_none());
        assert!(object(&mut tree, "new").is_some());
    }
}
