//! Compaction: every five minutes one of the servers lets etcd forget what was superseded before the last time.

use std::time::Duration;

use client::grpc::{Code, Status};
use host::Host;

use crate::endpoints::Endpoints;
use crate::keys::Keys;
use crate::messages::{
    COMPACT, CompactionRequest, CompactionResponse, CompareResult, PutRequest, RANGE, RangeRequest,
    RangeResponse, Request, RequestOp, TXN, TxnRequest, TxnResponse,
};
use crate::transaction::by_revision;

/// How often; upstream's five minutes. A server that starts finds the history of five to ten.
pub const COMPACT_EVERY: Duration = Duration::from_secs(300);

/// How long a question of the compactor may take: nobody waits for it.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How many turns it takes at most when asked: three are enough, and each server that asks at the same time takes two.
const TURNS_MAX: u32 = 12;

/// Takes turns with its like in the other servers: who writes the next round into the key has the round.
pub struct Compactor {
    host: Host,
    endpoints: Endpoints,
    keys: Keys,
    /// The etcd revision that wrote the round before, and the newest one at that time.
    round: (i64, i64),
    /// Up to where this one has compacted.
    done: i64,
}

impl Compactor {
    pub fn new(host: Host, endpoints: Endpoints, keys: Keys) -> Self {
        Self { host, endpoints, keys, round: (0, 0), done: 0 }
    }

    /// Compacts until its task is dropped.
    pub async fn run(mut self) {
        loop {
            self.host.sleep(COMPACT_EVERY).await;
            if let Err(status) = self.take_turn().await {
                tracing::warn!(%status, "cannot compact etcd; trying again in five minutes");
            }
        }
    }

    /// Begins the next round, when no other server has, and lets go of what was superseded before the last.
    pub async fn take_turn(&mut self) -> Result<(), Status> {
        let (written, newest) = self.round;
        let key = self.keys.own("compact");
        let put = PutRequest { key: key.clone(), value: newest.to_string().into() };
        let turn = TxnRequest {
            compare: vec![by_revision(key, CompareResult::Equal, written)],
            success: vec![RequestOp { request: Some(Request::Put(put)) }],
            failure: vec![RequestOp { request: Some(Request::Range(mark(&self.keys))) }],
        };
        let turn: TxnResponse = self.endpoints.ask_again(TXN, &turn, ANSWER_MAX).await?;
        let now = turn.header.unwrap_or_default().revision;
        if !turn.succeeded {
            let found =
                turn.responses.iter().filter_map(|one| one.range.as_ref()).flat_map(|range| &range.kvs);
            self.round = (found.map(|kv| kv.mod_revision).next().unwrap_or_default(), now);
            return Ok(());
        }
        self.round = (now, now);
        if newest == 0 {
            return Ok(());
        }
        let compact = CompactionRequest { revision: newest };
        let done: Result<CompactionResponse, Status> =
            self.endpoints.ask_again(COMPACT, &compact, ANSWER_MAX).await;
        match done {
            Ok(_) => self.done = newest,
            // Somebody else was faster or further.
            Err(status) if status.code == Code::OutOfRange => self.done = self.done.max(newest),
            Err(status) => return Err(status),
        }
        Ok(())
    }
}

/// Has etcd forget now all that was superseded before an etcd revision; says up to where it did.
pub async fn let_go(host: &Host, endpoints: &Endpoints, keys: &Keys, upto: i64) -> Result<i64, Status> {
    let mut compactor = Compactor::new(host.clone(), endpoints.clone(), keys.clone());
    // Learns the round, begins the next, and compacts up to that one in the one after, unless another takes its turn.
    for _ in 0..TURNS_MAX {
        compactor.take_turn().await?;
        if compactor.done >= upto {
            return Ok(compactor.done);
        }
    }
    Err(Status::unavailable("others compact it at the same time"))
}

fn mark(keys: &Keys) -> RangeRequest {
    RangeRequest { key: keys.own("compact"), ..RangeRequest::default() }
}

/// What a start has to know: the revision up to which etcd may have forgotten, and the newest.
pub async fn horizon(endpoints: &Endpoints, keys: &Keys, limit: Duration) -> Result<(i64, i64), Status> {
    let answer: RangeResponse = endpoints.ask_again(RANGE, &mark(keys), limit).await?;
    let told = answer.kvs.first().and_then(|kv| std::str::from_utf8(&kv.value).ok()?.parse().ok());
    Ok((told.unwrap_or(0), answer.header.unwrap_or_default().revision))
}
