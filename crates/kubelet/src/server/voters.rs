//! What other agents and the server ask this node's voter.

use client::Wish;
use client::peers::Answer;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Answered, Body, json_of, refusal};
use crate::agent::Agent;

/// A question is some hundred bytes.
const QUESTION_LEN_MAX: usize = 16 << 10;

/// As whom the server asks.
const SERVER: &str = "kube-apiserver-kubelet-client";

/// Whether the certificate is a node's or the server's: nobody else may hold back or cast a vote.
pub fn may_ask(chain: Option<&[CertificateDer<'_>]>) -> bool {
    let Some(first) = chain.and_then(|chain| chain.first()) else { return false };
    let Ok((_, certificate)) = X509Certificate::from_der(first) else { return false };
    let subject = certificate.subject();
    let names: Vec<&str> = subject.iter_common_name().filter_map(|name| name.as_str().ok()).collect();
    let mut groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    let is_node =
        names.iter().any(|name| name.starts_with("system:node:")) && groups.any(|g| g == "system:nodes");
    is_node || names.contains(&SERVER)
}

/// Answers a question.
pub async fn answer(agent: &Agent, wish: &str, request: Request<Incoming>, may_ask: bool) -> Answered {
    if !may_ask {
        return Err(refusal(StatusCode::FORBIDDEN, "only nodes and servers may ask for promises and votes"));
    }
    let wish = match wish {
        "promise" => Wish::Promise,
        "vote" => Wish::Vote,
        _ => return Err(refusal(StatusCode::NOT_FOUND, "404 page not found")),
    };
    let bad = |why: String| refusal(StatusCode::BAD_REQUEST, why);
    let body = Limited::new(request.into_body(), QUESTION_LEN_MAX).collect().await;
    let body = body.map_err(|error| bad(error.to_string()))?.to_bytes();
    let asked = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    let no = agent.fence.answer(agent, wish, asked).await;
    let answer: Response<Body> = json_of(&serde_json::to_value(Answer { no }).unwrap_or_default());
    Ok(answer)
}
