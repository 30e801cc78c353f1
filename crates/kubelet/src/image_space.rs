//! Makes room on the disk of images: those that no pod here names go, the longest unused first.
//!
//! Promises: nothing happens below the high mark; above it images go until the low mark is reached, or none is left
//! that may go. An image that came or was used a moment ago stays. The runtime has the last word on what is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use host::Time;
use runtime::Image;

use crate::agent::Agent;
use crate::files::Space;

/// How often the disk is looked at, as upstream.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// When images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageMarks {
    /// Percent of the disk in use from which on images go.
    pub high_percent: u64,
    /// Percent of the disk in use that is aimed at then.
    pub low_percent: u64,
    /// How long an image stays that is not used.
    pub unused_min: Duration,
}

impl ImageMarks {
    /// Upstream's.
    pub const USUAL: ImageMarks =
        ImageMarks { high_percent: 85, low_percent: 80, unused_min: Duration::from_secs(120) };
}

/// When each image was last seen in use, or came.
type LastUsed = BTreeMap<String, Time>;

/// Looks at the disk again and again until the agent ends.
pub async fn keep(agent: Arc<Agent>, marks: ImageMarks) {
    let mut last_used = LastUsed::new();
    loop {
        look(&agent, &marks, &mut last_used).await;
        agent.means.host.sleep(LOOK_EVERY).await;
    }
}

async fn look(agent: &Agent, marks: &ImageMarks, last_used: &mut LastUsed) {
    let Ok(images) = agent.means.runtime.images().await else { return };
    let now = agent.means.host.now();
    let used = named(agent);
    note(last_used, &images, &used, now);
    let (files, dir) = (agent.means.files.clone(), agent.settings.data_dir.clone());
    let Ok(space) = agent.means.host.blocking(move || files.space(&dir)).await else { return };
    let going = surplus(&images, &used, last_used, &space, marks, now);
    for image in &going {
        match agent.means.runtime.remove_image(&image.id).await {
            Ok(()) => tracing::info!(id = image.id, tags = ?image.tags, "an unused image was removed"),
            Err(error) => tracing::debug!(%error, id = image.id, "an image stays"),
        }
    }
}

/// What the pods here name.
fn named(agent: &Agent) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for shown in agent.registry.all() {
        let volumes = shown.pod.spec().volumes.iter().flatten();
        let volumes = volumes.filter_map(|volume| volume.image.as_ref()?.reference.clone());
        names.extend(shown.pod.members.iter().map(|member| member.image().to_owned()).chain(volumes));
        let statuses = [&shown.status.container_statuses, &shown.status.init_container_statuses];
        names.extend(statuses.into_iter().flatten().flatten().map(|status| status.image_id.clone()));
    }
    names
}

/// Whether a name that a pod uses is one of the image's.
fn is_named(image: &Image, used: &BTreeSet<String>) -> bool {
    let of_image = |name: &String| {
        // A pod may leave out what is understood: the registry, `library/`, `latest`.
        let whole = |full: &String| full == name || is_short_for(name, full);
        image.id == *name || image.tags.iter().any(whole) || image.digests.iter().any(whole)
    };
    used.iter().any(of_image)
}

fn is_short_for(name: &str, full: &str) -> bool {
    let rest = full.strip_prefix("docker.io/").unwrap_or(full);
    let rest = rest.strip_prefix("library/").unwrap_or(rest);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    rest == name || rest.strip_suffix(":latest") == Some(name)
}

/// Notes which images are in use now. What is new counts as used just now.
fn note(last_used: &mut LastUsed, images: &[Image], used: &BTreeSet<String>, now: Time) {
    last_used.retain(|id, _| images.iter().any(|image| image.id == *id));
    for image in images {
        let known = last_used.entry(image.id.clone()).or_insert(now);
        if is_named(image, used) {
            *known = now;
        }
    }
}

/// The images that go.
fn surplus<'a>(
    images: &'a [Image],
    used: &BTreeSet<String>,
    last_used: &LastUsed,
    space: &Space,
    marks: &ImageMarks,
    now: Time,
) -> Vec<&'a Image> {
    let in_use = space.total.saturating_sub(space.free);
    if space.total == 0 || in_use * 100 < space.total * marks.high_percent {
        return Vec::new();
    }
    let mut wanted = in_use.saturating_sub(space.total / 100 * marks.low_percent);
    let since = |image: &Image| last_used.get(&image.id).copied().unwrap_or(now);
    let mut unused: Vec<&Image> = images
        .iter()
        .filter(|image| !is_named(image, used) && since(image) + marks.unused_min <= now)
        .collect();
    unused.sort_by_key(|image| (since(image), image.id.clone()));
    unused.retain(|image| {
        let goes = wanted > 0;
        wanted = wanted.saturating_sub(image.size);
        goes
    });
    unused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_second(seconds).expect("a small number is a time")
    }

    /// Images `id:size:last used`, names in use; what goes at second 1000 of a disk of 1000.
    fn check(images: &[(&str, u64, i64)], used: &[&str], free: u64, expected: &[&str]) {
        let all: Vec<Image> = images
            .iter()
            .map(|(name, size, _)| Image {
                id: format!("sha256:{name}"),
                tags: vec![format!("docker.io/library/{name}:latest")],
                size: *size,
                ..Image::default()
            })
            .collect();
        let last = images.iter().map(|(name, _, when)| (format!("sha256:{name}"), at(*when))).collect();
        let used = used.iter().map(|name| (*name).to_owned()).collect();
        let space = Space { total: 1000, free, ..Space::default() };
        let going = surplus(&all, &used, &last, &space, &ImageMarks::USUAL, at(1000));
        let ids: Vec<&str> = going.iter().map(|image| image.id.trim_start_matches("sha256:")).collect();
        assert_eq!(ids, expected);
    }

    #[test]
    fn above_the_high_mark_the_longest_unused_go_until_the_low_mark() {
        let images = [("a", 40, 500), ("b", 40, 300), ("c", 40, 400)];
        check(&images, &[], 151, &[]);
        check(&images, &[], 150, &["b", "c"]);
        check(&images, &[], 50, &["b", "c", "a"]);
    }

    #[test]
    fn what_is_named_or_was_used_just_now_stays() {
        let images = [("a", 40, 1), ("b", 40, 2), ("c", 40, 3), ("d", 40, 950)];
        check(&images, &["a", "docker.io/library/b:latest", "sha256:c"], 10, &[]);
    }

    #[test]
    fn an_image_counts_as_used_while_a_pod_names_it() {
        let image =
            Image { id: "sha256:a".into(), tags: vec!["docker.io/shop/web:1".into()], ..Image::default() };
        let mut last = LastUsed::new();
        let used = BTreeSet::from(["shop/web:1".to_owned()]);
        note(&mut last, std::slice::from_ref(&image), &used, at(1));
        note(&mut last, std::slice::from_ref(&image), &used, at(2));
        note(&mut last, &[image], &BTreeSet::new(), at(3));
        assert_eq!(last.values().copied().collect::<Vec<_>>(), [at(2)]);
        note(&mut last, &[], &used, at(4));
        assert!(last.is_empty());
    }
}
