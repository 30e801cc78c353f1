//! Which key is looked at when: a queue without repeats, with timers, rests and barriers.
//!
//! Pure: the engine's one task owns it and tells it the time. Promises: a key is looked at by one pass at a time; a
//! key that is woken while its pass runs is looked at once more; keys are served in the order they were woken.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use client::Backoff;
use host::{Chance, Moment};
use model::Key;

use crate::barrier::Mark;

/// How long a key rests after its first failure in a row; then twice as long, and so on.
///
/// Most failures are a server that restarts or an object that someone else holds for a moment.
pub const REST_FIRST: Duration = Duration::from_millis(50);

/// How long a key rests at most. A refusal that lasts (a quota) is usually lifted by a change that wakes the key;
/// where it is not, half a minute is the most that an owner waits.
pub const REST_MAX: Duration = Duration::from_secs(30);

/// How long a key that failed rests at most when it is woken meanwhile.
///
/// Whoever fails often writes why, and is woken by that: without a rest it would write in a circle. Half a second more
/// or less is not felt where a change lifts a refusal.
pub const REST_WOKEN_MAX: Duration = Duration::from_secs(1);

/// How often in a row a key may lose against another writer before it rests as after a failure.
pub const CONFLICTS_MAX: u32 = 5;

/// How long a key waits for the caches to show what it wrote before it is looked at anyway.
///
/// A watch that is cut resumes within 2 s; one that stays cut means that writes fail as well. Names are derived and
/// writes carry preconditions, so a look at an old picture does no harm, but it must not be the rule.
pub const BARRIER_TIME_MAX: Duration = Duration::from_secs(30);

/// The shortest time until a deadline: a pass that asks for a moment that is past is not run in a circle.
pub const WAKE_MIN: Duration = Duration::from_millis(10);

/// One key of one member (an index into the engine's members).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Whose.
    pub member: usize,
    /// Which key.
    pub key: Key,
}

/// How a pass ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// All of its plan is done.
    Done,
    /// A write was refused because the picture was old: look again when the caches have moved.
    Stale,
    /// It failed: look again after a rest.
    Failed,
    /// It was asked to come back later.
    Later(Duration),
}

/// What a pass tells when it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub ended: Ended,
    /// What the caches must show before the next pass.
    pub marks: Vec<Mark>,
    /// When to look again in any case, from now.
    pub wake_in: Option<Duration>,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    /// Looked up only, never gone through: nothing depends on their order.
    entries: HashMap<Item, Entry>,
    ready: VecDeque<Item>,
    timers: BTreeSet<(Moment, Item)>,
    barred: BTreeSet<Item>,
    running: usize,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    /// Woken meanwhile: look again when the phase ends.
    again: bool,
    /// When to look again in any case.
    wake_at: Option<Moment>,
    /// Until when it rests in any case, after a failure.
    rests_until: Option<Moment>,
    /// When to look again although the caches lag.
    barred_until: Option<Moment>,
    /// The timer that is set: the earlier of the two.
    armed: Option<Moment>,
    marks: Vec<Mark>,
    backoff: Backoff,
    conflicts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Ready,
    Running,
    Barred,
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to look at a key. Asking twice is asking once.
    pub fn wake(&mut self, item: Item) {
        let entry = self.entries.entry(item.clone()).or_insert_with(Entry::new);
        match entry.phase {
            Phase::Idle => match entry.rests_until {
                Some(until) => {
                    entry.wake_at = Some(entry.wake_at.map_or(until, |at| at.min(until)));
                    self.arm(&item);
                }
                None => {
                    entry.phase = Phase::Ready;
                    self.ready.push_back(item);
                }
            },
            Phase::Ready => {}
            Phase::Running | Phase::Barred => entry.again = true,
        }
    }

    /// The next key to look at, if there is one.
    pub fn begin(&mut self) -> Option<Item> {
        let item = self.ready.pop_front()?;
        let entry = self.entries.get_mut(&item)?;
        entry.phase = Phase::Running;
        entry.again = false;
        entry.wake_at = None;
        self.arm(&item);
        self.running += 1;
        Some(item)
    }

    /// Takes the report of a pass that [`Queue::begin`] began; `shown` says whether the caches show a mark.
    pub fn ended(
        &mut self,
        item: &Item,
        report: Report,
        shown: impl Fn(&Mark) -> bool,
        now: Moment,
        chance: &Chance,
    ) {
        let Some(entry) = self.entries.get_mut(item) else {
            return;
        };
        self.running -= 1;
        let rest = entry.count(&report.ended, chance);
        entry.rests_until = rest
            .filter(|_| matches!(report.ended, Ended::Failed | Ended::Stale))
            .map(|rest| now.plus(rest.min(REST_WOKEN_MAX)));
        entry.again |= report.ended == Ended::Stale && rest.is_none();
        let wake_in = report.wake_in.map(|wait| wait.max(WAKE_MIN));
        entry.wake_at = [wake_in, rest].into_iter().flatten().min().map(|wait| now.plus(wait));
        entry.marks = report.marks;
        entry.marks.retain(|mark| !shown(mark));
        if entry.marks.is_empty() {
            self.free(item);
            return;
        }
        entry.phase = Phase::Barred;
        entry.barred_until = Some(now.plus(BARRIER_TIME_MAX));
        self.barred.insert(item.clone());
        self.arm(item);
    }

    /// Lets go the keys whose marks the caches show by now.
    pub fn moved(&mut self, shown: impl Fn(&Mark) -> bool) {
        let mut free = Vec::new();
        for item in &self.barred {
            if let Some(entry) = self.entries.get_mut(item) {
                entry.marks.retain(|mark| !shown(mark));
                if entry.marks.is_empty() {
                    free.push(item.clone());
                }
            }
        }
        free.iter().for_each(|item| self.free(item));
    }

    /// Wakes the keys whose time has come.
    pub fn due(&mut self, now: Moment) {
        while let Some((at, item)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.timers.pop_first();
            let Some(entry) = self.entries.get_mut(&item) else {
                continue;
            };
            entry.armed = None;
            if entry.rests_until.is_some_and(|until| until <= now) {
                entry.rests_until = None;
            }
            if entry.wake_at.is_some_and(|at| at <= now) {
                entry.wake_at = None;
                entry.rests_until = None;
                self.wake(item.clone());
            }
            let late = |entry: &&mut Entry| entry.barred_until.is_some_and(|until| until <= now);
            if let Some(entry) = self.entries.get_mut(&item).filter(late) {
                tracing::debug!(key = %item.key, marks = ?entry.marks, "the caches lag; looking anyway");
                entry.again = true;
                self.free(&item);
            }
            self.arm(&item);
        }
    }

    /// When the next key's time comes.
    pub fn next_due(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many passes run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Whether nothing is to be done before the next deadline or change.
    pub fn is_quiet(&self) -> bool {
        self.ready.is_empty() && self.running == 0 && self.barred.is_empty()
    }

    /// Ends the way of a key that was under way: on to the next look, to its timer, or out.
    fn free(&mut self, item: &Item) {
        self.barred.remove(item);
        let Some(entry) = self.entries.get_mut(item) else {
            return;
        };
        entry.phase = Phase::Idle;
        entry.barred_until = None;
        entry.marks.clear();
        let (again, sleeps) = (std::mem::take(&mut entry.again), entry.wake_at.is_some());
        self.arm(item);
        match (again, sleeps) {
            (true, _) => self.wake(item.clone()),
            (false, true) => {}
            (false, false) => drop(self.entries.remove(item)),
        }
    }

    /// Sets the timer of a key to the earlier of its two times.
    fn arm(&mut self, item: &Item) {
        let Some(entry) = self.entries.get_mut(item) else {
            return;
        };
        let soonest = [entry.wake_at, entry.barred_until].into_iter().flatten().min();
        if entry.armed != soonest {
            if let Some(at) = entry.armed {
                self.timers.remove(&(at, item.clone()));
            }
            if let Some(at) = soonest {
                self.timers.insert((at, item.clone()));
            }
            entry.armed = soonest;
        }
    }
}

impl Entry {
    fn new() -> Self {
        Self {
            phase: Phase::Idle,
            again: false,
            wake_at: None,
            rests_until: None,
            barred_until: None,
            armed: None,
            marks: Vec::new(),
            backoff: Backoff::new(REST_FIRST, REST_MAX),
            conflicts: 0,
        }
    }

    /// Counts how a pass ended, and says how long to rest.
    fn count(&mut self, ended: &Ended, chance: &Chance) -> Option<Duration> {
        match ended {
            Ended::Done => {
                self.backoff.reset();
                self.conflicts = 0;
                None
            }
            Ended::Stale if self.conflicts < CONFLICTS_MAX => {
                self.conflicts += 1;
                None
            }
            Ended::Stale | Ended::Failed => Some(self.backoff.next(chance)),
            Ended::Later(wait) => Some((*wait).max(REST_FIRST)),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Gvr;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn item(name: &str) -> Item {
        Item { member: 0, key: Key::new(&Gvr::new("", "v1", "pods"), "a", name) }
    }

    fn mark(revision: u64) -> Mark {
        Mark::Revision(Gvr::new("", "v1", "pods"), revision)
    }

    fn report(ended: Ended) -> Report {
        Report { ended, marks: Vec::new(), wake_in: None }
    }

    /// A queue with a clock and a cache that shows marks up to a revision.
    struct World {
        queue: Queue,
        now: Moment,
        reached: u64,
        chance: Chance,
    }

    impl World {
        fn new() -> Self {
            let queue = Queue::new();
            Self { queue, now: Moment(SECOND), reached: 0, chance: Chance::from_seed(1) }
        }

        fn wake(&mut self, name: &str) {
            self.queue.wake(item(name));
        }

        fn next(&mut self) -> Option<String> {
            self.queue.begin().map(|item| item.key.name)
        }

        fn ended(&mut self, name: &str, report: Report) {
            let reached = self.reached;
            let shown = |mark: &Mark| matches!(mark, Mark::Revision(_, at) if *at <= reached);
            self.queue.ended(&item(name), report, shown, self.now, &self.chance);
        }

        fn reach(&mut self, reached: u64) {
            self.reached = reached;
            self.queue.moved(|mark| matches!(mark, Mark::Revision(_, at) if *at <= reached));
        }

        fn pass_time(&mut self, time: Duration) {
            self.now = self.now.plus(time);
            self.queue.due(self.now);
        }
    }

    #[test]
    fn a_key_is_served_once_however_often_it_was_woken() {
        let mut world = World::new();
        ["a", "b", "a"].iter().for_each(|name| world.wake(name));
        assert_eq!([world.next(), world.next(), world.next()], [Some("a".into()), Some("b".into()), None]);
    }

    #[test]
    fn a_key_woken_while_its_pass_runs_is_looked_at_once_more() {
        let mut world = World::new();
        world.wake("a");
        world.next();
        world.wake("a");
        assert_eq!(world.next(), None, "one pass at a time");
        world.ended("a", report(Ended::Done));
        assert_eq!(world.next(), Some("a".into()));
        world.ended("a", report(Ended::Done));
        assert_eq!(world.next(), None);
        assert!(world.queue.is_quiet() && world.queue.entries.is_empty());
    }

    #[test]
    fn a_key_waits_until_the_caches_show_what_it_wrote() {
        let mut world = World::new();
        world.wake("a");
        world.next();
        world.ended("a", Report { marks: vec![mark(5), mark(7)], ..report(Ended::Done) });
        world.wake("a");
        world.reach(6);
        assert_eq!(world.next(), None);
        world.reach(7);
        assert_eq!(world.next(), Some("a".into()));
        assert_eq!(world.queue.next_due(), None, "the barrier's timer is gone");
    }

    #[test]
    fn a_barrier_is_given_up_after_its_time() {
        let mut world = World::new();
        world.wake("a");
        world.next();
        world.ended("a", Report { marks: vec![mark(5)], wake_in: Some(SECOND), ..report(Ended::Done) });
        world.pass_time(SECOND);
        assert_eq!(world.next(), None, "a deadline does not lift the barrier");
        world.pass_time(BARRIER_TIME_MAX);
        assert_eq!(world.next(), Some("a".into()));
    }

    #[test]
    fn a_deadline_wakes_a_key_and_an_earlier_pass_forgets_it() {
        let mut world = World::new();
        world.wake("a");
        world.next();
        world.ended("a", Report { wake_in: Some(SECOND * 10), ..report(Ended::Done) });
        world.pass_time(SECOND * 9);
        assert_eq!(world.next(), None);
        world.pass_time(SECOND);
        assert_eq!(world.next(), Some("a".into()));
        world.ended("a", Report { wake_in: Some(SECOND * 10), ..report(Ended::Done) });
        world.wake("a");
        assert_eq!(world.next(), Some("a".into()));
        world.ended("a", report(Ended::Done));
        assert_eq!(world.queue.next_due(), None);
    }

    #[test]
    fn failures_rest_longer_each_time_until_a_success() {
        let mut world = World::new();
        world.wake("a");
        for most in [50, 100, 200, 400] {
            world.next();
            world.ended("a", report(Ended::Failed));
            let wait = world.queue.next_due().expect("it rests").since(world.now);
            assert!(wait.as_millis() >= most / 2 && wait.as_millis() <= most, "{wait:?} of {most}");
            world.pass_time(wait);
        }
        world.next();
        world.ended("a", report(Ended::Done));
        assert!(world.queue.entries.is_empty());
    }

    #[test]
    fn a_lost_race_looks_again_at_once_but_not_for_ever() {
        let mut world = World::new();
        world.wake("a");
        for _ in 0..CONFLICTS_MAX {
            assert_eq!(world.next(), Some("a".into()));
            world.ended("a", report(Ended::Stale));
        }
        assert_eq!(world.next(), Some("a".into()));
        world.ended("a", report(Ended::Stale));
        assert_eq!(world.next(), None, "then it rests");
        assert!(world.queue.next_due().is_some());
    }

    #[test]
    fn a_deadline_in_the_past_does_not_run_in_a_circle() {
        let mut world = World::new();
        world.wake("a");
        world.next();
        world.ended("a", Report { wake_in: Some(Duration::ZERO), ..report(Ended::Done) });
        world.pass_time(Duration::ZERO);
        assert_eq!(world.next(), None);
    }
}
