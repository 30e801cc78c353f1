//! `kintsugi down`: stops and removes everything that a data directory's cluster started.

use std::path::Path;

use anyhow::{Context, Result};
use host::Host;
use runtime::{KernelRuntime, Settings};

use crate::agent;
use crate::place::Place;

/// Ends agents that outlived their server, and removes containers, mounts, namespaces, groups, links and rules; with `purge` the directory as well. Says what.
pub async fn run(host: &Host, data_dir: &Path, purge: bool) -> Result<String> {
    if !data_dir.exists() {
        return Ok(format!("nothing, {} does not exist", data_dir.display()));
    }
    let place = Place::open(data_dir)?;
    let _held = place.hold()?;
    let exe = std::env::current_exe().context("cannot find the program's own file")?;
    let mut sandboxes = 0;
    for dir in place.nodes() {
        // An agent that outlived its server would start again what is removed here.
        let _taken = agent::take_over(&dir)?;
        let runtime = KernelRuntime::open(
            host.clone(),
            Settings { data_dir: dir.clone(), registry_certs: None, exe: exe.clone() },
        )?;
        sandboxes += runtime::Runtime::sandboxes(&runtime).await?.len();
        runtime.remove_all().await.with_context(|| format!("cannot clear {}", dir.display()))?;
        unmount_below(&dir).with_context(|| format!("cannot clear the volumes in {}", dir.display()))?;
        let prefix = network::links::prefix_of(&dir);
        network::links::tear_down(host, dir.clone(), prefix).await?;
    }
    let prefix = network::links::prefix_of(place.dir());
    network::links::tear_down(host, place.dir().to_owned(), prefix).await?;
    if purge {
        std::fs::remove_dir_all(place.dir())
            .with_context(|| format!("cannot remove {}", place.dir().display()))?;
    }
    let rest = if purge { ", with all that was stored" } else { "" };
    Ok(format!("{sandboxes} pods with their containers, links and rules{rest}"))
}

/// Unmounts what is mounted below a folder, the innermost first: the volumes of pods.
fn unmount_below(dir: &Path) -> std::io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    // The fifth word is the place, with blanks written in octal (proc_pid_mountinfo(5)); ours have none.
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut below: Vec<&Path> = places.filter(|place| *place != dir && place.starts_with(dir)).collect();
    below.sort_by_key(|place| std::cmp::Reverse(place.components().count()));
    for place in below {
        rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH)?;
    }
    Ok(())
}
