//! A value that some change and others wait for, with the face of `tokio::sync::watch`.
//!
//! Promises what that one does not: those who wait are woken in the order in which they began to wait. Tokio draws that
//! order from chance that nobody can seed, so a simulated house would not replay.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Changes the value; clones change the same one.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// Waits for changes of the value.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A look at the value; it cannot change meanwhile, so it is to be short.
#[derive(Debug)]
pub struct Ref<'a, T>(MutexGuard<'a, Value<T>>);

/// Nobody is left who could change the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    /// Guards the value for one look or change.
    value: Mutex<Value<T>>,
    changed: Notify,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

#[derive(Debug)]
struct Value<T> {
    value: T,
    version: u64,
}

/// A value, and the first who waits for its changes.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Sender<T> {
    /// A value that nobody waits for yet.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: Mutex::new(Value { value, version: 0 }),
            changed: Notify::new(),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
        }))
    }

    /// Someone who waits for changes from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::SeqCst);
        Receiver { seen: self.0.value().version, shared: self.0.clone() }
    }

    /// Changes the value in place, and tells everyone.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        let mut value = self.0.value();
        change(&mut value.value);
        value.version += 1;
        drop(value);
        self.0.changed.notify_waiters();
    }

    /// Puts another value in place, tells everyone, and gives the one that was there.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_modify(|known| std::mem::swap(known, &mut value));
        value
    }

    /// Looks at the value.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.value())
    }

    /// How many wait, or could.
    pub fn receiver_count(&self) -> usize {
        self.0.receivers.load(Ordering::SeqCst)
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::SeqCst);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

impl<T> Receiver<T> {
    /// Looks at the value, without taking note of it.
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.value())
    }

    /// Looks at the value; [`Receiver::changed`] waits for the next one from here.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value();
        self.seen = value.version;
        Ref(value)
    }

    /// Whether there is a value that was not taken note of.
    ///
    /// # Errors
    /// When there is none and never will be.
    pub fn has_changed(&self) -> Result<bool, Closed> {
        let is_new = self.shared.value().version != self.seen;
        if is_new || !self.shared.is_closed() { Ok(is_new) } else { Err(Closed) }
    }

    /// Takes note of the value that is there.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.value().version;
    }

    /// Waits for a value that was not taken note of, and takes note of it. May be dropped while it waits.
    ///
    /// # Errors
    /// When there is none and never will be.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.shared.next(&mut self.seen).await
    }

    /// Waits until the value is as wanted, and takes note of it. May be dropped while it waits.
    ///
    /// # Errors
    /// When it is not and never will be.
    pub async fn wait_for(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            {
                let value = self.shared.value();
                self.seen = value.version;
                if is_wanted(&value.value) {
                    return Ok(Ref(value));
                }
            }
            self.shared.next(&mut self.seen).await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::SeqCst);
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<T> Shared<T> {
    fn value(&self) -> MutexGuard<'_, Value<T>> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for another version than the one seen.
    async fn next(&self, seen: &mut u64) -> Result<(), Closed> {
        loop {
            // Made before the look, so that a change between the look and the wait is not missed.
            let changed = self.changed.notified();
            let version = self.value().version;
            if version != *seen {
                *seen = version;
                return Ok(());
            }
            if self.is_closed() {
                return Err(Closed);
            }
            changed.await;
        }
    }

    fn is_closed(&self) -> bool {
        self.senders.load(Ordering::SeqCst) == 0
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_order() {
        for _ in 0..20 {
            let (sender, receiver) = channel(0);
            let order = Arc::new(Mutex::new(Vec::new()));
            let mut all = tokio::task::JoinSet::new();
            for number in 0..10 {
                let (mut receiver, order) = (receiver.clone(), order.clone());
                all.spawn(async move {
                    let woken = receiver.changed().await;
                    order.lock().expect("nobody panicked").push(number);
                    woken
                });
            }
            tokio::task::yield_now().await;
            sender.send_replace(1);
            while all.join_next().await.is_some() {}
            assert_eq!(*order.lock().expect("nobody panicked"), (0..10).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_change_is_told_once_and_the_end_is_told_after_the_last_change() {
        let (sender, mut receiver) = channel(0);
        sender.send_modify(|value| *value += 1);
        sender.send_modify(|value| *value += 1);
        assert_eq!(
            (receiver.has_changed(), receiver.changed().await, *receiver.borrow()),
            (Ok(true), Ok(()), 2)
        );
        assert_eq!(receiver.has_changed(), Ok(false));
        sender.send_replace(5);
        drop(sender);
        assert_eq!(receiver.wait_for(|value| *value == 5).await.map(|value| *value), Ok(5));
        assert_eq!((receiver.changed().await, receiver.has_changed()), (Err(Closed), Err(Closed)));
        assert!(receiver.wait_for(|value| *value == 6).await.is_err());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_misses_nothing() {
        let (sender, mut receiver) = channel(0);
        assert!(futures_like::poll_once(receiver.changed()).await.is_none());
        sender.send_replace(1);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(sender.receiver_count(), 1);
    }

    /// Polls a future once.
    mod futures_like {
        pub async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
            let mut future = std::pin::pin!(future);
            std::future::poll_fn(|context| {
                std::task::Poll::Ready(match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => Some(value),
                    std::task::Poll::Pending => None,
                })
            })
            .await
        }
    }
}
