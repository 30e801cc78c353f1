//! A process that writes is killed a thousand times, at any point: what it was told is done stays done, and the history goes
//! on without a gap.
//!
//! The writer is this very program, started for one test alone.

#[allow(dead_code, reason = "the other test of the suite uses the rest")]
mod suite;

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use host::{Chance, Host};
use store::{Limits, Range, Store, Txn};

/// How often the writer is killed.
const KILLS: usize = 1_000;
/// How many write at once: each counts up at a path of its own.
const WRITERS: usize = 16;
/// How long after its start the writer is killed at most: half of it is the start itself.
const LIVES_MAX: Duration = Duration::from_millis(50);
/// Names the folder of the store to the writer.
const FOLDER: &str = "KILLED_STORE";

/// What a writer has said, by path.
#[derive(Debug, Default)]
struct Said {
    /// What it found when it began; `None`: it did not get that far.
    found: Option<BTreeMap<usize, u64>>,
    /// What it was told is done.
    done: BTreeMap<usize, u64>,
}

#[test]
fn what_is_done_stays_done_however_often_the_writer_is_killed() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let chance = Chance::from_seed(9);
    let mut done: BTreeMap<usize, u64> = BTreeMap::new();
    let mut found_after = 0;
    for kill in 0..KILLS {
        let said = live_and_die(dir.path(), LIVES_MAX.mul_f64(chance.unit()));
        if let Some(found) = said.found {
            found_after += 1;
            for writer in 0..WRITERS {
                let (told, there) = (count(&done, writer), count(&found, writer));
                // The last write may have been done before anybody could be told.
                let is_kept = (told..=told + 1).contains(&there);
                assert!(is_kept, "kill {kill}: {writer} was told of {told}, and {there} is there");
            }
            done = found;
        }
        done.extend(said.done);
    }
    assert!(found_after > KILLS / 10, "{found_after} of {KILLS} lived until they had read the store");
    assert!(done.values().sum::<u64>() > 0, "nothing was ever written");
}

fn count(counts: &BTreeMap<usize, u64>, writer: usize) -> u64 {
    counts.get(&writer).copied().unwrap_or(0)
}

/// Starts the writer, kills it after so long, and gives what it had said by then.
fn live_and_die(dir: &Path, lives: Duration) -> Said {
    let me = env::current_exe().expect("this program");
    let mut writer = Command::new(me)
        .args(["--exact", "writes_until_it_is_killed", "--nocapture", "--quiet"])
        .env(FOLDER, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let out = writer.stdout.take().expect("a pipe");
    let heard = thread::spawn(move || hear(BufReader::new(out)));
    thread::sleep(lives);
    kill(&mut writer);
    heard.join().expect("what it said can be read")
}

fn kill(writer: &mut Child) {
    let ended = writer.try_wait().expect("our own child");
    assert!(ended.is_none(), "the writer ended by itself: {ended:?}");
    writer.kill().and_then(|()| writer.wait()).expect("our own child");
}

fn hear(out: impl BufRead) -> Said {
    let mut said = Said::default();
    for line in out.lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["found"] => said.found = Some(said.done.split_off(&0)),
            ["done", writer, count, "."] => {
                said.done.insert(writer.parse().expect("a number"), count.parse().expect("a number"));
            }
            _ => {}
        }
    }
    said
}

/// What is killed: it says what it found, and then what it was told is done. Without a folder it is no test of its own.
#[test]
fn writes_until_it_is_killed() {
    let Some(dir) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // Small, so that segments and snapshots come and go while it is killed.
        let limits = Limits {
            history_bytes: 64 * 1024,
            segment_bytes: 16 * 1024,
            log_bytes: 64 * 1024,
            ..Limits::default()
        };
        let store = Store::open(&Host::real(), dir, suite::tagger(), limits).await.expect("the store opens");
        let found = read(&store);
        found.iter().for_each(|(writer, count)| say(&format!("done {writer} {count} .")));
        say("found");
        join_all((0..WRITERS).map(|writer| write(&store, writer, count(&found, writer)))).await;
    });
}

/// What the store holds; its history has to lead there without gap or repeat.
fn read(store: &Store) -> BTreeMap<usize, u64> {
    let numbers = |path: &str, value: &[u8]| {
        let writer = path.rsplit('/').next().and_then(|name| name.parse().ok()).expect("a writer's path");
        let value = String::from_utf8_lossy(value).into_owned();
        (writer, value.split('#').next().and_then(|count| count.parse().ok()).expect("a count"))
    };
    let page = store.list(&Range::default()).expect("the present can be listed");
    let now: BTreeMap<usize, u64> =
        page.records.iter().map(|record| numbers(&record.path, &record.value)).collect();
    let (mut last, mut at) = (store.oldest(), BTreeMap::new());
    let mut watch = store.watch("/counts/", last).expect("the oldest can be watched from");
    while let Some(batch) = watch.try_next().expect("it is not too slow") {
        for event in batch.iter() {
            let (writer, count) = numbers(&event.record.path, &event.record.value);
            assert!(event.record.revision > last, "revisions grow");
            let before = at.insert(writer, count);
            assert!(
                before.is_none_or(|before: u64| count == before + 1),
                "{writer}: {before:?}, then {count}"
            );
            last = event.record.revision;
        }
    }
    assert!(
        at.iter().all(|(writer, count)| now.get(writer) == Some(count)),
        "history leads to {at:?}, not {now:?}"
    );
    now
}

/// Counts up, and says each time when that is done.
async fn write(store: &Store, writer: usize, from: u64) {
    for count in from + 1.. {
        let change = suite::put(&format!("/counts/ns/{writer}"), &format!("{count}#"));
        let txn = Txn { changes: vec![change], ..Txn::default() };
        store.commit(txn).await.expect("it is written");
        say(&format!("done {writer} {count} ."));
    }
}

/// One line in one call: it is heard whole or not at all, and says by its end which.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).expect("somebody listens");
}
