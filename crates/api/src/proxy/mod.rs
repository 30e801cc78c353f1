//! Where logs, exec, attach, port-forward and proxies lead. Pure over a view.

pub mod links;

use model::{Key, Tree, World, kinds};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::dial::{Backend, Tls};
use crate::refusal::{About, Reason, Refusal};
use crate::registry::Resource;
use crate::request::Target;
use crate::verbs::meta;

/// What needs no escape in a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The kubelet of a node.
pub fn kubelet(view: &dyn World, node: &str) -> Result<Backend, Refusal> {
    let about = About { resource: "nodes".into(), name: node.into(), ..About::default() };
    let found = view.get(&Key::new(&kinds::NODE, "", node)).ok_or_else(|| Refusal::not_found(&about))?;
    let node = found.tree().map_err(|why| Refusal::internal(why.to_string()))?;
    let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
    let mut by_type = addresses.filter(|address| address["type"] == "InternalIP");
    let host = by_type.find_map(|address| address["address"].as_str());
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    match (host, port.and_then(|port| u16::try_from(port).ok())) {
        (Some(host), Some(port)) => Ok(Backend { host: host.to_owned(), port, tls: Tls::Kubelet }),
        _ => Err(Refusal::new(Reason::ServiceUnavailable, "the node does not say where its kubelet answers")
            .about(&about)),
    }
}

/// The kubelet's path for a part of a pod.
pub fn kubelet_path(part: &str, pod: &Tree, query: &[(String, String)]) -> Result<String, Refusal> {
    let (namespace, name) = (meta(pod, "namespace"), meta(pod, "name"));
    if part == "portforward" {
        let ports: Vec<_> = query
            .iter()
            .filter(|(key, _)| key == "ports")
            .flat_map(|(_, value)| value.split(','))
            .map(|port| ("port".to_owned(), port.to_owned()))
            .collect();
        return Ok(joined(&format!("/portForward/{namespace}/{name}"), &ports));
    }
    let container = container(pod, query)?;
    let root = if part == "log" { "containerLogs" } else { part };
    let mapped: Vec<(String, String)> = query
        .iter()
        .filter(|(key, _)| key != "container")
        .map(|(key, value)| translate(part, key, value))
        .collect();
    Ok(joined(&format!("/{root}/{namespace}/{name}/{container}"), &mapped))
}

/// Streams are named anew on the way to a kubelet.
fn translate(part: &str, key: &str, value: &str) -> (String, String) {
    let on = || if matches!(value, "true" | "1" | "") { "1" } else { "0" }.to_owned();
    let name = match (part, key) {
        ("log", key) => return (key.to_owned(), value.to_owned()),
        (_, "stdin") => "input",
        (_, "stdout") => "output",
        (_, "stderr") => "error",
        (_, "tty") => "tty",
        (_, key) => return (key.to_owned(), value.to_owned()),
    };
    (name.to_owned(), on())
}

/// The container that is meant: the one that is named, or the only one.
fn container(pod: &Tree, query: &[(String, String)]) -> Result<String, Refusal> {
    let names_in = |list: &str| -> Vec<&str> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).collect()
    };
    let plain = names_in("containers");
    let asked = query.iter().find(|(key, value)| key == "container" && !value.is_empty());
    let (all, name) = (names_in("initContainers"), meta(pod, "name"));
    let Some((_, asked)) = asked else {
        if let [only] = plain.as_slice() {
            return Ok((*only).to_owned());
        }
        let message = format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            plain.iter().chain(&all).copied().collect::<Vec<_>>().join(" ")
        );
        return Err(Refusal::bad_request(message));
    };
    let known = plain.iter().chain(&all).chain(&names_in("ephemeralContainers")).any(|own| own == asked);
    if known {
        Ok(asked.clone())
    } else {
        Err(Refusal::bad_request(format!("container {asked} is not valid for pod {name}")))
    }
}

/// Where a proxy leads, and what its paths begin with there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxied {
    /// The backend.
    pub backend: Backend,
    /// What its paths begin with.
    pub prefix: String,
}

/// Where the proxy of a node, a pod or a service leads.
pub fn proxied(view: &dyn World, target: &Target, resource: &Resource) -> Result<Proxied, Refusal> {
    let (scheme, name, port) = split_name(&target.name);
    let about = resource.about(name);
    let prefix = String::new();
    let tls = if scheme == "https" { Tls::Any } else { Tls::None };
    if resource.is(&kinds::NODE) {
        return Ok(Proxied { backend: kubelet(view, name)?, prefix });
    }
    let found = view
        .get(&Key::new(&resource.gvr, &target.namespace, name))
        .ok_or_else(|| Refusal::not_found(&about))?;
    let object = found.tree().map_err(|why| Refusal::internal(why.to_string()))?;
    let (host, port) = if resource.is(&kinds::POD) {
        pod_address(&object, port, &about)?
    } else {
        service_address(view, &object, port, &about)?
    };
    Ok(Proxied { backend: Backend { host, port, tls }, prefix })
}

/// `[scheme:]name[:port]`.
fn split_name(text: &str) -> (&str, &str, &str) {
    match text.split(':').collect::<Vec<_>>().as_slice() {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("", name, port),
        _ => ("", text, ""),
    }
}

fn pod_address(pod: &Tree, port: &str, about: &About) -> Result<(String, u16), Refusal> {
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
    if ip.is_empty() {
        return Err(Refusal::new(Reason::ServiceUnavailable, "the pod has no address yet").about(about));
    }
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let number = match port {
        "" => ports.find_map(|port| port["containerPort"].as_u64()).unwrap_or(80),
        text => match text.parse::<u64>() {
            Ok(number) => number,
            Err(_) => {
                let found =
                    ports.find(|port| port["name"] == text).and_then(|port| port["containerPort"].as_u64());
                found.ok_or_else(|| no_port(about, text))?
            }
        },
    };
    Ok((ip.to_owned(), u16::try_from(number).map_err(|_| no_port(about, port))?))
}

fn no_port(about: &About, port: &str) -> Refusal {
    Refusal::new(
        Reason::ServiceUnavailable,
        format!("no port {port:?} found for {} \"{}\"", about.resource, about.name),
    )
    .about(about)
}

/// The first ready endpoint of a service's port.
fn service_address(
    view: &dyn World,
    service: &Tree,
    port: &str,
    about: &About,
) -> Result<(String, u16), Refusal> {
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let wanted = ports.iter().find(|own| match port {
        "" => ports.len() == 1,
        text => own["name"] == text || own["port"].as_u64().is_some_and(|number| number.to_string() == text),
    });
    let wanted = wanted.ok_or_else(|| no_port(about, port))?;
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let slices = view.list(&kinds::ENDPOINT_SLICE, meta(service, "namespace"));
    let own = slices.iter().filter(|slice| {
        slice.meta().labels.get("kubernetes.io/service-name").is_some_and(|name| *name == about.name)
    });
    for slice in own.filter_map(|slice| slice.tree().ok()) {
        let mut named = slice["ports"].as_array().into_iter().flatten();
        let number = named.find(|own| own["name"].as_str().unwrap_or_default() == port_name);
        let Some(number) =
            number.and_then(|own| own["port"].as_u64()).and_then(|port| u16::try_from(port).ok())
        else {
            continue;
        };
        let mut endpoints = slice["endpoints"].as_array().into_iter().flatten();
        let ready = endpoints.find(|endpoint| endpoint["conditions"]["ready"] != Value::Bool(false));
        if let Some(address) = ready.and_then(|endpoint| endpoint["addresses"][0].as_str()) {
            return Ok((address.to_owned(), number));
        }
    }
    let message = format!("no endpoints available for service \"{}\"", about.name);
    Err(Refusal::new(Reason::ServiceUnavailable, message).about(about))
}

/// Pairs as a query.
pub fn encode_query(pairs: &[(String, String)]) -> String {
    let plain = |text: &str| utf8_percent_encode(text, PLAIN).to_string();
    pairs.iter().map(|(key, value)| format!("{}={}", plain(key), plain(value))).collect::<Vec<_>>().join("&")
}

fn joined(path: &str, query: &[(String, String)]) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", encode_query(query)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(part: &str, query: &str, wanted: Result<&str, &str>) {
        let pod = json!({"metadata": {"name": "web", "namespace": "d"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let query = crate::request::Query::read(query);
        match (kubelet_path(part, &pod, query.pairs()), wanted) {
            (Ok(path), Ok(wanted)) => assert_eq!(path, wanted),
            (Err(refusal), Err(wanted)) => assert!(refusal.message.contains(wanted), "{}", refusal.message),
            (told, wanted) => panic!("{told:?} is not {wanted:?}"),
        }
    }

    #[test]
    fn parts_of_pods_lead_to_kubelet_paths() {
        check(
            "log",
            "container=a&follow=true&tailLines=5",
            Ok("/containerLogs/d/web/a?follow=true&tailLines=5"),
        );
        check(
            "exec",
            "container=b&command=sh&command=-c&command=a+b&stdin=true&stdout=true&tty=true",
            Ok("/exec/d/web/b?command=sh&command=-c&command=a%20b&input=1&output=1&tty=1"),
        );
        check("portforward", "ports=80,81", Ok("/portForward/d/web?port=80&port=81"));
        check("log", "", Err("choose one of: [a b]"));
        check("log", "container=x", Err("container x is not valid"));
    }

    #[test]
    fn names_of_proxies_say_scheme_and_port() {
        assert_eq!(split_name("https:web:443"), ("https", "web", "443"));
        assert_eq!(split_name("web:http"), ("", "web", "http"));
        assert_eq!(split_name("web"), ("", "web", ""));
    }
}
