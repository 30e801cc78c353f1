//! `kintsugi store`: looks over, backs up, restores and shrinks what a cluster stores.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use client::{Access, Client, Https};
use host::Host;
use http::Method;
use rustix::fs::{CWD, Mode, RenameFlags};
use store::{Form, Harm, Kept, Report, Revision, Store};

use crate::place::Place;
use crate::settings::StoreAct;
use crate::vault::Vault;
use crate::{caring, control, shared};

/// What is to be printed, and whether all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The lines.
    pub lines: Vec<String>,
    /// Whether all is well.
    pub is_well: bool,
}

impl Told {
    pub(crate) fn well(lines: Vec<String>) -> Self {
        Self { lines, is_well: true }
    }
}

/// Does what was asked for.
pub async fn run(host: &Host, act: StoreAct) -> Result<Told> {
    // What is written here is everything that the cluster knows: for its owner alone.
    rustix::process::umask(Mode::from_raw_mode(0o077));
    let (StoreAct::Check { kept, .. }
    | StoreAct::Backup { kept, .. }
    | StoreAct::Restore { kept, .. }
    | StoreAct::Compact { kept }
    | StoreAct::RotateKey { kept }) = &act;
    match shared::etcd_settings(&kept.store)? {
        Some(etcd) => caring::run(host, &etcd, act).await,
        None => run_here(host, act).await,
    }
}

/// Does it with the store of a data directory.
async fn run_here(host: &Host, act: StoreAct) -> Result<Told> {
    match act {
        StoreAct::Check { kept, backup: Some(file) } => check_backup(host, &kept.data.data_dir, &file),
        StoreAct::Check { kept, backup: None } => check(host, &there(&kept.data.data_dir)?),
        StoreAct::Backup { kept, file } => back_up(host, &there(&kept.data.data_dir)?, &file),
        StoreAct::Restore { kept, file, keys, overwrite, nothing_runs } => {
            let wish = Wish { file: &file, keys: keys.as_deref(), overwrite, nothing_runs };
            restore(host, &kept.data.data_dir, &wish).await
        }
        StoreAct::Compact { kept } => compact(host, &there(&kept.data.data_dir)?).await,
        StoreAct::RotateKey { kept } => rotate_key(host, &there(&kept.data.data_dir)?).await,
    }
}

/// A data directory that holds a store.
fn there(dir: &Path) -> Result<Place> {
    ensure!(
        dir.join("store").is_dir(),
        "there is no store in {}; one in etcd is named by --store, as for the server",
        dir.display()
    );
    Place::open(dir)
}

/// How the store of a place lies on the disk. Keys that are not there are not made.
fn form_of(place: &Place) -> Result<Form> {
    Ok(control::form(Arc::new(Vault::open(&place.store_keys())?)))
}

fn check(host: &Host, place: &Place) -> Result<Told> {
    let report = store::check(host, place.store(), &form_of(place)?)?;
    let is_well = report.is_sound();
    Ok(Told { lines: spelled(&report), is_well })
}

/// What a report says to people: what is wrong, where, and what to do.
fn spelled(report: &Report) -> Vec<String> {
    let mut lines: Vec<String> = report
        .findings
        .iter()
        .map(|found| {
            let how = match found.harm {
                Harm::Mends => "harmless",
                Harm::Loss => "DAMAGED ",
            };
            format!("{how}  {} at byte {}: {}", found.path.display(), found.at, found.what)
        })
        .collect();
    let size = format!("{} files, {} bytes", report.files, report.bytes);
    lines.push(match report.opens {
        Some((revision, records)) => format!("sound: {records} objects at revision {revision} ({size})"),
        None => format!("the store does not open ({size})"),
    });
    if report.findings.iter().any(|found| found.harm == Harm::Mends) {
        lines.push("what is harmless is put right by the next start; there is nothing to do".into());
    }
    if !report.is_sound() {
        lines.push(
            "what to do: keep a copy of the folder, then restore the newest backup (kintsugi store restore FILE --overwrite); \
             a file that is missing or damaged may also be put back from a copy of the disk, byte for byte"
                .into(),
        );
    }
    lines
}

pub(crate) fn check_backup(host: &Host, dir: &Path, file: &Path) -> Result<Told> {
    let vault = Vault::open(&dir.join("pki/store.keys"))?;
    let kept = store::examine(host, file, &control::form(Arc::new(vault)))
        .context("the backup cannot be used; take another one")?;
    Ok(Told::well(vec![format!("sound: {} objects at revision {}", kept.records, kept.revision)]))
}

fn back_up(host: &Host, place: &Place, file: &Path) -> Result<Told> {
    is_new(file)?;
    let kept = store::backup(host, place.store(), file, &form_of(place)?).context("no backup was made")?;
    Ok(backed_up(place, file, kept))
}

/// A backup takes the place of nothing.
pub(crate) fn is_new(file: &Path) -> Result<()> {
    ensure!(
        !file.exists(),
        "{} is there already: a backup never takes the place of another file",
        file.display()
    );
    Ok(())
}

/// What is said of a backup that was made.
pub(crate) fn backed_up(place: &Place, file: &Path, kept: Kept) -> Told {
    Told::well(vec![
        format!("{}: {} objects at revision {}", file.display(), kept.records, kept.revision),
        format!(
            "keep a copy of {} in another place: without store.keys of now this backup cannot be read, without the others the \
             cluster's nodes and tokens are strangers",
            place.keys().display()
        ),
    ])
}

/// What is to be restored, and how.
pub(crate) struct Wish<'a> {
    pub file: &'a Path,
    pub keys: Option<&'a Path>,
    pub overwrite: bool,
    pub nothing_runs: bool,
}

/// What is needed to restore: the keys by which is sealed here, and the backup.
pub(crate) struct Ready {
    pub vault: Arc<Vault>,
    backup: store::Backup,
}

impl Ready {
    /// Reads the keys of a place, and the backup.
    pub fn read(host: &Host, place: &Place, wish: &Wish<'_>) -> Result<Self> {
        fs::create_dir_all(place.keys())
            .with_context(|| format!("cannot make {}", place.keys().display()))?;
        let vault = Arc::new(Vault::open(&place.store_keys())?);
        let reading = match wish.keys {
            Some(keys) => Arc::new(Vault::open(keys)?),
            None => vault.clone(),
        };
        let backup = store::Backup::read(host, wish.file, &control::form(reading));
        let backup = backup.context("the backup cannot be used; nothing was changed")?;
        Ok(Self { vault, backup })
    }

    /// Makes a store aside, beyond all that was seen; gives where, what it holds, and the nodes that have to speak.
    pub async fn make_aside(
        &self,
        host: &Host,
        place: &Place,
        seen: Revision,
        wish: &Wish<'_>,
    ) -> Result<(PathBuf, Kept, Vec<String>)> {
        let aside = place.dir().join("store.restoring");
        // Left by a restore that was cut off.
        if aside.exists() {
            fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
        }
        // Before anything is sealed with it.
        self.vault.save()?;
        let own = control::form(self.vault.clone());
        let made = self.backup.restore(host, aside.clone(), seen, &own).context("nothing was changed")?;
        let marking = control::open_sealed(host, aside.clone(), self.vault.clone()).await?;
        let nodes = api::mark_restored(&marking, wish.nothing_runs).await.context("nothing was changed")?;
        marking.close().await;
        Ok((aside, made, nodes))
    }
}

async fn restore(host: &Host, dir: &Path, wish: &Wish<'_>) -> Result<Told> {
    let place = Place::open(dir)?;
    let _held = place.hold().context("stop the server first; nothing was changed")?;
    let ready = Ready::read(host, &place, wish)?;
    let now = place.store();
    let is_taken = now.is_dir() && fs::read_dir(&now)?.next().is_some();
    if is_taken && !wish.overwrite {
        bail!("{} holds a store already: --overwrite takes its place, and keeps it beside", now.display());
    }
    let seen = store::seen_of(host, now.clone(), &control::form(ready.vault.clone()));
    let (aside, made, nodes) = ready.make_aside(host, &place, seen, wish).await?;
    let mut lines = vec![format!("{} objects, now at revision {}", made.records, made.revision)];
    if is_taken {
        let old = put_in_place_of(&aside, &now, &place)?;
        lines.push(format!("the store that was there is now {}", old.display()));
    } else {
        // An empty folder gives way to a full one.
        fs::rename(&aside, &now).with_context(|| format!("cannot put {} in its place", now.display()))?;
    }
    fs::File::open(place.dir())?.sync_all()?;
    lines.extend(what_now(&nodes, wish.nothing_runs));
    Ok(Told::well(lines))
}

/// Exchanges the two in one step, so that there is a whole store at any moment; gives where the old one is then.
fn put_in_place_of(aside: &Path, now: &Path, place: &Place) -> Result<PathBuf> {
    let doing = || format!("cannot put {} in the place of {}", aside.display(), now.display());
    rustix::fs::renameat_with(CWD, aside, CWD, now, RenameFlags::EXCHANGE).with_context(doing)?;
    let free =
        (1..).map(|number| place.dir().join(format!("store.before-{number}"))).find(|path| !path.exists());
    let old = free.unwrap_or_else(|| aside.to_path_buf());
    fs::rename(aside, &old).with_context(|| format!("cannot rename {}", aside.display()))?;
    Ok(old)
}

pub(crate) fn what_now(nodes: &[String], nothing_runs: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if !nodes.is_empty() && !nothing_runs {
        lines.push(format!(
            "pods of StatefulSets and those with exclusive volumes start when each of these nodes has said what runs on it: {}",
            nodes.join(", ")
        ));
        lines.push(
            "of one that is gone, say that it is off: kubectl taint node NAME node.kubernetes.io/out-of-service=:NoExecute".into(),
        );
        lines.push(
            "a node that joined after the backup is not known: see that it reaches the server, or is off"
                .into(),
        );
    }
    lines
}

async fn compact(host: &Host, place: &Place) -> Result<Told> {
    let size = || Ok::<_, anyhow::Error>(store::check(host, place.store(), &form_of(place)?)?.bytes);
    let before = size()?;
    match place.hold() {
        Ok(_held) => {
            let (store, _) = open(host, place).await?;
            store.compact().await?;
            store.close().await;
        }
        Err(_) => drop(ask(place, api::COMPACT).await?),
    }
    Ok(Told::well(vec![format!("{before} bytes before, {} bytes now", size()?)]))
}

async fn rotate_key(host: &Host, place: &Place) -> Result<Told> {
    match place.hold() {
        Ok(_held) => {
            let (store, vault) = open(host, place).await?;
            let rotated = vault.rotate(host, &store).await;
            store.close().await;
            rotated?;
        }
        Err(_) => drop(ask(place, api::ROTATE_KEY).await?),
    }
    Ok(rotated(place))
}

/// What is said of a rotation that is done.
pub(crate) fn rotated(place: &Place) -> Told {
    Told::well(vec![
        format!("what is secret is sealed with a new key, in {}", place.store_keys().display()),
        "the old key is gone: backups made before need a copy of that file from then (restore --keys)".into(),
    ])
}

/// Opens the store of a place on which no server runs.
async fn open(host: &Host, place: &Place) -> Result<(Store, Arc<Vault>)> {
    let vault = Arc::new(Vault::open(&place.store_keys())?);
    let store = control::open_sealed(host, place.store(), vault.clone()).await?;
    vault.save()?;
    Ok((store, vault))
}

/// Asks the running server to do something with its store or its keys.
pub(crate) async fn ask(place: &Place, path: &str) -> Result<Bytes> {
    let kubeconfig = place.kubeconfig();
    let text = fs::read(&kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let https = Https::new(&Access::from_kubeconfig(&text)?)?;
    let client = Client::new(Arc::new(https), "kintsugi");
    let request = client.request(Method::POST, path.to_owned(), None, Bytes::new())?;
    client.call(request).await.context("the running server did not do it")
}
