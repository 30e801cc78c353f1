//! From a question to its answer, by the rules of Kubernetes' DNS specification. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::records::{Host, Named, Owner, Port, Records};

/// The version of the specification that `dns-version` tells.
const SPECIFICATION: &str = "1.1.0";
/// How many aliases within the cluster are followed: enough for any sane chain, and an end for a circle.
const ALIASES_MAX: usize = 8;

/// A question, in lower case and without the final dot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name asked for.
    pub name: String,
    /// What is asked about it.
    pub kind: Kind,
}

/// What can be asked about a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Where a service of a name listens.
    Srv,
    /// The name of an address.
    Ptr,
    /// The name it stands for.
    Cname,
    /// A text.
    Txt,
    /// Anything there is.
    Any,
    /// Something that the cluster's names do not have.
    Other,
}

/// One fact about a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The name.
    pub name: String,
    /// The fact.
    pub data: Data,
}

/// The facts there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address.
    Address(IpAddr),
    /// Another name for it.
    Alias(String),
    /// Where it listens.
    Server {
        /// The port.
        port: u16,
        /// The name of who listens.
        target: String,
        /// Its share, of 100.
        weight: u16,
    },
    /// The name of an address.
    Pointer(String),
    /// A text.
    Text(String),
}

/// What a question gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These facts, and more that help with them.
    Found {
        /// The facts.
        answers: Vec<Record>,
        /// Addresses of servers named in them.
        more: Vec<Record>,
    },
    /// These aliases, and what somebody else says about the last one's target.
    Elsewhere {
        /// The aliases, each with the next one's name.
        aliases: Vec<Record>,
        /// The name to ask for.
        target: String,
    },
    /// The name is there, but has nothing of that kind.
    Nothing,
    /// There is no such name.
    NoName,
    /// The name is not the cluster's: ask somebody else.
    NotOurs,
}

/// Answers a question.
pub fn answer(question: &Question, records: &Records) -> Answer {
    if let Some(address) = reverse(&question.name) {
        return pointer(question, address, records);
    }
    let mut aliases = Vec::new();
    let mut name = question.name.clone();
    for _ in 0..ALIASES_MAX {
        let found = match within(&name, records.domain()) {
            None if aliases.is_empty() => return Answer::NotOurs,
            None => return Answer::Elsewhere { aliases, target: name },
            Some(labels) => look_up(&labels, records),
        };
        let target = match found {
            Found::Alias(target) => target,
            other => return conclude(question, &name, aliases, other, records),
        };
        aliases.push(Record { name, data: Data::Alias(target.clone()) });
        if matches!(question.kind, Kind::Cname | Kind::Any) {
            return Answer::Found { answers: aliases, more: Vec::new() };
        }
        name = target;
    }
    Answer::Found { answers: aliases, more: Vec::new() }
}

/// What a name of the cluster is.
enum Found<'a> {
    /// Addresses.
    Addresses(Vec<IpAddr>),
    /// Servers: target within the cluster's domain, port, the target's address.
    Servers(Vec<(String, u16, IpAddr)>),
    /// A Service: addresses, and servers when asked for.
    Service {
        namespace: &'a str,
        name: &'a str,
        named: &'a Named,
    },
    Alias(String),
    Text(&'static str),
    /// There are names below it.
    Stem,
    Missing,
}

/// The labels of `name` before `domain`, the last one first; `None` when it is not in the domain.
fn within<'a>(name: &'a str, domain: &str) -> Option<Vec<&'a str>> {
    let rest = name.strip_suffix(domain)?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    Some(rest.strip_suffix('.')?.split('.').rev().collect())
}

fn look_up<'a>(labels: &[&'a str], records: &'a Records) -> Found<'a> {
    match labels {
        [] | ["svc"] | ["pod"] => Found::Stem,
        ["dns-version"] => Found::Text(SPECIFICATION),
        ["svc" | "pod", namespace] if records.has_namespace(namespace) => Found::Stem,
        ["pod", _, address] => {
            undashed(address).map_or(Found::Missing, |address| Found::Addresses(vec![address]))
        }
        ["svc", namespace, name, rest @ ..] => match (records.service(namespace, name), rest) {
            (None, _) => Found::Missing,
            (Some(Named::External { name }), []) => Found::Alias(name.clone()),
            (Some(named), []) => Found::Service { namespace, name, named },
            (Some(named), [host]) => host_named(named, host),
            (Some(named), [protocol, port]) => listening(named, (namespace, name), Some((port, protocol))),
            _ => Found::Missing,
        },
        _ => Found::Missing,
    }
}

/// `hostname.service.namespace.svc`, or the stem of the names of ports (`_tcp`).
fn host_named<'a>(named: &Named, label: &str) -> Found<'a> {
    let (hosts, ports) = parts(named);
    let addresses: Vec<IpAddr> =
        hosts.iter().filter(|host| host.name == label).map(|host| host.address).collect();
    let is_protocol = |port: &Port| label.strip_prefix('_') == Some(&port.protocol);
    let is_stem = ports.iter().any(is_protocol) || hosts.iter().flat_map(|host| &host.ports).any(is_protocol);
    match (addresses.is_empty(), is_stem) {
        (false, _) => Found::Addresses(addresses),
        (true, true) => Found::Stem,
        (true, false) => Found::Missing,
    }
}

/// Who listens at a Service's named port, or at all of them.
fn listening<'a>(named: &Named, (namespace, name): (&str, &str), wanted: Option<(&str, &str)>) -> Found<'a> {
    let fits = |port: &&Port| {
        wanted.is_none_or(|(name, protocol)| {
            name.strip_prefix('_') == Some(&port.name) && protocol.strip_prefix('_') == Some(&port.protocol)
        })
    };
    let service = format!("{name}.{namespace}.svc");
    let mut servers = Vec::new();
    match named {
        Named::Virtual { addresses, ports, .. } => {
            for port in ports.iter().filter(fits) {
                servers.extend(addresses.iter().map(|address| (service.clone(), port.number, *address)));
            }
        }
        Named::Headless { hosts } => {
            for host in hosts {
                let target = format!("{}.{service}", host.name);
                let at = host.ports.iter().filter(fits);
                servers.extend(at.map(|port| (target.clone(), port.number, host.address)));
            }
        }
        Named::External { .. } => {}
    }
    if servers.is_empty() { Found::Missing } else { Found::Servers(servers) }
}

fn parts(named: &Named) -> (&[Host], &[Port]) {
    match named {
        Named::Virtual { ports, hosts, .. } => (hosts, ports),
        Named::Headless { hosts } => (hosts, &[]),
        Named::External { .. } => (&[], &[]),
    }
}

/// Puts together what was found after all aliases.
fn conclude(
    question: &Question,
    name: &str,
    aliases: Vec<Record>,
    found: Found<'_>,
    records: &Records,
) -> Answer {
    let record = |data| Record { name: name.to_owned(), data };
    let (mut answers, mut more) = (aliases, Vec::new());
    let known = answers.len();
    match found {
        Found::Missing if answers.is_empty() => return Answer::NoName,
        Found::Addresses(addresses) => push_addresses(&mut answers, question.kind, name, &addresses),
        Found::Text(text) if matches!(question.kind, Kind::Txt | Kind::Any) => {
            answers.push(record(Data::Text(text.to_owned())));
        }
        Found::Servers(servers) => {
            push_servers(&mut answers, &mut more, question.kind, name, servers, records)
        }
        Found::Service { namespace, name: service, named } => {
            push_addresses(&mut answers, question.kind, name, &addresses_of(named));
            if question.kind == Kind::Srv
                && let Found::Servers(servers) = listening(named, (namespace, service), None)
            {
                push_servers(&mut answers, &mut more, question.kind, name, servers, records);
            }
        }
        Found::Missing | Found::Text(_) | Found::Stem | Found::Alias(_) => {}
    }
    if answers.len() == known && known == 0 { Answer::Nothing } else { Answer::Found { answers, more } }
}

fn addresses_of(named: &Named) -> Vec<IpAddr> {
    match named {
        Named::Virtual { addresses, .. } => addresses.clone(),
        Named::Headless { hosts } => {
            let mut addresses: Vec<IpAddr> = hosts.iter().map(|host| host.address).collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        }
        Named::External { .. } => Vec::new(),
    }
}

fn push_addresses(answers: &mut Vec<Record>, kind: Kind, name: &str, addresses: &[IpAddr]) {
    let fits = |address: &&IpAddr| match kind {
        Kind::A => address.is_ipv4(),
        Kind::Aaaa => address.is_ipv6(),
        kind => kind == Kind::Any,
    };
    let record = |address: &IpAddr| Record { name: name.to_owned(), data: Data::Address(*address) };
    answers.extend(addresses.iter().filter(fits).map(record));
}

fn push_servers(
    answers: &mut Vec<Record>,
    more: &mut Vec<Record>,
    kind: Kind,
    name: &str,
    servers: Vec<(String, u16, IpAddr)>,
    records: &Records,
) {
    if !matches!(kind, Kind::Srv | Kind::Any) {
        return;
    }
    let weight = (100 / servers.len().max(1)).max(1) as u16;
    for (target, port, address) in servers {
        let target = format!("{target}.{}", records.domain());
        let server =
            Record { name: name.to_owned(), data: Data::Server { port, target: target.clone(), weight } };
        if !answers.contains(&server) {
            answers.push(server);
        }
        let helps = Record { name: target, data: Data::Address(address) };
        if !more.contains(&helps) {
            more.push(helps);
        }
    }
}

/// The address that a name such as `1.0.96.10.in-addr.arpa` is about.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let octets: Vec<u8> = rest.split('.').rev().map(|label| label.parse().ok()).collect::<Option<_>>()?;
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let nibble = |label: &str| u128::from_str_radix(label, 16).ok().filter(|_| label.len() == 1);
    let nibbles: Vec<u128> = rest.split('.').rev().map(nibble).collect::<Option<_>>()?;
    (nibbles.len() == 32)
        .then(|| Ipv6Addr::from(nibbles.iter().fold(0, |all, nibble| (all << 4) | nibble)).into())
}

fn pointer(question: &Question, address: IpAddr, records: &Records) -> Answer {
    let domain = records.domain();
    let name = match records.owner(address) {
        None => return Answer::NotOurs,
        Some(Owner::Service { namespace, name }) => format!("{name}.{namespace}.svc.{domain}"),
        Some(Owner::Endpoint { namespace, name, host }) => format!("{host}.{name}.{namespace}.svc.{domain}"),
    };
    if !matches!(question.kind, Kind::Ptr | Kind::Any) {
        return Answer::Nothing;
    }
    let answers = vec![Record { name: question.name.clone(), data: Data::Pointer(name) }];
    Answer::Found { answers, more: Vec::new() }
}

/// The address that a label such as `10-244-0-5` is about.
fn undashed(label: &str) -> Option<IpAddr> {
    let ipv4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::from);
    ipv4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;

    use super::*;

    const SERVICES: &str = r#"[
        {"metadata":{"namespace":"default","name":"kubernetes"},
         "spec":{"clusterIP":"10.96.0.1","ports":[{"name":"https","port":443}]}},
        {"metadata":{"namespace":"shop","name":"db"},"spec":{"clusterIP":"None","ports":[{"name":"sql","port":5432}]}},
        {"metadata":{"namespace":"shop","name":"mail"},"spec":{"type":"ExternalName","externalName":"Mail.example.com."}},
        {"metadata":{"namespace":"shop","name":"api"},
         "spec":{"type":"ExternalName","externalName":"kubernetes.default.svc.cluster.local"}},
        {"metadata":{"namespace":"shop","name":"circle"},
         "spec":{"type":"ExternalName","externalName":"circle.shop.svc.cluster.local"}}]"#;
    const SLICES: &str = r#"[{"metadata":{"namespace":"shop","name":"db-1","labels":{"kubernetes.io/service-name":"db"}},
        "addressType":"IPv4","ports":[{"name":"sql","port":5432,"protocol":"TCP"}],"endpoints":[
        {"addresses":["10.244.0.5"],"hostname":"db-0"},{"addresses":["10.244.0.6"]},
        {"addresses":["10.244.0.7"],"conditions":{"ready":false}}]}]"#;

    fn world() -> Records {
        let services: Vec<Service> = serde_json::from_str(SERVICES).expect("Services");
        let slices: Vec<EndpointSlice> = serde_json::from_str(SLICES).expect("EndpointSlices");
        super::super::records("cluster.local.", &services, &slices)
    }

    fn check(kind: Kind, name: &str, wanted: &str) {
        let found = answer(&Question { name: name.to_owned(), kind }, &world());
        assert_eq!(tell(&found), wanted, "{kind:?} {name}");
    }

    fn tell(found: &Answer) -> String {
        let data = |record: &Record| match &record.data {
            Data::Address(address) => address.to_string(),
            Data::Alias(name) => format!("={name}"),
            Data::Server { port, target, weight } => format!("{target}:{port}*{weight}"),
            Data::Pointer(name) | Data::Text(name) => name.clone(),
        };
        let list = |all: &[Record]| all.iter().map(data).collect::<Vec<_>>().join(" ");
        match found {
            Answer::Found { answers, more } if more.is_empty() => list(answers),
            Answer::Found { answers, more } => format!("{} + {}", list(answers), list(more)),
            Answer::Elsewhere { aliases, target } => format!("{} → {target}", list(aliases)),
            Answer::Nothing => "nothing".to_owned(),
            Answer::NoName => "no name".to_owned(),
            Answer::NotOurs => "not ours".to_owned(),
        }
    }

    #[test]
    fn a_service_has_its_address() {
        check(Kind::A, "kubernetes.default.svc.cluster.local", "10.96.0.1");
        check(Kind::Aaaa, "kubernetes.default.svc.cluster.local", "nothing");
        check(Kind::Txt, "dns-version.cluster.local", "1.1.0");
    }

    #[test]
    fn what_search_paths_try_in_vain_is_told_at_once() {
        check(Kind::A, "kubernetes.default.shop.svc.cluster.local", "no name");
        check(Kind::A, "example.com.svc.cluster.local", "no name");
        check(Kind::A, "nobody.default.svc.cluster.local", "no name");
        check(Kind::A, "kubernetes.default.svc", "not ours");
        check(Kind::A, "example.com", "not ours");
        check(Kind::A, "xcluster.local", "not ours");
        check(Kind::A, "default.svc.cluster.local", "nothing");
        check(Kind::A, "nowhere.svc.cluster.local", "no name");
        check(Kind::A, "cluster.local", "nothing");
    }

    #[test]
    fn a_headless_service_has_the_addresses_of_its_ready_endpoints() {
        check(Kind::A, "db.shop.svc.cluster.local", "10.244.0.5 10.244.0.6");
        check(Kind::A, "db-0.db.shop.svc.cluster.local", "10.244.0.5");
        check(Kind::A, "10-244-0-6.db.shop.svc.cluster.local", "10.244.0.6");
        check(Kind::A, "db-1.db.shop.svc.cluster.local", "no name");
    }

    #[test]
    fn named_ports_tell_who_listens() {
        let db0 = "db-0.db.shop.svc.cluster.local:5432*50";
        let db1 = "10-244-0-6.db.shop.svc.cluster.local:5432*50";
        let both = format!("{db1} {db0} + 10.244.0.6 10.244.0.5");
        check(Kind::Srv, "_sql._tcp.db.shop.svc.cluster.local", &both);
        let https = "kubernetes.default.svc.cluster.local:443*100 + 10.96.0.1";
        check(Kind::Srv, "_https._tcp.kubernetes.default.svc.cluster.local", https);
        check(Kind::Srv, "kubernetes.default.svc.cluster.local", https);
        check(Kind::Srv, "_https._udp.kubernetes.default.svc.cluster.local", "no name");
        check(Kind::A, "_tcp.kubernetes.default.svc.cluster.local", "nothing");
    }

    #[test]
    fn addresses_have_names() {
        check(Kind::Ptr, "1.0.96.10.in-addr.arpa", "kubernetes.default.svc.cluster.local");
        check(Kind::Ptr, "5.0.244.10.in-addr.arpa", "db-0.db.shop.svc.cluster.local");
        check(Kind::Ptr, "1.1.1.1.in-addr.arpa", "not ours");
        check(Kind::Ptr, "x.in-addr.arpa", "not ours");
    }

    #[test]
    fn pods_have_names_made_of_their_addresses() {
        check(Kind::A, "10-244-0-9.shop.pod.cluster.local", "10.244.0.9");
        check(Kind::Aaaa, "fd00--9.shop.pod.cluster.local", "fd00::9");
        check(Kind::A, "web.shop.pod.cluster.local", "no name");
    }

    #[test]
    fn external_names_are_followed() {
        check(Kind::A, "mail.shop.svc.cluster.local", "=mail.example.com → mail.example.com");
        check(Kind::Cname, "mail.shop.svc.cluster.local", "=mail.example.com");
        let api = "=kubernetes.default.svc.cluster.local 10.96.0.1";
        check(Kind::A, "api.shop.svc.cluster.local", api);
        let circle =
            answer(&Question { name: "circle.shop.svc.cluster.local".into(), kind: Kind::A }, &world());
        assert!(matches!(circle, Answer::Found { answers, .. } if answers.len() == ALIASES_MAX));
    }

    #[test]
    fn a_service_that_is_removed_leaves_no_name() {
        let mut records = world();
        records.remove("shop", "db");
        let gone = |name: &str, kind| answer(&Question { name: name.into(), kind }, &records);
        assert_eq!(gone("db.shop.svc.cluster.local", Kind::A), Answer::NoName);
        assert_eq!(gone("5.0.244.10.in-addr.arpa", Kind::Ptr), Answer::NotOurs);
    }
}
