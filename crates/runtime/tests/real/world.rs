//! A data directory of its own with a runtime on it, for one test; removed with all it made, also after a failure.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use host::Host;
use runtime::images::Single;
use runtime::*;
use tokio::sync::mpsc;

/// A test.
pub type Case = fn(World) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// The name of the test image.
pub const IMAGE: &str = "test/app:1";
/// How long anything may take before a test fails; never waited for when all is well.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime with one image.
#[derive(Clone)]
pub struct World {
    pub dir: PathBuf,
    pub runtime: Arc<KernelRuntime>,
    pub image: Image,
}

pub fn open(dir: &std::path::Path) -> Arc<KernelRuntime> {
    let exe = std::env::current_exe().expect("we are a file");
    let settings = Settings { data_dir: dir.to_path_buf(), registry_certs: None, exe };
    Arc::new(KernelRuntime::open(Host::real(), settings).expect("the runtime opens"))
}

/// A data directory with the test image only, from which each test's is copied: hashing the binary takes a while.
pub fn template() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    tokio.block_on(async {
        let exe = std::env::current_exe().expect("we are a file");
        let single =
            Single { binary: exe, target: "/app".into(), name: IMAGE.to_owned(), ..Single::default() };
        open(dir.path()).store().build_single(single).await.expect("the image can be made");
    });
    dir
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("it is there").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("it can be copied");
        }
    }
}

pub fn run(case: Case, template: &std::path::Path) {
    let dir = tempfile::tempdir().expect("a folder");
    let tokio =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
    let path = dir.path().join("data");
    copy(&template.join("images"), &path.join("images"));
    let outcome = tokio.block_on(async {
        let world = World::new(path.clone()).await;
        let task = tokio::spawn(case(world.clone()));
        let outcome = tokio::time::timeout(Duration::from_secs(60), task).await;
        drop(world);
        open(&path).remove_all().await.expect("everything can be removed");
        outcome
    });
    assert_clean(&path);
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        Err(_) => panic!("the test hangs"),
    }
}

/// Nothing names the data directory any more: no mount, no process, no group.
fn assert_clean(data_dir: &std::path::Path) {
    let name = data_dir.to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("it can be read");
    assert!(!mounts.contains(&name), "mounts are left: {mounts}");
    for entry in std::fs::read_dir("/proc").expect("it can be read").flatten() {
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&command).contains(&name), "process {:?} is left", entry.path());
    }
    let left: Vec<_> = std::fs::read_dir(data_dir.join("run/pods")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "folders are left: {left:?}");
    let group = group_name(data_dir);
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").expect("it can be read").flatten() {
        assert!(!hierarchy.path().join(&group).exists(), "a group is left in {:?}", hierarchy.path());
    }
}

/// The group of a data directory, as documented: a hash of its path.
pub fn group_name(data_dir: &std::path::Path) -> String {
    runtime::group_name(data_dir)
}

impl World {
    async fn new(dir: PathBuf) -> Self {
        let runtime = open(&dir);
        let image = runtime.image(IMAGE).await.expect("it can be asked").expect("it is in the template");
        Self { dir, runtime, image }
    }

    pub fn pod(&self, uid: &str) -> SandboxSpec {
        SandboxSpec {
            pod_uid: uid.to_owned(),
            name: uid.to_owned(),
            namespace: "default".to_owned(),
            hostname: format!("host-of-{uid}"),
            ..SandboxSpec::default()
        }
    }

    pub async fn sandbox(&self, uid: &str) -> Sandbox {
        self.runtime.create_sandbox(self.pod(uid)).await.expect("the sandbox can be made")
    }

    pub fn spec(&self, uid: &str, name: &str, words: &[&str]) -> ContainerSpec {
        let args = ["/app", crate::app::APP].iter().chain(words).map(|word| (*word).to_owned()).collect();
        ContainerSpec {
            pod_uid: uid.to_owned(),
            name: name.to_owned(),
            image: IMAGE.to_owned(),
            image_id: self.image.id.clone(),
            args,
            ..ContainerSpec::default()
        }
    }

    /// Runs a container to its end; returns how it ended and what it printed.
    pub async fn run(&self, spec: ContainerSpec) -> (Exit, String) {
        let mut events = self.runtime.events();
        let (uid, name, attempt) = (spec.pod_uid.clone(), spec.name.clone(), spec.attempt);
        let status = self.runtime.start(spec).await.expect("it starts");
        let exit = exit_of(&mut events, &status.container).await;
        (exit, self.log(&uid, &name, Some(attempt)).await)
    }

    /// Makes a sandbox, runs words in it to their end, and returns what they printed.
    pub async fn output(&self, uid: &str, change: impl FnOnce(&mut ContainerSpec), words: &[&str]) -> String {
        self.sandbox(uid).await;
        let mut spec = self.spec(uid, "main", words);
        change(&mut spec);
        self.run(spec).await.1
    }

    pub async fn log(&self, uid: &str, name: &str, attempt: Option<u32>) -> String {
        let request =
            LogRequest { pod_uid: uid.to_owned(), name: name.to_owned(), attempt, ..LogRequest::default() };
        collect(self.runtime.log(request).await.expect("there is a log")).await
    }
}

pub async fn collect(mut log: mpsc::Receiver<bytes::Bytes>) -> String {
    let mut text = Vec::new();
    while let Some(part) = soon(log.recv()).await {
        text.extend_from_slice(&part);
    }
    String::from_utf8_lossy(&text).into_owned()
}

pub async fn exit_of(events: &mut mpsc::Receiver<RuntimeEvent>, wanted: &ContainerRef) -> Exit {
    loop {
        match soon(events.recv()).await {
            Some(RuntimeEvent::Exited { container, exit, .. }) if container == *wanted => return exit,
            Some(_) => {}
            None => panic!("the events ended"),
        }
    }
}

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens soon")
}

/// Everything a running command prints, until it ends; and how it ends.
pub async fn drain(mut output: mpsc::Receiver<StreamOutput>) -> (String, String, Option<i32>) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while let Some(part) = soon(output.recv()).await {
        match part {
            StreamOutput::Stdout(bytes) => out.extend_from_slice(&bytes),
            StreamOutput::Stderr(bytes) => err.extend_from_slice(&bytes),
            StreamOutput::Ended(code) => {
                return (
                    String::from_utf8_lossy(&out).into(),
                    String::from_utf8_lossy(&err).into(),
                    Some(code),
                );
            }
        }
    }
    (String::from_utf8_lossy(&out).into(), String::from_utf8_lossy(&err).into(), None)
}
