//! The client libraries that people write controllers and scripts with: `kube`, and those of Python and JavaScript.
//!
//! The last two are tried when `cargo xtask clients` has brought them; with `KINTSUGI_CLIENTS=required` they must be there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, Resource};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::{wait, watcher};
use serde_json::json;

use crate::harness::{Cluster, Space};

/// How long a controller may take for anything here: far beyond every promise.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn the_python_client_works_as_it_is() {
    library("venv/bin/python", "client.py", "PYTHONPATH");
}

#[test]
fn the_javascript_client_works_as_it_is() {
    library("bin/node", "client.mjs", "NODE_PATH");
}

/// Runs a script with the interpreter that `cargo xtask clients` put under the target folder.
fn library(interpreter: &str, script: &str, unset: &str) {
    let brought = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../clients");
    let interpreter = brought.join(interpreter);
    if !interpreter.exists() {
        let required = std::env::var("KINTSUGI_CLIENTS").is_ok_and(|word| word == "required");
        assert!(!required, "{} is not there: run cargo xtask clients", interpreter.display());
        eprintln!("not tried: run cargo xtask clients first");
        return;
    }
    // Modules of JavaScript are looked for beside the script.
    let copy = brought.join(script);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script);
    std::fs::copy(source, &copy).expect("the script is there");
    let cluster = Cluster::start(1);
    cluster.import_demo_image();
    let mut command = cluster.inside(&interpreter);
    command.arg(copy).arg(cluster.data_dir().join("kubeconfig")).env_remove(unset);
    let output = command.output().expect("the interpreter runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all good"), "{out}{err}\n{}", cluster.log());
}

#[test]
fn a_controller_made_with_kube_keeps_its_objects_as_they_should_be() {
    let space = Space::new("kube");
    let kubeconfig = space.cluster().data_dir().join("kubeconfig");
    // Without a provider of its own choice the library would find two.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    space.cluster().within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let work = tokio::time::timeout(PATIENCE, cups(&kubeconfig, space.name()));
            work.await.expect("the controller gets there in time");
        });
    });
    space.kubectl(&["delete", "crd", "cups.kube.example"]);
}

/// A kind of our own, and a controller that keeps a ConfigMap for each object of it.
async fn cups(kubeconfig: &Path, namespace: &str) {
    let file = Kubeconfig::read_from(kubeconfig).expect("the cluster wrote it");
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let client = kube::Client::try_from(config.expect("a good kubeconfig")).expect("a client");
    let version = client.apiserver_version().await.expect("it answers");
    assert_eq!((version.major.as_str(), version.minor.as_str()), ("1", "36"));

    let crds = crds(&client);
    let definition: DynamicObject = serde_json::from_value(definition()).expect("a definition");
    crds.create(&PostParams::default(), &definition).await.expect("a good definition");
    let established =
        wait::await_condition(crds.clone(), "cups.kube.example", |crd: Option<&DynamicObject>| {
            let conditions = crd.and_then(|crd| crd.data["status"]["conditions"].as_array());
            conditions
                .into_iter()
                .flatten()
                .any(|one| one["type"] == "Established" && one["status"] == "True")
        });
    established.await.expect("the definition is established");

    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("kube.example", "v1", "Cup"), "cups");
    let cups: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let world = Arc::new((maps.clone(), kind.clone()));
    let controller = Controller::new_with(cups.clone(), watcher::Config::default(), kind.clone())
        .owns(maps.clone(), watcher::Config::default())
        .run(pour, |_, _, _| Action::requeue(Duration::from_secs(1)), world)
        .for_each(|_| async {});
    let user = async {
        let mut cup = DynamicObject::new("tea", &kind);
        cup.data = json!({"spec": {"drink": "green"}});
        cups.create(&PostParams::default(), &cup).await.expect("a good cup");
        holds(&maps, "green").await;
        maps.delete("tea", &DeleteParams::default()).await.expect("it is there");
        holds(&maps, "green").await;
        let patch = json!({"spec": {"drink": "black"}});
        cups.patch("tea", &PatchParams::default(), &Patch::Merge(&patch)).await.expect("a good patch");
        holds(&maps, "black").await;
        cups.delete("tea", &DeleteParams::default()).await.expect("it is there");
        let gone = wait::await_condition(maps.clone(), "tea", |map: Option<&ConfigMap>| map.is_none());
        gone.await.expect("what a cup owns goes with it");
    };
    tokio::select! {
        () = controller => panic!("a controller does not end"),
        () = user => {}
    }
}

/// One pass of the controller: the cup's ConfigMap, by server-side apply.
async fn pour(
    cup: Arc<DynamicObject>,
    world: Arc<(Api<ConfigMap>, ApiResource)>,
) -> Result<Action, kube::Error> {
    let (maps, kind) = &*world;
    let name = cup.metadata.name.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(name.clone()),
        owner_references: cup.controller_owner_ref(kind).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    };
    let drink = cup.data["spec"]["drink"].as_str().unwrap_or_default().to_owned();
    let data = Some([("drink".to_owned(), drink)].into());
    let map = ConfigMap { metadata, data, ..ConfigMap::default() };
    maps.patch(&name, &PatchParams::apply("barista").force(), &Patch::Apply(&map)).await?;
    Ok(Action::await_change())
}

/// Waits until the ConfigMap of the cup says so.
async fn holds(maps: &Api<ConfigMap>, drink: &str) {
    let poured = wait::await_condition(maps.clone(), "tea", |map: Option<&ConfigMap>| {
        let data =
            map.filter(|map| map.metadata.deletion_timestamp.is_none()).and_then(|map| map.data.as_ref());
        data.and_then(|data| data.get("drink")).is_some_and(|poured| poured == drink)
    });
    poured.await.expect("the watch goes on");
}

fn crds(client: &kube::Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Api::all_with(client.clone(), &ApiResource::from_gvk(&kind))
}

fn definition() -> serde_json::Value {
    let schema = json!({
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"drink": {"type": "string"}}}},
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cups.kube.example"},
        "spec": {
            "group": "kube.example", "scope": "Namespaced", "names": {"kind": "Cup", "plural": "cups"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}
