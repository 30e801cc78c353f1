//! News from the caches: what changed since it was last asked for.
//!
//! Promises: never blocks whoever brings the news; a key is held once, however often it changed, so that a slow
//! reader misses states between but never that something changed; keys come in the order they first changed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Key;
use tokio::sync::Notify;

use crate::Changed;

/// Receives [`Changed`]; dropping it ends the subscription.
#[derive(Debug)]
pub struct Changes(Arc<Inbox>);

/// Where news waits for one reader. As large as the number of different keys that changed, which the caches bound.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// Guards the news for the length of one push or pop.
    news: Mutex<News>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct News {
    order: VecDeque<Key>,
    by_key: BTreeMap<Key, Changed>,
}

impl Changes {
    pub(crate) fn new(inbox: Arc<Inbox>) -> Self {
        Self(inbox)
    }

    /// The next change; waits for one. Nothing is lost when the wait is given up.
    pub async fn next(&mut self) -> Changed {
        loop {
            let arrived = self.0.arrived.notified();
            if let Some(changed) = self.0.pop() {
                return changed;
            }
            arrived.await;
        }
    }

    /// The next change, if one is there.
    pub fn try_next(&mut self) -> Option<Changed> {
        self.0.pop()
    }
}

impl Inbox {
    /// Adds a change, to what is known of its key if it has not been read yet.
    pub fn push(&self, changed: Changed) {
        let mut news = self.news();
        match news.by_key.get_mut(&changed.key) {
            Some(known) => known.new = changed.new,
            None => {
                news.order.push_back(changed.key.clone());
                news.by_key.insert(changed.key.clone(), changed);
            }
        }
        drop(news);
        self.arrived.notify_one();
    }

    fn pop(&self) -> Option<Changed> {
        let mut news = self.news();
        let key = news.order.pop_front()?;
        news.by_key.remove(&key)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use model::{Gvr, Object};

    use super::*;

    fn changed(name: &str, old: u64, new: u64) -> Changed {
        let object = |revision: u64| {
            let text = format!(r#"{{"metadata":{{"name":"{name}","resourceVersion":"{revision}"}}}}"#);
            (revision > 0).then(|| Object::read(text.into()).expect("an object"))
        };
        let key = Key::new(&Gvr::new("", "v1", "pods"), "", name);
        Changed { key, old: object(old), new: object(new) }
    }

    #[tokio::test]
    async fn changes_of_one_key_are_told_once_with_the_first_and_the_last_state() {
        let inbox = Arc::new(Inbox::default());
        let mut changes = Changes::new(inbox.clone());
        for change in [changed("a", 0, 1), changed("b", 2, 3), changed("a", 1, 4), changed("a", 4, 5)] {
            inbox.push(change);
        }
        assert_eq!(changes.next().await, changed("a", 0, 5));
        assert_eq!(changes.next().await, changed("b", 2, 3));
        assert_eq!(changes.try_next(), None);
        inbox.push(changed("a", 5, 0));
        assert_eq!(changes.next().await, changed("a", 5, 0));
    }
}
