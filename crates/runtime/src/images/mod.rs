//! Images: importing, pulling, unpacking, listing, removing.
//!
//! Promises: what the index names is whole and on disk; a crash at any moment leaves the index as it was, and drafts
//! that the next opening removes. Digests are checked before anything counts. Several processes may use one store: each
//! change holds its lock. Never runs anything of an image.

mod archive;
mod build;
mod elf;
mod index;
mod pull;
mod reference;
mod show;
mod unpack;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use host::Host;

use crate::layout::Layout;
use crate::{Image, RegistryAuth, RuntimeError};

pub use build::Single;
pub use reference::Reference;

use index::{Index, Record};

/// The images of one data directory.
pub struct Store {
    host: Host,
    layout: Layout,
    pulls: pull::Pulls,
    registry_certs: Option<PathBuf>,
}

impl Store {
    /// Opens the store of a data directory, makes it when missing, and removes what a crash left of drafts.
    pub fn open(host: Host, data_dir: &Path) -> Result<Self, RuntimeError> {
        let layout = Layout::new(&absolute(data_dir)?);
        let store = Self { host, layout, pulls: pull::Pulls::default(), registry_certs: None };
        let make = || {
            fs::create_dir_all(store.layout.layers().join("empty"))?;
            fs::create_dir_all(store.drafts())?;
            store.remove_old_drafts()
        };
        make().map_err(|error| failed("open the image store", error))?;
        Ok(store)
    }

    /// The same, which trusts a registry by `HOST[:PORT]/ca.crt` in a folder, as PEM, beside the machine's authorities. The
    /// file is read at each pull.
    pub fn trusting(self, registry_certs: Option<PathBuf>) -> Self {
        Self { registry_certs, ..self }
    }

    /// Imports an OCI layout (a folder or an archive) or what `docker save` wrote, compressed or not.
    pub async fn import(&self, path: &Path) -> Result<Vec<Image>, RuntimeError> {
        let (store, path) = (self.handle(), path.to_path_buf());
        self.host.blocking(move || archive::import(&store, &path)).await
    }

    /// All images, ordered by id.
    pub async fn list(&self) -> Result<Vec<Image>, RuntimeError> {
        let store = self.handle();
        let index = self.host.blocking(move || store.index()).await?;
        Ok(index.images.values().map(Record::image).collect())
    }

    /// The image that a reference (or an id) names.
    pub async fn find(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(self.record(reference).await?.map(|record| record.image()))
    }

    pub(crate) async fn record(&self, reference: &str) -> Result<Option<Record>, RuntimeError> {
        let wanted = Wanted::parse(reference)?;
        // A small file in the kernel's cache: not worth a thread.
        Ok(self.handle().index()?.find(&wanted).cloned())
    }

    /// Removes a name; with its last one, or when named by its id, the image goes, unless a container runs it.
    pub async fn remove(&self, reference: &str) -> Result<(), RuntimeError> {
        let (store, wanted) = (self.handle(), Wanted::parse(reference)?);
        let reference = reference.to_owned();
        self.host.blocking(move || store.remove(&reference, &wanted)).await
    }

    /// Shows the files of an image at a folder, read-only; does nothing when something is shown there already.
    pub async fn show(&self, image_id: &str, target: &Path) -> Result<(), RuntimeError> {
        let record = self.record(image_id).await?;
        let record = record.ok_or_else(|| RuntimeError::NotFound(format!("image {image_id}")))?;
        let (layers, target) = (self.layout.layers(), target.to_path_buf());
        let shown = self.host.blocking(move || show::show(&layers, &record, &target)).await;
        shown.map_err(|error| failed(format!("show image {image_id}"), error))
    }

    /// Pulls an image from its registry. Pulls of one reference at once are one.
    pub async fn pull(&self, reference: &str, auth: &[RegistryAuth]) -> Result<Image, RuntimeError> {
        let reference = Reference::parse(reference)?;
        pull::pull(self, reference, auth).await
    }

    /// Makes an image of one program of this machine, with the shared libraries it needs, and names it.
    pub async fn build_single(&self, single: Single) -> Result<Image, RuntimeError> {
        let store = self.handle();
        self.host.blocking(move || build::build(&store, &single)).await
    }

    fn drafts(&self) -> PathBuf {
        self.layout.images().join("drafts")
    }

    fn handle(&self) -> Handle {
        Handle { layout: self.layout.clone(), chance: self.host.chance().fork() }
    }

    fn remove_old_drafts(&self) -> io::Result<()> {
        let handle = self.handle();
        let Ok(_lock) = handle.try_lock() else { return Ok(()) };
        for entry in fs::read_dir(self.drafts())?.flatten() {
            // Drafts of a process that lives are held by a lock of their own.
            if handle.is_abandoned(&entry.path()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(())
    }
}

/// What a name means: an id, or a reference.
pub(crate) enum Wanted {
    /// `sha256:…` of a configuration.
    Id(String),
    /// A normalised reference.
    Name(Reference),
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, RuntimeError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Wanted::Id(format!("sha256:{hex}")));
        }
        Reference::parse(text).map(Wanted::Name)
    }
}

/// The store as blocking work sees it.
#[derive(Clone)]
pub(crate) struct Handle {
    layout: Layout,
    chance: host::Chance,
}

/// A folder that goes when its maker goes, unless it was moved away.
pub(crate) struct Draft {
    /// Where it is.
    pub path: PathBuf,
    _lock: fs::File,
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(lock_of(&self.path));
    }
}

fn lock_of(draft: &Path) -> PathBuf {
    draft.with_extension("lock")
}

impl Handle {
    fn index(&self) -> Result<Index, RuntimeError> {
        Index::read(&self.index_path()).map_err(|error| failed("read the index of images", error))
    }

    fn index_path(&self) -> PathBuf {
        self.layout.images().join("index.json")
    }

    /// A new folder for work in progress.
    fn draft(&self) -> io::Result<Draft> {
        let path = self.layout.images().join("drafts").join(self.chance.suffix(16));
        let lock = fs::File::create(lock_of(&path))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        fs::create_dir(&path)?;
        Ok(Draft { path, _lock: lock })
    }

    fn is_abandoned(&self, draft: &Path) -> bool {
        let Ok(lock) = fs::File::open(lock_of(draft)) else { return draft.is_dir() };
        let free = rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        if free {
            let _ = fs::remove_file(lock_of(draft));
        }
        free
    }

    fn try_lock(&self) -> io::Result<fs::File> {
        let file = fs::File::create(self.layout.images().join("lock"))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    /// Changes the index under the store's lock; `after` runs under it too, when the change is on disk.
    fn change<T>(
        &self,
        work: impl FnOnce(&mut Index) -> io::Result<T>,
        after: impl FnOnce(&T) -> io::Result<()>,
    ) -> Result<T, RuntimeError> {
        let change = || -> io::Result<T> {
            let lock = fs::File::create(self.layout.images().join("lock"))?;
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)?;
            let mut index = Index::read(&self.index_path())?;
            let done = work(&mut index)?;
            index.write(&self.index_path())?;
            after(&done)?;
            Ok(done)
        };
        change().map_err(|error| failed("change the index of images", error))
    }

    /// Puts an image whose layers are in place into the index, and has it all on disk first.
    fn register(&self, record: Record) -> Result<Image, RuntimeError> {
        let sync = || rustix::fs::syncfs(fs::File::open(self.layout.layers())?).map_err(io::Error::from);
        sync().map_err(|error| failed("sync layers", error))?;
        let add = |index: &mut Index| {
            let here = |layer: &String| self.layout.layers().join(layer).is_dir();
            if record.layers.iter().all(here) {
                return Ok(index.add(record).image());
            }
            Err(io::Error::other("a layer was removed meanwhile"))
        };
        self.change(add, |_| Ok(()))
    }

    fn remove(&self, reference: &str, wanted: &Wanted) -> Result<(), RuntimeError> {
        let not_here = || RuntimeError::NotFound(format!("image {reference}"));
        let record = self.index()?.find(wanted).cloned().ok_or_else(not_here)?;
        let last = record.tags.len() <= 1 || matches!(wanted, Wanted::Id(_));
        if last && self.in_use(&record.id) {
            return Err(RuntimeError::Config(format!("image {reference} is in use by a container")));
        }
        let discard = |layers: &Vec<String>| layers.iter().try_for_each(|layer| self.discard_layer(layer));
        self.change(|index| Ok(index.remove(wanted)), discard).map(drop)
    }

    fn discard_layer(&self, layer: &str) -> io::Result<()> {
        let draft = self.draft()?;
        match fs::rename(self.layout.layers().join(layer), draft.path.join("layer")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Whether a container that was not removed runs this image, or a folder shows it.
    fn in_use(&self, id: &str) -> bool {
        if show::is_shown(self.layout.root(), id) {
            return true;
        }
        let folders = |dir: &Path| {
            fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect::<Vec<_>>()
        };
        let pods = folders(&self.layout.pods());
        let mut containers = pods.iter().flat_map(|pod| folders(&pod.join("containers")));
        containers.any(|container| {
            let record =
                crate::wire::read_whole::<crate::wire::ContainerRecord>(&container.join("state.json"));
            record.is_ok_and(|record| record.exit.is_none() && record.spec.image_id == id)
        })
    }
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, RuntimeError> {
    std::path::absolute(path).map_err(|error| failed("name the data directory", error))
}

pub(crate) fn failed(
    doing: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RuntimeError {
    RuntimeError::Failed { doing: format!("cannot {}", doing.into()), source: source.into() }
}

/// Moves an unpacked layer to its place; when another process was faster, its layer is as good.
fn put_layer(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(_) if to.is_dir() => Ok(()),
        done => done,
    }
}
