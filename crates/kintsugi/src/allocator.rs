//! Memory for the binary's two kinds of processes: servers and agents take `mimalloc`, everything else the C library.
//!
//! A server makes and drops many small things on several threads; there `mimalloc` takes a fraction of the time of the C library's
//! allocator. A monitor is to stay small, one is there for each pod: `mimalloc`'s own tables would be a good part of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU8, Ordering};

use mimalloc::MiMalloc;

/// Chooses once, at the first allocation of the process, and stays with it: nothing is ever freed where it was not made.
pub struct ByRole;

const UNKNOWN: u8 = 0;
const SMALL: u8 = 1;
const FAST: u8 = 2;

static CHOICE: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The subcommands whose processes are servers or agents.
const SERVERS: [&[u8]; 3] = [b"up", b"demo", b"agent"];
/// Bytes of the command line that are looked at: a path of the program (4,096 at most) and one word.
const COMMAND_LEN_MAX: usize = 4096 + 64;

fn is_fast() -> bool {
    match CHOICE.load(Ordering::Relaxed) {
        UNKNOWN => choose(),
        choice => choice == FAST,
    }
}

/// Whoever comes first decides; all who come at once decide alike, as the command line does not change.
#[cold]
fn choose() -> bool {
    let mut command = [0; COMMAND_LEN_MAX];
    let fast = command_line(&mut command).is_some_and(is_server);
    CHOICE.store(if fast { FAST } else { SMALL }, Ordering::Relaxed);
    fast
}

/// Reads this process' command line without allocating.
fn command_line(into: &mut [u8]) -> Option<&[u8]> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open(c"/proc/self/cmdline", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let len = rustix::io::read(&file, &mut *into).ok()?;
    into.get(..len)
}

fn is_server(command: &[u8]) -> bool {
    command.split(|byte| *byte == 0).nth(1).is_some_and(|word| SERVERS.contains(&word))
}

// SAFETY: each call goes on unchanged to one of two sound allocators, and for the whole life of the process to the same.
unsafe impl GlobalAlloc for ByRole {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that are asked for here.
        unsafe { if is_fast() { MiMalloc.alloc(layout) } else { System.alloc(layout) } }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; `at` is of the same allocator.
        unsafe { if is_fast() { MiMalloc.dealloc(at, layout) } else { System.dealloc(at, layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { if is_fast() { MiMalloc.alloc_zeroed(layout) } else { System.alloc_zeroed(layout) } }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        unsafe {
            if is_fast() { MiMalloc.realloc(at, layout, size) } else { System.realloc(at, layout, size) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_agents_are_fast_and_all_others_small() {
        for (command, expected) in [
            (&b"/usr/bin/kintsugi\0up\0--nodes\x002\0"[..], true),
            (b"kintsugi\0agent\0--settings\0x\0", true),
            (b"kintsugi\0monitor\0/x\0", false),
            (b"kintsugi\0web\x008080\0", false),
            (b"kintsugi\0", false),
            (b"", false),
        ] {
            assert_eq!(is_server(command), expected, "{}", String::from_utf8_lossy(command));
        }
    }
}
