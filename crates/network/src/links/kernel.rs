//! Links, addresses, neighbours and routes: what to ask the kernel, and its lists.
//!
//! [`Steps`] gathers changes and says of each what it is for and which refusals mean that it is so already;
//! [`Links`] carries them out and lists what is there.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::wire::{
    ACK, Attributes, Batch, CREATE, DUMP, EXCLUSIVE, REPLACE, Socket, attribute, attributes, number, text,
};
use crate::{Cidr, NetworkError, failed};

/// The protocol number that our routes carry, free in the registry of `rtnetlink(7)`.
const ROUTE_PROTOCOL: u8 = 98;
/// How many bytes the kernel keeps of a link's alias at most.
const ALIAS_LEN_MAX: usize = 255;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A link as listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What we wrote on it: the pod's uid.
    pub alias: String,
    /// The largest packet.
    pub mtu: u32,
    /// The number of the other end, in that end's namespace.
    pub peer: u32,
}

/// A route of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    /// Where to.
    pub to: Cidr,
    /// Through whom; `None` on the link itself.
    pub via: Option<Ipv4Addr>,
    /// Over which link; 0 lets the kernel find it.
    pub link: u32,
    /// The source address of packets that have none yet.
    pub source: Option<Ipv4Addr>,
    /// Its metric, which names its cluster.
    pub metric: u32,
    /// The largest packet; 0 for the link's.
    pub mtu: u32,
}

/// A veth pair to make.
pub(crate) struct Veth<'a> {
    /// The name of the end that stays here.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// The name of the end that goes away.
    pub peer_name: &'a str,
    /// Its hardware address.
    pub peer_mac: Mac,
    /// The namespace it goes to.
    pub peer_netns: BorrowedFd<'a>,
    /// The largest packet.
    pub mtu: u32,
}

/// A tunnel to make.
pub(crate) struct Vxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// The number its packets carry.
    pub id: u32,
    /// The address its packets come from.
    pub local: Ipv4Addr,
    /// The port it listens on.
    pub port: u16,
    /// The largest packet in it.
    pub mtu: u32,
}

/// Changes to be made in order.
#[derive(Default)]
pub(crate) struct Steps {
    batch: Batch,
    notes: Vec<Note>,
}

struct Note {
    doing: String,
    fine: &'static [Errno],
}

/// A link that is there, an address that is there, a route that is there.
const THERE: &[Errno] = &[Errno::EXIST];
/// A link that is gone, a route that is gone.
const GONE: &[Errno] = &[Errno::NODEV, Errno::SRCH, Errno::NOENT, Errno::ADDRNOTAVAIL];
/// A kernel without IPv6.
const LACKING: &[Errno] = &[Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::INVAL];

impl Steps {
    fn step(
        &mut self,
        (kind, flags): (u16, u16),
        header: &[u8],
        (doing, fine): (String, &'static [Errno]),
        fill: impl FnOnce(&mut Attributes<'_>),
    ) {
        self.notes.push(Note { doing, fine });
        self.batch.message(kind, flags | ACK, header, fill);
    }

    /// Makes a veth pair whose other end is born in its own namespace.
    pub fn veth(&mut self, veth: &Veth<'_>) {
        const PEER: u16 = 1;
        let doing = (format!("make the link {}", veth.name), &[][..]);
        self.step((libc::RTM_NEWLINK, CREATE | EXCLUSIVE), &link_header(0, 0, 0), doing, |a| {
            a.text(libc::IFLA_IFNAME, veth.name)
                .put(libc::IFLA_ADDRESS, &veth.mac)
                .u32(libc::IFLA_MTU, veth.mtu);
            kind(a, "veth", |a| {
                a.headed(PEER, &link_header(0, 0, 0), |a| {
                    a.text(libc::IFLA_IFNAME, veth.peer_name).put(libc::IFLA_ADDRESS, &veth.peer_mac);
                    a.u32(libc::IFLA_MTU, veth.mtu);
                    a.u32(libc::IFLA_NET_NS_FD, veth.peer_netns.as_raw_fd() as u32);
                });
            });
        });
    }

    /// Makes a tunnel that learns nothing from packets.
    pub fn vxlan(&mut self, vxlan: &Vxlan<'_>) {
        const ID: u16 = 1;
        const LOCAL: u16 = 4;
        const LEARNING: u16 = 7;
        const PORT: u16 = 15;
        let doing = (format!("make the tunnel {}", vxlan.name), &[][..]);
        self.step((libc::RTM_NEWLINK, CREATE | EXCLUSIVE), &link_header(0, 0, 0), doing, |a| {
            a.text(libc::IFLA_IFNAME, vxlan.name)
                .put(libc::IFLA_ADDRESS, &vxlan.mac)
                .u32(libc::IFLA_MTU, vxlan.mtu);
            kind(a, "vxlan", |a| {
                a.u32(ID, vxlan.id).put(LOCAL, &vxlan.local.octets());
                a.put(LEARNING, &[0]).put(PORT, &vxlan.port.to_be_bytes());
            });
        });
    }

    /// Says to which address a tunnel sends what is for a hardware address.
    pub fn forward(&mut self, link: u32, mac: Mac, to: Ipv4Addr) {
        const BRIDGE: u8 = libc::AF_BRIDGE as u8;
        const SELF: u8 = 2;
        let mut header = [0; 12];
        header[0] = BRIDGE;
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        header[8..10].copy_from_slice(&(libc::NUD_PERMANENT | libc::NUD_NOARP).to_ne_bytes());
        header[10] = SELF;
        let doing = (format!("lead tunnel {link} to {to}"), &[][..]);
        self.step((libc::RTM_NEWNEIGH, CREATE | REPLACE), &header, doing, |a| {
            a.put(libc::NDA_DST, &to.octets()).put(libc::NDA_LLADDR, &mac);
        });
    }

    /// Writes on a link whose it is.
    pub fn alias(&mut self, link: u32, alias: &str) {
        let doing = (format!("write {alias:?} on link {link}"), &[][..]);
        self.step((libc::RTM_NEWLINK, 0), &link_header(link, 0, 0), doing, |a| {
            a.put(libc::IFLA_IFALIAS, &alias.as_bytes()[..alias.len().min(ALIAS_LEN_MAX)]);
        });
    }

    /// Takes a link up.
    pub fn up(&mut self, link: u32) {
        const UP: u32 = libc::IFF_UP as u32;
        self.step(
            (libc::RTM_NEWLINK, 0),
            &link_header(link, UP, UP),
            (format!("take link {link} up"), &[]),
            |_| {},
        );
    }

    /// Lets a link carry no IPv6 of its own accord: no addresses, no solicitations.
    pub fn without_ipv6(&mut self, link: u32) {
        const INET6_ADDR_GEN_MODE: u16 = 8;
        const GEN_MODE_NONE: u8 = 1;
        let doing = (format!("keep link {link} free of IPv6"), LACKING);
        self.step((libc::RTM_NEWLINK, 0), &link_header(link, 0, 0), doing, |a| {
            a.nested(libc::IFLA_AF_SPEC, |a| {
                a.nested(libc::AF_INET6 as u16, |a| {
                    a.put(INET6_ADDR_GEN_MODE, &[GEN_MODE_NONE]);
                });
            });
        });
    }

    /// Lets addresses of the loopback be translated towards this link (a node port reached at 127.0.0.1), and sends
    /// no redirects from it.
    pub fn behind_loopback(&mut self, link: u32) {
        const SEND_REDIRECTS: u16 = 6;
        const ROUTE_LOCALNET: u16 = 26;
        self.conf(
            format!("let the loopback reach link {link}"),
            link,
            &[(ROUTE_LOCALNET, 1), (SEND_REDIRECTS, 0)],
        );
    }

    /// Answers on this link for every address that is reached over another.
    pub fn answers_for_others(&mut self, link: u32) {
        const PROXY_ARP: u16 = 3;
        self.conf(format!("let link {link} answer for others"), link, &[(PROXY_ARP, 1)]);
    }

    /// Changes settings of IPv4 on a link, by their numbers in the kernel.
    fn conf(&mut self, doing: String, link: u32, settings: &[(u16, u32)]) {
        const INET_CONF: u16 = 1;
        self.step((libc::RTM_NEWLINK, 0), &link_header(link, 0, 0), (doing, &[]), |a| {
            a.nested(libc::IFLA_AF_SPEC, |a| {
                a.nested(libc::AF_INET as u16, |a| {
                    a.nested(INET_CONF, |a| {
                        for (setting, value) in settings {
                            a.u32(*setting, *value);
                        }
                    });
                });
            });
        });
    }

    /// Removes a link; gone already is as good.
    pub fn remove_link(&mut self, name: &str) {
        let doing = (format!("remove the link {name}"), GONE);
        self.step((libc::RTM_DELLINK, 0), &link_header(0, 0, 0), doing, |a| {
            a.text(libc::IFLA_IFNAME, name);
        });
    }

    /// Gives a link an address with the range around it.
    pub fn address(&mut self, link: u32, address: Ipv4Addr, prefix: u8) {
        let mut header = [libc::AF_INET as u8, prefix, 0, 0, 0, 0, 0, 0];
        header[4..].copy_from_slice(&link.to_ne_bytes());
        let doing = (format!("give link {link} the address {address}/{prefix}"), THERE);
        self.step((libc::RTM_NEWADDR, CREATE | EXCLUSIVE), &header, doing, |a| {
            a.put(libc::IFA_LOCAL, &address.octets()).put(libc::IFA_ADDRESS, &address.octets());
        });
    }

    /// Says once and for all who has an address.
    pub fn neighbour(&mut self, link: u32, address: Ipv4Addr, mac: Mac) {
        let mut header = [0; 12];
        header[0] = libc::AF_INET as u8;
        header[4..8].copy_from_slice(&link.to_ne_bytes());
        header[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
        let doing = (format!("tell link {link} who has {address}"), &[][..]);
        self.step((libc::RTM_NEWNEIGH, CREATE | REPLACE), &header, doing, |a| {
            a.put(libc::NDA_DST, &address.octets()).put(libc::NDA_LLADDR, &mac);
        });
    }

    /// Makes or changes a route.
    pub fn route(&mut self, route: &Route) {
        let doing = (format!("route {}", route.to), &[][..]);
        self.step((libc::RTM_NEWROUTE, CREATE | REPLACE), &route_header(route), doing, |a| {
            route_body(a, route)
        });
    }

    /// Removes a route; gone already is as good.
    pub fn remove_route(&mut self, route: &Route) {
        let doing = (format!("remove the route to {}", route.to), GONE);
        self.step((libc::RTM_DELROUTE, 0), &route_header(route), doing, |a| route_body(a, route));
    }
}

fn kind(a: &mut Attributes<'_>, name: &str, data: impl FnOnce(&mut Attributes<'_>)) {
    const INFO_KIND: u16 = 1;
    const INFO_DATA: u16 = 2;
    a.nested(libc::IFLA_LINKINFO, |a| {
        a.text(INFO_KIND, name).nested(INFO_DATA, data);
    });
}

fn link_header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

fn route_header(route: &Route) -> [u8; 12] {
    let scope = if route.via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let mut header = [0; 12];
    header[0] = libc::AF_INET as u8;
    header[1] = route.to.prefix();
    header[4] = libc::RT_TABLE_MAIN;
    header[5] = ROUTE_PROTOCOL;
    header[6] = scope;
    header[7] = libc::RTN_UNICAST;
    if route.via.is_some() && route.link != 0 {
        // Whoever names both has seen to it that the one is reached over the other.
        const ONLINK: u32 = 4;
        header[8..12].copy_from_slice(&ONLINK.to_ne_bytes());
    }
    header
}

fn route_body(a: &mut Attributes<'_>, route: &Route) {
    const METRIC_MTU: u16 = 2;
    a.put(libc::RTA_DST, &route.to.first().octets()).u32(libc::RTA_PRIORITY, route.metric);
    if route.link != 0 {
        a.u32(libc::RTA_OIF, route.link);
    }
    if let Some(via) = route.via {
        a.put(libc::RTA_GATEWAY, &via.octets());
    }
    if let Some(source) = route.source {
        a.put(libc::RTA_PREFSRC, &source.octets());
    }
    if route.mtu != 0 {
        a.nested(libc::RTA_METRICS, |a| {
            a.u32(METRIC_MTU, route.mtu);
        });
    }
}

/// The links of one network namespace: that of the thread which opened this.
pub(crate) struct Links(Socket);

impl Links {
    /// Opens the namespace of the calling thread.
    pub fn open() -> io::Result<Self> {
        Socket::route().map(Self)
    }

    /// Carries out all steps in order; says which was refused first.
    pub fn carry_out(&self, steps: Steps) -> Result<(), NetworkError> {
        let fates = self.0.request(&steps.batch).map_err(failed("ask the kernel for links"))?;
        for (note, fate) in steps.notes.into_iter().zip(fates) {
            if let Err(refusal) = fate
                && !note.fine.contains(&refusal.errno)
            {
                return Err(failed(note.doing)(refusal));
            }
        }
        Ok(())
    }

    /// Takes the loopback up.
    pub fn raise_loopback(&self) -> Result<(), NetworkError> {
        const LOOPBACK: u32 = 1;
        let mut steps = Steps::default();
        steps.up(LOOPBACK);
        self.carry_out(steps)
    }

    /// All links.
    pub fn list(&self) -> Result<Vec<Link>, NetworkError> {
        let mut batch = Batch::default();
        batch.message(libc::RTM_GETLINK, DUMP, &link_header(0, 0, 0), |_| {});
        let mut links = Vec::new();
        self.0
            .dump(&batch, |kind, body| {
                if kind == libc::RTM_NEWLINK {
                    links.extend(read_link(body));
                }
            })
            .map_err(failed("list the links"))?;
        Ok(links)
    }

    /// The link of that name.
    pub fn find(&self, name: &str) -> Result<Option<Link>, NetworkError> {
        let mut batch = Batch::default();
        batch.message(libc::RTM_GETLINK, ACK, &link_header(0, 0, 0), |a| {
            a.text(libc::IFLA_IFNAME, name);
        });
        let mut link = None;
        match self.0.dump(&batch, |_, body| link = read_link(body)) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(failed(format!("look for the link {name}"))(error)),
            Ok(()) => Ok(link),
        }
    }

    /// The link of that name, which was made just now.
    pub fn expect(&self, name: &str) -> Result<Link, NetworkError> {
        let missing = || failed(format!("find the link {name}"))(io::Error::from(io::ErrorKind::NotFound));
        self.find(name)?.ok_or_else(missing)
    }

    /// Whether an address is reached without anybody between; `false` too where it is not reached at all.
    pub fn is_next_door(&self, address: Ipv4Addr) -> Result<bool, NetworkError> {
        const ROUTE_HEADER_LEN: usize = 12;
        let mut header = [0; ROUTE_HEADER_LEN];
        header[0] = libc::AF_INET as u8;
        header[1] = 32;
        let mut batch = Batch::default();
        batch.message(libc::RTM_GETROUTE, ACK, &header, |a| {
            a.put(libc::RTA_DST, &address.octets());
        });
        let mut next_door = false;
        let asked = self.0.dump(&batch, |kind, body| {
            if kind == libc::RTM_NEWROUTE
                && let Some((_, body)) = body.split_at_checked(ROUTE_HEADER_LEN)
            {
                next_door = attribute(body, libc::RTA_GATEWAY).is_none();
            }
        });
        match asked {
            Err(error)
                if matches!(
                    Errno::from_io_error(&error),
                    Some(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL)
                ) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed(format!("look for the way to {address}"))(error)),
            Ok(()) => Ok(next_door),
        }
    }

    /// Our routes in the main table, those of all clusters.
    pub fn routes(&self) -> Result<Vec<Route>, NetworkError> {
        let mut routes = Vec::new();
        self.each_route(|header, body| {
            if header[5] == ROUTE_PROTOCOL {
                routes.extend(read_route(header, body));
            }
        })?;
        Ok(routes)
    }

    /// The link that leads out of the machine's networks.
    pub fn default_link(&self) -> Result<Option<u32>, NetworkError> {
        let mut best: Option<Route> = None;
        self.each_route(|header, body| {
            if header[1] == 0 {
                let found = read_route(header, body).filter(|route| route.link != 0);
                best = [best.take(), found].into_iter().flatten().min_by_key(|route| route.metric);
            }
        })?;
        Ok(best.map(|route| route.link))
    }

    fn each_route(&self, mut take: impl FnMut(&[u8], &[u8])) -> Result<(), NetworkError> {
        const ROUTE_HEADER_LEN: usize = 12;
        let mut header = [0; ROUTE_HEADER_LEN];
        header[0] = libc::AF_INET as u8;
        let mut batch = Batch::default();
        batch.message(libc::RTM_GETROUTE, DUMP, &header, |_| {});
        self.0
            .dump(&batch, |kind, body| {
                if kind == libc::RTM_NEWROUTE
                    && let Some((header, body)) = body.split_at_checked(ROUTE_HEADER_LEN)
                    && header[4] == libc::RT_TABLE_MAIN
                {
                    take(header, body);
                }
            })
            .map_err(failed("list the routes"))
    }

    /// The IPv4 addresses here and the links that have them.
    pub fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr)>, NetworkError> {
        const ADDRESS_HEADER_LEN: usize = 8;
        let mut batch = Batch::default();
        batch.message(libc::RTM_GETADDR, DUMP, &[libc::AF_INET as u8, 0, 0, 0, 0, 0, 0, 0], |_| {});
        let mut found = Vec::new();
        self.0
            .dump(&batch, |_, body| {
                let link = body.get(4..).and_then(number);
                let local = body.get(ADDRESS_HEADER_LEN..).and_then(|rest| attribute(rest, libc::IFA_LOCAL));
                found.extend(link.zip(local.and_then(ipv4)));
            })
            .map_err(failed("list the addresses"))?;
        Ok(found)
    }
}

fn read_link(body: &[u8]) -> Option<Link> {
    const LINK_HEADER_LEN: usize = 16;
    let mut link = Link { index: number(body.get(4..)?)?, ..Link::default() };
    for (kind, value) in attributes(body.get(LINK_HEADER_LEN..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_IFALIAS => link.alias = text(value),
            libc::IFLA_MTU => link.mtu = number(value)?,
            libc::IFLA_LINK => link.peer = number(value)?,
            _ => {}
        }
    }
    Some(link)
}

fn read_route(header: &[u8], body: &[u8]) -> Option<Route> {
    let mut route = Route {
        to: Cidr::new(Ipv4Addr::UNSPECIFIED, header[1])?,
        via: None,
        link: 0,
        source: None,
        metric: 0,
        mtu: 0,
    };
    for (kind, value) in attributes(body) {
        match kind {
            libc::RTA_DST => route.to = Cidr::new(ipv4(value)?, header[1])?,
            libc::RTA_GATEWAY => route.via = ipv4(value),
            libc::RTA_OIF => route.link = number(value)?,
            libc::RTA_PREFSRC => route.source = ipv4(value),
            libc::RTA_PRIORITY => route.metric = number(value)?,
            _ => {}
        }
    }
    Some(route)
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}
