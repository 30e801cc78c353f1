//! Doubles for tests of an agent: a runtime whose containers do what their command says, a network that counts
//! addresses, and a bench that holds them and the API together.

#![allow(dead_code, reason = "each test uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use client::fake::Fake;
use client::{Caches, Client};
use host::{Host, SimDisk, Task, Time};
use kubelet::{Allocatable, Curve, Files, LEASE_EVERY, Machine, Means, RuntimeDial, Settings, SimFiles};
use network::{Network, NetworkError, NodeRoute, PodNetwork, PolicyRules, ServiceRules};
use runtime::*;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

/// Containers that do what their command says: `run` until signalled, `stubborn` until killed, `exit CODE MILLIS`.
#[derive(Clone)]
pub struct FakeRuntime {
    state: Arc<Mutex<State>>,
    moved: Arc<watch::Sender<u64>>,
    host: Host,
}

#[derive(Default)]
struct State {
    images: BTreeMap<String, Image>,
    sandboxes: BTreeMap<String, Sandbox>,
    commands: BTreeMap<String, Vec<String>>,
    log: Vec<String>,
    events: Option<mpsc::Sender<RuntimeEvent>>,
    /// Sandboxes in which nothing starts any more, by the pod's uid.
    shut: BTreeSet<String>,
    ids: u64,
    enders: Vec<Task<()>>,
}

impl FakeRuntime {
    fn new(host: Host) -> Self {
        let runtime = Self { state: Arc::default(), moved: Arc::new(watch::Sender::new(0)), host };
        runtime.add_image("img:1");
        runtime
    }

    pub fn add_image(&self, reference: &str) {
        let image =
            Image { id: format!("sha256:{reference}"), tags: vec![reference.into()], ..Image::default() };
        self.state().images.insert(reference.into(), image);
    }

    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// Removes every sandbox, as a node does that gives up what is fenced.
    pub fn give_up(&self, name: &str) {
        self.kill(name, 137);
        self.state().sandboxes.clear();
    }

    /// Lets every pod's deadline pass: what runs is killed, and file systems of its volumes are shut down.
    pub fn shut_all(&self, name: &str) {
        let uids: Vec<String> = self.state().sandboxes.keys().cloned().collect();
        self.state().shut.extend(uids);
        self.kill(name, 137);
    }

    /// Ends the running container of this name, as if from outside.
    pub fn kill(&self, name: &str, code: i32) {
        let id = {
            let state = self.state();
            let mut all = state.sandboxes.values().flat_map(|sandbox| &sandbox.containers);
            let is_it =
                |c: &&ContainerStatus| c.name == name && matches!(c.state, ContainerState::Running { .. });
            all.find(is_it).map(|c| c.container.id.clone())
        };
        self.end(&id.expect("it runs"), code);
    }

    /// Waits until this run of a container runs.
    pub async fn until_started(&self, name: &str, attempt: u32) {
        let mut moved = self.moved.subscribe();
        loop {
            let is_there = {
                let state = self.state();
                let mut all = state.sandboxes.values().flat_map(|sandbox| &sandbox.containers);
                all.any(|c| c.name == name && c.attempt == attempt)
            };
            if is_there {
                return;
            }
            moved.changed().await.expect("the runtime is there");
        }
    }

    fn end(&self, id: &str, code: i32) {
        let mut state = self.state();
        let now = self.host.now();
        let mut event = None;
        for container in state.sandboxes.values_mut().flat_map(|sandbox| &mut sandbox.containers) {
            if let (true, ContainerState::Running { started_at, .. }) =
                (container.container.id == id, &container.state)
            {
                let exit = Exit {
                    code,
                    signal: None,
                    oom_killed: false,
                    started_at: *started_at,
                    finished_at: now,
                    message: String::new(),
                };
                container.state = ContainerState::Exited(exit.clone());
                let (container, name) = (container.container.clone(), container.name.clone());
                event = Some(RuntimeEvent::Exited { container, name, exit });
            }
        }
        if let (Some(event), Some(events)) = (event, &state.events) {
            let _ = events.try_send(event);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(self.state().images.get(reference).cloned())
    }
    async fn pull(&self, reference: &str, _auth: &[RegistryAuth]) -> Result<Image, RuntimeError> {
        let found = self.state().images.get(reference).cloned();
        found.ok_or_else(|| RuntimeError::Pull { reference: reference.into(), why: "no such image".into() })
    }
    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        Ok(self.state().images.values().cloned().collect())
    }
    async fn remove_image(&self, _reference: &str) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn show_image(&self, image_id: &str, target: &Path) -> Result<(), RuntimeError> {
        self.state().log.push(format!("show {image_id} {}", target.display()));
        Ok(())
    }
    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        self.host.sleep(Duration::from_millis(1)).await;
        let mut state = self.state();
        state.log.push("sandbox".into());
        let netns = (!spec.host_network).then(|| Path::new("/netns").join(&spec.pod_uid));
        let (uid, created_at) = (spec.pod_uid.clone(), self.host.now());
        let sandbox = Sandbox { spec, created_at, netns, alive: true, containers: Vec::new() };
        state.sandboxes.insert(uid, sandbox.clone());
        Ok(sandbox)
    }
    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        let mut state = self.state();
        state.shut.remove(pod_uid);
        if state.sandboxes.remove(pod_uid).is_some() {
            state.log.push("remove sandbox".into());
        }
        Ok(())
    }
    async fn sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        Ok(self.state().sandboxes.values().cloned().collect())
    }
    async fn fence(&self, _pod_uid: &str, _deadline: model::fence::Deadline) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn start(&self, spec: ContainerSpec) -> Result<ContainerStatus, RuntimeError> {
        self.host.sleep(Duration::from_millis(2)).await;
        let mut state = self.state();
        if state.shut.contains(&spec.pod_uid) {
            state.log.push("refuse".into());
            return Err(RuntimeError::Shut);
        }
        state.ids += 1;
        let id = format!("{:064x}", state.ids);
        state.log.push(format!("start {} {}", spec.name, spec.attempt));
        let now = self.host.now();
        let status = ContainerStatus {
            container: ContainerRef { pod_uid: spec.pod_uid.clone(), id: id.clone() },
            name: spec.name.clone(),
            attempt: spec.attempt,
            image: spec.image.clone(),
            image_id: spec.image_id.clone(),
            created_at: now,
            state: ContainerState::Running { started_at: now, pid: 1 },
            resources: spec.resources.clone(),
            annotations: spec.annotations.clone(),
        };
        let sandbox = state.sandboxes.get_mut(&spec.pod_uid);
        sandbox.ok_or_else(|| RuntimeError::NotFound("the sandbox".into()))?.containers.push(status.clone());
        if let [word, code, millis] = spec.args.as_slice()
            && word == "exit"
        {
            let (code, millis) = (code.parse().unwrap_or(1), millis.parse().unwrap_or(0));
            let (runtime, host, id) = (self.clone(), self.host.clone(), id.clone());
            let ender = self.host.spawn(async move {
                host.sleep(Duration::from_millis(millis)).await;
                runtime.end(&id, code);
            });
            state.enders.push(ender);
        }
        state.commands.insert(id, spec.args);
        drop(state);
        self.moved.send_modify(|count| *count += 1);
        Ok(status)
    }
    async fn signal(&self, container: &ContainerRef, signal: i32) -> Result<(), RuntimeError> {
        let is_ending = {
            let mut state = self.state();
            let all = state.sandboxes.values().flat_map(|sandbox| &sandbox.containers);
            let name = all.filter(|c| c.container == *container).map(|c| c.name.clone()).next();
            let name = name.ok_or_else(|| RuntimeError::NotFound(container.id.clone()))?;
            state.log.push(format!("signal {name} {signal}"));
            let is_stubborn =
                state.commands.get(&container.id).is_some_and(|command| command[0] == "stubborn");
            signal == 9 || !is_stubborn
        };
        if is_ending {
            self.end(&container.id, 128 + signal);
        }
        Ok(())
    }
    async fn remove(&self, _container: &ContainerRef) -> Result<(), RuntimeError> {
        Ok(())
    }
    async fn resize_sandbox(&self, _pod_uid: &str, resources: Resources) -> Result<(), RuntimeError> {
        self.state().log.push(format!("resize pod {:?}", resources.cpu_limit_millis));
        Ok(())
    }
    async fn resize(&self, _container: &ContainerRef, resources: Resources) -> Result<(), RuntimeError> {
        self.state().log.push(format!("resize {:?}", resources.cpu_limit_millis));
        Ok(())
    }
    async fn exec(
        &self,
        container: &ContainerRef,
        command: Vec<String>,
        _output_len_max: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        self.host.sleep(Duration::from_millis(1)).await;
        let mut state = self.state();
        let all = state.sandboxes.values().flat_map(|sandbox| &sandbox.containers);
        let name =
            all.filter(|c| c.container == *container).map(|c| c.name.clone()).next().unwrap_or_default();
        let is_hooked = state.commands.get(&container.id).is_some_and(|command| command[0] == "stubborn");
        if is_hooked {
            state.log.push(format!("exec {name} {}", command.join(" ")));
        }
        let code = i32::from(command.first().is_some_and(|word| word == "fail"));
        Ok(ExecOutput { code, output: Vec::new() })
    }
    async fn exec_stream(&self, _container: &ContainerRef, _spec: ExecSpec) -> Result<Streams, RuntimeError> {
        Err(RuntimeError::Config("not in this double".into()))
    }
    async fn attach(&self, _container: &ContainerRef, _spec: AttachSpec) -> Result<Streams, RuntimeError> {
        Err(RuntimeError::Config("not in this double".into()))
    }
    async fn connect(&self, _pod_uid: &str, _port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        Err(RuntimeError::Config("not in this double".into()))
    }
    async fn log(&self, _log: LogRequest) -> Result<mpsc::Receiver<Bytes>, RuntimeError> {
        Ok(mpsc::channel(1).1)
    }
    fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(64);
        self.state().events = Some(sender);
        receiver
    }
    async fn usage(&self, _pod_uid: &str) -> Result<Vec<Usage>, RuntimeError> {
        Ok(Vec::new())
    }
}

/// Counts addresses.
#[derive(Default)]
pub struct FakeNetwork {
    attached: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    pub served: Mutex<ServiceRules>,
}

#[async_trait]
impl Network for FakeNetwork {
    async fn attach(&self, pod: PodNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u8::try_from(attached.len() + 1).unwrap_or(255);
        Ok(attached.entry(pod.pod_uid).or_insert_with(|| vec![IpAddr::from([10, 0, 0, next])]).clone())
    }
    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).remove(pod_uid);
        Ok(())
    }
    async fn attached(&self) -> Result<Vec<(String, Vec<IpAddr>)>, NetworkError> {
        let attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(attached.iter().map(|(uid, ips)| (uid.clone(), ips.clone())).collect())
    }
    async fn serve(&self, rules: ServiceRules) -> Result<(), NetworkError> {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }
    async fn guard(&self, _rules: PolicyRules) -> Result<(), NetworkError> {
        Ok(())
    }
    async fn route(&self, _routes: Vec<NodeRoute>) -> Result<(), NetworkError> {
        Ok(())
    }
}

/// Files that can be counted.
#[derive(Clone)]
pub struct Shelf(pub SimFiles);

impl Shelf {
    /// How many pods have files.
    pub fn count(&self) -> usize {
        self.0.list(Path::new("/data/pods")).map_or(0, |names| names.len())
    }
}

/// Everything an agent needs, and the agent.
pub struct Bench {
    pub host: Host,
    pub api: Fake,
    pub runtime: FakeRuntime,
    pub network: Arc<FakeNetwork>,
    pub files: Shelf,
    leaves: watch::Sender<bool>,
    agent: Task<()>,
}

/// The same without the agent.
pub struct Stopped {
    pub host: Host,
    pub api: Fake,
    pub runtime: FakeRuntime,
    pub network: Arc<FakeNetwork>,
    pub files: Shelf,
}

impl Bench {
    pub async fn start() -> Bench {
        let start: Time = "2026-01-01T00:00:00Z".parse().expect("a time");
        let host = Host::simulated(1, start, SimDisk::new());
        let runtime = FakeRuntime::new(host.clone());
        let (network, files) = (Arc::default(), Shelf(SimFiles::new()));
        Stopped { host, api: Fake::new(), runtime, network, files }.start_again().await
    }

    pub fn stop(self) -> Stopped {
        let Bench { host, api, runtime, network, files, .. } = self;
        Stopped { host, api, runtime, network, files }
    }

    /// The node leaves; its agent has ended then.
    pub async fn leave(self) -> Stopped {
        let Bench { host, api, runtime, network, files, leaves, agent } = self;
        leaves.send_replace(true);
        agent.join().await;
        Stopped { host, api, runtime, network, files }
    }

    pub async fn restart(self) -> Bench {
        self.stop().start_again().await
    }

    pub fn pod(&self, name: &str) -> Value {
        self.api.get(&format!("/api/v1/namespaces/shop/pods/{name}")).unwrap_or_default()
    }

    /// Makes a claim of this name in `shop`, bound to a folder of the node.
    pub fn bind(&self, name: &str) {
        let claims = "/api/v1/namespaces/shop/persistentvolumeclaims";
        let claim = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"volumeName": "pv"}});
        self.api.put(claims, claim);
        let claim = self.api.get(&format!("{claims}/{name}")).expect("it is there");
        let spec = json!({"hostPath": {"path": "/data"}, "claimRef": {"uid": claim["metadata"]["uid"]}});
        self.api.put("/api/v1/persistentvolumes", json!({"metadata": {"name": "pv"}, "spec": spec}));
    }

    pub fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.files.0.read(Path::new(path)).unwrap_or_default()).into_owned()
    }

    /// Waits until the pod is as asked, and gives it.
    pub async fn until(&self, limit: Duration, name: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let begun = self.host.moment();
        loop {
            let pod = self.pod(name);
            if is_so(&pod) {
                return pod;
            }
            let log = self.runtime.take_log();
            assert!(self.host.moment().since(begun) < limit, "it never was: {pod:#}\n{log:?}");
            self.runtime.state().log = log;
            self.host.sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn until_gone(&self, limit: Duration, name: &str) {
        self.until(limit, name, Value::is_null).await;
    }

    /// Asks for a pod's deletion as the API does: its time and grace are written.
    pub fn delete(&self, name: &str, grace: i64) {
        let mut pod = self.pod(name);
        pod["metadata"]["deletionTimestamp"] = json!(self.host.now().to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        self.api.put("/api/v1/namespaces/shop/pods", pod);
    }
}

impl Stopped {
    pub async fn start_again(self) -> Bench {
        let Stopped { host, api, runtime, network, files } = self;
        let client = Client::new(Arc::new(api.clone()), "kubelet");
        let means = Means {
            host: host.clone(),
            client: client.clone(),
            caches: Caches::new(client, host.clone()),
            runtime: Arc::new(runtime.clone()),
            network: network.clone(),
            files: Arc::new(files.0.clone()),
            dial: Arc::new(RuntimeDial(Arc::new(runtime.clone()))),
            peers: Arc::new(client::NoPeers),
            voice: kubelet::Voice::new(None),
        };
        let (leaves, mut left) = watch::channel(false);
        let agent = host.spawn(async move {
            let stop = async {
                let is_told = left.wait_for(|leaves| *leaves).await.is_ok();
                if is_told { kubelet::Stop::Leave } else { std::future::pending().await }
            };
            kubelet::run(settings(), means, stop).await.expect("the agent runs on");
        });
        Bench { host, api, runtime, network, files, leaves, agent }
    }
}

fn settings() -> Settings {
    let room = Allocatable { cpu_millis: 2000, memory: 4 << 30, ephemeral_storage: 10 << 30, pods: 110 };
    Settings {
        node_name: "n1".into(),
        node_addresses: vec![IpAddr::from([192, 0, 2, 1])],
        data_dir: "/data".into(),
        shared_dir: None,
        cluster_dns: vec![IpAddr::from([10, 9, 0, 10])],
        cluster_domain: "cluster.local".into(),
        pod_cidr: "10.0.0.0/24".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        tls: None,
        labels: BTreeMap::new(),
        machine: Machine {
            capacity: room,
            allocatable: room,
            architecture: "amd64".into(),
            ..Machine::default()
        },
        curve: Curve::HEALING,
        lease_every: LEASE_EVERY,
        lease_seconds: 4,
        terms: model::fence::Terms::LAN,
        hosts_server: true,
        log_len_max: 10 << 20,
        has_policies: false,
        image_marks: None,
        log_files_max: 5,
    }
}
