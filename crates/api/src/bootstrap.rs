//! What a new cluster has before anybody asks: made at start-up, through the same path as every other write.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, StatusCode};
use model::kinds::of;
use model::storage::{LOCAL, SHARED};
use model::{Gvr, Key, Tree};
use serde_json::{Value, json};

use crate::auth::reconcile::{self, Mend};
use crate::auth::{Identity, MASTERS, roles};
use crate::refusal::Refusal;
use crate::service::Service;
use crate::settings::Settings;
use crate::view::path_of;

/// How many objects are made at once: enough to share the store's syncs.
const AT_ONCE: usize = 64;

/// One object that is there from the first moment.
struct First {
    gvr: Gvr,
    namespace: String,
    object: Tree,
}

impl First {
    fn new(gvr: Gvr, object: Tree) -> Self {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        Self { gvr, namespace, object }
    }

    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Makes what is missing. Doing it again changes nothing but where the API is found, and what default roles lack.
pub async fn run(service: &Service) -> Result<(), Refusal> {
    let identity = Identity::user("system:apiserver", &[MASTERS]);
    // Namespaces first: the others live in them.
    for firsts in [namespaces(), objects(service.settings())] {
        let all: Vec<_> = firsts.iter().map(|first| make(service, &identity, first)).collect();
        let ends: Vec<Result<(), Refusal>> = stream::iter(all).buffer_unordered(AT_ONCE).collect().await;
        ends.into_iter().collect::<Result<(), _>>()?;
    }
    // A loopback address leads pods to themselves: then there is no way for them to tell.
    // Where several servers share the store, they see to it together.
    let reachable = !service.settings().advertise.ip().is_loopback() && !service.store().is_shared();
    for first in advertised(service.settings()).iter().filter(|_| reachable) {
        put(service, &identity, first, "").await?;
    }
    put(service, &identity, &ready_cidr(service.settings()), "status").await
}

fn namespaces() -> Vec<First> {
    let names = ["default", "kube-system", "kube-public", "kube-node-lease"];
    names.map(|name| First::new(of::NAMESPACE, json!({"metadata": {"name": name}}))).into()
}

fn objects(settings: &Settings) -> Vec<First> {
    let mut all = vec![
        kubernetes_service(settings),
        authentication(settings),
        cluster_authority(settings),
        service_cidr(settings),
    ];
    all.extend(priority_classes());
    all.extend(storage_classes(settings));
    all.extend(roles::defaults().into_iter().filter_map(role));
    all
}

fn role(object: Value) -> Option<First> {
    let gvr = match object["kind"].as_str()? {
        "ClusterRole" => of::CLUSTER_ROLE,
        "ClusterRoleBinding" => of::CLUSTER_ROLE_BINDING,
        "Role" => of::ROLE,
        "RoleBinding" => of::ROLE_BINDING,
        _ => return None,
    };
    Some(First::new(gvr, object))
}

fn kubernetes_service(settings: &Settings) -> First {
    First::new(
        of::SERVICE,
        json!({
            "metadata": {"name": "kubernetes", "namespace": "default",
                "labels": {"component": "apiserver", "provider": "kubernetes"}},
            "spec": {
                "type": "ClusterIP", "clusterIP": settings.service_cidr.first().to_string(), "sessionAffinity": "None",
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": settings.advertise.port()}],
            },
        }),
    )
}

/// Where the pods find the API, which may be elsewhere after each start.
fn advertised(settings: &Settings) -> [First; 2] {
    let (address, port) = (settings.advertise.ip().to_string(), settings.advertise.port());
    let family = if settings.advertise.is_ipv4() { "IPv4" } else { "IPv6" };
    let endpoints = json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    let slice = json!({
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    [First::new(of::ENDPOINTS, endpoints), First::new(of::ENDPOINT_SLICE, slice)]
}

fn priority_classes() -> Vec<First> {
    let class = |name: &str, value: i64, what: &str| {
        First::new(
            of::PRIORITY_CLASS,
            json!({"metadata": {"name": name}, "value": value,
                "description": format!("Used for system critical pods that {what}.")}),
        )
    };
    vec![
        class(
            "system-cluster-critical",
            2_000_000_000,
            "must run in the cluster, but can be moved to another node if necessary",
        ),
        class("system-node-critical", 2_000_001_000, "must not be moved from their current node"),
    ]
}

/// The built-in drivers, and the classes whose volumes they make. A class that an administrator changed or no longer
/// calls the default stays as it is.
fn storage_classes(settings: &Settings) -> Vec<First> {
    let class = |name: &str, driver: &str, is_default: bool| {
        let annotations = json!({"storageclass.kubernetes.io/is-default-class": is_default.to_string()});
        First::new(
            of::STORAGE_CLASS,
            json!({"metadata": {"name": name, "annotations": annotations}, "provisioner": driver,
                "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true}),
        )
    };
    let driver = |name: &str, is_attached: bool| {
        let spec = json!({"attachRequired": is_attached, "podInfoOnMount": false, "fsGroupPolicy": "File",
            "volumeLifecycleModes": ["Persistent"]});
        First::new(of::CSI_DRIVER, json!({"metadata": {"name": name}, "spec": spec}))
    };
    let mut all = vec![driver(LOCAL, false), driver(SHARED, true), class("local", LOCAL, true)];
    if settings.has_shared_storage {
        all.push(class("shared", SHARED, false));
    }
    all
}

/// The authority that pods verify the API by: the controller that publishes it in every namespace reads it here.
fn cluster_authority(settings: &Settings) -> First {
    First::new(
        of::CONFIG_MAP,
        json!({
            "metadata": {"name": "kintsugi-cluster-ca", "namespace": "kube-system"},
            "data": {"ca.crt": settings.client_ca},
        }),
    )
}

/// How API servers behind this one know whom a request is from.
fn authentication(settings: &Settings) -> First {
    let mut data = json!({
        "client-ca-file": settings.client_ca,
        "requestheader-client-ca-file": settings.front_proxy_ca,
        "requestheader-username-headers": "[\"X-Remote-User\"]",
        "requestheader-uid-headers": "[\"X-Remote-Uid\"]",
        "requestheader-group-headers": "[\"X-Remote-Group\"]",
        "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]",
        "requestheader-allowed-names": "[\"front-proxy-client\"]",
    });
    if let Some(data) = data.as_object_mut() {
        data.retain(|_, value| value != "");
    }
    let metadata = json!({"name": "extension-apiserver-authentication", "namespace": "kube-system"});
    First::new(of::CONFIG_MAP, json!({"metadata": metadata, "data": data}))
}

fn service_cidr(settings: &Settings) -> First {
    let spec = json!({"cidrs": [settings.service_cidr.to_string()]});
    First::new(of::SERVICE_CIDR, json!({"metadata": {"name": "kubernetes"}, "spec": spec}))
}

fn ready_cidr(settings: &Settings) -> First {
    let mut first = service_cidr(settings);
    first.object["status"] = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]});
    first
}

/// Creates an object unless it is there already.
async fn make(service: &Service, identity: &Identity, first: &First) -> Result<(), Refusal> {
    // What is there from an earlier start is left alone, before admission can mind what it has taken already.
    let key = Key::new(&first.gvr, first.namespace.clone(), first.name());
    if let Some(record) = service.store().get(&path_of(&key)) {
        return match &*first.gvr.group {
            "rbac.authorization.k8s.io" => mend(service, identity, first, &record.value).await,
            _ => Ok(()),
        };
    }
    create(service, identity, first).await
}

/// Gives a default role or binding what it lacks.
async fn mend(service: &Service, identity: &Identity, first: &First, found: &[u8]) -> Result<(), Refusal> {
    // What is stored was written by us.
    let found: Tree = serde_json::from_slice(found).unwrap_or_default();
    match reconcile::mend(&found, &first.object) {
        Mend::Nothing => Ok(()),
        Mend::Put(object) => put(service, identity, &First::new(first.gvr.clone(), object), "").await,
        Mend::Anew => {
            let path = format!("{}/{}", first.gvr.collection_path(&first.namespace), first.name());
            ask(service, identity, Method::DELETE, &path, &Tree::Null).await?;
            create(service, identity, first).await
        }
    }
}

async fn create(service: &Service, identity: &Identity, first: &First) -> Result<(), Refusal> {
    let path = first.gvr.collection_path(&first.namespace);
    match ask(service, identity, Method::POST, &path, &first.object).await? {
        (status, _) if status.is_success() || status == StatusCode::CONFLICT => Ok(()),
        (_, body) => Err(failed(first, &body)),
    }
}

/// Makes an object, or a part of it, be as it should; unchanged, nothing is written.
async fn put(service: &Service, identity: &Identity, first: &First, part: &str) -> Result<(), Refusal> {
    let mut path = format!("{}/{}", first.gvr.collection_path(&first.namespace), first.name());
    if !part.is_empty() {
        path = format!("{path}/{part}");
    }
    match ask(service, identity, Method::PUT, &path, &first.object).await? {
        (status, _) if status.is_success() => Ok(()),
        (StatusCode::NOT_FOUND, _) => create(service, identity, first).await,
        (_, body) => Err(failed(first, &body)),
    }
}

fn failed(first: &First, body: &str) -> Refusal {
    Refusal::internal(format!("cannot make {} {}: {body}", first.gvr, first.name()))
}

async fn ask(
    service: &Service,
    identity: &Identity,
    method: Method,
    path: &str,
    object: &Tree,
) -> Result<(StatusCode, String), Refusal> {
    let request = Request::builder().method(method).uri(path).body(Bytes::from(if object.is_null() {
        String::new()
    } else {
        object.to_string()
    }));
    let request = request.map_err(|why| Refusal::internal(format!("a path of ours is none: {why}")))?;
    let response = service.call(identity, request).await;
    Ok((response.status(), String::from_utf8_lossy(response.body()).into_owned()))
}
