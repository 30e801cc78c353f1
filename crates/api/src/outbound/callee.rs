//! Whom a `clientConfig` names: where they are reached and how they are known. Pure over a view.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HOST, HeaderValue, InvalidHeaderValue};
use model::tree::{items, text, whole};
use model::{Key, Tree, World, kinds};
use serde_json::{Value, json};

use super::CallError;
use super::credentials::{Credentials, Introductions, Token};
use crate::dial::{Backend, Shows, Tls, Trust};

/// A program outside that is asked over https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callee {
    place: Place,
    /// Its path, with a leading slash.
    pub path: String,
    /// The token by which it knows us.
    pub(super) token: Option<Token>,
    trust: Arc<Trust>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// At a host and a port.
    Host(String, u16),
    /// Behind a Service: namespace, name, port.
    Service(String, String, u16),
}

impl Callee {
    /// Whom a webhook's `clientConfig` names; `Err` says why it names nobody.
    pub fn of_client_config(config: &Tree) -> Result<Self, String> {
        let bundle = authorities(config)?;
        let service = &config["service"];
        if service.is_object() {
            let port = whole(service, "port").and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
            let mut callee = Self::of_service(text(service, "namespace"), text(service, "name"), port);
            callee.path = rooted(text(service, "path"));
            callee.trust = Arc::new(Trust { authorities: bundle, ..(*callee.trust).clone() });
            return Ok(callee);
        }
        let url = text(config, "url");
        if url.is_empty() {
            return Err("webhook configuration must have either service or URL".to_owned());
        }
        let uri: http::Uri = url.parse().map_err(|why| format!("Unparsable URL: {why}"))?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        if uri.scheme_str() != Some("https") || host.is_empty() {
            return Err(format!("Unparsable URL: {url:?} is no https URL"));
        }
        let trust =
            Trust { name: host.clone(), authorities: bundle, unverified: false, shows: Shows::Nothing };
        Ok(Self {
            place: Place::Host(host, uri.port_u16().unwrap_or(443)),
            path: rooted(uri.path()),
            token: None,
            trust: Arc::new(trust),
        })
    }

    /// A server at an https URL, whose certificate one of these authorities (PEM; none: those of the machine) has signed.
    pub fn at(url: &str, authorities: &[u8]) -> Result<Self, String> {
        Self::of_client_config(&json!({"url": url, "caBundle": STANDARD.encode(authorities)}))
    }

    /// The program behind a Service, known by the Service's name.
    pub fn of_service(namespace: &str, name: &str, port: u16) -> Self {
        let trust = Trust {
            name: format!("{name}.{namespace}.svc"),
            authorities: Vec::new(),
            unverified: false,
            shows: Shows::Nothing,
        };
        Self {
            place: Place::Service(namespace.to_owned(), name.to_owned(), port),
            path: "/".to_owned(),
            token: None,
            trust: Arc::new(trust),
        }
    }

    /// An extension server: asked as the front proxy, known as its APIService says.
    pub fn of_api_service(object: &Tree) -> Result<Self, String> {
        let (spec, service) = (&object["spec"], &object["spec"]["service"]);
        let port = whole(service, "port").and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let mut callee = Self::of_service(text(service, "namespace"), text(service, "name"), port);
        callee.trust = Arc::new(Trust {
            authorities: authorities(spec)?,
            unverified: spec["insecureSkipTLSVerify"] == true,
            shows: Shows::FrontProxy,
            ..(*callee.trust).clone()
        });
        Ok(callee)
    }

    /// The same, who is shown this.
    pub fn shown(mut self, credentials: Credentials) -> Self {
        self.token = credentials.token;
        if let Some(pair) = credentials.client {
            self.trust = Arc::new(Trust { shows: Shows::Own(pair), ..(*self.trust).clone() });
        }
        self
    }

    /// The same, who is shown what is meant for it.
    pub fn introduced(self, introductions: &Introductions) -> Self {
        let (Place::Host(_, port) | Place::Service(_, _, port)) = &self.place;
        let credentials = introductions.to(&self.trust.name, *port).clone();
        self.shown(credentials)
    }

    /// Host and port as the other side knows them.
    pub fn authority(&self) -> String {
        let (name, port) = match &self.place {
            Place::Host(host, port) if host.contains(':') => (format!("[{host}]"), port),
            Place::Host(host, port) => (host.clone(), port),
            Place::Service(_, _, port) => (self.trust.name.clone(), port),
        };
        match (&self.place, port) {
            (Place::Host(..), 443) => name,
            _ => format!("{name}:{port}"),
        }
    }

    /// Says in a request's head who is asked and, where it knows us by a token, who asks.
    pub(super) fn name_both(&self, headers: &mut HeaderMap) -> Result<(), CallError> {
        let unresolved = |why: InvalidHeaderValue| CallError::Unresolved(why.to_string());
        headers.insert(HOST, self.authority().parse().map_err(unresolved)?);
        if let Some(token) = &self.token {
            let token = token.now().map_err(CallError::Unresolved)?;
            let mut value: HeaderValue = format!("Bearer {token}").parse().map_err(unresolved)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(())
    }

    /// Where it is reached now, in the order in which to try; `turn` shares the load.
    pub fn backends(&self, view: &dyn World, turn: u64) -> Result<Vec<Backend>, String> {
        let found = match &self.place {
            Place::Host(host, port) => vec![(host.clone(), *port)],
            Place::Service(namespace, name, port) => {
                let mut all = service_endpoints(view, namespace, name, *port)?;
                let len = u64::try_from(all.len()).unwrap_or(1).max(1);
                all.rotate_left(usize::try_from(turn % len).unwrap_or(0));
                all
            }
        };
        let tls = Tls::Extension(self.trust.clone());
        Ok(found.into_iter().map(|(host, port)| Backend { host, port, tls: tls.clone() }).collect())
    }
}

fn authorities(of: &Tree) -> Result<Vec<u8>, String> {
    let bundle = STANDARD.decode(text(of, "caBundle")).map_err(|why| format!("caBundle: {why}"))?;
    // One of white space alone counts as none.
    Ok(if bundle.trim_ascii().is_empty() { Vec::new() } else { bundle })
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// Where the ready endpoints of a Service's port are.
pub fn service_endpoints(
    view: &dyn World,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Vec<(String, u16)>, String> {
    let service = view.get(&Key::new(&kinds::SERVICE, namespace, name));
    let service = service.and_then(|service| service.tree().ok());
    let service = service.ok_or_else(|| format!("service \"{name}\" not found"))?;
    if text(&service, "spec.type") == "ExternalName" {
        return Ok(vec![(text(&service, "spec.externalName").to_owned(), port)]);
    }
    let wanted = items(&service, "spec.ports").iter().find(|own| own["port"] == port);
    let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service \"{name}\""))?;
    let found = ready(view, namespace, name, text(wanted, "name"));
    match found.is_empty() {
        true => Err(format!("no endpoints available for service \"{name}\"")),
        false => Ok(found),
    }
}

/// The ready endpoints of a Service under one name of its ports.
pub fn ready(view: &dyn World, namespace: &str, service: &str, port_name: &str) -> Vec<(String, u16)> {
    let slices = view.list(&kinds::ENDPOINT_SLICE, namespace);
    let own = slices.iter().filter(|slice| {
        slice.meta().labels.get("kubernetes.io/service-name").is_some_and(|name| name == service)
    });
    let mut found = Vec::new();
    for slice in own.filter_map(|slice| slice.tree().ok()) {
        let port = items(&slice, "ports").iter().find(|own| text(own, "name") == port_name);
        let port = port.and_then(|own| own["port"].as_u64()).and_then(|port| u16::try_from(port).ok());
        let Some(port) = port else { continue };
        let endpoints = items(&slice, "endpoints").iter();
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != Value::Bool(false));
        let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str());
        found.extend(addresses.map(|address| (address.to_owned(), port)));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admit::testing::Few;

    fn check(config: Tree, wanted: Result<&str, &str>) {
        let world = Few::new(&[
            (
                &kinds::SERVICE,
                r#"{"metadata": {"name": "hook", "namespace": "n"}, "spec": {"ports": [{"port": 8443, "name": "https"}]}}"#,
            ),
            (
                &kinds::SERVICE,
                r#"{"metadata": {"name": "none", "namespace": "n"}, "spec": {"ports": [{"port": 443}]}}"#,
            ),
            (
                &kinds::ENDPOINT_SLICE,
                r#"{"metadata": {"name": "hook-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "hook"}},
                "ports": [{"name": "https", "port": 8444}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}, {"addresses": ["10.0.0.2"]}]}"#,
            ),
        ]);
        let told = Callee::of_client_config(&config).and_then(|callee| {
            let backends = callee.backends(&world, 0)?;
            let places: Vec<String> = backends.iter().map(|to| format!("{}:{}", to.host, to.port)).collect();
            Ok(format!("{}{} at {}", callee.authority(), callee.path, places.join(" ")))
        });
        assert_eq!(told.as_deref().map_err(String::as_str), wanted, "{config}");
    }

    #[test]
    fn a_client_config_leads_to_ready_endpoints_or_to_its_url() {
        let service = |name: &str, port: u16| json!({"service": {"namespace": "n", "name": name, "port": port, "path": "/x"}});
        check(service("hook", 8443), Ok("hook.n.svc:8443/x at 10.0.0.2:8444"));
        check(service("hook", 443), Err("no service port 443 found for service \"hook\""));
        check(service("none", 443), Err("no endpoints available for service \"none\""));
        check(service("gone", 443), Err("service \"gone\" not found"));
        check(
            json!({"url": "https://hook.example:9443/a/b"}),
            Ok("hook.example:9443/a/b at hook.example:9443"),
        );
        check(json!({"url": "https://[::1]/"}), Ok("[::1]/ at ::1:443"));
        check(
            json!({"url": "http://hook.example"}),
            Err("Unparsable URL: \"http://hook.example\" is no https URL"),
        );
        check(json!({}), Err("webhook configuration must have either service or URL"));
    }
}
