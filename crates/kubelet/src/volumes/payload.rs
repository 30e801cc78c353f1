//! What the files of a volume hold. Pure: objects go in, names, bytes and modes come out.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMapProjection, DownwardAPIVolumeFile, KeyToPath, SecretProjection, ServiceAccountTokenProjection,
    Volume,
};

use crate::environment::{self, Facts, Missing};
use crate::pod::Member;
use crate::resources;

/// The mode of files when nobody names another.
const MODE: u32 = 0o644;

/// Files by their path inside the volume.
pub type Payload = BTreeMap<String, Content>;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its mode.
    pub mode: u32,
    /// Whether it is a token, which belongs to the pod's user where that is known.
    pub is_token: bool,
}

/// A token that a volume shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenWish {
    /// For whom it is; empty for the API server.
    pub audience: String,
    /// How long it is to be good, in seconds.
    pub seconds: i64,
}

impl TokenWish {
    fn of(projection: &ServiceAccountTokenProjection) -> TokenWish {
        TokenWish {
            audience: projection.audience.clone().unwrap_or_default(),
            seconds: projection.expiration_seconds.unwrap_or(3600),
        }
    }
}

/// The tokens that a volume shows.
pub fn tokens(volume: &Volume) -> Vec<TokenWish> {
    let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref()).map(TokenWish::of).collect()
}

/// The files of a volume; `None` when its kind is not made of files that we write.
pub fn payload(
    volume: &Volume,
    facts: &Facts<'_>,
    tokens: &BTreeMap<TokenWish, String>,
) -> Option<Result<Payload, Missing>> {
    let mut files = Payload::new();
    let done = if let Some(source) = &volume.config_map {
        let projection = ConfigMapProjection {
            name: source.name.clone(),
            items: source.items.clone(),
            optional: source.optional,
        };
        config_map(&projection, mode(source.default_mode), facts, &mut files)
    } else if let Some(source) = &volume.secret {
        let projection = SecretProjection {
            name: source.secret_name.clone().unwrap_or_default(),
            items: source.items.clone(),
            optional: source.optional,
        };
        secret(&projection, mode(source.default_mode), facts, &mut files)
    } else if let Some(source) = &volume.downward_api {
        downward(source.items.as_deref(), mode(source.default_mode), facts, &mut files)
    } else if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        projected.sources.iter().flatten().try_for_each(|source| {
            if let Some(source) = &source.config_map {
                config_map(source, mode, facts, &mut files)?;
            }
            if let Some(source) = &source.secret {
                secret(source, mode, facts, &mut files)?;
            }
            if let Some(source) = &source.downward_api {
                downward(source.items.as_deref(), mode, facts, &mut files)?;
            }
            if let Some(source) = &source.service_account_token {
                let token = tokens.get(&TokenWish::of(source));
                let token = token.ok_or_else(|| Missing("no service account token".into()))?;
                let content = Content { bytes: token.clone().into_bytes(), mode, is_token: true };
                put(&mut files, &source.path, content)?;
            }
            if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                return Err(Missing("this node cannot project trust bundles or pod certificates".into()));
            }
            Ok(())
        })
    } else {
        return None;
    };
    Some(done.map(|()| files))
}

fn mode(asked: Option<i32>) -> u32 {
    asked.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(MODE) & 0o777
}

fn put(files: &mut Payload, path: &str, content: Content) -> Result<(), Missing> {
    let parts: Vec<_> = path.split('/').collect();
    let is_safe =
        !path.is_empty() && parts.iter().all(|part| !part.is_empty() && *part != "." && *part != "..");
    if !is_safe || parts[0].starts_with("..") {
        return Err(Missing(format!("invalid path {path:?} in a volume")));
    }
    files.insert(path.to_owned(), content);
    Ok(())
}

fn config_map(
    source: &ConfigMapProjection,
    mode: u32,
    facts: &Facts<'_>,
    files: &mut Payload,
) -> Result<(), Missing> {
    let is_optional = source.optional.unwrap_or(false);
    let Some(map) = facts.sources.config_maps.get(&source.name) else {
        return absent(is_optional, "configmap", &source.name);
    };
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    let data = text.chain(binary).collect();
    select(&data, source.items.as_deref(), mode, is_optional, files)
}

fn secret(
    source: &SecretProjection,
    mode: u32,
    facts: &Facts<'_>,
    files: &mut Payload,
) -> Result<(), Missing> {
    let is_optional = source.optional.unwrap_or(false);
    let Some(secret) = facts.sources.secrets.get(&source.name) else {
        return absent(is_optional, "secret", &source.name);
    };
    let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect();
    select(&data, source.items.as_deref(), mode, is_optional, files)
}

fn absent(is_optional: bool, kind: &str, name: &str) -> Result<(), Missing> {
    if is_optional { Ok(()) } else { Err(Missing(format!("{kind} {name:?} not found"))) }
}

fn select(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    default: u32,
    is_optional: bool,
    files: &mut Payload,
) -> Result<(), Missing> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return data.iter().try_for_each(|(key, bytes)| {
            put(files, key, Content { bytes: bytes.to_vec(), mode: default, is_token: false })
        });
    };
    for item in items {
        match data.get(item.key.as_str()) {
            Some(bytes) => {
                let mode = item.mode.map_or(default, |own| mode(Some(own)));
                put(files, &item.path, Content { bytes: bytes.to_vec(), mode, is_token: false })?;
            }
            None if is_optional => {}
            None => return Err(Missing(format!("references non-existent config key: {}", item.key))),
        }
    }
    Ok(())
}

fn downward(
    items: Option<&[DownwardAPIVolumeFile]>,
    default: u32,
    facts: &Facts<'_>,
    files: &mut Payload,
) -> Result<(), Missing> {
    for item in items.unwrap_or_default() {
        let value = if let Some(field) = &item.field_ref {
            environment::field(facts, field)?
        } else if let Some(field) = &item.resource_field_ref {
            let nobody = Member {
                role: crate::pod::Role::Main,
                container: Default::default(),
                target: None,
                hash: String::new(),
            };
            let value = resources::field(facts.pod, &nobody, field, &facts.node.allocatable);
            value.ok_or_else(|| Missing(format!("unsupported container resource: {}", field.resource)))?
        } else {
            return Err(Missing(format!("nothing is named for {:?}", item.path)));
        };
        let mode = item.mode.map_or(default, |own| mode(Some(own)));
        put(files, &item.path, Content { bytes: value.into_bytes(), mode, is_token: false })?;
    }
    Ok(())
}
