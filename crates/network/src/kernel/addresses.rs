//! Which pod has which address and host ports: in memory, and in a file for each pod.
//!
//! The files let a restarted agent find its pods. They are written aside and renamed, so each is whole or missing;
//! they are not synced, because no pod's interface outlives the machine's own restart either.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::Disk;
use serde::{Deserialize, Serialize};

use super::Settings;
use crate::{Cidr, HostPort, NetworkError, Protocol, failed};

/// The most addresses used of a node's range: far more than the pods a node may have, few enough to be listed in
/// a set of rules.
pub(crate) const POD_ADDRESSES_MAX: u32 = 4094;
/// The first addresses, kept free: the range's own and the one people expect to be the node's.
const RESERVED: u32 = 2;
/// The file that tells where the next search for a free address starts.
const CURSOR: &str = "cursor";

/// The addresses of a node's range that pods may get.
pub(crate) fn pod_addresses(range: Cidr) -> impl Iterator<Item = Ipv4Addr> {
    offsets(range).filter_map(move |offset| range.nth(offset))
}

fn offsets(range: Cidr) -> std::ops::Range<u32> {
    let end = u32::try_from(range.size() - 1).unwrap_or(u32::MAX);
    RESERVED.min(end)..end.min(RESERVED + POD_ADDRESSES_MAX)
}

/// What is remembered of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub address: Ipv4Addr,
    pub host_ports: Vec<HostPort>,
}

/// The book of addresses.
pub(crate) struct Addresses {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    range: Cidr,
    leases: BTreeMap<String, Lease>,
    taken: BTreeSet<Ipv4Addr>,
    /// Where the next search starts: after the address given last, so that one is reused as late as possible.
    cursor: u32,
}

impl Addresses {
    /// Reads the book. A file that cannot be read counts as missing: its pod is attached anew.
    pub fn open(disk: Arc<dyn Disk>, settings: &Settings) -> Result<Self, NetworkError> {
        let dir = settings.data_dir.join("run").join("network");
        disk.create_dir(&dir).map_err(failed(format!("make {}", dir.display())))?;
        let mut book = Self {
            disk,
            dir,
            range: settings.pod_cidr,
            leases: BTreeMap::new(),
            taken: BTreeSet::new(),
            cursor: 0,
        };
        for name in book.disk.list(&book.dir).map_err(failed("list the pods' addresses"))? {
            book.read(&name);
        }
        Ok(book)
    }

    fn read(&mut self, name: &str) {
        let Ok(bytes) = self.disk.read(&self.dir.join(name)) else { return };
        if name == CURSOR {
            self.cursor = serde_json::from_slice(&bytes).unwrap_or(0);
        } else if let Some(uid) = name.strip_suffix(".json").map(uid_of)
            && let Ok(file) = serde_json::from_slice::<LeaseFile>(&bytes)
            && self.range.contains(file.address)
            && self.taken.insert(file.address)
        {
            self.leases.insert(uid, file.into());
        }
    }

    /// The pod's address and host ports, given now or before.
    pub fn lease(&mut self, uid: &str, host_ports: &[HostPort]) -> Result<Ipv4Addr, NetworkError> {
        self.refuse_taken_ports(uid, host_ports)?;
        let known = self.leases.get(uid).map(|lease| lease.address);
        let (address, cursor) = match known {
            Some(address) => (address, self.cursor),
            None => self.free_address()?,
        };
        let lease = Lease { address, host_ports: host_ports.to_vec() };
        if self.leases.get(uid) != Some(&lease) {
            self.write(&file_of(uid), &LeaseFile::from(&lease))?;
        }
        if cursor != self.cursor {
            self.write(CURSOR, &cursor)?;
        }
        self.cursor = cursor;
        self.taken.insert(address);
        self.leases.insert(uid.to_owned(), lease);
        Ok(address)
    }

    /// Forgets the pod; its address may be given to another.
    pub fn release(&mut self, uid: &str) -> Result<(), NetworkError> {
        if let Err(error) = self.disk.remove(&self.dir.join(file_of(uid)))
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(failed(format!("forget the address of pod {uid}"))(error));
        }
        if let Some(lease) = self.leases.remove(uid) {
            self.taken.remove(&lease.address);
        }
        Ok(())
    }

    /// Whether the pod has host ports.
    pub fn has_host_ports(&self, uid: &str) -> bool {
        self.leases.get(uid).is_some_and(|lease| !lease.host_ports.is_empty())
    }

    /// Lets the pod's host ports go, until it is released or attached again; says whether it had any.
    pub fn drop_host_ports(&mut self, uid: &str) -> bool {
        let ports = self.leases.get_mut(uid).map(|lease| std::mem::take(&mut lease.host_ports));
        ports.is_some_and(|ports| !ports.is_empty())
    }

    /// The pod's address, if it has one.
    pub fn address(&self, uid: &str) -> Option<Ipv4Addr> {
        self.leases.get(uid).map(|lease| lease.address)
    }

    /// All pods and their addresses.
    pub fn all(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.leases.iter().map(|(uid, lease)| (uid.as_str(), lease.address))
    }

    /// All host ports: the pod's uid, its address, the port.
    pub fn host_ports(&self) -> Vec<(String, Ipv4Addr, HostPort)> {
        let each = |(uid, lease): (&String, &Lease)| {
            let (uid, address) = (uid.clone(), lease.address);
            lease.host_ports.clone().into_iter().map(move |port| (uid.clone(), address, port))
        };
        self.leases.iter().flat_map(each).collect()
    }

    fn free_address(&self) -> Result<(Ipv4Addr, u32), NetworkError> {
        let all = offsets(self.range);
        let start = self.cursor.clamp(all.start, all.end);
        (start..all.end)
            .chain(all.start..start)
            .filter_map(|offset| Some((self.range.nth(offset)?, offset + 1)))
            .find(|(address, _)| !self.taken.contains(address))
            .ok_or_else(|| NetworkError::NoAddress { range: self.range.to_string() })
    }

    fn refuse_taken_ports(&self, uid: &str, wanted: &[HostPort]) -> Result<(), NetworkError> {
        let others = self.leases.iter().filter(|(other, _)| *other != uid);
        let mut taken = others.flat_map(|(_, lease)| &lease.host_ports);
        match taken.find(|taken| wanted.iter().any(|port| clashes(taken, port))) {
            Some(port) => Err(NetworkError::PortTaken(port.host_port)),
            None => Ok(()),
        }
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), NetworkError> {
        let doing = format!("remember {name} in {}", self.dir.display());
        self.write_aside(name, value).map_err(failed(doing))
    }

    fn write_aside(&self, name: &str, value: &impl Serialize) -> io::Result<()> {
        let aside = self.dir.join(format!("{name}.new"));
        remove_leftover(&*self.disk, &aside)?;
        self.disk.append(&aside)?.write(&serde_json::to_vec(value)?)?;
        self.disk.rename(&aside, &self.dir.join(name))
    }
}

fn remove_leftover(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn clashes(a: &HostPort, b: &HostPort) -> bool {
    let address = a.host_ip.is_none() || b.host_ip.is_none() || a.host_ip == b.host_ip;
    address && a.host_port == b.host_port && a.protocol == b.protocol
}

/// The name of a pod's file: the uid, with whatever has no place in a name written as `%` and its code.
fn file_of(uid: &str) -> String {
    let mut name = String::new();
    for byte in uid.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            _ => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name + ".json"
}

fn uid_of(name: &str) -> String {
    let decoded =
        |part: &str| Some((u8::from_str_radix(part.get(..2)?, 16).ok()?, part.get(2..)?.to_owned()));
    let mut parts = name.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for (byte, rest) in parts.filter_map(decoded) {
        bytes.push(byte);
        bytes.extend(rest.as_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A lease as written.
#[derive(Serialize, Deserialize)]
struct LeaseFile {
    address: Ipv4Addr,
    host_ports: Vec<HostPortFile>,
}

/// A host port as written.
#[derive(Serialize, Deserialize)]
struct HostPortFile {
    host_ip: Option<IpAddr>,
    host_port: u16,
    pod_port: u16,
    protocol: u8,
}

impl From<&Lease> for LeaseFile {
    fn from(lease: &Lease) -> Self {
        let host_ports = lease.host_ports.iter().map(|port| HostPortFile {
            host_ip: port.host_ip,
            host_port: port.host_port,
            pod_port: port.pod_port,
            protocol: port.protocol.number(),
        });
        Self { address: lease.address, host_ports: host_ports.collect() }
    }
}

impl From<LeaseFile> for Lease {
    fn from(file: LeaseFile) -> Self {
        let host_ports = file.host_ports.into_iter().filter_map(|port| {
            Some(HostPort {
                host_ip: port.host_ip,
                host_port: port.host_port,
                pod_port: port.pod_port,
                protocol: Protocol::from_number(port.protocol)?,
            })
        });
        Self { address: file.address, host_ports: host_ports.collect() }
    }
}

#[cfg(test)]
mod tests {
    use host::SimDisk;

    use super::*;

    fn book(disk: &SimDisk, range: &str) -> Addresses {
        let range: Cidr = range.parse().expect("a range");
        let settings = Settings {
            data_dir: "/d".into(),
            name_prefix: "t".into(),
            pod_cidr: range,
            cluster_cidr: range,
            service_cidr: range,
            node_ip: Ipv4Addr::LOCALHOST,
            mtu: None,
        };
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        Addresses::open(disk, &settings).expect("the disk works")
    }

    fn port(number: u16, host_ip: Option<[u8; 4]>) -> HostPort {
        let host_ip = host_ip.map(|ip| IpAddr::V4(ip.into()));
        HostPort { host_ip, host_port: number, pod_port: 80, protocol: Protocol::Tcp }
    }

    #[test]
    fn a_pod_keeps_its_address_over_a_restart() {
        let disk = SimDisk::new();
        let given = book(&disk, "10.0.0.0/24").lease("a/../b", &[port(80, None)]).expect("there is room");
        let mut again = book(&disk, "10.0.0.0/24");
        assert_eq!(again.all().collect::<Vec<_>>(), [("a/../b", given)]);
        assert_eq!(again.lease("a/../b", &[port(80, None)]).expect("it is known"), given);
        again.release("a/../b").expect("the disk works");
        assert_eq!(book(&disk, "10.0.0.0/24").all().count(), 0);
    }

    #[test]
    fn an_address_is_reused_as_late_as_possible() {
        let disk = SimDisk::new();
        let mut given = Vec::new();
        for round in 0..6 {
            // A new book each time: the memory of the last one survives.
            let mut book = book(&disk, "10.0.0.0/29");
            given.push(book.lease(&format!("pod-{round}"), &[]).expect("there is room").octets()[3]);
            book.release(&format!("pod-{round}")).expect("the disk works");
        }
        assert_eq!(given, [2, 3, 4, 5, 6, 2]);
    }

    #[test]
    fn a_full_range_says_so_and_a_taken_port_too() {
        let disk = SimDisk::new();
        let mut book = book(&disk, "10.0.0.0/30");
        book.lease("a", &[port(80, Some([10, 9, 9, 9]))]).expect("there is room");
        let full = book.lease("b", &[]).expect_err("there is one address");
        assert!(matches!(full, NetworkError::NoAddress { .. }), "{full}");
        let taken = book.lease("b", &[port(80, None)]).expect_err("the port is taken");
        assert!(matches!(taken, NetworkError::PortTaken(80)), "{taken}");
        let other = book.lease("b", &[port(80, Some([10, 9, 9, 8]))]).expect_err("there is one address");
        assert!(matches!(other, NetworkError::NoAddress { .. }), "{other}");
    }

    #[test]
    fn a_large_range_is_used_in_part() {
        let range: Cidr = "10.0.0.0/8".parse().expect("a range");
        assert_eq!(pod_addresses(range).count(), POD_ADDRESSES_MAX as usize);
        assert_eq!(pod_addresses("10.0.0.7/32".parse().expect("a range")).count(), 0);
    }
}
