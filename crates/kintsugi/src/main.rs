//! The binary. A process of it is a server, a node's agent, a pod's monitor, or a command of the user's.

mod act;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use kintsugi::demo::web;
use kintsugi::settings::Cli;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    // A monitor stays small: nothing of the rest may run in it.
    if runtime::monitor::is_meant(&args) {
        return runtime::monitor::main(&args);
    }
    if args.first().is_some_and(|word| word == "web") {
        let rest: Vec<String> = args[1..].iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        return web::main(&rest);
    }
    match act::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            act::complain(&error);
            ExitCode::FAILURE
        }
    }
}
