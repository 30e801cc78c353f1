//! Pulling from registries: documents and layers come into a draft, are checked, then unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use oci_client::{Client, secrets};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::images::{Handle, Reference, Store, archive};
use crate::layout::hex;
use crate::{Image, RegistryAuth, RuntimeError};

/// Layers that come at once: enough to fill a line, few enough to be polite.
const LAYERS_AT_ONCE: usize = 3;
/// How long to try to reach a registry.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a registry may be silent in the middle of a layer.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an image's layers as they come, at most.
const IMAGE_LEN_MAX: i64 = 64 << 30;
/// The name under which we are known to registries.
const USER_AGENT: &str = "kintsugi";

/// Which references are being pulled: one at a time pulls, the others take what it got.
#[derive(Default)]
pub(crate) struct Pulls(Mutex<BTreeMap<Wish, Arc<Slot>>>);

/// A reference, and the marks of who asks.
type Wish = (String, Vec<String>);

/// The last success for one reference and its credentials, and how many there were.
#[derive(Default)]
struct Slot {
    count: std::sync::atomic::AtomicU64,
    last: tokio::sync::Mutex<Option<Image>>,
}

impl Pulls {
    /// One for each reference and who asks: what others may have is not for everybody.
    fn slot(&self, reference: &Reference, auth: &[RegistryAuth]) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        let who: Vec<String> = fitting(reference, auth).into_iter().filter_map(|one| one.mark).collect();
        slots.entry((reference.to_string(), who)).or_default().clone()
    }
}

/// Pulls an image, or waits for whoever pulls it already.
pub(crate) async fn pull(
    store: &Store,
    reference: Reference,
    auth: &[RegistryAuth],
) -> Result<Image, RuntimeError> {
    use std::sync::atomic::Ordering;
    let slot = store.pulls.slot(&reference, auth);
    let before = slot.count.load(Ordering::Acquire);
    let mut last = slot.last.lock().await;
    if let Some(image) = last.as_ref().filter(|_| slot.count.load(Ordering::Acquire) > before) {
        return Ok(image.clone());
    }
    let image = pull_with_any(store, &reference, auth).await?;
    *last = Some(image.clone());
    slot.count.fetch_add(1, Ordering::AcqRel);
    Ok(image)
}

/// Tries the credentials that fit, the most fitting first; without any, as nobody.
async fn pull_with_any(
    store: &Store,
    reference: &Reference,
    auth: &[RegistryAuth],
) -> Result<Image, RuntimeError> {
    let mut failure = None;
    for puller in fitting(reference, auth) {
        match pull_with(store, reference, puller).await {
            Ok(image) => return Ok(image),
            Err(error) => failure = Some(error),
        }
    }
    let why = failure.map_or_else(|| "no way to try".to_owned(), |error| explain(&*error));
    Err(RuntimeError::Pull { reference: reference.to_string(), why })
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn explain(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    if error.downcast_ref().is_some_and(is_missing) {
        return format!("the image is not there: {error}");
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

/// Whether the registry knows no such image.
fn is_missing(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => true,
        OciDistributionError::RegistryError { envelope, .. } => envelope
            .errors
            .iter()
            .any(|error| matches!(error.code, OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown)),
        _ => false,
    }
}

/// Who asks a registry.
#[derive(Debug, PartialEq)]
struct Puller {
    /// The mark of the credentials; `None`: nobody in particular.
    mark: Option<String>,
    auth: secrets::RegistryAuth,
}

fn fitting(reference: &Reference, auth: &[RegistryAuth]) -> Vec<Puller> {
    let repository = reference.repository();
    let mut fitting: Vec<(usize, &RegistryAuth)> = auth
        .iter()
        .filter_map(|auth| {
            let place = plain_registry(&auth.registry);
            let rest = repository.strip_prefix(&place)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((place.len(), auth))
        })
        .collect();
    fitting.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
    let puller = |(_, auth): (usize, &RegistryAuth)| Puller {
        mark: Some(auth.mark()),
        auth: secrets::RegistryAuth::Basic(auth.username.clone(), auth.password.clone()),
    };
    match fitting.is_empty() {
        true => vec![Puller { mark: None, auth: secrets::RegistryAuth::Anonymous }],
        false => fitting.into_iter().map(puller).collect(),
    }
}

/// A registry as `docker login` writes it, without what a reference does not have.
fn plain_registry(registry: &str) -> String {
    let plain = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let plain = plain.strip_suffix("/v1").or_else(|| plain.strip_suffix("/v2")).unwrap_or(plain);
    match plain {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        plain => plain.to_owned(),
    }
}

/// A way to the registry: over https, or http to this machine itself unless an authority is laid down for it.
fn client(reference: &Reference, authorities: Vec<Certificate>) -> Result<Client, Cause> {
    // The binary does this first thing; a second time is refused, and no harm.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let is_plain = reference.is_loopback() && authorities.is_empty();
    let plain = if is_plain { vec![reference.registry.clone()] } else { Vec::new() };
    // The library builds a client of the machine's authorities first of all, and panics where there are none.
    if rustls_native_certs::load_native_certs().certs.is_empty() {
        return Err("this machine trusts no certificate authority, and nothing is pulled without: install its package ca-certificates".into());
    }
    // Not `new`: it takes defaults for settings that it cannot use.
    Ok(Client::try_from(ClientConfig {
        extra_root_certificates: authorities,
        protocol: ClientProtocol::HttpsExcept(plain),
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    })?)
}

/// What the operator laid down for a registry; none: the machine's own authorities must do.
fn authorities(dir: Option<&Path>, registry: &str) -> Result<Vec<Certificate>, Cause> {
    let Some(file) = dir.map(|dir| dir.join(registry).join("ca.crt")) else { return Ok(Vec::new()) };
    let refused = |why: &dyn std::fmt::Display| format!("cannot use {}: {why}", file.display());
    let pem = match std::fs::read(&file) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(refused(&error).into()),
    };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let der =
        |one: CertificateDer<'_>| Certificate { encoding: CertificateEncoding::Der, data: one.to_vec() };
    match read {
        Ok(found) if found.is_empty() => Err(refused(&"it has no certificate in PEM").into()),
        Ok(found) => Ok(found.into_iter().map(der).collect()),
        Err(error) => Err(refused(&error).into()),
    }
}

async fn pull_with(store: &Store, reference: &Reference, puller: Puller) -> Result<Image, Cause> {
    let client = client(reference, authorities(store.registry_certs.as_deref(), &reference.registry)?)?;
    let (registry, path) = (reference.registry.clone(), reference.path.clone());
    let remote = match reference.digest.is_empty() {
        true => oci_client::Reference::with_tag(registry, path, reference.tag.clone()),
        false => oci_client::Reference::with_digest(registry, path, reference.digest.clone()),
    };
    let (manifest, digest, config, list_digest) =
        client.pull_manifest_and_config_and_list_digest(&remote, &puller.auth).await?;
    archive::check_digest(config.as_bytes(), &manifest.config.digest)?;
    let size = total(&manifest)?;
    let handle = store.handle();
    let draft = handle.draft()?;
    let files =
        download(&client, &remote, &manifest, &missing(&handle, config.as_bytes())?, &draft.path).await?;
    let digest = list_digest.unwrap_or(digest);
    let mut name = reference.clone();
    name.digest = digest;
    let tag = reference.digest.is_empty().then(|| reference.to_string());
    let unpack = move || -> Result<Image, Cause> {
        let _draft = draft;
        let blobs = files.iter().map(File::open);
        let mut record = archive::assemble(&handle, config.as_bytes(), blobs, size)?;
        record.tags.extend(tag);
        record.pulled_with = puller.mark.map(|mark| BTreeSet::from([mark]));
        record.digests.insert(name.to_string());
        Ok(handle.register(record)?)
    };
    store.host.blocking(unpack).await
}

fn total(manifest: &OciImageManifest) -> io::Result<u64> {
    let sum = manifest.layers.iter().try_fold(0i64, |sum, layer| sum.checked_add(layer.size.max(0)));
    let fits = sum.filter(|sum| *sum <= IMAGE_LEN_MAX && manifest.layers.len() <= archive::LAYERS_MAX);
    fits.map(|sum| sum as u64)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the image is too large"))
}

/// Whether each layer has yet to come.
fn missing(handle: &Handle, config: &[u8]) -> io::Result<Vec<bool>> {
    Ok(archive::chains(config)?.iter().map(|chain| !handle.has_layer(chain)).collect())
}

/// Brings the layers that are missing into files; for others the file is empty.
async fn download(
    client: &Client,
    remote: &oci_client::Reference,
    manifest: &OciImageManifest,
    missing: &[bool],
    dir: &Path,
) -> Result<Vec<PathBuf>, Cause> {
    let layers = manifest.layers.iter().zip(missing.iter().chain(std::iter::repeat(&true))).enumerate();
    let fetches: Vec<_> = layers
        .map(|(number, (layer, missing))| {
            fetch(client, remote, layer, *missing, dir.join(number.to_string()))
        })
        .collect();
    stream::iter(fetches).buffered(LAYERS_AT_ONCE).try_collect().await
}

async fn fetch(
    client: &Client,
    remote: &oci_client::Reference,
    layer: &OciDescriptor,
    missing: bool,
    path: PathBuf,
) -> Result<PathBuf, Cause> {
    let mut file = tokio::fs::File::create(&path).await?;
    if !missing {
        return Ok(path);
    }
    let mut parts = client.pull_blob_stream(remote, layer).await?.stream;
    let mut hash = Sha256::new();
    let mut left = u64::try_from(layer.size).unwrap_or(0);
    while let Some(part) = parts.next().await {
        let part = part?;
        left = left.checked_sub(part.len() as u64).ok_or("the layer is longer than its manifest says")?;
        hash.update(&part);
        file.write_all(&part).await?;
    }
    file.flush().await?;
    let actual = format!("sha256:{}", hex(&hash.finalize()));
    if actual != layer.digest {
        return Err(format!("digest mismatch: layer {actual} instead of {}", layer.digest).into());
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_fitting_credentials_come_first() {
        let auth = |registry: &str, user: &str| RegistryAuth {
            registry: registry.to_owned(),
            username: user.to_owned(),
            password: String::new(),
        };
        let all = [
            auth("https://index.docker.io/v1/", "hub"),
            auth("docker.io/me", "me"),
            auth("docker.io/mean", "mean"),
            auth("example.org", "other"),
        ];
        let check = |reference: &str, want: &[&str]| {
            let reference = Reference::parse(reference).expect("it is a name");
            let users = fitting(&reference, &all).into_iter().map(|puller| match puller.auth {
                secrets::RegistryAuth::Basic(user, _) => user,
                _ => String::new(),
            });
            assert_eq!(users.collect::<Vec<_>>(), want);
        };
        check("me/web", &["me", "hub"]);
        check("web", &["hub"]);
        check("example.org/a", &["other"]);
        check("example.com/a", &[""]);
    }
}
