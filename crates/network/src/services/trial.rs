//! Whether the kernel takes rules such as ours: for the check before anything starts.

use std::collections::BTreeMap;

use super::difference::{Served, difference, normal};
use super::transaction::{IPV4, NFTABLES, Transaction, header};
use super::{Place, table, tracked};
use crate::preflight::cause;
use crate::wire::{Batch, DUMP, Socket, attribute, text};
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
    table::write_ahead(&mut transaction, &place, &change);
    table::write_change(&mut transaction, &change);
    transaction.commit(&socket).map_err(|error| cause(&error))
}

/// Lists tracked connections, as is done when endpoints are removed.
pub(crate) fn try_tracked() -> Result<(), String> {
    let socket = Socket::netfilter().map_err(|error| error.to_string())?;
    tracked::forget(&socket, &BTreeMap::new(), None).map_err(|error| error.to_string())
}

/// The chains of the calling thread's namespace that drop forwarded IPv4 packets unless a rule of theirs accepts
/// them, as `table chain`.
pub(crate) fn forward_drops() -> std::io::Result<Vec<String>> {
    const LIST_CHAINS: u16 = (NFTABLES << 8) | 4;
    const FORWARD: u32 = 2;
    const DROP: u32 = 0;
    const INET: u8 = 1;
    let number = |value: &[u8]| value.try_into().ok().map(u32::from_be_bytes);
    let mut batch = Batch::default();
    batch.message(LIST_CHAINS, DUMP, &header(0, 0), |_| {});
    let mut found = Vec::new();
    Socket::netfilter()?.dump(&batch, |_, body| {
        let Some((family, body)) = body.split_at_checked(4) else { return };
        let hook = attribute(body, 4).and_then(|hook| attribute(hook, 1)).and_then(number);
        let policy = attribute(body, 5).and_then(number);
        if [IPV4, INET].contains(&family[0]) && hook == Some(FORWARD) && policy == Some(DROP) {
            let name = |kind| attribute(body, kind).map(text).unwrap_or_default();
            found.push(format!("{} {}", name(1), name(3)));
        }
    })?;
    Ok(found)
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
