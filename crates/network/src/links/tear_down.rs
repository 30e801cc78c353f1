//! Removing all that a cluster left in the kernel, also after a crash.

use std::io;
use std::path::PathBuf;

use host::Host;

use super::lan::namespaces_dir;
use super::{Links, Steps, link_name, remove, route_metric};
use crate::services::table;
use crate::{NetworkError, failed};

/// Removes every link, route, table of rules and network namespace of the cluster `prefix`, and what the cluster
/// remembered of them under `data_dir`. The namespaces of pods are not touched; they lose their interfaces.
///
/// Finds by name what there is, so it needs nothing that a crash could have lost. Doing it again does nothing.
pub async fn tear_down(host: &Host, data_dir: PathBuf, prefix: String) -> Result<(), NetworkError> {
    host.blocking(move || {
        table::remove_all(&prefix)?;
        remove_links(&prefix)?;
        remove_namespaces(&namespaces_dir(&data_dir))?;
        remove_memory(&data_dir.join("run").join("network"))
    })
    .await
}

fn remove_links(prefix: &str) -> Result<(), NetworkError> {
    let links = Links::open().map_err(failed("open a netlink socket"))?;
    let mut steps = Steps::default();
    for route in links.routes()?.iter().filter(|route| route.metric == route_metric(prefix)) {
        steps.remove_route(route);
    }
    let ours = link_name(prefix, "");
    for link in links.list()?.iter().filter(|link| link.name.starts_with(&ours)) {
        steps.remove_link(&link.name);
    }
    links.carry_out(steps)
}

fn remove_namespaces(dir: &std::path::Path) -> Result<(), NetworkError> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed(format!("read {}", dir.display())))?,
    };
    for entry in entries {
        let path = entry.map_err(failed(format!("read {}", dir.display())))?.path();
        remove(&path).map_err(failed(format!("remove the network namespace {}", path.display())))?;
    }
    Ok(())
}

fn remove_memory(dir: &std::path::Path) -> Result<(), NetworkError> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}
