//! The fence and file systems: what a fenced pod wrote last reaches no disk once its deadline has passed.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use host::Clock;
use model::fence::Deadline;
use runtime::*;

use crate::world::*;

const EPOCH: u64 = 7;
/// What no disk has by chance.
const KEPT: &str = "c0ffee-was-synced-in-time";
const LOST: &str = "c0ffee-was-never-synced";

/// A file system in a file, mounted where a driver would put it; it is let go at the end, whatever comes.
struct Disk {
    image: PathBuf,
    within: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(world: &World) -> Disk {
        let within = world.dir.join("kubelet/pods");
        let disk = Disk { image: world.dir.join("disk.img"), at: within.join("u/a volume/mount"), within };
        std::fs::create_dir_all(&disk.at).expect("the folder is ours");
        std::fs::File::create(&disk.image).and_then(|file| file.set_len(32 << 20)).expect("it is ours");
        run(Command::new("mkfs.ext4").arg("-q").arg(&disk.image));
        disk.mount();
        disk
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at));
    }

    fn sync(&self) -> io::Result<()> {
        let dir = std::fs::File::open(&self.at)?;
        // SAFETY: a plain system call on a descriptor that is open.
        if unsafe { libc::syncfs(dir.as_raw_fd()) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// What is in the image, as anybody else would find it.
    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.image).expect("it is there")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-lq").arg(&self.at).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().expect("the program is there").success(), "{command:?}");
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

const ENDLESS: Deadline = Deadline { epoch: EPOCH, until: None };

fn now() -> Deadline {
    Deadline { until: Some(Clock::real().moment().0), ..ENDLESS }
}

/// A container of a fenced pod with a volume.
fn user(world: &World, name: &str, volume: &Path, within: &Path, words: &[&str]) -> ContainerSpec {
    let mut spec = world.spec("u", name, words);
    let propagation = "private".to_owned();
    let (source, target) = (volume.to_path_buf(), "/data".into());
    spec.mounts = vec![Mount { source, target, readonly: false, recursive: true, propagation }];
    spec.exclusive = Some(Exclusive { mounts: vec![volume.into()], within: vec![within.into()] });
    spec
}

/// Starts the container, waits until it has written, and lets the deadline pass; then the node may go on.
async fn is_fenced(world: &World, spec: ContainerSpec) {
    let (name, mut events) = (spec.name.clone(), world.runtime.events());
    let started = world.runtime.start(spec).await.expect("it starts");
    soon(async {
        while world.log("u", &name, None).await != "done\n" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    world.runtime.fence("u", now()).await.expect("it is told");
    assert_eq!(exit_of(&mut events, &started.container).await.code, 137);
    world.runtime.fence("u", ENDLESS).await.expect("it is told");
}

/// What comes of a start, once the monitor knows what it did.
async fn next_start(world: &World, spec: &ContainerSpec) -> Result<ContainerStatus, RuntimeError> {
    soon(async {
        loop {
            match world.runtime.start(spec.clone()).await {
                Err(RuntimeError::Failed { source, .. })
                    if source.to_string().contains("being shut down") => {}
                other => break other,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

fn complaints(world: &World) -> String {
    std::fs::read_to_string(world.dir.join("run/pods/u/monitor.log")).unwrap_or_default()
}

async fn fenced_sandbox(world: &World) {
    let spec = SandboxSpec { fence: Some(ENDLESS), ..world.pod("u") };
    world.runtime.create_sandbox(spec).await.expect("the sandbox can be made");
}

pub async fn a_fenced_pods_file_system_takes_nothing_more(world: World) {
    let disk = Disk::new(&world);
    // Now it is in the journal, and in the device's cache.
    let mut kept = std::fs::File::create(disk.at.join("kept")).expect("it is ours");
    kept.write_all(KEPT.as_bytes()).and_then(|()| kept.sync_all()).expect("it answers");
    drop(kept);
    fenced_sandbox(&world).await;
    let spec = user(&world, "db", &disk.at, &disk.within, &["write", "/data/lost", LOST, "wait"]);
    is_fenced(&world, spec).await;

    // Nothing starts on what is left of it, and whoever comes up later is told the same.
    let again = user(&world, "again", &disk.at, &disk.within, &["wait"]);
    let error = next_start(&world, &again).await.expect_err("it must be refused");
    assert!(matches!(error, RuntimeError::Shut), "{error:?}");
    let error = open(&world.dir).start(again).await.expect_err("it must be refused");
    assert!(matches!(error, RuntimeError::Shut), "{error:?}");
    let told = complaints(&world);
    assert!(
        told.trim_end().ends_with(&format!("shut down the file system at {}", disk.at.display())),
        "{told}"
    );

    // Writing is refused, and what was written is nowhere; the machine's own file system goes on.
    let refused = std::fs::write(disk.at.join("more"), "x").expect_err("it must be refused");
    assert_eq!(refused.raw_os_error(), Some(libc::EIO));
    let before = disk.bytes();
    assert!(holds(&before, KEPT) && !holds(&before, LOST));
    std::fs::write(world.dir.join("more"), "x").expect("it is not shut down");

    // Nor does anything get there later: not by a sync, not when it is unmounted.
    let _ = disk.sync();
    world.runtime.drop_sandbox("u").await.expect("it can be removed");
    run(Command::new("umount").arg(&disk.at));
    assert!(before == disk.bytes(), "the image has changed");
    disk.mount();
    assert_eq!(std::fs::read_to_string(disk.at.join("kept")).expect("it is there"), KEPT);
    assert!(!disk.at.join("lost").exists());
    std::fs::write(disk.at.join("more"), "x").expect("it works again");
    fenced_sandbox(&world).await;
    next_start(&world, &user(&world, "fresh", &disk.at, &disk.within, &["wait"])).await.expect("it starts");
}

pub async fn what_others_use_is_not_shut_down(world: World) {
    let disk = Disk::new(&world);
    // One is mounted for somebody else, too; the other is a folder of the machine's own file system.
    let elsewhere = Bound::new(&disk.at, &world.dir.join("elsewhere"));
    let folder = disk.within.join("u/folder/mount");
    let own = Bound::new(&world.dir.join("folder"), &folder);
    fenced_sandbox(&world).await;
    for (name, volume) in [("shared", &disk.at), ("folder", &folder)] {
        let spec = user(&world, name, volume, &disk.within, &["write", "/data/a", "x", "wait"]);
        is_fenced(&world, spec.clone()).await;
        next_start(&world, &ContainerSpec { attempt: 1, ..spec }).await.expect("it starts");
        std::fs::write(volume.join("more"), "x").expect("it is not shut down");
    }
    let told = complaints(&world);
    assert!(told.contains("goes on: it is used at") && told.contains("goes on: it is a folder"), "{told}");
    world.runtime.remove_sandbox("u").await.expect("it can be removed");
    drop((elsewhere, own));
}

/// A folder that is shown at another place, too, as long as this lives.
struct Bound(PathBuf);

impl Bound {
    fn new(source: &Path, at: &Path) -> Bound {
        for dir in [source, at] {
            std::fs::create_dir_all(dir).expect("the folder is ours");
        }
        run(Command::new("mount").arg("--bind").arg(source).arg(at));
        Bound(at.to_path_buf())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-lq").arg(&self.0).status();
    }
}
