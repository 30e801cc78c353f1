//! The file of a scenario, read. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kubelet::Curve;
use model::Tree;
use serde::Deserialize;

use super::act::Act;
use super::objects::{Wanted, expand};
use crate::node::NodeSettings;
use crate::observe::Condition;
use crate::runtime::Offer;
use crate::words::duration;

/// Kinds that others need, made first.
const FIRST: [&str; 4] = ["Namespace", "ConfigMap", "Secret", "Service"];

/// A scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The seed of all chance.
    pub seed: u64,
    /// Whether the time things take is drawn; otherwise it is always the usual one.
    pub jitters: bool,
    /// How many servers share one store; 0 for one that has its own.
    pub sharing: usize,
    /// The machines.
    pub nodes: BTreeMap<String, NodeSettings>,
    /// What the registry does with images that are not simply there.
    pub images: Vec<(String, Offer)>,
    /// The objects there are from the beginning.
    pub objects: Vec<Wanted>,
    /// Requests that go on all the time.
    pub loads: Vec<LoadSettings>,
    /// What happens, and what must be seen.
    pub steps: Vec<Step>,
    /// What must hold from the moment it comes true.
    pub always: Vec<Condition>,
    /// Whether the cluster comes to rest at the end.
    pub rests: bool,
    /// The timeline of an earlier run.
    pub timeline: String,
}

/// Requests that go on all the time.
#[derive(Debug, Clone)]
pub struct LoadSettings {
    /// Its name.
    pub name: String,
    /// To which Service, `namespace/name`.
    pub service: String,
    /// From which node.
    pub from: String,
    /// How often.
    pub every: Duration,
    /// From when on.
    pub begins: Duration,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// When, or until when at the latest.
    pub when: When,
    /// What is done.
    pub acts: Vec<Act>,
    /// What must be seen.
    pub sees: Vec<Condition>,
}

/// When a step takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At this time.
    At(Duration),
    /// So long after the step before.
    After(Duration),
    /// As soon as it is seen, and by this time at the latest.
    By(Duration),
    /// As soon as it is seen, and so long after the step before at the latest.
    Within(Duration),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScenario {
    #[serde(default)]
    given: BTreeMap<String, Tree>,
    #[serde(default)]
    steps: Vec<RawStep>,
    #[serde(default)]
    always: Vec<String>,
    #[serde(default)]
    ends: Option<String>,
    #[serde(default)]
    timeline: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    at: Option<String>,
    after: Option<String>,
    by: Option<String>,
    within: Option<String>,
    r#do: Option<OneOrMany>,
    see: Option<OneOrMany>,
    apply: Option<BTreeMap<String, Tree>>,
    patch: Option<BTreeMap<String, Tree>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

impl Scenario {
    /// Reads a scenario.
    pub fn read(text: &str) -> Result<Self> {
        let raw: RawScenario = serde_saphyr::from_str(text).context("it is not YAML of a scenario")?;
        let mut scenario = Self {
            sharing: 0,
            seed: 1,
            jitters: false,
            nodes: BTreeMap::new(),
            images: Vec::new(),
            objects: Vec::new(),
            loads: Vec::new(),
            steps: raw.steps.into_iter().map(step).collect::<Result<_>>()?,
            always: raw.always.iter().map(|text| Condition::read(text)).collect::<Result<_>>()?,
            rests: match raw.ends.as_deref() {
                None | Some("quiet") => true,
                Some("restless") => false,
                Some(other) => bail!("ends: {other:?} is neither quiet nor restless"),
            },
            timeline: raw.timeline,
        };
        scenario.give(&raw.given)?;
        Ok(scenario)
    }

    fn give(&mut self, given: &BTreeMap<String, Tree>) -> Result<()> {
        let settings = given.get("settings").unwrap_or(&Tree::Null);
        self.seed = settings["seed"].as_u64().unwrap_or(1);
        self.jitters = settings["jitter"] == true;
        self.sharing = settings["servers"].as_u64().and_then(|count| count.try_into().ok()).unwrap_or(0);
        for (head, said) in given {
            match head.split_once(' ').unwrap_or((head, "")) {
                ("settings", "") => {}
                ("nodes", "") => self.nodes = nodes(said, settings)?,
                ("images", "") => self.images = images(said)?,
                ("load", name) => self.loads.push(load(name, said)?),
                _ => self.objects.extend(expand(head, said).with_context(|| head.clone())?),
            }
        }
        self.objects.sort_by_key(|wanted| {
            let kind = wanted.object["kind"].as_str().unwrap_or_default();
            FIRST.iter().position(|first| *first == kind).unwrap_or(FIRST.len())
        });
        Ok(())
    }
}

fn nodes(said: &Tree, settings: &Tree) -> Result<BTreeMap<String, NodeSettings>> {
    let all = said.as_object().context("nodes are a map of names")?;
    all.iter().map(|(name, said)| Ok((name.clone(), node(said, settings)?))).collect()
}

fn node(said: &Tree, settings: &Tree) -> Result<NodeSettings> {
    let cpu = said.as_str().or(said["cpu"].as_str()).unwrap_or("4cpu");
    let cores: u64 =
        cpu.trim_end_matches("cpu").parse().with_context(|| format!("{cpu:?} is no number of cpus"))?;
    let curve = match settings["curve"].as_str() {
        Some("kubernetes") => Curve::KUBERNETES,
        _ => Curve::HEALING,
    };
    Ok(NodeSettings {
        cpu_millis: cores * 1000,
        labels: serde_json::from_value(
            said.get("labels").cloned().unwrap_or(Tree::Object(Default::default())),
        )?,
        curve,
        ..NodeSettings::default()
    })
}

fn images(said: &Tree) -> Result<Vec<(String, Offer)>> {
    let all = said.as_object().context("images are a map of references")?;
    all.iter()
        .map(|(reference, said)| Ok((reference.clone(), offer(said.as_str().unwrap_or_default())?)))
        .collect()
}

/// What a registry does: `missing`, `hangs`, or the time that a pull takes.
pub fn offer(text: &str) -> Result<Offer> {
    match text {
        "missing" => Ok(Offer::Missing),
        "hangs" => Ok(Offer::Hangs),
        time => Ok(Offer::Sends(duration(time)?)),
    }
}

fn load(name: &str, said: &Tree) -> Result<LoadSettings> {
    let service = said["service"].as_str().context("a load names a service")?;
    let service = if service.contains('/') { service.to_owned() } else { format!("default/{service}") };
    Ok(LoadSettings {
        name: name.to_owned(),
        service,
        from: said["from"].as_str().context("a load names the node it comes from")?.to_owned(),
        every: duration(said["every"].as_str().unwrap_or("100ms"))?,
        begins: duration(said["begins"].as_str().unwrap_or("0s"))?,
    })
}

fn step(raw: RawStep) -> Result<Step> {
    let when = match (raw.at, raw.after, raw.by, raw.within) {
        (Some(at), None, None, None) => When::At(duration(&at)?),
        (None, Some(after), None, None) => When::After(duration(&after)?),
        (None, None, Some(by), None) => When::By(duration(&by)?),
        (None, None, None, Some(within)) => When::Within(duration(&within)?),
        _ => bail!("a step has one of at, after, by and within"),
    };
    let mut acts: Vec<Act> = Vec::new();
    for text in raw.r#do.map(OneOrMany::all).unwrap_or_default() {
        acts.push(Act::read(&text)?);
    }
    for (head, said) in raw.apply.into_iter().flatten() {
        acts.push(Act::Apply { head: head.clone(), all: expand(&head, &said)? });
    }
    for (head, said) in raw.patch.into_iter().flatten() {
        acts.push(Act::patch(&head, said)?);
    }
    let sees = raw.see.map(OneOrMany::all).unwrap_or_default();
    let sees: Vec<Condition> = sees.iter().map(|text| Condition::read(text)).collect::<Result<_>>()?;
    if acts.is_empty() && sees.is_empty() {
        bail!("a step does or sees something");
    }
    if !acts.is_empty() && matches!(when, When::By(_) | When::Within(_)) {
        bail!("what is done has a time: at or after");
    }
    Ok(Step { when, acts, sees })
}

/// The text of a scenario with another timeline.
pub fn with_timeline(text: &str, timeline: &str) -> String {
    let head = match text.find("\ntimeline:") {
        Some(at) => &text[..=at],
        None => text,
    };
    let lines: String = timeline.lines().map(|line| format!("  {line}\n")).collect();
    format!("{}\ntimeline: |2\n{lines}", head.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
given:
  nodes: {a: 4cpu, b: {cpu: 2cpu, labels: {zone: x}}}
  images: {bad:1: missing, slow:1: 30s}
  deployment web: {replicas: 3, service: 80}
steps:
  - {at: 10s, do: cut a}
  - {at: 20s, see: node a Ready=Unknown}
  - {by: 1m, see: [deployment web ready=3, pods web count=3]}
always: [deployment web available >= 2]
timeline: |2
      0:10.0  do cut a
";

    #[test]
    fn a_scenario_is_read_whole() {
        let scenario = Scenario::read(TEXT).expect("a good scenario");
        assert_eq!((scenario.nodes.len(), scenario.objects.len(), scenario.steps.len()), (2, 2, 3));
        assert_eq!(scenario.steps[2].when, When::By(Duration::from_secs(60)));
        assert_eq!(scenario.nodes["b"].cpu_millis, 2000);
        assert_eq!(scenario.timeline, "    0:10.0  do cut a\n");
    }

    #[test]
    fn an_accepted_timeline_is_the_one_that_is_read() {
        let text = with_timeline(TEXT, "  0:00.1  node a Ready=True\n 10:00.0  x\n");
        assert_eq!(
            Scenario::read(&text).expect("still good").timeline,
            "  0:00.1  node a Ready=True\n 10:00.0  x\n"
        );
    }

    #[test]
    fn a_step_without_a_time_or_without_an_act_is_refused() {
        for bad in [
            "steps: [{do: cut a}]",
            "steps: [{at: 1s}]",
            "steps: [{by: 1s, do: cut a}]",
            "steps: [{at: 1s, dance: x}]",
        ] {
            assert!(Scenario::read(bad).is_err(), "{bad}");
        }
    }
}
