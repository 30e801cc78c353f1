//! port-forward: each connection that a client forwards is a pair of SPDY streams, one for data and one for an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use host::Tasks;
use runtime::{Duplex, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::connection::{self, Opened, Outgoing};
use super::negotiate::Protocol;
use super::websocket;

/// Pairs of which one half has come; a client opens both at once, so more are a fault of its.
const HALVES_MAX: usize = 100;
/// Bytes read at once from the pod.
const READ_LEN: usize = 32 * 1024;

/// Serves an upgraded connection until the client goes away.
pub async fn serve(io: Box<dyn Duplex>, protocol: Protocol, pod_uid: &str, runtime: Arc<dyn Runtime>) {
    let (opened, queue) = mpsc::channel(1);
    match protocol {
        Protocol::Tunnel => {
            let (inner, carrying) = websocket::tunnel(io);
            let serving = async {
                tokio::join!(connection::run(Box::new(inner), opened), pair(queue, pod_uid, runtime))
            };
            tokio::select! { biased; () = carrying => {}, _ = serving => {} }
        }
        _ => {
            let serving = connection::run(io, opened);
            tokio::select! { biased; () = serving => {}, () = pair(queue, pod_uid, runtime) => {} }
        }
    }
}

/// Pairs the streams by their request id, and carries each pair.
async fn pair(mut queue: mpsc::Receiver<Opened>, pod_uid: &str, runtime: Arc<dyn Runtime>) {
    let mut halves: BTreeMap<String, Opened> = BTreeMap::new();
    let mut carried = Tasks::new();
    while let Some(stream) = queue.recv().await {
        let id = header(&stream, "requestid").to_owned();
        let Some(other) = halves.remove(&id) else {
            if halves.len() < HALVES_MAX {
                halves.insert(id, stream);
            }
            continue;
        };
        let (error, data) =
            if header(&stream, "streamtype") == "error" { (stream, other) } else { (other, stream) };
        let (runtime, pod_uid) = (runtime.clone(), pod_uid.to_owned());
        carried.spawn(async move {
            if let Err(why) = carry(&pod_uid, data, &*runtime).await {
                error.outgoing.send(Bytes::from(why)).await;
            }
        });
    }
    // The client is gone: so is what it forwarded.
    drop(carried);
}

fn header<'a>(stream: &'a Opened, name: &str) -> &'a str {
    stream.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

/// Carries one forwarded connection; an error is what the client is told.
async fn carry(pod_uid: &str, data: Opened, runtime: &dyn Runtime) -> Result<(), String> {
    let port: u16 = match header(&data, "port").parse() {
        Ok(port) if port > 0 => port,
        _ => return Err(format!("{:?} is not a port", header(&data, "port"))),
    };
    let connection = runtime.connect(pod_uid, port).await;
    let connection =
        connection.map_err(|why| format!("error forwarding port {port} to pod {pod_uid}: {why}"))?;
    let (mut from_pod, mut to_pod) = tokio::io::split(connection);
    let Opened { mut incoming, outgoing, .. } = data;
    let sending = async {
        while let Some(piece) = incoming.recv().await {
            to_pod.write_all(&piece).await.map_err(|why| why.to_string())?;
        }
        to_pod.shutdown().await.map_err(|why| why.to_string())
    };
    let receiving = receive(&mut from_pod, outgoing);
    let (sent, received) = tokio::join!(sending, receiving);
    // A pod that hangs up first is no fault while something is sent.
    received.and(sent.or(Ok(())))
}

async fn receive(from_pod: &mut (impl AsyncReadExt + Unpin), outgoing: Outgoing) -> Result<(), String> {
    let mut buffer = vec![0; READ_LEN];
    loop {
        let len = from_pod.read(&mut buffer).await.map_err(|why| why.to_string())?;
        if len == 0 || !outgoing.send(Bytes::copy_from_slice(&buffer[..len])).await {
            return Ok(());
        }
    }
}
