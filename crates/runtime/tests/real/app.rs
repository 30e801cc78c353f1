//! The program in the containers: does what its arguments say, one after the other.

use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

/// The first argument that makes the binary this program.
pub const APP: &str = "app";

pub fn main(args: &[OsString]) -> ExitCode {
    let mut words = args.iter().filter_map(|arg| arg.to_str());
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_default();
        match word {
            "print" => println!("{}", next()),
            "complain" => eprintln!("{}", next()),
            "begin" => print!("{}", next()),
            "exit" => return ExitCode::from(next().parse::<u8>().unwrap_or(99)),
            "wait" => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            "show" => show(next()),
            "list" => list(next()),
            "write" => report(std::fs::write(next(), next())),
            "env" => println!("{}", std::env::var(next()).unwrap_or_else(|_| "unset".to_owned())),
            "cwd" => println!("{}", std::env::current_dir().unwrap_or_default().display()),
            "cat" => drop(std::io::copy(&mut std::io::stdin(), &mut std::io::stdout())),
            "line" => line(),
            "eat" => eat(next().parse().unwrap_or(0)),
            "ids" => ids(),
            "flood" => {
                (0..next().parse().unwrap_or(0)).for_each(|n| println!("line {n} {}", "x".repeat(100)))
            }
            "mount" => report(attempt(|| unsafe {
                libc::mount(c"none".as_ptr(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null())
            })),
            "unshare" => report(attempt(|| unsafe { libc::unshare(libc::CLONE_NEWUSER) })),
            "keyctl" => report(attempt(|| unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) as i32 })),
            "mkdir" => report(std::fs::create_dir(next())),
            "mknod" => report(disk_node()),
            "tty" => {
                println!("{}", if unsafe { libc::isatty(0) } == 1 { "a terminal" } else { "no terminal" })
            }
            "size" => size(),
            "sealed" => println!("{}", is_sealed()),
            "serve" => serve(next().parse().unwrap_or(0)),
            "zombie" => drop(std::process::Command::new("/proc/self/exe").args([APP, "wait"]).spawn()),
            other => {
                eprintln!("unknown word {other}");
                return ExitCode::from(98);
            }
        }
        let _ = std::io::stdout().flush();
    }
    ExitCode::SUCCESS
}

fn report(done: std::io::Result<()>) {
    match done {
        Ok(()) => println!("done"),
        Err(error) => println!("{}", error.kind()),
    }
}

fn attempt(call: impl FnOnce() -> i32) -> std::io::Result<()> {
    if call() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn show(path: &str) {
    match std::fs::read_to_string(path) {
        Ok(text) => print!("{text}"),
        Err(error) => println!("{}", error.kind()),
    }
}

fn list(path: &str) {
    let mut names: Vec<String> = std::fs::read_dir(path)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    println!("{}", names.join(" "));
}

fn line() {
    let mut text = String::new();
    let _ = std::io::stdin().lock().read_line(&mut text);
    println!("got {}", text.trim_end());
}

fn eat(mebibytes: usize) {
    let mut meal: Vec<Vec<u8>> = Vec::new();
    for _ in 0..mebibytes {
        meal.push(std::hint::black_box(vec![1; 1 << 20]));
    }
    println!("ate {}", meal.len());
}

fn ids() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for name in ["Uid:", "Gid:", "Groups:", "CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"] {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        println!("{}", line.split_whitespace().collect::<Vec<_>>().join(" "));
    }
}

fn disk_node() -> std::io::Result<()> {
    attempt(|| unsafe { libc::mknod(c"/tmp/disk".as_ptr(), libc::S_IFBLK | 0o600, libc::makedev(254, 0)) })?;
    let mut byte = [0];
    std::fs::File::open("/tmp/disk")?.read_exact(&mut byte)
}

fn size() {
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) };
    println!("{} columns, {} rows", size.ws_col, size.ws_row);
}

fn serve(port: u16) {
    let Ok(listener) = std::net::TcpListener::bind(("127.0.0.1", port)) else { return };
    println!("listening");
    for stream in listener.incoming().flatten() {
        let _ = (&stream).write_all(b"hello from inside");
    }
}

fn is_sealed() -> bool {
    let mut what: libc::statvfs = unsafe { std::mem::zeroed() };
    unsafe { libc::statvfs(c"/proc/self/exe".as_ptr(), &raw mut what) };
    what.f_flag & libc::ST_RDONLY != 0
}
