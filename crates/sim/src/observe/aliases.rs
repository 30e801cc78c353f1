//! Names for pods that stay the same whatever chance drew: `web-1` is the first pod of the workload `web`.

use std::collections::BTreeMap;

/// What pods are called, by uid.
#[derive(Debug, Default)]
pub struct Aliases {
    by_uid: BTreeMap<String, Named>,
    counts: BTreeMap<String, u32>,
}

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its alias, with the namespace before it unless that is `default`.
    pub alias: String,
    /// The workload that it belongs to, named alike; its own name when it stands alone.
    pub root: String,
    /// Where it lies.
    pub path: String,
}

/// `name`, with the namespace before it unless that is `default`.
pub fn placed(namespace: &str, name: &str) -> String {
    match namespace {
        "" | "default" => name.to_owned(),
        _ => format!("{namespace}/{name}"),
    }
}

impl Aliases {
    /// Gives a new pod its alias. `root` is the name of its workload; `None` for a pod that keeps its own name.
    pub fn add(&mut self, uid: &str, path: &str, namespace: &str, name: &str, root: Option<&str>) {
        let own = placed(namespace, name);
        let named = match root {
            None => Named { alias: own.clone(), root: own, path: path.to_owned() },
            Some(root) => {
                let root = placed(namespace, root);
                let count = self.counts.entry(root.clone()).or_default();
                *count += 1;
                Named { alias: format!("{root}-{count}"), root, path: path.to_owned() }
            }
        };
        self.by_uid.insert(uid.to_owned(), named);
    }

    /// What a pod is called.
    pub fn of(&self, uid: &str) -> Option<&Named> {
        self.by_uid.get(uid)
    }

    /// The uid and the path of the pod of this alias; of several that had it, the newest in the order of `is_there`.
    pub fn find(&self, alias: &str, is_there: impl Fn(&str, &str) -> bool) -> Option<(&str, &str)> {
        let all = self.by_uid.iter().filter(|(_, named)| named.alias == alias);
        let each = all.map(|(uid, named)| (uid.as_str(), named.path.as_str()));
        let mut last = None;
        for (uid, path) in each {
            if is_there(uid, path) {
                return Some((uid, path));
            }
            last = Some((uid, path));
        }
        last
    }

    /// All pods of a workload, by uid.
    pub fn of_root<'a>(&'a self, root: &'a str) -> impl Iterator<Item = (&'a str, &'a Named)> {
        self.by_uid
            .iter()
            .filter(move |(_, named)| named.root == root)
            .map(|(uid, named)| (uid.as_str(), named))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_workload_are_counted_and_others_keep_their_names() {
        let mut aliases = Aliases::default();
        aliases.add("u1", "/pods/default/web-x7f2b", "default", "web-x7f2b", Some("web"));
        aliases.add("u2", "/pods/default/web-zz999", "default", "web-zz999", Some("web"));
        aliases.add("u3", "/pods/shop/db-0", "shop", "db-0", None);
        let alias = |uid: &str| aliases.of(uid).map(|named| named.alias.clone()).unwrap_or_default();
        assert_eq!([alias("u1"), alias("u2"), alias("u3")], ["web-1", "web-2", "shop/db-0"]);
        assert_eq!(aliases.find("web-2", |_, _| true), Some(("u2", "/pods/default/web-zz999")));
        assert_eq!(aliases.of_root("web").count(), 2);
    }
}
