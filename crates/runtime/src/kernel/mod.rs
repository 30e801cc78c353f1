//! The real runtime: drives the monitors, keeps the images.
//!
//! Promises: what it answers is what the monitors know, not what it remembers of its own acts; so a restarted agent
//! that opens the same data directory sees the same. It starts no process but monitors, and leaves them running when
//! it is dropped. Never runs a container in its own process.

mod channel;
mod events;
mod link;
mod log;
mod spawn;
mod status;
mod streams;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host::{Host, Tasks};
use model::fence::Deadline;
use tokio::sync::mpsc;

use crate::cgroup::Cgroups;
use crate::images::{self, Store, failed};
use crate::kernel::events::Hub;
use crate::kernel::link::Link;
use crate::layout::{self, Layout, Pod};
use crate::wire::{ContainerRecord, Reply, Request, SandboxFile, StartSpec};
use crate::*;

/// How long making a sandbox may take: it takes milliseconds, and a second on a machine that is out of breath.
const SANDBOX_TIMEOUT: Duration = Duration::from_secs(60);

/// How the real runtime is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where images, sandboxes and logs are.
    pub data_dir: PathBuf,
    /// Where the authorities of private registries are, as `HOST[:PORT]/ca.crt`.
    pub registry_certs: Option<PathBuf>,
    /// The binary that is executed anew as a monitor; it must call [`monitor::main`] when [`monitor::is_meant`].
    pub exe: PathBuf,
}

/// Runs containers on this machine's kernel.
pub struct KernelRuntime {
    host: Host,
    exe: PathBuf,
    layout: Layout,
    cgroups: Cgroups,
    store: Store,
    hub: Arc<Hub>,
    /// Connections to monitors by pod; held to look one up or put one in.
    links: Mutex<BTreeMap<String, Arc<Link>>>,
    /// One at a time makes, finds or removes a pod's sandbox.
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// What passes streams and logs on; held to add one.
    pumps: Mutex<Tasks>,
}

impl KernelRuntime {
    /// Opens the runtime of a data directory. Must be called within tokio.
    pub fn open(host: Host, settings: Settings) -> Result<Self, RuntimeError> {
        let data_dir = images::absolute(&settings.data_dir)?;
        let layout = Layout::new(&data_dir);
        let make = || {
            fs::create_dir_all(layout.pods())?;
            fs::create_dir_all(layout.netns_dir())?;
            Cgroups::detect()
        };
        let cgroups = make().map_err(|error| failed("open the runtime's data directory", error))?;
        let store = Store::open(host.clone(), &data_dir)?.trusting(settings.registry_certs);
        Ok(Self {
            host,
            exe: settings.exe,
            layout,
            cgroups,
            store,
            hub: Arc::new(Hub::default()),
            links: Mutex::default(),
            turns: Mutex::default(),
            pumps: Mutex::default(),
        })
    }

    /// The images.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Removes every sandbox, and with it every process, mount, namespace, group and folder that this data directory
    /// has. Images stay.
    pub async fn remove_all(&self) -> Result<(), RuntimeError> {
        for uid in self.pod_uids()? {
            self.remove_sandbox(&uid).await?;
        }
        let (layout, cgroups) = (self.layout.clone(), self.cgroups.clone());
        let clear = move || {
            for entry in fs::read_dir(layout.netns_dir())?.flatten() {
                sys::unmount(&entry.path())?;
                let _ = fs::remove_file(entry.path());
            }
            spawn::clear_group(&cgroups.group(&layout.cgroup_name()))
        };
        self.host.blocking(clear).await.map_err(|error| failed("remove what is left", error))
    }

    fn pod_uids(&self) -> Result<Vec<String>, RuntimeError> {
        let entries = fs::read_dir(self.layout.pods()).map_err(|error| failed("list sandboxes", error))?;
        let mut uids: Vec<String> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        uids.retain(|uid| layout::check_uid(uid).is_ok());
        uids.sort();
        Ok(uids)
    }

    async fn turn(&self, pod_uid: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(pod_uid.to_owned()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// Runs something until it ends or the runtime goes.
    fn run(&self, pump: impl Future<Output = ()> + Send + 'static) {
        self.pumps.lock().unwrap_or_else(PoisonError::into_inner).spawn(pump);
    }

    fn known_link(&self, pod_uid: &str) -> Option<Arc<Link>> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(pod_uid).filter(|link| link.is_alive()).cloned()
    }

    fn keep_link(&self, pod_uid: &str, link: Option<Arc<Link>>) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        match link {
            Some(link) => links.insert(pod_uid.to_owned(), link),
            None => links.remove(pod_uid),
        };
    }

    /// The connection to a pod's monitor, made anew when there is none.
    async fn link(&self, pod_uid: &str) -> Result<Arc<Link>, RuntimeError> {
        if let Some(link) = self.known_link(pod_uid) {
            return Ok(link);
        }
        layout::check_uid(pod_uid)?;
        let _turn = self.turn(pod_uid).await;
        self.link_in_turn(pod_uid).await?.ok_or_else(|| RuntimeError::NotFound(format!("sandbox {pod_uid}")))
    }

    /// The connection to a pod's monitor; `None` when there is proof that it is gone.
    async fn link_in_turn(&self, pod_uid: &str) -> Result<Option<Arc<Link>>, RuntimeError> {
        if let Some(link) = self.known_link(pod_uid) {
            return Ok(Some(link));
        }
        let pod = self.layout.pod(pod_uid);
        let link = Link::open(&self.host, pod, self.hub.clone()).await?;
        if let Some(link) = &link {
            self.keep_link(pod_uid, Some(link.clone()));
        }
        Ok(link)
    }

    async fn make_sandbox(&self, spec: SandboxSpec) -> Result<Arc<Link>, RuntimeError> {
        let uid = spec.pod_uid.clone();
        let netns = (!spec.host_network).then(|| self.layout.netns(&uid));
        let cgroup = self.layout.cgroup_name();
        let file = SandboxFile { spec, created_at: self.host.now(), netns, cgroup };
        let (exe, layout, cgroups) = (self.exe.clone(), self.layout.clone(), self.cgroups.clone());
        let pod = layout.pod(&uid);
        let make = move || {
            if layout.pod(&uid).dir.exists() {
                spawn::clear_remains(&layout, &cgroups, &uid)?;
                spawn::clear_but_logs(&layout.pod(&uid))?;
            }
            let done = spawn::start_monitor(&exe, &layout.pod(&uid), &file);
            if done.is_err() {
                let _ = spawn::clear_remains(&layout, &cgroups, &uid);
                let _ = spawn::clear_but_logs(&layout.pod(&uid));
            }
            done
        };
        let made = self.host.within(SANDBOX_TIMEOUT, self.host.blocking(make)).await;
        let made = made.unwrap_or_else(|| Err(std::io::ErrorKind::TimedOut.into()));
        made.map_err(|error| failed("make a sandbox", error))?;
        let link = Link::open(&self.host, pod, self.hub.clone()).await?;
        link.ok_or_else(|| failed("make a sandbox", "its monitor ended at once"))
    }

    /// Ends a sandbox; `clear` removes of its files what is to go.
    async fn end_sandbox(
        &self,
        pod_uid: &str,
        clear: impl FnOnce(&Pod) -> std::io::Result<()> + Send + 'static,
    ) -> Result<(), RuntimeError> {
        layout::check_uid(pod_uid)?;
        let _turn = self.turn(pod_uid).await;
        // One that does not answer is cleared away like one that is gone: that is what is asked for.
        if let Ok(Some(link)) = self.link_in_turn(pod_uid).await {
            link.end();
            if let Err(error) = link.ask(Request::Quit).await {
                tracing::warn!(pod = pod_uid, %error, "the monitor did not clean up, so the agent does");
            }
        }
        self.keep_link(pod_uid, None);
        let (layout, cgroups, uid) = (self.layout.clone(), self.cgroups.clone(), pod_uid.to_owned());
        let clear = move || {
            spawn::clear_remains(&layout, &cgroups, &uid)?;
            clear(&layout.pod(&uid))
        };
        self.host.blocking(clear).await.map_err(|error| failed(format!("remove sandbox {pod_uid}"), error))
    }

    async fn start_spec(&self, mut spec: ContainerSpec) -> Result<StartSpec, RuntimeError> {
        layout::check_uid(&spec.pod_uid)?;
        layout::check_container_name(&spec.name)?;
        let name = if spec.image_id.is_empty() { spec.image.clone() } else { spec.image_id.clone() };
        let image = self.store.record(&name).await?;
        let image = image.ok_or_else(|| RuntimeError::NotFound(format!("image {name}")))?;
        spec.image_id = image.id.clone();
        if spec.args.is_empty() {
            spec.args = [image.config.entrypoint.clone(), image.config.cmd.clone()].concat();
        }
        if spec.working_dir.is_empty() {
            spec.working_dir = image.config.working_dir.clone();
        }
        spec.env = merge_env(&image.config.env, spec.env);
        let mut bytes = [0; 32];
        self.host.chance().fill(&mut bytes);
        Ok(StartSpec {
            id: layout::hex(&bytes),
            spec,
            layers: image.layers,
            layers_dir: self.layout.layers(),
            image_user: image.config.user,
        })
    }

    /// What there is of a pod whose monitor does not answer.
    async fn dead_sandbox(&self, pod_uid: &str) -> Option<Sandbox> {
        let (layout, cgroups, uid) = (self.layout.clone(), self.cgroups.clone(), pod_uid.to_owned());
        let now = self.host.now();
        let look = move || {
            let pod = layout.pod(&uid);
            if let Err(error) = spawn::clear_remains(&layout, &cgroups, &uid) {
                tracing::warn!(pod = uid, %error, "cannot clear what a dead monitor left");
            }
            let Ok(file) = wire::read_whole::<SandboxFile>(&pod.spec()) else {
                // Its making was cut off before anything ran.
                let _ = fs::remove_dir_all(&pod.dir);
                return None;
            };
            let records = spawn::orphans(&pod, &status::unseen_exit(now));
            Some(status::sandbox(&file, false, &records))
        };
        self.host.blocking(look).await
    }
}

/// Removes a folder; one that is not there is removed already.
fn remove_folder(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The image's environment, with the pod's above it.
fn merge_env(image: &[String], pod: Vec<String>) -> Vec<String> {
    let name = |entry: &String| entry.split_once('=').map_or(entry.clone(), |(name, _)| name.to_owned());
    let named: Vec<String> = pod.iter().map(name).collect();
    image.iter().filter(|entry| !named.contains(&name(entry))).cloned().chain(pod).collect()
}

#[async_trait]
impl Runtime for KernelRuntime {
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        self.store.find(reference).await
    }

    async fn pull(&self, reference: &str, auth: &[RegistryAuth]) -> Result<Image, RuntimeError> {
        self.store.pull(reference, auth).await
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.store.list().await
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        self.store.remove(reference).await
    }

    async fn show_image(&self, image_id: &str, target: &Path) -> Result<(), RuntimeError> {
        self.store.show(image_id, target).await
    }

    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        let uid = spec.pod_uid.clone();
        layout::check_uid(&uid)?;
        let _turn = self.turn(&uid).await;
        let link = match self.link_in_turn(&uid).await? {
            Some(link) => link,
            None => {
                let link = self.make_sandbox(spec).await?;
                self.keep_link(&uid, Some(link.clone()));
                link
            }
        };
        Ok(status::sandbox(&link.file, true, &link.containers()))
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        self.end_sandbox(pod_uid, |pod| remove_folder(&pod.dir)).await
    }

    async fn drop_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        self.end_sandbox(pod_uid, spawn::clear_but_logs).await
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        let mut found = Vec::new();
        for uid in self.pod_uids()? {
            let _turn = self.turn(&uid).await;
            match self.link_in_turn(&uid).await? {
                Some(link) => found.push(status::sandbox(&link.file, true, &link.containers())),
                None => found.extend(self.dead_sandbox(&uid).await),
            }
        }
        Ok(found)
    }

    async fn start(&self, spec: ContainerSpec) -> Result<ContainerStatus, RuntimeError> {
        let start = self.start_spec(spec).await?;
        let link = self.link(&start.spec.pod_uid).await?;
        let (id, spec) = (start.id.clone(), start.spec.clone());
        let created_at = self.host.now();
        match link.ask(Request::Start(Box::new(start))).await? {
            (Reply::Started { pid, started_at, group, warnings }, _) => {
                for warning in warnings {
                    tracing::warn!(pod = spec.pod_uid, container = spec.name, warning, "started with a lack");
                }
                let record = ContainerRecord {
                    id,
                    spec,
                    created_at,
                    pid,
                    started_at: Some(started_at),
                    exit: None,
                    group,
                };
                let status = status::container(&record);
                link.learn(record);
                Ok(status)
            }
            (other, _) => Err(failed("start a container", format!("the monitor said {other:?}"))),
        }
    }

    async fn fence(&self, pod_uid: &str, deadline: Deadline) -> Result<(), RuntimeError> {
        layout::check_uid(pod_uid)?;
        // Not in turn: a deadline must not wait for anything slow. A link that is not open yet is opened in turn.
        let link = match self.known_link(pod_uid) {
            Some(link) => link,
            None => match self.link(pod_uid).await {
                Ok(link) => link,
                Err(RuntimeError::NotFound(_)) => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        if link.file.spec.fence.is_none() {
            return Ok(());
        }
        match link.ask(Request::Fence { deadline }).await? {
            (Reply::Done, _) => Ok(()),
            (Reply::Failed(why), _) => Err(failed("move the deadline", why)),
            (other, _) => Err(failed("move the deadline", format!("an odd answer: {other:?}"))),
        }
    }

    async fn signal(&self, container: &ContainerRef, signal: i32) -> Result<(), RuntimeError> {
        let id = container.id.clone();
        self.link(&container.pod_uid).await?.ask(Request::Signal { id, signal }).await.map(drop)
    }

    async fn remove(&self, container: &ContainerRef) -> Result<(), RuntimeError> {
        layout::check_uid(&container.pod_uid)?;
        layout::check_id(&container.id)?;
        if let Ok(link) = self.link(&container.pod_uid).await {
            link.ask(Request::Remove { id: container.id.clone() }).await?;
            link.forget(&container.id);
        }
        let dir = self.layout.pod(&container.pod_uid).container(&container.id);
        let clear = move || match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        self.host.blocking(clear).await.map_err(|error| failed("remove a container", error))
    }

    async fn resize(&self, container: &ContainerRef, resources: Resources) -> Result<(), RuntimeError> {
        let id = container.id.clone();
        self.link(&container.pod_uid).await?.ask(Request::Resize { id, resources }).await.map(drop)
    }

    async fn resize_sandbox(&self, pod_uid: &str, resources: Resources) -> Result<(), RuntimeError> {
        let id = String::new();
        self.link(pod_uid).await?.ask(Request::Resize { id, resources }).await.map(drop)
    }

    async fn exec(
        &self,
        container: &ContainerRef,
        command: Vec<String>,
        output_len_max: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        let link = self.link(&container.pod_uid).await?;
        streams::exec(&link, container, command, output_len_max).await
    }

    async fn exec_stream(&self, container: &ContainerRef, spec: ExecSpec) -> Result<Streams, RuntimeError> {
        let link = self.link(&container.pod_uid).await?;
        let (streams, pump) = streams::exec_stream(&link, container, spec).await?;
        self.run(pump);
        Ok(streams)
    }

    async fn attach(&self, container: &ContainerRef, spec: AttachSpec) -> Result<Streams, RuntimeError> {
        let link = self.link(&container.pod_uid).await?;
        let (streams, pump) = streams::attach(link, container, spec).await?;
        self.run(pump);
        Ok(streams)
    }

    async fn connect(&self, pod_uid: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        let link = self.link(pod_uid).await?;
        streams::connect(&link, port).await
    }

    async fn log(&self, log: LogRequest) -> Result<mpsc::Receiver<Bytes>, RuntimeError> {
        layout::check_uid(&log.pod_uid)?;
        layout::check_container_name(&log.name)?;
        let link = if log.follow { self.link(&log.pod_uid).await.ok() } else { None };
        let (lines, reading) = log::read(&self.layout.pod(&log.pod_uid), link, log)?;
        self.run(reading);
        Ok(lines)
    }

    fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        self.hub.receiver()
    }

    async fn usage(&self, pod_uid: &str) -> Result<Vec<Usage>, RuntimeError> {
        let link = self.link(pod_uid).await?;
        let pod = spawn::group(&self.layout, &self.cgroups, pod_uid);
        let running = link.containers().into_iter().filter(|record| record.exit.is_none());
        Ok(running
            .map(|record| {
                let (cpu_nanos, memory) = pod.child(&record.group).usage();
                Usage { name: record.spec.name, cpu_nanos, memory }
            })
            .collect())
    }
}
