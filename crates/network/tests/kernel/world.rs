//! A machine in a network namespace, with pods that answer and ask. All of it vanishes with the test's thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use host::Host;
use network::links::{Lan, LanSettings, prefix_of};
use network::{
    Cidr, HostPort, KernelNetwork, Network, PodNetwork, Protocol, ServicePort, ServiceRules, Settings,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Runs a test on a thread in a network namespace of its own, with a runtime of its own.
pub fn on_a_machine<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    let lacks = network::preflight();
    assert!(lacks.is_empty(), "this machine cannot run the test: {lacks:?}");
    let run = || {
        // SAFETY: only the network namespace is unshared, and only for this thread.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("the test runs as root");
        // As strict as any machine: packets must come from where their source is reached.
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").expect("the test runs as root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(test());
    };
    let ended = thread::scope(|scope| scope.spawn(run).join());
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// A network namespace, held open.
pub struct Namespace(Arc<File>);

impl Namespace {
    /// A new one.
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            // SAFETY: only the network namespace is unshared, and only for this thread, which ends here.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("the test runs as root");
            File::open("/proc/thread-self/ns/net").expect("it was made just now")
        });
        Self(Arc::new(made.join().expect("the thread ends well")))
    }

    /// The calling thread's.
    pub fn own() -> Self {
        Self(Arc::new(File::open("/proc/thread-self/ns/net").expect("every thread has one")))
    }

    /// One that is mounted.
    pub fn at(path: &Path) -> Self {
        Self(Arc::new(File::open(path).expect("it is mounted")))
    }

    /// A path that leads to it as long as it is held.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }

    /// Runs something inside.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("it is held open");
            work()
        };
        thread::scope(|scope| scope.spawn(inside).join()).expect("the work ends well")
    }

    /// Asks at a TCP address: who answered, and as whom the answerer saw us.
    pub fn ask(&self, at: impl Into<SocketAddr>) -> io::Result<(String, IpAddr)> {
        let (_, who, seen) = self.ask_by_port(at)?;
        Ok((who, seen.ip()))
    }

    /// Asks at a TCP address: from where, who answered, and as whom the answerer saw us.
    pub fn ask_by_port(&self, at: impl Into<SocketAddr>) -> io::Result<(SocketAddr, String, SocketAddr)> {
        let at = at.into();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (who, seen) = parse(&answer);
            Ok((stream.local_addr()?, who, seen))
        })
    }

    /// Asks many times: who answered.
    pub fn ask_often(&self, at: impl Into<SocketAddr>, times: usize) -> Vec<String> {
        let at = at.into();
        let each = |_| self.ask(at).expect("somebody answers").0;
        (0..times).map(each).collect()
    }

    /// A UDP socket inside, connected.
    pub fn udp(&self, to: impl Into<SocketAddr>) -> UdpSocket {
        let to = to.into();
        self.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("there are ports");
            socket.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
            socket.connect(to).expect("there is a route");
            socket
        })
    }
}

impl Namespace {
    /// Begins to connect to a TCP address, and does not wait for an answer.
    pub fn begin(&self, at: SocketAddr) -> Waiting {
        let SocketAddr::V4(at) = at else { panic!("{at} is no IPv4 address") };
        let socket = self.run(|| tcp(SocketFlags::NONBLOCK));
        let begun = rustix::net::connect(&socket, &at);
        assert_eq!(begun, Err(Errno::INPROGRESS), "to {at}");
        Waiting(socket)
    }
}

fn tcp(flags: SocketFlags) -> OwnedFd {
    let made =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags | SocketFlags::CLOEXEC, None);
    made.expect("a socket can be made")
}

/// A connection that is being made.
#[derive(Debug)]
pub struct Waiting(OwnedFd);

impl Waiting {
    /// Whether it is made within this time.
    pub fn is_connected(&self, within: Duration) -> bool {
        let wait = Timespec::try_from(within).expect("it is short");
        let mut polled = [PollFd::new(&self.0, PollFlags::OUT)];
        let count = poll(&mut polled, Some(&wait)).expect("it can be waited for");
        count == 1 && rustix::net::getpeername(&self.0).is_ok()
    }
}

/// A port at which nobody answers, and nobody refuses: its one place is taken.
pub struct Silent {
    _listener: OwnedFd,
    _taker: TcpStream,
}

impl Silent {
    pub fn new(namespace: &Namespace, port: u16) -> Self {
        namespace.run(|| {
            let listener = tcp(SocketFlags::empty());
            rustix::net::bind(&listener, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
                .expect("it is free");
            rustix::net::listen(&listener, 0).expect("it is a socket");
            let taker = TcpStream::connect(("127.0.0.1", port)).expect("there is one place");
            Self { _listener: listener, _taker: taker }
        })
    }
}

fn parse(answer: &str) -> (String, SocketAddr) {
    let (name, seen) = answer.split_once(' ').expect("answers have two words");
    (name.to_owned(), seen.parse().expect("the second is an address"))
}

/// Asks over a connected UDP socket: who answered.
pub fn ask_udp(socket: &UdpSocket) -> io::Result<String> {
    let mut answer = [0; 100];
    socket.send(b"?")?;
    let len = socket.recv(&mut answer)?;
    Ok(parse(&String::from_utf8_lossy(&answer[..len])).0)
}

/// A process that answers TCP and UDP with its name and the asker's address.
pub struct Answerer {
    listener: Arc<TcpListener>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Answerer {
    pub fn start(namespace: &Namespace, name: &str, port: u16) -> Self {
        let (listener, socket) = namespace.run(|| {
            let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
            (listener, UdpSocket::bind(("0.0.0.0", port)).expect("the port is free"))
        });
        let (listener, stop) = (Arc::new(listener), Arc::new(AtomicBool::new(false)));
        let tcp = thread::spawn({
            let (listener, name) = (listener.clone(), name.to_owned());
            move || answer_tcp(&listener, &name)
        });
        let udp = thread::spawn({
            let (stop, name) = (stop.clone(), name.to_owned());
            move || answer_udp(&socket, &name, &stop)
        });
        Self { listener, stop, threads: vec![tcp, udp] }
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer_tcp(listener: &TcpListener, name: &str) {
    while let Ok((mut stream, from)) = listener.accept() {
        let _ = stream.write_all(format!("{name} {from}").as_bytes());
    }
}

fn answer_udp(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).expect("it is a socket");
    let mut question = [0; 100];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut question) {
            let _ = socket.send_to(format!("{name} {from}").as_bytes(), from);
        }
    }
}

/// A pod that answers at port 80.
pub struct Pod {
    pub namespace: Namespace,
    pub address: Ipv4Addr,
    _answerer: Answerer,
}

impl Pod {
    pub fn endpoint(&self) -> SocketAddr {
        (self.address, 80).into()
    }
}

/// A node of a cluster.
pub struct Node {
    pub network: KernelNetwork,
    pub settings: Settings,
    pub own: Namespace,
}

/// The first node of a cluster, with the network of its nodes.
pub struct Cluster {
    pub node: Node,
    pub lan: Lan,
    pub dir: tempfile::TempDir,
}

impl Cluster {
    /// A cluster whose pods are `10.<n>.0.0/16` and whose Services are `10.<n + 1>.0.0/16`.
    pub async fn new(n: u8) -> Self {
        let dir = tempfile::tempdir().expect("there is a disk");
        let lan = Self::lan(dir.path(), n).await;
        let IpAddr::V4(node_ip) = lan.server_address() else { panic!("nodes have IPv4 addresses") };
        let settings = settings(dir.path(), &prefix_of(dir.path()), n, 0, node_ip);
        Self { node: Node::open(settings).await, lan, dir }
    }

    pub async fn lan(dir: &Path, n: u8) -> Lan {
        let lan = Lan::open(Host::real(), LanSettings::of(dir, range([10, n, 0, 0], 16))).await;
        lan.expect("the bridge can be made")
    }
}

pub fn range(first: [u8; 4], prefix: u8) -> Cidr {
    Cidr::new(first.into(), prefix).expect("it is a range")
}

pub fn settings(dir: &Path, prefix: &str, n: u8, node: u8, node_ip: Ipv4Addr) -> Settings {
    Settings {
        data_dir: dir.join(format!("node-{node}")),
        name_prefix: prefix.to_owned(),
        pod_cidr: range([10, n, node, 0], 24),
        cluster_cidr: range([10, n, 0, 0], 16),
        service_cidr: range([10, n + 1, 0, 0], 16),
        node_ip,
        mtu: None,
    }
}

impl Node {
    pub async fn open(settings: Settings) -> Self {
        let network = KernelNetwork::open(Host::real(), settings.clone()).await.expect("the network opens");
        Self { network, settings, own: Namespace::own() }
    }

    /// Starts a pod.
    pub async fn pod(&self, name: &str) -> Pod {
        self.pod_with(name, Vec::new()).await
    }

    /// Starts a pod with host ports.
    pub async fn pod_with(&self, name: &str, host_ports: Vec<HostPort>) -> Pod {
        let namespace = Namespace::new();
        let pod = PodNetwork { pod_uid: name.to_owned(), netns: namespace.path(), host_ports };
        let addresses = self.network.attach(pod).await.expect("the pod is attached");
        let [IpAddr::V4(address)] = addresses[..] else { panic!("one IPv4 address, not {addresses:?}") };
        let answerer = Answerer::start(&namespace, name, 80);
        Pod { namespace, address, _answerer: answerer }
    }

    pub async fn serve(&self, ports: Vec<ServicePort>) {
        self.network.serve(ServiceRules { ports }).await.expect("the rules are taken");
    }
}

/// A Service port 80 in TCP.
pub fn service(name: &str, address: [u8; 4], endpoints: &[&Pod]) -> ServicePort {
    let endpoints: Vec<SocketAddr> = endpoints.iter().map(|pod| pod.endpoint()).collect();
    ServicePort {
        name: format!("test/{name}:http"),
        protocol: Protocol::Tcp,
        addresses: vec![address.into()],
        port: 80,
        node_port: 0,
        affinity_seconds: None,
        external_endpoints: endpoints.clone(),
        endpoints,
        keep_source: false,
    }
}
