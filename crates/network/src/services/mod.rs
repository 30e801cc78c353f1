//! Services as packet rules: decided in `program` and `difference`, carried out here.
//!
//! [`Packets`] owns a cluster's table in the kernel. It promises that a change is whole or not at all, that it is
//! found from what was applied last, and that what the kernel refuses is written anew from nothing.

pub(crate) mod cut;
mod decide;
mod difference;
pub(crate) mod outside;
pub(crate) mod program;
pub(crate) mod rule;
pub(crate) mod table;
mod tracked;
pub(crate) mod transaction;
pub(crate) mod trial;
pub(crate) mod view;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

pub use decide::{rules, service_ports};
use difference::{Change, Served, difference, host_port, led_to, normal};
use program::ServiceKey;
use transaction::Transaction;

use crate::wire::Socket;
use crate::{Cidr, HostPort, NetworkError, ServicePort, ServiceRules, failed};

/// Where the rules are and which ranges they tell apart.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The table's name.
    pub table: String,
    /// The range of this node's pods.
    pub pods: Cidr,
    /// The range of all pods.
    pub cluster: Cidr,
    /// The range of virtual addresses.
    pub services: Cidr,
    /// The node's address.
    pub node: Ipv4Addr,
}

/// The packet rules of one cluster on one node.
pub(crate) struct Packets {
    place: Place,
    socket: Socket,
    comment: String,
    /// What the kernel has; `None` when that is not known and all has to be written.
    served: Option<Served>,
    /// Whether `serve` was called: until then what an earlier process left keeps serving.
    is_told: bool,
    host_ports: Vec<ServicePort>,
    left: Left,
}

/// Where TCP connections may lead that nobody answers: at which keys to look for them.
#[derive(Debug, Default, PartialEq, Eq)]
enum Left {
    #[default]
    Nowhere,
    /// At these.
    At(BTreeSet<ServiceKey>),
    /// At all virtual addresses: what was served before is not known.
    Anywhere,
}

impl Packets {
    /// Makes the table's fixed part. What an earlier process filled in stays and serves on.
    pub fn open(place: Place) -> Result<Self, NetworkError> {
        let socket = Socket::netfilter().map_err(failed("open a netlink socket"))?;
        let is_fresh = !table::tables(&socket)?.iter().any(|(name, _)| *name == place.table);
        let comment = table::forward(&socket, &place.table)?;
        let mut packets = Self {
            place,
            socket,
            comment,
            served: None,
            is_told: false,
            host_ports: Vec::new(),
            left: Left::Nowhere,
        };
        let is_kept = packets.transact(|packets, transaction| {
            table::write_fixed(transaction, &packets.place, &packets.comment);
        });
        if is_kept.is_err() {
            // The table is another version's.
            packets.transact(|packets, transaction| packets.write_anew(transaction))?;
        }
        if is_fresh || is_kept.is_err() {
            packets.served = Some(Served::default());
        }
        Ok(packets)
    }

    /// Makes the rules be these and those of the host ports.
    pub fn serve(&mut self, rules: ServiceRules) -> Result<(), NetworkError> {
        self.is_told = true;
        let mut ports = rules.ports;
        ports.extend(self.host_ports.iter().cloned());
        self.apply(normal(ports))
    }

    /// Makes the host ports be these: the pod's uid, its address, the port.
    pub fn set_host_ports(&mut self, ports: Vec<(String, Ipv4Addr, HostPort)>) -> Result<(), NetworkError> {
        let before = std::mem::take(&mut self.host_ports);
        self.host_ports = ports.iter().map(|(uid, pod, port)| host_port(uid, *pod, port)).collect();
        // What an earlier process left has them, or the first `serve` will.
        let is_left = self.served.is_none() && !self.is_told;
        if is_left || (before == self.host_ports && self.served.is_some()) {
            return Ok(());
        }
        let served = self.served.as_ref().map(|served| served.ports.clone()).unwrap_or_default();
        let mut ports: Vec<_> = served.into_iter().filter(|port| !port.name.starts_with('~')).collect();
        ports.extend(self.host_ports.iter().cloned());
        self.apply(normal(ports))
    }

    fn apply(&mut self, ports: Vec<ServicePort>) -> Result<(), NetworkError> {
        let Some(served) = &self.served else { return self.write_all(ports) };
        let (change, manners) = difference(served, &ports, self.place.services);
        if !change.is_empty() {
            if let Err(error) = self.carry_out(&change) {
                tracing::warn!(%error, "packet rules are not as they were left: writing them anew");
                return self.write_all(ports);
            }
            self.forget_connections(&change, false);
        }
        self.served = Some(Served { ports, manners });
        Ok(())
    }

    fn carry_out(&self, change: &Change) -> Result<(), NetworkError> {
        if !change.chains_added.is_empty() || !change.manners_added.is_empty() {
            self.transact(|packets, transaction| table::write_ahead(transaction, &packets.place, change))?;
        }
        self.transact(|_, transaction| table::write_change(transaction, change))
    }

    /// Writes everything: over what is there, so that clients stay where they are; or else from nothing.
    fn write_all(&mut self, ports: Vec<ServicePort>) -> Result<(), NetworkError> {
        self.served = None;
        let (change, manners) = difference(&Served::default(), &ports, self.place.services);
        if let Err(error) = self.write_over(&change) {
            tracing::warn!(%error, "packet rules cannot be overwritten: removing them first");
            self.transact(|packets, transaction| {
                packets.write_anew(transaction);
                table::write_ahead(transaction, &packets.place, &change);
                table::write_change(transaction, &change);
            })?;
        }
        self.forget_connections(&change, true);
        self.served = Some(Served { ports, manners });
        Ok(())
    }

    fn write_over(&self, change: &Change) -> Result<(), NetworkError> {
        let chains = table::filled_chains(&self.socket, &self.place.table)?;
        let mut missing = Change { manners_added: change.manners_added.clone(), ..Change::default() };
        missing.chains_added = change.chains_added.clone();
        missing.chains_added.retain(|chain| !chains.contains(&chain.name()));
        self.transact(|packets, transaction| table::write_ahead(transaction, &packets.place, &missing))?;
        self.transact(|packets, transaction| {
            table::write_fixed(transaction, &packets.place, &packets.comment);
            table::write_over(transaction, &packets.place, change, &chains);
        })
    }

    fn write_anew(&self, transaction: &mut Transaction<'_>) {
        transaction.table(&self.comment);
        transaction.remove_table();
        table::write_fixed(transaction, &self.place, &self.comment);
    }

    fn transact(&self, write: impl FnOnce(&Self, &mut Transaction<'_>)) -> Result<(), NetworkError> {
        let mut transaction = Transaction::new(&self.place.table);
        write(self, &mut transaction);
        transaction.commit(&self.socket)
    }

    /// UDP has no end of a connection: those that lead to endpoints no longer served are forgotten. The rules are
    /// right already, so a failure costs a client a timeout and is only told.
    fn forget_connections(&mut self, change: &Change, is_all: bool) {
        self.note_left(change, is_all);
        if change.udp.is_empty() && !is_all {
            return;
        }
        let services = is_all.then_some(self.place.services);
        if let Err(error) = tracked::forget(&self.socket, &change.udp, services) {
            tracing::warn!(%error, "connections to removed endpoints are not forgotten");
        }
    }

    fn note_left(&mut self, change: &Change, is_all: bool) {
        match &mut self.left {
            left if is_all => *left = Left::Anywhere,
            Left::At(keys) => keys.extend(&change.tcp),
            left @ Left::Nowhere if !change.tcp.is_empty() => *left = Left::At(change.tcp.clone()),
            Left::Nowhere | Left::Anywhere => {}
        }
    }

    /// Whether [`Self::forget_unanswered`] has something to look for.
    pub fn has_left(&self) -> bool {
        self.left != Left::Nowhere
    }

    /// Forgets TCP connections that nobody has answered and that lead to endpoints no longer served: the client's next
    /// attempt, which its kernel makes by itself, is led to one that is. To be called when those that were being answered
    /// at the moment of the change have been.
    pub fn forget_unanswered(&mut self) {
        let Some(served) = &self.served else { return };
        let (of, services) = match std::mem::take(&mut self.left) {
            Left::Nowhere => return,
            Left::At(keys) => (Some(keys), None),
            Left::Anywhere => (None, Some(self.place.services)),
        };
        match tracked::forget_unanswered(&self.socket, &led_to(&served.ports, of.as_ref()), services) {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "connections that nobody answers are led elsewhere"),
            Err(error) => tracing::warn!(%error, "connections that nobody answers are not led elsewhere"),
        }
    }
}
