//! Questions over TCP, within bounds that the library's own listener does not have.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_server::net::NetError;
use hickory_server::net::runtime::TokioTime;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::rr::Record;
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponse;
use host::{Host, Tasks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::server::Answerer;

/// How many clients may be connected at a time: each has a descriptor of the agent's, which has others to look
/// after; clients come here only with answers too long for UDP. One too many is hung up on.
const CLIENTS_MAX: usize = 256;
/// How long a client may be silent, or slow to take its answer.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long to rest when the machine has no descriptor left for another client.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub(super) async fn serve(host: Host, listener: TcpListener, answerer: Arc<Answerer>) {
    let (room, mut clients) = (Arc::new(Semaphore::new(CLIENTS_MAX)), Tasks::new());
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            host.sleep(ACCEPT_REST).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let (host, answerer) = (host.clone(), answerer.clone());
        clients.spawn(async move {
            // An error is the client's, or its way's; it has nobody else to be told to.
            let _ = converse(&host, stream, from, &answerer).await;
            drop(place);
        });
    }
}

/// Answers one client's questions, one after another.
async fn converse(
    host: &Host,
    mut stream: TcpStream,
    from: SocketAddr,
    answerer: &Answerer,
) -> std::io::Result<()> {
    while let Some(question) = host.within(SILENCE_MAX, read(&mut stream)).await {
        let Ok(request) = Request::from_bytes(question?, from, Protocol::Tcp) else { return Ok(()) };
        let reply = Reply::default();
        answerer.handle_request::<_, TokioTime>(&request, reply.clone()).await;
        let bytes = std::mem::take(&mut *reply.0.lock().unwrap_or_else(PoisonError::into_inner));
        let framed = [&u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes()[..], &bytes].concat();
        match host.within(SILENCE_MAX, stream.write_all(&framed)).await {
            Some(written) => written?,
            None => return Ok(()),
        }
    }
    Ok(())
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut question = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut question).await?;
    Ok(question)
}

/// Where a response is written to; the lock is held for the writing of one.
#[derive(Clone, Default)]
struct Reply(Arc<Mutex<Vec<u8>>>);

#[async_trait::async_trait]
impl ResponseHandler for Reply {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::MAX);
        Ok(response.destructive_emit(&mut encoder)?)
    }
}
