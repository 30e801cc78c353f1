//! The agent's lasting connection to one monitor: requests, their answers, and what happens there.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::{Host, Task};
use tokio::sync::{mpsc, oneshot, watch};

use crate::kernel::channel::Channel;
use crate::kernel::events::Hub;
use crate::layout::Pod;
use crate::wire::{ContainerRecord, Event, FromMonitor, Inbox, Reply, Request, SandboxFile};
use crate::{RuntimeError, RuntimeEvent, wire};

/// How long a monitor may take for an answer. A start takes milliseconds; a volume on a dead server takes for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Requests on their way to one monitor at most; each asker waits for its answer anyway.
const REQUESTS_MAX: usize = 64;

/// How often a connection that ends at once is tried: the second is refused already unless the machine is very slow.
const OPEN_TRIES: usize = 10;

/// Why there is no link.
enum Unopened {
    /// The connection ended again.
    Ended(RuntimeError),
    /// The monitor could not be reached, or did not answer.
    Failed(RuntimeError),
}

type Answer = oneshot::Sender<(Reply, Option<OwnedFd>)>;

/// What both ends of a link share. Each lock is held for a few lines.
struct Shared {
    /// Requests without an answer yet.
    waiting: Mutex<BTreeMap<u64, Answer>>,
    /// The sandbox's containers, kept up by events.
    containers: Mutex<BTreeMap<String, ContainerRecord>>,
    /// Counts changes of the containers, for those who wait for one.
    changes: watch::Sender<u64>,
    alive: AtomicBool,
    /// Whether its end is no news: it is wished, or nobody was told of the link yet.
    ending: AtomicBool,
}

/// A lasting connection to one monitor.
pub(crate) struct Link {
    /// The sandbox's paths.
    pub pod: Pod,
    /// What the sandbox was made of.
    pub file: SandboxFile,
    host: Host,
    to_send: mpsc::Sender<(u64, Request)>,
    shared: Arc<Shared>,
    next: AtomicU64,
    _tasks: [Task<()>; 2],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Connects and learns what there is, as [`Link::open_once`] does. A monitor that is dying may still take a
    /// connection and end it at once; then the next one is refused, which is the proof.
    pub(crate) async fn open(
        host: &Host,
        pod: Pod,
        hub: Arc<Hub>,
    ) -> Result<Option<Arc<Self>>, RuntimeError> {
        let mut done = Self::open_once(host, pod.clone(), hub.clone()).await;
        for _ in 1..OPEN_TRIES {
            match done {
                Err(Unopened::Ended(_)) => done = Self::open_once(host, pod.clone(), hub.clone()).await,
                _ => break,
            }
        }
        done.map_err(|(Unopened::Ended(error) | Unopened::Failed(error))| error)
    }

    /// Connects, learns what there is, and tells `hub` of what happens from then on. `None` when the monitor is
    /// proven gone; one that does not answer is an error.
    async fn open_once(host: &Host, pod: Pod, hub: Arc<Hub>) -> Result<Option<Arc<Self>>, Unopened> {
        let failed = |error| Unopened::Failed(lost(&pod, error));
        let Some(channel) = Channel::connect(&pod).map_err(failed)? else { return Ok(None) };
        let file: SandboxFile = wire::read_whole(&pod.spec()).map_err(failed)?;
        let channel = Arc::new(channel);
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            containers: Mutex::default(),
            changes: watch::Sender::new(0),
            alive: AtomicBool::new(true),
            ending: AtomicBool::new(true),
        });
        let uid = file.spec.pod_uid.clone();
        let (to_send, requests) = mpsc::channel(REQUESTS_MAX);
        let tasks = [
            host.spawn(read(channel.clone(), shared.clone(), hub, uid)),
            host.spawn(write(channel, requests)),
        ];
        let (host, next) = (host.clone(), AtomicU64::new(1));
        let link = Arc::new(Self { pod, file, host, to_send, shared, next, _tasks: tasks });
        let learnt = link.learn_all().await;
        link.shared.ending.store(false, Ordering::Release);
        match learnt {
            Ok(()) if link.is_alive() => Ok(Some(link)),
            Ok(()) => Err(Unopened::Ended(lost(&link.pod, io::Error::from(io::ErrorKind::BrokenPipe)))),
            Err(error) if link.is_alive() => Err(Unopened::Failed(error)),
            Err(error) => Err(Unopened::Ended(error)),
        }
    }

    async fn learn_all(&self) -> Result<(), RuntimeError> {
        self.ask(Request::Subscribe).await?;
        if let (Reply::List(records), _) = self.ask(Request::List).await? {
            records.into_iter().for_each(|record| self.learn(record));
        }
        Ok(())
    }

    /// Asks and waits for the answer; refusals become errors.
    pub(crate) async fn ask(&self, request: Request) -> Result<(Reply, Option<OwnedFd>), RuntimeError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.shared.waiting).insert(id, answer);
        let asked = async {
            let gone = || lost(&self.pod, io::Error::from(io::ErrorKind::BrokenPipe));
            self.to_send.send((id, request)).await.map_err(|_| gone())?;
            if !self.is_alive() {
                return Err(gone());
            }
            answered.await.map_err(|error| lost(&self.pod, error))
        };
        let done = self.host.within(ANSWER_TIMEOUT, asked).await;
        lock(&self.shared.waiting).remove(&id);
        let (reply, fd) =
            done.unwrap_or_else(|| Err(lost(&self.pod, io::Error::from(io::ErrorKind::TimedOut))))?;
        accept(reply).map(|reply| (reply, fd))
    }

    /// Whether the monitor answers.
    pub(crate) fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire)
    }

    /// Lets the monitor's end be no news: it is about to be told to end.
    pub(crate) fn end(&self) {
        self.shared.ending.store(true, Ordering::Release);
    }

    /// Takes note of a container, unless more is known already.
    pub(crate) fn learn(&self, record: ContainerRecord) {
        let mut containers = lock(&self.shared.containers);
        let known_end = containers.get(&record.id).is_some_and(|known| known.exit.is_some());
        if !known_end {
            containers.insert(record.id.clone(), record);
        }
        drop(containers);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// Forgets a container.
    pub(crate) fn forget(&self, id: &str) {
        lock(&self.shared.containers).remove(id);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// The sandbox's containers, oldest first.
    pub(crate) fn containers(&self) -> Vec<ContainerRecord> {
        let mut all: Vec<_> = lock(&self.shared.containers).values().cloned().collect();
        all.sort_by_key(|record| record.created_at);
        all
    }

    /// One container.
    pub(crate) fn container(&self, id: &str) -> Option<ContainerRecord> {
        lock(&self.shared.containers).get(id).cloned()
    }

    /// Wakes at each change of the containers.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }
}

/// Sends requests, each whole, whether or not its asker still waits.
async fn write(channel: Arc<Channel>, mut requests: mpsc::Receiver<(u64, Request)>) {
    while let Some((id, request)) = requests.recv().await {
        if channel.send(id, request, &[]).await.is_err() {
            return;
        }
    }
}

async fn read(channel: Arc<Channel>, shared: Arc<Shared>, hub: Arc<Hub>, pod_uid: String) {
    let mut inbox = Inbox::default();
    while let Ok(Some(frame)) = channel.receive::<FromMonitor>(&mut inbox).await {
        match frame.body {
            FromMonitor::Reply(reply) => {
                let fd = match &reply {
                    Reply::Descriptor => inbox.next_fd(),
                    _ => None,
                };
                if let Some(answer) = lock(&shared.waiting).remove(&frame.id) {
                    let _ = answer.send((reply, fd));
                }
            }
            FromMonitor::Event(Event::Exited { id, record }) => {
                lock(&shared.containers).insert(id, (*record).clone());
                shared.changes.send_modify(|count| *count += 1);
                hub.exited(&pod_uid, &record);
            }
        }
    }
    shared.alive.store(false, Ordering::Release);
    lock(&shared.waiting).clear();
    shared.changes.send_modify(|count| *count += 1);
    if !shared.ending.load(Ordering::Acquire) {
        hub.publish(RuntimeEvent::MonitorLost { pod_uid });
    }
}

/// Turns a refusal into an error.
pub(crate) fn accept(reply: Reply) -> Result<Reply, RuntimeError> {
    match reply {
        Reply::NotFound(id) => Err(RuntimeError::NotFound(format!("container {id}"))),
        Reply::Config(why) => Err(RuntimeError::Config(why)),
        Reply::Start(why) => Err(RuntimeError::Start(why)),
        Reply::Shut => Err(RuntimeError::Shut),
        Reply::Failed(why) => {
            Err(RuntimeError::Failed { doing: "cannot do as asked".to_owned(), source: why.into() })
        }
        reply => Ok(reply),
    }
}

fn lost(pod: &Pod, error: impl std::error::Error + Send + Sync + 'static) -> RuntimeError {
    RuntimeError::Failed {
        doing: format!("cannot reach the monitor in {}", pod.dir.display()),
        source: Box::new(error),
    }
}
