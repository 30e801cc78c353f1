//! What `/metrics` tells of mending: how long each phase of a mend took, how many acts were held back.
//!
//! Promises: counting never waits and never fails; the rows are bounded, since faults, phases and acts are words of ours.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The upper bounds of the buckets, in seconds: from a restart in place to a node that was away for ten minutes.
const BUCKETS: [f64; 14] = [0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 4.0, 6.0, 10.0, 30.0, 120.0, 600.0];

/// A part of a mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// From the fault to somebody who knows of it.
    Detect,
    /// From there to the act.
    Decide,
    /// From there to its end.
    Act,
    /// From there until it is seen to be healed.
    Verify,
}

impl Phase {
    fn word(self) -> &'static str {
        match self {
            Phase::Detect => "detect",
            Phase::Decide => "decide",
            Phase::Act => "act",
            Phase::Verify => "verify",
        }
    }
}

/// The numbers.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Guards the numbers while one is counted up.
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    seconds: BTreeMap<(&'static str, Phase), Histogram>,
    held: BTreeMap<(&'static str, &'static str), u64>,
    evictions: u64,
    silent: usize,
}

#[derive(Debug, Default, Clone)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

impl Metrics {
    /// A phase of a mend is over.
    pub fn took(&self, fault: &'static str, phase: Phase, time: Duration) {
        let mut rows = self.rows();
        let histogram = rows.seconds.entry((fault, phase)).or_default();
        let seconds = time.as_secs_f64();
        histogram.count += 1;
        histogram.sum += seconds;
        for (bound, count) in BUCKETS.iter().zip(&mut histogram.buckets) {
            *count += u64::from(seconds <= *bound);
        }
    }

    /// An act was held back by the governor: which, and whether for a while or as long as the world is as it is.
    pub fn held_back(&self, act: &'static str, how: &'static str) {
        *self.rows().held.entry((act, how)).or_default() += 1;
    }

    /// A pod was taken from a node that does not suffer it.
    pub fn evicted(&self) {
        self.rows().evictions += 1;
    }

    /// So many nodes are silent now.
    pub fn silent(&self, count: usize) {
        self.rows().silent = count;
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> String {
        let rows = self.rows();
        let mut out = String::new();
        // Writing to a text cannot fail.
        let _ = rows.write(&mut out);
        out
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        head(out, "kintsugi_repair_seconds", "How long each phase of a mend took.", "histogram")?;
        for ((fault, phase), histogram) in &self.seconds {
            let labels = format!("fault=\"{fault}\",phase=\"{}\"", phase.word());
            for (bound, count) in BUCKETS.iter().zip(&histogram.buckets) {
                writeln!(out, "kintsugi_repair_seconds_bucket{{{labels},le=\"{bound}\"}} {count}")?;
            }
            writeln!(out, "kintsugi_repair_seconds_bucket{{{labels},le=\"+Inf\"}} {}", histogram.count)?;
            writeln!(out, "kintsugi_repair_seconds_sum{{{labels}}} {}", histogram.sum)?;
            writeln!(out, "kintsugi_repair_seconds_count{{{labels}}} {}", histogram.count)?;
        }
        let name = "kintsugi_acts_held_back_total";
        head(out, name, "Acts that rest on silence and were held back by the governor.", "counter")?;
        for ((act, how), count) in &self.held {
            writeln!(out, "{name}{{act=\"{act}\",how=\"{how}\"}} {count}")?;
        }
        let name = "node_collector_evictions_total";
        head(out, name, "Pods taken from nodes that do not suffer them.", "counter")?;
        writeln!(out, "{name} {}", self.evictions)?;
        let name = "node_collector_unhealthy_nodes_in_zone";
        head(out, name, "Nodes that are silent.", "gauge")?;
        writeln!(out, "{name}{{zone=\"\"}} {}", self.silent)
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_counted_in_every_bucket_that_holds_it() {
        let metrics = Metrics::default();
        metrics.took("NodeLost", Phase::Detect, Duration::from_millis(4040));
        metrics.took("NodeLost", Phase::Detect, Duration::from_secs(7000));
        metrics.held_back("evict", "no");
        metrics.held_back("evict", "no");
        let text = metrics.text();
        for line in [
            r#"kintsugi_repair_seconds_bucket{fault="NodeLost",phase="detect",le="4"} 0"#,
            r#"kintsugi_repair_seconds_bucket{fault="NodeLost",phase="detect",le="6"} 1"#,
            r#"kintsugi_repair_seconds_bucket{fault="NodeLost",phase="detect",le="+Inf"} 2"#,
            r#"kintsugi_repair_seconds_sum{fault="NodeLost",phase="detect"} 7004.04"#,
            r#"kintsugi_repair_seconds_count{fault="NodeLost",phase="detect"} 2"#,
            r#"kintsugi_acts_held_back_total{act="evict",how="no"} 2"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }
}
