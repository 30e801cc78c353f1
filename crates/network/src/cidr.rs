//! Ranges of IPv4 addresses, as settings name them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A range of IPv4 addresses such as `10.244.1.0/24`. Its first address has no bits beyond the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    first: Ipv4Addr,
    prefix: u8,
}

/// Text that names no range of IPv4 addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a range of IPv4 addresses such as 10.244.0.0/16")]
pub struct NotACidr(pub String);

impl Cidr {
    /// All addresses.
    pub const EVERYWHERE: Cidr = Cidr { first: Ipv4Addr::UNSPECIFIED, prefix: 0 };

    /// The range of `prefix` bits that `address` lies in; `None` for more than 32 bits.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        if prefix > 32 {
            return None;
        }
        let first = u32::from(address) & mask(prefix);
        Some(Self { first: first.into(), prefix })
    }

    /// The range of one address.
    pub fn host(address: Ipv4Addr) -> Self {
        Self { first: address, prefix: 32 }
    }

    /// The first address.
    pub fn first(&self) -> Ipv4Addr {
        self.first
    }

    /// The length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The prefix as a mask.
    pub fn mask(&self) -> Ipv4Addr {
        mask(self.prefix).into()
    }

    /// How many addresses it has.
    pub fn size(&self) -> u64 {
        1 << (32 - u32::from(self.prefix))
    }

    /// The address at `offset` from the first; `None` beyond the range.
    pub fn nth(&self, offset: u32) -> Option<Ipv4Addr> {
        (u64::from(offset) < self.size()).then(|| (u32::from(self.first) + offset).into())
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.first)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let refused = || NotACidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(refused)?;
        let address: Ipv4Addr = address.parse().map_err(|_| refused())?;
        let prefix: u8 = prefix.parse().map_err(|_| refused())?;
        Cidr::new(address, prefix).ok_or_else(refused)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_knows_its_addresses() {
        let range: Cidr = "10.244.1.77/24".parse().expect("it is a range");
        assert_eq!(range.to_string(), "10.244.1.0/24");
        assert_eq!(
            (range.size(), range.nth(255), range.nth(256)),
            (256, Some([10, 244, 1, 255].into()), None)
        );
        assert!(range.contains([10, 244, 1, 9].into()) && !range.contains([10, 244, 2, 9].into()));
        let all: Cidr = "0.0.0.0/0".parse().expect("it is a range");
        assert!(all.contains([255, 1, 2, 3].into()) && all.size() == 1 << 32);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/64", "10.0.0/8", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Cidr>(), Err(NotACidr(text.to_owned())));
        }
    }
}
