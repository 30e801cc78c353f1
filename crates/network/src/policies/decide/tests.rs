//! What policies come to: small worlds as text in, rules as text out.

use serde_json::json;

use super::*;

/// `namespace/name labels… @node address [port=name…]`, one pod a line.
fn pods(text: &str) -> Vec<GuardedPod> {
    let labels = |words: &[&str]| {
        let pairs =
            words.iter().filter(|word| !word.starts_with('@')).filter_map(|word| word.split_once('='));
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let one = |line: &str| {
        let (meta, rest) = line.split_once('@').expect("… @node address");
        let meta: Vec<&str> = meta.split_whitespace().collect();
        let mut rest = rest.split_whitespace();
        let node = rest.next().expect("a node").to_owned();
        let address = rest.next().expect("an address").parse().expect("an address");
        let port = |word: &str| {
            let (number, name) = word.split_once('=').expect("port=name");
            (name.to_owned(), Protocol::Tcp, number.parse().expect("a port"))
        };
        let namespace = meta[0].split('/').next().expect("namespace/name").to_owned();
        GuardedPod { namespace, labels: labels(&meta[1..]), address, node, ports: rest.map(port).collect() }
    };
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(one).collect()
}

const WORLD: &str = "shop/web app=web @here 10.0.0.1 8080=http
                     shop/db app=db @here 10.0.0.2 5432=sql
                     shop/far app=db @there 10.0.1.2 6432=sql
                     ops/scrape app=scrape @there 10.0.1.3";

fn check(specs: &[serde_json::Value], expected: &str) {
    let all: Vec<NetworkPolicy> = specs
        .iter()
        .map(|spec| {
            let policy = json!({"metadata": {"name": "p", "namespace": "shop"}, "spec": spec});
            serde_json::from_value(policy).expect("a NetworkPolicy")
        })
        .collect();
    let spaces =
        ["shop", "ops"].map(|name| (name.to_owned(), BTreeMap::from([("name".into(), name.into())])));
    let rules = policies(&all, &pods(WORLD), &spaces.into(), "here");
    let mut lines = Vec::new();
    for (word, side) in [("to", &rules.incoming), ("from", &rules.outgoing)] {
        for (address, allowed) in side {
            let told: Vec<String> = allowed.iter().map(|one| told(one, &rules)).collect();
            lines.push(format!("{word} {address}: {}", told.join(", ")).trim_end().to_owned());
        }
    }
    assert_eq!(lines.join("\n"), expected);
}

fn told(allowed: &Allowed, rules: &PolicyRules) -> String {
    let peer = match &allowed.peer {
        Peer::Anyone => "anyone".to_owned(),
        Peer::Group(name) => rules.groups[name].iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join("|"),
        Peer::Range { range, except } => {
            let holes: String = except.iter().map(|hole| format!("-{hole}")).collect();
            format!("{range}{holes}")
        }
    };
    let span = |port: &PortSpan| format!("{:?}/{}-{}", port.protocol, port.first, port.last);
    match &allowed.ports {
        None => peer,
        Some(ports) => format!("{peer} at {}", ports.iter().map(span).collect::<Vec<_>>().join("+")),
    }
}

#[test]
fn who_is_meant_by_no_policy_is_not_held_back() {
    check(&[], "");
    check(&[json!({"podSelector": {"matchLabels": {"app": "none"}}})], "");
}

#[test]
fn a_policy_without_rules_holds_back_everything_of_its_kind() {
    check(&[json!({"podSelector": {}})], "to 10.0.0.1:\nto 10.0.0.2:");
    let web = json!({"matchLabels": {"app": "web"}});
    check(&[json!({"podSelector": web, "policyTypes": ["Egress"]})], "from 10.0.0.1:");
    check(
        &[json!({"podSelector": web, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]})],
        "to 10.0.0.1: anyone\nfrom 10.0.0.1: anyone",
    );
}

#[test]
fn peers_are_pods_of_the_own_namespace_or_of_those_selected_or_ranges() {
    let db = json!({"matchLabels": {"app": "db"}});
    let from = |peers: serde_json::Value| [json!({"podSelector": db, "ingress": [{"from": peers}]})];
    check(&from(json!([{"podSelector": {"matchLabels": {"app": "web"}}}])), "to 10.0.0.2: 10.0.0.1");
    check(
        &from(json!([{"namespaceSelector": {"matchLabels": {"name": "ops"}}}, {"podSelector": {}}])),
        "to 10.0.0.2: 10.0.1.3, 10.0.0.1|10.0.0.2|10.0.1.2",
    );
    check(
        &from(json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "scrape"}}}])),
        "to 10.0.0.2: 10.0.1.3",
    );
    check(
        &from(
            json!([{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.8/29"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]),
        ),
        "to 10.0.0.2: 192.0.2.0/24-192.0.2.8/29",
    );
}

#[test]
fn ports_are_numbers_spans_or_what_a_pod_calls_so() {
    let db = json!({"matchLabels": {"app": "db"}});
    let at = |ports: serde_json::Value| [json!({"podSelector": db, "ingress": [{"ports": ports}]})];
    check(
        &at(json!([{"port": 80}, {"port": 90, "endPort": 99, "protocol": "UDP"}, {"protocol": "SCTP"}])),
        "to 10.0.0.2: anyone at Tcp/80-80+Udp/90-99+Sctp/0-65535",
    );
    check(&at(json!([{"port": "sql"}, {"port": "nobody"}])), "to 10.0.0.2: anyone at Tcp/5432-5432");
    check(&at(json!([{"port": "nobody"}])), "to 10.0.0.2: anyone at");
}

#[test]
fn a_named_port_of_a_receiver_is_the_number_that_each_gives_it() {
    let to = json!([{"podSelector": {"matchLabels": {"app": "db"}}}]);
    check(
        &[json!({
            "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"],
            "egress": [{"to": to, "ports": [{"port": "sql"}]}],
        })],
        "from 10.0.0.1: 10.0.0.2 at Tcp/5432-5432, 10.0.1.2 at Tcp/6432-6432",
    );
}

#[test]
fn policies_add_up() {
    let web = json!({"matchLabels": {"app": "web"}});
    let one = json!({"podSelector": web, "ingress": [{"ports": [{"port": 80}]}]});
    let two = json!({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]});
    let everybody = "10.0.0.1|10.0.0.2|10.0.1.2";
    check(
        &[one.clone(), two.clone(), one],
        &format!("to 10.0.0.1: anyone at Tcp/80-80, {everybody}\nto 10.0.0.2: {everybody}"),
    );
}
