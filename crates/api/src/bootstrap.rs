//! What a new cluster has before anybody asks: made at start-up, through the same path as every other write.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use model::{Tree, kinds};
use serde_json::json;

use crate::auth::{Identity, MASTERS};
use crate::refusal::Refusal;
use crate::service::Service;

/// Makes what is missing. Doing it again changes nothing.
pub async fn run(service: &Service) -> Result<(), Refusal> {
    let identity = Identity::user("system:apiserver", &[MASTERS]);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        make(service, &identity, &kinds::NAMESPACE, "", json!({"metadata": {"name": name}})).await?;
    }
    Ok(())
}

/// Creates an object unless it is there already.
async fn make(
    service: &Service,
    identity: &Identity,
    gvr: &model::Gvr,
    namespace: &str,
    object: Tree,
) -> Result<(), Refusal> {
    let mut request = Request::new(Bytes::from(object.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = gvr
        .collection_path(namespace)
        .parse()
        .map_err(|why| Refusal::internal(format!("a path of ours is none: {why}")))?;
    let response = service.call(identity, request).await;
    match response.status() {
        status if status.is_success() => Ok(()),
        StatusCode::CONFLICT => Ok(()),
        _ => {
            let body = String::from_utf8_lossy(response.body()).into_owned();
            Err(Refusal::internal(format!("cannot make {gvr} {}: {body}", object["metadata"]["name"])))
        }
    }
}
