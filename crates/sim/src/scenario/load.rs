//! Requests to a Service that go on all the time, and what comes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::file::LoadSettings;
use crate::cluster::Cluster;

/// The loads of a scenario, each with the time of its next request.
pub struct Loads(BTreeMap<Duration, Vec<LoadSettings>>);

impl Loads {
    /// Loads that begin when they are to, and not before `now`.
    pub fn new(all: &[LoadSettings], now: Duration) -> Self {
        let mut loads = Self(BTreeMap::new());
        all.iter().for_each(|load| loads.plan(now.max(load.begins) + load.every, load.clone()));
        loads
    }

    /// When the next request is to be sent.
    pub fn next(&self) -> Option<Duration> {
        self.0.keys().next().copied()
    }

    /// Sends the requests whose time has come.
    pub fn send(&mut self, cluster: &Cluster) {
        let now = cluster.book.since();
        while let Some(entry) = self.0.first_entry()
            && *entry.key() <= now
        {
            for load in entry.remove() {
                let answer = cluster.request(&load.from, &load.service);
                if let Err(why) = answer {
                    cluster.book.line(&format!("request    {:<10} failed: {why}", load.name));
                }
                cluster.book.note(|sight| {
                    let told = sight.loads.entry(load.name.clone()).or_default();
                    told.sent += 1;
                    told.failed += u64::from(answer.is_err());
                });
                self.plan(now + load.every, load);
            }
        }
    }

    fn plan(&mut self, at: Duration, load: LoadSettings) {
        self.0.entry(at).or_default().push(load);
    }
}
