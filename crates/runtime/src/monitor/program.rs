//! The program of a container: its environment, and finding and executing it.

use std::ffi::CString;
use std::path::Path;

use crate::monitor::identity::Identity;
use crate::monitor::init::Fault;
use crate::sys;
use crate::{ContainerSpec, SandboxSpec};

/// Where programs are looked for when neither pod nor image says.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment: what was asked for, and what every program may expect.
pub(crate) fn environment(spec: &ContainerSpec, identity: &Identity, sandbox: &SandboxSpec) -> Vec<String> {
    let mut env = spec.env.clone();
    let mut expect = |name: &str, value: &str| {
        let named = |entry: &String| entry.split_once('=').is_some_and(|(entry, _)| entry == name);
        if !env.iter().any(named) && !value.is_empty() {
            env.push(format!("{name}={value}"));
        }
    };
    expect("PATH", PATH_DEFAULT);
    expect("HOME", &identity.home);
    expect("HOSTNAME", &sandbox.hostname);
    if spec.tty {
        expect("TERM", "xterm");
    }
    env
}

/// Executes a program; returns why that failed.
pub(crate) fn execute(args: &[String], env: &[String]) -> Fault {
    let Some(name) = args.first().filter(|name| !name.is_empty()) else {
        return Fault::Config("no command specified".to_owned());
    };
    let texts = |list: &[String]| list.iter().map(|text| sys::c_text(text)).collect::<Result<Vec<_>, _>>();
    let (Ok(args), Ok(env_texts)) = (texts(args), texts(env)) else {
        return Fault::Config("command and environment must not contain zero bytes".to_owned());
    };
    let mut refused = None;
    for path in candidates(name, env) {
        let Ok(path) = sys::c_text(&path) else { continue };
        let error = execve(&path, &args, &env_texts);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            _ => refused = refused.or(Some(error)),
        }
    }
    match refused {
        Some(error) => Fault::Start(format!("exec: {name:?}: {}", plain(&error))),
        None if name.contains('/') => {
            Fault::Start(format!("exec: {name:?}: stat {name}: no such file or directory"))
        }
        None => Fault::Start(format!("exec: {name:?}: executable file not found in $PATH")),
    }
}

fn candidates(name: &str, env: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT);
    let in_dir = |dir: &str| {
        Path::new(if dir.is_empty() { "." } else { dir }).join(name).to_string_lossy().into_owned()
    };
    path.split(':').map(in_dir).collect()
}

fn plain(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EACCES) => "permission denied".to_owned(),
        Some(libc::ENOEXEC) => "exec format error".to_owned(),
        Some(libc::E2BIG) => "argument list too long".to_owned(),
        _ => error.to_string(),
    }
}

fn execve(path: &CString, args: &[CString], env: &[CString]) -> std::io::Error {
    let pointers =
        |list: &[CString]| list.iter().map(|t| t.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: all texts and both null-ended lists live through the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    std::io::Error::last_os_error()
}
