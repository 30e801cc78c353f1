//! The environment, command and arguments of a container. Pure: everything it needs is handed in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, EnvVar, EnvVarSource, ObjectFieldSelector, Secret, Service};
use runtime::Image;

use crate::pod::{Member, PodView};
use crate::resources::{self, Allocatable};

/// The search path of a container whose image names none, as other runtimes set it.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The ConfigMaps and Secrets of the pod's namespace that it uses, as far as they exist.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sources {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Secret>,
}

/// What the node knows and a pod may be told.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// What the node has to give.
    pub allocatable: Allocatable,
}

/// All that a container's environment is made from.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The pod.
    pub pod: &'a PodView,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// Its host name.
    pub hostname: &'a str,
    /// The node.
    pub node: &'a NodeFacts,
    /// ConfigMaps and Secrets.
    pub sources: &'a Sources,
    /// Services of the pod's namespace, and `kubernetes` of `default`.
    pub services: &'a [Service],
}

/// The pod asks for something that is not there: the container waits with `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Missing(pub String);

/// Names and values in the order they were given; a later one of the same name replaces the earlier in its place.
#[derive(Debug, Clone, Default)]
struct Variables {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Variables {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }
}

/// A container's environment as `NAME=value`, and its command line, everything resolved.
pub fn resolve(
    member: &Member,
    facts: &Facts<'_>,
    image: &Image,
) -> Result<(Vec<String>, Vec<String>), Missing> {
    let own = variables(member, facts)?;
    let mut all = Variables::default();
    all.set("HOSTNAME", facts.hostname.to_owned());
    for line in std::iter::once(PATH).chain(image.env.iter().map(String::as_str)) {
        if let Some((name, value)) = line.split_once('=') {
            all.set(name, value.to_owned());
        }
    }
    if member.container.tty.unwrap_or(false) {
        all.set("TERM", "xterm".to_owned());
    }
    for name in &own.order {
        all.set(name, own.values[name].clone());
    }
    let env = all.order.iter().map(|name| format!("{name}={}", all.values[name])).collect();
    Ok((env, command_line(member, &own.values, image)))
}

/// What the pod itself sets, without the image's: what `$(NAME)` and `subPathExpr` may refer to.
pub fn own_variables(member: &Member, facts: &Facts<'_>) -> Result<BTreeMap<String, String>, Missing> {
    Ok(variables(member, facts)?.values)
}

fn variables(member: &Member, facts: &Facts<'_>) -> Result<Variables, Missing> {
    let mut vars = Variables::default();
    let links = facts.pod.spec().enable_service_links.unwrap_or(true);
    for service in facts.services {
        let name = service.metadata.name.as_deref().unwrap_or("");
        let is_api = service.metadata.namespace.as_deref() == Some("default") && name == "kubernetes";
        let is_near = service.metadata.namespace.as_deref() == Some(facts.pod.namespace.as_str());
        if is_api || (links && is_near) {
            service_variables(service, &mut vars);
        }
    }
    from_sources(member, facts, &mut vars)?;
    for var in member.container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => value_from(member, facts, var, source)?,
            (Some(value), None) => Some(expand(value, &vars.values)),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            vars.set(&var.name, value);
        }
    }
    Ok(vars)
}

fn from_sources(member: &Member, facts: &Facts<'_>, vars: &mut Variables) -> Result<(), Missing> {
    for from in member.container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        if let Some(source) = &from.config_map_ref {
            match facts.sources.config_maps.get(&source.name) {
                Some(map) => {
                    for (name, value) in map.data.iter().flatten() {
                        vars.set(&format!("{prefix}{name}"), value.clone());
                    }
                }
                None if source.optional.unwrap_or(false) => {}
                None => return Err(not_found("configmap", &source.name)),
            }
        }
        if let Some(source) = &from.secret_ref {
            match facts.sources.secrets.get(&source.name) {
                Some(secret) => {
                    for (name, value) in secret.data.iter().flatten() {
                        vars.set(&format!("{prefix}{name}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if source.optional.unwrap_or(false) => {}
                None => return Err(not_found("secret", &source.name)),
            }
        }
    }
    Ok(())
}

fn not_found(kind: &str, name: &str) -> Missing {
    Missing(format!("{kind} {name:?} not found"))
}

/// The value of a variable that comes from elsewhere; `None` when it is optional and not there.
fn value_from(
    member: &Member,
    facts: &Facts<'_>,
    var: &EnvVar,
    source: &EnvVarSource,
) -> Result<Option<String>, Missing> {
    if let Some(field) = &source.field_ref {
        return Ok(Some(self::field(facts, field)?));
    }
    if let Some(field) = &source.resource_field_ref {
        let value = resources::field(facts.pod, member, field, &facts.node.allocatable);
        let missing = || Missing(format!("unsupported container resource: {}", field.resource));
        return value.ok_or_else(missing).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let is_optional = key.optional.unwrap_or(false);
        let Some(map) = facts.sources.config_maps.get(&key.name) else {
            return if is_optional { Ok(None) } else { Err(not_found("configmap", &key.name)) };
        };
        let value = map.data.as_ref().and_then(|data| data.get(&key.key)).cloned();
        return present(value, is_optional, "ConfigMap", &key.key, facts, &key.name);
    }
    if let Some(key) = &source.secret_key_ref {
        let is_optional = key.optional.unwrap_or(false);
        let Some(secret) = facts.sources.secrets.get(&key.name) else {
            return if is_optional { Ok(None) } else { Err(not_found("secret", &key.name)) };
        };
        let bytes = secret.data.as_ref().and_then(|data| data.get(&key.key));
        let value = bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned());
        return present(value, is_optional, "Secret", &key.key, facts, &key.name);
    }
    Err(Missing(format!("environment variable {:?} has no source this node knows", var.name)))
}

fn present(
    value: Option<String>,
    is_optional: bool,
    kind: &str,
    key: &str,
    facts: &Facts<'_>,
    name: &str,
) -> Result<Option<String>, Missing> {
    match value {
        None if !is_optional => {
            Err(Missing(format!("couldn't find key {key} in {kind} {}/{name}", facts.pod.namespace)))
        }
        value => Ok(value),
    }
}

/// What a `fieldRef` says.
pub fn field(facts: &Facts<'_>, field: &ObjectFieldSelector) -> Result<String, Missing> {
    let pod = facts.pod;
    let meta = &pod.pod.metadata;
    let path = field.field_path.as_str();
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(unsupported(path)),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    let join = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    Ok(match path {
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "metadata.uid" => pod.uid.clone(),
        "metadata.labels" => listed(meta.labels.as_ref()),
        "metadata.annotations" => listed(meta.annotations.as_ref()),
        "spec.nodeName" => facts.node.name.clone(),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => join(&facts.node.addresses[..facts.node.addresses.len().min(1)]),
        "status.hostIPs" => join(&facts.node.addresses),
        "status.podIP" => join(&facts.addresses[..facts.addresses.len().min(1)]),
        "status.podIPs" => join(facts.addresses),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> Missing {
    Missing(format!("unsupported fieldPath: {path}"))
}

/// A map as downward API files show it: `key="value"`, one a line, sorted.
fn listed(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// A Go string literal.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The variables that tell of a Service, in the style of Docker's links.
fn service_variables(service: &Service, vars: &mut Variables) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return };
    let upper = |text: &str| text.to_uppercase().replace('-', "_");
    let name = upper(service.metadata.name.as_deref().unwrap_or(""));
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    vars.set(&format!("{name}_SERVICE_HOST"), ip.to_owned());
    vars.set(&format!("{name}_SERVICE_PORT"), first.port.to_string());
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|port_name| !port_name.is_empty()) {
            vars.set(&format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
    }
    for (i, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if i == 0 {
            vars.set(&format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        vars.set(&prefix, url);
        vars.set(&format!("{prefix}_PROTO"), protocol.to_lowercase());
        vars.set(&format!("{prefix}_PORT"), port.port.to_string());
        vars.set(&format!("{prefix}_ADDR"), ip.to_owned());
    }
}

fn command_line(member: &Member, vars: &BTreeMap<String, String>, image: &Image) -> Vec<String> {
    let expanded = |list: &[String]| list.iter().map(|text| expand(text, vars)).collect::<Vec<_>>();
    let command = member.container.command.as_deref().unwrap_or_default();
    let args = member.container.args.as_deref().unwrap_or_default();
    match (command.is_empty(), args.is_empty()) {
        (false, _) => [expanded(command), expanded(args)].concat(),
        (true, false) => [image.entrypoint.clone(), expanded(args)].concat(),
        (true, true) => [image.entrypoint.clone(), image.command.clone()].concat(),
    }
}

/// Replaces `$(NAME)`; `$$` is a dollar sign; what is unknown or unclosed stays as it is.
pub fn expand(text: &str, vars: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match vars.get(name) {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::pod::testing::pod_with;

    /// The variables named in `shown` (all of the pod's own when empty), one a line.
    fn check(container: Value, services: Value, shown: &str, expected: Result<&str, &str>) {
        let mut all = json!({"name": "a", "image": "i"});
        if let (Some(all), Some(more)) = (all.as_object_mut(), container.as_object()) {
            all.extend(more.clone());
        }
        let meta = json!({"labels": {"app": "x", "tier": "y\"z"}, "annotations": {"n": "v"}});
        let pod = pod_with(meta, json!({"containers": [all], "serviceAccountName": "sa"}), json!({}));
        let services: Vec<Service> = serde_json::from_value(services).expect("services");
        let sources = Sources {
            config_maps: [(
                "cm".to_owned(),
                serde_json::from_value(json!({"data": {"k": "v1", "1-odd": "v2"}})).expect("a map"),
            )]
            .into(),
            secrets: [(
                "s".to_owned(),
                serde_json::from_value(json!({"data": {"p": "cGFzcw=="}})).expect("a secret"),
            )]
            .into(),
        };
        let node = NodeFacts {
            name: "n1".into(),
            addresses: vec!["192.0.2.1".parse().expect("an address")],
            allocatable: Allocatable { cpu_millis: 2000, memory: 1 << 30, ephemeral_storage: 0, pods: 110 },
        };
        let addresses = ["10.0.0.5".parse().expect("an address")];
        let facts = Facts {
            pod: &pod,
            addresses: &addresses,
            hostname: "web",
            node: &node,
            sources: &sources,
            services: &services,
        };
        let seen = own_variables(&pod.members[0], &facts).map(|vars| {
            let wanted: Vec<_> = shown.split_whitespace().collect();
            let all = vars.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(&name.as_str()));
            all.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("\n")
        });
        assert_eq!(seen.map_err(|missing| missing.0), expected.map(str::to_owned).map_err(str::to_owned));
    }

    #[test]
    fn variables_refer_to_earlier_ones() {
        let env = json!({"env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)-$$(A)-$("}, {"name": "C", "value": "$(B)"},
        ]});
        check(env, json!([]), "", Ok("A=1\nB=1-$(C)-$(A)-$(\nC=1-$(C)-$(A)-$("));
    }

    #[test]
    fn fields_of_pod_and_node_are_told() {
        let field =
            |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let env = json!({"env": [
            field("A", "metadata.name"), field("B", "status.podIP"), field("C", "status.hostIP"),
            field("D", "metadata.labels['tier']"), field("E", "spec.serviceAccountName"), field("F", "metadata.labels"),
        ]});
        check(
            env,
            json!([]),
            "",
            Ok("A=web\nB=10.0.0.5\nC=192.0.2.1\nD=y\"z\nE=sa\nF=app=\"x\"\ntier=\"y\\\"z\""),
        );
    }

    #[test]
    fn maps_and_secrets_are_read_and_their_lack_is_told() {
        let env = json!({"envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}], "env": [
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "O", "valueFrom": {"secretKeyRef": {"name": "none", "key": "p", "optional": true}}},
        ]});
        check(env, json!([]), "", Ok("P_1-odd=v2\nP_k=v1\nS=pass"));
        let env =
            json!({"env": [{"name": "S", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no"}}}]});
        check(env, json!([]), "", Err("couldn't find key no in ConfigMap shop/cm"));
        check(
            json!({"envFrom": [{"secretRef": {"name": "x"}}]}),
            json!([]),
            "",
            Err("secret \"x\" not found"),
        );
    }

    #[test]
    fn services_are_told_in_the_style_of_links() {
        let services = json!([
            {"metadata": {"name": "foo-svc", "namespace": "shop"},
             "spec": {"clusterIP": "10.9.0.1", "ports": [{"port": 8765, "name": "web"}]}},
            {"metadata": {"name": "head", "namespace": "shop"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
            {"metadata": {"name": "far", "namespace": "other"}, "spec": {"clusterIP": "10.9.0.2", "ports": [{"port": 1}]}},
        ]);
        check(
            json!({}),
            services,
            "",
            Ok("FOO_SVC_PORT=tcp://10.9.0.1:8765\nFOO_SVC_PORT_8765_TCP=tcp://10.9.0.1:8765\n\
                FOO_SVC_PORT_8765_TCP_ADDR=10.9.0.1\nFOO_SVC_PORT_8765_TCP_PORT=8765\n\
                FOO_SVC_PORT_8765_TCP_PROTO=tcp\nFOO_SVC_SERVICE_HOST=10.9.0.1\nFOO_SVC_SERVICE_PORT=8765\n\
                FOO_SVC_SERVICE_PORT_WEB=8765"),
        );
    }

    #[test]
    fn command_and_arguments_override_the_images() {
        let check = |command: Value, args: Value, expected: &str| {
            let spec = json!({"containers": [{"name": "a", "command": command, "args": args}]});
            let pod = pod_with(json!({}), spec, json!({}));
            let image =
                Image { entrypoint: vec!["ep".into()], command: vec!["cmd".into()], ..Image::default() };
            let vars = [("V".to_owned(), "x".to_owned())].into();
            assert_eq!(command_line(&pod.members[0], &vars, &image).join(" "), expected);
        };
        check(json!(null), json!(null), "ep cmd");
        check(json!(null), json!(["$(V)"]), "ep x");
        check(json!(["c"]), json!(null), "c");
        check(json!(["c"]), json!(["d"]), "c d");
    }
}
