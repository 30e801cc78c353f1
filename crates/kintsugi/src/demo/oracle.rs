//! The write oracle: a database in small, whose file tells whether two ever wrote at once.
//!
//! Each write appends a line with who wrote: the epoch and the node that the pod was bound to, a sequence number that goes
//! on where the file ends, and which process it was. The file is opened for appending, so the order of its lines is the
//! order of the writes. A writer looks before each of its writes whether another wrote since its last; [`judge`] finds the
//! same, and what a writer did not live to see, from the file alone.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// The pause between two writes: the length of time in which two writers would show is that of many writes.
const PAUSE: Duration = Duration::from_millis(20);
/// How much is read of a file's end to find its last line: many times the longest.
const TAIL_LEN: u64 = 4096;

/// What an oracle's file says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many writes there are.
    pub writes: u64,
    /// How many processes wrote, one after the other if all is well.
    pub writers: usize,
    /// On how many nodes, under how many epochs.
    pub bindings: usize,
    /// Writes beside or after those of another who had begun later, and those that a writer saw between its own.
    pub doubled: u64,
    /// Numbers that are missing: writes that were there and went.
    pub lost: u64,
}

/// Reads an oracle's file. What is no line of an oracle counts as a lost write.
pub fn judge(text: &str) -> Verdict {
    let mut verdict = Verdict::default();
    let (mut bindings, mut begun) = (BTreeSet::new(), BTreeSet::new());
    let (mut last_writer, mut last_sequence) = ("", 0);
    for line in text.lines() {
        let Some(write) = Line::read(line) else {
            verdict.lost += 1;
            continue;
        };
        verdict.writes += 1;
        bindings.insert((write.epoch, write.node));
        let is_another = write.writer != last_writer;
        // Whoever is followed by another never writes again; and a number that is taken shows two who read the same end.
        let returns = is_another && !begun.insert(write.writer);
        if returns || write.sequence <= last_sequence {
            verdict.doubled += 1;
        } else {
            verdict.lost += write.sequence - last_sequence - 1;
        }
        verdict.doubled += write.intruders;
        last_writer = write.writer;
        last_sequence = last_sequence.max(write.sequence);
    }
    (verdict.writers, verdict.bindings) = (begun.len(), bindings.len());
    verdict
}

/// The last line's writer.
pub fn last_writer(text: &str) -> Option<String> {
    text.lines().rev().find_map(Line::read).map(|line| line.writer.to_owned())
}

/// One write.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    epoch: &'a str,
    node: &'a str,
    sequence: u64,
    writer: &'a str,
    /// The lines of others that it found after its own last one.
    intruders: u64,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut next = || words.next().filter(|word| !word.is_empty());
        let (epoch, node) = (next()?, next()?);
        let sequence = next()?.parse().ok()?;
        let writer = next()?;
        let intruders = next()?.parse().ok()?;
        words.next().is_none().then_some(Self { epoch, node, sequence, writer, intruders })
    }
}

/// Writes for ever.
///
/// # Errors
/// When the file cannot be written any more.
pub fn write(path: &Path, epoch: &str, node: &str) -> Result<()> {
    let mut writer = Writer::open(path, epoch, node)?;
    loop {
        writer.write()?;
        sleep(PAUSE);
    }
}

/// A process that writes.
struct Writer {
    file: File,
    who: String,
    name: String,
    /// Where the file ended after the own last write.
    end: u64,
    sequence: u64,
}

impl Writer {
    fn open(path: &Path, epoch: &str, node: &str) -> Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let end = file.seek(SeekFrom::End(0))?;
        let tail = read_from(&mut file, end.saturating_sub(TAIL_LEN))?;
        let sequence = tail.lines().rev().find_map(Line::read).map_or(0, |line| line.sequence);
        // No two processes of a machine begin in the same nanosecond and with the same number.
        let name = format!("{}-{}", host::Clock::real().moment().0.as_nanos(), std::process::id());
        Ok(Self { file, who: format!("{epoch} {node}"), name, end, sequence })
    }

    fn write(&mut self) -> Result<()> {
        let others = read_from(&mut self.file, self.end)?;
        let others: Vec<Line<'_>> = others.lines().filter_map(Line::read).collect();
        self.sequence = others.iter().map(|line| line.sequence).fold(self.sequence, u64::max) + 1;
        let line = format!("{} {} {} {}\n", self.who, self.sequence, self.name, others.len());
        self.file.write_all(line.as_bytes())?;
        self.end = self.file.stream_position()?;
        Ok(())
    }
}

fn read_from(file: &mut File, at: u64) -> Result<String> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, writes: u64, writers: usize, bindings: usize, doubled: u64, lost: u64) {
        assert_eq!(judge(text), Verdict { writes, writers, bindings, doubled, lost }, "{text}");
    }

    #[test]
    fn writers_that_follow_each_other_are_well_and_any_that_return_are_found() {
        check("", 0, 0, 0, 0, 0);
        check("7 a 1 p 0\n7 a 2 p 0\n7 a 3 q 0\n9 b 4 r 0\n", 4, 3, 2, 0, 0);
        check("7 a 1 p 0\n9 b 2 r 0\n7 a 3 p 0\n9 b 4 r 0\n", 4, 2, 2, 2, 0);
        check("7 a 1 p 0\n9 b 2 r 0\n7 a 2 q 0\n", 3, 3, 2, 1, 0);
        check("7 a 1 p 0\n7 a 3 p 1\n", 2, 1, 1, 1, 1);
        check("7 a 1 p 0\n7 a 4 p 0\nrubbish\n", 2, 1, 1, 0, 3);
    }

    #[test]
    fn a_second_writer_is_found_by_the_first_and_in_the_file() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("writes");
        let mut one = Writer::open(&path, "7", "a").expect("the folder is ours");
        one.write().expect("there is room");
        one.write().expect("there is room");
        let text = || std::fs::read_to_string(&path).expect("it was written");
        assert_eq!((judge(&text()).writes, judge(&text()).doubled), (2, 0));
        let mut two = Writer::open(&path, "9", "b").expect("the folder is ours");
        two.write().expect("there is room");
        assert_eq!((judge(&text()).writers, judge(&text()).doubled), (2, 0), "it may have followed");
        one.write().expect("there is room");
        let verdict = judge(&text());
        assert_eq!(
            (verdict.writes, verdict.doubled, verdict.lost),
            (4, 2, 0),
            "by itself, and by its neighbour"
        );
        assert_eq!(last_writer(&text()), Some(one.name));
    }
}
