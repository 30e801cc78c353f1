//! Runs a scenario: makes what is given, does what is to be done, and waits for what must be seen.

use std::time::Duration;

use anyhow::{Context, Result};

use super::ends::{Rest, check_end};
use super::file::{Scenario, Step, When};
use super::load::Loads;
use super::{Outcome, act};
use crate::cluster::{Beginning, Cluster};
use crate::observe::{Book, Condition};
use crate::sandbox;

/// How long the nodes may take to be Ready at the beginning.
const NODES_READY_MAX: Duration = Duration::from_secs(10);

/// How long it takes at most until a cluster that comes to rest has done so.
const REST_MAX: Duration = Duration::from_secs(600);

/// For how long a cluster at rest is watched.
const REST_WATCHED: Duration = Duration::from_secs(120);

/// How wide the time is at the beginning of a line of a timeline, with the blanks behind it.
const STAMP_LEN: usize = 9;

/// How wide the kind and the name of an object are in such a line.
const OBJECT_LEN: usize = 21;

/// Runs a scenario from its beginning to its end.
pub fn run(scenario: &Scenario) -> Result<Outcome> {
    let mut outcome = sandbox::run(play(scenario))??;
    outcome.faults.extend(sandbox::take_panics().into_iter().map(|panic| format!("nothing panics: {panic}")));
    Ok(outcome)
}

async fn play(scenario: &Scenario) -> Result<Outcome> {
    let beginning = Beginning {
        seed: scenario.seed,
        jitters: scenario.jitters,
        sharing: scenario.sharing,
        ..Beginning::default()
    };
    let mut cluster = Cluster::start(beginning, &scenario.nodes).await?;
    let book = cluster.book.clone();
    let over = book.over();
    tokio::select! {
        biased;
        () = over => Ok(outcome(&book, book.timeline())),
        outcome = play_on(scenario, &mut cluster) => outcome,
    }
}

fn outcome(book: &Book, timeline: String) -> Outcome {
    Outcome { timeline, faults: book.faults(), happened: book.all_happened() }
}

async fn play_on(scenario: &Scenario, cluster: &mut Cluster) -> Result<Outcome> {
    let mut player = Player::begin(cluster, scenario).await?;
    for step in &scenario.steps {
        player.step(step).await;
    }
    let timeline = ordered(&cluster.book.timeline());
    let rest = scenario.rests.then_some(Rest { within: REST_MAX, watched: REST_WATCHED });
    check_end(cluster, rest).await;
    for never in cluster.book.never_true() {
        cluster.book.fault(format!("always {never}: it never came true"));
    }
    Ok(outcome(&cluster.book, timeline))
}

/// The lines of one tenth of a second by object, so that a change of some microseconds is no change of a timeline. What
/// is done stays where it is.
fn ordered(timeline: &str) -> String {
    let is_deed = |line: &&str| line.get(STAMP_LEN..).is_some_and(|said| said.starts_with("do "));
    let mut lines: Vec<&str> = timeline.lines().collect();
    for moment in lines.chunk_by_mut(|a, b| a.get(..STAMP_LEN) == b.get(..STAMP_LEN)) {
        for between in moment.split_mut(is_deed) {
            // Stable: what happens to one object keeps its order.
            between.sort_by_key(|line| line.get(STAMP_LEN..STAMP_LEN + OBJECT_LEN));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

struct Player<'a> {
    cluster: &'a mut Cluster,
    loads: Loads,
    /// When the step before was over.
    before: Duration,
}

impl<'a> Player<'a> {
    async fn begin(cluster: &'a mut Cluster, scenario: &Scenario) -> Result<Self> {
        for (reference, offer) in &scenario.images {
            cluster.registry.set(reference, *offer);
        }
        for condition in &scenario.always {
            cluster.book.always(condition.clone());
        }
        let mut player = Self { cluster, loads: Loads::new(&[], Duration::ZERO), before: Duration::ZERO };
        for name in scenario.nodes.keys() {
            player.wait_for(&Condition::read(&format!("node {name} Ready=True"))?, NODES_READY_MAX).await;
        }
        for wanted in &scenario.objects {
            let made = act::apply(&player.cluster.user, wanted).await;
            made.with_context(|| format!("cannot make {}", wanted.object))?;
        }
        player.loads = Loads::new(&scenario.loads, player.cluster.book.since());
        Ok(player)
    }

    async fn step(&mut self, step: &Step) {
        match step.when {
            When::At(at) => self.wait_until(at).await,
            When::After(after) => self.wait_until(self.before + after).await,
            When::By(_) | When::Within(_) => {}
        }
        for act in &step.acts {
            self.cluster.book.line(&format!("do         {act}"));
            if let Err(error) = act.perform(self.cluster).await {
                self.cluster.book.fault(format!("{act}: {error:#}"));
            }
        }
        for condition in &step.sees {
            let until = match step.when {
                When::By(by) => by,
                When::Within(within) => self.before + within,
                When::At(_) | When::After(_) => self.cluster.book.since(),
            };
            self.wait_for(condition, until).await;
        }
        self.before = self.cluster.book.since();
    }

    /// Waits until a condition holds; a fault when it does not by then.
    async fn wait_for(&mut self, condition: &Condition, until: Duration) {
        let mut turned = self.cluster.book.turned();
        loop {
            turned.borrow_and_update();
            if self.cluster.book.look(|sight| condition.holds(sight)) {
                return;
            }
            let now = self.cluster.book.since();
            if now >= until {
                let found = self.cluster.book.look(|sight| condition.found(sight));
                return self.cluster.book.fault(format!("not seen: {condition}; it is {found}"));
            }
            let next = self.loads.next().map_or(until, |next| next.min(until));
            let host = self.cluster.host.clone();
            host.within(next.saturating_sub(now), turned.changed()).await;
            self.loads.send(self.cluster);
        }
    }

    /// Lets time pass.
    async fn wait_until(&mut self, at: Duration) {
        loop {
            let now = self.cluster.book.since();
            if now >= at {
                return;
            }
            let next = self.loads.next().map_or(at, |next| next.min(at));
            self.cluster.pass_time(next.saturating_sub(now)).await;
            self.loads.send(self.cluster);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_moment_are_ordered_by_object_and_deeds_stay() {
        let line =
            |at: &str, kind: &str, name: &str, said: &str| format!("{at:>7}  {kind:<10} {name:<10} {said}\n");
        let timeline = [
            line("0:01.0", "pod", "b", "created"),
            line("0:01.0", "pod", "a", "created"),
            line("0:01.0", "do", "cut", "x"),
            line("0:01.0", "pod", "b", "Ready"),
            line("0:01.0", "pod", "a", "gone"),
            line("0:01.1", "pod", "a", "back"),
        ];
        let order = [1, 0, 2, 4, 3, 5].map(|at| timeline[at].as_str());
        assert_eq!(ordered(&timeline.concat()), order.concat());
    }
}
