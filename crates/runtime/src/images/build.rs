//! An image of one program of this machine: no download, no archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::images::index::{Config, Record};
use crate::images::{Handle, Reference, elf, failed};
use crate::layout::hex;
use crate::{Image, RuntimeError};

/// Files that programs expect.
const FILES: [(&str, &str); 4] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\nnobody:x:65534:\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
    ("etc/hostname", "localhost\n"),
];

/// What to make an image of.
#[derive(Debug, Clone, Default)]
pub struct Single {
    /// The program on this machine.
    pub binary: PathBuf,
    /// Its path inside, such as `/kintsugi`.
    pub target: PathBuf,
    /// The image's name.
    pub name: String,
    /// The entry point; empty for the program alone.
    pub entrypoint: Vec<String>,
    /// Default arguments.
    pub command: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
}

/// Makes the image, or finds that the same one is here already.
pub(crate) fn build(store: &Handle, single: &Single) -> Result<Image, RuntimeError> {
    let name = Reference::parse(&single.name)?;
    let doing = format!("make an image of {}", single.binary.display());
    let record = record(single, &name).map_err(|error| failed(&doing, error))?;
    let known =
        store.index()?.images.get(&record.0.id).is_some_and(|known| known.tags.is_superset(&record.0.tags));
    let layer = store.layout.layers().join(&record.0.layers[0]);
    if !layer.is_dir() {
        fill(store, single, &record.1, &layer).map_err(|error| failed(&doing, error))?;
    }
    if known { Ok(record.0.image()) } else { store.register(record.0) }
}

/// The image's record, and the files from this machine by their places inside.
fn record(single: &Single, name: &Reference) -> io::Result<(Record, BTreeMap<PathBuf, PathBuf>)> {
    let mut files = elf::needs(&single.binary)?;
    files.insert(single.target.clone(), single.binary.clone());
    let mut content = Sha256::new();
    let mut size = 0;
    for (inside, here) in &files {
        content.update(inside.as_os_str().as_encoded_bytes());
        let mut file = fs::File::open(here)?;
        size += io::copy(&mut file, &mut content)?;
    }
    FILES.iter().for_each(|(path, text)| content.update(format!("{path}\0{text}")));
    let layer = hex(&content.finalize());
    let program = single.target.to_string_lossy().into_owned();
    let config = Config {
        entrypoint: if single.entrypoint.is_empty() { vec![program] } else { single.entrypoint.clone() },
        cmd: single.command.clone(),
        env: single.env.clone(),
        ..Config::default()
    };
    let id = Sha256::new().chain_update(&layer).chain_update(serde_json::to_vec(&config)?).finalize();
    let record = Record {
        id: format!("sha256:{}", hex(&id)),
        tags: BTreeSet::from([name.to_string()]),
        digests: BTreeSet::new(),
        layers: vec![layer[..32].to_owned()],
        size,
        config,
        pulled_with: None,
    };
    Ok((record, files))
}

fn fill(store: &Handle, single: &Single, files: &BTreeMap<PathBuf, PathBuf>, layer: &Path) -> io::Result<()> {
    let draft = store.draft()?;
    let root = draft.path.join("layer");
    for folder in ["tmp", "etc", "root", "proc", "sys", "dev", "run", "var"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777))?;
    for (path, text) in FILES {
        fs::write(root.join(path), text)?;
    }
    for (inside, here) in files {
        let to = root.join(inside.strip_prefix("/").unwrap_or(inside));
        fs::create_dir_all(to.parent().unwrap_or(&root))?;
        fs::copy(here, &to)?;
    }
    let program = root.join(single.target.strip_prefix("/").unwrap_or(&single.target));
    fs::set_permissions(program, PermissionsExt::from_mode(0o755))?;
    fs::set_permissions(&root, PermissionsExt::from_mode(0o755))?;
    super::put_layer(&root, layer)
}
