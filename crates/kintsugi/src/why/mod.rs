//! `kintsugi why KIND/NAME`: the story of one object, in order: what is known of it, what happened, what to try next.
//!
//! Reads only, as the user of a kubeconfig. What is gathered is told by [`story::tell`], which is pure.

mod gather;
mod story;

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use client::{Access, Client, Https};
use host::Host;
use model::kinds::{KINDS, Kind};

use crate::settings::Why;

pub use story::{Told, tell};

/// The story of the subject that the settings name.
pub async fn run(host: &Host, settings: &Why) -> Result<String> {
    let path = settings.kubeconfig.clone().unwrap_or_else(|| settings.data.data_dir.join("kubeconfig"));
    let kubeconfig = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let transport = Https::new(&Access::from_kubeconfig(&kubeconfig)?)?;
    let client = Client::new(Arc::new(transport), "kintsugi-why");
    let (kind, name) = subject(&settings.subject)?;
    let told = gather::gather(&client, kind, &settings.namespace, name).await?;
    Ok(tell(&told, host.now()))
}

/// Reads `KIND/NAME`; the kind by its name, plural or a short name.
fn subject(text: &str) -> Result<(&'static Kind, &str)> {
    let Some((word, name)) = text.split_once('/').filter(|(_, name)| !name.is_empty()) else {
        bail!("{text:?} does not name an object: write KIND/NAME, such as pod/web-1");
    };
    let (word, group) = word.split_once('.').map_or((word, None), |(word, group)| (word, Some(group)));
    let word = word.to_lowercase();
    let is_meant = |kind: &&&Kind| {
        group.is_none_or(|group| kind.gvr.group == group)
            && (kind.singular == word || kind.gvr.plural == word || kind.short.contains(&word.as_str()))
    };
    match KINDS.iter().find(is_meant) {
        Some(kind) => Ok((kind, name)),
        None => bail!("there is no built-in kind {word:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_named_in_every_way_that_kubectl_takes() {
        for text in ["pod/x", "pods/x", "po/x", "Pod/x"] {
            let (kind, name) = subject(text).expect("a subject");
            assert_eq!((kind.kind, name), ("Pod", "x"));
        }
        assert_eq!(subject("deployment.apps/x").expect("a subject").0.kind, "Deployment");
        for text in ["x", "pod/", "nothing/x", "pod.apps/x"] {
            assert!(subject(text).is_err(), "{text}");
        }
    }
}
