//! Whether the kernel takes rules such as ours: for the check before anything starts.

use super::difference::{Served, difference, normal};
use super::transaction::Transaction;
use super::{Place, table};
use crate::preflight::cause;
use crate::wire::Socket;
use crate::{Cidr, Protocol, ServicePort};

/// Writes a table with every kind of rule into the calling thread's network namespace, to be thrown away with it.
pub(crate) fn try_rules() -> Result<(), String> {
    let socket = Socket::netfilter().map_err(|error| error.to_string())?;
    let range = |address: [u8; 4]| Cidr::new(address.into(), 24).ok_or("24 bits are a prefix");
    let place = Place {
        table: format!("{}trial", table::TABLE_PREFIX),
        pods: range([192, 0, 2, 0])?,
        cluster: range([192, 0, 2, 0])?,
        services: range([198, 51, 100, 0])?,
        node: [203, 0, 113, 1].into(),
    };
    let ports = normal(vec![one_of_each()]);
    let (change, _) = difference(&Served::default(), &ports, place.services);
    let mut transaction = Transaction::new(&place.table);
    table::write_fixed(&mut transaction, &place, "trial");
    table::write_change(&mut transaction, &place, &change);
    transaction.commit(&socket).map_err(|error| cause(&error))
}

fn one_of_each() -> ServicePort {
    ServicePort {
        name: "trial/trial:trial".to_owned(),
        protocol: Protocol::Tcp,
        addresses: vec![[198, 51, 100, 1].into(), [203, 0, 113, 9].into()],
        port: 80,
        node_port: 30080,
        affinity_seconds: Some(60),
        endpoints: vec![([192, 0, 2, 1], 80).into(), ([192, 0, 2, 2], 80).into()],
        external_endpoints: vec![([192, 0, 2, 1], 80).into()],
        keep_source: true,
    }
}
