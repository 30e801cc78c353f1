//! The API over real TLS: HTTP/1.1 and HTTP/2, certificates, streams, upgrades, forms of answers.

mod discovery;
mod lab;
mod wire;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use lab::{Https, Lab, lab, roots, tree};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn both_versions_of_http_write_read_and_watch() {
    let lab = lab().await;
    for http2 in [false, true] {
        let client = lab.client(http2);
        let watching = client.request(lab.request(
            Method::GET,
            &format!("{CONFIG_MAPS}?watch=1&resourceVersion=0"),
            &Value::Null,
        ));
        let mut events = watching.await.expect("an answer").into_body();
        let name = format!("a{http2}");
        let made = client
            .request(lab.request(Method::POST, CONFIG_MAPS, &json!({"metadata": {"name": name}})))
            .await;
        assert_eq!(made.expect("an answer").status(), StatusCode::CREATED);
        let mut seen = String::new();
        while !seen.contains(&format!("\"name\":\"{name}\"")) {
            let frame = events.frame().await.expect("the watch goes on").expect("a frame");
            seen.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
        }
        assert!(seen.starts_with("{\"type\":\"ADDED\",\"object\":{"), "{seen}");
        let got =
            client.request(lab.request(Method::GET, &format!("{CONFIG_MAPS}/{name}"), &Value::Null)).await;
        assert_eq!(tree(got.expect("an answer")).await["metadata"]["name"], name);
    }
}

#[tokio::test]
async fn bad_tokens_and_large_bodies_are_refused() {
    let lab = lab().await;
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(
            rustls::ClientConfig::builder()
                .with_root_certificates(roots(&lab.authority))
                .with_no_client_auth(),
        )
        .https_only()
        .enable_http1()
        .build();
    let stranger: Https = Client::builder(TokioExecutor::new()).build(connector);
    let mut request = lab.request(Method::GET, "/api", &Value::Null);
    request.headers_mut().insert("authorization", "Bearer x.y.z".parse().expect("a header"));
    let refused = stranger.request(request).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(tree(refused).await["reason"], "Unauthorized");

    let large = json!({"metadata": {"name": "l"}, "data": {"x": "y".repeat(3 * 1024 * 1024)}});
    let refused = lab.client(false).request(lab.request(Method::POST, CONFIG_MAPS, &large)).await;
    assert_eq!(refused.expect("an answer").status(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// A pod that is bound to a node.
async fn make_pod(lab: &Lab) {
    let client = lab.client(false);
    let ask = async |method, path: &str, body: Value| {
        let answer = client.request(lab.request(method, path, &body)).await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", tree(answer).await);
    };
    let namespaced = |plural: &str| format!("/api/v1/namespaces/default/{plural}");
    ask(Method::POST, &namespaced("serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
    ask(Method::POST, "/api/v1/nodes", node).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    ask(Method::POST, &namespaced("pods"), pod).await;
}

#[tokio::test]
async fn an_upgrade_is_piped_to_the_kubelet() {
    let lab = lab().await;
    make_pod(&lab).await;
    let client = lab.client(false);
    let mut request = lab.request(
        Method::GET,
        "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true",
        &Value::Null,
    );
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
        request.headers_mut().insert(name, value.parse().expect("a header"));
    }
    let answer = client.request(request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut pipe = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
    pipe.write_all(b"hello").await.expect("the pipe is open");
    let mut back = [0; 5];
    pipe.read_exact(&mut back).await.expect("the echo");
    assert_eq!(&back, b"hello");
}

/// Who is refused an upgrade must not get a pipe to the kubelet, which would take what comes over it for the API's own words.
#[tokio::test]
async fn a_refused_upgrade_is_no_way_to_the_kubelet() {
    let lab = lab().await;
    make_pod(&lab).await;
    let address = lab.base.trim_start_matches("https://");
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let name = "127.0.0.1".try_into().expect("an address");
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(lab.tls()));
    let mut connection = connector.connect(name, stream).await.expect("it is who it should be");
    // The second request follows at once, as a client would send it that hopes for a pipe.
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=refused&stdin=true";
    let both = format!(
        "GET {exec} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\
         GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(both.as_bytes()).await.expect("it is open");
    let mut answers = Vec::new();
    // It may end without a word of farewell.
    let _ = connection.read_to_end(&mut answers).await;
    let answers = String::from_utf8_lossy(&answers).into_owned();
    assert!(answers.starts_with("HTTP/1.1 400"), "{answers}");
    let rest = answers.split("HTTP/1.1").skip(2).collect::<Vec<_>>();
    assert!(rest.is_empty() || (rest.len() == 1 && rest[0].contains("200 OK")), "{answers}");
    let heard = lab.heard.lock().expect("nobody panics").clone();
    assert!(heard.is_empty(), "the kubelet heard {:?}", String::from_utf8_lossy(&heard));
}

#[tokio::test]
async fn the_server_finishes_when_it_is_told_to_stop() {
    let lab = lab().await;
    let client = lab.client(true);
    let answer = client.request(lab.request(Method::GET, "/livez", &Value::Null)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let watching = client.request(lab.request(Method::GET, &format!("{CONFIG_MAPS}?watch=1"), &Value::Null));
    let events = watching.await.expect("an answer").into_body();
    lab.stop.send(true).expect("the server listens");
    assert!(lab.server.join().await.is_some());
    assert!(events.collect().await.is_ok(), "the watch has ended in order");
    let late = client
        .request(Request::builder().uri(format!("{}/livez", lab.base)).body(Full::default()).expect("good"));
    assert!(late.await.is_err());
}
