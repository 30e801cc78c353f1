//! The machine's own resolvers, asked about names that are not the cluster's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Message, Query};
use hickory_server::proto::rr::{Name, RecordType};
use host::{Host, Moment};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::NamesSettings;

/// How many questions may be on their way at a time: each has a socket; a flood of them must not use up the agent's.
const ASKED_MAX: usize = 256;
/// How long a resolver has for an answer; half of the time after which clients ask again.
const ANSWER_WAIT: Duration = Duration::from_millis(2500);
/// How many resolvers are asked in turn, as many as the C library uses.
const RESOLVERS_MAX: usize = 3;
/// How long the list of resolvers is kept before the file is read again.
const LIST_KEPT: Duration = Duration::from_secs(5);
/// The longest message there can be.
const MESSAGE_MAX: usize = 65_535;
const PORT: u16 = 53;

/// The way to the machine's resolvers.
pub(super) struct Upstream {
    host: Host,
    settings: NamesSettings,
    /// Our own addresses: asking ourselves would go round in a circle.
    own: Vec<SocketAddr>,
    room: Semaphore,
    /// The resolvers as last read, and when; held for a copy.
    list: Mutex<Option<(Moment, Vec<SocketAddr>)>>,
}

impl Upstream {
    pub fn new(host: Host, settings: NamesSettings, own: Vec<SocketAddr>) -> Self {
        Self { host, settings, own, room: Semaphore::new(ASKED_MAX), list: Mutex::new(None) }
    }

    /// Looks up a name.
    pub async fn look_up(&self, name: Name, kind: RecordType) -> Option<Message> {
        let mut message = Message::query();
        message.add_query(Query::query(name, kind));
        message.metadata.recursion_desired = true;
        // Over TCP when it has to be: whoever asked is told all of it, or that it was cut, by our own response.
        self.ask(&message.to_vec().ok()?, Protocol::Tcp).await
    }

    /// Asks one resolver after another; `None` when none answered. A client that asked over TCP gets whole answers.
    pub async fn ask(&self, request: &[u8], client: Protocol) -> Option<Message> {
        let _room = self.room.try_acquire().ok()?;
        let mut request = request.to_vec();
        let id = (self.host.chance().u64() as u16).to_be_bytes();
        request.get_mut(..2)?.copy_from_slice(&id);
        let asked = Message::from_vec(&request).ok()?;
        for resolver in self.resolvers().await {
            let Some(message) =
                self.host.within(ANSWER_WAIT, ask_udp(resolver, &request, &asked)).await.flatten()
            else {
                continue;
            };
            if !message.metadata.truncation || client == Protocol::Udp {
                return Some(message);
            }
            let whole = self.host.within(ANSWER_WAIT, ask_tcp(resolver, &request, &asked)).await.flatten();
            return Some(whole.unwrap_or(message));
        }
        None
    }

    async fn resolvers(&self) -> Vec<SocketAddr> {
        if let Some(given) = &self.settings.upstreams {
            return self.others(given.iter().copied());
        }
        let now = self.host.moment();
        if let Some((read, list)) = &*self.list()
            && now.since(*read) < LIST_KEPT
        {
            return list.clone();
        }
        let (disk, path) = (self.host.disk().clone(), self.settings.resolv_conf.clone());
        let text = self.host.blocking(move || disk.read(&path)).await.unwrap_or_default();
        let list = self.others(nameservers(&String::from_utf8_lossy(&text)).into_iter());
        *self.list() = Some((now, list.clone()));
        list
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Option<(Moment, Vec<SocketAddr>)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn others(&self, all: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        all.filter(|resolver| !self.own.contains(resolver)).take(RESOLVERS_MAX).collect()
    }
}

/// The resolvers that a `resolv.conf` names.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, PORT))
    };
    text.lines().filter_map(server).collect()
}

async fn ask_udp(resolver: SocketAddr, request: &[u8], asked: &Message) -> Option<Message> {
    let any: IpAddr =
        if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(resolver).await.ok()?;
    socket.send(request).await.ok()?;
    let mut buffer = vec![0; MESSAGE_MAX];
    loop {
        let len = socket.recv(&mut buffer).await.ok()?;
        // Anyone can send something; only what answers the question counts.
        if let Some(message) =
            Message::from_vec(&buffer[..len]).ok().filter(|message| answers(message, asked))
        {
            return Some(message);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, request: &[u8], asked: &Message) -> Option<Message> {
    let mut stream = TcpStream::connect(resolver).await.ok()?;
    let framed = [&u16::try_from(request.len()).ok()?.to_be_bytes()[..], request].concat();
    stream.write_all(&framed).await.ok()?;
    let mut answer = vec![0; usize::from(stream.read_u16().await.ok()?)];
    stream.read_exact(&mut answer).await.ok()?;
    Message::from_vec(&answer).ok().filter(|message| answers(message, asked))
}

fn answers(message: &Message, asked: &Message) -> bool {
    message.metadata.id == asked.metadata.id && message.queries == asked.queries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_from_the_usual_file() {
        let text =
            "# made by hand\nsearch a b\nnameserver 192.0.2.1\nnameserver fd00::1\nnameserver nonsense\n";
        let wanted: Vec<SocketAddr> =
            vec![([192, 0, 2, 1], 53).into(), "[fd00::1]:53".parse().expect("an address")];
        assert_eq!(nameservers(text), wanted);
    }
}
