//! Connections that the kernel tracks and we want forgotten.
//!
//! Of UDP all that lead to endpoints no longer served: a client keeps sending, and the kernel keeps translating to where
//! the first packet went. Of TCP those that nobody has answered: the kernel sends each further attempt from the same port
//! after the first one, to an endpoint that is gone, for two minutes after the last. What was answered is left alone: an
//! endpoint that leaves may still serve those it has.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::program::ServiceKey;
use super::transaction::{IPV4, header};
use crate::wire::{ACK, Batch, DUMP, Socket, attribute};
use crate::{Cidr, Protocol};

/// The number of connection tracking among netfilter's parts.
const TRACKING: u16 = 1;
const GET: u16 = (TRACKING << 8) | 1;
const DELETE: u16 = (TRACKING << 8) | 2;
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const STATUS_MASK: u16 = 26;
/// The bit of a status: a packet came back.
const ANSWERED: u32 = 1 << 1;
/// The bit of a status: its destination was translated.
const LED: u32 = 1 << 5;

/// One direction of a tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Direction {
    from: SocketAddrV4,
    to: SocketAddrV4,
    protocol: u8,
}

/// Forgets the UDP connections to these keys that lead elsewhere than to the endpoints given, and all to virtual
/// addresses that are not among the keys, if their range is given.
pub(super) fn forget(
    socket: &Socket,
    wanted: &BTreeMap<ServiceKey, Vec<SocketAddrV4>>,
    services: Option<Cidr>,
) -> io::Result<()> {
    let stale = list(socket, false, |out, back, _| {
        out.protocol == Protocol::Udp.number() && is_stale(out, back, wanted, services)
    })?;
    delete(socket, &stale)
}

/// The same of TCP, for those that nobody has answered; how many there were.
pub(super) fn forget_unanswered(
    socket: &Socket,
    wanted: &BTreeMap<ServiceKey, Vec<SocketAddrV4>>,
    services: Option<Cidr>,
) -> io::Result<usize> {
    let stale = list(socket, true, |out, back, status| {
        // An older kernel lists the others as well.
        let is_unanswered = status & (ANSWERED | LED) == LED;
        out.protocol == Protocol::Tcp.number() && is_unanswered && is_stale(out, back, wanted, services)
    })?;
    delete(socket, &stale)?;
    Ok(stale.len())
}

/// What names one tracked connection: its original direction, and its number, so that no later one of the same ports is
/// taken for it.
struct Name {
    original: Vec<u8>,
    id: Vec<u8>,
}

/// The connections for which `is_meant`, given both directions and the status.
fn list(
    socket: &Socket,
    unanswered_only: bool,
    is_meant: impl Fn(Direction, Direction, u32) -> bool,
) -> io::Result<Vec<Name>> {
    let mut found = Vec::new();
    let mut batch = Batch::default();
    batch.message(GET, DUMP, &header(IPV4, 0), |a| {
        if unanswered_only {
            a.be32(STATUS, LED).be32(STATUS_MASK, ANSWERED | LED);
        }
    });
    socket.dump(&batch, |_, body| {
        let Some(body) = body.get(4..) else { return };
        let status =
            attribute(body, STATUS).and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
        if let Some(original) = attribute(body, ORIGINAL)
            && let (Some(out), Some(back)) = (read(original), attribute(body, REPLY).and_then(read))
            && is_meant(out, back, status.unwrap_or(0))
        {
            let id = attribute(body, ID).unwrap_or_default().to_vec();
            found.push(Name { original: original.to_vec(), id });
        }
    })?;
    Ok(found)
}

fn delete(socket: &Socket, stale: &[Name]) -> io::Result<()> {
    if stale.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    for name in stale {
        batch.message(DELETE, ACK, &header(IPV4, 0), |a| {
            a.put(ORIGINAL | libc::NLA_F_NESTED as u16, &name.original);
            if !name.id.is_empty() {
                a.put(ID, &name.id);
            }
        });
    }
    // One that ended by itself meanwhile is as good as deleted.
    socket.request(&batch).map(|_fates| ())
}

/// Whether a connection leads to where it should not. The reply's source is where it leads.
fn is_stale(
    out: Direction,
    back: Direction,
    wanted: &BTreeMap<ServiceKey, Vec<SocketAddrV4>>,
    services: Option<Cidr>,
) -> bool {
    let key = |address| ServiceKey { address, protocol: out.protocol, port: out.to.port() };
    let by_address = wanted.get(&key(*out.to.ip()));
    // A node port is reached at any address; it leads nowhere else than where it was translated to.
    let by_node = || (back.from != out.to).then(|| wanted.get(&key(Ipv4Addr::UNSPECIFIED))).flatten();
    match by_address.or_else(by_node) {
        Some(endpoints) => !endpoints.contains(&back.from),
        None => services.is_some_and(|range| range.contains(*out.to.ip())),
    }
}

fn read(tuple: &[u8]) -> Option<Direction> {
    let ip = attribute(tuple, 1)?;
    let transport = attribute(tuple, 2)?;
    let address = |kind| Some(Ipv4Addr::from(<[u8; 4]>::try_from(attribute(ip, kind)?).ok()?));
    let port = |kind| Some(u16::from_be_bytes(attribute(transport, kind)?.try_into().ok()?));
    let protocol = *attribute(transport, 1)?.first()?;
    Some(Direction {
        from: SocketAddrV4::new(address(1)?, port(2)?),
        to: SocketAddrV4::new(address(2)?, port(3)?),
        protocol,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().expect("an address and port")
    }

    fn check(to: &str, leads_to: &str, stale: bool) {
        let client = at("10.244.0.9:4000");
        let out = Direction { from: client, to: at(to), protocol: 17 };
        let back = Direction { from: at(leads_to), to: client, protocol: 17 };
        let key = |address: [u8; 4], port| ServiceKey { address: address.into(), protocol: 17, port };
        let wanted = BTreeMap::from([
            (key([10, 96, 0, 10], 53), vec![at("10.244.0.2:53")]),
            (key([0, 0, 0, 0], 30053), vec![at("10.244.0.2:53")]),
            (key([10, 96, 0, 11], 53), vec![]),
        ]);
        let services = "10.96.0.0/16".parse().expect("a range");
        assert_eq!(is_stale(out, back, &wanted, Some(services)), stale, "{to} → {leads_to}");
    }

    #[test]
    fn connections_to_endpoints_that_are_gone_are_stale() {
        check("10.96.0.10:53", "10.244.0.2:53", false);
        check("10.96.0.10:53", "10.244.0.3:53", true);
        check("10.96.0.11:53", "10.244.0.2:53", true);
        check("10.96.0.99:53", "10.244.0.2:53", true);
        check("192.0.2.1:30053", "10.244.0.2:53", false);
        check("192.0.2.1:30053", "10.244.0.3:53", true);
        check("192.0.2.1:30053", "192.0.2.1:30053", false);
        check("192.0.2.1:99", "192.0.2.1:99", false);
    }
}
