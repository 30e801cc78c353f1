//! What this crate reads from strangers, each as a function of bytes, for whoever throws garbage at it. None may panic, and
//! what can be read can be written and read again.

use std::rc::Rc;

use bytes::Bytes;
use cel::{Ask, Budget, Environment, Program, Value};
use http::{HeaderMap, HeaderValue};
use model::schema::to_bytes;
use model::{FieldSelector, Gvr, Selector, Texts, Time, Tree, kinds};
use serde_json::json;

use crate::auth::tokens::Tokens;
use crate::auth::{Identity, from_certificate};
use crate::cel::Asker;
use crate::codec;
use crate::guard::AllowAll;
use crate::http::negotiate;
use crate::patch::managed::Manager;
use crate::patch::ssa::Intent;
use crate::registry::{Registry, Resource};
use crate::request::{self, ListOptions, Query, Validation, WriteOptions};
use crate::{patch, proto, yaml};

/// Something that reads bytes of strangers.
pub struct Target {
    /// What it reads.
    pub name: &'static str,
    /// Bytes that make sense to it, to begin with.
    pub seeds: Vec<Vec<u8>>,
    /// Reads bytes.
    pub read: fn(&[u8]),
}

/// All of them.
pub fn targets() -> Vec<Target> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let objects = samples();
    let json: Vec<Vec<u8>> = objects.iter().map(|object| to_bytes(object).to_vec()).collect();
    let yaml: Vec<Vec<u8>> = objects.iter().map(|object| yaml::from_tree(object).to_vec()).collect();
    let protobuf = json.iter().filter_map(|json| proto::from_json(json).ok()).map(|bytes| bytes.to_vec());
    let protobuf: Vec<Vec<u8>> = protobuf.collect();
    vec![
        Target { name: "json", seeds: json, read: json_body },
        Target {
            name: "yaml",
            seeds: [yaml, texts(&["a: &x [1]\nb: *x", "? {a: b}\n: - c"])].concat(),
            read: yaml_body,
        },
        Target { name: "protobuf", seeds: protobuf, read: protobuf_body },
        Target { name: "patch", seeds: texts(PATCHES), read: patches },
        Target { name: "selector", seeds: texts(SELECTORS), read: selectors },
        Target { name: "request", seeds: texts(REQUESTS), read: requests },
        Target { name: "accept", seeds: texts(ACCEPTS), read: accepts },
        Target { name: "x509", seeds: certificates(), read: certificate },
        Target { name: "token", seeds: tokens(), read: token },
        Target { name: "cel", seeds: texts(EXPRESSIONS), read: expression },
    ]
}

const PATCHES: &[&str] = &[
    r#"[{"op":"replace","path":"/spec/containers/0/image","value":"x"},{"op":"test","path":"/kind","value":"Pod"}]"#,
    r#"[{"op":"copy","from":"/metadata","path":"/spec/a~1b"},{"op":"remove","path":"/spec/containers/-"}]"#,
    r#"{"spec":{"containers":[{"name":"c","image":null,"$patch":"delete"}],"$setElementOrder/containers":[{"name":"c"}]}}"#,
    r#"{"metadata":{"labels":{"a":null},"finalizers":["x"],"$deleteFromPrimitiveList/finalizers":["y"]},"$retainKeys":["a"]}"#,
    r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"d","ports":[{"containerPort":1,"protocol":"TCP"}]}]}}"#,
];
const SELECTORS: &[&str] = &[
    "a=b,c!=d,e in (f,g),!h,i",
    "metadata.name=x,spec.nodeName!=y\\,z",
    "x/y notin (a)",
    "a == b",
    "k>1,l<2",
];
const REQUESTS: &[&str] = &[
    "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true",
    "/apis/apps/v1/watch/deployments?labelSelector=a%3Db&resourceVersion=5&limit=3&continue=eyJydiI6MX0",
    "/api/v1/nodes/n:10250/proxy/a/b?c=d&fieldManager=x&dryRun=All&fieldValidation=Strict",
];
const ACCEPTS: &[&str] = &[
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5,*/*",
    "application/vnd.kubernetes.protobuf;stream=watch,application/yaml",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
];

const EXPRESSIONS: &[&str] = &[
    "self.hosts.all(host, host.matches('^[a-z.]+$') && size(host) < 10) || !has(self.size)",
    "self.sizes.map(x, x * 2).filter(y, y > 2 && y in [4, 6]).sum() == oldSelf.size + 1",
    r#"has(object.metadata.labels) ? object.metadata.labels['a'] : 'none' + string(1.5) + "\u00e9""#,
    "object.spec.containers.exists_one(c, c.?image.orValue('').split(':')[0].lowerAscii() == 'i')",
    "timestamp('2026-01-02T03:04:05Z').getHours('Europe/Berlin') + duration('1h30m').getMinutes() > -0x1f",
    r"cel.bind(x, {'a': [1u, 2u], 'b': []}, x.a.indexOf(2u) == 1) && b'\x00a' != bytes('a') && r'\' == '\\'",
    "authorizer.group('apps').resource('pods').fieldSelector('spec.nodeName=a').check('get').allowed()",
    "quantity('1.5Gi').isGreaterThan(quantity('1500m')) && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.1.1')",
    "url('https://a:80/b?c=d').getPort() == '80' || isSemver('1.2.3') && 'a%sb%d'.format(['x', 1]).replace('a', 'b', 1) > 'a'",
    "self.limits.all(k, v, k.startsWith('a') && v < 3) && dyn([1, 'a', null, true, {1: 2.0}]) != [] ? 1 / self.size : 9 % 0",
];

/// Objects of kinds whose rules differ most.
fn samples() -> Vec<Tree> {
    let meta = json!({"name": "x", "namespace": "default", "labels": {"a": "b"}, "managedFields": [{"manager": "m",
        "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "time": "2026-01-01T00:00:00Z",
        "fieldsV1": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}}}}]});
    let pod = json!({"restartPolicy": "Always", "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
        "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "1500m", "memory": "1e9"}},
            "ports": [{"containerPort": 80}], "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 1},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}], "env": [{"name": "A", "value": "$(B)"}]}],
        "tolerations": [{"operator": "Exists"}], "nodeSelector": {"a": "b"}});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod});
    vec![
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"a": "aGVsbG8="}, "type": "Opaque"}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1",
            "ports": [{"port": 80, "targetPort": "http", "nodePort": 30000}], "selector": {"a": "b"}}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "strategy": {"rollingUpdate": {"maxSurge": "25%"}}, "template": template}}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": {"schedule": "*/5 * * * *",
            "timeZone": "Etc/UTC", "jobTemplate": {"spec": {"template": template}}}}),
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a.b.c"},
            "spec": {"group": "b.c", "names": {"plural": "a", "kind": "A"}, "scope": "Cluster", "versions": [{"name": "v1",
            "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "x": {"type": "array", "items": {"type": "string", "pattern": "^a+$", "enum": ["a"]}},
                "y": {"x-kubernetes-int-or-string": true, "default": 5}}, "additionalProperties": false}}}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": {"rules": [{"host": "*.a.b",
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 1}}}}]}}]}}),
    ]
}

fn resource_of(gvr: &Gvr) -> Option<std::sync::Arc<Resource>> {
    thread_local! {
        static BUILT_IN: Registry = Registry::built_in();
    }
    BUILT_IN.with(|registry| registry.get(gvr).cloned())
}

const GVRS: &[&Gvr] = &[
    &kinds::POD,
    &kinds::SECRET,
    &kinds::SERVICE,
    &kinds::DEPLOYMENT,
    &kinds::CRON_JOB,
    &kinds::CUSTOM_RESOURCE_DEFINITION,
    &kinds::INGRESS,
];

/// A body goes the way of one that is created: read, filled in, checked; and what was stored is read again.
fn judged(media: &str, bytes: &[u8]) {
    for gvr in GVRS {
        let Some(resource) = resource_of(gvr) else { continue };
        let body = Bytes::copy_from_slice(bytes);
        let Ok(read) = codec::read(&resource, media, &body, Validation::Warn) else { continue };
        let mut object = read.object;
        codec::settle(&resource, &mut object);
        // It may well be refused.
        let _ = codec::check(&resource, None, &object, "");
        let _ = codec::check(&resource, Some(&object), &object, "");
        let again = codec::read(&resource, "application/json", &to_bytes(&object), Validation::Strict);
        assert_eq!(again.expect("what was read can be read").object, object);
    }
}

fn json_body(bytes: &[u8]) {
    judged("application/json", bytes);
}

fn yaml_body(bytes: &[u8]) {
    // What short bytes unfold to stays short.
    if let Ok((json, _)) = yaml::to_json(&Bytes::copy_from_slice(bytes)) {
        assert!(json.len() <= 1 << 22, "{} bytes became {}", bytes.len(), json.len());
    }
    judged("application/yaml", bytes);
}

fn protobuf_body(bytes: &[u8]) {
    judged(proto::MEDIA, bytes);
    let Ok(tree) = proto::to_tree(bytes) else { return };
    let Ok(written) = proto::from_json(&to_bytes(&tree)) else { return };
    let again = proto::to_tree(&written).expect("what was written can be read");
    let rewritten = proto::from_json(&to_bytes(&again)).expect("what was read can be written");
    assert_eq!(proto::to_tree(&rewritten).expect("what was written can be read"), again);
}

fn patches(bytes: &[u8]) {
    let Some(resource) = resource_of(&kinds::POD) else { return };
    let Some(old) = samples().into_iter().next() else { return };
    for media in [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ] {
        if let Ok(patched) = patch::patched(&resource, &old, bytes, media) {
            let _ = codec::recheck(&resource, patched, Validation::Warn);
        }
    }
    let body = Bytes::copy_from_slice(bytes);
    let Ok(read) = codec::read_apply(&resource, &body, Validation::Warn) else { return };
    let manager = Manager { name: "m".into(), applies: true, api_version: "v1".into(), part: String::new() };
    let intent = Intent { config: &read.object, manager: &manager, force: false };
    let _ = patch::applied(&resource, &old, &intent, Time::UNIX_EPOCH);
}

fn selectors(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(selector) = Selector::parse(&text) {
        let _ = selector.matches(&Texts::new([("a", "b")]));
    }
    let _ = FieldSelector::parse(&text);
}

fn requests(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let query = Query::read(query);
    let _ = (ListOptions::read(&query), WriteOptions::read(&query, &HeaderMap::new()));
    if let Ok(route) = request::route(path) {
        let _ = request::attributes(&route, &http::Method::GET, &query);
    }
}

fn accepts(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers = HeaderMap::from_iter([(http::header::ACCEPT, value)]);
    let _ = (negotiate::wants_aggregated(&headers), negotiate::wants_protobuf(&headers));
}

fn certificates() -> Vec<Vec<u8>> {
    use crate::auth::pki::{Purpose, issue, new_authority};
    let now = Time::UNIX_EPOCH;
    let Ok(authority) = new_authority("ca", now) else { return Vec::new() };
    let issued = issue(&authority, "system:node:n", "system:nodes", &Purpose::Client, now);
    let ders = issued.ok().and_then(|pair| pair.to_der().ok()).map(|(chain, _)| chain);
    ders.into_iter().flatten().map(|der| der.to_vec()).collect()
}

fn certificate(bytes: &[u8]) {
    let _ = from_certificate(bytes);
}

fn signer() -> Option<&'static Tokens> {
    static SIGNER: std::sync::OnceLock<Option<Tokens>> = std::sync::OnceLock::new();
    let made = || Tokens::new(&crate::auth::pki::new_token_key().ok()?, "https://k").ok();
    SIGNER.get_or_init(made).as_ref()
}

fn tokens() -> Vec<Vec<u8>> {
    // Of no cluster, but of the right form.
    vec![
        b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2siLCJhdWQiOlsiYXBpIl0sImV4cCI6MX0.c2ln"
            .to_vec(),
    ]
}

fn token(bytes: &[u8]) {
    let Some(signer) = signer() else { return };
    let read = signer.verify(&String::from_utf8_lossy(bytes), &["api"], Time::UNIX_EPOCH);
    assert!(read.is_err(), "nobody has signed this");
}

/// An expression is compiled where types are known and where they are not, and asked of a sample within a budget.
fn expression(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let text_of = |most: u64| json!({"type": "string", "maxLength": most});
    let schema = json!({"type": "object", "properties": {"size": {"type": "integer"},
        "hosts": {"type": "array", "maxItems": 5, "items": text_of(20), "x-kubernetes-list-type": "set"},
        "sizes": {"type": "array", "items": {"type": "integer"}}, "since": {"type": "string", "format": "date-time"},
        "limits": {"type": "object", "additionalProperties": {"type": "number"}},
        "any": {"x-kubernetes-int-or-string": true}}});
    let custom = json!({"size": 3, "hosts": ["a.b", "c"], "sizes": [1, 2, 3], "since": "2026-01-01T00:00:00Z",
        "limits": {"a": 1.5}, "any": "50%"});
    let pod = samples().into_iter().next().unwrap_or_default();
    let by = Asker { guard: &AllowAll, identity: &Identity::default() };
    if let Some(of) = crate::custom::type_of(&schema) {
        let environment = Environment::default().with("self", of.clone()).with("oldSelf", of.clone());
        let value = || Value::read(&custom, &of);
        evaluate(&text, &environment, &[("self", value()), ("oldSelf", value())]);
    }
    let names = [("object", Value::json(&pod)), ("authorizer", Value::Ask(Rc::new(Ask::new(&by))))];
    evaluate(&text, &Environment::of(&["object", "authorizer"]), &names);
}

fn evaluate(text: &str, environment: &Environment, names: &[(&str, Value<'_>)]) {
    /// Enough for every seed, and little enough that thousands of cases take a second.
    const STEPS_MAX: u64 = 20_000;
    let Ok(program) = Program::compile(text, environment) else { return };
    let mut budget = Budget::new(STEPS_MAX);
    let Ok(value) = program.evaluate(names, &mut budget) else { return };
    let promised = program.gives().to_string();
    if matches!(&*promised, "bool" | "int" | "uint" | "double" | "string" | "bytes") {
        assert_eq!(value.type_name(), promised, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_takes_what_makes_sense() {
        for target in targets() {
            assert!(!target.seeds.is_empty(), "{} has no seeds", target.name);
            target.seeds.iter().for_each(|seed| (target.read)(seed));
        }
        for object in samples() {
            let read = |gvr: &&Gvr| {
                let resource = resource_of(gvr).expect("it is served");
                codec::read(&resource, "application/json", &to_bytes(&object), Validation::Strict).is_ok()
                    && resource.kind == object["kind"].as_str().unwrap_or_default()
            };
            assert!(GVRS.iter().any(read), "nobody takes {}", object["kind"]);
        }
    }
}
