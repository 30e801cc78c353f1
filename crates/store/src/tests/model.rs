//! The store in a few lines: a list of everything that ever happened.

use std::collections::BTreeMap;

use crate::{Change, Expect, Range, Revision, Txn};

/// One thing that happened: a value was put, or a path became empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Happened {
    pub revision: Revision,
    pub path: String,
    /// As shown to watchers.
    pub value: String,
    pub removed: bool,
}

/// What the store must look like, from a list of what happened.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub history: Vec<Happened>,
    pub revision: Revision,
}

impl Model {
    pub fn new() -> Self {
        Self { history: Vec::new(), revision: 1 }
    }

    /// What lies where at a revision: the value, and the revision that wrote it.
    pub fn at(&self, revision: Revision) -> BTreeMap<String, (String, Revision)> {
        let mut lying = BTreeMap::new();
        for one in self.history.iter().take_while(|one| one.revision <= revision) {
            if one.removed {
                lying.remove(&one.path);
            } else {
                lying.insert(one.path.clone(), (one.value.clone(), one.revision));
            }
        }
        lying
    }

    /// Does a transaction; false when it is in conflict.
    pub fn commit(&mut self, txn: &Txn) -> bool {
        let mut lying = self.at(self.revision);
        let holds = |(path, expect): &(crate::Path, Expect)| match expect {
            Expect::Absent => !lying.contains_key(&**path),
            Expect::At(revision) => lying.get(&**path).is_some_and(|(_, at)| at == revision),
        };
        if !txn.expect.iter().all(holds) {
            return false;
        }
        let mut happened = Vec::new();
        for change in &txn.changes {
            let revision = self.revision + 1 + happened.len() as u64;
            let one = match change {
                Change::Put { path, body, .. } => Happened {
                    revision,
                    path: path.to_string(),
                    value: joined(body, revision),
                    removed: false,
                },
                Change::Remove { path, last } => {
                    let Some((old, _)) = lying.remove(&**path) else { return false };
                    let value = last.as_ref().map_or(old, |body| joined(body, revision));
                    Happened { revision, path: path.to_string(), value, removed: true }
                }
            };
            if !one.removed {
                lying.insert(one.path.clone(), (one.value.clone(), revision));
            }
            happened.push(one);
        }
        self.revision += happened.len() as u64;
        self.history.extend(happened);
        true
    }

    /// The records of a range, and how many remain.
    pub fn list(&self, range: &Range) -> (Vec<(String, String)>, usize) {
        let lying = self.at(range.at.unwrap_or(self.revision));
        let inside = lying.into_iter().filter(|(path, _)| {
            path.starts_with(&range.prefix) && range.after.as_ref().is_none_or(|after| path > after)
        });
        let mut records: Vec<_> = inside.map(|(path, (value, _))| (path, value)).collect();
        let keep = if range.limit == 0 { records.len() } else { range.limit.min(records.len()) };
        let remaining = records.len() - keep;
        records.truncate(keep);
        (records, remaining)
    }

    /// What a watcher of `prefix` sees from a revision on.
    pub fn after(&self, prefix: &str, after: Revision) -> Vec<Happened> {
        let later = self.history.iter().filter(|one| one.revision > after && one.path.starts_with(prefix));
        later.cloned().collect()
    }
}

fn joined(body: &crate::Body, revision: Revision) -> String {
    let mut bytes = body.before.to_vec();
    if let Some(after) = &body.after {
        bytes.extend(revision.to_string().bytes());
        bytes.extend(after.iter());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
