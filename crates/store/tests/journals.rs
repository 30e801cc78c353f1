//! The promises of a store, over the embedded log.

mod suite;

use std::path::PathBuf;
use std::time::Duration;

use host::{Host, SimDisk, Time};
use store::{Limits, Store};

#[tokio::test(start_paused = true)]
async fn the_embedded_log_keeps_what_a_store_promises() {
    suite::all(|| async {
        let start = Time::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let host = Host::simulated(1, start, SimDisk::new());
        let store =
            Store::open(&host, PathBuf::from("/data/store"), suite::tagger(), Limits::default()).await;
        store.expect("the disk is empty and sound")
    })
    .await;
}
