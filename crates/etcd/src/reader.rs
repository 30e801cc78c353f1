//! Catching up: what etcd says is newest, and the wait until the memory shows it. One question serves all who wait.

use std::time::Duration;

use client::grpc::Status;
use host::Host;
use store::{Intake, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::endpoints::Endpoints;
use crate::keys::Keys;
use crate::load::unreachable;
use crate::messages::{PUT, PutRequest, PutResponse, RANGE, RangeRequest, RangeResponse};

/// How long those wait who want to read what is newest.
///
/// A cluster that elects a new leader answers after one to two seconds; upstream's requests wait longer, but those who ask
/// here hold up what heals.
pub const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// How many wait for the next question; more wait at the door.
pub const WAITING_MAX: usize = 4096;

/// How long the watch has to bring what etcd says is there. Within a site it takes a millisecond. What it does not bring
/// by then was written by others, beside our keys.
const PATIENCE: Duration = Duration::from_millis(20);

/// Who waits for what.
pub type Waiter = oneshot::Sender<Result<(), StoreError>>;

/// Answers those who wait.
pub struct Reader {
    pub host: Host,
    pub endpoints: Endpoints,
    pub keys: Keys,
    pub intake: Intake,
    pub waiting: mpsc::Receiver<Waiter>,
}

impl Reader {
    /// Answers until nobody can ask any more.
    pub async fn run(mut self) {
        while let Some(first) = self.waiting.recv().await {
            let mut all = vec![first];
            while let Ok(more) = self.waiting.try_recv() {
                all.push(more);
            }
            let caught_up = self.catch_up().await;
            for waiter in all {
                let answer = match &caught_up {
                    Ok(()) => Ok(()),
                    Err(status) => Err(unreachable(status)),
                };
                // Whoever asked may have gone.
                let _ = waiter.send(answer);
            }
        }
    }

    /// What is in the memory is of a history that is no more: nothing is served any more.
    fn gone_back(&self, seen: i64, newest: i64) -> Status {
        let why = format!("etcd has gone back from revision {seen} to {newest}: restart the servers");
        tracing::error!(seen, newest, "etcd has gone back, as after a restore: restart the servers");
        self.intake.close();
        Status::unavailable(why)
    }

    async fn catch_up(&self) -> Result<(), Status> {
        let end = self.host.moment().0 + CATCH_UP_MAX;
        let ask = RangeRequest { key: self.keys.own("mark"), keys_only: true, ..RangeRequest::default() };
        let seen = self.keys.etcd(self.intake.revision());
        let newest: RangeResponse = self.endpoints.ask_again(RANGE, &ask, CATCH_UP_MAX).await?;
        let newest = newest.header.unwrap_or_default().revision;
        if newest < seen {
            return Err(self.gone_back(seen, newest));
        }
        let newest = self.keys.revision(newest, 0);
        if self.host.within(PATIENCE, self.intake.reached(newest)).await.is_some() {
            return Ok(());
        }
        // A mark among our keys comes by the watch, after all that was there before.
        let left = || end.saturating_sub(self.host.moment().0);
        let put = PutRequest { key: self.keys.own("mark"), ..PutRequest::default() };
        let put: PutResponse = self.endpoints.ask_again(PUT, &put, left()).await?;
        let mark = self.keys.revision(put.header.unwrap_or_default().revision, 0);
        let reached = self.host.within(left(), self.intake.reached(mark)).await;
        reached.ok_or_else(|| Status::unavailable("the watch brings nothing"))
    }
}
