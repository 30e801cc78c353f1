//! Where the audit log goes: to a file, begun anew by its size, old ones removed by their age and number; and to a webhook.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use api::audit::{Log, Policy, Sink, Trail, Truncation, Webhook, WebhookSettings};
use api::dial::Dial;
use host::{Host, Time};

use crate::settings::Audit;
use crate::strangers::Program;

/// The size at which a file is begun anew unless another is given: upstream's 100 MB.
const FILE_MEGABYTES: u64 = 100;
const MEGABYTE: u64 = 1024 * 1024;
/// How the time stands in the name of an old file.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// Begins the audit log that the settings ask for, if any.
pub fn begin(host: &Host, dial: Arc<dyn Dial>, settings: &Audit) -> Result<Option<Arc<Trail>>> {
    let Some(file) = &settings.audit_policy_file else { return Ok(None) };
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let policy = Policy::read(&text);
    let policy = policy.map_err(|why| anyhow!("{} is no good audit policy: {why}", file.display()))?;
    let log = settings.audit_log_path.as_deref().map(|path| log(host, path, settings)).transpose()?;
    let webhook = settings.audit_webhook_config_file.as_deref();
    let webhook = webhook.map(|file| webhook_at(host, dial, file, settings)).transpose()?;
    if log.is_none() && webhook.is_none() {
        bail!(
            "--audit-policy-file needs --audit-log-path or --audit-webhook-config-file: somewhere to write to"
        );
    }
    Ok(Some(Trail::new(host, policy, log, webhook)))
}

fn log(host: &Host, path: &Path, settings: &Audit) -> Result<Log> {
    let truncation = truncation(
        "log",
        settings.audit_log_truncate_enabled,
        settings.audit_log_truncate_max_event_size,
        settings.audit_log_truncate_max_batch_size,
    )?;
    if path == Path::new("-") {
        return Ok(Log { sink: Box::new(Printed), truncation });
    }
    let megabytes = if settings.audit_log_maxsize == 0 { FILE_MEGABYTES } else { settings.audit_log_maxsize };
    let keep = Keep {
        bytes: megabytes * MEGABYTE,
        age: Duration::from_secs(settings.audit_log_maxage * 86_400),
        files: settings.audit_log_maxbackup,
    };
    Ok(Log { sink: Box::new(Files::open(host.clone(), path, keep)?), truncation })
}

fn truncation(
    way: &str,
    enabled: bool,
    event_bytes: usize,
    batch_bytes: usize,
) -> Result<Option<Truncation>> {
    if enabled && batch_bytes < event_bytes {
        bail!(
            "--audit-{way}-truncate-max-batch-size {batch_bytes} must be no less than --audit-{way}-truncate-max-event-size {event_bytes}"
        );
    }
    Ok(enabled.then_some(Truncation { event_bytes, batch_bytes }))
}

fn webhook_at(host: &Host, dial: Arc<dyn Dial>, file: &Path, settings: &Audit) -> Result<Webhook> {
    let program = Program::read(file)?;
    let truncation = truncation(
        "webhook",
        settings.audit_webhook_truncate_enabled,
        settings.audit_webhook_truncate_max_event_size,
        settings.audit_webhook_truncate_max_batch_size,
    )?;
    let settings = WebhookSettings {
        url: program.url,
        authorities: program.authorities,
        credentials: program.credentials,
        truncation,
        batch_len: settings.audit_webhook_batch_max_size,
        batch_wait: Duration::from_secs(settings.audit_webhook_batch_wait_seconds),
    };
    Webhook::new(host, dial, settings).map_err(|why| anyhow!("{}: {why}", file.display()))
}

/// Writes to the standard output.
struct Printed;

impl Sink for Printed {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        io::stdout().lock().write_all(lines)
    }
}

/// How much is kept.
struct Keep {
    /// Bytes of a file.
    bytes: u64,
    /// How old old files become; 0 for ever.
    age: Duration,
    /// How many old files there are; 0 for all.
    files: usize,
}

/// A file, and older ones beside it with the time of their end in their names.
struct Files {
    host: Host,
    path: PathBuf,
    keep: Keep,
    file: File,
    len: u64,
}

impl Files {
    fn open(host: Host, path: &Path, keep: Keep) -> Result<Self> {
        let opening = || format!("cannot open {}", path.display());
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            fs::create_dir_all(dir).with_context(opening)?;
        }
        let file = append(path).with_context(opening)?;
        let len = file.metadata().with_context(opening)?.len();
        Ok(Self { host, path: path.to_owned(), keep, file, len })
    }

    /// Sets the file aside under the time, and begins a new one.
    fn turn(&mut self) -> io::Result<()> {
        fs::rename(&self.path, self.old(self.host.now()))?;
        self.file = append(&self.path)?;
        self.len = 0;
        self.remove_old()
    }

    fn stem(&self) -> (String, String) {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension =
            self.path.extension().map_or(String::new(), |end| format!(".{}", end.to_string_lossy()));
        (part(self.path.file_stem()), extension)
    }

    fn old(&self, time: Time) -> PathBuf {
        let (stem, extension) = self.stem();
        self.path.with_file_name(format!("{stem}-{}{extension}", time.strftime(STAMP)))
    }

    /// Removes what is too old or too much, the oldest first.
    fn remove_old(&self) -> io::Result<()> {
        let (stem, extension) = self.stem();
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut old: Vec<(Time, PathBuf)> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let stamp = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
            let time = stamp.and_then(|stamp| jiff::civil::DateTime::strptime(STAMP, stamp).ok());
            if let Some(time) = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
                old.push((time.timestamp(), path));
            }
        }
        old.sort();
        let too_many = if self.keep.files == 0 { 0 } else { old.len().saturating_sub(self.keep.files) };
        let now = self.host.now();
        for (at, (time, path)) in old.iter().enumerate() {
            let age = Duration::try_from(now.duration_since(*time)).unwrap_or_default();
            if at < too_many || (!self.keep.age.is_zero() && age > self.keep.age) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    // It says who did what: for its owner alone.
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Sink for Files {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let len = lines.len() as u64;
        if self.len > 0 && self.len + len > self.keep.bytes {
            self.turn()?;
        }
        self.file.write_all(lines)?;
        self.len += len;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use host::SimDisk;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("a folder of our own").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_file_is_set_aside_and_old_ones_go_by_number_and_age() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let path = dir.path().join("audit.log");
        let start = "2026-01-01T00:00:00Z".parse().expect("a fixed time");
        let host = Host::simulated(1, start, SimDisk::new());
        fs::write(dir.path().join("audit-notes.log"), "not ours").expect("a folder of our own");
        let keep = |files, hours: u64| Keep { bytes: 10, age: Duration::from_secs(hours * 3600), files };
        let mut log = Files::open(host.clone(), &path, keep(2, 0)).expect("a folder of our own");
        for _ in 0..4 {
            log.write(b"12345678\n").expect("there is room");
            host.sleep(Duration::from_secs(3600)).await;
        }
        let old = ["audit-2026-01-01T02-00-00.000.log", "audit-2026-01-01T03-00-00.000.log"];
        assert_eq!(names(dir.path()), [old[0], old[1], "audit-notes.log", "audit.log"]);
        let mut log = Files::open(host.clone(), &path, keep(0, 2)).expect("a folder of our own");
        host.sleep(Duration::from_secs(1)).await;
        log.write(b"12345678\n").expect("there is room");
        let newest = "audit-2026-01-01T04-00-01.000.log";
        assert_eq!(names(dir.path()), [old[1], newest, "audit-notes.log", "audit.log"]);
    }
}
