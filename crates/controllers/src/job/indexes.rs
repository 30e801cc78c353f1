//! Sets of indexes, as a Job's status writes them: `0-2,5`.

use std::collections::BTreeSet;
use std::fmt;

use model::Tree;

/// The longest run that text may name: as many indexes as a Job may have.
const INDEXES_MAX: i64 = 1_000_000;

/// A set of indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes(BTreeSet<i64>);

impl Indexes {
    /// Reads the text; what makes no sense is left out.
    pub(super) fn read(text: &str) -> Self {
        let runs = text.split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i64, i64) = (first.parse().ok()?, last.parse().ok()?);
            (last - first < INDEXES_MAX).then_some(first..=last)
        });
        Self(runs.flatten().collect())
    }

    pub(super) fn insert(&mut self, index: i64) {
        self.0.insert(index);
    }

    pub(super) fn contains(&self, index: i64) -> bool {
        self.0.contains(&index)
    }

    pub(super) fn len(&self) -> i64 {
        i64::try_from(self.0.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = i64> + '_ {
        self.0.iter().copied()
    }

    /// As a status holds it: absent when empty.
    pub(super) fn written(&self) -> Tree {
        if self.0.is_empty() { Tree::Null } else { self.to_string().into() }
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for index in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => runs.push((*index, *index)),
            }
        }
        for (nth, (first, last)) in runs.iter().enumerate() {
            let comma = if nth > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}
