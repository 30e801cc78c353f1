//! The drills, what each promises, and the verdict: pure.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::demo::story::Row;

/// A drill: what it breaks, and what has to come of it.
#[derive(Debug, Clone, Copy)]
pub struct Drill {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it breaks.
    pub breaks: &'static str,
    /// How many nodes it needs.
    pub nodes: usize,
    /// Within what everything has to be well again, as `HEALING` promises it, beyond the period of a probe (1 s).
    pub recovered_within: Duration,
    /// How many of a thousand requests to the Service may fail meanwhile.
    pub failed_per_mille_max: u64,
}

/// Whether a drill's promise was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Kept,
    /// It was not: why.
    Broken(String),
}

const fn drill(
    name: &'static str,
    breaks: &'static str,
    nodes: usize,
    recovered_ms: u64,
    failed_per_mille_max: u64,
) -> Drill {
    Drill { name, breaks, nodes, recovered_within: Duration::from_millis(recovered_ms), failed_per_mille_max }
}

/// Every drill.
///
/// A request to a pod that has just ended fails until its end is known everywhere, so drills that end a pod allow some.
/// Times are those of the promises at their 99th percentile.
pub static DRILLS: &[Drill] = &[
    drill("container-killed", "a container's process is killed", 1, 150, 300),
    drill("pod-deleted", "a pod of a Deployment is deleted", 1, 300, 300),
    drill("readiness-failing", "a readiness probe begins to fail", 1, 1_100, 300),
    drill("liveness-failing", "a liveness probe begins to fail", 1, 1_200, 300),
    drill("crash-loop", "a Deployment's container crashes again and again, and is corrected", 1, 2_000, 0),
    drill("agent-killed", "a node's agent is killed; its node is fine", 2, 1_000, 0),
    drill("agent-paused", "a node's agent is stopped for 2 s, less than the lease", 2, 3_000, 0),
    drill("server-paused", "the server is stopped for 10 s", 1, 12_000, 0),
    drill("node-cut", "a node is cut off from all others, and returns", 3, 5_500, 500),
    drill("node-killed", "a node dies with all its pods, and returns empty", 3, 5_500, 500),
];

/// A drill by its name.
pub fn find(name: &str) -> Result<&'static Drill> {
    match DRILLS.iter().find(|drill| drill.name == name) {
        Some(drill) => Ok(drill),
        None => bail!("there is no drill {name:?}: kintsugi drill list names them"),
    }
}

/// Whether what came of a drill is what it promises.
pub fn judge(drill: &Drill, row: &Row) -> Verdict {
    let (failed, sent) = row.failed;
    if row.recovered > drill.recovered_within {
        return Verdict::Broken(format!("promised within {} ms", drill.recovered_within.as_millis()));
    }
    if failed * 1000 > drill.failed_per_mille_max * sent {
        return Verdict::Broken(format!("promised at most {} ‰ of requests", drill.failed_per_mille_max));
    }
    Verdict::Kept
}

/// The lines of `drill list`.
pub fn list() -> Vec<String> {
    let line = |drill: &Drill| {
        let nodes = match drill.nodes {
            1 => String::new(),
            nodes => format!("; needs {nodes} nodes"),
        };
        let within = drill.recovered_within.as_millis();
        format!("{:<18} {} (well again within {within} ms{nodes})", drill.name, drill.breaks)
    };
    DRILLS.iter().map(line).collect()
}

/// The heading above the rows of a run.
pub fn heading() -> String {
    format!(
        "{:<18} {:<44} {:>11} {:>12} {:>16}  verdict",
        "drill", "what was done", "detected in", "recovered in", "requests failed"
    )
}

/// What came of a drill, as a row.
pub fn line(drill: &Drill, row: &Row, verdict: &Verdict) -> String {
    let failed = format!("{} of {}", row.failed.0, row.failed.1);
    let verdict = match verdict {
        Verdict::Kept => "kept".to_owned(),
        Verdict::Broken(why) => format!("BROKEN: {why}"),
    };
    let (detected, recovered) = (row.detected.as_millis(), row.recovered.as_millis());
    format!("{:<18} {:<44} {detected:>8} ms {recovered:>9} ms {failed:>16}  {verdict}", drill.name, row.done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_up_to_its_bounds_and_broken_beyond() {
        let drill = &drill("x", "", 1, 100, 10);
        let verdict = |recovered: u64, failed: (u64, u64)| {
            let recovered = Duration::from_millis(recovered);
            let (done, detected) = (String::new(), recovered);
            judge(
                drill,
                &Row { broke: "", done, detected, recovered, failed, failures: Vec::new(), doubled: None },
            )
        };
        assert_eq!(verdict(100, (10, 1000)), Verdict::Kept);
        assert_eq!(verdict(0, (0, 0)), Verdict::Kept);
        assert_eq!(verdict(101, (0, 1000)), Verdict::Broken("promised within 100 ms".into()));
        assert_eq!(verdict(1, (11, 1000)), Verdict::Broken("promised at most 10 ‰ of requests".into()));
    }

    #[test]
    fn drills_are_found_by_their_names() {
        assert!(DRILLS.iter().all(|drill| find(drill.name).is_ok_and(|found| found.name == drill.name)));
        assert!(find("nonsense").is_err());
    }
}
