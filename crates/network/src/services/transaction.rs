//! Changes of one nftables table, gathered and carried out as one: all of them, or none.

use super::program::Entry;
use super::rule::{Expression, LIST_ELEMENT, VALUE, Verdict};
use crate::wire::{APPEND, Attributes, Batch, CREATE, Socket};
use crate::{NetworkError, failed};

/// The number of nftables among netfilter's parts.
pub(super) const NFTABLES: u16 = 10;
/// IPv4, the only family our tables are of.
pub(super) const IPV4: u8 = 2;
/// How many entries one message holds: a nested attribute is at most 64 KiB, an entry about 60 bytes.
const ENTRIES_PER_MESSAGE: usize = 600;

const NEW_TABLE: u16 = 0;
const REMOVE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const REMOVE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const REMOVE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const NEW_ENTRY: u16 = 12;
const REMOVE_ENTRY: u16 = 14;

/// Where a base chain stands.
pub(crate) struct Hook {
    /// `nat` or `filter`.
    pub kind: &'static str,
    /// Before routing 0, to us 1, through us 2, from us 3, after routing 4.
    pub number: u32,
    /// Earlier or later than others.
    pub priority: i32,
}

/// A set or map to be made.
pub(crate) struct SetShape {
    pub name: &'static str,
    /// The parts of its key, as the kinds that `nft` shows.
    pub key: &'static [Kind],
    pub data: SetData,
    /// Its most entries, and that packets fill it; `None` for one that only we fill.
    pub dynamic_max: Option<u32>,
}

/// What a map leads to.
pub(crate) enum SetData {
    /// Nothing: it is a set.
    None,
    /// Registers.
    Values(&'static [Kind]),
    /// A chain.
    Verdict,
}

/// What a register holds, for those who list the table with `nft`; each takes one register.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Kind {
    Address = 7,
    Protocol = 12,
    Port = 13,
    Number = 19,
}

impl Kind {
    fn all(kinds: &[Kind]) -> u32 {
        const BITS_PER_KIND: u32 = 6;
        kinds.iter().fold(0, |all, kind| (all << BITS_PER_KIND) | *kind as u32)
    }
}

/// Changes to a table, in order.
pub(crate) struct Transaction<'a> {
    table: &'a str,
    batch: Batch,
}

impl<'a> Transaction<'a> {
    /// No changes yet to the table of that name.
    pub fn new(table: &'a str) -> Self {
        let mut batch = Batch::default();
        batch.message(libc::NFNL_MSG_BATCH_BEGIN as u16, 0, &header(0, NFTABLES), |_| {});
        Self { table, batch }
    }

    /// Carries out all changes.
    pub fn commit(mut self, socket: &Socket) -> Result<(), NetworkError> {
        // Every kernel acknowledges the last change; acknowledging the end itself is newer.
        self.batch.acknowledge_last();
        let last = self.batch.count();
        self.batch.message(libc::NFNL_MSG_BATCH_END as u16, 0, &header(0, NFTABLES), |_| {});
        let doing = || format!("change the packet rules {}", self.table);
        socket.transact(&self.batch, last).map_err(failed(doing()))?.map_err(failed(doing()))
    }

    fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let table = self.table;
        self.batch.message((NFTABLES << 8) | kind, flags, &header(IPV4, 0), |a| {
            a.text(1, table);
            fill(a);
        });
    }

    /// Makes the table if it is missing, with a comment that stays as it was if it is there.
    pub fn table(&mut self, comment: &str) {
        const USER_DATA: u16 = 6;
        let data = [&[0, comment.len() as u8 + 1], comment.as_bytes(), &[0]].concat();
        self.message(NEW_TABLE, CREATE, |a| {
            a.put(USER_DATA, &data);
        });
    }

    /// Removes the table with all that is in it.
    pub fn remove_table(&mut self) {
        self.message(REMOVE_TABLE, 0, |_| {});
    }

    /// Makes a chain if it is missing, at a hook or for others to lead to.
    pub fn chain(&mut self, name: &str, hook: Option<&Hook>) {
        self.message(NEW_CHAIN, CREATE, |a| {
            a.text(3, name);
            if let Some(hook) = hook {
                a.nested(4, |a| {
                    a.be32(1, hook.number).be32(2, hook.priority as u32);
                });
                a.text(7, hook.kind);
            }
        });
    }

    /// Removes a chain and its rules.
    pub fn remove_chain(&mut self, name: &str) {
        self.message(REMOVE_CHAIN, 0, |a| {
            a.text(3, name);
        });
    }

    /// Appends a rule to a chain.
    pub fn rule(&mut self, chain: &str, rule: &[Expression]) {
        self.message(NEW_RULE, CREATE | APPEND, |a| {
            a.text(2, chain).nested(4, |a| rule.iter().for_each(|expression| expression.write(a)));
        });
    }

    /// Removes all rules of a chain.
    pub fn empty_chain(&mut self, name: &str) {
        self.message(REMOVE_RULE, 0, |a| {
            a.text(2, name);
        });
    }

    /// Makes a set or map if it is missing. No size is set on those we fill: it would be a limit for good.
    pub fn set(&mut self, shape: &SetShape) {
        const MAP: u32 = 8;
        const TIMEOUT_AND_PACKETS: u32 = 0x10 | 0x20;
        const VERDICT_TYPE: u32 = 0xffff_ff00;
        const REGISTER_LEN: u32 = 4;
        let map = if matches!(shape.data, SetData::None) { 0 } else { MAP };
        let dynamic = if shape.dynamic_max.is_some() { TIMEOUT_AND_PACKETS } else { 0 };
        let number = self.batch.count();
        self.message(NEW_SET, CREATE, |a| {
            a.text(2, shape.name).be32(3, map | dynamic);
            a.be32(4, Kind::all(shape.key)).be32(5, shape.key.len() as u32 * REGISTER_LEN);
            match shape.data {
                SetData::None => {}
                SetData::Values(kinds) => {
                    a.be32(6, Kind::all(kinds)).be32(7, kinds.len() as u32 * REGISTER_LEN);
                }
                SetData::Verdict => {
                    a.be32(6, VERDICT_TYPE);
                }
            }
            if let Some(max) = shape.dynamic_max {
                a.nested(9, |a| {
                    a.be32(1, max);
                });
            }
            a.be32(10, number);
        });
    }

    /// Removes all entries of a set.
    pub fn empty_set(&mut self, name: &str) {
        self.message(REMOVE_ENTRY, 0, |a| {
            a.text(2, name);
        });
    }

    /// Adds entries, those of one set next to each other.
    pub fn add(&mut self, entries: &[Entry]) {
        self.entries(NEW_ENTRY, CREATE, entries, |a, entry| {
            if !entry.data.is_empty() {
                value(a, 2, &entry.data);
            }
        });
    }

    /// Removes entries; one that is missing fails the whole change.
    pub fn remove(&mut self, entries: &[Entry]) {
        self.entries(REMOVE_ENTRY, 0, entries, |_, _| {});
    }

    fn entries(&mut self, kind: u16, flags: u16, all: &[Entry], data: impl Fn(&mut Attributes<'_>, &Entry)) {
        let runs = all.chunk_by(|a, b| a.set == b.set).flat_map(|run| run.chunks(ENTRIES_PER_MESSAGE));
        for run in runs {
            self.message(kind, flags, |a| {
                a.text(2, run[0].set).nested(3, |a| {
                    for entry in run {
                        a.nested(LIST_ELEMENT, |a| {
                            value(a, 1, &entry.key);
                            data(a, entry);
                        });
                    }
                });
            });
        }
    }

    /// Adds an entry that leads to a chain.
    pub fn lead(&mut self, set: &str, key: &[u8], chain: &str) {
        self.lead_by(set, key, &Verdict::Goto(chain.to_owned()));
    }

    /// Adds an entry that leads to a chain, and back.
    pub fn call(&mut self, set: &str, key: &[u8], chain: &str) {
        self.lead_by(set, key, &Verdict::Jump(chain.to_owned()));
    }

    fn lead_by(&mut self, set: &str, key: &[u8], verdict: &Verdict) {
        self.message(NEW_ENTRY, CREATE, |a| {
            a.text(2, set).nested(3, |a| {
                a.nested(LIST_ELEMENT, |a| {
                    value(a, 1, key);
                    a.nested(2, |a| verdict.write(a));
                });
            });
        });
    }

    /// Removes an entry that leads to a chain.
    pub fn unlead(&mut self, set: &'static str, key: &[u8]) {
        self.message(REMOVE_ENTRY, 0, |a| {
            a.text(2, set).nested(3, |a| {
                a.nested(LIST_ELEMENT, |a| value(a, 1, key));
            });
        });
    }
}

fn value(a: &mut Attributes<'_>, kind: u16, bytes: &[u8]) {
    a.nested(kind, |a| {
        a.put(VALUE, bytes);
    });
}

/// Netfilter's own header: the family and, for the bounds of a transaction, the part it is for.
pub(super) fn header(family: u8, part: u16) -> [u8; 4] {
    let [high, low] = part.to_be_bytes();
    [family, 0, high, low]
}
