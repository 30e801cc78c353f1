//! Whose turn it is when more is asked for than can be done at once: users take turns, however much each of them asks.
//!
//! Requests that take a moment and answers that take long to write wait in lanes of their own, so that neither holds up
//! the other. Nobody waits while there is room. It protects strangers from each other, not the server's own loops, which
//! do not come through the door.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::Host;
use tokio::sync::oneshot;

use crate::auth::{Identity, MASTERS};
use crate::refusal::{Reason, Refusal};

/// How many requests are under way at once: twice as many creates as share one sync, and some to spare.
const SHORT_MAX: usize = 512;
/// How many long answers are written at once. Each takes one of the processors for as long as it takes; the others are for
/// everybody else, so this is one where there are two.
const LONG_MAX: usize = 1;
/// How many requests of one user wait in a lane. Who has more under way is told to come back.
const WAITING_MAX: usize = 512;
/// How many wait in a lane in all, at about 1 kB and a connection each.
const WAITING_ALL_MAX: usize = 8192;
/// How long a request waits for its turn: what upstream's queues allow, a quarter of its minute.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// How many watches one user has at once: an informer of every kind for 40 of their programs.
const WATCHES_OF_ONE_MAX: usize = 4096;

/// A list of so many objects is long: it takes a few milliseconds to write.
pub(crate) const LONG_MIN: usize = 1000;

/// The lanes, and how many watches each user has.
#[derive(Debug, Clone)]
pub(crate) struct Turns {
    short: Arc<Lane>,
    long: Arc<Lane>,
    /// Guards the counts while one changes.
    watches: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Default for Turns {
    fn default() -> Self {
        let watches = Arc::default();
        Self { short: Lane::new(SHORT_MAX), long: Lane::new(LONG_MAX), watches }
    }
}

impl Turns {
    /// Waits for room for a request. Administrators need none: they come to see what is wrong.
    pub async fn short(&self, host: &Host, who: &Identity) -> Result<Option<Turn>, Refusal> {
        if who.groups.iter().any(|group| group == MASTERS) {
            return Ok(None);
        }
        self.short.enter(host, &who.name).await.map(Some)
    }

    /// Waits for the turn to write a long answer.
    pub async fn long(&self, host: &Host, who: &Identity) -> Result<Turn, Refusal> {
        self.long.enter(host, &who.name).await
    }

    /// Room for one more watch of a user's, until it is dropped.
    pub fn watch(&self, who: &Identity) -> Result<Watching, Refusal> {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let count = watches.entry(who.name.clone()).or_default();
        if *count >= WATCHES_OF_ONE_MAX {
            return Err(too_many("this user has too many watches, please try again later"));
        }
        *count += 1;
        Ok(Watching { watches: self.watches.clone(), who: who.name.clone() })
    }

    /// How many wait for their turn.
    pub fn waiting(&self) -> usize {
        [&self.short, &self.long].map(|lane| lane.lock().count).iter().sum()
    }
}

/// A watch that is counted.
#[derive(Debug)]
pub(crate) struct Watching {
    watches: Arc<Mutex<BTreeMap<String, usize>>>,
    who: String,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = watches.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.who);
            }
        }
    }
}

/// Room for so many, given in turn.
#[derive(Debug)]
struct Lane {
    /// Guards who waits, while one comes or goes.
    queues: Mutex<Queues>,
}

#[derive(Debug)]
struct Queues {
    free: usize,
    /// How many wait.
    count: usize,
    /// Who waits, by user.
    waiting: BTreeMap<String, VecDeque<oneshot::Sender<Turn>>>,
    /// Users of whom somebody waits, in the order of their turns.
    order: VecDeque<String>,
}

/// Room that was given; it is given to the next when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    lane: Option<Arc<Lane>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            let mut queues = lane.lock();
            queues.free += 1;
            queues.give(&lane);
        }
    }
}

impl Lane {
    fn new(room: usize) -> Arc<Self> {
        let queues = Queues { free: room, count: 0, waiting: BTreeMap::new(), order: VecDeque::new() };
        Arc::new(Self { queues: Mutex::new(queues) })
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn enter(self: &Arc<Self>, host: &Host, who: &str) -> Result<Turn, Refusal> {
        let given = {
            let mut queues = self.lock();
            if queues.free > 0 && queues.count == 0 {
                queues.free -= 1;
                return Ok(Turn { lane: Some(self.clone()) });
            }
            queues.wait(who)?
        };
        match host.within(WAIT_MAX, given).await {
            Some(Ok(turn)) => Ok(turn),
            // The place in the queue stays until it is seen that nobody waits there.
            _ => Err(too_many("too many requests are waiting, please try again later")),
        }
    }
}

impl Queues {
    /// Puts somebody at the end of their own queue.
    fn wait(&mut self, who: &str) -> Result<oneshot::Receiver<Turn>, Refusal> {
        let own = self.waiting.get(who).map_or(0, VecDeque::len);
        if own >= WAITING_MAX || self.count >= WAITING_ALL_MAX {
            return Err(too_many("too many requests are waiting, please try again later"));
        }
        let (give, given) = oneshot::channel();
        if own == 0 {
            self.order.push_back(who.to_owned());
        }
        self.waiting.entry(who.to_owned()).or_default().push_back(give);
        self.count += 1;
        Ok(given)
    }

    /// Gives what is free to those whose turn it is.
    fn give(&mut self, lane: &Arc<Lane>) {
        while self.free > 0 {
            let Some(who) = self.order.pop_front() else { return };
            let Some(queue) = self.waiting.get_mut(&who) else { continue };
            let next = queue.pop_front();
            self.count -= usize::from(next.is_some());
            if queue.is_empty() {
                self.waiting.remove(&who);
            } else {
                self.order.push_back(who);
            }
            if let Some(next) = next {
                match next.send(Turn { lane: Some(lane.clone()) }) {
                    Ok(()) => self.free -= 1,
                    // Nobody waits there any more; the turn must not try to give itself back while it is being given.
                    Err(mut unused) => unused.lane = None,
                }
            }
        }
    }
}

fn too_many(why: &str) -> Refusal {
    Refusal::new(Reason::TooManyRequests, why).retry_after(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn host() -> Host {
        Host::simulated(1, "2026-01-01T00:00:00Z".parse().expect("a time"), host::SimDisk::new())
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_little_does_not_wait_for_who_asks_much() {
        let (host, lane) = (host(), Lane::new(1));
        let first = lane.enter(&host, "flood").await.expect("room");
        let mut flood: Vec<_> = (0..100).map(|_| Box::pin(lane.enter(&host, "flood"))).collect();
        flood.iter_mut().for_each(|waiting| assert!(waiting.now_or_never().is_none()));
        let mut other = Box::pin(lane.enter(&host, "other"));
        assert!((&mut other).now_or_never().is_none());
        drop(first);
        let second = (&mut flood[0]).now_or_never().expect("it came first").expect("room");
        assert!((&mut other).now_or_never().is_none());
        drop(second);
        let third = other.now_or_never().expect("it is the other's turn").expect("room");
        assert!((&mut flood[1]).now_or_never().is_none());
        drop(third);
        assert!((&mut flood[1]).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_no_longer_waits_is_passed_over() {
        let (host, lane) = (host(), Lane::new(1));
        let first = lane.enter(&host, "a").await.expect("room");
        let mut gone = Box::pin(lane.enter(&host, "b"));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        drop(first);
        let again = lane.enter(&host, "c").now_or_never().expect("there is room").expect("room");
        let state = || {
            let queues = lane.lock();
            (queues.free, queues.count, queues.order.len())
        };
        assert_eq!(state(), (0, 0, 0));
        drop(again);
        assert_eq!(state(), (1, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever_and_not_all_too_many_wait() {
        let (host, lane) = (host(), Lane::new(1));
        let _first = lane.enter(&host, "a").await.expect("room");
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(lane.enter(&host, "a"))).collect();
        waiting.iter_mut().for_each(|waiting| assert!(waiting.now_or_never().is_none()));
        let refused = lane.enter(&host, "a").await.expect_err("too many");
        assert_eq!((refused.reason, refused.retry_after), (Reason::TooManyRequests, Some(1)));
        assert_eq!(
            lane.enter(&host, "b").await.expect_err("its time is over").reason,
            Reason::TooManyRequests
        );
    }

    #[test]
    fn watches_are_counted_by_user() {
        let (turns, user) = (Turns::default(), Identity::user("u", &[]));
        let all: Vec<Watching> = (0..WATCHES_OF_ONE_MAX).map(|_| turns.watch(&user).expect("room")).collect();
        assert!(turns.watch(&user).is_err());
        assert!(turns.watch(&Identity::user("v", &[])).is_ok());
        drop(all);
        assert!(turns.watch(&user).is_ok());
    }
}
