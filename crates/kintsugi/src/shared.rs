//! A store that several servers share: opening it by the settings, and refusing a server that is not of the same cluster.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use etcd::Etcd;
use host::Host;
use sha2::{Digest, Sha256};
use store::{Form, Limits, Store};

use crate::keys::Keys;
use crate::place::Place;
use crate::settings::{Cluster, StoreSettings};

/// What servers of one cluster have to have in common, by the name under which the store keeps it.
const KEYS: &str = "keys";
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
pub async fn open(host: &Host, settings: &StoreSettings, form: Form) -> Result<Option<(Store, Etcd)>> {
    let Some(etcd) = etcd_settings(settings)? else { return Ok(None) };
    let opened = etcd::open(host, &etcd, form, Arc::new(|_| Ok(())), Limits::default()).await;
    opened.map(Some).context("cannot open the store in etcd")
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

/// Refuses a server whose keys or ranges are not those of the cluster in this store; the first server says what they are.
pub async fn agree(etcd: &Etcd, place: &Place, keys: &Keys, cluster: &Cluster) -> Result<()> {
    let dir = place.keys();
    let sealing = place.store_keys();
    let sealing = std::fs::read(&sealing).with_context(|| format!("cannot read {}", sealing.display()))?;
    let mine = fingerprint(keys, &sealing);
    if etcd.agree(KEYS, &mine).await? != mine {
        bail!(
            "the keys in {} are not those of the cluster in the store at {}: copy the folder from one of its servers, or \
             name another --store-prefix for a cluster of its own",
            dir.display(),
            etcd.names()
        )
    }
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
fn fingerprint(keys: &Keys, sealing: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [&keys.authority.cert, &keys.authority.key, &keys.front_proxy.cert, &keys.token_key] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(sealing);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
