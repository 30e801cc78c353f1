//! The one home of HTTP codes and of the reasons and bodies of `Status`.

use http::StatusCode;
use serde_json::{Map, Value, json};
use store::StoreError;

use crate::refusal::{About, Reason, Refusal};

/// The HTTP code and the `Status` reason of a sort of refusal.
pub fn code(reason: Reason) -> (StatusCode, &'static str) {
    match reason {
        Reason::BadRequest => (StatusCode::BAD_REQUEST, "BadRequest"),
        Reason::Unauthorized => (StatusCode::UNAUTHORIZED, "Unauthorized"),
        Reason::Forbidden => (StatusCode::FORBIDDEN, "Forbidden"),
        Reason::NotFound => (StatusCode::NOT_FOUND, "NotFound"),
        Reason::AlreadyExists => (StatusCode::CONFLICT, "AlreadyExists"),
        Reason::Conflict => (StatusCode::CONFLICT, "Conflict"),
        Reason::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "Invalid"),
        Reason::Expired => (StatusCode::GONE, "Expired"),
        Reason::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        Reason::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "NotAcceptable"),
        Reason::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
        Reason::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
        Reason::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
        Reason::Timeout => (StatusCode::GATEWAY_TIMEOUT, "Timeout"),
        Reason::ServiceUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        Reason::Full => (StatusCode::INSUFFICIENT_STORAGE, "InsufficientStorage"),
        Reason::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
    }
}

/// The HTTP code of a refusal: that of its sort, or what a program outside says, if that is an error's.
pub fn of(refusal: &Refusal) -> StatusCode {
    let Some(said) = &refusal.status else { return code(refusal.reason).0 };
    let said = said["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    let error =
        said.filter(|code| (400..600).contains(code)).and_then(|code| StatusCode::from_u16(code).ok());
    error.unwrap_or(StatusCode::BAD_REQUEST)
}

/// What the store's refusals mean to a client.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { path, .. } => {
                Refusal::new(Reason::Conflict, format!("{path} was changed meanwhile; please try again"))
            }
            StoreError::Compacted { asked, oldest } => {
                Refusal::new(Reason::Expired, format!("too old resource version: {asked} ({oldest})"))
            }
            StoreError::Future { asked, newest } => {
                let message = format!("Too large resource version: {asked}, current: {newest}");
                Refusal::new(Reason::Timeout, message)
                    .cause("ResourceVersionTooLarge", "Too large resource version", "")
                    .retry_after(1)
            }
            StoreError::Full { .. } | StoreError::NoSpace { .. } => {
                Refusal::new(Reason::Full, error.to_string()).retry_after(10)
            }
            StoreError::TooSlow => Refusal::new(Reason::Expired, error.to_string()),
            StoreError::Closed => {
                Refusal::new(Reason::ServiceUnavailable, "the server is shutting down").retry_after(1)
            }
            StoreError::TooLarge { .. } | StoreError::TooMany { .. } => {
                Refusal::new(Reason::TooLarge, error.to_string())
            }
            // Nobody may take it for undone and send it again by itself.
            StoreError::Unreachable { .. } => Refusal::new(Reason::Timeout, error.to_string()),
            StoreError::Twice { .. }
            | StoreError::Disk { .. }
            | StoreError::Damaged { .. }
            | StoreError::InUse { .. }
            | StoreError::Sealed { .. }
            | StoreError::Taken { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
                Refusal::internal(error.to_string())
            }
        }
    }
}

/// The `Status` object of a refusal.
pub fn failure(refusal: &Refusal) -> Value {
    let code = of(refusal);
    let reason = match &refusal.status {
        Some(said) => said["reason"].as_str().unwrap_or_default(),
        None => self::code(refusal.reason).1,
    };
    let mut metadata = Map::new();
    if let Some(token) = &refusal.continue_token {
        metadata.insert("continue".into(), json!(token));
    }
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
        "message": refusal.message, "reason": reason, "code": code.as_u16(),
    });
    if reason.is_empty() {
        status.as_object_mut().map(|status| status.remove("reason"));
    }
    let details = match &refusal.status {
        Some(said) => said["details"].as_object().cloned().unwrap_or_default(),
        None => details(refusal),
    };
    if !details.is_empty() {
        status["details"] = Value::Object(details);
    }
    status
}

/// The `Status` object of a success that has nothing else to show.
pub fn success(about: &About) -> Value {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    let details = whereabouts(about, &about.resource);
    if !details.is_empty() {
        status["details"] = Value::Object(details);
    }
    status
}

fn details(refusal: &Refusal) -> Map<String, Value> {
    // The kind of an invalid object is told by its own name; elsewhere `kind` holds the resource.
    let kind = if refusal.reason == Reason::Invalid { &refusal.about.kind } else { &refusal.about.resource };
    let mut details = whereabouts(&refusal.about, kind);
    if !refusal.causes.is_empty() {
        let causes = refusal.causes.iter().map(|cause| {
            let parts = [("reason", &cause.reason), ("message", &cause.message), ("field", &cause.field)];
            let said = parts.into_iter().filter(|(_, value)| !value.is_empty());
            Value::Object(said.map(|(name, value)| (name.to_owned(), json!(value))).collect())
        });
        details.insert("causes".into(), causes.collect());
    }
    if let Some(seconds) = refusal.retry_after {
        details.insert("retryAfterSeconds".into(), json!(seconds));
    }
    details
}

fn whereabouts(about: &About, kind: &str) -> Map<String, Value> {
    [("name", about.name.as_str()), ("group", &about.group), ("kind", kind), ("uid", &about.uid)]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect()
}
