//! The streams of simulated commands, terminals and logs: short, and soon over.

use bytes::Bytes;
use runtime::{ExecOutput, StreamOutput, Streams};
use tokio::sync::mpsc;

/// The most parts that wait in a stream: what is said is said at once.
const PARTS_MAX: usize = 4;

/// The streams of a command that has ended.
pub fn of_command(done: ExecOutput, stdin: bool) -> Streams {
    let (output, parts) = mpsc::channel(PARTS_MAX);
    let ended = [StreamOutput::Stdout(Bytes::from(done.output)), StreamOutput::Ended(done.code)];
    for part in ended {
        // There is room: the channel is new.
        let _ = output.try_send(part);
    }
    streams(parts, stdin)
}

/// The streams of a container that says nothing.
pub fn silent(stdin: bool) -> Streams {
    streams(mpsc::channel(PARTS_MAX).1, stdin)
}

/// A log that ends.
pub fn log(text: &str) -> mpsc::Receiver<Bytes> {
    let (lines, log) = mpsc::channel(PARTS_MAX);
    // There is room: the channel is new.
    let _ = lines.try_send(Bytes::from(text.to_owned()));
    log
}

fn streams(output: mpsc::Receiver<StreamOutput>, stdin: bool) -> Streams {
    Streams { stdin: stdin.then(|| mpsc::channel(PARTS_MAX).0), output, resize: mpsc::channel(PARTS_MAX).0 }
}
