//! The small files that every container finds: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::PodDNSConfig;

use crate::pod::PodView;

/// The longest host name the kernel takes in pods, as upstream cuts it.
const HOSTNAME_LEN_MAX: usize = 63;

/// The pod's host name and, where it has one, its full name.
pub fn hostname(pod: &PodView, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod.spec();
    if let Some(whole) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) {
        return (whole.to_owned(), None);
    }
    let mut host = spec.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(|| pod.name.clone());
    host.truncate(HOSTNAME_LEN_MAX);
    let host = host.trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty());
    let full = subdomain.map(|sub| format!("{host}.{sub}.{}.svc.{cluster_domain}", pod.namespace));
    match (spec.set_hostname_as_fqdn.unwrap_or(false), &full) {
        (true, Some(name)) => (name.clone(), full),
        _ => (host, full),
    }
}

/// `/etc/hosts`; `node_hosts` is the node's own, for pods on its network.
pub fn hosts(pod: &PodView, addresses: &[IpAddr], cluster_domain: &str, node_hosts: &str) -> String {
    let mut text = if pod.is_on_host_network() {
        format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}")
    } else {
        let mut text = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (host, full) = hostname(pod, cluster_domain);
        for address in addresses {
            match &full {
                Some(full) => text.push_str(&format!("{address}\t{full}\t{host}\n")),
                None => text.push_str(&format!("{address}\t{host}\n")),
            }
        }
        text
    };
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// How names are looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Servers, in order.
    pub nameservers: Vec<String>,
    /// Domains that are tried.
    pub searches: Vec<String>,
    /// Options, such as `ndots:5`.
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads a `resolv.conf`.
    pub fn read(text: &str) -> Resolver {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let word = words.next().unwrap_or("");
            let rest = words.map(str::to_owned);
            match word {
                "nameserver" => resolver.nameservers.extend(rest.take(1)),
                "search" => resolver.searches = rest.filter(|name| name != ".").collect(),
                "options" => resolver.options = rest.collect(),
                _ => {}
            }
        }
        resolver
    }

    /// Writes a `resolv.conf`.
    pub fn write(&self) -> String {
        let mut text = String::new();
        if !self.searches.is_empty() {
            text.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }

    fn with(mut self, config: &PodDNSConfig) -> Resolver {
        add_new(&mut self.nameservers, config.nameservers.as_deref());
        add_new(&mut self.searches, config.searches.as_deref());
        for option in config.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or("");
            self.options.retain(|known| known.split(':').next() != Some(name));
            self.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.to_owned(),
            });
        }
        self
    }
}

fn add_new(list: &mut Vec<String>, more: Option<&[String]>) {
    for item in more.unwrap_or_default() {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// How a pod's names are looked up, by its policy; `node` is the node's own way.
pub fn resolver(pod: &PodView, cluster_dns: &[IpAddr], cluster_domain: &str, node: &Resolver) -> Resolver {
    let spec = pod.spec();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let is_cluster_first = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.is_on_host_network(),
        _ => false,
    };
    let base = if policy == "None" {
        Resolver::default()
    } else if is_cluster_first && !cluster_dns.is_empty() {
        let mut searches = vec![
            format!("{}.svc.{cluster_domain}", pod.namespace),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_owned(),
        ];
        add_new(&mut searches, Some(&node.searches));
        Resolver {
            nameservers: cluster_dns.iter().map(IpAddr::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    } else {
        node.clone()
    };
    match &spec.dns_config {
        Some(config) => base.with(config),
        None => base,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::testing::pod;

    fn check_names(spec: Value, expected: &str) {
        let node = Resolver::read("nameserver 192.0.2.53\nsearch corp.example\noptions edns0\n");
        let dns = ["10.96.0.10".parse().expect("an address")];
        assert_eq!(resolver(&pod(spec), &dns, "cluster.local", &node).write(), expected);
    }

    #[test]
    fn names_are_looked_up_as_the_policy_says() {
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.example\n\
                       nameserver 10.96.0.10\noptions ndots:5\n";
        let node = "search corp.example\nnameserver 192.0.2.53\noptions edns0\n";
        check_names(json!({}), cluster);
        check_names(json!({"hostNetwork": true}), node);
        check_names(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), cluster);
        check_names(json!({"dnsPolicy": "Default"}), node);
        let config = json!({"nameservers": ["1.1.1.1"], "searches": ["a.b"], "options": [{"name": "ndots", "value": "2"}]});
        check_names(
            json!({"dnsPolicy": "None", "dnsConfig": config}),
            "search a.b\nnameserver 1.1.1.1\noptions ndots:2\n",
        );
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let check = |spec: Value, expected: &[&str]| {
            let text = hosts(
                &pod(spec),
                &["10.0.0.5".parse().expect("an address")],
                "cluster.local",
                "1.1.1.1\tn\n",
            );
            for part in expected {
                assert!(text.contains(part), "{part:?} is not in {text}");
            }
        };
        check(json!({}), &["# Kubernetes-managed hosts file.\n", "10.0.0.5\tweb\n"]);
        let named = json!({"hostname": "h", "subdomain": "s", "hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]});
        check(named, &["10.0.0.5\th.s.shop.svc.cluster.local\th\n", "\n123.45.67.89\tfoo\tbar\n"]);
        check(
            json!({"hostNetwork": true}),
            &["# Kubernetes-managed hosts file (host network).\n1.1.1.1\tn\n"],
        );
    }

    #[test]
    fn a_host_name_is_at_most_63_long() {
        let name = "a".repeat(62) + "-b";
        assert_eq!(hostname(&pod(json!({"hostname": name})), "d").0, "a".repeat(62));
    }
}
