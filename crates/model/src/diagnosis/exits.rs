//! How a container ended, in words: exit codes, signals, memory.

use super::{Diagnosis, spec};
use crate::Tree;
use crate::tree::{at, text, whole};

/// What an exit code beyond 128 adds to the number of the signal, as shells and runtimes count.
const SIGNALED: i64 = 128;

/// Says how a container ended last, and how often.
pub fn ended(pod: &Tree, container: &Tree, known: &mut Diagnosis) {
    let now = at(container, "state.terminated");
    let end = if now.is_null() { at(container, "lastState.terminated") } else { now };
    if end.is_null()
        || (text(end, "reason") == "Completed" && whole(end, "exitCode") == Some(0) && !repeats(container))
    {
        return;
    }
    let (name, code) = (text(container, "name"), whole(end, "exitCode").unwrap_or(0));
    let count = whole(container, "restartCount").unwrap_or(0);
    let because = format!(
        "exit code {code}, reason {}, ended {}, restarted {count} times",
        text(end, "reason"),
        text(end, "finishedAt")
    );
    if text(end, "reason") == "OOMKilled" {
        out_of_memory(pod, name, because, known);
    } else {
        known.says(format!("container {name} {}", how(code)), because);
        next(name, code, pod, known);
    }
    let message = text(end, "message").trim();
    if !message.is_empty() {
        known.says(format!("container {name} left a message: {message}"), "its termination message");
    }
}

/// Whether ending well is still a failure: it is started again and again.
fn repeats(container: &Tree) -> bool {
    text(container, "state.waiting.reason") == "CrashLoopBackOff"
}

fn out_of_memory(pod: &Tree, name: &str, because: String, known: &mut Diagnosis) {
    let limit = spec(pod, name).map_or("", |spec| text(spec, "resources.limits.memory"));
    let says = match limit {
        "" => {
            format!("container {name} was killed for want of memory on its node; it has no limit of its own")
        }
        limit => format!("container {name} used more memory than its limit of {limit}"),
    };
    known.says(says, because);
    known.try_next(match limit {
        "" => format!("give container {name} a request and a limit of memory"),
        _ => format!("raise resources.limits.memory of container {name}, or find what it holds on to"),
    });
}

/// An exit code in words.
pub fn how(code: i64) -> String {
    let signal = code - SIGNALED;
    match code {
        0 => "ended by itself without an error, and is meant to go on".to_owned(),
        126 => "could not be run: its command is not executable".to_owned(),
        127 => "could not be run: its command was not found".to_owned(),
        137 => "was killed (SIGKILL)".to_owned(),
        139 => "broke down (SIGSEGV)".to_owned(),
        _ => match (1..=64).contains(&signal).then(|| name_of(signal)).flatten() {
            Some(signal) => format!("ended by {signal}"),
            None => format!("gave up with exit code {code}"),
        },
    }
}

/// The signals by which programs usually end. The numbers are those of Linux on x86-64 and arm64 (`signal(7)`).
fn name_of(signal: i64) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        31 => "SIGSYS",
        _ => return None,
    })
}

fn next(name: &str, code: i64, pod: &Tree, known: &mut Diagnosis) {
    let (pod, namespace) = (text(pod, "metadata.name"), text(pod, "metadata.namespace"));
    known.try_next(match code {
        0 => format!("a task that ends belongs into a Job; a server has to stay in the foreground: container {name}"),
        126 | 127 => format!("correct the command or args of container {name}, or the image"),
        159 => format!("container {name} made a system call that its seccomp profile forbids: look at securityContext.seccompProfile"),
        _ => format!("read what it said: kubectl logs {pod} -n {namespace} -c {name} --previous"),
    });
}
