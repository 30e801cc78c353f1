//! A store that several servers share: opening it by the settings, and refusing a server that is not of the same cluster.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use etcd::Etcd;
use host::Host;
use sha2::{Digest, Sha256};
use store::{Limits, Store};

use crate::control;
use crate::keys::Keys;
use crate::place::Place;
use crate::settings::{Cluster, StoreSettings};
use crate::vault::Vault;

/// What servers of one cluster have to have in common, by the name under which the store keeps it.
pub const KEYS: &str = "keys";
/// See [`KEYS`].
const RANGES: &str = "ranges";

/// Where the store in etcd is, where the settings name one.
pub fn etcd_settings(settings: &StoreSettings) -> Result<Option<etcd::Settings>> {
    let Some(store) = &settings.store else { return Ok(None) };
    let Some(urls) = store.strip_prefix("etcd=") else {
        bail!(
            "--store {store} is none that there is: etcd=URL[,URL...], or nothing for a store in the data directory"
        )
    };
    let mut etcd = etcd::Settings::new(urls).context("--store")?;
    etcd.prefix.clone_from(&settings.store_prefix);
    let read = |file: &Path| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    etcd.authority_pem = settings.store_cafile.as_deref().map(read).transpose()?;
    etcd.certificate = match (&settings.store_certfile, &settings.store_keyfile) {
        (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
        (None, None) => None,
        _ => bail!("--store-certfile and --store-keyfile go together"),
    };
    Ok(Some(etcd))
}

/// Opens the store in etcd, where the settings name one.
pub async fn open(
    host: &Host,
    settings: &StoreSettings,
    vault: &Arc<Vault>,
) -> Result<Option<(Store, Etcd)>> {
    match etcd_settings(settings)? {
        Some(etcd) => open_with(host, &etcd, vault).await.map(Some),
        None => Ok(None),
    }
}

/// Opens a store in etcd; the keys heed what its servers agree on.
pub async fn open_with(host: &Host, etcd: &etcd::Settings, vault: &Arc<Vault>) -> Result<(Store, Etcd)> {
    let opened = etcd::open(host, etcd, control::form(vault.clone()), vault.heed(), Limits::default()).await;
    opened.context("cannot open the store in etcd")
}

/// Refuses to make new keys where the cluster in this store has some already.
pub async fn check_before_keys(etcd: &Etcd, dir: &Path) -> Result<()> {
    let is_new = !dir.join("ca.crt").exists() || !dir.join("store.keys").exists();
    if is_new && etcd.agreed(KEYS).await?.is_some() {
        bail!(
            "the cluster in the store at {} has keys already, and {} has none: copy that folder from one of its servers, \
             readable by its owner alone",
            etcd.names(),
            dir.display()
        )
    }
    Ok(())
}

/// Refuses a server whose keys are not those of the cluster in this store; the first server says what they are. Of several
/// keys of the store, as a rotation leaves them in a file, those are dropped that are not agreed on.
pub async fn agree_on_keys(
    host: &Host,
    etcd: &Etcd,
    place: &Place,
    keys: &Keys,
    vault: &Vault,
) -> Result<()> {
    let mine: Vec<String> =
        vault.each_alone()?.iter().map(|alone| fingerprint(keys, alone.as_bytes())).collect();
    let first = mine.first().context("there are no keys")?;
    let theirs = etcd.agree(KEYS, first).await?;
    let Some(at) = mine.iter().position(|print| *print == theirs) else {
        bail!(
            "the keys in {} are not those of the cluster in the store at {}: copy the folder from one of its servers, or \
             name another --store-prefix for a cluster of its own",
            place.keys().display(),
            etcd.names()
        )
    };
    match vault.is_rotating() {
        true => vault.save_beside(host).await,
        false => vault.keep_one(host, at).await,
    }
}

/// Refuses a server whose ranges are not those of the cluster in this store; the first server says what they are.
pub async fn agree_on_ranges(etcd: &Etcd, cluster: &Cluster) -> Result<()> {
    let Cluster { service_cidr, pod_cidr, cluster_domain, .. } = cluster;
    let mine =
        format!("--service-cidr {service_cidr} --pod-cidr {pod_cidr} --cluster-domain {cluster_domain}");
    let theirs = etcd.agree(RANGES, &mine).await?;
    if theirs != mine {
        bail!(
            "the servers of the cluster in the store at {} are started with {theirs}, not with {mine}",
            etcd.names()
        )
    }
    Ok(())
}

/// What tells the keys of one cluster from those of another, and nothing else about them.
pub fn fingerprint(keys: &Keys, sealing: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [&keys.authority.cert, &keys.authority.key, &keys.front_proxy.cert, &keys.token_key] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(sealing);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
