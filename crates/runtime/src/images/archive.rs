//! Images from files: OCI layouts and what `docker save` writes; and layers on their way into the store.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::images::index::{Config, Record};
use crate::images::reference::is_digest;
use crate::images::{Handle, Reference, failed, unpack};
use crate::layout::hex;
use crate::{Image, RuntimeError};

/// Bytes of a manifest, index or configuration at most: the distribution specification's 4 MiB.
pub(crate) const DOCUMENT_LEN_MAX: u64 = 4 << 20;
/// Layers of an image at most: overlayfs takes some hundred, and one page must hold their names.
pub(crate) const LAYERS_MAX: usize = 120;
/// Indexes within indexes followed.
const DEPTH_MAX: usize = 4;
/// Annotations that name an image in an OCI layout, the fuller name first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// An image's configuration, as far as we read it.
#[derive(Deserialize)]
pub(crate) struct ImageFile {
    #[serde(default)]
    config: Option<Config>,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Where a document or layer is.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// A manifest or an index, whichever it is.
#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// An entry of `docker save`'s list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

/// The architecture's name among images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Imports all images that a file or folder has for this machine.
pub(crate) fn import(store: &Handle, path: &Path) -> Result<Vec<Image>, RuntimeError> {
    let doing = format!("import {}", path.display());
    let records = read(store, path).map_err(|error| failed(&doing, error))?;
    records.into_iter().map(|record| store.register(record)).collect()
}

fn read(store: &Handle, path: &Path) -> io::Result<Vec<Record>> {
    if path.is_dir() {
        return Layout::open(path)?.records(store);
    }
    let draft = store.draft()?;
    let root = draft.path.join("archive");
    std::fs::create_dir(&root)?;
    unpack::unpack(File::open(path)?, &root, &[])?;
    Layout::open(&root)?.records(store)
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// A folder with images.
struct Layout(OwnedFd);

impl Layout {
    fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(|file| Self(file.into()))
    }

    fn file(&self, path: &Path) -> io::Result<File> {
        let file = unpack::open_beneath(&self.0, path, OFlags::RDONLY | OFlags::NONBLOCK);
        file.map(File::from)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn text(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.file(path)?.take(DOCUMENT_LEN_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > DOCUMENT_LEN_MAX { Err(invalid("a document is too long")) } else { Ok(text) }
    }

    fn records(&self, store: &Handle) -> io::Result<Vec<Record>> {
        let records = match self.text(Path::new("manifest.json")) {
            Ok(text) => self.saved(store, &text)?,
            Err(_) => self.indexed(store)?,
        };
        if records.is_empty() {
            return Err(invalid(format!("it has no image for linux/{}", architecture())));
        }
        Ok(records)
    }

    fn saved(&self, store: &Handle, text: &[u8]) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for saved in serde_json::from_slice::<Vec<Saved>>(text)? {
            let config = self.text(&saved.config)?;
            let mut size = 0;
            let mut blobs = Vec::new();
            for layer in &saved.layers {
                let blob = self.file(layer)?;
                size += blob.metadata()?.len();
                blobs.push(blob);
            }
            let tags = saved.repo_tags.unwrap_or_default();
            let record = assemble(store, &config, blobs.into_iter().map(Ok), size)?;
            records.push(record.named(tags.iter().map(String::as_str))?);
        }
        Ok(records)
    }

    fn indexed(&self, store: &Handle) -> io::Result<Vec<Record>> {
        let index: Document = serde_json::from_slice(&self.text(Path::new("index.json"))?)?;
        let mut records = Vec::new();
        for entry in &index.manifests {
            let Some(manifest) = self.manifest(entry, DEPTH_MAX)? else { continue };
            let Some(config) = &manifest.config else { continue };
            let config = self.blob_text(config)?;
            let blobs = manifest.layers.iter().map(|layer| self.blob(layer));
            let size = manifest.layers.iter().map(|layer| layer.size).sum();
            let name = NAMES.iter().find_map(|name| entry.annotations.get(*name));
            records.push(assemble(store, &config, blobs, size)?.named(name.map(String::as_str))?);
        }
        Ok(records)
    }

    /// The manifest for this machine behind an entry; `None` when there is none.
    fn manifest(&self, entry: &Descriptor, depth_left: usize) -> io::Result<Option<Document>> {
        let fits = |p: &Platform| p.os == "linux" && p.architecture == architecture();
        if !entry.platform.as_ref().is_none_or(fits) {
            return Ok(None);
        }
        let document: Document = serde_json::from_slice(&self.blob_text(entry)?)?;
        if document.config.is_some() {
            return Ok(Some(document));
        }
        let left = depth_left.checked_sub(1).ok_or_else(|| invalid("too many indexes within each other"))?;
        for inner in &document.manifests {
            if let Some(found) = self.manifest(inner, left)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn blob(&self, blob: &Descriptor) -> io::Result<File> {
        if !is_digest(&blob.digest) {
            return Err(invalid(format!("{:?} is no digest", blob.digest)));
        }
        self.file(&Path::new("blobs").join(blob.digest.replacen(':', "/", 1)))
    }

    fn blob_text(&self, blob: &Descriptor) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        self.blob(blob)?.take(DOCUMENT_LEN_MAX).read_to_end(&mut text)?;
        check_digest(&text, &blob.digest)?;
        Ok(text)
    }
}

/// Refuses bytes that are not the digest's.
pub(crate) fn check_digest(bytes: &[u8], digest: &str) -> io::Result<()> {
    let actual = format!("sha256:{}", hex(&Sha256::digest(bytes)));
    if actual == digest {
        Ok(())
    } else {
        Err(invalid(format!("digest mismatch: {actual} instead of {digest}")))
    }
}

/// Unpacks an image's layers and makes its record, without names.
pub(crate) fn assemble(
    store: &Handle,
    config: &[u8],
    blobs: impl Iterator<Item = io::Result<File>>,
    size: u64,
) -> io::Result<Record> {
    let file: ImageFile = serde_json::from_slice(config)?;
    let runs = |actual: &str, wanted: &str| actual.is_empty() || actual == wanted;
    if !runs(&file.os, "linux") || !runs(&file.architecture, architecture()) {
        return Err(invalid(format!("it is for {}/{}, not for this machine", file.os, file.architecture)));
    }
    let diff_ids = file.rootfs.diff_ids;
    if diff_ids.len() > LAYERS_MAX || !diff_ids.iter().all(|id| is_digest(id)) {
        return Err(invalid("its list of layers is not valid"));
    }
    let mut layers: Vec<String> = Vec::new();
    let mut chain = String::new();
    let mut count = 0;
    for (blob, diff_id) in blobs.zip(&diff_ids) {
        chain = chain_id(&chain, diff_id);
        store.add_layer(blob?, &chain, diff_id, &layers)?;
        layers.push(folder_of(&chain));
        count += 1;
    }
    if count != diff_ids.len() {
        return Err(invalid(format!("it has {count} layers instead of {}", diff_ids.len())));
    }
    let id = format!("sha256:{}", hex(&Sha256::digest(config)));
    let (tags, digests) = (BTreeSet::new(), BTreeSet::new());
    Ok(Record { id, tags, digests, layers, size, config: file.config.unwrap_or_default(), pulled_with: None })
}

/// The digest of a layer and all beneath it: what the same layer means depends on them.
pub(crate) fn chain_id(beneath: &str, diff_id: &str) -> String {
    if beneath.is_empty() {
        return diff_id.to_owned();
    }
    format!("sha256:{}", hex(&Sha256::digest(format!("{beneath} {diff_id}"))))
}

/// The folder of a layer: short, because the kernel wants the names of all layers in one page.
fn folder_of(chain: &str) -> String {
    chain.trim_start_matches("sha256:")[..32].to_owned()
}

impl Handle {
    /// Whether a layer is here.
    pub(crate) fn has_layer(&self, chain: &str) -> bool {
        self.layout.layers().join(folder_of(chain)).is_dir()
    }

    /// Unpacks a layer, unless it is here.
    fn add_layer(&self, blob: File, chain: &str, diff_id: &str, beneath: &[String]) -> io::Result<()> {
        if self.has_layer(chain) {
            return Ok(());
        }
        let draft = self.draft()?;
        let root = draft.path.join("layer");
        std::fs::create_dir(&root)?;
        let lowers: Vec<PathBuf> =
            beneath.iter().rev().map(|layer| self.layout.layers().join(layer)).collect();
        let actual = unpack::unpack(blob, &root, &lowers)?;
        if actual != *diff_id {
            return Err(invalid(format!("digest mismatch: layer {actual} instead of {diff_id}")));
        }
        super::put_layer(&root, &self.layout.layers().join(folder_of(chain)))
    }
}

impl Record {
    /// Gives it names with tags.
    fn named<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        for name in names {
            let reference = Reference::parse(name).map_err(io::Error::other)?;
            self.tags.insert(reference.to_string());
        }
        Ok(self)
    }
}

/// The layers that an image's configuration names, as chains.
pub(crate) fn chains(config: &[u8]) -> io::Result<Vec<String>> {
    let file: ImageFile = serde_json::from_slice(config)?;
    let mut chain = String::new();
    Ok(file
        .rootfs
        .diff_ids
        .iter()
        .map(|diff_id| {
            chain = chain_id(&chain, diff_id);
            chain.clone()
        })
        .collect())
}
