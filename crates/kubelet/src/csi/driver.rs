//! A driver that is registered here, and the calls it takes: each over a connection of its own, so that one that starts
//! anew is found at once.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::grpc::{Channel, Manner, Status};
use prost::Message;
use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

use super::messages::{Capabilities, Empty, NodeInfo};

/// How long a driver may take for one volume: upstream's two minutes, in which a file system is made or checked.
pub const CALL_MAX: Duration = Duration::from_secs(120);

/// How long a plugin may take to say who it is: upstream's.
pub const INFO_MAX: Duration = Duration::from_secs(10);

/// What a driver can do here, by CSI's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// Volumes are staged once for all pods.
    Stage = 1,
    /// It says how full volumes are.
    Stats = 2,
    /// It grows file systems.
    Expand = 3,
    /// It says whether volumes are well.
    Condition = 4,
    /// It knows the modes for one pod.
    OnePodModes = 5,
    /// It gives volumes to groups itself.
    Group = 6,
}

/// A registered driver.
#[derive(Debug, Clone, PartialEq)]
pub struct Driver {
    /// Its name.
    pub name: String,
    /// Its socket, on this machine.
    pub socket: PathBuf,
    /// What it said of the node.
    pub node: NodeInfo,
    /// What it can do, by number.
    abilities: Vec<i32>,
}

impl Driver {
    /// Asks a driver who it is.
    pub async fn meet(name: &str, socket: &Path) -> Result<Driver, Status> {
        let node: NodeInfo = call(socket, "/csi.v1.Node/NodeGetInfo", &Empty {}, INFO_MAX).await?;
        if node.node_id.is_empty() {
            return Err(Status::internal("the driver has no name for this node"));
        }
        let told: Capabilities =
            call(socket, "/csi.v1.Node/NodeGetCapabilities", &Empty {}, INFO_MAX).await?;
        let abilities = told.all.iter().filter_map(|one| one.rpc.as_ref()).map(|rpc| rpc.kind).collect();
        Ok(Driver { name: name.to_owned(), socket: socket.to_path_buf(), node, abilities })
    }

    /// Whether it can do this.
    pub fn can(&self, ability: Ability) -> bool {
        self.abilities.contains(&(ability as i32))
    }

    /// The labels that say where the node is for this driver.
    pub fn segments(&self) -> BTreeMap<String, String> {
        self.node.topology.clone().unwrap_or_default().segments
    }

    /// Asks its node service.
    pub async fn ask<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        question: &Q,
    ) -> Result<A, Status> {
        call(&self.socket, &format!("/csi.v1.Node/{method}"), question, CALL_MAX).await
    }
}

/// Asks whoever listens at a socket.
pub async fn call<Q: Message, A: Message + Default>(
    socket: &Path,
    path: &str,
    question: &Q,
    limit: Duration,
) -> Result<A, Status> {
    let stream = connect(socket).await.map_err(|error| {
        Status::unavailable(format!("connection error: dial unix {}: {error}", socket.display()))
    })?;
    Channel::over(stream, Manner::default()).await?.call(path, question, limit).await
}

/// Connects by way of the socket's folder: the kernel takes no long paths.
async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no path of a socket"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)).await
}
