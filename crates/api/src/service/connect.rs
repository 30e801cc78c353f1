//! Logs, exec, attach, port-forward and proxies: the API is a pipe for bytes between a client and a kubelet or a pod.

use futures_util::{StreamExt, stream};
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::io;

use bytes::Bytes;

use super::Call;
use super::admission::connect_options;
use super::read::parse;
use crate::answer::{Answer, Body};
use crate::dial::Backend;
use crate::hooks::Operation;
use crate::proxy;
use crate::refusal::{Reason, Refusal};
use crate::verbs::meta;
use crate::view::View;

/// The longest page whose links are led back through a proxy, in bytes; longer ones pass as they are.
const PAGE_LEN_MAX: usize = 4 * 1024 * 1024;

/// Headers that end at each hop (RFC 9110, 7.6.1), and those that say who asks: none of them is passed on.
pub(super) const HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "authorization",
];

impl Call<'_> {
    pub(super) async fn connect(&self) -> Result<Answer, Refusal> {
        self.admitted_connection().await?;
        let view = View(&self.inner.store);
        let query: Vec<(String, String)> = self.query.pairs().to_vec();
        let part = self.target.part.as_str();
        if part == "proxy" {
            let rest = match &self.target.rest {
                Some(rest) => rest.as_str(),
                None if matches!(self.method, Method::GET | Method::HEAD) => return self.to_slash(),
                // Clients do not send these again elsewhere.
                None => "/",
            };
            let to = proxy::proxied(&view, &self.target, &self.resource)?;
            let path = with_query(&format!("{}{rest}", to.prefix), &query);
            let answer = self.forward(&to.backend, &path).await?;
            return Ok(led_back(answer, &self.proxy_path()).await);
        }
        let pod = parse(&self.record()?.value)?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            if part == "log" {
                return Ok(Answer::text(StatusCode::OK, ""));
            }
            return Err(Refusal::bad_request(format!(
                "pod {} does not have a host assigned",
                meta(&pod, "name")
            )));
        }
        let path = proxy::kubelet_path(part, &pod, &query)?;
        let backend = proxy::kubelet(&view, node)?;
        self.forward(&backend, &path).await
    }

    /// Asks webhooks whether somebody may connect; reading a log is no connection.
    async fn admitted_connection(&self) -> Result<(), Refusal> {
        let part = self.target.part.as_str();
        let other = self.resource.others.iter().find(|other| other.name == part && part != "log");
        let Some(other) = other else { return Ok(()) };
        let options = connect_options(other.kind, self.query.pairs(), self.target.rest.as_deref());
        self.admitted_part(Operation::Connect, part, options, false).await.map(drop)
    }

    /// A proxy without a trailing slash would break the relative links of what is behind it.
    fn to_slash(&self) -> Result<Answer, Refusal> {
        let query = with_query("", self.query.pairs());
        let mut answer = Answer::text(StatusCode::MOVED_PERMANENTLY, "");
        let location = format!("{}/{query}", self.proxy_path());
        let location = HeaderValue::from_str(&location)
            .map_err(|_| Refusal::bad_request("the path cannot be told in a header"))?;
        answer.headers.insert(LOCATION, location);
        Ok(answer)
    }

    /// The path of the proxy that is asked.
    fn proxy_path(&self) -> String {
        let root = self.resource.gvr.root_path();
        let (plural, name) = (&self.resource.gvr.plural, &self.target.name);
        match self.target.namespace.as_str() {
            "" => format!("{root}/{plural}/{name}/proxy"),
            namespace => format!("{root}/namespaces/{namespace}/{plural}/{name}/proxy"),
        }
    }

    /// Sends the request on, and what comes back, back.
    async fn forward(&self, backend: &Backend, path: &str) -> Result<Answer, Refusal> {
        let down = |why: &dyn std::fmt::Display| {
            let message = format!("error trying to reach service: {why}");
            Refusal::new(Reason::ServiceUnavailable, message)
        };
        let io = self.inner.settings.dial.dial(backend).await.map_err(|why| down(&why))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|why| down(&why))?;
        let task = self.inner.host.spawn(async move {
            if let Err(why) = connection.with_upgrades().await {
                tracing::debug!(%why, "a connection to a backend ended");
            }
        });
        let request = self.outgoing(backend, path)?;
        let mut response = sender.send_request(request).await.map_err(|why| down(&why))?;
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let headers = response.headers().clone();
            let upgraded = hyper::upgrade::on(&mut response).await.map_err(|why| down(&why))?;
            return Ok(Answer {
                status,
                headers,
                body: Body::Upgrade(Box::new(TokioIo::new(upgraded))),
                turn: None,
            });
        }
        let (parts, body) = response.into_parts();
        let mut headers = parts.headers;
        HOP.iter().for_each(|name| drop(headers.remove(*name)));
        // The connection's task lives as long as the body is read.
        let body = stream::unfold((body, task, sender), |(mut body, task, sender)| async move {
            loop {
                let frame = match body.frame().await? {
                    Ok(frame) => frame,
                    Err(why) => return Some((Err(io::Error::other(why)), (body, task, sender))),
                };
                if let Ok(bytes) = frame.into_data() {
                    return Some((Ok(bytes), (body, task, sender)));
                }
            }
        });
        Ok(Answer { status, headers, body: Body::Relayed(body.boxed()), turn: None })
    }

    fn outgoing(&self, backend: &Backend, path: &str) -> Result<Request<Full<Bytes>>, Refusal> {
        let bad = |why: &dyn std::fmt::Display| {
            Refusal::bad_request(format!("the request cannot be passed on: {why}"))
        };
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = path.parse().map_err(|why| bad(&why))?;
        let headers = request.headers_mut();
        for (name, value) in self.headers {
            let impersonation = name.as_str().starts_with("impersonate-");
            // What goes through a proxy may have to be read.
            let coding = name == ACCEPT_ENCODING && self.target.part == "proxy";
            if !HOP.contains(&name.as_str()) && name != CONTENT_LENGTH && !impersonation && !coding {
                headers.append(name, value.clone());
            }
        }
        let host = format!("{}:{}", backend.host, backend.port);
        headers.insert(HOST, HeaderValue::from_str(&host).map_err(|why| bad(&why))?);
        pass_upgrade(self.headers, headers);
        headers.remove(TRANSFER_ENCODING);
        Ok(request)
    }
}

/// An answer whose links and redirections to absolute paths lead back through the proxy at `path`.
async fn led_back(mut answer: Answer, path: &str) -> Answer {
    let location = answer.headers.get(LOCATION).and_then(|at| proxy::links::led(at.as_bytes(), path));
    if let Some(Ok(location)) = location.map(|location| HeaderValue::from_bytes(&location)) {
        answer.headers.insert(LOCATION, location);
    }
    let is_page =
        answer.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if !is_page || answer.headers.contains_key(CONTENT_ENCODING) {
        return answer;
    }
    let Body::Relayed(mut pieces) = answer.body else { return answer };
    let mut page = Vec::new();
    while page.len() <= PAGE_LEN_MAX {
        match pieces.next().await {
            Some(Ok(piece)) => page.extend_from_slice(&piece),
            None => {
                answer.headers.remove(CONTENT_LENGTH);
                answer.body = Body::Whole(proxy::links::rewrite(&page, path).into());
                return answer;
            }
            // What came arrives, and the reader learns that there is no more.
            Some(Err(why)) => {
                answer.body = Body::Relayed(stream::iter([Ok(page.into()), Err(why)]).boxed());
                return answer;
            }
        }
    }
    answer.body = Body::Relayed(stream::iter([Ok(page.into())]).chain(pieces).boxed());
    answer
}

/// An upgrade is asked for anew: it goes through us byte for byte.
pub(super) fn pass_upgrade(from: &HeaderMap, to: &mut HeaderMap) {
    if let Some(upgrade) = from.get(UPGRADE) {
        to.insert(UPGRADE, upgrade.clone());
        to.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

fn with_query(path: &str, query: &[(String, String)]) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    format!("{path}?{}", proxy::encode_query(query))
}
