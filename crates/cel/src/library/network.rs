//! Addresses and ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Row, row, walk};
use crate::budget::{Budget, Error};
use crate::value::Value;

/// A range of addresses, as it was written: its address may have more bits than its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// How many bits are fixed.
    pub bits: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8`.
    pub fn read(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let digits = !bits.is_empty() && bits.bytes().all(|read| read.is_ascii_digit());
        let leading = bits.len() > 1 && bits.starts_with('0');
        let address = ip(address).ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.parse().ok().filter(|bits| digits && !leading && *bits <= most)?;
        Some(Self { address, bits })
    }

    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(address) & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
            }
        };
        Self { address, bits: self.bits }
    }

    fn contains(self, address: IpAddr) -> bool {
        let same_family = self.address.is_ipv4() == address.is_ipv4();
        same_family && Self { address, bits: self.bits }.masked() == self.masked()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Reads an address; zones, and IPv4 addresses within IPv6, are none.
fn ip(text: &str) -> Result<IpAddr, String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        ));
    };
    match address {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"))
        }
        _ => Ok(address),
    }
}

pub const ROWS: &[Row] = &[
    row("ip", &["(string) IP", "CIDR.() IP"], |args, budget| match &args[0] {
        Value::Text(text) => {
            budget.pay(walk(text.as_str().len() as u64))?;
            ip(text.as_str()).map_or_else(Error::said, |address| Ok(Value::Ip(address)))
        }
        Value::Cidr(cidr) => Ok(Value::Ip(cidr.address)),
        _ => Error::no_overload(),
    }),
    row("isIP", &["(string) bool"], |args, budget| text(args, budget, |text| ip(text).is_ok())),
    row("ip.isCanonical", &["(string) bool"], |args, budget| {
        let Value::Text(text) = &args[0] else { return Error::no_overload() };
        budget.pay(2 * walk(text.as_str().len() as u64))?;
        match ip(text.as_str()) {
            Ok(address) => Ok(Value::Bool(address.to_string() == text.as_str())),
            Err(why) => Error::said(why),
        }
    }),
    row("family", &["IP.() int"], |args, _| match &args[0] {
        Value::Ip(address) => Ok(Value::Int(if address.is_ipv4() { 4 } else { 6 })),
        _ => Error::no_overload(),
    }),
    row("isUnspecified", &["IP.() bool"], |args, _| address(args, |address| address.is_unspecified())),
    row("isLoopback", &["IP.() bool"], |args, _| address(args, |address| address.is_loopback())),
    row("isLinkLocalMulticast", &["IP.() bool"], |args, _| {
        address(args, |address| match address {
            IpAddr::V4(four) => four.octets()[..3] == [224, 0, 0],
            IpAddr::V6(six) => six.segments()[0] & 0xff0f == 0xff02,
        })
    }),
    row("isLinkLocalUnicast", &["IP.() bool"], |args, _| address(args, link_local)),
    row("isGlobalUnicast", &["IP.() bool"], |args, _| {
        address(args, |address| {
            let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
            let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
            !special && !broadcast && !link_local(address)
        })
    }),
    row("cidr", &["(string) CIDR"], |args, budget| {
        let Value::Text(text) = &args[0] else { return Error::no_overload() };
        budget.pay(walk(text.as_str().len() as u64))?;
        cidr(text.as_str()).map(Value::Cidr)
    }),
    row("isCIDR", &["(string) bool"], |args, budget| text(args, budget, |text| Cidr::read(text).is_some())),
    row("containsIP", &["CIDR.(string) bool", "CIDR.(IP) bool"], |args, budget| {
        let Value::Cidr(range) = &args[0] else { return Error::no_overload() };
        budget.pay(4)?;
        match &args[1] {
            Value::Ip(address) => Ok(Value::Bool(range.contains(*address))),
            Value::Text(text) => {
                ip(text.as_str()).map_or_else(Error::said, |address| Ok(Value::Bool(range.contains(address))))
            }
            _ => Error::no_overload(),
        }
    }),
    row("containsCIDR", &["CIDR.(string) bool", "CIDR.(CIDR) bool"], |args, budget| {
        let Value::Cidr(range) = &args[0] else { return Error::no_overload() };
        budget.pay(6)?;
        let other = match &args[1] {
            Value::Cidr(other) => *other,
            Value::Text(text) => cidr(text.as_str())?,
            _ => return Error::no_overload(),
        };
        Ok(Value::Bool(other.bits >= range.bits && range.contains(other.address)))
    }),
    row("masked", &["CIDR.() CIDR"], |args, _| match &args[0] {
        Value::Cidr(range) => Ok(Value::Cidr(range.masked())),
        _ => Error::no_overload(),
    }),
    row("prefixLength", &["CIDR.() int"], |args, _| match &args[0] {
        Value::Cidr(range) => Ok(Value::Int(range.bits.into())),
        _ => Error::no_overload(),
    }),
];

fn cidr(text: &str) -> Result<Cidr, Error> {
    match Cidr::read(text) {
        Some(range) => Ok(range),
        None => Error::said(format!(
            "network address parse error during conversion from string: netip.ParsePrefix({text:?})"
        )),
    }
}

fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    }
}

fn text<'a>(args: &[Value<'a>], budget: &mut Budget, is: fn(&str) -> bool) -> Result<Value<'a>, Error> {
    let Value::Text(text) = &args[0] else { return Error::no_overload() };
    budget.pay(walk(text.as_str().len() as u64))?;
    Ok(Value::Bool(is(text.as_str())))
}

fn address<'a>(args: &[Value<'a>], is: fn(IpAddr) -> bool) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Ip(address) => Ok(Value::Bool(is(*address))),
        _ => Error::no_overload(),
    }
}
