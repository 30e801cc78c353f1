//! What answers when containers are asked: commands run in them, and the pages that their probes get.

use std::time::Duration;

use runtime::{ContainerRef, Duplex, ExecOutput, RuntimeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::state::SimContainer;
use super::{COMMAND, SimRuntime, failed, missing};
use crate::words::duration;

/// The longest head of a request that is read.
const HEAD_LEN_MAX: usize = 8 * 1024;

/// How long whoever connected may take to ask, and a deaf program holds a connection: longer than any probe waits.
const CONNECTION_MAX: Duration = Duration::from_secs(120);

impl SimRuntime {
    /// Runs a command: `ready`, `healthy`, `true`, `false`, `exit N`, `sleep TIME`; any other one does well.
    pub(super) async fn command(
        &self,
        at: &ContainerRef,
        command: &[String],
    ) -> Result<ExecOutput, RuntimeError> {
        self.take(COMMAND).await;
        let words: Vec<&str> = command.iter().flat_map(|word| word.split_whitespace()).collect();
        if let ["sleep", time] = words[..] {
            self.take(duration(time).unwrap_or_default()).await;
        }
        if !self.look(at, |one, now| one.answers(now))? {
            self.take(CONNECTION_MAX).await;
        }
        let code = match words[..] {
            ["ready"] => i32::from(!self.look(at, |one, now| one.is_ready(now))?),
            ["healthy"] => i32::from(!self.look(at, |one, now| one.is_healthy(now))?),
            ["false"] => 1,
            ["exit", code] => code.parse().unwrap_or(1),
            _ => 0,
        };
        Ok(ExecOutput { code, output: Vec::new() })
    }

    fn look<T>(
        &self,
        at: &ContainerRef,
        look: impl FnOnce(&SimContainer, host::Moment) -> T,
    ) -> Result<T, RuntimeError> {
        let now = self.0.host.moment();
        let mut state = self.state();
        let one = state.find(&at.pod_uid, &at.id).filter(|one| one.is_running());
        one.map(|one| look(one, now)).ok_or_else(|| missing(&at.id))
    }

    /// Connects to a pod: refused while none of its containers listens.
    pub(super) fn dial(&self, pod_uid: &str) -> Result<Box<dyn Duplex>, RuntimeError> {
        let now = self.0.host.moment();
        let listens = |sandbox: &super::SimSandbox| sandbox.running().any(|one| one.listens(now));
        if !self.state().sandboxes.get(pod_uid).is_some_and(listens) {
            return Err(failed("connect", "connection refused"));
        }
        let (near, far) = tokio::io::duplex(HEAD_LEN_MAX);
        let (runtime, uid) = (self.clone(), pod_uid.to_owned());
        let host = self.0.host.clone();
        let serve = async move {
            host.within(CONNECTION_MAX, runtime.serve(far, &uid)).await;
        };
        self.0.machine.own(|| self.state().serve(serve));
        Ok(Box::new(near))
    }

    /// Answers one request for a page: `/NAME/ready`, `/ready`, `/healthy`; any other page is there when it is ready.
    async fn serve(&self, mut stream: DuplexStream, uid: &str) {
        let mut head = Vec::new();
        let mut buffer = [0u8; 1024];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_LEN_MAX {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(len) => head.extend_from_slice(&buffer[..len]),
            }
        }
        let head = String::from_utf8_lossy(&head);
        let path = head.split_whitespace().nth(1).unwrap_or("/");
        let Some(is_good) = self.page(uid, path) else {
            return std::future::pending().await;
        };
        let status = if is_good { "200 OK" } else { "503 Service Unavailable" };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        // Whoever asked may have hung up.
        let _ = stream.write_all(answer.as_bytes()).await;
    }

    /// Whether a page is good; `None`: nobody answers.
    fn page(&self, uid: &str, path: &str) -> Option<bool> {
        let now = self.0.host.moment();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let state = self.state();
        let running: Vec<&SimContainer> = state.sandboxes.get(uid)?.running().collect();
        let named = running.iter().find(|one| one.status.name == segments[0]);
        let one = named.or(running.last()).filter(|one| one.answers(now))?;
        Some(match segments.last() {
            Some(&"healthy") => one.is_healthy(now),
            _ => one.is_ready(now),
        })
    }
}
