//! Profiles of users, in the OCI format.

use std::collections::BTreeMap;
use std::path::Path;

use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use serde::Deserialize;

use crate::seccomp::{Layer, Rules, table};

/// Bytes of a profile at most: the largest in use has 30 kB.
const PROFILE_LEN_MAX: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    syscalls: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: serde_json::Value,
    #[serde(default)]
    excludes: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Reads a profile of the host.
pub(super) fn load(path: &Path) -> Result<Vec<Layer>, String> {
    let named =
        |error: &dyn std::fmt::Display| format!("cannot load seccomp profile {}: {error}", path.display());
    let len = std::fs::metadata(path).map_err(|error| named(&error))?.len();
    if len > PROFILE_LEN_MAX {
        return Err(named(&"it is too long"));
    }
    let text = std::fs::read(path).map_err(|error| named(&error))?;
    parse(&text).map_err(|error| named(&error))
}

/// The first program lets through what any entry names and gives the rest the default; one more for each action that
/// is not "allow" acts on its own.
fn parse(text: &[u8]) -> Result<Vec<Layer>, String> {
    let profile: Profile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut named = Rules::new();
    let mut others: BTreeMap<String, (SeccompAction, Rules)> = BTreeMap::new();
    for entry in &profile.syscalls {
        let does = action(&entry.action, entry.errno_ret)?;
        entry.add_to(&mut named)?;
        if does != SeccompAction::Allow {
            entry.add_to(&mut others.entry(format!("{does:?}")).or_insert_with(|| (does, Rules::new())).1)?;
        }
    }
    let mut layers = Vec::new();
    if default != SeccompAction::Allow {
        layers.push(Layer { rules: named, matched: SeccompAction::Allow, other: default });
    }
    layers.extend(others.into_values().map(|(matched, rules)| Layer {
        rules,
        matched,
        other: SeccompAction::Allow,
    }));
    Ok(layers)
}

impl Entry {
    fn add_to(&self, rules: &mut Rules) -> Result<(), String> {
        let empty = |value: &serde_json::Value| {
            value.is_null() || value.as_object().is_some_and(|object| object.is_empty())
        };
        if !empty(&self.includes) || !empty(&self.excludes) {
            return Err("entries with includes or excludes are not supported".to_owned());
        }
        let rule = self.rule()?;
        // Names of other architectures have no number here, and so no way to be called.
        for number in self.names.iter().filter_map(|name| table::number(name)) {
            match (&rule, rules.get_mut(&number)) {
                (None, _) => drop(rules.insert(number, Vec::new())),
                (Some(rule), None) => drop(rules.insert(number, vec![rule.clone()])),
                (Some(_), Some(list)) if list.is_empty() => {}
                (Some(rule), Some(list)) => list.push(rule.clone()),
            }
        }
        Ok(())
    }

    fn rule(&self) -> Result<Option<SeccompRule>, String> {
        let args = self.args.as_deref().unwrap_or_default();
        if args.is_empty() {
            return Ok(None);
        }
        let conditions = args.iter().map(Argument::condition).collect::<Result<Vec<_>, _>>()?;
        SeccompRule::new(conditions).map(Some).map_err(|error| error.to_string())
    }
}

impl Argument {
    fn condition(&self) -> Result<SeccompCondition, String> {
        let (op, value) = match self.op.as_str() {
            "SCMP_CMP_NE" => (SeccompCmpOp::Ne, self.value),
            "SCMP_CMP_LT" => (SeccompCmpOp::Lt, self.value),
            "SCMP_CMP_LE" => (SeccompCmpOp::Le, self.value),
            "SCMP_CMP_EQ" => (SeccompCmpOp::Eq, self.value),
            "SCMP_CMP_GE" => (SeccompCmpOp::Ge, self.value),
            "SCMP_CMP_GT" => (SeccompCmpOp::Gt, self.value),
            "SCMP_CMP_MASKED_EQ" => (SeccompCmpOp::MaskedEq(self.value), self.value_two),
            other => return Err(format!("unknown operator {other:?}")),
        };
        SeccompCondition::new(self.index, SeccompCmpArgLen::Qword, op, value)
            .map_err(|error| error.to_string())
    }
}

fn action(name: &str, errno: Option<u32>) -> Result<SeccompAction, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => SeccompAction::Allow,
        "SCMP_ACT_ERRNO" => SeccompAction::Errno(errno.unwrap_or(libc::EPERM as u32)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => SeccompAction::KillThread,
        "SCMP_ACT_KILL_PROCESS" => SeccompAction::KillProcess,
        "SCMP_ACT_TRAP" => SeccompAction::Trap,
        "SCMP_ACT_LOG" => SeccompAction::Log,
        other => return Err(format!("unsupported action {other:?}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Result<usize, &str>) {
        match (parse(text.as_bytes()), want) {
            (Ok(layers), Ok(want)) => {
                assert_eq!(layers.len(), want, "{text}");
                layers.into_iter().for_each(|layer| drop(layer.compile().expect("it is valid")));
            }
            (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
            (got, want) => panic!("{:?}, not {want:?}", got.map(|layers| layers.len())),
        }
    }

    #[test]
    fn each_action_but_allow_is_a_layer_of_its_own() {
        check(r#"{"defaultAction":"SCMP_ACT_LOG"}"#, Ok(1));
        check(
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","fly"],"action":"SCMP_ACT_ERRNO"}]}"#,
            Ok(1),
        );
        check(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"},
                {"names":["kill"],"action":"SCMP_ACT_KILL","args":[{"index":1,"value":9,"op":"SCMP_CMP_EQ"}]}]}"#,
            Ok(2),
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        check(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, Err("unsupported action"));
        check(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}}]}"#,
            Err("includes"),
        );
    }
}
