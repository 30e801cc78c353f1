//! `kintsugi store` on a store in etcd: the same acts, and the same backups, as on one in a data directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use etcd::{Care, Look};
use host::Host;
use model::Object;
use store::{Range, Record};

use crate::place::Place;
use crate::servers::{LEASES, SILENCE_MAX};
use crate::settings::StoreAct;
use crate::storing::{Ready, Told, Wish, ask, backed_up, check_backup, is_new, rotated, what_now};
use crate::vault::Vault;
use crate::{control, rotation};

/// Does what was asked for.
pub async fn run(host: &Host, settings: &etcd::Settings, act: StoreAct) -> Result<Told> {
    let care = Care::open(host, settings).context("--store")?;
    match act {
        StoreAct::Check { kept, backup: Some(file) } => check_backup(host, &kept.data.data_dir, &file),
        StoreAct::Check { kept, backup: None } => check(&care, &there(&kept.data.data_dir)?).await,
        StoreAct::Backup { kept, file } => back_up(host, &care, &there(&kept.data.data_dir)?, &file).await,
        StoreAct::Restore { kept, file, keys, overwrite, nothing_runs } => {
            let wish = Wish { file: &file, keys: keys.as_deref(), overwrite, nothing_runs };
            restore(host, &care, &kept.data.data_dir, &wish).await
        }
        StoreAct::Compact { .. } => compact(&care).await,
        StoreAct::RotateKey { kept } => rotate_key(host, settings, &there(&kept.data.data_dir)?).await,
    }
}

/// A data directory with the keys by which the store is sealed.
fn there(dir: &Path) -> Result<Place> {
    let keys = dir.join("pki/store.keys");
    ensure!(
        keys.is_file(),
        "there is no {}: name the data directory of a server of this store (--data-dir)",
        keys.display()
    );
    Place::open(dir)
}

/// Reads all that there is, by the keys of a place.
async fn look(care: &Care, vault: Arc<Vault>) -> Result<Look> {
    let read = care.look(&control::form(vault.clone()), vault.heed()).await;
    read.with_context(|| format!("cannot read the store in {}", care.names()))
}

async fn check(care: &Care, place: &Place) -> Result<Told> {
    let look = look(care, Arc::new(Vault::open(&place.store_keys())?)).await?;
    let mut lines: Vec<String> =
        look.unread.iter().map(|(key, why)| format!("DAMAGED   {key} in etcd: {why}")).collect();
    let spoilt = look.records.iter().filter(|record| !is_object(record));
    lines.extend(spoilt.map(|record| format!("DAMAGED   {} in etcd: it is no object", record.path)));
    if look.is_restoring {
        lines
            .push("DAMAGED   a restore was begun and not ended: do it again (kintsugi store restore)".into());
    }
    let size = format!("{} keys, {} bytes", look.keys, look.bytes);
    let is_well = lines.is_empty();
    lines.push(match is_well {
        true => format!("sound: {} objects at revision {} ({size})", look.records.len(), look.revision),
        false => format!("the store is not sound at revision {} ({size})", look.revision),
    });
    if !is_well {
        lines.push(
            "what to do: put back the key that is named, or keep a copy (etcdctl snapshot save), then restore the newest backup \
             (kintsugi store restore FILE --overwrite)"
                .into(),
        );
    }
    Ok(Told { lines, is_well })
}

/// Whether a record can be parsed. What is no object is a plain word, such as whom an address belongs to.
fn is_object(record: &Record) -> bool {
    record.value.first() != Some(&b'{') || Object::read(record.value.clone()).is_ok()
}

async fn back_up(host: &Host, care: &Care, place: &Place, file: &Path) -> Result<Told> {
    is_new(file)?;
    let vault = Arc::new(Vault::open(&place.store_keys())?);
    let look = look(care, vault.clone()).await?;
    write(host, &look, &vault, file).context("no backup was made").map(|kept| backed_up(place, file, kept))
}

fn write(host: &Host, look: &Look, vault: &Arc<Vault>, file: &Path) -> Result<store::Kept> {
    ensure!(
        !look.is_restoring,
        "a restore was begun and not ended: the store holds a part of a backup alone"
    );
    if let Some((key, why)) = look.unread.first() {
        bail!("{} values cannot be read; the first is {key}: {why}", look.unread.len());
    }
    Ok(store::write_backup(host, (&look.records, look.revision), file, &control::form(vault.clone()))?)
}

async fn restore(host: &Host, care: &Care, dir: &Path, wish: &Wish<'_>) -> Result<Told> {
    let place = Place::open(dir)?;
    let _held = place.hold().context("stop the servers first; nothing was changed")?;
    let ready = Ready::read(host, &place, wish)?;
    // What its servers agreed on about keys ends with it.
    let look = care.look(&control::form(ready.vault.clone()), Arc::new(|_| Ok(()))).await?;
    // What a restore left that was cut off is worth nothing.
    let is_taken = !look.is_restoring && (!look.records.is_empty() || !look.unread.is_empty());
    if is_taken && !wish.overwrite {
        bail!(
            "the store in {} is not empty: --overwrite takes its place, and keeps a backup of it",
            care.names()
        );
    }
    nobody_serves(host, care).await?;
    let mut lines = Vec::new();
    if is_taken {
        let beside = free(&place);
        // Keys have to be in their file before anything is sealed with them.
        ready.vault.save()?;
        write(host, &look, &ready.vault, &beside).context(
            "what is there cannot be kept, and nothing was changed: keep it by etcdctl snapshot save, empty it by etcdctl del \
             --prefix, and try again",
        )?;
        lines.push(format!("a backup of the store that was there is {}", beside.display()));
    }
    let (aside, made, nodes) = ready.make_aside(host, &place, look.revision, wish).await?;
    let filled = fill(host, care, &ready.vault, aside.clone()).await;
    let revision = filled.context("the store holds a part of the backup alone: do it again")?;
    fs::remove_dir_all(&aside).with_context(|| format!("cannot remove {}", aside.display()))?;
    lines.insert(0, format!("{} objects, now after revision {revision}", made.records));
    lines.push(format!(
        "further servers need a copy of {}; one that still runs, cut off from etcd, ends by itself",
        place.keys().display()
    ));
    lines.extend(what_now(&nodes, wish.nothing_runs));
    Ok(Told::well(lines))
}

/// Puts what lies in a store aside in the place of what lies in etcd; gives the revision after which it begins.
async fn fill(host: &Host, care: &Care, vault: &Arc<Vault>, aside: PathBuf) -> Result<store::Revision> {
    let store = control::open_sealed(host, aside, vault.clone()).await?;
    let (records, revision) = (store.list(&Range::default())?.records, store.revision());
    store.close().await;
    let values: Vec<_> = records.iter().map(|record| (record.path.clone(), api::body_of(record))).collect();
    care.refill(&values, revision, &control::form(vault.clone())).await?;
    Ok(revision)
}

/// Refuses while a server lives: each renews its lease all the time, and takes it away when it stops.
async fn nobody_serves(host: &Host, care: &Care) -> Result<()> {
    let before = care.newest(LEASES).await?;
    if before == 0 {
        return Ok(());
    }
    host.sleep(SILENCE_MAX).await;
    ensure!(
        care.newest(LEASES).await? <= before,
        "a server serves on this store: stop all of them first; nothing was changed"
    );
    Ok(())
}

/// Where a backup of what was there goes.
fn free(place: &Place) -> PathBuf {
    let names = (1_u64..).map(|number| place.dir().join(format!("store.before-{number}.backup")));
    // There are more numbers than files.
    names.into_iter().find(|path| !path.exists()).unwrap_or_else(|| place.dir().join("store.before.backup"))
}

async fn rotate_key(host: &Host, settings: &etcd::Settings, place: &Place) -> Result<Told> {
    match place.hold() {
        Ok(_held) => rotation::from_outside(host, settings, place).await?,
        Err(_) => drop(ask(place, api::ROTATE_KEY).await?),
    }
    let mut told = rotated(place);
    told.lines.push(
        "every server that runs has it; one that does not needs a copy of that file before it starts".into(),
    );
    Ok(told)
}

async fn compact(care: &Care) -> Result<Told> {
    let revision = care.compact().await?;
    Ok(Told::well(vec![
        format!("etcd has forgotten what was superseded before revision {revision}"),
        "its files shrink when it is told to (etcdctl defrag)".into(),
    ]))
}
