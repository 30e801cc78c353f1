//! The binary. A process of it is a server, a node's agent, a pod's monitor, or a command of the user's.

mod act;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use kintsugi::demo::{tool, web};
use kintsugi::settings::Cli;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // A monitor stays small: nothing of the rest may run in it.
    if runtime::monitor::is_meant(&args) {
        return runtime::monitor::main(&args);
    }
    let words: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    // What the demo's image runs.
    match words.split_first() {
        Some((word, rest)) if word == "web" => return web::main(rest),
        Some((word, rest)) if word == "tool" => return tool::main(rest),
        _ => {}
    }
    match act::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            act::complain(&error);
            ExitCode::FAILURE
        }
    }
}
