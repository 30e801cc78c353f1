//! Noise that is no fault: lost and late messages, and pauses that end before a lease does. Nothing must come of it.

use std::time::Duration;

use anyhow::Result;
use host::Chance;
use serde_json::json;

use crate::cluster::{Beginning, Cluster};
use crate::node::NodeSettings;
use crate::observe::Condition;
use crate::sandbox;
use crate::scenario::{Act, Outcome, apply, expand};
use crate::wire::Noise;

/// One request in five is lost, each message is up to half a second late.
const NOISE: Noise =
    Noise { lost_one_in: 5, late_one_in: 0, twice_one_in: 0, jitter: Duration::from_millis(500) };

/// How long a pause lasts at most. With the time between two renewals, and until the next one has got through, silence must
/// stay below the lease.
const PAUSE_MAX: Duration = Duration::from_millis(1500);

/// How long it is at most until the next pause.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// How long the workloads may take to be there.
const BEGIN_MAX: u32 = 120;

/// Runs a cluster in noise for so long.
pub fn run(seed: u64, lasts: Duration) -> Result<Outcome> {
    let mut outcome = sandbox::run(play(seed, lasts))??;
    outcome.faults.extend(sandbox::take_panics().into_iter().map(|panic| format!("nothing panics: {panic}")));
    Ok(outcome)
}

async fn play(seed: u64, lasts: Duration) -> Result<Outcome> {
    let names = ["a", "b", "c"].map(str::to_owned);
    let nodes = names.iter().map(|name| (name.clone(), NodeSettings::default())).collect();
    let beginning = Beginning { seed, jitters: true, ..Beginning::default() };
    let mut cluster = Cluster::start(beginning, &nodes).await?;
    begin(&cluster).await?;
    cluster.nodes.values().for_each(|node| node.line.suffer(NOISE));
    cluster.book.expect_calm();
    let chance = Chance::from_seed(seed ^ 0x0015_e000);
    let until = cluster.book.since() + lasts;
    while cluster.book.since() < until {
        cluster.pass_time(QUIET_MAX.mul_f64(chance.unit())).await;
        let node = &names[chance.below(3) as usize];
        let (stop, go) = match chance.below(4) {
            0 => ("pause server".to_owned(), "resume server".to_owned()),
            1 => (format!("freeze {node}"), format!("thaw {node}")),
            _ => (format!("pause agent {node}"), format!("resume agent {node}")),
        };
        Act::read(&stop)?.perform(&mut cluster).await?;
        cluster.pass_time(PAUSE_MAX.mul_f64(chance.unit())).await;
        Act::read(&go)?.perform(&mut cluster).await?;
    }
    let book = &cluster.book;
    Ok(Outcome { timeline: book.timeline(), faults: book.faults(), happened: book.all_happened() })
}

/// Has what people run be there before it gets noisy.
async fn begin(cluster: &Cluster) -> Result<()> {
    let claim = json!({"storageClassName": "shared", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}});
    let data = json!([{"metadata": {"name": "data"}, "spec": claim}]);
    let web = json!({"replicas": 3, "service": 80, "readiness": "2s", "spread": "node"});
    let db = json!({"replicas": 2, "service": 80, "readiness": "2s", "spec": {"volumeClaimTemplates": data}});
    for (head, said) in [("deployment web", web), ("statefulset db", db)] {
        for wanted in expand(head, &said)? {
            apply(&cluster.user, &wanted).await?;
        }
    }
    for sees in ["service web ready=3", "service db ready=2"] {
        let sees = Condition::read(sees)?;
        for _ in 0..BEGIN_MAX {
            if cluster.book.look(|sight| sees.holds(sight)) {
                break;
            }
            cluster.pass_time(Duration::from_secs(1)).await;
        }
    }
    Ok(())
}
