//! Tasks that end with the scope that started them.

use std::pin::Pin;

use tokio::task::{JoinHandle, JoinSet};

use crate::process::Process;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A running task; dropping it stops the task.
#[derive(Debug)]
pub struct Task<T>(JoinHandle<T>);

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(match Process::current() {
            None => tokio::spawn(future),
            Some(process) => tokio::spawn(process.part::<Boxed<T>>(Box::pin(future))),
        })
    }

    /// Waits for the task's end; `None` when it was stopped.
    ///
    /// # Panics
    /// Carries on a panic of the task.
    pub async fn join(mut self) -> Option<T> {
        match (&mut self.0).await {
            Ok(value) => Some(value),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => None,
        }
    }

    /// Whether the task has ended.
    pub fn is_ended(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A group of tasks that ends as a whole when it is dropped.
#[derive(Debug, Default)]
pub struct Tasks(JoinSet<()>);

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task in the group, and forgets those that have ended.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) {
        while self.0.try_join_next().is_some() {}
        match Process::current() {
            None => self.0.spawn(future),
            Some(process) => self.0.spawn(process.part::<Boxed<()>>(Box::pin(future))),
        };
    }

    /// How many tasks have not been seen to end.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no task runs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Waits until one task ends; `None` when there is none.
    pub async fn next_end(&mut self) -> Option<()> {
        self.0.join_next().await.map(|_| ())
    }

    /// Waits until a task goes wrong, for groups of which every task is needed: whoever waits goes wrong with it, where it
    /// would go on without. Never ends otherwise.
    ///
    /// # Panics
    /// Carries on a panic of a task that was not forgotten by [`Tasks::spawn`] before.
    pub async fn failed(&mut self) {
        while let Some(ended) = self.0.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_needs_every_task_goes_wrong_with_one() {
        let waits = tokio::spawn(async {
            let mut tasks = Tasks::new();
            tasks.spawn(async {});
            tasks.spawn(async { panic!("as the test wants") });
            tasks.failed().await;
        });
        assert!(waits.await.is_err_and(|error| error.is_panic()));
    }
}
