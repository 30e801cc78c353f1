//! Tests with real containers, as root. One binary is three programs: the tests, the monitors that they start, and
//! what runs in the containers, so that nothing has to be downloaded or installed.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, missing_docs)]

mod app;
mod bench;
mod cases;
mod disks;
mod registry;
mod world;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if runtime::monitor::is_meant(&args) {
        return runtime::monitor::main(&args);
    }
    if args.first().is_some_and(|arg| arg == app::APP) {
        return app::main(&args[1..]);
    }
    let words: Vec<String> = args.iter().filter_map(|arg| arg.to_str().map(String::from)).collect();
    if words.iter().any(|word| word == "--list") {
        cases::ALL.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    if filters.iter().any(|filter| *filter == "bench") {
        bench::run(world::template().path());
        return ExitCode::SUCCESS;
    }
    if std::env::var_os("KINTSUGI_TEST_LOG").is_some() {
        tracing_subscriber::fmt().init();
    }
    let chosen =
        cases::ALL.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(*f)));
    let template = world::template();
    let mut failures = Vec::new();
    let mut count = 0;
    for (name, case) in chosen {
        count += 1;
        let failed = catch_unwind(AssertUnwindSafe(|| world::run(*case, template.path()))).is_err();
        println!("test {name} ... {}", if failed { "FAILED" } else { "ok" });
        if failed {
            failures.push(name);
        }
    }
    println!("\ntest result: {} passed; {} failed: {failures:?}", count - failures.len(), failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
