//! Whose turn it is to start: after an outage a node's pods come back a few at a time, as fast as the machine bears it.
//!
//! Promises: up to [`FREE_MAX`] pods at once start as if nobody looked. More than that are a crowd, and until the last of
//! them has its turn, only so many come up at once as the machine's pressure allows, the most important first. Who does
//! not come up in time holds up nobody for longer. It paces the first start of a pod in a sandbox, and no restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::{Disk, Moment};
use tokio::sync::{Notify, oneshot};

use crate::agent::Agent;

/// How many pods may come up at once on a machine that bears it: more than anybody starts on purpose, and about what a
/// machine of a few cores brings up in two seconds.
pub const FREE_MAX: usize = 32;

/// How many on a machine whose work waits for 40 % of the time: enough to use what is free.
pub const BUSY_MAX: usize = 8;

/// How many on one whose work waits for 70 % of the time: those that are up must get something done, too.
pub const PRESSED_MAX: usize = 4;

/// How long a pod that is not ready holds up others. Half would not pace programs that take long to be ready; double would
/// hold up a node for a minute for each crowd that waits for something that is not there yet.
pub const TURN_MAX: Duration = Duration::from_secs(10);

/// How long a turn lasts at least under pressure: a program that says nothing of being ready works for a while, too.
pub const TURN_MIN: Duration = Duration::from_secs(1);

/// How often the pressure is looked at while pods wait: the kernel's averages move every two seconds.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// From which share of waiting on a machine is busy, and from which it is pressed, in percent.
const BUSY_FROM: u8 = 40;
const PRESSED_FROM: u8 = 70;

/// All that a decision reads.
#[derive(Debug, Clone, Copy)]
struct Seen<'a> {
    /// The turns that were given, and are not over as far as is known.
    given: &'a [Given],
    /// How many wait for theirs.
    waiting: usize,
    /// Whether there was a crowd, of which some still wait.
    is_crowd: bool,
    /// The share of time in which the machine's work waits, in percent.
    pressure: u8,
    /// The time.
    now: Moment,
}

/// A turn that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Given {
    at: Moment,
    /// Whether the pod is up, or will not be.
    is_up: bool,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decision {
    /// How many of those that wait get their turn.
    go: usize,
    /// Whether this is a crowd.
    is_crowd: bool,
    /// When to decide again even if nothing happens.
    look_again: Option<Moment>,
}

impl Given {
    /// When it is over by itself; `None`: it is.
    fn ends_at(&self, is_pressed: bool, now: Moment) -> Option<Moment> {
        let end = match self.is_up {
            false => self.at.plus(TURN_MAX),
            true if is_pressed => self.at.plus(TURN_MIN),
            true => return None,
        };
        (end > now).then_some(end)
    }
}

fn decide(seen: &Seen<'_>) -> Decision {
    let width = match seen.pressure {
        PRESSED_FROM.. => PRESSED_MAX,
        BUSY_FROM.. => BUSY_MAX,
        _ => FREE_MAX,
    };
    let is_pressed = width < FREE_MAX;
    let ends: Vec<Moment> = seen.given.iter().filter_map(|one| one.ends_at(is_pressed, seen.now)).collect();
    let is_crowd = seen.waiting > 0 && (seen.is_crowd || seen.waiting + ends.len() > FREE_MAX);
    if !is_crowd {
        return Decision { go: seen.waiting, is_crowd, look_again: None };
    }
    let go = width.saturating_sub(ends.len()).min(seen.waiting);
    // The crowd is over when its last has its turn.
    let is_crowd = go < seen.waiting;
    let next = seen.now.plus(LOOK_EVERY);
    let look_again = is_crowd.then(|| ends.into_iter().fold(next, Moment::min));
    Decision { go, is_crowd, look_again }
}

/// The turns of one node.
#[derive(Default)]
pub struct Starts {
    /// Guards who has a turn and who waits, for the length of one decision.
    state: Mutex<State>,
    /// Tells the one who looks after those that wait.
    news: Notify,
}

#[derive(Default)]
struct State {
    given: BTreeMap<u64, Given>,
    /// Who waits: the most important first, then in the order in which they came.
    waiting: BTreeMap<(std::cmp::Reverse<i32>, u64), oneshot::Sender<Turn>>,
    count: u64,
    is_crowd: bool,
    pressure: u8,
}

/// A pod's turn; dropped when the pod is up, or will not be.
#[derive(Debug)]
pub struct Turn {
    starts: Arc<Starts>,
    number: u64,
}

impl std::fmt::Debug for Starts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Starts")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.starts.state();
        if let Some(given) = state.given.get_mut(&self.number) {
            given.is_up = true;
        }
        if state.is_crowd {
            self.starts.news.notify_one();
        }
    }
}

impl Starts {
    /// Asks for a turn, for a pod of this priority: it comes over the channel, at once where there is no crowd.
    pub fn ask(self: &Arc<Self>, priority: i32, now: Moment) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.state();
            state.count += 1;
            let place = (std::cmp::Reverse(priority), state.count);
            state.waiting.insert(place, sender);
        }
        if self.look(now).is_some() {
            self.news.notify_one();
        }
        receiver
    }

    /// Gives the turns that may be given; says when to look again.
    fn look(self: &Arc<Self>, now: Moment) -> Option<Moment> {
        let mut ready = Vec::new();
        let look_again = {
            let mut state = self.state();
            // Who has gone waits no more.
            state.waiting.retain(|_, sender| !sender.is_closed());
            let given: Vec<Given> = state.given.values().copied().collect();
            let decision = decide(&Seen {
                given: &given,
                waiting: state.waiting.len(),
                is_crowd: state.is_crowd,
                pressure: state.pressure,
                now,
            });
            if decision.is_crowd && !state.is_crowd {
                tracing::info!("many pods are to start at once: they take turns");
            }
            state.is_crowd = decision.is_crowd;
            // One that is over under pressure is over without.
            state.given.retain(|_, given| given.ends_at(true, now).is_some());
            for _ in 0..decision.go {
                let Some((_, sender)) = state.waiting.pop_first() else { break };
                state.count += 1;
                let number = state.count;
                state.given.insert(number, Given { at: now, is_up: false });
                ready.push((sender, Turn { starts: self.clone(), number }));
            }
            decision.look_again
        };
        // Outside of the guard: a turn that nobody takes any more gives itself back.
        for (sender, turn) in ready {
            let _ = sender.send(turn);
        }
        look_again
    }

    /// Guards who has a turn and who waits, for the length of one decision.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after those that wait, as long as there are any.
pub async fn keep(agent: Arc<Agent>) {
    let (host, starts) = (&agent.means.host, &agent.starts);
    let cores = agent.settings.machine.capacity.cpu_millis / 1000;
    loop {
        if starts.state().is_crowd {
            let disk = host.disk().clone();
            let pressure = host.blocking(move || pressure(&*disk, cores)).await;
            starts.state().pressure = pressure;
        }
        match starts.look(host.moment()) {
            // A look that comes late for having waited for news is as good.
            Some(at) => drop(host.within(at.since(host.moment()), starts.news.notified()).await),
            None => starts.news.notified().await,
        }
    }
}

/// The share of time in which work of this machine waits for a processor, or all of it for its disks, in percent.
///
/// A kernel that does not measure that says how many there are to share the processors; where nothing is known, nothing
/// waits.
fn pressure(disk: &dyn Disk, cores: u64) -> u8 {
    let read = |path: &str| {
        disk.read(Path::new(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    let average = |path: &str, line: &str| average(&read(path)?, line);
    let shares = [average("/proc/pressure/cpu", "some"), average("/proc/pressure/io", "full")];
    match shares.into_iter().flatten().max() {
        Some(share) => share,
        None => read("/proc/loadavg").and_then(|text| waiting_share(&text, cores)).unwrap_or(0),
    }
}

/// The average over ten seconds in a line such as `some avg10=12.34 avg60=…`, in whole percent.
fn average(text: &str, line: &str) -> Option<u8> {
    let mut lines = text.lines().map(str::split_whitespace);
    let mut words = lines.find_map(|mut words| (words.next() == Some(line)).then_some(words))?;
    let share: f64 = words.find_map(|word| word.strip_prefix("avg10="))?.parse().ok()?;
    percent(share)
}

/// Of those that would run, the share that finds no processor, by a line such as `8.00 4.00 2.00 9/300 4711`.
fn waiting_share(text: &str, cores: u64) -> Option<u8> {
    let load: f64 = text.split_whitespace().next()?.parse().ok()?;
    let cores = f64::from(u32::try_from(cores.max(1)).ok()?);
    percent((1.0 - cores / load.max(cores)) * 100.0)
}

fn percent(share: f64) -> Option<u8> {
    // In bounds by the clamp.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    share.is_finite().then(|| share.clamp(0.0, 100.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment(Duration::from_secs(1000) + Duration::from_millis(millis))
    }

    /// `coming` were given their turn at 0 s and are not up, `up` are; so many wait at `now` ms. What is decided, as
    /// `go COUNT`, and `crowd MILLIS` when to look again.
    fn check([coming, up, waiting]: [usize; 3], is_crowd: bool, pressure: u8, now: u64, wanted: &str) {
        let coming = vec![Given { at: at(0), is_up: false }; coming];
        let up = vec![Given { at: at(0), is_up: true }; up];
        let given = [coming, up].concat();
        let made = decide(&Seen { given: &given, waiting, is_crowd, pressure, now: at(now) });
        let mut told = format!("go {}", made.go);
        if let Some(again) = made.look_again {
            told.push_str(&format!(", crowd {}", again.since(at(0)).as_millis()));
        }
        assert_eq!(made.is_crowd, made.look_again.is_some(), "a crowd is looked after, and nobody else");
        assert_eq!(told, wanted);
    }

    #[test]
    fn up_to_thirty_two_start_at_once_whatever_the_pressure() {
        check([0, 0, 1], false, 100, 0, "go 1");
        check([0, 0, 32], false, 100, 0, "go 32");
        check([31, 0, 1], false, 100, 0, "go 1");
        check([0, 500, 32], false, 0, 0, "go 32");
    }

    #[test]
    fn more_than_that_wait_until_others_are_up() {
        check([0, 0, 60], false, 0, 0, "go 32, crowd 1000");
        check([32, 0, 28], true, 0, 500, "go 0, crowd 1500");
        check([31, 1, 28], true, 0, 500, "go 1, crowd 1500");
        check([12, 20, 28], true, 0, 500, "go 20, crowd 1500");
        check([0, 0, 20], true, 0, 500, "go 20");
    }

    #[test]
    fn who_does_not_come_up_holds_up_others_for_ten_seconds() {
        check([32, 0, 28], true, 0, 9_500, "go 0, crowd 10000");
        check([32, 0, 28], true, 0, 10_000, "go 28");
    }

    #[test]
    fn a_crowd_is_narrower_under_pressure() {
        check([0, 0, 60], false, 39, 0, "go 32, crowd 1000");
        check([0, 0, 60], false, 40, 0, "go 8, crowd 1000");
        check([0, 0, 60], false, 70, 0, "go 4, crowd 1000");
        check([32, 0, 28], true, 90, 500, "go 0, crowd 1500");
        check([3, 0, 5], true, 90, 500, "go 1, crowd 1500");
    }

    #[test]
    fn a_turn_lasts_a_second_under_pressure_even_if_the_pod_is_up() {
        check([0, 4, 20], true, 90, 300, "go 0, crowd 1000");
        check([0, 4, 20], true, 90, 1_000, "go 4, crowd 2000");
    }

    #[test]
    fn a_crowd_that_becomes_small_is_still_one() {
        check([0, 0, 10], true, 90, 0, "go 4, crowd 1000");
        check([0, 0, 3], true, 90, 0, "go 3");
        check([0, 0, 0], true, 90, 0, "go 0");
    }

    #[test]
    fn the_pressure_is_what_the_kernel_says_it_is() {
        let cpu = "some avg10=81.93 avg60=40.00 avg300=1.00 total=5\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(average(cpu, "some"), Some(81));
        assert_eq!(average(cpu, "full"), Some(0));
        assert_eq!(average("nonsense", "some"), None);
        assert_eq!(waiting_share("8.00 4.00 2.00 9/300 4711", 2), Some(75));
        assert_eq!(waiting_share("0.50 4.00 2.00 1/300 4711", 2), Some(0));
        assert_eq!(waiting_share("", 2), None);
    }

    #[test]
    fn turns_go_to_the_most_important_first_and_to_nobody_who_has_gone() {
        let starts = Arc::new(Starts::default());
        let mut first: Vec<_> = (0..FREE_MAX).map(|_| starts.ask(0, at(0))).collect();
        let mut turns: Vec<Turn> = first.iter_mut().map(|one| one.try_recv().expect("its turn")).collect();
        let (mut low, gone, mut high) = (starts.ask(0, at(0)), starts.ask(9, at(0)), starts.ask(5, at(0)));
        drop(gone);
        assert!(low.try_recv().is_err() && high.try_recv().is_err());
        turns.pop();
        starts.look(at(1));
        assert!(high.try_recv().is_ok() && low.try_recv().is_err());
        starts.look(at(2));
        assert!(low.try_recv().is_ok(), "the turn before was given back");
        assert!(!starts.state().is_crowd);
    }
}
