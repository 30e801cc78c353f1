//! What the gRPC client promises, against a small server over a pipe, on virtual time.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;

#[derive(Clone, PartialEq, Message)]
struct Word {
    #[prost(string, tag = "1")]
    text: String,
}

fn word(text: &str) -> Word {
    Word { text: text.into() }
}

fn trailers(code: &'static str, message: &'static str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("grpc-status", HeaderValue::from_static(code));
    map.insert("grpc-message", HeaderValue::from_static(message));
    map
}

type Parts = Vec<Result<Frame<Bytes>, std::convert::Infallible>>;

/// What the server answers to a path.
fn parts(path: &str, said: &Bytes) -> Parts {
    let good = || Ok(Frame::trailers(trailers("0", "")));
    match path {
        "/t.T/Echo" => vec![Ok(Frame::data(said.clone())), good()],
        // In pieces that keep to no bounds.
        "/t.T/Crumbs" => said
            .chunks(3)
            .map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece))))
            .chain([good()])
            .collect(),
        "/t.T/Twice" => vec![Ok(Frame::data([said.clone(), said.clone()].concat().into())), good()],
        "/t.T/Late" => vec![Ok(Frame::data(said.clone())), Ok(Frame::trailers(trailers("9", "not%20so")))],
        "/t.T/Cut" => vec![Ok(Frame::data(said.slice(..3)))],
        "/t.T/Long" => vec![Ok(Frame::data(Bytes::from_static(&[0, 0xff, 0, 0, 0]))), good()],
        _ => Vec::new(),
    }
}

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<http_body_util::combinators::UnsyncBoxBody<Bytes, std::convert::Infallible>>, hyper::Error>
{
    let path = request.uri().path().to_owned();
    if path == "/t.T/Never" {
        std::future::pending::<()>().await;
    }
    if path == "/t.T/Talk" {
        // One answer to each message, while the stream is open.
        let body = request.into_body().into_data_stream();
        let echoes = body.map(|piece| Ok(Frame::data(piece.unwrap_or_default())));
        let end = futures_util::stream::iter([Ok(Frame::trailers(trailers("0", "")))]);
        return Ok(Response::new(StreamBody::new(echoes.chain(end)).boxed_unsync()));
    }
    let said = request.into_body().collect().await?.to_bytes();
    let mut response =
        Response::new(StreamBody::new(futures_util::stream::iter(parts(&path, &said))).boxed_unsync());
    match path.as_str() {
        "/t.T/Refuse" => *response.headers_mut() = trailers("5", "no such%3A thing"),
        "/t.T/Web" => *response.status_mut() = http::StatusCode::NOT_FOUND,
        _ => {}
    }
    Ok(response)
}

async fn channel() -> Channel {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let service = hyper::service::service_fn(answer);
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(theirs), service).await;
    });
    Channel::over(ours, Manner::default()).await.expect("the server is there")
}

async fn check(path: &str, expected: Result<&str, (Code, &str)>) {
    let limit = Duration::from_secs(5);
    let got = channel().await.call::<Word, Word>(path, &word("hello"), limit).await;
    let got = got.map(|word| word.text);
    let got = got.as_ref().map(String::as_str).map_err(|status| (status.code, status.message.as_str()));
    match (&got, &expected) {
        (Err((code, said)), Err((wanted, part))) => {
            assert!(code == wanted && said.contains(part), "{path}: {got:?}")
        }
        _ => assert_eq!(got, expected, "{path}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_as_the_server_says_or_as_other_clients_would_tell() {
    check("/t.T/Echo", Ok("hello")).await;
    check("/t.T/Crumbs", Ok("hello")).await;
    check("/t.T/Twice", Err((Code::Internal, "more than one"))).await;
    check("/t.T/Late", Err((Code::FailedPrecondition, "not so"))).await;
    check("/t.T/Refuse", Err((Code::NotFound, "no such: thing"))).await;
    check("/t.T/Web", Err((Code::Unimplemented, "404"))).await;
    check("/t.T/Cut", Err((Code::Unavailable, "cut off"))).await;
    check("/t.T/Long", Err((Code::ResourceExhausted, "larger than max"))).await;
    check("/t.T/Never", Err((Code::DeadlineExceeded, "deadline"))).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_both_ways_and_ends_with_its_sender() {
    let channel = channel().await;
    let (questions, mut answers) = channel.stream::<Word, Word>("/t.T/Talk").expect("a path");
    for text in ["one", "two"] {
        questions.send(&word(text)).await.expect("it is open");
        assert_eq!(answers.next().await, Some(Ok(word(text))));
    }
    drop(questions);
    assert_eq!(answers.next().await, None);
    assert_eq!(answers.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_is_unavailable() {
    let (ours, theirs) = tokio::io::duplex(1 << 10);
    let opened = Channel::over(ours, Manner::default()).await;
    drop(theirs);
    let ended = match opened {
        Err(status) => status,
        Ok(channel) => {
            let asked = channel.call::<Word, Word>("/t.T/Echo", &word("x"), Duration::from_secs(1)).await;
            asked.expect_err("nobody answers")
        }
    };
    assert_eq!(ended.code, Code::Unavailable, "{ended}");
}
