//! Which images there are: one small file, replaced whole.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Image;
use crate::images::Wanted;

/// All images.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Index {
    /// By id.
    pub images: BTreeMap<String, Record>,
}

/// One image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// `sha256:…` of its configuration.
    pub id: String,
    /// Names with tags, normalised.
    pub tags: BTreeSet<String>,
    /// Names with digests, normalised.
    pub digests: BTreeSet<String>,
    /// Folders of its layers, lowest first.
    pub layers: Vec<String>,
    /// Bytes of its layers.
    pub size: u64,
    /// What its configuration says.
    pub config: Config,
    /// The marks of the credentials that pulled it; none: it is open to all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pulled_with: Option<BTreeSet<String>>,
}

/// The part of an image's configuration that running it needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Config {
    /// `uid`, `name`, either with `:group`.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Its entry point.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Where it starts.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// Paths of volumes.
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// What stops it.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
}

/// Builders write `null` for what is absent.
fn or_default<'de, T: Default + Deserialize<'de>, D: serde::Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Record {
    /// The image as the outside sees it.
    pub(crate) fn image(&self) -> Image {
        let config = self.config.clone();
        Image {
            id: self.id.clone(),
            tags: self.tags.iter().cloned().collect(),
            digests: self.digests.iter().cloned().collect(),
            size: self.size,
            user: config.user,
            entrypoint: config.entrypoint,
            command: config.cmd,
            env: config.env,
            working_dir: config.working_dir,
            volumes: config.volumes.into_keys().collect(),
            stop_signal: config.stop_signal,
            pulled_with: self.pulled_with.clone(),
        }
    }
}

impl Index {
    /// Reads the file; none is an empty index.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file; on disk when this returns.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let draft = path.with_extension("tmp");
        let mut file = std::fs::File::create(&draft)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)?;
        std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    /// The image that is meant.
    pub(crate) fn find(&self, wanted: &Wanted) -> Option<&Record> {
        match wanted {
            Wanted::Id(id) => self.images.get(id),
            Wanted::Name(name) => {
                let text = name.to_string();
                let named = |record: &&Record| record.tags.contains(&text) || record.digests.contains(&text);
                self.images.values().find(named)
            }
        }
    }

    /// Adds an image or names to one. A tag that another image had moves here.
    pub(crate) fn add(&mut self, record: Record) -> &Record {
        for other in self.images.values_mut().filter(|other| other.id != record.id) {
            other.tags.retain(|tag| !record.tags.contains(tag));
        }
        let Record { id, tags, digests, pulled_with, .. } = record.clone();
        let kept = self.images.entry(id).or_insert(record);
        kept.tags.extend(tags);
        kept.digests.extend(digests);
        // What anybody could have once is no secret any more.
        kept.pulled_with = kept.pulled_with.take().zip(pulled_with).map(|(mut marks, more)| {
            marks.extend(more);
            marks
        });
        kept
    }

    /// Removes a name, or an image with all its names. Returns the layers that no image needs any more.
    pub(crate) fn remove(&mut self, wanted: &Wanted) -> Vec<String> {
        let Some(id) = self.find(wanted).map(|record| record.id.clone()) else { return Vec::new() };
        if let (Wanted::Name(name), Some(record)) = (wanted, self.images.get_mut(&id)) {
            let text = name.to_string();
            record.tags.remove(&text);
            record.digests.remove(&text);
            // A digest of the repository whose tag just went names the same pull.
            if record.tags.is_empty() {
                record.digests.retain(|digest| !digest.starts_with(&format!("{}@", name.repository())));
            }
            if !(record.tags.is_empty() && record.digests.is_empty()) {
                return Vec::new();
            }
        }
        let Some(gone) = self.images.remove(&id) else { return Vec::new() };
        let needed: BTreeSet<&String> = self.images.values().flat_map(|record| &record.layers).collect();
        gone.layers.into_iter().filter(|layer| !needed.contains(layer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RegistryAuth;

    fn record(id: &str, tag: &str, layers: &[&str]) -> Record {
        let layers = layers.iter().map(|layer| (*layer).to_owned()).collect();
        Record { id: id.to_owned(), tags: [tag.to_owned()].into(), layers, ..Record::default() }
    }

    #[test]
    fn a_tag_moves_to_the_newest_image() {
        let mut index = Index::default();
        index.add(record("one", "docker.io/library/web:1", &["a"]));
        index.add(record("two", "docker.io/library/web:1", &["a", "b"]));
        let wanted = Wanted::parse("web:1").expect("it is a name");
        assert_eq!(index.find(&wanted).map(|record| record.id.as_str()), Some("two"));
        assert!(index.images["one"].tags.is_empty());
    }

    #[test]
    fn who_pulled_an_image_may_use_it_and_everybody_once_anybody_could_have_it() {
        let auth = |password: &str| RegistryAuth {
            registry: "example.org".to_owned(),
            username: "ann".to_owned(),
            password: password.to_owned(),
        };
        let mut index = Index::default();
        let pulled_with = |password: Option<&str>| Record {
            pulled_with: password.map(|password| BTreeSet::from([auth(password).mark()])),
            ..record("one", "example.org/web:1", &["a"])
        };
        let mut check = |pulled: Option<&str>, open_to: [bool; 3]| {
            let image = index.add(pulled_with(pulled)).image();
            let nobody = image.is_open_to(&[]);
            let seen =
                [nobody, image.is_open_to(&[auth("old")]), image.is_open_to(&[auth("x"), auth("new")])];
            assert_eq!(seen, open_to, "{pulled:?}");
        };
        check(Some("old"), [false, true, false]);
        check(Some("new"), [false, true, true]);
        check(None, [true, true, true]);
        check(Some("new"), [true, true, true]);
    }

    #[test]
    fn layers_stay_while_another_image_needs_them() {
        let mut index = Index::default();
        index.add(record("one", "docker.io/library/web:1", &["a"]));
        index.add(record("two", "docker.io/library/web:2", &["a", "b"]));
        assert_eq!(index.remove(&Wanted::parse("web:2").expect("it is a name")), ["b"]);
        assert_eq!(index.remove(&Wanted::parse("web:1").expect("it is a name")), ["a"]);
        assert!(index.images.is_empty());
    }
}
