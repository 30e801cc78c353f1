//! Connections that the kernel tracks and we want forgotten.
//!
//! UDP only: a client keeps sending, and the kernel keeps translating to where the first packet went.

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
    let mut stale = Vec::new();
    let mut batch = Batch::default();
    batch.message(GET, DUMP, &header(IPV4, 0), |_| {});
    socket.dump(&batch, |_, body| {
        let Some(body) = body.get(4..) else { return };
        if let Some(original) = attribute(body, ORIGINAL)
            && let (Some(out), Some(back)) = (read(original), attribute(body, REPLY).and_then(read))
            && is_stale(out, back, wanted, services)
        {
            stale.push(original.to_vec());
        }
    })?;
    if stale.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::default();
    for tuple in &stale {
        batch.message(DELETE, ACK, &header(IPV4, 0), |a| {
            a.put(ORIGINAL | libc::NLA_F_NESTED as u16, tuple);
        });
    }
    // One that ended by itself meanwhile is as good as deleted.
    socket.request(&batch).map(|_fates| ())
}

/// Whether a connection should be forgotten. The reply's source is where it leads.
fn is_stale(
    out: Direction,
    back: Direction,
    wanted: &BTreeMap<ServiceKey, Vec<SocketAddrV4>>,
    services: Option<Cidr>,
) -> bool {
    if out.protocol != Protocol::Udp.number() {
        return false;
    }
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
