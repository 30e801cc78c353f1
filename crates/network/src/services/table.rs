//! A cluster's table of packet rules in the kernel: its fixed part, what fills it, and its end.
//!
//! Tables of others are never touched; ours are known by their name. The comment of each of our tables remembers
//! whether the machine forwarded packets before the first of them was made, so the last one can restore it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::{fs, io};

use super::Place;
use super::difference::Change;
use super::program::{
    AFFINITY, Chain, ENDPOINTS, Entry, MANNERS, MEMBERS, REFUSED, Reached, SERVICES, dispatch, is_refused,
    take_mark,
};
use super::rule::{Expression, Meta, NEW, Register, TRANSLATED, TRANSLATED_DESTINATION, Tracked, Verdict};
use super::transaction::{Hook, IPV4, Kind, NFTABLES, SetData, SetShape, Transaction, header};
use crate::kernel::pod_addresses;
use crate::wire::{Batch, DUMP, Socket, attribute, text};
use crate::{NetworkError, failed};

/// How all our tables' names begin.
pub(crate) const TABLE_PREFIX: &str = "kintsugi-";
/// The switch for forwarding, of the network namespace of whoever opens it.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// The most clients that stay with their endpoints, over all Services of a node: 30 MB of the kernel's memory.
/// Beyond it new clients are served, but do not stay.
const STAYING_CLIENTS_MAX: u32 = 262_144;
/// (source, destination) of pods that reach themselves.
const SELVES: &str = "selves";

const ADDRESS_PROTOCOL_PORT: &[Kind] = &[Kind::Address, Kind::Protocol, Kind::Port];
const ADDRESS_PORT: &[Kind] = &[Kind::Address, Kind::Port];

const SETS: &[SetShape] = &[
    SetShape {
        name: SERVICES,
        key: ADDRESS_PROTOCOL_PORT,
        data: SetData::Values(&[Kind::Number, Kind::Number, Kind::Number, Kind::Number]),
        dynamic_max: None,
    },
    SetShape {
        name: ENDPOINTS,
        key: &[Kind::Number, Kind::Number, Kind::Number],
        data: SetData::Values(ADDRESS_PORT),
        dynamic_max: None,
    },
    SetShape {
        name: MEMBERS,
        key: &[Kind::Address, Kind::Port, Kind::Number, Kind::Number],
        data: SetData::None,
        dynamic_max: None,
    },
    SetShape {
        name: AFFINITY,
        key: &[Kind::Number, Kind::Number, Kind::Address],
        data: SetData::Values(ADDRESS_PORT),
        dynamic_max: Some(STAYING_CLIENTS_MAX),
    },
    SetShape { name: REFUSED, key: ADDRESS_PROTOCOL_PORT, data: SetData::None, dynamic_max: None },
    SetShape { name: MANNERS, key: &[Kind::Number, Kind::Number], data: SetData::Verdict, dynamic_max: None },
    SetShape { name: SELVES, key: &[Kind::Address, Kind::Address], data: SetData::None, dynamic_max: None },
];

/// The sets that Services fill.
const FILLED: &[&str] = &[SERVICES, ENDPOINTS, MEMBERS, REFUSED, MANNERS];

/// A chain that is always there.
struct FixedChain {
    name: &'static str,
    hook: Option<Hook>,
    rules: fn(&Place) -> Vec<Vec<Expression>>,
}

const fn nat(number: u32, priority: i32) -> Option<Hook> {
    Some(Hook { kind: "nat", number, priority })
}

const fn filter(number: u32) -> Option<Hook> {
    Some(Hook { kind: "filter", number, priority: 0 })
}

/// Chains led to stand before those that lead to them.
const CHAINS: &[FixedChain] = &[
    FixedChain { name: "dispatch", hook: None, rules: dispatch_rules },
    FixedChain { name: "refuse", hook: None, rules: refuse_rules },
    FixedChain { name: "reject", hook: None, rules: reject_rules },
    FixedChain { name: "prerouting", hook: nat(0, -100), rules: |_| vec![jump("dispatch")] },
    FixedChain { name: "output", hook: nat(3, -100), rules: |_| vec![jump("dispatch")] },
    FixedChain { name: "postrouting", hook: nat(4, 100), rules: postrouting_rules },
    FixedChain { name: "to-us", hook: filter(1), rules: to_us_rules },
    FixedChain { name: "through-us", hook: filter(2), rules: |_| vec![jump("refuse")] },
    FixedChain { name: "from-us", hook: filter(3), rules: |_| vec![jump("refuse")] },
];

const AT: Register = Register(12);

fn jump(chain: &str) -> Vec<Expression> {
    vec![Expression::Verdict(Verdict::Jump(chain.to_owned()))]
}

fn goto(mut rule: Vec<Expression>, chain: &str) -> Vec<Expression> {
    rule.push(Expression::Verdict(Verdict::Goto(chain.to_owned())));
    rule
}

/// Each is tried twice: older kernels may find neither the old nor the new entry at the moment of a change.
fn dispatch_rules(_: &Place) -> Vec<Vec<Expression>> {
    [Reached::Address, Reached::Node]
        .into_iter()
        .flat_map(|reached| [dispatch(reached), dispatch(reached)])
        .collect()
}

/// What goes to a virtual address and was not translated has nobody to answer it.
fn refuse_rules(place: &Place) -> Vec<Vec<Expression>> {
    let mut unknown = is_new();
    unknown.push(Expression::destination(AT));
    unknown.extend(Expression::within(place.services, true, AT));
    vec![
        goto([is_new(), is_refused(Reached::Address)].concat(), "reject"),
        goto([is_new(), is_refused(Reached::Node)].concat(), "reject"),
        goto(unknown, "reject"),
    ]
}

fn reject_rules(_: &Place) -> Vec<Vec<Expression>> {
    let tcp = vec![
        Expression::Meta { key: Meta::Protocol, to: AT },
        Expression::Compare { equal: true, value: vec![6], at: AT },
        Expression::Reset,
    ];
    vec![tcp, vec![Expression::Unreachable]]
}

fn is_new() -> Vec<Expression> {
    let mut rule = vec![Expression::Tracked { key: Tracked::State, to: AT }];
    rule.extend(Expression::any_bit(NEW, true, AT));
    rule
}

/// Packets from elsewhere to the loopback's addresses are refused unless we translated them: links of pods let such
/// packets in, for the sake of node ports reached at 127.0.0.1.
fn to_us_rules(_: &Place) -> Vec<Vec<Expression>> {
    const LOOPBACK: u32 = 1;
    let loopback = crate::Cidr::new(Ipv4Addr::LOCALHOST, 8).unwrap_or(crate::Cidr::host(Ipv4Addr::LOCALHOST));
    let mut forged = vec![
        Expression::Meta { key: Meta::InLink, to: AT },
        Expression::Compare { equal: false, value: LOOPBACK.to_ne_bytes().to_vec(), at: AT },
        Expression::destination(AT),
    ];
    forged.extend(Expression::within(loopback, true, AT));
    forged.push(Expression::Tracked { key: Tracked::Status, to: AT });
    forged.extend(Expression::any_bit(TRANSLATED, false, AT));
    forged.push(Expression::Verdict(Verdict::Drop));
    vec![forged, jump("refuse")]
}

/// Whose source is translated: what was marked, pods that reach themselves, pods that leave the cluster.
fn postrouting_rules(place: &Place) -> Vec<Vec<Expression>> {
    let as_node = |mut rule: Vec<Expression>| {
        rule.extend([Expression::address(place.node, AT), Expression::Source { address: AT }]);
        rule
    };
    let to_cluster = |is| {
        let mut rule = vec![Expression::destination(AT)];
        rule.extend(Expression::within(place.cluster, is, AT));
        rule
    };
    // The node's own connections keep their ports. Under another, chosen at random, a pod could take one for an old packet
    // of a connection that it has just closed: each connection counts time from a start of its own, by address and port.
    let mut own = vec![Expression::source(AT)];
    own.extend(Expression::within(crate::Cidr::host(place.node), true, AT));
    own.extend([to_cluster(true), take_mark()].concat());
    own.push(Expression::Verdict(Verdict::Return));
    let marked_inside = as_node([to_cluster(true), take_mark()].concat());
    let mut marked = take_mark();
    marked.push(Expression::Masquerade);
    let mut leaving = vec![Expression::source(AT)];
    leaving.extend(Expression::within(place.pods, true, AT));
    leaving.extend(to_cluster(false));
    leaving.push(Expression::Masquerade);
    vec![own, marked_inside, marked, as_node(reaches_itself()), leaving]
}

fn reaches_itself() -> Vec<Expression> {
    let mut rule = vec![Expression::Tracked { key: Tracked::Status, to: AT }];
    rule.extend(Expression::any_bit(TRANSLATED_DESTINATION, true, AT));
    rule.extend([
        Expression::source(AT),
        Expression::destination(AT.after(1)),
        Expression::Lookup { set: SELVES, key: AT, to: None },
    ]);
    rule
}

/// Writes the fixed part: what is there stays, its rules are written anew.
pub(super) fn write_fixed(transaction: &mut Transaction<'_>, place: &Place, comment: &str) {
    transaction.table(comment);
    SETS.iter().for_each(|set| transaction.set(set));
    for chain in CHAINS {
        transaction.chain(chain.name, chain.hook.as_ref());
        transaction.empty_chain(chain.name);
    }
    for chain in CHAINS {
        (chain.rules)(place).iter().for_each(|rule| transaction.rule(chain.name, rule));
    }
    transaction.empty_set(SELVES);
    let selves = pod_addresses(place.pods).map(|address| Entry {
        set: SELVES,
        key: [address.octets(), address.octets()].concat(),
        data: Vec::new(),
    });
    transaction.add(&selves.collect::<Vec<_>>());
}

/// Writes what packets are to be led to, before anything leads there.
pub(super) fn write_ahead(transaction: &mut Transaction<'_>, place: &Place, change: &Change) {
    for chain in &change.chains_added {
        transaction.chain(&chain.name(), None);
        write_rules(transaction, place, *chain);
    }
    for manner in &change.manners_added {
        transaction.lead(MANNERS, &manner.key(), &Chain::Manner(*manner).name());
    }
}

/// Writes the rest of a change.
pub(super) fn write_change(transaction: &mut Transaction<'_>, change: &Change) {
    transaction.remove(&change.removed);
    transaction.add(&change.added);
    change.manners_removed.iter().for_each(|manner| transaction.unlead(MANNERS, &manner.key()));
    change.chains_removed.iter().for_each(|chain| transaction.remove_chain(&chain.name()));
}

/// Writes over all that Services filled in, except the memory of who stays where. `change` is the one from nothing;
/// the chains it adds are there, `chains` were before.
pub(super) fn write_over(
    transaction: &mut Transaction<'_>,
    place: &Place,
    change: &Change,
    chains: &[String],
) {
    FILLED.iter().for_each(|set| transaction.empty_set(set));
    for chain in &change.chains_added {
        // Another run may have filled it for other ranges.
        transaction.empty_chain(&chain.name());
        write_rules(transaction, place, *chain);
    }
    for manner in &change.manners_added {
        transaction.lead(MANNERS, &manner.key(), &Chain::Manner(*manner).name());
    }
    transaction.add(&change.added);
    let kept: BTreeSet<String> = change.chains_added.iter().map(|chain| chain.name()).collect();
    let gone = || chains.iter().filter(|chain| !kept.contains(*chain));
    gone().for_each(|chain| transaction.empty_chain(chain));
    gone().for_each(|chain| transaction.remove_chain(chain));
}

fn write_rules(transaction: &mut Transaction<'_>, place: &Place, chain: Chain) {
    chain.rules(place.cluster).iter().for_each(|rule| transaction.rule(&chain.name(), rule));
}

/// The chains of a table that are not fixed.
pub(super) fn filled_chains(socket: &Socket, table: &str) -> Result<Vec<String>, NetworkError> {
    let found = list(socket, 4, 3, table).map_err(failed("list the chains of packet rules"))?;
    let fixed = |name: &String| CHAINS.iter().any(|chain| chain.name == name);
    Ok(found.into_iter().map(|(name, _)| name).filter(|name| !fixed(name)).collect())
}

/// Our tables, those of all clusters: names and comments.
pub(super) fn tables(socket: &Socket) -> Result<Vec<(String, String)>, NetworkError> {
    let found = list(socket, 1, 1, "").map_err(failed("list the tables of packet rules"))?;
    Ok(found.into_iter().filter(|(name, _)| name.starts_with(TABLE_PREFIX)).collect())
}

/// Lists things of nftables: the attribute `name_at` and the comment of each, of one table if it is named.
fn list(socket: &Socket, message: u16, name_at: u16, table: &str) -> io::Result<Vec<(String, String)>> {
    const TABLE: u16 = 1;
    const TABLE_USER_DATA: u16 = 6;
    let mut batch = Batch::default();
    batch.message((NFTABLES << 8) | message, DUMP, &header(IPV4, 0), |_| {});
    let mut found = Vec::new();
    socket.dump(&batch, |_, body| {
        let Some(body) = body.get(4..) else { return };
        let of_table = table.is_empty() || attribute(body, TABLE).map(text).as_deref() == Some(table);
        if let Some(name) = attribute(body, name_at).filter(|_| of_table) {
            let comment = attribute(body, TABLE_USER_DATA).and_then(|data| data.get(2..)).map(text);
            found.push((text(name), comment.unwrap_or_default()));
        }
    })?;
    Ok(found)
}

/// Lets packets be forwarded; gives the comment for our table, which says whether they were before.
pub(super) fn forward(socket: &Socket, table: &str) -> Result<String, NetworkError> {
    let mut ours = tables(socket)?;
    ours.retain(|(_, comment)| comment.starts_with(FORWARD_WAS));
    let known = ours.iter().find(|(name, _)| name == table).or(ours.first());
    let now = fs::read_to_string(IP_FORWARD).map_err(failed("read whether packets are forwarded"))?;
    let comment =
        known.map_or_else(|| format!("{FORWARD_WAS}{}", now.trim()), |(_, comment)| comment.clone());
    if now.trim() != "1" {
        fs::write(IP_FORWARD, "1").map_err(failed("let packets be forwarded"))?;
    }
    Ok(comment)
}

/// How the comment begins.
const FORWARD_WAS: &str = "ip_forward was ";

/// Removes all tables of the cluster `prefix`. With the last of our tables forwarding is as it was before the first.
pub(crate) fn remove_all(prefix: &str) -> Result<(), NetworkError> {
    let socket = Socket::netfilter().map_err(failed("open a netlink socket"))?;
    let whole = format!("{TABLE_PREFIX}{prefix}");
    let part = format!("{whole}-");
    let all = tables(&socket)?;
    let (ours, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(name, _)| *name == whole || name.starts_with(&part));
    for (name, _) in &ours {
        let mut transaction = Transaction::new(name);
        transaction.table("");
        transaction.remove_table();
        transaction.commit(&socket)?;
    }
    if others.is_empty() && ours.iter().any(|(_, comment)| comment == &format!("{FORWARD_WAS}0")) {
        fs::write(IP_FORWARD, "0").map_err(failed("let packets be forwarded no more"))?;
    }
    Ok(())
}
