//! What a seed stands for: machines, a workload, and faults over time. Pure: the same seed, the same plan.

use std::collections::BTreeMap;
use std::time::Duration;

use host::Chance;
use model::Tree;
use serde_json::json;

use crate::wire::Noise;

/// For how long faults happen. Longer runs find little more than more seeds do.
const FAULTS_FOR: Duration = Duration::from_secs(45);

/// How many faults a run has at most.
const FAULTS_MAX: u64 = 16;

/// How many workloads a run has at most.
const WORKLOADS_MAX: u64 = 3;

/// By how many millionths a clock is off at most: any two are within the hundredth that leases allow for.
const DRIFT_MAX: u64 = 4900;

/// How many machines are lost for good at most, disk or all: more at once can take a majority with them, and then people
/// have to say what is gone.
const LOST_MAX: usize = 1;

/// What machines are called, in the order in which they come.
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

/// A run, decided before it begins.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The nodes there are from the beginning, and by how many millionths the clocks of each run fast.
    pub nodes: BTreeMap<String, i32>,
    /// The same for those that come later.
    pub joining: BTreeMap<String, i32>,
    /// By how many millionths the server's clocks run fast.
    pub drift: i32,
    /// How long a lease lasts, in seconds.
    pub lease_seconds: u32,
    /// What happens to messages.
    pub noise: Noise,
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
    /// A machine comes.
    Join(String),
    /// A machine goes for good, and somebody deletes its Node.
    Leave(String),
    /// Somebody deletes the Node of a machine that is there.
    Unregister(String),
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
        let count = [1, 2, 3, 3, 3, 5][chance.below(6) as usize];
        let drifts = chance.below(2) == 0;
        let drift = || {
            let off = i32::try_from(chance.below(2 * DRIFT_MAX + 1)).unwrap_or(0) - DRIFT_MAX as i32;
            if drifts { off } else { 0 }
        };
        let one_of = |all: [u64; 4]| all[chance.below(4) as usize];
        let mut plan = Self {
            nodes: NAMES[..count].iter().map(|&name| (name.to_owned(), drift())).collect(),
            joining: BTreeMap::new(),
            drift: drift(),
            lease_seconds: [4, 20][chance.below(2) as usize],
            noise: Noise {
                lost_one_in: one_of([0, 0, 25, 200]),
                late_one_in: one_of([0, 0, 50, 300]),
                twice_one_in: one_of([0, 0, 10, 50]),
                jitter: Duration::from_millis(one_of([0, 0, 20, 500])),
            },
            fails_one_in: one_of([0, 0, 10, 40]),
            workload: BTreeMap::new(),
            faults: Vec::new(),
        };
        for number in 0..1 + chance.below(WORKLOADS_MAX) {
            let (head, mut said) = workload(&chance, number);
            plan.give_volumes(&chance, &head, &mut said);
            if let (0, Some((_, name))) = (chance.below(4), head.split_once(' ')) {
                let budget = json!({"app": name, "most": 1});
                plan.workload.insert(format!("poddisruptionbudget {name}"), budget);
            }
            plan.workload.insert(head, said);
        }
        for _ in 0..chance.below(FAULTS_MAX + 1) {
            let at = Duration::from_millis(500 + chance.below(FAULTS_FOR.as_millis() as u64));
            match chance.below(4) {
                0 => plan.fault_of_machines(&chance, at, drift()),
                _ => plan.fault(&chance, at),
            }
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The plan of a seed that tries the fence: what is fenced, on nodes that lose each other, die and come back.
    pub fn of_fence(seed: u64) -> Self {
        let chance = Chance::from_seed(seed ^ 0xfe_4ce);
        let mut plan = Self { faults: Vec::new(), lease_seconds: 4, fails_one_in: 0, ..Self::of(seed) };
        let count = [1, 2, 3, 3, 3, 4, 5][chance.below(7) as usize];
        let drift = || i32::try_from(chance.below(2 * DRIFT_MAX + 1)).unwrap_or(0) - DRIFT_MAX as i32;
        plan.nodes = NAMES[..count].iter().map(|&name| (name.to_owned(), drift())).collect();
        plan.joining.clear();
        plan.drift = drift();
        plan.workload.clear();
        let (mut one, mut many) = (json!({"grace": "1s"}), json!({"grace": "1s", "replicas": 3, "spec": {}}));
        plan.give_volume(&mut one, "web");
        give_volumes(&mut many);
        plan.workload.extend([("deployment web".to_owned(), one), ("statefulset db".to_owned(), many)]);
        for _ in 0..4 + chance.below(FAULTS_MAX) {
            let at = Duration::from_secs(8) + FAULTS_FOR.mul_f64(chance.unit());
            plan.fault_of_fence(&chance, at, drift());
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// What the fence is for: nodes and servers out of reach of each other, dead, still, or another life of themselves.
    fn fault_of_fence(&mut self, chance: &Chance, at: Duration, drift: i32) {
        let node = self.some_node(chance);
        let lasts =
            Duration::from_millis([500, 3000, 8000, 20_000][chance.below(4) as usize] + chance.below(2000));
        let mut act = |at: Duration, text: String| self.faults.push((at, Fault::Act(text)));
        match chance.below(12) {
            0..3 => {
                act(at, format!("cut {node}{}", ["", " in", " out"][chance.below(3) as usize]));
                act(at + lasts, format!("heal {node}"));
            }
            3 => {
                act(at, format!("kill agent {node}"));
                act(at + lasts, format!("start agent {node}"));
            }
            4 => act(at, format!("restart agent {node}")),
            5 => {
                act(at, format!("pause agent {node}"));
                act(at + lasts, format!("resume agent {node}"));
            }
            6 => {
                act(at, "crash server".into());
                act(at + lasts, "start server".into());
            }
            7 => {
                act(at, format!("power off {node}"));
                act(at + lasts, format!("power on {node}"));
            }
            8 => self.faults.push((at, Fault::Pod { place: chance.u64(), evict: false })),
            _ => self.fault_of_machines(chance, at, drift),
        }
    }

    /// A volume on storage that all nodes reach, for a lone pod.
    fn give_volume(&mut self, said: &mut Tree, name: &str) {
        self.workload.insert(format!("persistentvolumeclaim {name}"), json!({"spec": claim()}));
        said["replicas"] = json!(1);
        // One of two that roll would wait for the other's volume for ever.
        said["spec"]["strategy"] = json!({"type": "Recreate"});
        said["pod"] = json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}]});
    }

    /// Some pods keep their data where all nodes reach it: one volume for a lone one, one for each of those with a name.
    fn give_volumes(&mut self, chance: &Chance, head: &str, said: &mut Tree) {
        match head.split_once(' ') {
            _ if chance.below(2) == 0 => {}
            Some(("deployment", name)) => self.give_volume(said, name),
            Some(("statefulset", _)) => give_volumes(said),
            _ => {}
        }
    }

    fn some_node(&self, chance: &Chance) -> String {
        let at = chance.below(self.nodes.len() as u64) as usize;
        self.nodes.keys().nth(at).cloned().unwrap_or_default()
    }

    /// Whole machines and the server stand still, lose their disks, come and go.
    fn fault_of_machines(&mut self, chance: &Chance, at: Duration, drift: i32) {
        let node = self.some_node(chance);
        let lasts = lasts(chance);
        let is_loss = |fault: &&(Duration, Fault)| match &fault.1 {
            Fault::Act(text) => text.starts_with("wipe"),
            fault => matches!(fault, Fault::Leave(_)),
        };
        let may_lose = self.nodes.len() >= 3 && self.faults.iter().filter(is_loss).count() < LOST_MAX;
        let mut act = |at: Duration, text: String| self.faults.push((at, Fault::Act(text)));
        match chance.below(7) {
            0 | 1 => {
                act(at, format!("freeze {node}"));
                act(at + lasts, format!("thaw {node}"));
            }
            2 | 3 => {
                act(at, "pause server".into());
                act(at + lasts, "resume server".into());
            }
            4 if may_lose && chance.below(2) == 0 => self.faults.push((at, Fault::Leave(node))),
            4 if may_lose => {
                act(at, format!("wipe {node}"));
                act(at + lasts, format!("power on {node}"));
            }
            5 => self.faults.push((at, Fault::Unregister(node))),
            _ => {
                if let Some(name) = NAMES.get(self.nodes.len() + self.joining.len()) {
                    self.joining.insert((*name).to_owned(), drift);
                    self.faults.push((at, Fault::Join((*name).to_owned())));
                }
            }
        }
    }

    fn fault(&mut self, chance: &Chance, at: Duration) {
        let node = &self.some_node(chance);
        let lasts = lasts(chance);
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
        let is_fixed =
            |head: &str| ["job ", "poddisruptionbudget ", CLAIM].iter().any(|kind| head.starts_with(kind));
        let heads: Vec<&String> = self.workload.keys().filter(|head| !is_fixed(head)).collect();
        let Some(head) = heads.get(chance.below(heads.len() as u64) as usize) else { return };
        let mut said = self.workload[*head].clone();
        match chance.below(3) {
            // A volume of one node at a time has room for one pod.
            0 if said["spec"]["strategy"].is_object() => said["replicas"] = json!(chance.below(2)),
            0 if !head.starts_with("daemonset ") => said["replicas"] = json!(chance.below(5)),
            1 => said["labels"] = json!({"release": format!("r{}", chance.below(1000))}),
            _ => said["runs"] = json!(["run", "ready after 2s"][chance.below(2) as usize]),
        }
        self.faults.push((at, Fault::Apply((*head).clone(), said)));
    }

    /// Somebody removes one of the workloads, and perhaps wants it back.
    fn remove(&mut self, chance: &Chance, at: Duration) {
        // Without its claim a pod would wait for ever.
        let heads: Vec<&String> = self.workload.keys().filter(|head| !head.starts_with(CLAIM)).collect();
        let head = heads[chance.below(heads.len() as u64) as usize].clone();
        self.faults.push((at, Fault::Remove(head.clone())));
        if chance.below(2) == 0 {
            let back = at + Duration::from_millis(chance.below(10_000));
            let said = self.workload[&head].clone();
            self.faults.push((back, Fault::Apply(head, said)));
        }
    }
}

/// How the heads of claims begin.
const CLAIM: &str = "persistentvolumeclaim ";

/// A volume on storage that all nodes reach, for each pod that has a name.
fn give_volumes(said: &mut Tree) {
    said["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": claim()}]);
}

/// What claims storage that all nodes reach and one at a time uses.
fn claim() -> Tree {
    json!({"storageClassName": "shared", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}})
}

/// How long what begins something lasts.
fn lasts(chance: &Chance) -> Duration {
    Duration::from_millis([50, 1000, 6000, 20_000][chance.below(4) as usize] + chance.below(2000))
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
                ("pause", "resume"),
                ("freeze", "thaw"),
                ("fill", "free disk"),
                ("begin", "end"),
            ] {
                assert_eq!(count(begin), count(end), "seed {seed}: {begin}");
            }
            let off = count("power off") + count("wipe");
            assert_eq!(off, count("power on"), "seed {seed}: power off, wipe");
        }
    }
}
