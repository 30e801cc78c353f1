//! The limits of a store: each with its unit and its reason.

use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// How long history is kept at least, as long as it fits [`HISTORY_BYTES`].
///
/// A watcher that reconnects or a list that continues within five minutes must find its revision, as with upstream.
const HISTORY_AGE: Duration = Duration::from_secs(300);

/// Bytes of history kept at most, counted as they lie in the log.
///
/// Bounds memory beside the records and what a start has to read. Half would cut off watchers that pause for a second in
/// a storm of 50,000 writes/s; double would be felt on a machine of 1 GiB.
const HISTORY_BYTES: usize = 128 * MIB;

/// Transactions that wait for the writer; more wait at the door.
///
/// A sync takes a fraction of a millisecond, so this is more than any burst gathers meanwhile.
const QUEUE_LEN: usize = 4096;

/// Bytes of transactions that wait; more wait at the door. Twice the largest transaction, so that two of them can overlap.
const QUEUE_BYTES: usize = 64 * MIB;

/// Bytes after which a batch is closed, though more transactions wait.
///
/// Far beyond where a larger batch still gains throughput, small enough to be written in tens of milliseconds.
const BATCH_BYTES: usize = 8 * MIB;

/// Bytes of one transaction. The API takes bodies of 3 MiB; a few of them may go together.
const TXN_BYTES: usize = 32 * MIB;

/// Bytes after which a new segment of the log is begun: the unit in which disk space is given back.
///
/// A segment is read whole at a start, so this is also what a start needs beside the records. Beginning one takes two
/// more syncs and as many zeros, some 5 ms: the slowest hundredth of requests at full rate are not yet among them.
const SEGMENT_BYTES: u64 = 4 * MIB as u64;

/// Bytes of log older than the history that are kept before a snapshot replaces them (or as much as all records, when that
/// is more, so that snapshots never write more than the log does).
///
/// A start reads and tags all of it, which takes about 0.1 s; half would not be felt.
const LOG_BYTES: u64 = 16 * MIB as u64;

/// The limits of a store.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long history is kept, room given.
    pub history_age: Duration,
    /// Bytes of history kept at most (the newest batch always).
    pub history_bytes: usize,
    /// Transactions that wait for the writer.
    pub queue_len: usize,
    /// Bytes of transactions that wait for the writer.
    pub queue_bytes: usize,
    /// Bytes after which a batch is closed.
    pub batch_bytes: usize,
    /// Bytes of one transaction.
    pub txn_bytes: usize,
    /// Bytes after which a new segment is begun.
    pub segment_bytes: u64,
    /// Bytes of log that no history needs, before a snapshot replaces them.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            history_age: HISTORY_AGE,
            history_bytes: HISTORY_BYTES,
            queue_len: QUEUE_LEN,
            queue_bytes: QUEUE_BYTES,
            batch_bytes: BATCH_BYTES,
            txn_bytes: TXN_BYTES,
            segment_bytes: SEGMENT_BYTES,
            log_bytes: LOG_BYTES,
        }
    }
}
