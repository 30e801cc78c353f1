//! Requests for groups that another API server serves: passed on as the front proxy, with who asks told in headers.
//!
//! Each request has a connection of its own. An upgrade is one only when both sides said so: what a server answers
//! otherwise is an answer, and the connection ends with it. A redirection is not passed on, and not followed.

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::header::{CONTENT_LENGTH, HOST, LOCATION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::io;

use super::connect::{HOP, pass_upgrade};
use super::{Inner, REQUEST_TIMEOUT};
use crate::aggregate::Extension;
use crate::answer::{Answer, Body};
use crate::auth::Identity;
use crate::outbound::{Answered, CallError};
use crate::refusal::{Reason, Refusal};
use crate::view::View;

/// What a header's name takes of a key of `extra` as it is.
const HEADER_PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// How the headers begin that say who asks.
const REMOTE: &str = "x-remote-";

impl Inner {
    /// Passes a request on to the server that serves its group.
    pub(super) async fn pass_on(
        &self,
        extension: &Extension,
        identity: &Identity,
        request: &Request<Bytes>,
    ) -> Result<Answer, Refusal> {
        if !extension.available {
            return Ok(Answer::text(StatusCode::SERVICE_UNAVAILABLE, "service unavailable\n"));
        }
        let down = |why: String| {
            Refusal::new(Reason::ServiceUnavailable, format!("error trying to reach service: {why}"))
        };
        let callee = extension.callee.as_ref().map_err(|why| down(why.clone()))?;
        let backends = callee.backends(&View(&self.store), self.host.chance().u64()).map_err(&down)?;
        let outgoing = outgoing(identity, &callee.authority(), request)?;
        let upgrade = request.headers().contains_key(UPGRADE);
        let answered = self.host.within(REQUEST_TIMEOUT, self.outbound.open(&backends, outgoing)).await;
        let answered = answered.unwrap_or(Err(CallError::Late)).map_err(|why| down(why.to_string()))?;
        answer(answered, upgrade).await
    }
}

async fn answer(answered: Answered, upgrade: bool) -> Result<Answer, Refusal> {
    let Answered { mut response, carrier } = answered;
    let status = response.status();
    if status == StatusCode::SWITCHING_PROTOCOLS {
        if !upgrade {
            return Ok(bad_gateway("the backend switched protocols without having been asked to"));
        }
        let headers = response.headers().clone();
        let upgraded = hyper::upgrade::on(&mut response).await;
        let upgraded = upgraded.map_err(|why| Refusal::new(Reason::ServiceUnavailable, why.to_string()))?;
        // The task that carried the head has handed the connection over.
        drop(carrier);
        return Ok(Answer {
            status,
            headers,
            body: Body::Upgrade(Box::new(TokioIo::new(upgraded))),
            turn: None,
        });
    }
    if status.is_redirection() && response.headers().contains_key(LOCATION) {
        return Ok(bad_gateway("the backend attempted to redirect this request, which is not permitted"));
    }
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    HOP.iter().for_each(|name| drop(headers.remove(*name)));
    let body = stream::unfold((body, carrier), |(mut body, carrier)| async move {
        loop {
            let frame = match body.frame().await? {
                Ok(frame) => frame,
                Err(why) => return Some((Err(io::Error::other(why)), (body, carrier))),
            };
            if let Ok(bytes) = frame.into_data() {
                return Some((Ok(bytes), (body, carrier)));
            }
        }
    });
    Ok(Answer { status, headers, body: Body::Relayed(body.boxed()), turn: None })
}

fn bad_gateway(why: &str) -> Answer {
    Answer::text(StatusCode::BAD_GATEWAY, why)
}

fn outgoing(
    identity: &Identity,
    authority: &str,
    request: &Request<Bytes>,
) -> Result<Request<Full<Bytes>>, Refusal> {
    let bad =
        |why: &dyn std::fmt::Display| Refusal::bad_request(format!("the request cannot be passed on: {why}"));
    let mut out = Request::new(Full::new(request.body().clone()));
    *out.method_mut() = request.method().clone();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *out.uri_mut() = path.parse().map_err(|why| bad(&why))?;
    let headers = out.headers_mut();
    for (name, value) in request.headers() {
        let said = name.as_str();
        // Who asks is ours to say.
        let claims = said.starts_with("impersonate-") || said.starts_with(REMOTE);
        if !HOP.contains(&said) && name != CONTENT_LENGTH && !claims {
            headers.append(name, value.clone());
        }
    }
    headers.remove(TRANSFER_ENCODING);
    headers.insert(HOST, HeaderValue::from_str(authority).map_err(|why| bad(&why))?);
    pass_upgrade(request.headers(), headers);
    say_who(identity, headers);
    Ok(out)
}

/// Says in headers who asks, as front proxies do.
pub fn say_who(who: &Identity, headers: &mut HeaderMap) {
    let mut say = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    say("x-remote-user", &who.name);
    if !who.uid.is_empty() {
        say("x-remote-uid", &who.uid);
    }
    who.groups.iter().for_each(|group| say("x-remote-group", group));
    for (key, values) in &who.extra {
        let name = format!("x-remote-extra-{}", utf8_percent_encode(key, HEADER_PLAIN)).to_ascii_lowercase();
        values.iter().for_each(|value| say(&name, value));
    }
}
