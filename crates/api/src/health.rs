//! `/livez`, `/readyz`, `/healthz` and `/version`. Pure.

use http::StatusCode;
use serde_json::json;

use crate::answer::Answer;
use crate::request::Query;
use crate::settings::{GIT_VERSION, KUBERNETES_VERSION};

/// What is looked at. All of it holds once the service answers: it opens its store and makes its first objects before.
const CHECKS: [&str; 3] = ["ping", "log", "poststarthook/bootstrap"];

/// The answer of a path, if it is one of these.
pub fn answer(path: &str, query: &Query) -> Option<Answer> {
    if path == "/version" {
        return Some(version());
    }
    let mut parts = path[1..].splitn(2, '/');
    let word = parts.next().filter(|word| matches!(*word, "livez" | "readyz" | "healthz"))?;
    match parts.next() {
        None if query.flag("verbose") => {
            let lines: String = CHECKS.iter().map(|check| format!("[+]{check} ok\n")).collect();
            Some(Answer::text(StatusCode::OK, format!("{lines}{word} check passed\n")))
        }
        None => Some(Answer::text(StatusCode::OK, "ok")),
        Some(check) if CHECKS.contains(&check) => Some(Answer::text(StatusCode::OK, "ok")),
        Some(_) => None,
    }
}

fn version() -> Answer {
    let (major, minor) = KUBERNETES_VERSION;
    let told = json!({
        "major": major, "minor": minor, "gitVersion": GIT_VERSION, "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    });
    Answer::tree(StatusCode::OK, &told)
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
