//! What the kernel is told: one table, written anew as a whole by each change, in one transaction.
//!
//! Packets of known connections pass. Others are led by the sender's address to what it may send, and by the
//! receiver's address to what it may receive; who is in neither map is not held back. A chain holds one list of what
//! is allowed, whoever shares it, and drops the rest. Whom a rule means is a group of addresses in one set.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::links::hash64;
use crate::services::program::Entry;
use crate::services::rule::{Expression, Meta, Register, Tracked, Verdict};
use crate::services::transaction::{Hook, Kind, SetData, SetShape, Transaction};
use crate::{Allowed, Peer, PolicyRules, PortSpan};

/// (group, address).
const GROUPS: &str = "groups";
/// sender → what it may send.
const OUTGOING: &str = "outgoing";
/// receiver → what it may receive.
const INCOMING: &str = "incoming";
/// (address, address) of those that are held back: nobody is kept from itself.
const SELVES: &str = "selves";

const SETS: [SetShape; 4] = [
    SetShape {
        name: GROUPS,
        key: &[Kind::Number, Kind::Number, Kind::Address],
        data: SetData::None,
        dynamic_max: None,
    },
    SetShape { name: OUTGOING, key: &[Kind::Address], data: SetData::Verdict, dynamic_max: None },
    SetShape { name: INCOMING, key: &[Kind::Address], data: SetData::Verdict, dynamic_max: None },
    SetShape { name: SELVES, key: &[Kind::Address, Kind::Address], data: SetData::None, dynamic_max: None },
];

/// Where packets that pass through the node are looked at: after the rules of Services have had their say.
const THROUGH: Hook = Hook { kind: "filter", number: 2, priority: 10 };
/// A connection that is established, or belongs to one that is, as bits of its state.
const KNOWN: u32 = 2 | 4;
/// Where a rule loads what it looks at; a group's two numbers come right before the address.
const GROUP: Register = Register(0);
const ADDRESS: Register = GROUP.after(2);
const AT: Register = Register(8);

/// Which end of a connection a list is about.
#[derive(Clone, Copy)]
enum Side {
    Incoming,
    Outgoing,
}

/// The change that makes the table say these rules; without any the table goes.
pub(super) fn write<'a>(table: &'a str, rules: &PolicyRules) -> Transaction<'a> {
    let mut change = Transaction::new(table);
    change.table("");
    change.remove_table();
    if rules.incoming.is_empty() && rules.outgoing.is_empty() {
        return change;
    }
    change.table("");
    SETS.iter().for_each(|set| change.set(set));
    let (incoming, outgoing) = (chains(&rules.incoming), chains(&rules.outgoing));
    for (side, chains) in [(Side::Incoming, &incoming), (Side::Outgoing, &outgoing)] {
        for (name, allowed) in chains {
            let name = side.chain(*name);
            change.chain(&name, None);
            allowed.iter().flat_map(|one| side.rules(one)).for_each(|rule| change.rule(&name, &rule));
            change.rule(&name, &[Expression::Verdict(Verdict::Drop)]);
        }
    }
    change.chain("through", Some(&THROUGH));
    fixed_rules().iter().for_each(|rule| change.rule("through", rule));
    change.add(&entries(rules));
    for (side, map, all) in
        [(Side::Incoming, INCOMING, &rules.incoming), (Side::Outgoing, OUTGOING, &rules.outgoing)]
    {
        for (address, allowed) in all {
            change.call(map, &address.octets(), &side.chain(number(allowed)));
        }
    }
    change
}

/// The different lists of what is allowed, by their number.
fn chains(all: &BTreeMap<Ipv4Addr, Vec<Allowed>>) -> BTreeMap<u64, &Vec<Allowed>> {
    all.values().map(|allowed| (number(allowed), allowed)).collect()
}

/// The 64 bits that stand for a list: so many that two lists of one node never meet.
fn number(allowed: &[Allowed]) -> u64 {
    hash64(format!("{allowed:?}").as_bytes())
}

fn fixed_rules() -> Vec<Vec<Expression>> {
    let pass = Expression::Verdict(Verdict::Return);
    let mut known = vec![Expression::Tracked { key: Tracked::State, to: AT }];
    known.extend(Expression::any_bit(KNOWN, true, AT));
    known.push(pass.clone());
    let itself = vec![
        Expression::source(AT),
        Expression::destination(AT.after(1)),
        Expression::Lookup { set: SELVES, key: AT, to: None },
        pass,
    ];
    let sends = vec![Expression::source(AT), Expression::Follow { set: OUTGOING, key: AT }];
    let receives = vec![Expression::destination(AT), Expression::Follow { set: INCOMING, key: AT }];
    vec![known, itself, sends, receives]
}

fn entries(rules: &PolicyRules) -> Vec<Entry> {
    let groups = rules.groups.iter().flat_map(|(name, addresses)| {
        let id = hash64(name.as_bytes()).to_ne_bytes();
        addresses.iter().map(move |address| Entry {
            set: GROUPS,
            key: [&id[..], &address.octets()].concat(),
            data: Vec::new(),
        })
    });
    let mut held: Vec<_> = rules.incoming.keys().chain(rules.outgoing.keys()).collect();
    held.sort_unstable();
    held.dedup();
    let selves = held.into_iter().map(|address| Entry {
        set: SELVES,
        key: [address.octets(), address.octets()].concat(),
        data: Vec::new(),
    });
    groups.chain(selves).collect()
}

impl Side {
    fn chain(self, number: u64) -> String {
        match self {
            Side::Incoming => format!("receive-{number:016x}"),
            Side::Outgoing => format!("send-{number:016x}"),
        }
    }

    /// The rules that let through what is allowed: one, or one for each of its ports.
    fn rules(self, allowed: &Allowed) -> Vec<Vec<Expression>> {
        let peer = self.peer(&allowed.peer);
        let pass = || vec![Expression::Verdict(Verdict::Return)];
        match &allowed.ports {
            None => vec![[peer, pass()].concat()],
            Some(ports) => ports.iter().map(|port| [peer.clone(), to(port), pass()].concat()).collect(),
        }
    }

    /// Goes on if the other end is meant.
    fn peer(self, peer: &Peer) -> Vec<Expression> {
        let other = |to| match self {
            Side::Incoming => Expression::source(to),
            Side::Outgoing => Expression::destination(to),
        };
        match peer {
            Peer::Anyone => Vec::new(),
            Peer::Group(name) => {
                let id = hash64(name.as_bytes()).to_ne_bytes().to_vec();
                vec![
                    Expression::Constant { value: id, to: GROUP },
                    other(ADDRESS),
                    Expression::Lookup { set: GROUPS, key: GROUP, to: None },
                ]
            }
            Peer::Range { range, except } => {
                let mut rule = vec![other(AT)];
                rule.extend(Expression::within(*range, true, AT));
                for hole in except {
                    rule.push(other(AT));
                    rule.extend(Expression::within(*hole, false, AT));
                }
                rule
            }
        }
    }
}

/// Goes on if the packet goes to one of these ports.
fn to(ports: &PortSpan) -> Vec<Expression> {
    let mut rule = vec![
        Expression::Meta { key: Meta::Protocol, to: AT },
        Expression::Compare { equal: true, value: vec![ports.protocol.number()], at: AT },
    ];
    if (ports.first, ports.last) == (0, u16::MAX) {
        return rule;
    }
    let (first, last) = (ports.first.to_be_bytes().to_vec(), ports.last.to_be_bytes().to_vec());
    rule.push(Expression::DestinationPort { to: AT });
    rule.push(match first == last {
        true => Expression::Compare { equal: true, value: first, at: AT },
        false => Expression::Between { first, last, at: AT },
    });
    rule
}
