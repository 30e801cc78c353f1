//! The power is cut at every sync: what was acknowledged is there, and nothing is half there.

use futures_util::future::join_all;
use host::{Chance, SimDisk};

use super::model::Model;
use super::{contents, open, put, remove, run, tight};
use crate::{Change, Limits, Store, StoreError, Txn};

/// Groups of transactions that arrive together; each transaction writes several paths. About 60 syncs with tight limits.
fn workload() -> Vec<Vec<Txn>> {
    (0..20).map(|group| (0..3).map(|one| super::txn(changes(group * 3 + one))).collect()).collect()
}

fn changes(number: usize) -> Vec<Change> {
    let path = |n: usize| format!("/c{}/ns/{}", n % 2, n % 7);
    let mut changes = vec![put(&path(number), &format!("v{number}")), put("/last/one", &format!("{number}"))];
    if number % 5 == 4 {
        changes.push(remove("/last/one"));
    }
    changes
}

/// Runs the workload until the power fails; returns how many transactions were acknowledged.
async fn run_until_cut(store: &Store, workload: &[Vec<Txn>]) -> usize {
    let mut acknowledged = 0;
    for group in workload {
        let answers = join_all(group.iter().map(|txn| store.commit(txn.clone()))).await;
        let done = answers.iter().take_while(|answer| answer.is_ok()).count();
        acknowledged += done;
        if done < answers.len() {
            assert!(
                answers[done..].iter().all(|answer| matches!(answer, Err(StoreError::Disk { .. }))),
                "{answers:?}"
            );
            let after = store.commit(group[0].clone()).await;
            assert!(matches!(after, Err(StoreError::Disk { .. })), "nothing is written after a failed sync");
            let asked = store.commit(Txn::default()).await;
            assert!(matches!(asked, Err(StoreError::Disk { .. })), "who changes nothing is told so too");
            break;
        }
    }
    acknowledged
}

/// What the store holds after each number of transactions.
fn states(workload: &[Vec<Txn>]) -> Vec<Vec<String>> {
    let mut model = Model::new();
    let mut states = vec![Vec::new()];
    for txn in workload.iter().flatten() {
        assert!(model.commit(txn), "the workload has no conflicts");
        let lying = model.at(model.revision).into_iter();
        states.push(lying.map(|(path, (value, _))| format!("{path}={value}")).collect());
    }
    states
}

/// Cuts the power after `syncs`; returns whether the workload had ended before.
async fn cut(syncs: u64, seed: u64, limits: &Limits) -> bool {
    let (disk, workload) = (SimDisk::new(), workload());
    disk.fail_after_syncs(syncs);
    let acknowledged = match open(&disk, limits.clone()).await {
        Ok(store) => run_until_cut(&store, &workload).await,
        Err(_) => 0,
    };
    disk.crash(&Chance::from_seed(seed));
    let store = open(&disk, limits.clone()).await;
    let store = store.unwrap_or_else(|error| panic!("after {syncs} syncs, seed {seed}: {error}"));
    let found = contents(&store);
    let states = states(&workload);
    let survived = (acknowledged..states.len()).find(|count| states[*count] == found);
    assert!(
        survived.is_some(),
        "after {syncs} syncs, seed {seed}: {acknowledged} acknowledged, but found {found:?}"
    );
    goes_on(&disk, store, limits).await;
    acknowledged + 1 == states.len()
}

/// The store that was found takes writes, which are there after it is opened again.
async fn goes_on(disk: &SimDisk, store: Store, limits: &Limits) {
    for number in 0..10 {
        store
            .commit(super::txn(vec![put("/after/all", &format!("{number}"))]))
            .await
            .expect("the disk is sound again");
    }
    let (before, revision) = (contents(&store), store.revision());
    store.close().await;
    let again = open(disk, limits.clone()).await.expect("it was closed well");
    assert_eq!((contents(&again), again.revision()), (before, revision));
}

fn cut_at_every_sync(limits: Limits) {
    for seed in 0..8 {
        let ended = (0..1000).position(|syncs| run(cut(syncs, seed, &limits)));
        assert!(ended.is_some_and(|syncs| syncs > 20), "the workload ends within 1000 syncs: {ended:?}");
    }
}

#[test]
fn no_acknowledged_write_is_lost_by_a_cut_at_any_sync() {
    cut_at_every_sync(Limits::default());
}

#[test]
fn no_acknowledged_write_is_lost_by_a_cut_while_segments_and_snapshots_come_and_go() {
    cut_at_every_sync(Limits { history_bytes: 1500, segment_bytes: 150, log_bytes: 400, ..tight() });
}

#[test]
fn what_readers_and_watchers_saw_is_there_after_the_cut() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, Limits::default()).await.expect("the disk is empty");
        store.commit(super::txn(vec![put("/a/x", "1")])).await.expect("the power is on");
        let mut watch = store.watch("/a/", 1).expect("nothing was forgotten");
        disk.fail_after_syncs(0);
        let lost = store.commit(super::txn(vec![put("/a/x", "2")])).await;
        assert!(matches!(lost, Err(StoreError::Disk { .. })), "{lost:?}");
        assert_eq!(contents(&store), ["/a/x=1#2#"]);
        let seen = watch.try_next().expect("the store is open").expect("the first write is there");
        assert_eq!(seen.iter().count(), 1);
        assert!(watch.try_next().expect("the store is open").is_none());
    });
}

#[test]
fn what_a_restart_without_a_cut_finds_survives_the_next_cut() {
    // The process is killed before, between and after its syncs, restarts on what the kernel holds, then the power goes.
    for (syncs, seed) in (0..40).flat_map(|syncs| (0..8).map(move |seed| (syncs, seed))) {
        run(async {
            let limits = Limits { segment_bytes: 150, ..tight() };
            let disk = SimDisk::new();
            disk.fail_after_syncs(syncs);
            if let Ok(store) = open(&disk, limits.clone()).await {
                run_until_cut(&store, &workload()).await;
            }
            disk.fail_after_syncs(u64::MAX);
            let store = open(&disk, limits.clone()).await.expect("nothing but the end is torn");
            let mut found = contents(&store);
            if seed % 2 == 0 {
                store.commit(super::txn(vec![put("/z/z", "z")])).await.expect("the disk is sound again");
                found = contents(&store);
            }
            drop(store);
            disk.crash(&Chance::from_seed(seed));
            let again = open(&disk, limits).await.expect("all was durable");
            assert_eq!(contents(&again), found, "after {syncs} syncs, seed {seed}");
        });
    }
}

#[test]
fn after_one_failed_sync_nothing_is_written_though_the_disk_goes_on() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, Limits::default()).await.expect("the disk is empty");
        disk.fail_syncs(1);
        for value in ["1", "2"] {
            let refused = store.commit(super::txn(vec![put("/a/x", value)])).await;
            assert!(matches!(refused, Err(StoreError::Disk { .. })), "{refused:?}");
        }
        assert!(contents(&store).is_empty());
    });
}
