//! Measures the store on a real folder: durable commits, watch fan-out, memory and the time to open again.
//!
//! `cargo bench -p store [-- DIR]`; without a folder it makes one of its own under the target's file system and removes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::{Host, Tasks};
use store::{Body, Change, Expect, Limits, Range, Store, Tagger, Tags, Txn};

/// How long each measurement of commits runs.
const COMMIT_RUN: Duration = Duration::from_secs(3);

/// Watchers in the fan-out, as in the aim: 200 at 80,000 events/s.
const WATCHERS: usize = 200;

/// Events of the fan-out.
const EVENTS: usize = 200_000;

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Outcome {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).map(PathBuf::from);
    let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = given.unwrap_or_else(|| made.path().to_path_buf());
    let host = Host::real();
    say(format_args!("store on {}", dir.display()));
    memory(&host, &dir.join("memory")).await?;
    for clients in [1, 16, 64, 256] {
        commits(&host, &dir.join(format!("commits-{clients}")), clients).await?;
    }
    fan_out(&host, &dir.join("fan-out")).await
}

#[expect(clippy::print_stdout, reason = "a benchmark's figures go to the terminal")]
fn say(line: std::fmt::Arguments<'_>) {
    println!("{line}");
}

fn tagger() -> Tagger {
    Arc::new(|_, _| Tags::default())
}

fn put(path: String, bytes: usize) -> Change {
    let body = Body { before: Bytes::from(vec![b'x'; bytes]), after: Some(Bytes::from_static(b"}")) };
    Change::Put { path: path.into(), body, tags: Tags::default() }
}

/// Creates of 1 KiB, so many at once; each returns when it is on disk.
async fn commits(host: &Host, dir: &Path, clients: usize) -> Outcome {
    let store = Store::open(host, dir.to_path_buf(), tagger(), Limits::default()).await?;
    let began = host.moment();
    let tasks: Vec<_> =
        (0..clients).map(|client| host.spawn(create_for(host.clone(), store.clone(), client))).collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.join().await.into_iter().flatten());
    }
    let seconds = host.moment().since(began).as_secs_f64();
    took.sort_unstable();
    let at = |part: f64| {
        took.get((took.len() as f64 * part) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let rate = took.len() as f64 / seconds;
    say(format_args!(
        "commit 1 KiB, {clients:3} at once: {rate:8.0}/s  p50 {:.3} ms  p99 {:.3} ms",
        at(0.5),
        at(0.99)
    ));
    store.close().await;
    Ok(())
}

async fn create_for(host: Host, store: Store, client: usize) -> Vec<Duration> {
    let began = host.moment();
    let mut took = Vec::new();
    loop {
        let start = host.moment();
        if start.since(began) > COMMIT_RUN {
            return took;
        }
        let path = format!("/configmaps/default/{client}-{}", took.len());
        let expect = vec![(path.as_str().into(), Expect::Absent)];
        let done = store.commit(Txn { expect, changes: vec![put(path, 1024)] }).await;
        done.expect("the benchmark's disk has room");
        took.push(host.moment().since(start));
    }
}

/// Updates under watchers that read every event of them.
async fn fan_out(host: &Host, dir: &Path) -> Outcome {
    let store = Store::open(host, dir.to_path_buf(), tagger(), Limits::default()).await?;
    let watchers: Vec<_> = (0..WATCHERS).map(|_| host.spawn(watch(store.clone()))).collect();
    let began = host.moment();
    let mut writers = Tasks::new();
    for writer in 0..256 {
        writers.spawn(write(store.clone(), writer));
    }
    while writers.next_end().await.is_some() {}
    let wrote = host.moment().since(began).as_secs_f64();
    let mut delivered = 0;
    for watcher in watchers {
        delivered += watcher.join().await.unwrap_or(0);
    }
    let seconds = host.moment().since(began).as_secs_f64();
    say(format_args!(
        "fan-out to {WATCHERS} watchers: {:.0} durable events/s written, {:.1} million deliveries/s, {:.1} % delivered",
        EVENTS as f64 / wrote,
        delivered as f64 / seconds / 1e6,
        100.0 * delivered as f64 / (EVENTS * WATCHERS) as f64,
    ));
    store.close().await;
    Ok(())
}

async fn write(store: Store, writer: usize) {
    for number in 0..EVENTS / 256 {
        let path = format!("/pods/default/{writer}-{}", number % 40);
        store
            .commit(Txn { expect: Vec::new(), changes: vec![put(path, 512)] })
            .await
            .expect("the disk has room");
    }
}

/// Reads until the last event was seen or it was cut off; returns how many.
async fn watch(store: Store) -> usize {
    let mut watch = store.watch("/pods/", 1).expect("nothing was forgotten yet");
    let (mut seen, mut bytes) = (0, 0);
    while seen < EVENTS / 256 * 256 {
        let Ok(batch) = watch.next().await else { break };
        for event in batch.iter() {
            seen += 1;
            bytes += event.record.value.len();
        }
    }
    assert!(bytes >= seen * 512, "every event's bytes were at hand");
    seen
}

/// What 10,000 pods of 3 KiB cost in memory, and how long they take to open.
async fn memory(host: &Host, dir: &Path) -> Outcome {
    let (count, bytes) = (10_000, 3072);
    let store = Store::open(host, dir.to_path_buf(), tagger(), Limits::default()).await?;
    for group in 0..count / 100 {
        let changes = (0..100).map(|one| put(format!("/pods/default/web-{group}-{one}"), bytes)).collect();
        store.commit(Txn { expect: Vec::new(), changes }).await?;
    }
    store.close().await;
    drop(store);
    let before = resident_kib();
    let began = host.moment();
    let store = Store::open(host, dir.to_path_buf(), tagger(), Limits::default()).await?;
    let opened = host.moment().since(began);
    let listing = host.moment();
    let page = store.list(&Range { prefix: "/pods/".into(), ..Range::default() })?;
    let listed = host.moment().since(listing);
    let data = page.records.iter().map(|record| record.value.len()).sum::<usize>() / 1024;
    say(format_args!(
        "10,000 pods of 3 KiB: opened in {:.1} ms, listed in {:.2} ms, {} KiB more resident for {data} KiB of values",
        opened.as_secs_f64() * 1e3,
        listed.as_secs_f64() * 1e3,
        resident_kib().saturating_sub(before),
    ));
    store.close().await;
    Ok(())
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
