//! Plugins say that they are there: a socket appears in the registry, is asked what it is, and told whether it was taken.
//!
//! Nothing is polled: the kernel tells when the folder changes. A plugin that was not taken is asked again, ever more
//! rarely, as long as its socket is there; one whose socket is gone is forgotten.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use host::Moment;
use tokio::io::unix::AsyncFd;

use super::driver::{Driver, INFO_MAX, call};
use super::messages::{Empty, PluginInfo, RegistrationStatus};
use crate::agent::Agent;
use crate::backoff;
use crate::files::{FileKind, Files, Stamp};
use crate::places::{KUBELET_DIR, Root};

/// The kind of plugins that give storage.
const KIND: &str = "CSIPlugin";

/// A socket in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    stamp: Stamp,
    failures: u32,
    /// When to ask again; `None`: it was taken, or is being asked.
    again_at: Option<Moment>,
}

/// What came of asking one.
struct Asked {
    socket: PathBuf,
    stamp: Stamp,
    end: Result<Driver, String>,
}

/// Takes plugins as they come, until the agent ends.
pub async fn keep(agent: Arc<Agent>) {
    let notices = loop {
        match prepare(&agent).await {
            Ok(notices) => break notices,
            Err(error) => tracing::warn!(%error, "the registry of plugins cannot be made"),
        }
        agent.means.host.sleep(backoff::trouble_wait(u32::MAX)).await;
    };
    // Where files are not real nobody comes.
    let Some(notices) = notices else { return std::future::pending().await };
    let mut seen: BTreeMap<PathBuf, Seen> = BTreeMap::new();
    let mut names: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut asked = FuturesUnordered::new();
    loop {
        let here = look(&agent).await;
        forget(&agent, &mut seen, &mut names, &here);
        let now = agent.means.host.moment();
        for (socket, stamp) in here {
            let known =
                seen.entry(socket.clone()).or_insert(Seen { stamp, failures: 0, again_at: Some(now) });
            if known.again_at.is_some_and(|at| at <= now) {
                known.again_at = None;
                asked.push(take(socket, stamp, agent.settings.root()));
            }
        }
        let next = seen.values().filter_map(|one| one.again_at).min();
        tokio::select! {
            biased;
            Some(one) = asked.next() => settle(&agent, &mut seen, &mut names, one),
            () = changed(&notices) => {}
            () = agent.rest(next.map(|at| at.since(now))) => {}
        }
    }
}

/// Makes the folders that plugins expect, shows what they mount there to all, and asks to be told of changes.
async fn prepare(agent: &Agent) -> std::io::Result<Option<AsyncFd<OwnedFd>>> {
    let (files, root) = (agent.means.files.clone(), agent.settings.root());
    let work = move || {
        for dir in [root.dir().to_path_buf(), root.pods(), root.plugins(), root.registry()] {
            files.make_dir(&dir, 0o755)?;
        }
        files.share(root.dir())?;
        files.notices(&root.registry())
    };
    let Some(notices) = agent.means.host.blocking(work).await? else { return Ok(None) };
    // SAFETY: an `OwnedFd` is open for as long as it lives, and always the same.
    Ok(Some(unsafe { AsyncFd::register(notices) }?))
}

/// Waits until the registry changed.
async fn changed(notices: &AsyncFd<OwnedFd>) {
    let Ok(mut ready) = notices.readable().await else { return std::future::pending().await };
    let mut buffer = [0; 4096];
    // What changed is looked up anew: only that something did is taken from here.
    while rustix::io::read(notices.get_ref(), &mut buffer).is_ok_and(|len| len > 0) {}
    ready.clear_ready();
}

/// The sockets in the registry.
async fn look(agent: &Agent) -> Vec<(PathBuf, Stamp)> {
    let (files, dir) = (agent.means.files.clone(), agent.settings.root().registry());
    agent.means.host.blocking(move || sockets(&*files, &dir)).await
}

fn sockets(files: &dyn Files, dir: &Path) -> Vec<(PathBuf, Stamp)> {
    let names = files.list(dir).unwrap_or_default().into_iter().filter(|name| !name.starts_with('.'));
    let paths = names.map(|name| dir.join(name));
    let sockets = paths.filter(|path| matches!(files.kind(path), Ok(Some(FileKind::Socket))));
    sockets.filter_map(|path| Some((path.clone(), files.stamp(&path).ok()??))).collect()
}

/// Forgets sockets that are gone, or that others took the place of, and the drivers behind them.
fn forget(
    agent: &Agent,
    seen: &mut BTreeMap<PathBuf, Seen>,
    names: &mut BTreeMap<PathBuf, String>,
    here: &[(PathBuf, Stamp)],
) {
    seen.retain(|socket, known| here.iter().any(|(path, stamp)| path == socket && *stamp == known.stamp));
    let gone: Vec<PathBuf> = names.keys().filter(|socket| !seen.contains_key(*socket)).cloned().collect();
    for socket in gone {
        let Some(name) = names.remove(&socket) else { continue };
        // Somebody else may serve the same driver by now.
        let is_gone_too = !names.values().any(|other| *other == name);
        // One whose place was taken at once is asked again before anybody misses it.
        let is_replaced = here.iter().any(|(path, _)| *path == socket);
        if is_gone_too && !is_replaced {
            tracing::info!(driver = name, "a driver is gone");
            agent.csi.drivers.send_modify(|all| {
                all.remove(&name);
            });
        }
    }
}

fn settle(
    agent: &Agent,
    seen: &mut BTreeMap<PathBuf, Seen>,
    names: &mut BTreeMap<PathBuf, String>,
    asked: Asked,
) {
    // One that is gone meanwhile is nobody's.
    let Some(known) = seen.get_mut(&asked.socket).filter(|known| known.stamp == asked.stamp) else { return };
    match asked.end {
        Ok(driver) => {
            tracing::info!(driver = driver.name, node = driver.node.node_id, "a driver is registered");
            names.insert(asked.socket, driver.name.clone());
            agent.csi.drivers.send_modify(|all| {
                all.insert(driver.name.clone(), driver);
            });
        }
        Err(why) => {
            known.failures += 1;
            known.again_at =
                Some(Moment(agent.means.host.moment().0 + backoff::trouble_wait(known.failures)));
            if known.failures == 1 {
                tracing::warn!(why, socket = %asked.socket.display(), "a plugin could not be registered");
            }
        }
    }
}

/// Asks a plugin what it is, meets its driver, and tells it whether it was taken.
async fn take(socket: PathBuf, stamp: Stamp, root: Root) -> Asked {
    let end = register(&socket, &root).await;
    Asked { socket, stamp, end }
}

async fn register(socket: &Path, root: &Root) -> Result<Driver, String> {
    let service = "/pluginregistration.Registration";
    let told: Result<PluginInfo, _> = call(socket, &format!("{service}/GetInfo"), &Empty {}, INFO_MAX).await;
    let info = told.map_err(|status| format!("failed to get plugin info using RPC GetInfo: {status}"))?;
    let met = match refusal(&info, socket) {
        Some(why) => Err(why),
        None => {
            let endpoint = match info.endpoint.as_str() {
                "" => socket.to_path_buf(),
                path => root.here(Path::new(path.trim_start_matches("unix://"))),
            };
            Driver::meet(&info.name, &endpoint).await.map_err(|status| {
                format!("plugin registration failed with err: error updating CSINode object with CSI driver node info: {status}")
            })
        }
    };
    let error = met.as_ref().err().cloned().unwrap_or_default();
    let status = RegistrationStatus { is_registered: met.is_ok(), error };
    let said: Result<Empty, _> =
        call(socket, &format!("{service}/NotifyRegistrationStatus"), &status, INFO_MAX).await;
    said.map_err(|status| format!("failed to send registration status: {status}"))?;
    met
}

/// Why a plugin is not taken.
fn refusal(info: &PluginInfo, socket: &Path) -> Option<String> {
    let shown = Path::new(KUBELET_DIR).join("plugins_registry").join(socket.file_name().unwrap_or_default());
    let is_spoken = |version: &String| version.trim_start_matches('v').split('.').next() == Some("1");
    match () {
        () if info.kind != KIND => Some(format!(
            "no handler registered for plugin type: {} at socket {}",
            info.kind,
            shown.display()
        )),
        () if info.name.is_empty() => Some("the plugin has no name".to_owned()),
        () if !info.versions.iter().any(is_spoken) => Some(format!(
            "none of the versions specified {:?} are supported. Supported versions: [1.0.0]",
            info.versions
        )),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_drivers_of_a_version_that_is_spoken_here_are_taken() {
        let check = |kind: &str, name: &str, versions: &[&str], expected: Option<&str>| {
            let versions = versions.iter().map(|version| (*version).to_owned()).collect();
            let info = PluginInfo { kind: kind.into(), name: name.into(), endpoint: String::new(), versions };
            let got = refusal(&info, Path::new("/data/kubelet/plugins_registry/d-reg.sock"));
            match (&got, expected) {
                (Some(why), Some(part)) => assert!(why.contains(part), "{why}"),
                _ => assert_eq!(got.as_deref(), expected),
            }
        };
        check("CSIPlugin", "d", &["1.0.0"], None);
        check("CSIPlugin", "d", &["0.3.0", "v1.5.0"], None);
        check("CSIPlugin", "d", &["0.3.0"], Some("none of the versions"));
        check("CSIPlugin", "", &["1.0.0"], Some("no name"));
        check(
            "DevicePlugin",
            "d",
            &["1.0.0"],
            Some("at socket /var/lib/kubelet/plugins_registry/d-reg.sock"),
        );
    }
}
