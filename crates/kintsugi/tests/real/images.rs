//! Images: bad archives, and pulls from a registry of this test's own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::harness::Space;

#[test]
fn a_bad_archive_is_refused_and_changes_nothing() {
    let space = Space::new("archives");
    let before = space.cluster().binary_act(&["image", "list"]).stdout;
    let file = space.cluster().dir().join("bad.tar");
    let cases: [(&[u8], &str); 3] =
        [(b"this is no archive", "cannot import"), (b"", "cannot import"), (&[0; 10_240], "cannot import")];
    for (bytes, wanted) in cases {
        std::fs::write(&file, bytes).expect("the folder is ours");
        let path = file.display().to_string();
        let output = space.cluster().binary_act(&["image", "import", &path]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(wanted) && said.contains("bad.tar"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    let missing = space.cluster().binary_act(&["image", "import", "/no/such/file.tar"]);
    assert!(!missing.status.success());
    assert_eq!(space.cluster().binary_act(&["image", "list"]).stdout, before);
}

#[test]
fn an_image_is_pulled_from_a_registry_and_a_missing_one_is_said_to_be_missing() {
    let space = Space::new("pulls");
    let port = space.cluster().within(|| Registry::serve(image_that_exits(42)));
    let apply = |name: &str, image: &str| {
        space.apply(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]},
        }));
    };
    apply("there", &format!("127.0.0.1:{port}/test/exit:1"));
    apply("gone", &format!("127.0.0.1:{port}/test/exit:2"));
    let code = "{.status.containerStatuses[0].state.terminated.exitCode}";
    space.until_value("pod/there", code, |code| code == "42");
    space.until(&["get", "events"], |out| out.contains("Successfully pulled image"));
    let reason = "{.status.containerStatuses[0].state.waiting.reason}";
    space.until_value("pod/gone", reason, |reason| reason == "ErrImagePull" || reason == "ImagePullBackOff");
    space.until_value("pod/gone", reason, |reason| reason == "ImagePullBackOff");
    let said = space.value("pod/gone", "{.status.containerStatuses[0].state.waiting.message}");
    assert!(said.contains("test/exit:2") && said.contains("not there"), "{said}");
    space.until(&["get", "events"], |out| {
        out.contains("Failed to pull image") && out.contains("ErrImagePull")
    });
}

#[test]
fn a_private_registry_over_https_is_trusted_by_its_authority_and_asks_who_pulls() {
    let space = Space::new("private-pulls");
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("it can be signed");
    let port = space.cluster().within(|| Registry::serve_private(image_that_exits(43), &key));
    let image = format!("127.0.0.1:{port}/test/exit:1");
    let apply = |name: &str, secret: Option<&str>| {
        let secrets: Vec<_> = secret.into_iter().map(|name| json!({"name": name})).collect();
        space.apply(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never", "imagePullSecrets": secrets,
                "containers": [{"name": "main", "image": image}],
            },
        }));
    };
    let said_of = |pod: &str, wanted: &str| {
        let said = "{.status.containerStatuses[0].state.waiting.message}";
        space.until_value(&format!("pod/{pod}"), said, |said| said.contains(wanted))
    };
    let place = format!("127.0.0.1:{port}");
    let login = |name: &str, password: &str| {
        space.kubectl(&[
            "create",
            "secret",
            "docker-registry",
            name,
            "--docker-username=ann",
            &format!("--docker-password={password}"),
            &format!("--docker-server={place}"),
        ]);
    };
    login("right", "secret");
    login("wrong", "guess");

    let certs = space.cluster().data_dir().join("registry-certs").join(&place);
    std::fs::create_dir_all(&certs).expect("the folder is ours");
    std::fs::write(certs.join("ca.crt"), "no certificate").expect("the folder is ours");
    apply("untrusting", Some("right"));
    said_of("untrusting", "ca.crt");

    std::fs::write(certs.join("ca.crt"), key.cert.pem()).expect("the folder is ours");
    let code = "{.status.containerStatuses[0].state.terminated.exitCode}";
    space.until_value("pod/untrusting", code, |code| code == "43");
    apply("known", Some("right"));
    space.until_value("pod/known", code, |code| code == "43");
    // The image is here by now: for those who could have pulled it.
    apply("nobody", None);
    apply("stranger", Some("wrong"));
    said_of("nobody", "uthoriz");
    said_of("stranger", "uthoriz");
}

/// A registry of one image, by path.
struct Registry {
    pages: BTreeMap<String, (String, Vec<u8>)>,
    /// Where tokens are had, when they are asked for: of `ann`, whose password is `secret`.
    tokens: Option<String>,
}

impl Registry {
    /// Serves plainly on a port of the calling thread's network until the test's process ends.
    fn serve(pages: BTreeMap<String, (String, Vec<u8>)>) -> u16 {
        let (listener, port) = Self::listen();
        let registry = Self { pages, tokens: None };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that goes away is its own business.
                let _ = registry.answer(client);
            }
        });
        port
    }

    /// The same over TLS, to who brings a token.
    fn serve_private(
        pages: BTreeMap<String, (String, Vec<u8>)>,
        key: &rcgen::CertifiedKey<rcgen::KeyPair>,
    ) -> u16 {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let secret =
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).expect("it is one");
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("they go together")
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], secret)
            .expect("they go together");
        let (listener, port) = Self::listen();
        let registry = Self { pages, tokens: Some(format!("https://127.0.0.1:{port}/token")) };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(seen) = rustls::ServerConnection::new(Arc::new(tls.clone())) else { continue };
                let mut both = rustls::StreamOwned::new(seen, client);
                let _ = registry.answer(&mut both);
                both.conn.send_close_notify();
                let _ = both.flush();
            }
        });
        port
    }

    fn listen() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        (listener, port)
    }

    fn answer(&self, mut client: impl Read + Write) -> std::io::Result<()> {
        let mut head = BufReader::new(&mut client);
        let mut first = String::new();
        head.read_line(&mut first)?;
        let (mut line, mut who) = (String::new(), String::new());
        while head.read_line(&mut line)? > 2 {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("authorization")
            {
                value.trim().clone_into(&mut who);
            }
            line.clear();
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let json = "application/json";
        let missing = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
        let unknown = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
        let mut more = String::new();
        let (status, kind, body) = match (&self.tokens, self.pages.get(path)) {
            // ann:secret
            (Some(_), _) if path.starts_with("/token") && who == "Basic YW5uOnNlY3JldA==" => {
                ("200 OK", json, &br#"{"token":"of-ann"}"#[..])
            }
            (Some(realm), _) if who != "Bearer of-ann" => {
                let scope = "repository:test/exit:pull";
                more = format!(
                    "www-authenticate: Bearer realm=\"{realm}\",service=\"test\",scope=\"{scope}\"\r\n"
                );
                ("401 Unauthorized", json, &unknown[..])
            }
            (_, Some((kind, body))) => ("200 OK", kind.as_str(), body.as_slice()),
            (_, None) => ("404 Not Found", json, &missing[..]),
        };
        write!(
            client,
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ndocker-content-digest: {}\r\n{more}connection: close\r\n\r\n",
            body.len(),
            digest(body),
        )?;
        if method == "HEAD" { Ok(()) } else { client.write_all(body) }
    }
}

/// The pages of a registry that holds `test/exit:1`, whose program ends with a code at once.
fn image_that_exits(code: u8) -> BTreeMap<String, (String, Vec<u8>)> {
    let mut archive = tar::Builder::new(Vec::new());
    let program = program_that_exits(code);
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    archive.append_data(&mut header, "exit", program.as_slice()).expect("memory takes it");
    let layer = archive.into_inner().expect("memory takes it");
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/exit"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    })
    .to_string()
    .into_bytes();
    let part = |kind: &str, bytes: &[u8]| json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest(bytes), "size": bytes.len()});
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": kind,
        "config": part("config.v1+json", &config), "layers": [part("layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let blob = |bytes: &[u8]| {
        (
            format!("/v2/test/exit/blobs/{}", digest(bytes)),
            ("application/octet-stream".to_owned(), bytes.to_vec()),
        )
    };
    let by_digest = format!("/v2/test/exit/manifests/{}", digest(&manifest));
    BTreeMap::from([
        ("/v2/".to_owned(), ("application/json".to_owned(), b"{}".to_vec())),
        ("/v2/test/exit/manifests/1".to_owned(), (kind.to_owned(), manifest.clone())),
        (by_digest, (kind.to_owned(), manifest)),
        blob(&config),
        blob(&layer),
    ])
}

/// The smallest program: an ELF file of one segment that calls `exit`.
fn program_that_exits(code: u8) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEAD: u64 = 64 + 56;
    // mov edi, code; mov eax, 60; syscall
    let body = [0xbf, code, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05];
    let len = HEAD + body.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&[2, 0, 62, 0, 1, 0, 0, 0]); // an executable for x86-64, version 1
    for word in [BASE + HEAD, 64, 0] {
        put(&u64::to_le_bytes(word)); // entry, program headers, section headers
    }
    put(&[0; 4]);
    for half in [64_u16, 56, 1, 0, 0, 0] {
        put(&half.to_le_bytes()); // sizes and counts of headers
    }
    put(&[1, 0, 0, 0, 5, 0, 0, 0]); // a segment to load, readable and executable
    for word in [0, BASE, BASE, len, len, 0x1000] {
        put(&u64::to_le_bytes(word));
    }
    put(&body);
    file
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
