//! Pod Security: a namespace's labels say what its pods may do to their node.
//!
//! `enforce` refuses pods, `warn` tells their author, `audit` tells the audit log. What a namespace's labels do not say, and who is
//! exempt, the settings say; unless they do, everything happens there, and nobody is.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use model::kinds::{self, Fault, Faults};
use model::selector::Labels;
use model::tree::{at, flag, items, text};
use model::{Gvr, Key, Object, Tree};

use super::{Asked, Extra, Operation};
use crate::refusal::Refusal;
use crate::verbs::meta;
use checks::{Finding, Pod};

/// How many pods a new level is tried on before the namespace's author is answered: upstream's number.
const PODS_TRIED_MAX: usize = 3000;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// Where each kind keeps what its pods are made from.
const TEMPLATES: [(&Gvr, &str); 8] = [
    (&kinds::REPLICATION_CONTROLLER, "spec.template"),
    (&kinds::POD_TEMPLATE, "template"),
    (&kinds::REPLICA_SET, "spec.template"),
    (&kinds::DEPLOYMENT, "spec.template"),
    (&kinds::STATEFUL_SET, "spec.template"),
    (&kinds::DAEMON_SET, "spec.template"),
    (&kinds::JOB, "spec.template"),
    (&kinds::CRON_JOB, "spec.jobTemplate.spec.template"),
];

/// How much a pod may do; more is allowed further up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as a version of Kubernetes understands it; `None` is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    level: Level,
    minor: Option<u32>,
}

/// What the settings say of pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodSecurity {
    defaults: Policy,
    /// Users whose pods are not looked at.
    usernames: BTreeSet<String>,
    /// Namespaces where none is.
    namespaces: BTreeSet<String>,
    /// Classes of runtimes by which none is.
    runtime_classes: BTreeSet<String>,
}

impl PodSecurity {
    /// What a `PodSecurityConfiguration` says (`pod-security.admission.config.k8s.io`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(configuration: &Tree) -> Result<Self, String> {
        let mut labels = BTreeMap::new();
        for mode in ["enforce", "audit", "warn"] {
            for field in [mode.to_owned(), format!("{mode}-version")] {
                match text(configuration, &format!("defaults.{field}")) {
                    "" => {}
                    said => drop(labels.insert(format!("{PREFIX}{field}"), said.to_owned())),
                }
            }
        }
        let (mut defaults, faults) = read_policy(&labels, &Policy::default());
        if let Some(fault) = faults.first() {
            let told = fault.to_string().replace("metadata.labels[pod-security.kubernetes.io/", "defaults.");
            return Err(told.replacen(']', "", 1));
        }
        if !labels.contains_key(&format!("{PREFIX}warn")) {
            // That whoever is refused is warned as well is a rule for labels alone.
            defaults.warn.level = Level::Privileged;
        }
        let named = |field: &str| {
            let mut all = BTreeSet::new();
            for (index, name) in items(configuration, &format!("exemptions.{field}")).iter().enumerate() {
                let name = name.as_str().unwrap_or_default();
                if name.is_empty() {
                    return Err(format!(
                        "exemptions.{field}[{index}]: Invalid value: \"\": must not be empty"
                    ));
                }
                if !all.insert(name.to_owned()) {
                    return Err(format!("exemptions.{field}[{index}]: Duplicate value: {name:?}"));
                }
            }
            Ok(all)
        };
        Ok(Self {
            defaults,
            usernames: named("usernames")?,
            namespaces: named("namespaces")?,
            runtime_classes: named("runtimeClasses")?,
        })
    }

    /// By what an act is exempt, if it is.
    fn exempts(&self, asked: &Asked<'_>) -> Option<&'static str> {
        if self.namespaces.contains(asked.namespace) {
            return Some("namespace");
        }
        self.usernames.contains(&asked.identity.name).then_some("user")
    }

    /// Whether pods of the class that a pod names are exempt.
    fn exempts_class(&self, spec: &Tree) -> bool {
        self.runtime_classes.contains(text(spec, "runtimeClassName"))
    }
}

/// What a namespace's labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    enforce: Rule,
    audit: Rule,
    warn: Rule,
}

const ANYTHING: Rule = Rule { level: Level::Privileged, minor: None };

impl Default for Policy {
    fn default() -> Self {
        Self { enforce: ANYTHING, audit: ANYTHING, warn: ANYTHING }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            None => write!(f, "{level}:latest"),
            Some(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

impl Rule {
    fn findings(self, pod: &Pod<'_>) -> Vec<Finding> {
        match self.level {
            Level::Privileged => Vec::new(),
            level => checks::findings(level == Level::Restricted, self.minor, pod),
        }
    }
}

/// Lets pods happen or not, and warns of what will not be let happen.
pub fn judge(asked: &Asked<'_>, object: &Tree, extra: &mut Extra) -> Result<(), Refusal> {
    if asked.writes(&kinds::NAMESPACE) {
        return judge_namespace(asked, object, extra);
    }
    if asked.resource.is(&kinds::POD) {
        return match asked.part {
            "" | "ephemeralcontainers" | "resize" => judge_pod(asked, object, extra),
            _ => Ok(()),
        };
    }
    let template = TEMPLATES.iter().find(|(gvr, _)| asked.writes(gvr));
    if let Some((_, path)) = template {
        judge_template(asked, at(object, path), extra);
    }
    Ok(())
}

fn judge_pod(asked: &Asked<'_>, pod: &Tree, extra: &mut Extra) -> Result<(), Refusal> {
    if asked.old.is_some_and(|old| !runs_something_else(old, pod)) {
        return Ok(());
    }
    if let Some(why) = asked.security.exempts(asked) {
        extra.note("exempt", why.to_owned());
        return Ok(());
    }
    let Some((policy, faults)) = policy_of(asked) else { return Ok(()) };
    note_faults(&faults, extra);
    if asked.security.exempts_class(&pod["spec"]) {
        extra.note("exempt", "runtimeClass".to_owned());
        return Ok(());
    }
    let shape = Pod { metadata: &pod["metadata"], spec: &pod["spec"] };
    extra.note("enforce-policy", policy.enforce.to_string());
    let found = policy.enforce.findings(&shape);
    tell_audit(policy.audit, &shape, extra);
    if !found.is_empty() {
        return Err(
            asked.forbid(pod, format!("violates PodSecurity \"{}\": {}", policy.enforce, details(&found)))
        );
    }
    warn(policy.warn, &shape, extra);
    Ok(())
}

/// Those that make pods are never refused: their pods are.
fn judge_template(asked: &Asked<'_>, template: &Tree, extra: &mut Extra) {
    if !template.is_object() {
        return;
    }
    if let Some(why) = asked.security.exempts(asked) {
        extra.note("exempt", why.to_owned());
        return;
    }
    let Some((policy, faults)) = policy_of(asked) else { return };
    note_faults(&faults, extra);
    if asked.security.exempts_class(&template["spec"]) {
        extra.note("exempt", "runtimeClass".to_owned());
        return;
    }
    let shape = Pod { metadata: &template["metadata"], spec: &template["spec"] };
    tell_audit(policy.audit, &shape, extra);
    warn(policy.warn, &shape, extra);
}

fn note_faults(faults: &[Fault], extra: &mut Extra) {
    if !faults.is_empty() {
        let told: Vec<String> = faults.iter().map(Fault::to_string).collect();
        extra.note("error", format!("Failed to parse policy: {}", told.join(", ")));
    }
}

fn tell_audit(rule: Rule, pod: &Pod<'_>, extra: &mut Extra) {
    let found = rule.findings(pod);
    if !found.is_empty() {
        extra.note("audit-violations", format!("would violate PodSecurity \"{rule}\": {}", details(&found)));
    }
}

fn warn(rule: Rule, pod: &Pod<'_>, extra: &mut Extra) {
    let found = rule.findings(pod);
    if !found.is_empty() {
        extra.warnings.push(format!("would violate PodSecurity \"{rule}\": {}", details(&found)));
    }
}

impl Extra {
    fn note(&mut self, what: &str, said: String) {
        self.notes.insert(format!("{PREFIX}{what}"), said);
    }
}

fn details(found: &[Finding]) -> String {
    let told = found.iter().map(|one| match one.detail.as_str() {
        "" => one.reason.clone(),
        detail => format!("{} ({detail})", one.reason),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// The policy of the namespace that is written to; `None` where it lets everything happen.
fn policy_of(asked: &Asked<'_>) -> Option<(Policy, Vec<Fault>)> {
    let namespace = asked.world.get(&Key::new(&kinds::NAMESPACE, "", asked.namespace))?;
    let says_nothing = !namespace.meta().labels.keys().any(|key| key.starts_with(PREFIX));
    if says_nothing && asked.security.defaults == Policy::default() {
        return None;
    }
    Some(read_policy(&namespace.meta().labels, &asked.security.defaults))
}

fn read_policy(labels: &impl Labels, defaults: &Policy) -> (Policy, Vec<Fault>) {
    let mut faults = Faults::default();
    let read = |mode: &str, mut rule: Rule, faults: &mut Faults| {
        let level = labels.label(&format!("{PREFIX}{mode}"));
        let version = labels.label(&format!("{PREFIX}{mode}-version"));
        let field = |key: &str| format!("metadata.labels[{PREFIX}{key}]");
        let mut told = false;
        if let Some(level) = level {
            match level {
                "privileged" => (rule.level, told) = (Level::Privileged, true),
                "baseline" => (rule.level, told) = (Level::Baseline, true),
                "restricted" => (rule.level, told) = (Level::Restricted, true),
                other => {
                    // What cannot be read is enforced most strictly, and told of nobody.
                    rule.level = if mode == "enforce" { Level::Restricted } else { Level::Privileged };
                    faults.invalid(field(mode), other, "must be one of privileged, baseline, restricted");
                }
            }
        }
        if let Some(version) = version {
            match read_version(version) {
                Some(minor) => rule.minor = minor,
                None => faults.invalid(
                    field(&format!("{mode}-version")),
                    version,
                    "must be \"latest\" or \"v1.x\"",
                ),
            }
        }
        (rule, level.is_some(), version.is_some(), told)
    };
    let (enforce, _, _, enforces) = read("enforce", defaults.enforce, &mut faults);
    let (audit, ..) = read("audit", defaults.audit, &mut faults);
    let (mut warn, warns, versioned, _) = read("warn", defaults.warn, &mut faults);
    if !warns && enforces && enforce.level > warn.level {
        warn.level = enforce.level;
        if !versioned {
            warn.minor = enforce.minor;
        }
    }
    (Policy { enforce, audit, warn }, faults.0)
}

/// `latest` or `v1.N`.
fn read_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let plain = minor.bytes().all(|byte| byte.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
    if plain { minor.parse().ok().map(Some) } else { None }
}

/// Whether a changed pod may run other programs than before.
fn runs_something_else(old: &Tree, new: &Tree) -> bool {
    let image = |container: &Tree| text(container, "image").to_owned();
    let same = |list: &str| {
        let (old, new) = (items(old, list), items(new, list));
        old.len() == new.len() && old.iter().zip(new).all(|(old, new)| image(old) == image(new))
    };
    if !same("spec.containers") || !same("spec.initContainers") {
        return true;
    }
    let before = items(old, "spec.ephemeralContainers");
    items(new, "spec.ephemeralContainers").iter().any(|container| {
        let own = before.iter().find(|own| text(own, "name") == text(container, "name"));
        own.is_none_or(|own| image(own) != image(container))
    })
}

fn judge_namespace(asked: &Asked<'_>, namespace: &Tree, extra: &mut Extra) -> Result<(), Refusal> {
    let defaults = &asked.security.defaults;
    let (policy, faults) = read_policy(&labels(namespace), defaults);
    let before = asked.old.map(|old| read_policy(&labels(old), defaults));
    let known = before.as_ref().is_some_and(|(_, before)| *before == faults);
    if !faults.is_empty() && !known {
        return Err(Refusal::invalid(&asked.resource.about(meta(namespace, "name")), &faults));
    }
    let (Operation::Update, Some((before, _))) = (asked.operation, before) else { return Ok(()) };
    let (old, new) = (before.enforce, policy.enforce);
    let eased = new.minor == old.minor && new.level <= old.level;
    let is_exempt = asked.security.namespaces.contains(meta(namespace, "name"));
    if new.level != Level::Privileged && !eased && !is_exempt {
        extra.warnings.extend(try_on_pods(asked, meta(namespace, "name"), new));
    }
    Ok(())
}

fn labels(object: &Tree) -> BTreeMap<String, String> {
    let labels = model::tree::entries(object, "metadata.labels");
    labels.map(|(key, value)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned())).collect()
}

/// What a new level will mind of the pods that are there.
fn try_on_pods(asked: &Asked<'_>, namespace: &str, rule: Rule) -> Vec<String> {
    let pods = in_order(asked.world.list(&kinds::POD, namespace));
    let (total, tried) = (pods.len(), pods.len().min(PODS_TRIED_MAX));
    // What is minded → the first pod by name, and how many there are.
    let mut minded: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in pods.iter().take(tried) {
        let Ok(tree) = pod.tree() else { continue };
        let found = rule.findings(&Pod { metadata: &tree["metadata"], spec: &tree["spec"] });
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = found.iter().map(|one| one.reason.as_str()).collect();
        let entry = minded.entry(reasons.join(", ")).or_insert_with(|| (pod.name().to_owned(), 0));
        entry.1 += 1;
        if *pod.name() < *entry.0 {
            entry.0 = pod.name().to_owned();
        }
    }
    let mut warnings = Vec::new();
    if tried < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {tried} of {total} existing pods"
        ));
    }
    if !minded.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{rule}\""
        ));
    }
    let mut each: Vec<String> = minded
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            more => format!("{name} (and {} other pods): {reasons}", more - 1),
        })
        .collect();
    each.sort();
    warnings.extend(each);
    warnings
}

/// One pod of each owner first: the others of an owner are most likely the same.
fn in_order(pods: Vec<Object>) -> Vec<Object> {
    let mut seen = BTreeSet::new();
    let (mut first, others): (Vec<Object>, Vec<Object>) = pods.into_iter().partition(|pod| {
        let owner = pod.tree().ok().and_then(|pod| {
            let owner =
                items(&pod, "metadata.ownerReferences").iter().find(|owner| flag(owner, "controller"))?;
            Some(text(owner, "uid").to_owned())
        });
        owner.is_none_or(|owner| seen.insert(owner))
    });
    first.extend(others);
    first
}

#[cfg(test)]
mod tests;
