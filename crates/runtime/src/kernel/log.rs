//! Reading logs: from the files alone, so also when the container is gone; following by the kernel's notices.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::images::failed;
use crate::kernel::link::Link;
use crate::layout::Pod;
use crate::monitor::rotated;
use crate::{LogRequest, RuntimeError, Time};

/// Bytes read, and passed on, at once.
const CHUNK_LEN: usize = 64 << 10;
/// Chunks that wait for a slow reader; further ones stay in the files.
const CHUNKS_MAX: usize = 4;
/// Rotated files looked for: more than anyone keeps.
const FILES_MAX: u32 = 1000;

/// A log that is being read, and what reads it, for its owner to run.
pub(crate) type Reading = (mpsc::Receiver<Bytes>, std::pin::Pin<Box<dyn Future<Output = ()> + Send>>);

/// Reads a log as asked.
pub(crate) fn read(pod: &Pod, link: Option<Arc<Link>>, request: LogRequest) -> Result<Reading, RuntimeError> {
    let dir = pod.logs(&request.name);
    let not_here = || RuntimeError::NotFound(format!("log of container {:?}", request.name));
    let attempt = request.attempt.or_else(|| last_attempt(&dir)).ok_or_else(not_here)?;
    let path = pod.log(&request.name, attempt);
    if !path.exists() {
        return Err(not_here());
    }
    let doing = || format!("read the log {}", path.display());
    let watch = if request.follow { Some(Watch::new(&dir).map_err(|e| failed(doing(), e))?) } else { None };
    let mut reader = Reader::open(path.clone(), request.tail_lines).map_err(|e| failed(doing(), e))?;
    let mut filter = Filter::new(&request);
    let (to, receiver) = mpsc::channel(CHUNKS_MAX);
    let work = async move {
        loop {
            // Looked at before the file is read, so that nothing written before the end is missed.
            let ended = link.as_ref().is_none_or(|link| has_ended(link, &request.name, attempt));
            let mut changes = link.as_ref().map(|link| link.changes());
            if !drain(&mut reader, &mut filter, &to).await || ended {
                return;
            }
            let (Some(watch), Some(changes)) = (&watch, &mut changes) else { return };
            tokio::select! {
                biased;
                () = to.closed() => return,
                done = watch.wait() => if done.is_err() { return },
                done = changes.changed() => if done.is_err() { return },
            }
        }
    };
    Ok((receiver, Box::pin(work)))
}

fn has_ended(link: &Link, name: &str, attempt: u32) -> bool {
    let runs = |record: &crate::wire::ContainerRecord| {
        record.spec.name == name && record.spec.attempt == attempt && record.exit.is_none()
    };
    !link.is_alive() || !link.containers().iter().any(runs)
}

fn last_attempt(dir: &Path) -> Option<u32> {
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok();
    std::fs::read_dir(dir).ok()?.flatten().filter_map(number).max()
}

/// Passes on all there is; `false` when the reader has had enough.
async fn drain(reader: &mut Reader, filter: &mut Filter, to: &mpsc::Sender<Bytes>) -> bool {
    loop {
        match reader.next_lines() {
            Ok(Some(lines)) => {
                let text = filter.pass(&lines);
                if !text.is_empty() && to.send(text.into()).await.is_err() || filter.is_full() {
                    return false;
                }
            }
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// The kernel's notices of changes in a folder.
struct Watch(AsyncFd<std::os::fd::OwnedFd>);

impl Watch {
    fn new(dir: &Path) -> io::Result<Self> {
        use inotify::{CreateFlags, WatchFlags};
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&fd, dir, WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        // SAFETY: the descriptor is owned, and stays open and the same until both go.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    async fn wait(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut ready = self.0.readable().await?;
        while rustix::io::read(self.0.get_ref(), &mut buffer).is_ok_and(|len| len > 0) {}
        ready.clear_ready();
        Ok(())
    }
}

/// Reads whole lines from a log's files, oldest first, through rotations.
struct Reader {
    path: PathBuf,
    file: File,
    begun: Vec<u8>,
}

impl Reader {
    /// Opens at the first of the last `tail` lines, or at the beginning.
    fn open(path: PathBuf, tail: Option<u64>) -> io::Result<Self> {
        let oldest = (0..FILES_MAX).take_while(|number| rotated(&path, *number).exists()).last().unwrap_or(0);
        let Some(tail) = tail else {
            let file = File::open(rotated(&path, oldest))?;
            return Ok(Self { path, file, begun: Vec::new() });
        };
        let mut left = tail;
        for number in 0..=oldest {
            let mut file = File::open(rotated(&path, number))?;
            match last_lines(&mut file, left)? {
                (at, 0) => {
                    file.seek(SeekFrom::Start(at))?;
                    return Ok(Self { path, file, begun: Vec::new() });
                }
                (_, missing) => left = missing,
            }
        }
        let file = File::open(rotated(&path, oldest))?;
        Ok(Self { path, file, begun: Vec::new() })
    }

    /// The next whole lines; `None` when there are no more for now.
    fn next_lines(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut chunk = vec![0; CHUNK_LEN];
            let len = self.file.read(&mut chunk)?;
            if len == 0 {
                match self.newer()? {
                    Some(file) => self.file = file,
                    None => return Ok(None),
                }
                continue;
            }
            self.begun.extend_from_slice(&chunk[..len]);
            if let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.begun.split_off(end + 1);
                return Ok(Some(std::mem::replace(&mut self.begun, rest)));
            }
        }
    }

    /// The file that follows ours, when ours was rotated away and has been read to its end.
    fn newer(&mut self) -> io::Result<Option<File>> {
        let own = self.file.metadata()?.ino();
        let is_own =
            |number: &u32| std::fs::metadata(rotated(&self.path, *number)).is_ok_and(|m| m.ino() == own);
        let number = (0..FILES_MAX).take_while(|n| *n == 0 || rotated(&self.path, *n).exists()).find(is_own);
        let newer = match number {
            Some(0) => return Ok(None),
            Some(number) => number - 1,
            // Ours went altogether: what is oldest now follows.
            None => (1..FILES_MAX).take_while(|n| rotated(&self.path, *n).exists()).last().unwrap_or(0),
        };
        // Between the rotation and the next line there is no newest file.
        if newer == 0 && !self.path.exists() {
            return Ok(None);
        }
        let rest = self.file.stream_position()? < self.file.metadata()?.len();
        if rest { Ok(None) } else { File::open(rotated(&self.path, newer)).map(Some) }
    }
}

/// Where the last `count` lines of a file begin, and how many it lacks.
fn last_lines(file: &mut File, count: u64) -> io::Result<(u64, u64)> {
    let mut at = file.metadata()?.len();
    let mut left = count;
    if count == 0 {
        return Ok((at, 0));
    }
    let mut end = at;
    while end > 0 {
        let begin = end.saturating_sub(CHUNK_LEN as u64);
        let mut chunk = vec![0; (end - begin) as usize];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut chunk)?;
        for (index, _) in chunk.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = begin + index as u64 + 1;
            if after == at && at == file.metadata()?.len() {
                continue;
            }
            at = after;
            left -= 1;
            if left == 0 {
                return Ok((at, 0));
            }
        }
        end = begin;
    }
    if at > 0 {
        left -= 1;
    }
    Ok((0, left))
}

/// Chooses and writes out lines.
struct Filter {
    since: Option<Time>,
    timestamps: bool,
    left: u64,
    begins: bool,
}

impl Filter {
    fn new(request: &LogRequest) -> Self {
        let left = request.limit_bytes.unwrap_or(u64::MAX);
        Self { since: request.since, timestamps: request.timestamps, left, begins: true }
    }

    fn is_full(&self) -> bool {
        self.left == 0
    }

    fn pass(&mut self, lines: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(lines.len());
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.pass_line(line.strip_suffix(b"\n").unwrap_or(line), &mut text);
        }
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(text.len());
        text.truncate(fits);
        self.left -= fits as u64;
        text
    }

    fn pass_line(&mut self, line: &[u8], text: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(_), Some(tag), Some(content)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return;
        };
        if let Some(since) = self.since {
            let at = std::str::from_utf8(time).ok().and_then(|time| time.parse::<Time>().ok());
            if at.is_none_or(|at| at < since) {
                return;
            }
        }
        if self.timestamps && self.begins {
            text.extend_from_slice(time);
            text.push(b' ');
        }
        text.extend_from_slice(content);
        self.begins = tag == b"F";
        if self.begins {
            text.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(second: u32, tag: char, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000000Z stdout {tag} {text}\n")
    }

    fn check(files: &[&[String]], request: &LogRequest, want: &str) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("0.log");
        for (number, lines) in files.iter().rev().enumerate() {
            std::fs::write(rotated(&path, number as u32), lines.concat()).expect("it can be written");
        }
        let mut reader = Reader::open(path, request.tail_lines).expect("it is there");
        let mut filter = Filter::new(request);
        let mut text = Vec::new();
        while let Some(lines) = reader.next_lines().expect("it can be read") {
            text.extend(filter.pass(&lines));
        }
        assert_eq!(String::from_utf8_lossy(&text), want);
    }

    #[test]
    fn rotated_files_are_read_in_order_and_parts_are_joined() {
        let files: [&[String]; 2] =
            [&[entry(1, 'F', "a"), entry(2, 'P', "b")], &[entry(3, 'F', "c"), entry(4, 'P', "d")]];
        check(&files, &LogRequest::default(), "a\nbc\nd");
        let stamped = LogRequest { timestamps: true, ..LogRequest::default() };
        check(&files[1..], &stamped, "2026-01-01T00:00:03.000000000Z c\n2026-01-01T00:00:04.000000000Z d");
    }

    #[test]
    fn the_tail_reaches_back_into_older_files() {
        let old = [entry(1, 'F', "a"), entry(2, 'F', "b")];
        let new = [entry(3, 'F', "c")];
        for (tail, want) in [(0, ""), (1, "c\n"), (2, "b\nc\n"), (3, "a\nb\nc\n"), (9, "a\nb\nc\n")] {
            let request = LogRequest { tail_lines: Some(tail), ..LogRequest::default() };
            check(&[&old, &new], &request, want);
        }
    }

    #[test]
    fn time_and_bytes_limit_what_is_passed_on() {
        let lines = [entry(1, 'F', "one"), entry(2, 'F', "two"), entry(3, 'F', "three")];
        let since = Some("2026-01-01T00:00:02Z".parse().expect("it is a time"));
        check(&[&lines], &LogRequest { since, ..LogRequest::default() }, "two\nthree\n");
        check(&[&lines], &LogRequest { limit_bytes: Some(5), ..LogRequest::default() }, "one\nt");
    }
}
