//! A cut cable: a table that drops whatever comes in by one link.
//!
//! Dropping on the way in, at both ends, is what nobody notices: on the way out the sender would be told.

use super::rule::{Expression, Meta, Register, Verdict};
use super::transaction::{Hook, Transaction};
use crate::wire::Socket;
use crate::{NetworkError, failed};

/// Drops what comes in by this link of the calling thread's namespace, until the table is gone.
pub(crate) fn cut(table: &str, link: u32) -> Result<(), NetworkError> {
    const CHAIN: &str = "prerouting";
    const BEFORE_ALL: i32 = -400;
    const AT: Register = Register(0);
    let mut transaction = Transaction::new(table);
    transaction.table("");
    transaction.chain(CHAIN, Some(&Hook { kind: "filter", number: 0, priority: BEFORE_ALL }));
    transaction.empty_chain(CHAIN);
    transaction.rule(
        CHAIN,
        &[
            Expression::Meta { key: Meta::InLink, to: AT },
            Expression::Compare { equal: true, value: link.to_ne_bytes().to_vec(), at: AT },
            Expression::Verdict(Verdict::Drop),
        ],
    );
    commit(transaction)
}

/// Removes the table; gone already is as good.
pub(crate) fn mend(table: &str) -> Result<(), NetworkError> {
    let mut transaction = Transaction::new(table);
    transaction.table("");
    transaction.remove_table();
    commit(transaction)
}

fn commit(transaction: Transaction<'_>) -> Result<(), NetworkError> {
    transaction.commit(&Socket::netfilter().map_err(failed("open a netlink socket"))?)
}
