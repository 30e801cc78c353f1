//! Scenarios: a file says what is given, what happens when, and what must be seen; the run says whether it was.

mod act;
mod ends;
mod file;
mod load;
mod objects;
mod run;
mod truth;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use act::{Act, apply};
pub(crate) use ends::{Rest, check_end, unmet};
pub use file::Scenario;
pub(crate) use objects::expand;
pub use run::run;

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What users would have seen.
    pub timeline: String,
    /// What went wrong: broken laws, and things that were not seen.
    pub faults: Vec<String>,
    /// What faults of the world took place, and how often.
    pub happened: BTreeMap<&'static str, u64>,
}

/// The files of the scenarios in a folder, by name.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

/// Runs the scenario in a file. With `accept`, its timeline becomes the one of this run; otherwise it is compared.
pub fn run_file(path: &Path, accept: bool) -> Result<Outcome> {
    let doing = || format!("scenario {}", path.display());
    let text = std::fs::read_to_string(path).with_context(doing)?;
    let scenario = Scenario::read(&text).with_context(doing)?;
    let mut outcome = run(&scenario).with_context(doing)?;
    if accept {
        std::fs::write(path, file::with_timeline(&text, &outcome.timeline)).with_context(doing)?;
    } else if scenario.timeline != outcome.timeline {
        outcome
            .faults
            .push(format!("the timeline differs:\n{}", difference(&scenario.timeline, &outcome.timeline)));
    }
    Ok(outcome)
}

/// The first lines where two timelines part, with the lines before.
fn difference(was: &str, is: &str) -> String {
    let (was, is): (Vec<&str>, Vec<&str>) = (was.lines().collect(), is.lines().collect());
    let same = was.iter().zip(&is).take_while(|(was, is)| was == is).count();
    let mut text = String::new();
    let before = same.saturating_sub(3);
    was[before..same].iter().for_each(|line| text.push_str(&format!("    {line}\n")));
    was[same..].iter().take(5).for_each(|line| text.push_str(&format!("  - {line}\n")));
    is[same..].iter().take(5).for_each(|line| text.push_str(&format!("  + {line}\n")));
    text
}
