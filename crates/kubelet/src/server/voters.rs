//! What other agents and the server ask this node's voter.

use client::Wish;
use client::peers::Answer;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use super::{Answered, Body, json_of, refusal};
use crate::agent::Agent;

/// A question is some hundred bytes.
const QUESTION_LEN_MAX: usize = 16 << 10;

/// Answers a question.
pub async fn answer(agent: &Agent, wish: &str, request: Request<Incoming>) -> Answered {
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
