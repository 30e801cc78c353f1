//! What containers print: to their log files, line by line, and to whoever is attached.
//!
//! A line of a log is `TIME STREAM TAG CONTENT`; tag `F` ends a line, `P` says that more of it follows. A log that
//! cannot be written (a full disk) loses lines and never holds up the container.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::Time;

/// Bytes of a line before it is split: what other runtimes use, and readers expect.
const LINE_LEN_MAX: usize = 16 << 10;
/// Bytes before a log is rotated, when nobody says: Kubernetes' own.
const LOG_LEN_MAX_DEFAULT: u64 = 10 << 20;
/// Log files kept, when nobody says: Kubernetes' own.
const LOG_FILES_DEFAULT: u32 = 5;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// The log of one run of a container.
pub(crate) struct Log {
    path: PathBuf,
    file: Option<File>,
    len: u64,
    len_max: u64,
    files_max: u32,
    begun: [Vec<u8>; 2],
}

impl Log {
    /// A new log; what is there already is continued.
    pub(crate) fn open(path: &Path, len_max: u64, files_max: u32) -> io::Result<Self> {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let file = open(path)?;
        let len = file.metadata()?.len();
        Ok(Self {
            path: path.to_path_buf(),
            file: Some(file),
            len,
            len_max: if len_max == 0 { LOG_LEN_MAX_DEFAULT } else { len_max },
            files_max: if files_max == 0 { LOG_FILES_DEFAULT } else { files_max },
            begun: Default::default(),
        })
    }

    /// Takes what a stream printed.
    pub(crate) fn take(&mut self, stream: Stream, bytes: &[u8], now: Time) {
        let mut begun = std::mem::take(&mut self.begun[stream as usize]);
        let lines = split(&mut begun, bytes, stream, now);
        self.begun[stream as usize] = begun;
        self.write(&lines);
    }

    /// Writes down what a stream printed last without ending the line.
    pub(crate) fn finish(&mut self, stream: Stream, now: Time) {
        let begun = std::mem::take(&mut self.begun[stream as usize]);
        if !begun.is_empty() {
            let mut lines = Vec::new();
            push_line(&mut lines, stream, b'P', &begun, now);
            self.write(&lines);
        }
    }

    fn write(&mut self, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if self.len > 0 && self.len + lines.len() as u64 > self.len_max {
            self.rotate();
        }
        let file = self.file.take().or_else(|| open(&self.path).ok());
        if let Some(mut file) = file {
            if file.write_all(lines).is_ok() {
                self.len += lines.len() as u64;
            }
            self.file = Some(file);
        }
    }

    /// Moves every file one number up; the last one goes.
    fn rotate(&mut self) {
        self.file = None;
        self.len = 0;
        for number in (1..self.files_max.max(1)).rev() {
            let _ = std::fs::rename(rotated(&self.path, number - 1), rotated(&self.path, number));
        }
        if self.files_max <= 1 {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The path of a log file after so many rotations.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

fn open(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

/// Cuts what was printed into lines of a log; what does not end a line stays in `begun`.
fn split(begun: &mut Vec<u8>, mut bytes: &[u8], stream: Stream, now: Time) -> Vec<u8> {
    let mut lines = Vec::with_capacity(bytes.len() + 64);
    while !bytes.is_empty() {
        let room = LINE_LEN_MAX - begun.len();
        let end = bytes.iter().take(room).position(|byte| *byte == b'\n');
        match end {
            Some(end) => {
                begun.extend_from_slice(&bytes[..end]);
                push_line(&mut lines, stream, b'F', begun, now);
                begun.clear();
                bytes = &bytes[end + 1..];
            }
            None => {
                let (part, rest) = bytes.split_at(room.min(bytes.len()));
                begun.extend_from_slice(part);
                bytes = rest;
                if begun.len() == LINE_LEN_MAX {
                    push_line(&mut lines, stream, b'P', begun, now);
                    begun.clear();
                }
            }
        }
    }
    if begun.is_empty() {
        *begun = Vec::new();
    }
    lines
}

fn push_line(lines: &mut Vec<u8>, stream: Stream, tag: u8, content: &[u8], now: Time) {
    let _ = write!(lines, "{now:.9} {} {} ", stream.name(), tag as char);
    lines.extend_from_slice(content);
    lines.push(b'\n');
}

/// Someone attached: a pipe that gets a copy of a stream.
pub(crate) struct Tap {
    /// Which stream.
    pub stream: Stream,
    /// Where to.
    pub pipe: OwnedFd,
}

impl Tap {
    /// Passes on what was printed; `false` when nobody reads or the reader is too slow: then it is cut off.
    pub(crate) fn pass(&self, bytes: &[u8]) -> bool {
        matches!(rustix::io::write(&self.pipe, bytes), Ok(len) if len == bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(printed: &[&str], want: &str) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("c/0.log");
        let mut log = Log::open(&path, 0, 0).expect("it can be made");
        for part in printed {
            log.take(Stream::Stdout, part.as_bytes(), Time::UNIX_EPOCH);
        }
        log.finish(Stream::Stdout, Time::UNIX_EPOCH);
        let text = std::fs::read_to_string(&path).expect("it is there");
        assert_eq!(text.replace("1970-01-01T00:00:00.000000000Z stdout ", ""), want);
    }

    #[test]
    fn lines_are_whole_however_they_arrive() {
        check(&["one\ntwo\n"], "F one\nF two\n");
        check(&["o", "ne\nt", "wo"], "F one\nP two\n");
        check(&["\n\n"], "F \nF \n");
    }

    #[test]
    fn a_long_line_is_split_and_marked() {
        let long = "x".repeat(LINE_LEN_MAX + 3) + "\n";
        check(&[&long], &format!("P {}\nF xxx\n", "x".repeat(LINE_LEN_MAX)));
        let exact = "x".repeat(LINE_LEN_MAX) + "\n";
        check(&[&exact], &format!("P {}\nF \n", "x".repeat(LINE_LEN_MAX)));
    }

    #[test]
    fn a_full_log_is_rotated_and_the_oldest_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        let mut log = Log::open(&path, 60, 3).expect("it can be made");
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            log.take(Stream::Stderr, line.as_bytes(), Time::UNIX_EPOCH);
        }
        let last = |number| {
            let text = std::fs::read_to_string(rotated(&path, number)).unwrap_or_default();
            text.trim_end().chars().last()
        };
        assert_eq!([last(0), last(1), last(2), last(3)], [Some('d'), Some('c'), Some('b'), None]);
    }
}
