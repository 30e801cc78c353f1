//! Packet rules as data, and as nftables' messages.
//!
//! An [`Expression`] is one step of nftables' little machine: sixteen registers of 32 bits, tests that end the rule
//! when they fail, and verdicts. This file knows the encoding; what the rules mean is said in `program`.

use std::net::Ipv4Addr;

use crate::Cidr;
use crate::wire::Attributes;

/// A register of the machine, from 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Register(pub u8);

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// Loads `len` bytes of the network header.
    Network { offset: u32, len: u32, to: Register },
    /// Loads the transport header's destination port.
    DestinationPort { to: Register },
    /// Loads something about the packet.
    Meta { key: Meta, to: Register },
    /// Sets the packet's mark.
    SetMark { from: Register },
    /// Loads something about the tracked connection.
    Tracked { key: Tracked, to: Register },
    /// Loads the kind of the packet's source or destination, as routing sees it.
    AddressKind { source: bool, to: Register },
    /// Loads a constant.
    Constant { value: Vec<u8>, to: Register },
    /// `at = (at & mask) ^ flip`.
    Bits { mask: u32, flip: u32, at: Register },
    /// Goes on if the bytes are equal, or differ.
    Compare { equal: bool, value: Vec<u8>, at: Register },
    /// Goes on if the bytes, as a number with the highest first, lie between these, which count.
    Between { first: Vec<u8>, last: Vec<u8>, at: Register },
    /// Goes on if the key is in the set; loads its data.
    Lookup { set: &'static str, key: Register, to: Option<Register> },
    /// Follows the verdict kept for the key.
    Follow { set: &'static str, key: Register },
    /// Loads a number from `offset` to `offset + count - 1`, at random.
    Random { count: u32, offset: u32, to: Register },
    /// Keeps key and data in a map for a while, from now.
    Remember { set: &'static str, key: Register, data: Register, seconds: u32 },
    /// Takes a key out of a map that packets fill; `data` is any register that holds something.
    Forget { set: &'static str, key: Register, data: Register },
    /// Translates the destination to the address and port in two registers.
    Destination { address: Register, port: Register },
    /// Translates the source to the address in a register.
    Source { address: Register },
    /// Translates the source to the address of the way out.
    Masquerade,
    /// Answers with a TCP reset.
    Reset,
    /// Answers "port unreachable".
    Unreachable,
    /// Ends here.
    Verdict(Verdict),
}

/// What a packet's metadata holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Meta {
    /// The mark.
    Mark = 3,
    /// The number of the link it came by.
    InLink = 4,
    /// The transport protocol.
    Protocol = 16,
}

/// What connection tracking knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Tracked {
    /// New, established and so on, as bits.
    State = 0,
    /// Translated and so on, as bits.
    Status = 2,
}

/// Where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Away.
    Drop,
    /// On in another chain, and back.
    Jump(String),
    /// On in another chain, for good.
    Goto(String),
    /// Back to where the chain was jumped to from, or on to whoever looks next.
    Return,
}

/// A new connection, as a bit of [`Tracked::State`].
pub(super) const NEW: u32 = 8;
/// A translated source or destination, as bits of [`Tracked::Status`].
pub(super) const TRANSLATED: u32 = 0x30;
/// A translated destination, as a bit of [`Tracked::Status`].
pub(super) const TRANSLATED_DESTINATION: u32 = 0x20;
/// Ports are chosen at random, so that two sources behind one address seldom meet.
const RANDOM_PORTS: u32 = 0x10;
/// The list element's attribute, used wherever nftables has lists.
pub(super) const LIST_ELEMENT: u16 = 1;
/// A value's attribute.
pub(super) const VALUE: u16 = 1;

impl Expression {
    /// Loads the source address.
    pub fn source(to: Register) -> Self {
        Expression::Network { offset: 12, len: 4, to }
    }

    /// Loads the destination address.
    pub fn destination(to: Register) -> Self {
        Expression::Network { offset: 16, len: 4, to }
    }

    /// Goes on if an address in a register lies in a range, or does not.
    pub fn within(range: Cidr, is: bool, at: Register) -> Vec<Self> {
        let value = range.first().octets().to_vec();
        vec![
            Expression::Bits { mask: u32::from_ne_bytes(range.mask().octets()), flip: 0, at },
            Expression::Compare { equal: is, value, at },
        ]
    }

    /// Goes on if one of these bits is set in a register, or none is.
    pub fn any_bit(bits: u32, is: bool, at: Register) -> Vec<Self> {
        vec![
            Expression::Bits { mask: bits, flip: 0, at },
            Expression::Compare { equal: !is, value: vec![0; 4], at },
        ]
    }

    /// Loads an address.
    pub fn address(address: Ipv4Addr, to: Register) -> Self {
        Expression::Constant { value: address.octets().to_vec(), to }
    }

    fn name(&self) -> &'static str {
        match self {
            Expression::Network { .. } | Expression::DestinationPort { .. } => "payload",
            Expression::Meta { .. } | Expression::SetMark { .. } => "meta",
            Expression::Tracked { .. } => "ct",
            Expression::AddressKind { .. } => "fib",
            Expression::Constant { .. } | Expression::Verdict(_) => "immediate",
            Expression::Bits { .. } => "bitwise",
            Expression::Compare { .. } => "cmp",
            Expression::Between { .. } => "range",
            Expression::Lookup { .. } | Expression::Follow { .. } => "lookup",
            Expression::Random { .. } => "numgen",
            Expression::Remember { .. } | Expression::Forget { .. } => "dynset",
            Expression::Destination { .. } | Expression::Source { .. } => "nat",
            Expression::Masquerade => "masq",
            Expression::Reset | Expression::Unreachable => "reject",
        }
    }

    /// Writes the expression as an element of a rule's list.
    pub fn write(&self, a: &mut Attributes<'_>) {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        a.nested(LIST_ELEMENT, |a| {
            a.text(NAME, self.name()).nested(DATA, |a| self.write_data(a));
        });
    }

    fn write_data(&self, a: &mut Attributes<'_>) {
        match self {
            Expression::Network { .. }
            | Expression::DestinationPort { .. }
            | Expression::Meta { .. }
            | Expression::Tracked { .. }
            | Expression::AddressKind { .. }
            | Expression::Constant { .. }
            | Expression::Random { .. } => self.write_load(a),
            Expression::Bits { .. } | Expression::Compare { .. } | Expression::Between { .. } => {
                self.write_test(a)
            }
            Expression::Lookup { .. }
            | Expression::Follow { .. }
            | Expression::Remember { .. }
            | Expression::Forget { .. } => self.write_set(a),
            Expression::SetMark { .. }
            | Expression::Destination { .. }
            | Expression::Source { .. }
            | Expression::Masquerade
            | Expression::Reset
            | Expression::Unreachable
            | Expression::Verdict(_) => self.write_act(a),
        }
    }

    fn write_load(&self, a: &mut Attributes<'_>) {
        const NETWORK_HEADER: u32 = 1;
        const TRANSPORT_HEADER: u32 = 2;
        const ADDRESS_TYPE: u32 = 3;
        match self {
            Expression::Network { offset, len, to } => {
                a.be32(1, to.number()).be32(2, NETWORK_HEADER).be32(3, *offset).be32(4, *len);
            }
            Expression::DestinationPort { to } => {
                a.be32(1, to.number()).be32(2, TRANSPORT_HEADER).be32(3, 2).be32(4, 2);
            }
            Expression::Meta { key, to } => {
                a.be32(1, to.number()).be32(2, *key as u32);
            }
            Expression::Tracked { key, to } => {
                a.be32(1, to.number()).be32(2, *key as u32);
            }
            Expression::AddressKind { source, to } => {
                a.be32(1, to.number()).be32(2, ADDRESS_TYPE).be32(3, if *source { 1 } else { 2 });
            }
            Expression::Constant { value, to } => {
                a.be32(1, to.number()).nested(2, |a| {
                    a.put(VALUE, value);
                });
            }
            Expression::Random { count, offset, to } => {
                const RANDOM: u32 = 1;
                a.be32(1, to.number()).be32(2, *count).be32(3, RANDOM).be32(4, *offset);
            }
            _ => unreachable!("{self:?} loads nothing"),
        }
    }

    fn write_test(&self, a: &mut Attributes<'_>) {
        let value = |a: &mut Attributes<'_>, kind, bytes: &[u8]| {
            a.nested(kind, |a| {
                a.put(VALUE, bytes);
            });
        };
        match self {
            Expression::Bits { mask, flip, at } => {
                a.be32(1, at.number()).be32(2, at.number()).be32(3, 4);
                value(a, 4, &mask.to_ne_bytes());
                value(a, 5, &flip.to_ne_bytes());
            }
            Expression::Compare { equal, value: bytes, at } => {
                a.be32(1, at.number()).be32(2, u32::from(!*equal));
                value(a, 3, bytes);
            }
            Expression::Between { first, last, at } => {
                const INSIDE: u32 = 0;
                a.be32(1, at.number()).be32(2, INSIDE);
                value(a, 3, first);
                value(a, 4, last);
            }
            _ => unreachable!("{self:?} tests nothing"),
        }
    }

    fn write_set(&self, a: &mut Attributes<'_>) {
        const VERDICT_REGISTER: u32 = 0;
        match self {
            Expression::Lookup { set, key, to } => {
                a.text(1, set).be32(2, key.number());
                if let Some(to) = to {
                    a.be32(3, to.number());
                }
            }
            Expression::Follow { set, key } => {
                a.text(1, set).be32(2, key.number()).be32(3, VERDICT_REGISTER);
            }
            Expression::Remember { set, key, data, seconds } => {
                const UPDATE: u32 = 1;
                a.text(1, set).be32(3, UPDATE).be32(4, key.number()).be32(5, data.number());
                a.be64(6, u64::from(*seconds) * 1000);
            }
            Expression::Forget { set, key, data } => {
                const DELETE: u32 = 2;
                a.text(1, set).be32(3, DELETE).be32(4, key.number()).be32(5, data.number());
            }
            _ => unreachable!("{self:?} uses no set"),
        }
    }

    fn write_act(&self, a: &mut Attributes<'_>) {
        const SOURCE: u32 = 0;
        const DESTINATION: u32 = 1;
        const IPV4: u32 = 2;
        match self {
            Expression::SetMark { from } => {
                a.be32(2, Meta::Mark as u32).be32(3, from.number());
            }
            Expression::Destination { address, port } => {
                a.be32(1, DESTINATION).be32(2, IPV4).be32(3, address.number()).be32(5, port.number());
            }
            Expression::Source { address } => {
                a.be32(1, SOURCE).be32(2, IPV4).be32(3, address.number()).be32(7, RANDOM_PORTS);
            }
            Expression::Masquerade => {
                a.be32(1, RANDOM_PORTS);
            }
            Expression::Reset => {
                a.be32(1, 1).put(2, &[0]);
            }
            Expression::Unreachable => {
                const PORT_UNREACHABLE: u8 = 3;
                a.be32(1, 0).put(2, &[PORT_UNREACHABLE]);
            }
            Expression::Verdict(verdict) => {
                a.be32(1, 0).nested(2, |a| verdict.write(a));
            }
            _ => unreachable!("{self:?} does nothing"),
        }
    }
}

impl Verdict {
    /// Writes the verdict as data.
    pub fn write(&self, a: &mut Attributes<'_>) {
        const VERDICT: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        const JUMP: i32 = -3;
        const GOTO: i32 = -4;
        const RETURN: i32 = -5;
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Jump(chain) => (JUMP, Some(chain)),
            Verdict::Goto(chain) => (GOTO, Some(chain)),
            Verdict::Return => (RETURN, None),
        };
        a.nested(VERDICT, |a| {
            a.be32(CODE, code as u32);
            if let Some(chain) = chain {
                a.text(CHAIN, chain);
            }
        });
    }
}

impl Register {
    /// The register `count` further on.
    pub const fn after(self, count: u8) -> Self {
        Register(self.0 + count)
    }

    /// Its number in messages.
    fn number(self) -> u32 {
        const FIRST_OF_32_BITS: u32 = 8;
        FIRST_OF_32_BITS + u32::from(self.0)
    }
}
