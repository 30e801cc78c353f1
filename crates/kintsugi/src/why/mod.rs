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
    Ok(harmless(&tell(&told, host.now())))
}

/// A text without signs that a terminal would obey: names of images, messages and labels are written by anybody.
fn harmless(text: &str) -> String {
    let shown = text.chars().map(|sign| match sign {
        '\n' => "\n".to_owned(),
        '\u{1b}' => "^[".to_owned(),
        sign if sign.is_control() => sign.escape_default().to_string(),
        sign => sign.to_string(),
    });
    shown.collect()
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
    fn nothing_that_an_object_says_moves_the_terminal() {
        let told = "image \u{1b}[2Jweb\r\u{9b}31m\u{7}\nnext ö";
        assert_eq!(harmless(told), "image ^[[2Jweb\\r\\u{9b}31m\\u{7}\nnext ö");
    }

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
