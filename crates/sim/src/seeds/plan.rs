//! What a seed stands for: machines, a workload, and faults over time. Pure: the same seed, the same plan.

use std::collections::BTreeMap;
use std::time::Duration;

use host::Chance;
use model::Tree;
use serde_json::json;

/// For how long faults happen. Longer runs find little more than more seeds do.
const FAULTS_FOR: Duration = Duration::from_secs(45);

/// How many faults a run has at most.
const FAULTS_MAX: u64 = 16;

/// How many workloads a run has at most.
const WORKLOADS_MAX: u64 = 3;

/// A run, decided before it begins.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// One in so many requests is lost; 0 for none.
    pub lost_one_in: u64,
    /// One in so many acts of the kernel fails; 0 for none.
    pub fails_one_in: u64,
    /// The objects of the beginning, in the short form of scenarios.
    pub workload: BTreeMap<String, Tree>,
    /// What happens when, in order.
    pub faults: Vec<(Duration, Fault)>,
}

/// Something that goes wrong, or that somebody wants. Faults that begin something end by themselves.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// What a scenario can say.
    Act(String),
    /// An object is to be like this.
    Apply(String, Tree),
    /// An object is removed, and what belongs to it.
    Remove(String),
    /// The containers of some running pod: the one at this place among all, killed or made to exit.
    Container {
        /// A number by which one is chosen.
        place: u64,
        /// What becomes of it.
        how: Harm,
    },
    /// Some pod is deleted or evicted.
    Pod {
        /// A number by which one is chosen.
        place: u64,
        /// Whether it is evicted.
        evict: bool,
    },
}

/// What becomes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Its process ends with this code.
    Exit(i32),
    /// Its monitor is killed, and everything of its pod.
    MonitorLost,
    /// It is unready for some seconds.
    Unready,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64) -> Self {
        let chance = Chance::from_seed(seed ^ 0x5eed_5eed);
        let nodes: Vec<String> =
            ["a", "b", "c"][..1 + chance.below(3) as usize].iter().map(|&name| name.into()).collect();
        let mut plan = Self {
            lost_one_in: [0, 0, 25, 200][chance.below(4) as usize],
            fails_one_in: [0, 0, 10, 40][chance.below(4) as usize],
            workload: BTreeMap::new(),
            faults: Vec::new(),
            nodes,
        };
        for number in 0..1 + chance.below(WORKLOADS_MAX) {
            let (head, said) = workload(&chance, number);
            if let (0, Some((_, name))) = (chance.below(4), head.split_once(' ')) {
                let budget = json!({"app": name, "most": 1});
                plan.workload.insert(format!("poddisruptionbudget {name}"), budget);
            }
            plan.workload.insert(head, said);
        }
        for _ in 0..chance.below(FAULTS_MAX + 1) {
            let at = Duration::from_millis(500 + chance.below(FAULTS_FOR.as_millis() as u64));
            plan.fault(&chance, at);
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    fn fault(&mut self, chance: &Chance, at: Duration) {
        let node = &self.nodes[chance.below(self.nodes.len() as u64) as usize].clone();
        let lasts =
            Duration::from_millis([50, 1000, 6000, 20_000][chance.below(4) as usize] + chance.below(2000));
        let place = chance.u64();
        let mut act = |at: Duration, text: String| self.faults.push((at, Fault::Act(text)));
        match chance.below(14) {
            0 => {
                act(at, format!("cut {node}{}", ["", " in", " out"][chance.below(3) as usize]));
                act(at + lasts, format!("heal {node}"));
            }
            1 => {
                act(at, format!("kill agent {node}"));
                act(at + lasts, format!("start agent {node}"));
            }
            2 => {
                act(at, "crash server".into());
                act(at + lasts, "start server".into());
            }
            3 => act(at, "restart server".into()),
            4 => {
                act(at, format!("power off {node}"));
                act(at + lasts, format!("power on {node}"));
            }
            5 => {
                act(at, format!("pause agent {node}"));
                act(at + lasts, format!("resume agent {node}"));
            }
            6 => {
                act(at, "fill disk".into());
                act(at + lasts, "free disk".into());
            }
            7 => act(at, format!("drop watches {node}")),
            8 => self.faults.push((at, Fault::Pod { place, evict: chance.below(2) == 0 })),
            9 => self.change(chance, at),
            10 => {
                act(at, "begin second leader".into());
                act(at + lasts, "end second leader".into());
            }
            11 => self.remove(chance, at),
            _ => {
                let how = [Harm::Exit(1), Harm::Exit(137), Harm::MonitorLost, Harm::Unready]
                    [chance.below(4) as usize];
                self.faults.push((at, Fault::Container { place, how }));
            }
        }
    }

    /// Somebody wants something else of one of the workloads: another count, or another program.
    fn change(&mut self, chance: &Chance, at: Duration) {
        let is_fixed = |head: &str| head.starts_with("job ") || head.starts_with("poddisruptionbudget ");
        let heads: Vec<&String> = self.workload.keys().filter(|head| !is_fixed(head)).collect();
        let Some(head) = heads.get(chance.below(heads.len() as u64) as usize) else { return };
        let mut said = self.workload[*head].clone();
        match chance.below(3) {
            0 if !head.starts_with("daemonset ") => said["replicas"] = json!(chance.below(5)),
            1 => said["labels"] = json!({"release": format!("r{}", chance.below(1000))}),
            _ => said["runs"] = json!(["run", "ready after 2s"][chance.below(2) as usize]),
        }
        self.faults.push((at, Fault::Apply((*head).clone(), said)));
    }

    /// Somebody removes one of the workloads, and perhaps wants it back.
    fn remove(&mut self, chance: &Chance, at: Duration) {
        let heads: Vec<&String> = self.workload.keys().collect();
        let head = heads[chance.below(heads.len() as u64) as usize].clone();
        self.faults.push((at, Fault::Remove(head.clone())));
        if chance.below(2) == 0 {
            let back = at + Duration::from_millis(chance.below(10_000));
            let said = self.workload[&head].clone();
            self.faults.push((back, Fault::Apply(head, said)));
        }
    }
}

/// Something that people run; all of it can get to where its author wants it.
fn workload(chance: &Chance, number: u64) -> (String, Tree) {
    let replicas = 1 + chance.below(4);
    let runs = ["run", "ready after 1s", "crash 2 times", "stop in 1s", "run; ignore SIGTERM"];
    let mut said = json!({
        "replicas": replicas, "grace": "3s", "service": 80,
        "runs": runs[chance.below(runs.len() as u64) as usize],
        "spec": {"progressDeadlineSeconds": 3600},
    });
    if chance.below(2) == 0 {
        said["readiness"] = json!("2s");
    }
    if chance.below(4) == 0 {
        said["init"] = json!(["exit 0 after 200ms"]);
    }
    match chance.below(6) {
        0 => {
            said["spec"] = json!({});
            if chance.below(2) == 0 {
                said["spec"]["podManagementPolicy"] = json!("Parallel");
            }
            (format!("statefulset db{number}"), said)
        }
        4 => {
            said["spec"] = json!({});
            (format!("daemonset each{number}"), said)
        }
        5 => {
            said["spec"] = json!({});
            (format!("replicaset set{number}"), said)
        }
        1 => {
            let mut said = json!({"completions": replicas, "runs": "exit 0 after 2s", "retries": 1000});
            if chance.below(2) == 0 {
                said["spec"] = json!({"completionMode": "Indexed", "parallelism": 2});
            }
            (format!("job sum{number}"), said)
        }
        _ => (format!("deployment web{number}"), said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_one_another() {
        let told = |seed: u64| format!("{:?}", Plan::of(seed));
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
    }

    #[test]
    fn every_fault_that_begins_something_ends_it() {
        for seed in 0..500 {
            let plan = Plan::of(seed);
            let count = |word: &str| {
                let is = |fault: &&(Duration, Fault)| matches!(&fault.1, Fault::Act(text) if text.starts_with(word));
                plan.faults.iter().filter(is).count()
            };
            for (begin, end) in [
                ("cut", "heal"),
                ("power off", "power on"),
                ("pause", "resume"),
                ("fill", "free"),
                ("begin", "end"),
            ] {
                assert_eq!(count(begin), count(end), "seed {seed}: {begin}");
            }
        }
    }
}
