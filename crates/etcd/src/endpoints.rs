//! The members of an etcd cluster: one connection to one of them, another one when that fails.

use std::sync::Arc;
use std::time::Duration;

use client::Identity;
use client::grpc::{Channel, Code, Manner, Status};
use host::{Host, Task, watch};
use prost::Message;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::settings::{Endpoint, Settings, SettingsError};

/// How long one member may take until its connection is open: within a site that takes a millisecond; a lost SYN is sent
/// again after a second.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// How long nobody is tried after all were tried in vain: long enough not to burn, short enough that nobody waits for it.
const REST: Duration = Duration::from_millis(200);

/// How often a connection is asked whether it lives. Etcd ends connections that ask more often than every five seconds.
const PING_EVERY: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes: a page of records as large as etcd takes them, several times over.
const MESSAGE_LEN_MAX: usize = 64 << 20;

/// The connection in use, and its number: each one has the next.
type Current = (u64, Option<Channel>);

/// The way to whichever member answers. Copies share it.
#[derive(Clone)]
pub struct Endpoints {
    host: Host,
    current: watch::Sender<Current>,
    names: Arc<str>,
    _dialer: Arc<Task<()>>,
}

impl Endpoints {
    /// Begins to look for a member that answers.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn open(host: &Host, settings: &Settings) -> Result<Self, SettingsError> {
        let tls =
            settings.endpoints.iter().any(|endpoint| endpoint.is_tls).then(|| tls(settings)).transpose()?;
        let current = watch::Sender::new((0, None));
        let names: Vec<&str> = settings.endpoints.iter().map(|endpoint| &*endpoint.authority).collect();
        let dialer = Dialer {
            host: host.clone(),
            endpoints: settings.endpoints.clone(),
            tls,
            current: current.clone(),
        };
        let _dialer = Arc::new(host.spawn(dialer.run()));
        Ok(Self { host: host.clone(), current, names: names.join(", ").into(), _dialer })
    }

    /// The members, for messages.
    pub fn names(&self) -> &str {
        &self.names
    }

    /// The connection in use, with its number; waits until there is one, at most so long.
    pub async fn channel(&self, limit: Duration) -> Result<(u64, Channel), Status> {
        let mut current = self.current.subscribe();
        let opened = self.host.within(limit, async {
            let seen = current.wait_for(|(_, channel)| channel.is_some()).await.ok()?;
            seen.1.clone().map(|channel| (seen.0, channel))
        });
        let opened = opened.await.flatten();
        opened.ok_or_else(|| Status::unavailable(format!("none of {} can be reached", self.names)))
    }

    /// Says that a connection is of no use any more: the next member is tried.
    pub fn give_up(&self, number: u64) {
        self.current.send_modify(|current| {
            if current.0 == number {
                current.1 = None;
            }
        });
    }

    /// Waits until a connection is no longer the one in use.
    pub async fn given_up(&self, number: u64) {
        // Ends only with the sender, which is held here.
        let _ = self.current.subscribe().wait_for(|(at, channel)| *at != number || channel.is_none()).await;
    }

    /// Asks once, over the connection in use. When nobody answers, the next member is tried by whoever asks next.
    pub async fn ask<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        question: &Q,
        limit: Duration,
    ) -> Result<A, Failed> {
        let (number, channel) = self.channel(limit).await.map_err(Failed::Unsent)?;
        let answer = channel.call(path, question, limit).await;
        answer.map_err(|status| {
            if is_silence(status.code) {
                tracing::debug!(%status, path, "etcd did not answer");
                self.give_up(number);
            }
            Failed::Told(status)
        })
    }

    /// Asks what may be asked twice: again, of other members too, until the time is over.
    pub async fn ask_again<Q: Message, A: Message + Default>(
        &self,
        path: &str,
        question: &Q,
        limit: Duration,
    ) -> Result<A, Status> {
        let end = self.host.moment().0 + limit;
        loop {
            let left = end.saturating_sub(self.host.moment().0);
            match self.ask(path, question, left.min(ONE_ANSWER_MAX)).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Told(status) | Failed::Unsent(status)) => {
                    if left.is_zero() || !is_silence(status.code) {
                        return Err(status);
                    }
                }
            }
            self.host.sleep(REST).await;
        }
    }
}

/// How long one member may take to answer what can be asked of another: an election takes about a second.
const ONE_ANSWER_MAX: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// Nothing was sent.
    Unsent(Status),
    /// It was sent, and came to this.
    Told(Status),
}

/// Whether a status says that nobody knows: it may have been done, and another member may do better.
pub fn is_silence(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Internal | Code::Unknown
    )
}

struct Dialer {
    host: Host,
    endpoints: Vec<Endpoint>,
    tls: Option<Arc<ClientConfig>>,
    current: watch::Sender<Current>,
}

impl Dialer {
    async fn run(self) {
        let mut wanted = self.current.subscribe();
        let mut number = 0;
        loop {
            if wanted.wait_for(|(_, channel)| channel.is_none()).await.is_err() {
                return;
            }
            number += 1;
            self.current.send_replace((number, Some(self.any(number).await)));
        }
    }

    /// A connection to the first member that answers, beginning with another one each time.
    async fn any(&self, from: u64) -> Channel {
        let first = usize::try_from(from).unwrap_or_default().wrapping_sub(1);
        loop {
            for at in 0..self.endpoints.len() {
                let endpoint = &self.endpoints[first.wrapping_add(at) % self.endpoints.len()];
                match self.host.within(CONNECT_MAX, self.dial(endpoint)).await {
                    Some(Ok(channel)) => return channel,
                    Some(Err(why)) => {
                        tracing::warn!(endpoint = %endpoint.authority, %why, "cannot reach etcd")
                    }
                    None => tracing::warn!(endpoint = %endpoint.authority, "etcd does not answer"),
                }
            }
            self.host.sleep(REST).await;
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<Channel, Status> {
        let failed = |error: std::io::Error| Status::unavailable(error.to_string());
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let manner = Manner {
            authority: endpoint.authority.clone(),
            is_tls: endpoint.is_tls,
            ping_every: Some(PING_EVERY),
            message_len_max: MESSAGE_LEN_MAX,
            ..Manner::default()
        };
        match self.tls.as_ref().filter(|_| endpoint.is_tls) {
            None => Channel::over(tcp, manner).await,
            Some(tls) => {
                let name = ServerName::try_from(endpoint.host.clone());
                let name = name.map_err(|error| Status::unavailable(error.to_string()))?;
                let tls = TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(failed)?;
                Channel::over(tls, manner).await
            }
        }
    }
}

fn tls(settings: &Settings) -> Result<Arc<ClientConfig>, SettingsError> {
    let Some(authority) = &settings.authority_pem else { return Err(SettingsError::NoAuthority) };
    let identity = match &settings.certificate {
        Some((chain_pem, key_pem)) => {
            Identity::Certificate { chain_pem: chain_pem.clone(), key_pem: key_pem.clone() }
        }
        None => Identity::Anonymous,
    };
    let mut config = client::tls_config(authority, &identity)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
