//! A storage driver of another house: registered, asked to stage and publish, asked to take back, and waited for.
//!
//! The driver speaks CSI's gRPC from this process, by the sockets that its pod's folder shows, and mounts in its pod's own
//! view, at the paths it is told: as a driver in a container does.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use serde_json::{Value, json};

use kintsugi::faults::Paused;

use crate::harness::{Cluster, process_of, tool, tool_pod, web_pod};

const DRIVER: &str = "test.kintsugi.dev";

/// All messages that the driver reads, as one: the numbers of those fields differ by call.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(string, tag = "1")]
    volume_id: String,
    #[prost(string, tag = "3")]
    staging_path: String,
    #[prost(string, tag = "4")]
    target_path: String,
    #[prost(btree_map = "string, string", tag = "8")]
    context: std::collections::BTreeMap<String, String>,
}

/// Of a call that takes something back.
#[derive(Clone, PartialEq, Message)]
struct Undone {
    #[prost(string, tag = "1")]
    volume_id: String,
    #[prost(string, tag = "2")]
    path: String,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    endpoint: String,
    #[prost(string, repeated, tag = "4")]
    versions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeInfo {
    #[prost(string, tag = "1")]
    node_id: String,
    #[prost(int64, tag = "2")]
    volumes_max: i64,
    #[prost(message, optional, tag = "3")]
    topology: Option<Topology>,
}

#[derive(Clone, PartialEq, Message)]
struct Topology {
    #[prost(btree_map = "string, string", tag = "1")]
    segments: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Abilities {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Ability>,
}

#[derive(Clone, PartialEq, Message)]
struct Ability {
    #[prost(message, optional, tag = "1")]
    rpc: Option<Rpc>,
}

#[derive(Clone, PartialEq, Message)]
struct Rpc {
    #[prost(int32, tag = "1")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Stats {
    #[prost(message, repeated, tag = "1")]
    usage: Vec<AmountUsed>,
    #[prost(message, optional, tag = "2")]
    condition: Option<Condition>,
}

#[derive(Clone, PartialEq, Message)]
struct AmountUsed {
    #[prost(int64, tag = "1")]
    available: i64,
    #[prost(int64, tag = "2")]
    total: i64,
    #[prost(int64, tag = "3")]
    used: i64,
    #[prost(int32, tag = "4")]
    unit: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Condition {
    #[prost(bool, tag = "1")]
    is_abnormal: bool,
    #[prost(string, tag = "2")]
    message: String,
}

/// What the driver does, and what it was asked.
struct Work {
    /// A process in the driver's container.
    pid: i32,
    /// The device with a file system that it gives; without one it shows a folder of its own.
    disk: Option<PathBuf>,
    told: Mutex<Vec<String>>,
}

impl Work {
    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn answer(&self, path: &str, body: Bytes) -> Vec<u8> {
        let method = path.rsplit('/').next().unwrap_or_default();
        let undone = || Undone::decode(body.clone()).expect("a message");
        let line = match method {
            "GetInfo" => {
                let endpoint = format!("/var/lib/kubelet/plugins/{DRIVER}/csi.sock");
                let (kind, name, versions) = ("CSIPlugin".into(), DRIVER.into(), vec!["1.0.0".into()]);
                return Info { kind, name, endpoint, versions }.encode_to_vec();
            }
            "NodeGetInfo" => {
                let segments = [("test.kintsugi.dev/rack".to_owned(), "seven".to_owned())].into();
                let topology = Some(Topology { segments });
                return NodeInfo { node_id: "n-1".into(), volumes_max: 5, topology }.encode_to_vec();
            }
            "NodeGetCapabilities" => {
                // It stages, and says how full volumes are and whether they are well.
                let all = [1, 2, 4].map(|kind| Ability { rpc: Some(Rpc { kind }) }).into();
                return Abilities { all }.encode_to_vec();
            }
            "NodeGetVolumeStats" => {
                let asked = undone();
                assert_eq!(asked.volume_id, "h-1");
                assert!(asked.path.ends_with("/mount"), "{}", asked.path);
                let usage = vec![AmountUsed { available: 30, total: 100, used: 70, unit: 1 }];
                let condition = Some(Condition { is_abnormal: true, message: "worn out".into() });
                return Stats { usage, condition }.encode_to_vec();
            }
            "NodeStageVolume" => {
                let asked = Asked::decode(body).expect("a message");
                let disk = self.disk.clone();
                self.inside(Box::new(move || disk.iter().for_each(|disk| mount(disk, &asked.staging_path))));
                format!("stage {}", asked.volume_id)
            }
            "NodePublishVolume" => {
                let asked = Asked::decode(body).expect("a message");
                let data = match self.disk {
                    Some(_) => asked.staging_path.clone(),
                    None => format!("/var/lib/kubelet/plugins/{DRIVER}/data"),
                };
                self.inside(Box::new(move || publish(&data, Path::new(&asked.target_path))));
                let pod = asked.context.get("csi.storage.k8s.io/pod.name").cloned().unwrap_or_default();
                assert!(asked.staging_path.ends_with("/globalmount"), "{}", asked.staging_path);
                format!("publish {} for {pod}", asked.volume_id)
            }
            "NodeUnpublishVolume" => {
                let asked = undone();
                self.inside(Box::new(move || unmount(&asked.path)));
                format!("unpublish {}", undone().volume_id)
            }
            "NodeUnstageVolume" => {
                let (asked, disk) = (undone(), self.disk.clone());
                self.inside(Box::new(move || disk.iter().for_each(|_| unmount(&asked.path))));
                format!("unstage {}", undone().volume_id)
            }
            _ => return Vec::new(),
        };
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        Vec::new()
    }

    /// Does something as the container would: in its own view of the mounts.
    fn inside(&self, work: Box<dyn FnOnce() + Send>) {
        let view = std::fs::File::open(format!("/proc/{}/ns/mnt", self.pid)).expect("the container runs");
        let thread = std::thread::spawn(move || {
            use std::os::fd::AsRawFd;
            // SAFETY: the thread is ours alone and ends after this; the descriptor is open.
            let entered =
                unsafe { libc::unshare(libc::CLONE_FS) + libc::setns(view.as_raw_fd(), libc::CLONE_NEWNS) };
            assert_eq!(entered, 0, "the view is there");
            work();
        });
        thread.join().expect("the driver does its work");
    }
}

/// Shows the driver's data at a path.
fn publish(data: &str, target: &Path) {
    std::fs::create_dir_all(target).expect("its parent is there");
    rustix::mount::mount_bind(data, target).expect("it can be mounted");
}

/// Mounts a device, which may have come after the driver's own `/dev`.
fn mount(disk: &Path, at: &str) {
    std::fs::create_dir_all(at).expect("its parent is there");
    let device_of = |path: &Path| std::fs::metadata(path).expect("it is there").dev();
    if device_of(Path::new(at)) != device_of(Path::new(at).parent().expect("it has one")) {
        return;
    }
    let number = disk.to_str().and_then(|name| name.strip_prefix("/dev/loop")?.parse().ok());
    let device = rustix::fs::makedev(LOOP, number.expect("a loop device"));
    let own = Path::new("/dev/disk-of-the-driver");
    let _ = std::fs::remove_file(own);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, own, rustix::fs::FileType::BlockDevice, mode, device)
        .expect("it is its own");
    rustix::mount::mount(own, at, "ext4", rustix::mount::MountFlags::empty(), None)
        .expect("it can be mounted");
}

fn unmount(path: &str) {
    if Path::new(path).exists() {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::empty()).expect("it is mounted");
    }
}

/// The major number of loop devices.
const LOOP: u32 = 7;

/// A file that is a device with a file system; it is let go at the end, whatever comes.
struct Disk {
    device: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> Disk {
        let image = dir.join("disk.img");
        std::fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("the folder is ours");
        let run = |command: &mut Command| {
            let done = command.output().expect("the program is there");
            assert!(done.status.success(), "{command:?}: {done:?}");
            String::from_utf8_lossy(&done.stdout).trim().to_owned()
        };
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        Disk { device: run(Command::new("losetup").args(["--find", "--show"]).arg(&image)).into() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is mounted still holds it until the cluster is gone.
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

async fn serve(work: Arc<Work>, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let mut frame = request.into_body().collect().await?.to_bytes();
    frame.advance(5);
    let message = tokio::task::spawn_blocking(move || work.answer(&path, frame)).await.expect("no panic");
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("it is small"));
    framed.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let parts = [Ok(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))];
    Ok(Response::new(StreamBody::new(futures_util::stream::iter(parts)).boxed_unsync()))
}

/// A driver that runs; its sockets go with it.
struct Driver {
    work: Arc<Work>,
    sockets: [PathBuf; 2],
    _runtime: tokio::runtime::Runtime,
}

impl Driver {
    fn start(kubelet: &Path, work: Arc<Work>) -> Driver {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        // The registration comes last: it is what is looked for.
        let sockets = [
            kubelet.join("plugins").join(DRIVER).join("csi.sock"),
            kubelet.join("plugins_registry").join(format!("{DRIVER}-reg.sock")),
        ];
        for socket in &sockets {
            let work = work.clone();
            let _entered = runtime.enter();
            let listener = tokio::net::UnixListener::bind(socket).expect("the place is free");
            runtime.spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let work = work.clone();
                    let service = hyper::service::service_fn(move |request| serve(work.clone(), request));
                    tokio::spawn(async move {
                        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        // A client that leaves is none of the driver's business.
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    });
                }
            });
        }
        Driver { work, sockets, _runtime: runtime }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for socket in &self.sockets {
            // A folder that is gone took it along.
            let _ = std::fs::remove_file(socket);
        }
    }
}

fn driver_pod() -> Value {
    let mut pod = web_pod("driver");
    pod["spec"]["volumes"] =
        json!([{"name": "kubelet", "hostPath": {"path": "/var/lib/kubelet", "type": "Directory"}}]);
    let container = &mut pod["spec"]["containers"][0];
    container["securityContext"] = json!({"privileged": true});
    container["volumeMounts"] =
        json!([{"name": "kubelet", "mountPath": "/var/lib/kubelet", "mountPropagation": "Bidirectional"}]);
    pod
}

const OBJECTS: &str = r#"{"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "test.kintsugi.dev"},
     "spec": {"attachRequired": false, "podInfoOnMount": true}},
    {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "theirs"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"}, "storageClassName": "none",
        "csi": {"driver": "test.kintsugi.dev", "volumeHandle": "h-1"}}},
    {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "none", "volumeName": "theirs",
        "resources": {"requests": {"storage": "1Mi"}}}}
]}"#;

fn user(name: &str) -> Value {
    let mut pod = web_pod(name);
    pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod
}

#[test]
fn a_driver_is_found_gives_its_volume_and_is_waited_for_to_take_it_back() {
    let cluster = Cluster::start(1);
    cluster.import_demo_image();
    let ready = |name: &str| {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        cluster.until(&["get", "pod", name, "-o", path], |status| status == "True");
    };
    cluster.apply(OBJECTS);
    cluster.kubectl_with(&["apply", "-f", "-"], &user("early").to_string());
    let told = cluster.until(&["describe", "pod", "early"], |text| text.contains("FailedMount"));
    assert!(told.contains("not found in the list of registered CSI drivers"), "{told}");

    cluster.kubectl_with(&["apply", "-f", "-"], &driver_pod().to_string());
    ready("driver");
    let kubelet = cluster.data_dir().join("nodes/node-1/kubelet");
    let data = kubelet.join("plugins").join(DRIVER).join("data");
    std::fs::create_dir_all(&data).expect("the node's folder is ours");
    std::fs::write(data.join("note"), "theirs").expect("the folder is new");
    let pid = process_of("driver", &["/kintsugi", "web", "8080"]);
    let work = Arc::new(Work { pid, disk: None, told: Mutex::default() });
    let driver = Driver::start(&kubelet, work.clone());

    // The pod that waited goes on by itself.
    ready("early");
    let read = [vec!["exec", "early", "--"], tool("cat /data/note")].concat();
    assert_eq!(cluster.kubectl(&read), "theirs");
    assert_eq!(driver.work.told(), ["stage h-1", "publish h-1 for early"]);
    let node = "jsonpath={.spec.drivers[0].nodeID} {.spec.drivers[0].allocatable.count} {.spec.drivers[0].topologyKeys[0]}";
    assert_eq!(cluster.kubectl(&["get", "csinode", "node-1", "-o", node]), "n-1 5 test.kintsugi.dev/rack");
    cluster.until(&["get", "node", "-l", "test.kintsugi.dev/rack=seven", "-o", "name"], |name| {
        name.contains("node-1")
    });

    // How full and how well it is, as the driver says.
    let metrics = cluster.until(&["get", "--raw", "/api/v1/nodes/node-1/proxy/metrics"], |all| {
        all.contains("kubelet_volume_stats_used_bytes")
    });
    for wanted in
        ["used_bytes", "capacity_bytes", "health_status_abnormal"].into_iter().zip(["70", "100", "1"])
    {
        let (name, value) = wanted;
        let row = format!(
            "kubelet_volume_stats_{name}{{namespace=\"default\",persistentvolumeclaim=\"data\"}} {value}\n"
        );
        assert!(metrics.contains(&row), "{row}{metrics}");
    }
    cluster.until(&["describe", "pod", "early"], |text| {
        text.contains("VolumeConditionAbnormal") && text.contains("Volume data: worn out")
    });

    // A second pod of the node: staged once, published for each.
    let mut second = tool_pod("second", "cat /data/note");
    second["spec"]["volumes"] = user("second")["spec"]["volumes"].clone();
    second["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    cluster.kubectl_with(&["apply", "-f", "-"], &second.to_string());
    cluster.until(&["logs", "second"], |log| log == "theirs");
    // It is over, and holds its volume no longer, though it is still there.
    let gone = "unpublish h-1".to_owned();
    until(|| driver.work.told().contains(&gone));

    // Without its driver nobody takes the volume back: the pod waits, and says for whom.
    drop(driver);
    cluster.until(&["get", "csinode", "node-1", "-o", "jsonpath={.spec.drivers}"], |drivers| {
        drivers.is_empty() || drivers == "[]"
    });
    cluster.kubectl(&["delete", "pod", "early", "--wait=false"]);
    let told = cluster.until(&["describe", "pod", "early"], |text| text.contains("FailedKillPod"));
    assert!(told.contains(&format!("driver name {DRIVER} not found")), "{told}");
    let driver = Driver::start(&kubelet, work);
    cluster.until(&["get", "pods", "-o", "name"], |names| !names.contains("early"));
    until(|| driver.work.told().ends_with(&["unpublish h-1".into(), "unstage h-1".into()]));
    assert_eq!(std::fs::read_to_string(data.join("note")).expect("its data stay"), "theirs");
}

/// Longer than a lease: whoever stops so long finds its deadline passed.
const LONG: Duration = Duration::from_secs(6);

#[test]
fn a_volume_of_a_fenced_pod_takes_no_late_write_and_is_made_anew_where_the_node_goes_on() {
    let cluster = Cluster::start(3);
    cluster.import_demo_image();
    let disk = Disk::new(cluster.dir());
    cluster.apply(OBJECTS);
    // A node without which nobody has a majority has no deadline.
    let voters = r"jsonpath={.metadata.annotations.healing\.kintsugi\.dev/voters}";
    cluster.until(&["get", "lease", "-n", "kube-node-lease", "node-2", "-o", voters], |voters| {
        ["node-1", "node-2", "node-3"].iter().all(|node| voters.contains(node))
    });
    let on_node_2 = |mut pod: Value| {
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": "node-2"});
        pod.to_string()
    };
    let ready = |name: &str| {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        cluster.until(&["get", "pod", name, "-o", path], |status| status == "True");
    };
    cluster.kubectl_with(&["apply", "-f", "-"], &on_node_2(driver_pod()));
    ready("driver");
    let kubelet = cluster.data_dir().join("nodes/node-2/kubelet");
    let pid = process_of("driver", &["/kintsugi", "web", "8080"]);
    let work = Arc::new(Work { pid, disk: Some(disk.device.clone()), told: Mutex::default() });
    std::fs::create_dir_all(kubelet.join("plugins").join(DRIVER)).expect("the node's folder is ours");
    let driver = Driver::start(&kubelet, work);
    cluster.kubectl_with(&["apply", "-f", "-"], &on_node_2(user("early")));
    ready("early");

    // Its monitor stops for a while. When it looks again, the deadline that it knows of has passed, but the node has kept
    // its lease all the time.
    let uid = cluster.value("pod/early", "{.metadata.uid}");
    let at = kubelet.join("pods").join(&uid).join("volumes/kubernetes.io~csi/theirs/mount");
    let mut kept = std::fs::File::create(at.join("kept")).expect("it is mounted");
    kept.write_all(b"in time").and_then(|()| kept.sync_all()).expect("it answers");
    drop(kept);
    let stop = |pid| Paused::stop(pid).expect("it is ours");
    let paused: Vec<Paused> = monitors_of(&uid).into_iter().map(stop).collect();
    assert!(!paused.is_empty(), "a monitor of {uid}");
    std::thread::sleep(LONG);
    std::fs::write(at.join("lost"), "too late").expect("it goes on so far");
    drop(paused);

    let anew = ["unpublish h-1", "unstage h-1", "stage h-1", "publish h-1 for early"];
    until(|| driver.work.told().ends_with(&anew.map(str::to_owned)));
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    cluster.until(&["get", "pod", "early", "-o", restarts], |count| count == "1");
    ready("early");
    let read = [vec!["exec", "early", "--"], tool("cat /data/kept")].concat();
    assert_eq!(cluster.kubectl(&read), "in time");
    assert!(!at.join("lost").exists(), "what came too late is nowhere");
    std::fs::write(at.join("more"), "x").expect("it works again");
    assert_eq!(driver.work.told().len(), 2 + anew.len(), "{:?}", driver.work.told());
    cluster.kubectl(&["delete", "pod", "early"]);
    until(|| driver.work.told().ends_with(&["unpublish h-1".into(), "unstage h-1".into()]));
}

/// The monitor of a pod, and what waits to become its next container.
fn monitors_of(uid: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("procfs is mounted");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let line = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_it = |pid: &i32| {
        let line = line(pid);
        line.contains("monitor\0") && line.contains(uid)
    };
    pids.filter(is_it).collect()
}

/// Looks again and again until it is so.
fn until(is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < std::time::Duration::from_secs(120), "it does not come to be so");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
