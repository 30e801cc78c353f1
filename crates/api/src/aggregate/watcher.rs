//! Looks whether extension servers answer and what they say, and writes it down; keeps our own APIServices as they should
//! be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, select_all};
use futures_util::{StreamExt, stream};
use http::{Method, Request};
use http_body_util::Full;
use model::tree::text;
use model::{Tree, kinds};
use serde_json::Value;
use store::{Range, Watch};

use super::availability::{self, Condition};
use super::{Extension, Said, local, with_condition};
use crate::auth::{Identity, MASTERS};
use crate::outbound::CallError;
use crate::service::Service;
use crate::verbs::stamp;
use crate::view::View;

/// How often a server that answers is asked whether it still does: upstream's.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often one that does not answer is asked: a server that is just starting is found at once.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long one look may take: upstream's five seconds, which bring a slow start through.
const LOOK_TIME: Duration = Duration::from_secs(5);
/// How long news are gathered before the next look: endpoints come in bursts.
const GATHER: Duration = Duration::from_millis(50);
/// How many servers are asked at once.
const AT_ONCE: usize = 16;

/// Looks after APIServices for as long as it is polled.
pub async fn watch(service: Service) {
    let host = service.host().clone();
    loop {
        // The watches begin before the look, so that nothing falls between.
        let watches = watches(&service);
        let all_answer = look(&service).await;
        let wait = if all_answer { LOOK_EVERY } else { LOOK_AGAIN };
        let Some(mut watches) = watches else {
            host.sleep(LOOK_AGAIN).await;
            continue;
        };
        let news: Vec<BoxFuture<'_, ()>> =
            watches.iter_mut().map(|watch| async { drop(watch.next().await) }.boxed()).collect();
        drop(host.within(wait, select_all(news)).await);
        host.sleep(GATHER).await;
    }
}

/// What may change whether a server is reached. Where nothing is registered, only registrations and definitions count.
fn watches(service: &Service) -> Option<Vec<Watch>> {
    let store = service.store();
    let any = !service.extensions().now(store).is_empty();
    let near = [&kinds::API_SERVICE, &kinds::CUSTOM_RESOURCE_DEFINITION].into_iter();
    let far = [&kinds::SERVICE, &kinds::ENDPOINT_SLICE].into_iter().filter(|_| any);
    let revision = store.revision();
    near.chain(far).map(|gvr| store.watch(&format!("/{gvr}/"), revision).ok()).collect()
}

/// One look at everything; whether all servers answered.
pub async fn look(service: &Service) -> bool {
    let range = Range { prefix: format!("/{}/", kinds::API_SERVICE), ..Range::default() };
    let Ok(page) = service.store().list(&range) else { return false };
    let there: Vec<Tree> =
        page.records.iter().filter_map(|record| serde_json::from_slice(&record.value).ok()).collect();
    let own = keep_local(service, &there).await;
    let by_name: BTreeMap<&str, &Tree> =
        there.iter().map(|object| (text(object, "metadata.name"), object)).collect();
    let known = service.extensions().now(service.store());
    let looks: Vec<BoxFuture<'_, bool>> = known
        .iter()
        .filter_map(|extension| Some((extension, *by_name.get(extension.name.as_str())?)))
        .map(|(extension, object)| look_at(service, extension, object).boxed())
        .collect();
    let ends: Vec<bool> = stream::iter(looks).buffer_unordered(AT_ONCE).collect().await;
    own && ends.into_iter().all(|answers| answers)
}

/// Makes and removes our own APIServices; whether all of it was done.
async fn keep_local(service: &Service, there: &[Tree]) -> bool {
    let plan = local::plan(&service.registry(), there);
    let path = kinds::API_SERVICE.collection_path("");
    let mut done = true;
    for object in &plan.make {
        done &= write(service, Method::POST, &path, object).await;
    }
    for name in &plan.remove {
        done &= write(service, Method::DELETE, &format!("{path}/{name}"), &Value::Null).await;
    }
    done
}

async fn look_at(service: &Service, extension: &Extension, object: &Tree) -> bool {
    let unreachable = availability::unreachable(object, &View(service.store()));
    let condition = match unreachable {
        Some(condition) => condition,
        None => {
            let answer = ask(service, extension).await;
            Condition::asked(&answer)
        }
    };
    if condition.status != "True"
        && let Some(said) = service.extensions().said(&extension.name)
    {
        service.extensions().hear(&extension.name, Said { current: false, ..said });
    }
    let now = stamp(service.host().now());
    if let Some(new) = with_condition(object, &condition, &now) {
        let path = format!("{}/{}/status", kinds::API_SERVICE.collection_path(""), extension.name);
        // Somebody who was faster wakes us again.
        write(service, Method::PUT, &path, &new).await;
    }
    condition.status == "True"
}

/// Asks a server for its resources; what it says is kept.
async fn ask(service: &Service, extension: &Extension) -> Result<(), String> {
    let (group, version) = (&extension.group, &extension.version);
    let path = format!("/apis/{group}/{version}");
    let resources = fetch(service, extension, &path).await.map_err(|why| {
        let place = extension.callee.as_ref().map(crate::outbound::Callee::authority).unwrap_or_default();
        format!("failing or missing response from https://{place}{path}: {why}")
    })?;
    let old = service.extensions().said(&extension.name).unwrap_or_default();
    let mut said = Said { resources, current: true, ..old.clone() };
    // Its documents are large: they are fetched when it is new, and when what it serves is not the same any more.
    if said.resources != old.resources || !old.current {
        let index = fetch(service, extension, "/openapi/v3").await.unwrap_or_default();
        said.openapi_three = index["paths"][format!("apis/{group}/{version}")].clone();
        said.openapi_two = Arc::new(fetch(service, extension, "/openapi/v2").await.unwrap_or_default());
    }
    if said != old {
        service.extensions().hear(&extension.name, said);
    }
    Ok(())
}

async fn fetch(service: &Service, extension: &Extension, path: &str) -> Result<Tree, String> {
    let callee = extension.callee.as_ref().map_err(Clone::clone)?;
    let backends = callee.backends(&View(service.store()), service.host().chance().u64())?;
    let build = || {
        let mut request = Request::builder()
            .uri(path)
            .header("host", callee.authority())
            .header("accept", "application/json");
        let who = Identity {
            name: "system:kube-aggregator".into(),
            groups: vec![MASTERS.into()],
            ..Identity::default()
        };
        if let Some(headers) = request.headers_mut() {
            crate::service::say_who(&who, headers);
        }
        request.body(Full::new(Bytes::new())).map_err(|why| CallError::Unresolved(why.to_string()))
    };
    let asked = service.host().within(LOOK_TIME, service.outbound().ask(&backends, &build)).await;
    let (status, body) = asked.unwrap_or(Err(CallError::Late)).map_err(|why| why.to_string())?;
    if !status.is_success() {
        return Err(format!("bad status from https://{}{path}: {}", callee.authority(), status.as_u16()));
    }
    serde_json::from_slice(&body).map_err(|why| why.to_string())
}

async fn write(service: &Service, method: Method, path: &str, object: &Tree) -> bool {
    let identity = Identity::user("system:apiserver", &[MASTERS]);
    let body = if object.is_null() { Bytes::new() } else { Bytes::from(object.to_string()) };
    let Ok(request) = Request::builder().method(method.clone()).uri(path).body(body) else { return false };
    let answer = service.call(&identity, request).await;
    if !answer.status().is_success() {
        let said = String::from_utf8_lossy(answer.body());
        tracing::debug!(%method, path, %said, "an APIService could not be written");
    }
    answer.status().is_success()
}
