//! One request to a program that is named by its URL alone: no object of the cluster's says where it is.

use std::time::Duration;

use bytes::Bytes;
use host::Host;
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http_body_util::Full;
use model::{Gvr, Key, Object, World};

use super::{CallError, Callee, Outbound};

/// Where nothing is: whoever is asked here is at a host, never behind a Service.
struct Nowhere;

impl World for Nowhere {
    fn get(&self, _key: &Key) -> Option<Object> {
        None
    }

    fn list(&self, _gvr: &Gvr, _namespace: &str) -> Vec<Object> {
        Vec::new()
    }
}

/// Gets what a program has to say, or posts some JSON to it; gives the body of its success.
///
/// # Errors
/// When there is no success within `limit`.
pub async fn exchange(
    outbound: &Outbound,
    host: &Host,
    callee: &Callee,
    body: Option<&Bytes>,
    limit: Duration,
) -> Result<Bytes, CallError> {
    let unresolved = |why: &dyn std::fmt::Display| CallError::Unresolved(why.to_string());
    let build = || {
        let mut request = match body {
            Some(body) => Request::post(&callee.path).body(Full::new(body.clone())),
            None => Request::get(&callee.path).body(Full::new(Bytes::new())),
        }
        .map_err(|why| unresolved(&why))?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        callee.name_both(headers)?;
        Ok(request)
    };
    let backends = callee.backends(&Nowhere, 0).map_err(CallError::Unresolved)?;
    let asked = async {
        let (status, body) = outbound.ask(&backends, &build).await?;
        if !status.is_success() {
            return Err(CallError::Status { status, body: String::from_utf8_lossy(&body).into_owned() });
        }
        Ok(body)
    };
    host.within(limit, asked).await.unwrap_or(Err(CallError::Late))
}
