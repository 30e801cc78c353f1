//! Storage that falls silent: found in seconds, told with what helps, and nobody waits but the pods that use it.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::harness::{Cluster, tool, web_pod};

/// `FIFREEZE` and `FITHAW` of `linux/fs.h`.
const FREEZE: libc::c_ulong = 0xc004_5877;
const THAW: libc::c_ulong = 0xc004_5878;

/// A file system in a file, which can be stopped; it is let go at the end, whatever comes.
struct Disk {
    at: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> Disk {
        let (image, at) = (dir.join("disk.img"), dir.join("disk"));
        std::fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("the folder is ours");
        std::fs::create_dir(&at).expect("the folder is ours");
        run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at));
        Disk { at }
    }

    fn ask(&self, what: libc::c_ulong) -> bool {
        let dir = std::fs::File::open(&self.at).expect("it is mounted");
        // SAFETY: a plain system call on a descriptor that is open.
        unsafe { libc::ioctl(dir.as_raw_fd(), what, 0) == 0 }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // One that is not stopped says so.
        self.ask(THAW);
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn run(command: &mut Command) {
    assert!(command.status().expect("the program is there").success(), "{command:?}");
}

#[test]
fn silent_storage_is_found_and_told_and_holds_up_nobody_else() {
    let cluster = Cluster::start(1);
    cluster.import_demo_image();
    let disk = Disk::new(cluster.dir());
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Mi"}, "storageClassName": "none",
            "hostPath": {"path": disk.at, "type": "Directory"}}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "none", "volumeName": "disk",
            "resources": {"requests": {"storage": "1Mi"}}}},
    ]});
    cluster.apply(&objects.to_string());
    let start = |name: &str, has_volume: bool| {
        let mut pod = web_pod(name);
        if has_volume {
            pod["spec"]["volumes"] =
                json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
            pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        }
        cluster.apply(&pod.to_string());
    };
    let ready = |name: &str| {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        cluster.until(&["get", "pod", name, "-o", path], |status| status == "True");
    };
    start("user", true);
    ready("user");
    let write = [vec!["exec", "user", "--"], tool("write /data/note kept")].concat();
    cluster.kubectl(&write);

    assert!(disk.ask(FREEZE), "it can be stopped");
    let outcome = "jsonpath={.status.outcome}";
    cluster.until(&["get", "repair", "pod-user-storagesilent", "-o", outcome], |told| told == "Escalated");
    let told = cluster.kubectl(&["get", "repair", "pod-user-storagesilent", "-o", "yaml"]);
    let place = disk.at.display().to_string();
    assert!(told.contains(&format!("umount -f -l {place}")), "{told}");
    // A pod that does not use it comes up meanwhile; one that does waits, and says for what.
    start("other", false);
    ready("other");
    start("second", true);
    let events = cluster.until(&["describe", "pod", "second"], |text| text.contains("has not answered"));
    assert!(events.contains(&place), "{events}");

    assert!(disk.ask(THAW), "it was stopped");
    cluster.until(&["get", "repair", "pod-user-storagesilent", "-o", outcome], |told| told == "Recovered");
    ready("second");
    let read = [vec!["exec", "second", "--"], tool("cat /data/note")].concat();
    assert_eq!(cluster.kubectl(&read), "kept");
}
