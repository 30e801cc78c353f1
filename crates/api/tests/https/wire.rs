//! In which forms answers come: protobuf, gzip, tables and metadata, ETags, warnings.

use std::io::Read;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::lab::{Lab, lab, tree};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A request with headers.
async fn ask(
    lab: &Lab,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &Value,
) -> Response<Incoming> {
    let mut request = lab.request(method, path, body);
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().expect("a header"));
    }
    lab.client(false).request(request).await.expect("an answer")
}

async fn get(lab: &Lab, path: &str, headers: &[(&'static str, &str)]) -> Response<Incoming> {
    ask(lab, Method::GET, path, headers, &Value::Null).await
}

async fn whole(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.expect("a whole body").to_bytes()
}

async fn make(lab: &Lab, name: &str, size: usize) {
    let object =
        json!({"metadata": {"name": name, "labels": {"of": name}}, "data": {"text": "x".repeat(size)}});
    let made = ask(lab, Method::POST, CONFIG_MAPS, &[], &object).await;
    assert_eq!(made.status(), StatusCode::CREATED);
}

fn media(response: &Response<Incoming>) -> &str {
    response.headers()["content-type"].to_str().expect("text")
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn who_asks_for_protobuf_gets_objects_lists_and_statuses_so() {
    let lab = lab().await;
    make(&lab, "a", 1).await;
    let check = async |path: &str, accept: &str, code: u16, words: &[&str]| {
        let answer = get(&lab, path, &[("accept", accept)]).await;
        assert_eq!((answer.status().as_u16(), media(&answer)), (code, PROTOBUF), "{path}");
        let body = whole(answer).await;
        assert!(body.starts_with(b"k8s\0"), "{body:?}");
        for word in words {
            assert!(contains(&body, word), "{path}: {word} is not in {body:?}");
        }
    };
    check(&format!("{CONFIG_MAPS}/a"), PROTOBUF, 200, &["ConfigMap", "text", "default"]).await;
    check(CONFIG_MAPS, &format!("{PROTOBUF}, application/json"), 200, &["ConfigMapList", "text"]).await;
    check(&format!("{CONFIG_MAPS}/b"), PROTOBUF, 404, &["Status", "Failure", "NotFound"]).await;
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json");
    check(&format!("{CONFIG_MAPS}/a"), &partial, 200, &["PartialObjectMetadata", "meta.k8s.io/v1"]).await;

    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(get(&lab, CONFIG_MAPS, &[("accept", &table)]).await.status(), StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn custom_objects_have_no_protobuf_form_but_their_metadata_has() {
    let lab = lab().await;
    let definition = json!({"metadata": {"name": "foos.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(ask(&lab, Method::POST, path, &[], &definition).await.status(), StatusCode::CREATED);
    let foos = "/apis/example.com/v1/namespaces/default/foos";
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "f"}});
    let made =
        ask(&lab, Method::POST, foos, &[("accept", "application/vnd.kubernetes.protobuf, */*")], &foo).await;
    assert_eq!((made.status(), media(&made)), (StatusCode::CREATED, "application/json"));
    assert_eq!(get(&lab, foos, &[("accept", PROTOBUF)]).await.status(), StatusCode::NOT_ACCEPTABLE);
    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1");
    let listed = get(&lab, foos, &[("accept", &partial)]).await;
    assert_eq!((listed.status(), media(&listed)), (StatusCode::OK, PROTOBUF));
}

/// The next frames of a watch in protobuf, until one holds the word.
async fn frames_until(body: &mut Incoming, word: &str) -> Vec<Vec<u8>> {
    let (mut bytes, mut frames) = (Vec::new(), Vec::new());
    loop {
        while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*head) as usize;
            let Some(frame) = rest.get(..len) else { break };
            let frame = frame.to_vec();
            bytes.drain(..4 + len);
            let last = contains(&frame, word);
            frames.push(frame);
            if last {
                return frames;
            }
        }
        let piece = body.frame().await.expect("the watch goes on").expect("a piece");
        bytes.extend_from_slice(&piece.into_data().unwrap_or_default());
    }
}

#[tokio::test]
async fn watches_come_as_frames_of_protobuf() {
    let lab = lab().await;
    make(&lab, "first", 1).await;
    for (accept, kind) in [
        (PROTOBUF.to_owned(), "ConfigMap"),
        (format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"), "PartialObjectMetadata"),
    ] {
        let path = format!(
            "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        );
        let watching = get(&lab, &path, &[("accept", &accept)]).await;
        assert_eq!(media(&watching), "application/vnd.kubernetes.protobuf;stream=watch");
        let mut body = watching.into_body();
        let frames = frames_until(&mut body, "k8s.io/initial-events-end").await;
        let added = frames.iter().filter(|frame| frame.starts_with(b"\x0a\x05ADDED")).count();
        assert_eq!(added + 1, frames.len());
        assert!(frames.iter().all(|frame| contains(frame, "k8s\0") && contains(frame, kind)));
        let name = format!("late-{}", kind.to_lowercase());
        make(&lab, &name, 1).await;
        frames_until(&mut body, &name).await;
    }
}

#[tokio::test]
async fn tables_and_metadata_can_be_watched() {
    let lab = lab().await;
    make(&lab, "w", 1).await;
    for (of, word) in
        [("Table", "\"kind\":\"Table\""), ("PartialObjectMetadata", "\"kind\":\"PartialObjectMetadata\"")]
    {
        let accept = format!("application/json;as={of};g=meta.k8s.io;v=v1");
        let watching = get(&lab, &format!("{CONFIG_MAPS}?watch=1"), &[("accept", &accept)]).await;
        let mut body = watching.into_body();
        let piece = body.frame().await.expect("the watch goes on").expect("a piece");
        let text = String::from_utf8_lossy(&piece.into_data().unwrap_or_default()).into_owned();
        assert!(text.starts_with("{\"type\":\"ADDED\"") && text.contains(word), "{text}");
    }
}

#[tokio::test]
async fn documents_are_not_sent_twice_to_who_has_them() {
    let lab = lab().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for (path, accept) in [
        ("/apis", aggregated),
        ("/api", aggregated),
        ("/apis/apps/v1", "application/json"),
        ("/openapi/v2", "application/json"),
        ("/openapi/v3", "application/json"),
        ("/openapi/v3/apis/apps/v1", "application/json"),
    ] {
        let first = get(&lab, path, &[("accept", accept)]).await;
        assert_eq!(first.status(), StatusCode::OK, "{path}");
        let tag = first.headers().get("etag").unwrap_or_else(|| panic!("{path} has no ETag")).clone();
        let tag = tag.to_str().expect("text");
        let again = get(&lab, path, &[("accept", accept), ("if-none-match", tag)]).await;
        assert_eq!(
            (again.status(), again.headers()["etag"].to_str().ok()),
            (StatusCode::NOT_MODIFIED, Some(tag)),
            "{path}"
        );
        assert!(whole(again).await.is_empty(), "{path}");
        let other = get(&lab, path, &[("accept", accept), ("if-none-match", "\"other\"")]).await;
        assert_eq!(other.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn large_lists_are_compressed_for_who_can_read_that() {
    let lab = lab().await;
    make(&lab, "large", 200_000).await;
    let packed = get(&lab, CONFIG_MAPS, &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = whole(packed).await;
    assert!(packed.len() < 20_000);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).expect("gzip");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["kind"], "ConfigMapList");
    let plain = get(&lab, CONFIG_MAPS, &[]).await;
    assert!(plain.headers().get("content-encoding").is_none());
}

#[tokio::test]
async fn head_tells_the_length_that_get_has() {
    let lab = lab().await;
    make(&lab, "short", 10).await;
    // The second makes a list that goes out in pieces.
    for (name, size) in [("small", 10), ("large", 200_000)] {
        make(&lab, name, size).await;
        for http2 in [false, true] {
            let client = lab.client(http2);
            for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/{name}"), "/readyz".to_owned()] {
                let ask = |method| client.request(lab.request(method, &path, &Value::Null));
                let body = whole(ask(Method::GET).await.expect("an answer")).await;
                let head = ask(Method::HEAD).await.expect("an answer");
                assert_eq!(head.status(), StatusCode::OK);
                let said = head.headers()["content-length"].to_str().expect("text").to_owned();
                assert_eq!(said, body.len().to_string(), "{path}, http2: {http2}");
                assert!(whole(head).await.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn unknown_fields_are_warned_of() {
    let lab = lab().await;
    let object = json!({"metadata": {"name": "w"}, "unheard": 1});
    let made = ask(&lab, Method::POST, &format!("{CONFIG_MAPS}?fieldValidation=Warn"), &[], &object).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(made.headers()["warning"], "299 - \"unknown field \\\"unheard\\\"\"");
    let refused =
        ask(&lab, Method::POST, &format!("{CONFIG_MAPS}?fieldValidation=Strict"), &[], &object).await;
    assert_eq!(
        (refused.status(), tree(refused).await["reason"].clone()),
        (StatusCode::BAD_REQUEST, json!("BadRequest"))
    );
}

#[tokio::test]
async fn a_compressed_body_is_not_taken() {
    let lab = lab().await;
    // What a bomb needs is a server that unpacks: none of ours does, as upstream's does not.
    let mut request = lab.request(Method::POST, CONFIG_MAPS, &Value::Null);
    let mut packed = Vec::new();
    let mut packing = flate2::read::GzEncoder::new(&[b' '; 100_000][..], flate2::Compression::fast());
    packing.read_to_end(&mut packed).expect("memory");
    request.headers_mut().insert("content-encoding", "gzip".parse().expect("a header"));
    *request.body_mut() = Full::new(Bytes::from(packed));
    let refused = lab.client(false).request(request).await.expect("an answer");
    assert!(refused.status().is_client_error(), "{}", refused.status());
}

#[tokio::test]
async fn pages_count_what_is_left_and_go_on_where_they_ended() {
    let lab = lab().await;
    for name in ["p1", "p2", "p3", "p4", "p5"] {
        make(&lab, name, 1).await;
    }
    let first = tree(get(&lab, &format!("{CONFIG_MAPS}?limit=2"), &[]).await).await;
    let left = first["metadata"]["remainingItemCount"].as_u64().expect("a count");
    make(&lab, "p6", 1).await;
    let mut token = first["metadata"]["continue"].as_str().expect("more").to_owned();
    let mut seen = 2;
    loop {
        let page = tree(get(&lab, &format!("{CONFIG_MAPS}?limit=2&continue={token}"), &[]).await).await;
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        seen += page["items"].as_array().map_or(0, Vec::len) as u64;
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, 2 + left, "what came after the first page is not in the walk");
}

#[tokio::test]
async fn a_client_that_vanishes_frees_what_it_held() {
    let lab = lab().await;
    let watches = async || {
        let told = whole(get(&lab, "/metrics", &[]).await).await;
        let told = String::from_utf8_lossy(&told).into_owned();
        let line =
            told.lines().find(|line| line.starts_with("apiserver_longrunning_requests{")).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).expect("it is told")
    };
    for http2 in [false, true] {
        let client = lab.client(http2);
        let mut held = Vec::new();
        for _ in 0..5 {
            let request = lab.request(Method::GET, &format!("{CONFIG_MAPS}?watch=1"), &Value::Null);
            held.push(client.request(request).await.expect("an answer"));
        }
        assert_eq!(watches().await, 5);
        drop((held, client));
        // The connection's end has to reach the server; each look is a round trip of its own.
        while watches().await > 0 {
            tokio::task::yield_now().await;
        }
    }
}
