//! What containers run in tests and examples where others would want a shell: one program of a few small steps.
//!
//! `tool STEP… then STEP…` does one step after the other: `echo`, `complain` (on standard error), `cat [FILE]`, `write
//! FILE TEXT`, `new FILE` (which must not be there), `oracle FILE` (see `oracle.rs`), `env NAME`, `list DIR`, `get HOST:PORT`, `resolve NAME`, `api PATH`, `count N`, `eat MIB`, `sleep [SECONDS]`
//! and `exit CODE`. The first step that fails ends it with code 1.

use std::fs;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use client::{Access, Https, Identity, Transport};

use super::oracle;

/// How long a server may take to answer: a cluster that is just starting has other things to do.
const SERVER_PATIENCE: Duration = Duration::from_secs(5);
/// Where a pod finds what it may use at the API.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The API's name inside the cluster.
const API: &str = "https://kubernetes.default";
/// A sleep without a length: nothing runs as long.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Does the steps.
pub fn main(args: &[String]) -> ExitCode {
    super::web::end_on_sigterm();
    for step in args.split(|word| word == "then") {
        let words: Vec<&str> = step.iter().map(String::as_str).collect();
        match act(&words) {
            Ok(None) => {}
            Ok(Some(code)) => return ExitCode::from(code),
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "tool {}: {error}", words.join(" "));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn act(step: &[&str]) -> Result<Option<u8>> {
    match step {
        ["exit", code] => return code.parse().map(Some).map_err(Error::other),
        ["echo", words @ ..] => say(&format!("{}\n", words.join(" ")))?,
        ["complain", words @ ..] => writeln!(std::io::stderr(), "{}", words.join(" "))?,
        ["cat"] => drop(std::io::copy(&mut std::io::stdin(), &mut std::io::stdout())?),
        ["cat", file] => say(&fs::read_to_string(file)?)?,
        ["write", file, text] => fs::write(file, text)?,
        ["new", file] => drop(fs::File::create_new(file)?),
        ["oracle", file] => oracle::write(Path::new(file), &variable("EPOCH"), &variable("NODE"))?,
        ["env", name] => say(&format!("{}\n", std::env::var(name).map_err(Error::other)?))?,
        ["list", dir] => list(dir)?,
        ["get", server] => say(&get(server)?)?,
        ["resolve", name] => {
            for address in (*name, 0).to_socket_addrs()? {
                say(&format!("{}\n", address.ip()))?;
            }
        }
        ["api", path] => say(&api(path)?)?,
        ["count", to] => count(to.parse().map_err(Error::other)?)?,
        ["eat", mib] => eat(mib.parse().map_err(Error::other)?),
        ["sleep"] => sleep(FOREVER),
        ["sleep", seconds] => sleep(Duration::from_secs(seconds.parse().map_err(Error::other)?)),
        _ => return Err(Error::new(ErrorKind::InvalidInput, "no such step")),
    }
    Ok(None)
}

fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn list(dir: &str) -> Result<()> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    say(&format!("{}\n", names.join(" ")))
}

/// One plain GET of `/`; the body.
fn get(server: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(SERVER_PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: tool\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no HTTP answer"))
}

/// One GET from the cluster's API, as the pod's service account: the status code, then the body.
fn api(path: &str) -> Result<String> {
    let access = Access {
        server: API.to_owned(),
        authority_pem: fs::read(format!("{ACCOUNT}/ca.crt"))?,
        server_name: None,
        identity: Identity::Token(fs::read_to_string(format!("{ACCOUNT}/token"))?),
    };
    // There is one provider; a second installation could only come from a second step.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let transport = Https::new(&access).map_err(Error::other)?;
        let request = http::Request::get(path).body(bytes::Bytes::new()).map_err(Error::other)?;
        let answer = transport.call(request).await.map_err(Error::other)?;
        Ok(format!("{} {}\n", answer.status().as_u16(), String::from_utf8_lossy(answer.body())))
    })
}

/// A numbered line every tenth of a second.
fn count(to: u32) -> Result<()> {
    for number in 1..=to {
        say(&format!("line {number}\n"))?;
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// A variable of the environment; `-` where there is none.
fn variable(name: &str) -> String {
    std::env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// Takes memory and uses it, MiB by MiB.
fn eat(mib: usize) {
    let mut eaten = Vec::new();
    for _ in 0..mib {
        eaten.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_step_after_step_until_one_fails_or_ends_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("f").display().to_string();
        let run = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            main(&words)
        };
        assert_eq!(run(&["write", &file, "x", "then", "exit", "3"]), ExitCode::from(3));
        assert_eq!(fs::read_to_string(&file).ok().as_deref(), Some("x"));
        assert_eq!(run(&["nonsense", "then", "write", &file, "y"]), ExitCode::FAILURE);
        assert_eq!(fs::read_to_string(&file).ok().as_deref(), Some("x"));
    }
}
