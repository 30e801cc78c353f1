//! What a simulated container does, as its arguments say. Pure.
//!
//! An argument holds clauses, with `;` between them: `run`, `exit 1 after 3s`, `crash 4 times`, `crash on b` (a node), `crash in 1 sandboxes`, `ready after 10s`,
//! `never ready`, `hang after 20s`, `stop in 2s`, `ignore SIGTERM`, `fail to start`. What is none of these is let be,
//! as the words of a real program would be.

use std::time::Duration;

use crate::words::duration;

/// How long a container runs before it crashes, where its clause does not say.
const CRASH_AFTER: Duration = Duration::from_millis(500);

/// How long a program usually takes to begin to serve.
const SERVES_AFTER: Duration = Duration::from_millis(20);

/// How long a program usually takes to end when it is asked to.
const STOPS_IN: Duration = Duration::from_millis(30);

/// What a container does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// Whether its program can be started.
    pub starts: bool,
    /// How many of its first runs crash, and after how long.
    pub crashes: (u32, Duration),
    /// The node on which every run crashes.
    pub bad_node: Option<String>,
    /// How many of a pod's first sandboxes every run crashes in.
    pub bad_sandboxes: u32,
    /// When the other runs end by themselves, and with which code.
    pub exit: Option<(Duration, i32)>,
    /// When it begins to serve; `None`: never.
    pub serves_after: Option<Duration>,
    /// When it stops answering though it runs on.
    pub hangs_after: Option<Duration>,
    /// How long it takes to end when asked to; `None`: it has to be killed.
    pub stops_in: Option<Duration>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            starts: true,
            crashes: (0, CRASH_AFTER),
            bad_node: None,
            bad_sandboxes: 0,
            exit: None,
            serves_after: Some(SERVES_AFTER),
            hangs_after: None,
            stops_in: Some(STOPS_IN),
        }
    }
}

impl Behaviour {
    /// Reads it from a container's arguments.
    pub fn read(args: &[String]) -> Self {
        let mut behaviour = Self::default();
        for clause in args.iter().flat_map(|arg| arg.split(';')) {
            let words: Vec<&str> = clause.split_whitespace().collect();
            behaviour.take(&words);
        }
        behaviour
    }

    fn take(&mut self, clause: &[&str]) {
        let time = |text: &str| duration(text).ok();
        match clause {
            ["exit", code] => self.exit = code.parse().ok().map(|code| (CRASH_AFTER, code)),
            ["exit", code, "after", after] => self.exit = time(after).zip(code.parse().ok()),
            ["crash", count, "times"] => self.crash(CRASH_AFTER, count),
            ["crash", count, "times", "after", after] => {
                self.crash(time(after).unwrap_or(CRASH_AFTER), count)
            }
            ["crash", "on", node] => self.bad_node = Some((*node).to_owned()),
            ["crash", "in", count, "sandboxes"] => self.bad_sandboxes = count.parse().unwrap_or(0),
            ["ready", "after", after] => self.serves_after = time(after),
            ["never", "ready"] => self.serves_after = None,
            ["hang", "after", after] => self.hangs_after = time(after),
            ["stop", "in", after] => self.stops_in = time(after),
            ["ignore", "SIGTERM"] => self.stops_in = None,
            ["fail", "to", "start"] => self.starts = false,
            _ => {}
        }
    }

    fn crash(&mut self, after: Duration, count: &str) {
        self.crashes = (count.parse().unwrap_or(0), after);
    }

    /// When and how the run with this number (from 0) ends by itself, in the pod's sandbox of this number (from 0) on a node.
    pub fn exit_of(&self, run: u32, sandbox: u32, node: &str) -> Option<(Duration, i32)> {
        let (count, after) = self.crashes;
        let is_bad = self.bad_node.as_deref() == Some(node) || sandbox < self.bad_sandboxes;
        if run < count || is_bad { Some((after, 1)) } else { self.exit }
    }

    /// Whether it serves after it has run for so long.
    pub fn serves(&self, ran: Duration) -> bool {
        self.serves_after.is_some_and(|after| ran >= after)
    }

    /// Whether it answers at all after it has run for so long.
    pub fn answers(&self, ran: Duration) -> bool {
        self.hangs_after.is_none_or(|after| ran < after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Behaviour {
        Behaviour::read(&text.split('|').map(str::to_owned).collect::<Vec<_>>())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn words_of_a_real_program_run_for_ever() {
        assert_eq!(read("/bin/web|--listen|:80"), Behaviour::default());
        assert_eq!(read("run").exit_of(0, 0, "a"), None);
    }

    #[test]
    fn the_first_runs_may_crash_and_the_later_ones_run() {
        let behaviour = read("crash 2 times after 1s");
        assert_eq!(
            [0, 1, 2].map(|run| behaviour.exit_of(run, 0, "a")),
            [Some((SECOND, 1)), Some((SECOND, 1)), None]
        );
        assert_eq!(read("exit 0 after 1s").exit_of(99, 0, "a"), Some((SECOND, 0)));
        assert_eq!(read("crash 2 times; exit 0 after 1s").exit_of(2, 0, "a"), Some((SECOND, 0)));
    }

    #[test]
    fn a_node_or_a_sandbox_may_be_bad() {
        let behaviour = read("crash on b; crash in 2 sandboxes");
        assert!(behaviour.exit_of(9, 5, "b").is_some());
        assert_eq!([0, 1, 2].map(|at| behaviour.exit_of(9, at, "a").is_some()), [true, true, false]);
    }

    #[test]
    fn serving_and_hanging_depend_on_how_long_it_ran() {
        let behaviour = read("ready after 1s; hang after 3s|ignore SIGTERM");
        assert_eq!([0, 1, 3].map(|ran| behaviour.serves(SECOND * ran)), [false, true, true]);
        assert_eq!([0, 1, 3].map(|ran| behaviour.answers(SECOND * ran)), [true, true, false]);
        assert_eq!(behaviour.stops_in, None);
        assert!(!read("never ready").serves(SECOND * 1000));
    }
}
