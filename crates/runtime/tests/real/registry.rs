//! An image on disk in each format, and a registry on loopback that serves it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn put(dir: &Path, bytes: &[u8]) -> String {
    let digest = digest(bytes);
    std::fs::write(dir.join("blobs/sha256").join(&digest), bytes).expect("it can be written");
    digest
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).expect("it fits");
    }
    builder.into_inner().expect("it is whole")
}

/// The shared libraries that a program has loaded, by way of ourselves.
fn libraries() -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("it can be read");
    let mut paths: Vec<String> =
        maps.lines().filter_map(|line| line.split_whitespace().nth(5)).map(String::from).collect();
    paths.retain(|path| path.contains(".so"));
    paths.push("/lib64/ld-linux-x86-64.so.2".to_owned());
    paths.sort();
    paths.dedup();
    paths
}

/// An OCI layout with an image of two layers, the upper of which changes and deletes files of the lower.
pub fn layout(dir: &Path, program: &Path) -> PathBuf {
    std::fs::create_dir_all(dir.join("blobs/sha256")).expect("a folder");
    let program = std::fs::read(program).expect("it is a file");
    let loaded: Vec<(String, Vec<u8>)> = libraries()
        .into_iter()
        .map(|path| (path.trim_start_matches('/').to_owned(), std::fs::read(&path).expect("it is a file")))
        .collect();
    let mut files: Vec<(&str, &[u8])> =
        vec![("app", &program), ("etc/note", b"lower\n"), ("gone/kept", b""), ("gone/away", b"")];
    files.extend(loaded.iter().map(|(path, content)| (path.as_str(), &content[..])));
    let lower = tar(&files);
    let upper = tar(&[("etc/note", b"upper\n"), ("gone/.wh.away", b"")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&upper).expect("there is room");
    let packed = [zstd::encode_all(&lower[..], 1).expect("it is whole"), gzip.finish().expect("it is whole")];
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64",
        "config": {"Entrypoint": ["/app"], "Env": null, "User": ""},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&lower)), format!("sha256:{}", digest(&upper))]},
    });
    let config = config.to_string();
    let describe = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "size": bytes.len(), "digest": format!("sha256:{}", put(dir, bytes))});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe("config.v1+json", config.as_bytes()),
        "layers": [describe("layer.v1.tar+zstd", &packed[0]), describe("layer.v1.tar+gzip", &packed[1])],
    });
    let manifest = manifest.to_string();
    let mut entry = describe("manifest.v1+json", manifest.as_bytes());
    entry["annotations"] = serde_json::json!({"io.containerd.image.name": "test/layout:2"});
    entry["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    let mut foreign = entry.clone();
    foreign["platform"]["architecture"] = "s390x".into();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [foreign, entry],
    });
    std::fs::write(dir.join("index.json"), index.to_string()).expect("it can be written");
    dir.to_path_buf()
}

fn manifest(layout: &Path) -> serde_json::Value {
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(layout.join("index.json")).expect("it is there"))
            .expect("it is JSON");
    let digest = index["manifests"][1]["digest"].as_str().expect("a text").to_owned();
    serde_json::from_slice(&std::fs::read(blob(layout, &digest)).expect("it is there")).expect("it is JSON")
}

fn blob(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replace(':', "/"))
}

/// The same image as `docker save` writes it.
pub fn docker_archive(dir: &Path, layout: &Path, compressed: bool) -> PathBuf {
    let manifest = manifest(layout);
    let read = |descriptor: &serde_json::Value| {
        std::fs::read(blob(layout, descriptor["digest"].as_str().expect("a text"))).expect("it is there")
    };
    let (config, one, two) =
        (read(&manifest["config"]), read(&manifest["layers"][0]), read(&manifest["layers"][1]));
    let list = serde_json::json!([{"Config": "c.json", "RepoTags": ["test/saved:3"], "Layers": ["one/layer.tar", "two/layer.tar"]}]);
    let list = list.to_string();
    let files: [(&str, &[u8]); 4] = [
        ("manifest.json", list.as_bytes()),
        ("c.json", &config),
        ("one/layer.tar", &one),
        ("two/layer.tar", &two),
    ];
    let bytes = tar(&files);
    let path = dir.join("saved.tar");
    let bytes = if compressed { zstd::encode_all(&bytes[..], 1).expect("it is whole") } else { bytes };
    std::fs::write(&path, bytes).expect("it can be written");
    path
}

/// Puts another layer, packed just as well, in the place of the upper one.
pub fn damage(layout: &Path) {
    let manifest = manifest(layout);
    let path = blob(layout, manifest["layers"][1]["digest"].as_str().expect("a text"));
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar(&[("etc/note", b"other\n")])).expect("there is room");
    std::fs::write(path, gzip.finish().expect("it is whole")).expect("it can be written");
}

/// A registry that serves one layout, whatever the repository is called, except `missing`.
pub struct Registry {
    pub port: u16,
    blobs: Arc<AtomicUsize>,
    _task: host::Task<()>,
}

impl Registry {
    pub async fn start(layout: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let blobs = Arc::new(AtomicUsize::new(0));
        let count = blobs.clone();
        let task = host::Host::real().spawn(async move {
            let mut tasks = host::Tasks::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (layout, count) = (layout.clone(), count.clone());
                tasks.spawn(async move {
                    let _ = serve(stream, &layout, &count).await;
                });
            }
        });
        Self { port, blobs, _task: task }
    }

    pub fn blob_requests(&self) -> usize {
        self.blobs.load(Ordering::SeqCst)
    }
}

async fn serve(stream: tokio::net::TcpStream, layout: &Path, blobs: &AtomicUsize) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut path = String::new();
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 2 {
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            line.clear();
        }
        if path.is_empty() {
            return Ok(());
        }
        let (kind, body) = respond(&path, layout, blobs);
        let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
        let body = body.unwrap_or_default();
        let hash = digest(&body);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: sha256:{hash}\r\n\r\n",
            body.len()
        );
        let is_blob = path.contains("/blobs/");
        let head = if is_blob {
            head.replace(&format!("Docker-Content-Digest: sha256:{hash}\r\n"), "")
        } else {
            head
        };
        stream.get_mut().write_all(head.as_bytes()).await?;
        stream.get_mut().write_all(&body).await?;
    }
}

fn respond(path: &str, layout: &Path, blobs: &AtomicUsize) -> (&'static str, Option<Vec<u8>>) {
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.contains("/missing/") {
        return ("application/json", None);
    }
    if path.contains("/blobs/") {
        blobs.fetch_add(1, Ordering::SeqCst);
        return ("application/octet-stream", std::fs::read(blob(layout, last)).ok());
    }
    if path.contains("/manifests/") && last.starts_with("sha256:") {
        return ("application/vnd.oci.image.manifest.v1+json", std::fs::read(blob(layout, last)).ok());
    }
    if path.contains("/manifests/") {
        return ("application/vnd.oci.image.index.v1+json", std::fs::read(layout.join("index.json")).ok());
    }
    ("application/json", Some(b"{}".to_vec()))
}
