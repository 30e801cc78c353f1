//! The way out for the nodes of one machine: a small table that translates their sources.

use super::rule::{Expression, Register};
use super::table::forward;
use super::transaction::{Hook, Transaction};
use crate::wire::Socket;
use crate::{Cidr, NetworkError, failed};

/// Whose packets leave through here.
pub(crate) struct Outside {
    /// The table's name.
    pub table: String,
    /// The range of the nodes.
    pub from: Cidr,
    /// The addresses that know the way back: translated is only what goes elsewhere.
    pub inside: Cidr,
}

/// Makes the table, or writes it anew.
pub(crate) fn open(outside: &Outside) -> Result<(), NetworkError> {
    const CHAIN: &str = "postrouting";
    let socket = Socket::netfilter().map_err(failed("open a netlink socket"))?;
    let comment = forward(&socket, &outside.table)?;
    let mut transaction = Transaction::new(&outside.table);
    transaction.table(&comment);
    transaction.chain(CHAIN, Some(&Hook { kind: "nat", number: 4, priority: 100 }));
    transaction.empty_chain(CHAIN);
    transaction.rule(CHAIN, &rule(outside));
    transaction.commit(&socket)
}

fn rule(outside: &Outside) -> Vec<Expression> {
    const AT: Register = Register(0);
    let mut rule = vec![Expression::source(AT)];
    rule.extend(Expression::within(outside.from, true, AT));
    for range in [outside.from, outside.inside] {
        rule.push(Expression::destination(AT));
        rule.extend(Expression::within(range, false, AT));
    }
    rule.push(Expression::Masquerade);
    rule
}
