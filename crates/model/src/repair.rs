//! A mend as an object: what broke, what was done about it, and how long it took.
//!
//! One object for each subject and fault: a repeat is counted up, so that a pod in a crash loop has one entry, not
//! a thousand. Whoever mends or watches mends writes these; nobody decides by them.

use std::time::Duration;

use serde_json::json;

use crate::kinds::of;
use crate::{Gvr, Key, Time, Tree};

/// The resource of repairs.
pub const REPAIRS: Gvr = of::REPAIR;

/// Where the repairs of cluster-wide subjects are kept.
pub const CLUSTER_NAMESPACE: &str = "kube-system";

/// The annotation by which a Deployment asks to be rolled back when its new pods fail and its old ones do not: `auto`.
pub const ROLLBACK: &str = "healing.kintsugi.dev/rollback";

/// The annotation that says when and why a Deployment was rolled back last.
pub const ROLLED_BACK: &str = "healing.kintsugi.dev/rolled-back";

/// How long a name may be; longer ones are cut and made unique by a hash.
const NAME_LEN_MAX: usize = 253;

/// How much of a hash makes a cut name unique: 40 bits, among ten thousand repairs.
const HASH_LEN: usize = 10;

/// A mend.
#[derive(Debug, Clone, PartialEq)]
pub struct Repair {
    /// What broke.
    pub subject: Subject,
    /// How, in one word, such as `ContainerExited`.
    pub fault: &'static str,
    /// When the fault began, as well as is known.
    pub began: Time,
    /// Who saw what.
    pub evidence: String,
    /// What was done, such as `restarted (exit 137)`.
    pub action: String,
    /// What was rejected, and why; empty when there was no choice.
    pub rejected: Vec<String>,
    /// How long it took until somebody knew; `None`: not known more exactly than to the second.
    pub detected_after: Option<Duration>,
    /// When it was seen to be healed.
    pub recovered: Option<Time>,
    /// How it ended, or that it has not.
    pub outcome: Outcome,
    /// What is known of the cause, each statement with what it rests on; for faults that people have to mend.
    pub diagnosis: Vec<String>,
    /// What people can try next.
    pub next: Vec<String>,
}

/// What a repair is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind, such as `Pod`.
    pub kind: &'static str,
    /// Its namespace; empty for cluster-wide ones.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// How a mend ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is healed.
    Recovered,
    /// It is being mended.
    Ongoing,
    /// It needs a human.
    Escalated,
    /// Mending it was held back.
    Suppressed,
    /// The subject went before it was mended, or it mended itself.
    Unneeded,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Recovered => "Recovered",
            Outcome::Ongoing => "Ongoing",
            Outcome::Escalated => "Escalated",
            Outcome::Suppressed => "Suppressed",
            Outcome::Unneeded => "Unneeded",
        }
    }
}

impl Repair {
    /// Where it is kept: the same for every repeat of the same fault of the same subject.
    pub fn key(&self) -> Key {
        let Subject { kind, namespace, name, .. } = &self.subject;
        let full = format!("{}-{name}-{}", kind.to_lowercase(), self.fault.to_lowercase());
        let namespace = if namespace.is_empty() { CLUSTER_NAMESPACE } else { namespace };
        Key::new(&REPAIRS, namespace, fitted(full))
    }

    /// The object, as the first of its kind; `count` says how often it has happened.
    pub fn object(&self, count: u64) -> Tree {
        let key = self.key();
        let mut object = json!({
            "apiVersion": REPAIRS.api_version(),
            "kind": "Repair",
            "metadata": {"name": key.name, "namespace": key.namespace},
        });
        object["spec"] = json!({
            "subject": {
                "apiVersion": self.subject.api_version,
                "kind": self.subject.kind,
                "namespace": self.subject.namespace,
                "name": self.subject.name,
                "uid": self.subject.uid,
            },
            "fault": self.fault,
            "began": micro(self.began),
            "evidence": self.evidence,
            "rejected": self.rejected,
        });
        let recovered_after = self.recovered.map(|at| since(self.began, at));
        object["status"] = json!({
            "action": self.action,
            "outcome": self.outcome.word(),
            "count": count,
            "diagnosis": self.diagnosis,
            "next": self.next,
            "detectedAfter": self.detected_after.map(brief),
            "recoveredAfter": recovered_after.map(brief),
            "recoveredAt": self.recovered.map(micro),
        });
        without_nulls(&mut object);
        object
    }

    /// The merge patch that makes a known object tell of this mend.
    pub fn patch(&self, count: u64) -> Tree {
        let object = self.object(count);
        let mut patch = json!({"spec": object["spec"], "status": object["status"]});
        // What is not known this time must not stay from the last.
        for name in ["detectedAfter", "recoveredAfter", "recoveredAt"] {
            if patch["status"].get(name).is_none() {
                patch["status"][name] = Tree::Null;
            }
        }
        patch
    }
}

/// A duration as people read it: three digits at most.
pub fn brief(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..1000 => format!("{ms}ms"),
        ms @ 1000..10_000 => format!("{}.{}s", ms / 1000, ms % 1000 / 100),
        ms @ 10_000..120_000 => format!("{}s", ms / 1000),
        ms @ 120_000..7_200_000 => format!("{}m", ms / 60_000),
        ms => format!("{}h", ms / 3_600_000),
    }
}

fn since(began: Time, at: Time) -> Duration {
    Duration::try_from(at.duration_since(began)).unwrap_or_default()
}

fn micro(time: Time) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// A name that is short enough, with a hash where it had to be cut.
fn fitted(full: String) -> String {
    use sha2::{Digest, Sha256};
    if full.len() <= NAME_LEN_MAX {
        return full;
    }
    let hash: String =
        Sha256::digest(&full).iter().map(|byte| format!("{byte:02x}")).take(HASH_LEN / 2).collect();
    format!("{}-{hash}", full[..NAME_LEN_MAX - HASH_LEN - 1].trim_end_matches(['.', '-']))
}

fn without_nulls(tree: &mut Tree) {
    if let Some(fields) = tree.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(without_nulls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair(name: &str) -> Repair {
        let subject = Subject {
            api_version: "v1".into(),
            kind: "Pod",
            namespace: "a".into(),
            name: name.into(),
            uid: "u".into(),
        };
        Repair {
            subject,
            fault: "ContainerExited",
            began: Time::UNIX_EPOCH,
            evidence: "container web ended with exit code 137".into(),
            action: "restarted (exit 137)".into(),
            rejected: Vec::new(),
            detected_after: Some(Duration::from_millis(1)),
            recovered: Some(Time::UNIX_EPOCH + Duration::from_millis(21)),
            outcome: Outcome::Recovered,
            diagnosis: Vec::new(),
            next: Vec::new(),
        }
    }

    #[test]
    fn the_same_fault_of_the_same_subject_is_one_object() {
        assert_eq!(repair("web").key().to_string(), "repairs.healing.kintsugi.dev a/pod-web-containerexited");
        let long = repair(&"x".repeat(250)).key();
        assert!(long.name.len() <= NAME_LEN_MAX && long == repair(&"x".repeat(250)).key());
        assert_ne!(long, repair(&"x".repeat(251)).key());
    }

    #[test]
    fn it_says_how_long_it_took() {
        let status = &repair("web").object(3)["status"];
        assert_eq!((&status["detectedAfter"], &status["recoveredAfter"]), (&json!("1ms"), &json!("21ms")));
        let ongoing = Repair { recovered: None, outcome: Outcome::Ongoing, ..repair("web") };
        assert!(ongoing.object(1)["status"].get("recoveredAfter").is_none());
        assert!(ongoing.patch(1)["status"]["recoveredAfter"].is_null());
    }

    #[test]
    fn durations_are_brief() {
        for (ms, said) in
            [(0, "0ms"), (999, "999ms"), (4600, "4.6s"), (38_000, "38s"), (720_000, "12m"), (7_200_000, "2h")]
        {
            assert_eq!(brief(Duration::from_millis(ms)), said);
        }
    }
}
