//! The demo's web server: small enough to read at a glance, one thread, no library.
//!
//! It runs inside a container made of the project's own binary. `GET /` answers with who answers; `/healthz` and
//! `/readyz` answer 200 until `POST /sick` or `POST /unready` (`POST /ready` undoes the latter); `POST /crash` ends it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// A request's head beyond this many bytes is cut off; browsers send less than 2 KiB.
const HEAD_LEN_MAX: u64 = 8 * 1024;
/// How long a client may take for its request: the server has one thread, so that one client must not hold it.
const CLIENT_PATIENCE: Duration = Duration::from_millis(500);

/// What the server has been told to be.
struct Mood {
    healthy: bool,
    ready: bool,
}

/// Runs the server: `web PORT`, or `web crash` to end at once with code 3.
pub fn main(args: &[String]) -> ExitCode {
    let Some(port) = args.first().map_or(Some(8080), |port| port.parse::<u16>().ok()) else {
        say(&format!("cannot serve on {:?}: broken on purpose", args.first()));
        return ExitCode::from(3);
    };
    let listener = match TcpListener::bind(("0.0.0.0", port)) {
        Ok(listener) => listener,
        Err(error) => {
            say(&format!("cannot listen on port {port}: {error}"));
            return ExitCode::FAILURE;
        }
    };
    end_on_sigterm();
    let (host, boot) = (hostname(), boot_id());
    say(&format!("{host} serves on port {port}, boot {boot}"));
    let mut mood = Mood { healthy: true, ready: true };
    for client in listener.incoming().flatten() {
        // A client that goes away is its own business.
        let _ = serve(client, &mut mood, &host, &boot);
    }
    ExitCode::SUCCESS
}

fn serve(mut client: TcpStream, mood: &mut Mood, host: &str, boot: &str) -> std::io::Result<()> {
    client.set_read_timeout(Some(CLIENT_PATIENCE))?;
    client.set_write_timeout(Some(CLIENT_PATIENCE))?;
    let mut head = BufReader::new(client.try_clone()?.take(HEAD_LEN_MAX));
    let mut first = String::new();
    head.read_line(&mut first)?;
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let (status, body) = answer(first.trim_end(), mood, host, boot);
    write!(
        client,
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn answer(request: &str, mood: &mut Mood, host: &str, boot: &str) -> (&'static str, String) {
    let mut words = request.split(' ');
    let healthy_or = |good: bool| {
        if good { ("200 OK", "ok\n".to_owned()) } else { ("503 Service Unavailable", "no\n".to_owned()) }
    };
    match (words.next(), words.next()) {
        (Some("GET"), Some("/")) => ("200 OK", format!("{host} {boot}\n")),
        (Some("GET"), Some("/config")) => ("200 OK", config()),
        (Some("GET"), Some("/healthz")) => healthy_or(mood.healthy),
        (Some("GET"), Some("/readyz")) => healthy_or(mood.ready),
        (Some("POST"), Some("/sick")) => {
            mood.healthy = false;
            healthy_or(true)
        }
        (Some("POST"), Some(path @ ("/ready" | "/unready"))) => {
            mood.ready = path == "/ready";
            healthy_or(true)
        }
        (Some("POST"), Some("/crash")) => std::process::exit(1),
        _ => ("404 Not Found", "no such page\n".to_owned()),
    }
}

/// What the pod was configured with: the example shows that a ConfigMap and a Secret arrive.
fn config() -> String {
    // The example's pod mounts both here.
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_else(|_| "none".to_owned());
    let secret = read("/etc/web/secret/token");
    format!(
        "greeting: {}\nsecret: {} bytes\n",
        read("/etc/web/config/greeting").trim_end(),
        secret.trim_end().len()
    )
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "unknown".into(), |name| name.trim().to_owned())
}

/// Differs for every process, so that a client sees when another one answers.
fn boot_id() -> String {
    std::fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|stat| {
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).map(str::to_owned)
        })
        .unwrap_or_else(|| std::process::id().to_string())
}

/// The first process of a container ignores SIGTERM unless it handles it.
pub(crate) fn end_on_sigterm() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit may be called from a signal handler.
        unsafe { libc::_exit(0) }
    }
    // SAFETY: the handler does nothing but end the process.
    unsafe { libc::signal(libc::SIGTERM, end as *const () as libc::sighandler_t) };
}

#[expect(clippy::print_stdout, reason = "the container's log is its standard output")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_until_told_otherwise_and_again_when_told_so() {
        let mut mood = Mood { healthy: true, ready: true };
        let mut ask = |request: &str| answer(request, &mut mood, "h", "1").0[..3].to_owned();
        assert_eq!(ask("GET /readyz HTTP/1.1"), "200");
        ask("POST /unready HTTP/1.1");
        assert_eq!((ask("GET /readyz HTTP/1.1"), ask("GET /healthz HTTP/1.1")), ("503".into(), "200".into()));
        ask("POST /ready HTTP/1.1");
        assert_eq!(ask("GET /readyz HTTP/1.1"), "200");
        assert_eq!(ask("GET /nowhere HTTP/1.1"), "404");
    }
}
