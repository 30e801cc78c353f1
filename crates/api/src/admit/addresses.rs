//! Services get addresses and node ports of their own: each is an object of its own in the same transaction, so that two
//! services can never hold the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use bytes::Bytes;
use model::kinds::FaultReason;
use model::tree::{is_set, items, text, whole};
use model::{Gvr, Key, Tree, World, kinds};
use serde_json::{Value, json};
use store::{Body, Change, Expect, Tags};

use super::{Asked, Extra};
use crate::encode;
use crate::refusal::Refusal;
use crate::registry::Resource;
use crate::verbs::{child, meta, stamp};
use crate::view::path_of;

/// Ports that nodes open for services: upstream's default range.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;
/// Who holds which node port: not served, only kept.
const NODE_PORT: Gvr = Gvr::new("allocations", "v1", "nodeports");

/// What a service holds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Holding {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<u16>,
}

/// Gives a service what it needs and does not have, and takes back what it needs no more.
pub fn finish(asked: &Asked<'_>, object: &mut Tree, extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.writes(&kinds::SERVICE) {
        return Ok(());
    }
    let had = asked.old.map(holding).unwrap_or_default();
    drop_unneeded(asked.old, object);
    give_address(asked, object, &had)?;
    give_ports(asked, object, &had)?;
    let has = holding(object);
    for address in has.addresses.difference(&had.addresses) {
        extra.expect.push((path_of(&address_key(*address)).into(), Expect::Absent));
        extra
            .changes
            .push(encode::put_built_in(&kinds::IP_ADDRESS, &address_object(asked, object, *address)));
    }
    for port in has.ports.difference(&had.ports) {
        let path = path_of(&port_key(*port));
        extra.expect.push((path.as_str().into(), Expect::Absent));
        extra.changes.push(port_change(path, object, *port));
    }
    give_back(&had, &has, asked.world, extra);
    Ok(())
}

/// Takes back all that a service held, in the transaction in which it goes.
pub fn release(resource: &Resource, old: &Tree, world: &dyn World, extra: &mut Extra) {
    if resource.is(&kinds::SERVICE) {
        give_back(&holding(old), &Holding::default(), world, extra);
    }
}

fn give_back(had: &Holding, has: &Holding, world: &dyn World, extra: &mut Extra) {
    let addresses = had.addresses.difference(&has.addresses).map(|address| address_key(*address));
    let ports = had.ports.difference(&has.ports).map(|port| port_key(*port));
    for key in addresses.chain(ports).filter(|key| world.get(key).is_some()) {
        extra.changes.push(Change::Remove { path: path_of(&key).into(), last: None });
    }
}

fn needs_address(service: &Tree) -> bool {
    matches!(text(service, "spec.type"), "" | "ClusterIP" | "NodePort" | "LoadBalancer")
        && text(service, "spec.clusterIP") != "None"
}

fn needs_ports(service: &Tree) -> bool {
    match text(service, "spec.type") {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != Value::Bool(false),
        _ => false,
    }
}

fn holding(service: &Tree) -> Holding {
    let spec = &service["spec"];
    let mut holding = Holding::default();
    if needs_address(service) {
        holding.addresses.extend(text(spec, "clusterIP").parse::<Ipv4Addr>());
    }
    let ports = items(spec, "ports").iter().filter_map(|port| whole(port, "nodePort"));
    holding
        .ports
        .extend(ports.chain(whole(spec, "healthCheckNodePort")).filter_map(|port| u16::try_from(port).ok()));
    holding.ports.remove(&0);
    holding
}

/// A change of type takes with it what only the old type had, unless the author changed that too.
fn drop_unneeded(old: Option<&Tree>, new: &mut Tree) {
    let Some(old) = old else { return };
    if needs_address(old) && text(new, "spec.type") == "ExternalName" {
        for field in ["clusterIP", "clusterIPs"] {
            if new["spec"][field] == old["spec"][field] {
                child(new, "spec").remove(field);
            }
        }
        for field in ["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            child(new, "spec").remove(field);
        }
    }
    if needs_ports(old) && !matches!(text(new, "spec.type"), "NodePort" | "LoadBalancer") {
        let known: BTreeSet<i64> =
            items(old, "spec.ports").iter().filter_map(|port| whole(port, "nodePort")).collect();
        for port in model::tree::items_mut(&mut new["spec"], "ports") {
            if whole(port, "nodePort").is_some_and(|port| known.contains(&port)) {
                model::tree::remove(port, "nodePort");
            }
        }
        if new["spec"]["externalTrafficPolicy"] == old["spec"]["externalTrafficPolicy"]
            && !is_set(new, "spec.externalIPs")
        {
            child(new, "spec").remove("externalTrafficPolicy");
        }
        child(new, "spec").remove("allocateLoadBalancerNodePorts");
    }
}

fn give_address(asked: &Asked<'_>, service: &mut Tree, had: &Holding) -> Result<(), Refusal> {
    let headless = text(service, "spec.clusterIP") == "None"
        || items(service, "spec.clusterIPs").first().is_some_and(|first| first == "None");
    if text(service, "spec.type") == "ExternalName" {
        return Ok(());
    }
    let spec = child(service, "spec");
    spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
    spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
    if headless {
        spec.insert("clusterIP".into(), json!("None"));
        spec.insert("clusterIPs".into(), json!(["None"]));
        return Ok(());
    }
    let first = spec.get("clusterIPs").and_then(|list| list[0].as_str()).unwrap_or_default().to_owned();
    let said = spec
        .get("clusterIP")
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
        .unwrap_or(&first)
        .to_owned();
    let address = match said.parse::<Ipv4Addr>() {
        Ok(address) if had.addresses.contains(&address) => address,
        Ok(address) => claim_address(asked, service, address)?,
        // What is no address is told by the kind's own rules.
        Err(_) if !said.is_empty() => return Ok(()),
        Err(_) => find_address(asked, service)?,
    };
    let spec = child(service, "spec");
    spec.insert("clusterIP".into(), json!(address.to_string()));
    spec.insert("clusterIPs".into(), json!([address.to_string()]));
    Ok(())
}

fn invalid(asked: &Asked<'_>, service: &Tree, field: &str, message: String) -> Refusal {
    let about = asked.resource.about(meta(service, "name"));
    Refusal::invalid_field(&about, field, FaultReason::Invalid, message)
}

fn claim_address(asked: &Asked<'_>, service: &Tree, address: Ipv4Addr) -> Result<Ipv4Addr, Refusal> {
    let why = if !asked.service_cidr.contains(address) {
        format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is {}",
            asked.service_cidr
        )
    } else if asked.world.get(&address_key(address)).is_some() {
        "provided IP is already allocated".to_owned()
    } else {
        return Ok(address);
    };
    let message = format!("Invalid value: [\"{address}\"]: failed to allocate IP {address}: {why}");
    Err(invalid(asked, service, "spec.clusterIPs", message))
}

/// A free address: from the upper part of the range first, so that those which people choose stay free.
fn find_address(asked: &Asked<'_>, service: &Tree) -> Result<Ipv4Addr, Refusal> {
    let cidr = asked.service_cidr;
    let len = cidr.len();
    let chosen = (len / 16).clamp(16, 256).min(len / 2);
    let upper = len - 1 - chosen;
    let start = u32::try_from(asked.place % u64::from(upper.max(1))).unwrap_or(0);
    let places = (0..upper).map(|step| chosen + (start + step) % upper.max(1)).chain(1..chosen);
    let mut free = places
        .map(|place| cidr.at(place))
        .filter(|address| asked.world.get(&address_key(*address)).is_none());
    free.next().ok_or_else(|| {
        let message = format!("failed to allocate a serviceIP: range {cidr} is full");
        Refusal::internal(message).about(&asked.resource.about(meta(service, "name")))
    })
}

fn give_ports(asked: &Asked<'_>, service: &mut Tree, had: &Holding) -> Result<(), Refusal> {
    let mut own = had.ports.clone();
    let count = items(service, "spec.ports").len();
    let wanted = needs_ports(service);
    // Ports that are the same but for the protocol share a node port.
    let mut by_port: BTreeMap<i64, u16> = BTreeMap::new();
    for index in 0..count {
        let port = &items(service, "spec.ports")[index];
        let number = whole(port, "port").unwrap_or(0);
        let said = whole(port, "nodePort").and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let given = match said {
            0 if !wanted => continue,
            0 => match by_port.get(&number) {
                Some(known) => *known,
                None => find_port(asked, service, &own)?,
            },
            said => {
                let field = format!("spec.ports[{index}].nodePort");
                if !own.contains(&said) {
                    claim_port(asked, service, said, &field)?;
                }
                said
            }
        };
        own.insert(given);
        by_port.insert(number, given);
        service["spec"]["ports"][index]["nodePort"] = json!(given);
    }
    let health = text(service, "spec.type") == "LoadBalancer"
        && text(service, "spec.externalTrafficPolicy") == "Local";
    if health && whole(service, "spec.healthCheckNodePort").unwrap_or(0) == 0 {
        let port = find_port(asked, service, &own)?;
        child(service, "spec").insert("healthCheckNodePort".into(), json!(port));
    }
    Ok(())
}

fn claim_port(asked: &Asked<'_>, service: &Tree, port: u16, field: &str) -> Result<(), Refusal> {
    let why = if !NODE_PORTS.contains(&port) {
        format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            NODE_PORTS.start(),
            NODE_PORTS.end()
        )
    } else if asked.world.get(&port_key(port)).is_some() {
        "provided port is already allocated".to_owned()
    } else {
        return Ok(());
    };
    Err(invalid(asked, service, field, format!("Invalid value: {port}: {why}")))
}

fn find_port(asked: &Asked<'_>, service: &Tree, own: &BTreeSet<u16>) -> Result<u16, Refusal> {
    let len = u64::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
    let at = |step: u64| NODE_PORTS.start() + u16::try_from((asked.place + step) % len).unwrap_or(0);
    let mut free =
        (0..len).map(at).filter(|port| !own.contains(port) && asked.world.get(&port_key(*port)).is_none());
    free.next().ok_or_else(|| {
        let refusal = Refusal::internal("failed to allocate a nodePort: range is full");
        refusal.about(&asked.resource.about(meta(service, "name")))
    })
}

fn address_key(address: Ipv4Addr) -> Key {
    Key::new(&kinds::IP_ADDRESS, "", address.to_string())
}

fn port_key(port: u16) -> Key {
    Key::new(&NODE_PORT, "", port.to_string())
}

fn address_object(asked: &Asked<'_>, service: &Tree, address: Ipv4Addr) -> Tree {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": address.to_string(), "uid": derived_uid(&asked.drawn.uid), "creationTimestamp": stamp(asked.drawn.now),
            "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"},
        },
        "spec": {"parentRef": {"group": "", "resource": "services", "namespace": meta(service, "namespace"),
            "name": meta(service, "name")}},
    })
}

/// Another uid than the service's, from the same draw.
fn derived_uid(uid: &str) -> String {
    uid.chars()
        .map(|c| c.to_digit(16).and_then(|digit| char::from_digit(digit ^ 8, 16)).unwrap_or(c))
        .enumerate()
        .map(|(at, c)| if at == 14 { '4' } else { c })
        .collect()
}

fn port_change(path: String, service: &Tree, port: u16) -> Change {
    let holder = json!({"metadata": {"name": port.to_string()}, "service": format!("{}/{}", meta(service, "namespace"), meta(service, "name"))});
    let body = Body { before: Bytes::from(holder.to_string()), after: None };
    Change::Put { path: path.into(), body, tags: Tags::default() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::change;
    use super::*;

    const TAKEN: &str = r#"{"metadata": {"name": "10.96.0.9"}}"#;

    fn service(spec: Tree) -> Tree {
        json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec})
    }

    /// The cluster address, the node ports and the number of writes beside it.
    fn given(old: Option<Tree>, spec: Tree) -> Result<String, String> {
        let old = old.map(service);
        let world = [(&kinds::IP_ADDRESS, TAKEN), (&NODE_PORT, r#"{"metadata": {"name": "30005"}}"#)];
        let (made, extra) = change(&world, &kinds::SERVICE, finish, old.as_ref(), service(spec))?;
        let ports: Vec<String> =
            items(&made, "spec.ports").iter().map(|port| port["nodePort"].to_string()).collect();
        Ok(format!("{} {} {}", text(&made, "spec.clusterIP"), ports.join(","), extra.changes.len()))
    }

    #[test]
    fn a_service_gets_an_address() {
        assert_eq!(given(None, json!({"type": "ClusterIP"})).as_deref(), Ok("10.96.0.21  1"));
        assert_eq!(
            given(None, json!({"type": "ClusterIP", "clusterIP": "10.96.0.10"})).as_deref(),
            Ok("10.96.0.10  1")
        );
        assert_eq!(given(None, json!({"type": "ClusterIP", "clusterIP": "None"})).as_deref(), Ok("None  0"));
        assert_eq!(given(None, json!({"type": "ExternalName"})).as_deref(), Ok("  0"));
        assert!(
            given(None, json!({"type": "ClusterIP", "clusterIP": "10.96.0.9"}))
                .is_err_and(|why| why.contains("already allocated"))
        );
        assert!(
            given(None, json!({"type": "ClusterIP", "clusterIP": "10.97.0.9"}))
                .is_err_and(|why| why.contains("not in the valid range"))
        );
    }

    #[test]
    fn a_node_port_service_gets_ports_that_nobody_has() {
        let ports = json!([{"port": 80, "protocol": "TCP"}, {"port": 80, "protocol": "UDP"}, {"port": 81}]);
        let made = given(None, json!({"type": "NodePort", "ports": ports}));
        assert_eq!(made.as_deref(), Ok("10.96.0.21 30006,30006,30007 3"));
        let said =
            |port: u16| given(None, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
        assert_eq!(said(31000).as_deref(), Ok("10.96.0.21 31000 2"));
        assert!(said(30005).is_err_and(|why| why.contains("already allocated")));
        assert!(said(80).is_err_and(|why| why.contains("not in the valid range")));
    }

    #[test]
    fn another_type_gives_back_what_it_needs_no_more() {
        let old =
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30005}]});
        let mut plain = old.clone();
        plain["type"] = json!("ClusterIP");
        assert_eq!(given(Some(old.clone()), plain).as_deref(), Ok("10.96.0.9 null 1"));
        assert_eq!(given(Some(old.clone()), json!({"type": "ExternalName"})).as_deref(), Ok("  2"));
        assert_eq!(given(Some(old.clone()), old).as_deref(), Ok("10.96.0.9 30005 0"));
    }
}
