//! What the rules mean: Services as entries of maps, and the few chains that read them.
//!
//! Everything about a Service is data, so that a change of one Service changes entries and nothing else, at any
//! size. Looking up (address, protocol, port) in `services` gives the Service's id and its *manner*: how many
//! endpoints, whether clients stay with theirs, whether the source is kept. There is one chain for each manner in
//! use (a handful), found through `manners`. It draws a number, looks up (id, number) in `endpoints`, and
//! translates. All of this is pure: names and bytes in, rules and entries out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::rule::{Expression, Meta, Register, Verdict};
use crate::links::hash64;
use crate::{Cidr, ServicePort};

/// The most endpoints of one port that are served: more than fit the 1,000 of an EndpointSlice many times over,
/// and few enough that inside and outside can be told by a bit above.
pub(super) const ENDPOINTS_MAX: usize = 60_000;
/// The longest affinity, a day, as the API has it.
const AFFINITY_SECONDS_MAX: u32 = 86_400;
/// Where the endpoints for traffic from outside are numbered from.
const OUTSIDE_FROM: u32 = 0x1_0000;
/// The bit of the packet's mark that says "translate the source as well". Not one of those that other users of
/// packet marks on Kubernetes nodes are known for; only this bit is ever changed.
pub(super) const MARK: u32 = 0x0002_0000;

/// (address, protocol, port) → (id, manner). The address 0.0.0.0 stands for every address of the node.
pub(super) const SERVICES: &str = "services";
/// (id, number) → (address, port).
pub(super) const ENDPOINTS: &str = "endpoints";
/// (address, port, id): endpoints that clients may stay with.
pub(super) const MEMBERS: &str = "members";
/// (id, client) → (address, port): clients that stay with an endpoint, filled by the packets themselves.
pub(super) const AFFINITY: &str = "affinity";
/// (address, protocol, port) of Services without endpoints.
pub(super) const REFUSED: &str = "refused";
/// manner → chain.
pub(super) const MANNERS: &str = "manners";

/// Bytes of a key or of data, as the registers hold them.
pub(crate) type Cell = Vec<u8>;

/// An entry of a map or set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub set: &'static str,
    pub key: Cell,
    /// Empty in a set.
    pub data: Cell,
}

/// Where a key's address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Reached {
    /// The packet's destination address is in the key.
    Address,
    /// The packet goes to any address of the node.
    Node,
}

/// How to choose among endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pick {
    pub reached: Reached,
    /// Whether the list for traffic from outside is meant.
    pub outside: bool,
    pub count: u16,
    pub affinity: Option<u32>,
}

/// What to do with packets to a Service's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Manner {
    /// Everybody gets an endpoint of one list; who is not a pod also gets the node's address.
    Open(Pick),
    /// Pods and the node get one of the first list, others one of the second (or nothing), and keep their address.
    Kept { inside: Pick, outside: Option<Pick> },
}

/// A chain whose content follows from its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Chain {
    /// The choice among endpoints.
    Pick(Pick),
    /// The handling of a Service's packets.
    Manner(Manner),
}

impl Pick {
    fn name(self) -> String {
        let reached = if self.reached == Reached::Node { "node-" } else { "" };
        let side = if self.outside { "outside-" } else { "" };
        let affinity = self.affinity.map(|seconds| format!("-for-{seconds}s")).unwrap_or_default();
        format!("pick-{reached}{side}{}{affinity}", self.count)
    }

    /// The rules of its chain: the endpoint of before, a random one that is remembered, a random one, the first.
    fn rules(self) -> Vec<Vec<Expression>> {
        let mut rules = Vec::new();
        if let Some(seconds) = self.affinity {
            rules.push(self.stay(seconds));
            rules.push(self.leave());
            rules.push(self.choose(u32::from(self.count), Some(seconds)));
        }
        // With affinity this is for when there is no room to remember one more client.
        rules.push(self.choose(u32::from(self.count), None));
        // Between reading the count and reading the list the list may have become shorter: the first endpoint is
        // there whenever the chain is used at all.
        rules.push(self.choose(1, None));
        rules
    }

    /// Registers 0–1 hold the endpoint, 2–3 the id, 4 the client.
    fn stay(self, seconds: u32) -> Vec<Expression> {
        let mut rule = load_service(self.reached, ID);
        rule.extend([
            Expression::source(CLIENT),
            Expression::Lookup { set: AFFINITY, key: ID, to: Some(ENDPOINT) },
            Expression::Lookup { set: MEMBERS, key: ENDPOINT, to: None },
            Expression::Remember { set: AFFINITY, key: ID, data: ENDPOINT, seconds },
            Expression::Destination { address: ENDPOINT, port: ENDPOINT.after(1) },
        ]);
        rule
    }

    /// Forgets an endpoint that is not there any more: remembering another would not replace it.
    fn leave(self) -> Vec<Expression> {
        let mut rule = load_service(self.reached, ID);
        rule.extend([
            Expression::source(CLIENT),
            Expression::Lookup { set: AFFINITY, key: ID, to: Some(ENDPOINT) },
            Expression::Forget { set: AFFINITY, key: ID, data: ENDPOINT },
        ]);
        rule
    }

    fn choose(self, count: u32, remembered_seconds: Option<u32>) -> Vec<Expression> {
        let offset = if self.outside { OUTSIDE_FROM } else { 0 };
        let mut rule = load_service(self.reached, ID);
        rule.extend([
            Expression::Random { count, offset, to: CLIENT },
            Expression::Lookup { set: ENDPOINTS, key: ID, to: Some(ENDPOINT) },
        ]);
        if let Some(seconds) = remembered_seconds {
            rule.extend([
                Expression::source(CLIENT),
                Expression::Remember { set: AFFINITY, key: ID, data: ENDPOINT, seconds },
            ]);
        }
        rule.push(Expression::Destination { address: ENDPOINT, port: ENDPOINT.after(1) });
        rule
    }
}

/// The endpoint's address and port.
const ENDPOINT: Register = Register(0);
/// The Service's id; right after the endpoint, because `members` is keyed by both.
const ID: Register = Register(2);
/// The client's address, or the number drawn; right after the id, because maps are keyed by both. The manner is
/// loaded here and a register further with the id.
const CLIENT: Register = Register(4);
/// Where a Service's key is put together.
const SERVICE_KEY: Register = Register(8);

/// Loads the id and manner of the Service a packet goes to into `to` and the three registers after it.
fn load_service(reached: Reached, to: Register) -> Vec<Expression> {
    let mut rule = load_key(reached);
    rule.push(Expression::Lookup { set: SERVICES, key: SERVICE_KEY, to: Some(to) });
    rule
}

fn load_key(reached: Reached) -> Vec<Expression> {
    let address = match reached {
        Reached::Address => Expression::destination(SERVICE_KEY),
        Reached::Node => Expression::address(Ipv4Addr::UNSPECIFIED, SERVICE_KEY),
    };
    vec![
        address,
        Expression::Meta { key: Meta::Protocol, to: SERVICE_KEY.after(1) },
        Expression::DestinationPort { to: SERVICE_KEY.after(2) },
    ]
}

/// Goes on if the packet goes to one of the node's addresses, or comes from one.
pub(super) fn is_local(source: bool) -> Vec<Expression> {
    const AT: Register = Register(12);
    const LOCAL: u32 = libc::RTN_LOCAL as u32;
    vec![
        Expression::AddressKind { source, to: AT },
        Expression::Compare { equal: true, value: LOCAL.to_ne_bytes().to_vec(), at: AT },
    ]
}

/// Sends packets for Services on to their manner's chain.
pub(super) fn dispatch(reached: Reached) -> Vec<Expression> {
    let mut rule = if reached == Reached::Node { is_local(false) } else { Vec::new() };
    rule.extend(load_service(reached, ID));
    rule.push(Expression::Follow { set: MANNERS, key: CLIENT });
    rule
}

/// Goes on if the packet's destination is a Service without endpoints.
pub(super) fn is_refused(reached: Reached) -> Vec<Expression> {
    let mut rule = if reached == Reached::Node { is_local(false) } else { Vec::new() };
    rule.extend(load_key(reached));
    rule.push(Expression::Lookup { set: REFUSED, key: SERVICE_KEY, to: None });
    rule
}

/// Sets the mark's bit.
fn mark() -> Vec<Expression> {
    const AT: Register = Register(13);
    vec![
        Expression::Meta { key: Meta::Mark, to: AT },
        Expression::Bits { mask: !MARK, flip: MARK, at: AT },
        Expression::SetMark { from: AT },
    ]
}

/// Goes on if the mark's bit is set, and clears it.
pub(super) fn take_mark() -> Vec<Expression> {
    const AT: Register = Register(13);
    let load = || Expression::Meta { key: Meta::Mark, to: AT };
    let mut rule = vec![load()];
    rule.extend(Expression::any_bit(MARK, true, AT));
    rule.extend([
        load(),
        Expression::Bits { mask: !MARK, flip: 0, at: AT },
        Expression::SetMark { from: AT },
    ]);
    rule
}

/// Goes on if the packet comes from a pod of the cluster, or does not.
fn from_pod(cluster: Cidr, is: bool) -> Vec<Expression> {
    const AT: Register = Register(12);
    let mut rule = vec![Expression::source(AT)];
    rule.extend(Expression::within(cluster, is, AT));
    rule
}

impl Manner {
    fn name(self) -> String {
        match self {
            Manner::Open(pick) => format!("open-{}", pick.name()),
            Manner::Kept { inside, outside } => {
                let outside = outside.map_or("drop".to_owned(), Pick::name);
                format!("kept-{}-{outside}", inside.name())
            }
        }
    }

    /// The picks it leads to.
    pub fn picks(self) -> impl Iterator<Item = Pick> {
        let (first, second) = match self {
            Manner::Open(pick) => (pick, None),
            Manner::Kept { inside, outside } => (inside, outside),
        };
        [Some(first), second].into_iter().flatten()
    }

    /// Its number in `manners`: all that tells it from others, in 64 bits.
    fn number(self) -> u64 {
        let part = |pick: Pick| (u64::from(pick.count) << 1) | u64::from(pick.outside);
        let (kept, first, second) = match self {
            Manner::Open(pick) => (0, pick, None),
            Manner::Kept { inside, outside } => (1, inside, outside),
        };
        let node = u64::from(first.reached == Reached::Node);
        let affinity = first.affinity.map_or(0, |seconds| u64::from(seconds.min(AFFINITY_SECONDS_MAX)));
        let second = second.map_or(0, part);
        kept | (node << 1) | (affinity << 2) | (part(first) << 20) | (second << 40)
    }

    /// The entry that leads to its chain.
    pub fn key(self) -> Cell {
        self.number().to_ne_bytes().to_vec()
    }

    fn rules(self, cluster: Cidr) -> Vec<Vec<Expression>> {
        let onward = |mut rule: Vec<Expression>, pick: Pick| {
            rule.push(Expression::Verdict(Verdict::Goto(Chain::Pick(pick).name())));
            rule
        };
        match self {
            Manner::Open(pick) => {
                let mut outsider = from_pod(cluster, false);
                outsider.extend(mark());
                vec![outsider, onward(Vec::new(), pick)]
            }
            Manner::Kept { inside, outside } => {
                let mut local = is_local(true);
                local.extend(mark());
                let last = match outside {
                    Some(pick) => onward(Vec::new(), pick),
                    None => vec![Expression::Verdict(Verdict::Drop)],
                };
                vec![onward(from_pod(cluster, true), inside), onward(local, inside), last]
            }
        }
    }
}

impl Chain {
    pub fn name(self) -> String {
        match self {
            Chain::Pick(pick) => pick.name(),
            Chain::Manner(manner) => manner.name(),
        }
    }

    pub fn rules(self, cluster: Cidr) -> Vec<Vec<Expression>> {
        match self {
            Chain::Pick(pick) => pick.rules(),
            Chain::Manner(manner) => manner.rules(cluster),
        }
    }
}

/// The key of a Service: address (0.0.0.0 for the node's), protocol, port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ServiceKey {
    pub address: Ipv4Addr,
    pub protocol: u8,
    pub port: u16,
}

impl ServiceKey {
    /// As the registers hold it.
    pub fn cell(self) -> Cell {
        let mut cell = self.address.octets().to_vec();
        cell.extend([self.protocol, 0, 0, 0]);
        cell.extend(self.port.to_be_bytes());
        cell.extend([0, 0]);
        cell
    }

    fn reached(self) -> Reached {
        if self.address.is_unspecified() { Reached::Node } else { Reached::Address }
    }
}

/// The keys of a Service port, those of its virtual addresses before that of its node port.
pub(super) fn keys(port: &ServicePort) -> impl Iterator<Item = ServiceKey> {
    let protocol = port.protocol.number();
    let virtual_addresses = port.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) if !address.is_unspecified() => Some((*address, port.port)),
        _ => None,
    });
    let node = (port.node_port != 0).then_some((Ipv4Addr::UNSPECIFIED, port.node_port));
    virtual_addresses.chain(node).map(move |(address, port)| ServiceKey { address, protocol, port })
}

/// All entries of a Service port, and the manners they name.
pub(super) fn entries(port: &ServicePort, services: Cidr) -> (Vec<Entry>, Vec<Manner>) {
    let id = id(port);
    let inside = endpoints(&port.endpoints);
    let outside = endpoints(&port.external_endpoints);
    let mut entries = Vec::new();
    let mut manners = Vec::new();
    for key in keys(port) {
        match manner(port, key, (&inside, &outside), services) {
            Some(manner) => {
                let data = [&id[..], &manner.key()].concat();
                entries.push(Entry { set: SERVICES, key: key.cell(), data });
                manners.push(manner);
            }
            None => entries.push(Entry { set: REFUSED, key: key.cell(), data: Vec::new() }),
        }
    }
    if manners.is_empty() {
        return (entries, manners);
    }
    push_endpoints(&mut entries, &id, &inside, 0);
    if manners.iter().flat_map(|manner| manner.picks()).any(|pick| pick.outside) {
        push_endpoints(&mut entries, &id, &outside, OUTSIDE_FROM);
    }
    if port.affinity_seconds.is_some() {
        push_members(&mut entries, &id, inside.iter().chain(&outside));
    }
    (entries, manners)
}

/// What happens to packets for this key; `None` when nobody would answer.
fn manner(
    port: &ServicePort,
    key: ServiceKey,
    (inside, outside): (&[SocketAddrV4], &[SocketAddrV4]),
    services: Cidr,
) -> Option<Manner> {
    let pick = |of_outside: bool| {
        let list = if of_outside { outside } else { inside };
        let count = list.len() as u16;
        let affinity = port.affinity_seconds.map(|seconds| seconds.clamp(1, AFFINITY_SECONDS_MAX));
        (count > 0).then_some(Pick {
            reached: key.reached(),
            outside: of_outside && inside != outside,
            count,
            affinity,
        })
    };
    let from_inside = key.reached() == Reached::Address && services.contains(key.address);
    if from_inside {
        pick(false).map(Manner::Open)
    } else if port.keep_source {
        let inside = pick(false).or(pick(true))?;
        Some(Manner::Kept { inside, outside: pick(true) })
    } else {
        pick(true).map(Manner::Open)
    }
}

/// The 64 bits that stand for a Service port in the maps: the same after every restart, so that clients stay where
/// they were, and so many that two of them never meet.
fn id(port: &ServicePort) -> [u8; 8] {
    hash64(format!("{}/{}", port.name, port.protocol.number()).as_bytes()).to_ne_bytes()
}

/// The endpoints that can be served.
pub(super) fn endpoints(all: &[SocketAddr]) -> Vec<SocketAddrV4> {
    let ipv4 = all.iter().filter_map(|endpoint| match endpoint {
        SocketAddr::V4(endpoint) => Some(*endpoint),
        SocketAddr::V6(_) => None,
    });
    ipv4.take(ENDPOINTS_MAX).collect()
}

fn push_endpoints(entries: &mut Vec<Entry>, id: &[u8; 8], endpoints: &[SocketAddrV4], from: u32) {
    for (number, endpoint) in (from..).zip(endpoints) {
        let key = [&id[..], &number.to_ne_bytes()].concat();
        entries.push(Entry { set: ENDPOINTS, key, data: endpoint_cell(endpoint) });
    }
}

fn push_members<'a>(
    entries: &mut Vec<Entry>,
    id: &[u8; 8],
    endpoints: impl Iterator<Item = &'a SocketAddrV4>,
) {
    let mut cells: Vec<Cell> = endpoints.map(endpoint_cell).collect();
    cells.sort_unstable();
    cells.dedup();
    for cell in cells {
        entries.push(Entry { set: MEMBERS, key: [&cell[..], id].concat(), data: Vec::new() });
    }
}

fn endpoint_cell(endpoint: &SocketAddrV4) -> Cell {
    let mut cell = endpoint.ip().octets().to_vec();
    cell.extend(endpoint.port().to_be_bytes());
    cell.extend([0, 0]);
    cell
}
