//! Decides what to do next for one pod: what was seen and the time go in, acts and a time to look again come out.
//!
//! Promises: the same view gives the same acts; an act under way is not asked for again (the memory shows it); a pod
//! that is as it should be gives no acts. It never waits, and knows no runtime.

use std::time::Duration;

use host::Time;
use model::diagnosis;

use crate::backoff::{self, Curve};
use crate::memory::{
    Clearing, ContainerMemory, Ending, Failure, Fresh, Hook, ImageHere, KillStage, Killing, PodMemory, Run,
    StartTurn, Step,
};
use crate::pod::{Member, PodView, Role};
use crate::probe::ProbeKind;
use crate::resources::{self, Allocatable, Taken};
use crate::security;

/// The least time between asking a container to stop and killing it, after its preStop hook used up the grace.
pub const GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);

/// How long to wait for the end of a container after it was killed, before it is killed again.
///
/// The kernel kills within milliseconds; a process in uninterruptible I/O takes as long as the device.
pub const KILL_AGAIN: Duration = Duration::from_secs(5);

/// How long a failed pull shows as `ErrImagePull` before it shows as `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: Duration = Duration::from_secs(2);

/// The reason of a pod that fails because another one has its host ports, as upstream words it.
pub const PORTS_TAKEN: &str = "NodePorts";

/// How often host ports are asked for in vain before the pod fails: a pod that is just going gets most of a second.
pub const PORT_TRIES_MAX: u32 = 3;

/// All that a decision reads.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The pod as the API has it.
    pub pod: &'a PodView,
    /// What is remembered of it.
    pub memory: &'a PodMemory,
    /// How restarts are spaced.
    pub curve: &'a Curve,
    /// The time.
    pub now: Time,
    /// What the node has to give, and what it gave to its other pods.
    pub node: (Allocatable, Taken),
}

/// What to do, and when to look again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// What to do.
    pub acts: Vec<Act>,
    /// When to look again even if nothing happens.
    pub wake_at: Option<Time>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Begin to end the pod.
    End(Ending),
    /// Make the sandbox and its network.
    MakeSandbox,
    /// Remove a sandbox whose monitor ended.
    DropSandbox,
    /// Remove a sandbox in which a container keeps failing, so that the pod gets a fresh one.
    RenewSandbox {
        /// The container.
        name: String,
    },
    /// Take down volumes whose file systems were shut down, and the sandbox, so that the pod gets both anew.
    TakeDown,
    /// Make the volumes.
    PrepareVolumes,
    /// Have a container's image.
    Pull {
        /// The container.
        name: String,
    },
    /// Have the image that a volume shows.
    PullShown {
        /// The volume.
        volume: String,
    },
    /// Ask for the pod's turn to start its first container.
    AskTurn,
    /// Start a container.
    Start {
        /// The container.
        name: String,
    },
    /// Run a container's postStart hook.
    PostStart {
        /// The container.
        name: String,
    },
    /// Begin to kill a container.
    Kill {
        /// The container.
        name: String,
        /// Why, for the event.
        why: String,
        /// How long it gets.
        grace: Duration,
    },
    /// Run a container's preStop hook, for at most this long.
    PreStop {
        /// The container.
        name: String,
        /// How long.
        limit: Duration,
    },
    /// Ask a container to stop.
    Stop {
        /// The container.
        name: String,
        /// When it gets no more time.
        deadline: Time,
    },
    /// Kill a container's first process.
    KillNow {
        /// The container.
        name: String,
    },
    /// Ask a probe.
    Ask {
        /// The container.
        name: String,
        /// Which probe.
        kind: ProbeKind,
    },
    /// Give a running container other limits.
    Resize {
        /// The container.
        name: String,
    },
    /// Allot the containers what they ask for.
    Allot,
    /// Give the pod as a whole these limits.
    ResizeWhole {
        /// Which.
        limits: runtime::Resources,
    },
    /// Take the network away; logs and exit codes stay.
    Release,
    /// Remove everything of the pod from this node.
    Remove,
    /// Let the API forget the pod.
    DeleteObject,
}

/// What becomes of a container that does not run.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// It is to be started.
    Start,
    /// It is to be started, but not before.
    Wait {
        /// When.
        until: Time,
        /// How long that wait is in all.
        wait: Duration,
    },
    /// It stays ended.
    Done,
}

/// How the pod as a whole is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Something runs or will.
    Going,
    /// Everything ended well.
    Succeeded,
    /// Something ended badly for good.
    Failed,
}

impl Decision {
    fn act(&mut self, act: Act) {
        self.acts.push(act);
    }

    fn wake(&mut self, at: Time) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }

    /// `true` when `at` has come; otherwise asks to be woken then.
    fn is_due(&mut self, at: Time, now: Time) -> bool {
        if at > now {
            self.wake(at);
        }
        at <= now
    }
}

impl<'a> Seen<'a> {
    /// What is remembered of a member.
    pub fn container(&self, member: &Member) -> &'a ContainerMemory {
        static NOTHING: std::sync::LazyLock<ContainerMemory> = std::sync::LazyLock::new(Default::default);
        self.memory.containers.get(member.name()).unwrap_or(&NOTHING)
    }

    fn last_in_epoch(&self, member: &Member) -> Option<&'a Run> {
        self.container(member).last_in(self.memory.epoch)
    }

    fn is_busy(&self, member: &Member) -> bool {
        let container = self.container(member);
        container.running().is_some() || container.is_starting
    }
}

/// Decides what to do for a pod.
pub fn decide(seen: &Seen<'_>) -> Decision {
    let mut plan = Decision::default();
    if let Some(ending) = ending_wanted(seen, &mut plan) {
        plan.act(Act::End(ending));
    } else if seen.memory.is_settled || is_over(seen) {
        clear(seen, &mut plan);
    } else if let Some(ending) = &seen.memory.ending {
        stop_all(seen, ending.began_at + ending.grace, "Stopping container", &mut plan);
    } else if course(seen) != Course::Going {
        let deadline = seen.now + seconds(seen.pod.grace_seconds());
        stop_all(seen, deadline, "Stopping container", &mut plan);
    } else {
        run(seen, &mut plan);
    }
    plan
}

/// Whether, and how, the pod is to be ended, where that is news.
fn ending_wanted(seen: &Seen<'_>, plan: &mut Decision) -> Option<Ending> {
    let known = seen.memory.ending.as_ref();
    if seen.pod.deleted_at.is_some() {
        let asked = seen.pod.pod.metadata.deletion_grace_period_seconds;
        let grace = seconds(asked.unwrap_or(seen.pod.grace_seconds()));
        return match known {
            None => Some(Ending { failure: None, is_vanished: false, began_at: seen.now, grace }),
            Some(known) if known.grace > grace => Some(Ending { grace, ..known.clone() }),
            Some(_) => None,
        };
    }
    if let (None, Some(failure)) = (known, refusal(seen)) {
        let grace = Duration::ZERO;
        return Some(Ending { failure: Some(failure), is_vanished: false, began_at: seen.now, grace });
    }
    let limit = seconds(seen.pod.spec().active_deadline_seconds?);
    if known.is_some() || seen.memory.is_settled || course(seen) != Course::Going {
        return None;
    }
    plan.is_due(seen.memory.started_at? + limit, seen.now).then(|| Ending {
        failure: Some(Failure {
            reason: "DeadlineExceeded".into(),
            message: "Pod was active on the node longer than the specified deadline".into(),
        }),
        is_vanished: false,
        began_at: seen.now,
        grace: seconds(seen.pod.grace_seconds()),
    })
}

/// Why this node does not take the pod.
fn refusal(seen: &Seen<'_>) -> Option<Failure> {
    if let Some(message) = security::forbidden_sysctl(seen.pod) {
        return Some(Failure { reason: "SysctlForbidden".into(), message });
    }
    match &seen.memory.sandbox {
        Step::Failed { reason, message, failures, .. }
            if reason == PORTS_TAKEN && *failures >= PORT_TRIES_MAX =>
        {
            Some(Failure { reason: reason.clone(), message: message.clone() })
        }
        _ => None,
    }
}

/// Whether nothing runs any more and nothing will.
pub fn is_over(seen: &Seen<'_>) -> bool {
    let ends = seen.memory.ending.is_some() || course(seen) != Course::Going;
    seen.memory.clearing != Clearing::NotYet || (ends && !seen.memory.is_anything_running())
}

/// How the pod as a whole is going, by the ends of its containers.
pub fn course(seen: &Seen<'_>) -> Course {
    if !is_initialised(seen) {
        let failed = seen.pod.with_role(&[Role::Init]).any(|member| {
            let exit = seen.container(member).last().and_then(Run::exit);
            exit.is_some_and(|exit| exit.code != 0) && fate(seen, member) == Fate::Done
        });
        return if failed { Course::Failed } else { Course::Going };
    }
    let mut course = Course::Succeeded;
    for member in seen.pod.with_role(&[Role::Main]) {
        match seen.container(member).last().and_then(Run::exit) {
            Some(exit) if fate(seen, member) == Fate::Done && !seen.container(member).is_starting => {
                if exit.code != 0 {
                    course = Course::Failed;
                }
            }
            _ => return Course::Going,
        }
    }
    course
}

/// Whether the init containers have done their work: an ordinary container has run in this sandbox (or in one before
/// it, and needs no other).
pub fn is_initialised(seen: &Seen<'_>) -> bool {
    let mut mains = seen.pod.with_role(&[Role::Main]);
    mains.any(|member| match seen.container(member).last() {
        Some(run) => run.epoch == seen.memory.epoch || fate(seen, member) == Fate::Done,
        None => false,
    })
}

/// What becomes of a container that does not run.
pub fn fate(seen: &Seen<'_>, member: &Member) -> Fate {
    let container = seen.container(member);
    let Some(run) = container.last() else { return Fate::Start };
    let Some(exit) = run.exit() else { return Fate::Start };
    let is_stale_init = member.role == Role::Init && run.epoch != seen.memory.epoch;
    if !is_stale_init && !seen.pod.restarts(member, exit.code) {
        return Fate::Done;
    }
    if run.hash != member.hash {
        return Fate::Start;
    }
    let (until, wait) = container.restarts.due(seen.curve, exit.started_at, exit.finished_at);
    if until > seen.now { Fate::Wait { until, wait } } else { Fate::Start }
}

/// The containers whose turn it is, in order: one init container after the other, then all the rest.
pub fn front<'a>(seen: &Seen<'a>) -> Vec<&'a Member> {
    let mut open = Vec::new();
    let is_initialised = is_initialised(seen);
    for member in seen.pod.with_role(&[Role::Init, Role::Sidecar]) {
        if is_initialised && member.role == Role::Init {
            continue;
        }
        open.push(member);
        let last = seen.last_in_epoch(member);
        let has_passed = match member.role {
            Role::Sidecar => last.is_some_and(Run::has_started),
            _ => last.and_then(Run::exit).is_some_and(|exit| exit.code == 0),
        };
        if !has_passed && !is_initialised {
            return open;
        }
    }
    for member in seen.pod.with_role(&[Role::Main]) {
        open.push(member);
        let hooked = member.container.lifecycle.as_ref().is_some_and(|all| all.post_start.is_some());
        let has_hooked = seen
            .last_in_epoch(member)
            .is_some_and(|run| !matches!(run.post_start, Hook::Due | Hook::Running));
        if hooked && !has_hooked {
            // The next ones wait for the hook, except those that ran already.
            let rest = seen.pod.with_role(&[Role::Main]).filter(|other| seen.last_in_epoch(other).is_some());
            let more: Vec<_> =
                rest.filter(|other| !open.iter().any(|known| known.name() == other.name())).collect();
            open.extend(more);
            break;
        }
    }
    open.extend(seen.pod.with_role(&[Role::Ephemeral]));
    open
}

fn run(seen: &Seen<'_>, plan: &mut Decision) {
    let has_volumes = step(&seen.memory.volumes, Act::PrepareVolumes, seen.now, plan);
    let has_sandbox = match &seen.memory.sandbox {
        Step::Done(here) if here.is_lost => {
            plan.act(Act::DropSandbox);
            false
        }
        Step::Done(here) if here.is_shut => {
            if !is_anything_starting(seen) {
                plan.act(Act::TakeDown);
            }
            return;
        }
        Step::Done(_) if let Some(member) = worn_by(seen) => {
            plan.act(Act::RenewSandbox { name: member.name().to_owned() });
            return;
        }
        other => step(other, Act::MakeSandbox, seen.now, plan),
    };
    let is_wide_enough = fit_amounts(seen, has_sandbox, plan);
    for member in front(seen) {
        match seen.last_in_epoch(member) {
            Some(run) if run.is_running() => {
                tend(seen, member, run, plan);
                if is_wide_enough {
                    resize(seen, member, run, plan);
                }
            }
            _ => launch(seen, member, has_volumes && has_sandbox, plan),
        }
    }
}

fn is_anything_starting(seen: &Seen<'_>) -> bool {
    seen.memory.containers.values().any(|container| container.is_starting)
}

/// The container for whose failures the sandbox is to be made anew: a restart cannot help a full shared memory, a bad
/// route, or what a run before left behind. Once, and not while anything in it runs: that would be harmed.
fn worn_by<'a>(seen: &Seen<'a>) -> Option<&'a Member> {
    let after = seen.curve.fresh_after?;
    if seen.memory.fresh.is_some() || seen.memory.is_anything_running() {
        return None;
    }
    failing(seen).find(|member| seen.container(member).failures_here >= after)
}

/// The containers that wait to be restarted.
fn failing<'a>(seen: &Seen<'a>) -> impl Iterator<Item = &'a Member> {
    let (seen, pod) = (*seen, seen.pod);
    pod.members.iter().filter(move |member| {
        !seen.is_busy(member)
            && seen.container(member).last().is_some()
            && matches!(fate(&seen, member), Fate::Wait { .. })
    })
}

/// What was tried on this node for a container that keeps failing, beside restarts, as a reason and a message.
pub fn tried(seen: &Seen<'_>) -> Option<(&'static str, String)> {
    let after = seen.curve.fresh_after?;
    let fresh = seen.memory.fresh.as_ref();
    for member in failing(seen) {
        let (name, failures) = (member.name(), seen.container(member).failures_here);
        if fresh.is_some() && failures >= backoff::FRESH_FAILS_AFTER {
            let message = format!("container {name} failed {failures} times in a fresh sandbox, too");
            return Some((diagnosis::FAILS_HERE, message));
        }
        if fresh.is_none() && failures >= after + backoff::FRESH_FAILS_AFTER {
            let message = format!(
                "container {name} failed {failures} times; the sandbox was kept, because others run in it"
            );
            return Some((diagnosis::FAILS_HERE, message));
        }
    }
    let Fresh { name, failures } = fresh.filter(|_| failing(seen).next().is_some())?;
    Some((
        diagnosis::FRESH_SANDBOX,
        format!("container {name} failed {failures} times: the pod got a fresh sandbox"),
    ))
}

/// Asks for something that is made once; says whether it is there.
fn step<T>(step: &Step<T>, act: Act, now: Time, plan: &mut Decision) -> bool {
    match step {
        Step::Absent => plan.act(act),
        Step::Failed { retry_at, .. } => {
            if plan.is_due(*retry_at, now) {
                plan.act(act);
            }
        }
        Step::Working => {}
        Step::Done(_) => return true,
    }
    false
}

/// Brings up a container that does not run.
fn launch(seen: &Seen<'_>, member: &Member, is_ground_laid: bool, plan: &mut Decision) {
    let container = seen.container(member);
    if container.is_starting {
        return;
    }
    match fate(seen, member) {
        Fate::Done => return,
        Fate::Wait { until, .. } => return plan.wake(until),
        Fate::Start => {}
    }
    let name = member.name().to_owned();
    let pull = Act::Pull { name: name.clone() };
    let mut has_images = is_image_here(&container.image, member.image(), pull, seen.now, plan);
    for (volume, image) in seen.pod.shown_images(member) {
        static NOTHING: Step<ImageHere> = Step::Absent;
        let known = seen.memory.shown_images.get(volume).map_or(&NOTHING, |shown| &shown.image);
        let pull = Act::PullShown { volume: volume.to_owned() };
        has_images &= is_image_here(known, image, pull, seen.now, plan);
    }
    let may_try = match &container.trouble {
        Some(trouble) => plan.is_due(trouble.retry_at, seen.now),
        None => true,
    };
    if has_images && may_try && is_ground_laid && has_turn(seen, plan) {
        plan.act(Act::Start { name });
    }
}

/// Whether the pod may start what is ready to start; asks for its turn where it has none and nothing of it has run here.
fn has_turn(seen: &Seen<'_>, plan: &mut Decision) -> bool {
    let mut all = seen.memory.containers.values();
    if all.any(|one| one.is_starting || one.last_in(seen.memory.epoch).is_some()) {
        return true;
    }
    if seen.memory.turn == StartTurn::NotAsked && !plan.acts.contains(&Act::AskTurn) {
        plan.act(Act::AskTurn);
    }
    seen.memory.turn == StartTurn::Given
}

/// Whether the pod is up: all that is to run is ready, or what has run does not run any more.
pub fn is_up(seen: &Seen<'_>) -> bool {
    if seen.memory.ending.is_some() || course(seen) != Course::Going {
        return true;
    }
    let is_ready = |member: &Member| seen.container(member).running().is_some_and(Run::is_ready);
    let has_ended = || {
        let mut mains = seen.pod.with_role(&[Role::Main]);
        mains.any(|member| seen.last_in_epoch(member).is_some_and(|run| !run.is_running()))
    };
    seen.pod.with_role(&[Role::Main]).all(is_ready) || (!seen.memory.is_anything_running() && has_ended())
}

/// Whether an image that was had is the one of this reference; asks for it where it is not.
fn is_image_here(
    step_of: &Step<ImageHere>,
    reference: &str,
    pull: Act,
    now: Time,
    plan: &mut Decision,
) -> bool {
    match step_of {
        Step::Done(here) if here.reference != reference => {
            plan.act(pull);
            false
        }
        Step::Failed { failures, retry_at, .. } => {
            plan.is_due(pull_failed_at(*failures, *retry_at) + PULL_ERROR_SHOWN, now);
            step(step_of, pull, now, plan)
        }
        other => step(other, pull, now, plan),
    }
}

/// When a pull failed that is to be tried again at `retry_at`.
pub fn pull_failed_at(failures: u32, retry_at: Time) -> Time {
    retry_at - backoff::image_wait(failures)
}

/// Looks after a container that runs.
fn tend(seen: &Seen<'_>, member: &Member, run: &Run, plan: &mut Decision) {
    let container = seen.container(member);
    if let Some(killing) = &container.killing {
        return press(seen, member, killing, None, plan);
    }
    if let Some((why, grace)) = reason_to_kill(seen, member, run, plan) {
        return plan.act(Act::Kill { name: member.name().to_owned(), why, grace });
    }
    if run.post_start == Hook::Due {
        plan.act(Act::PostStart { name: member.name().to_owned() });
    }
    ask(seen, member, run, &ProbeKind::ALL, plan);
}

/// How long a change that does not fit the node now waits before it is looked at again: what would make room for it
/// (a pod that ends) is not told to this one.
const ROOM_LOOKED_AT_EVERY: Duration = Duration::from_secs(3);

/// Allots what is asked for where there is room, and keeps the pod as a whole wide enough for its containers; says
/// whether it is. It becomes wider before they do, and narrower after them: the kernel refuses a child beyond its parent.
fn fit_amounts(seen: &Seen<'_>, has_sandbox: bool, plan: &mut Decision) -> bool {
    if seen.memory.allotted.is_none() || seen.pod.members.iter().any(|member| seen.pod.is_misfit(member)) {
        match no_room(seen) {
            None => plan.act(Act::Allot),
            Some(_) => plan.wake(seen.now + ROOM_LOOKED_AT_EVERY),
        }
    }
    let Some(has) = seen.memory.whole.as_ref().filter(|_| has_sandbox && !seen.memory.is_resizing) else {
        return false;
    };
    let wanted = resources::pod_limits(seen.pod);
    let is_resized = |member: &Member| match seen.container(member).running().map(|run| &run.resources) {
        Some(Some(has)) => *has == resources::limits(member, seen.pod),
        _ => true,
    };
    let limits = match seen.pod.members.iter().all(is_resized) {
        true => wanted,
        false => resources::either(has, &wanted),
    };
    let is_other = *has != limits;
    if is_other
        && seen.memory.resize_trouble.as_ref().is_none_or(|known| plan.is_due(known.retry_at, seen.now))
    {
        plan.act(Act::ResizeWhole { limits });
    }
    !is_other
}

/// Why the pod cannot have now what it asks for, where it asks for something else than it has.
pub fn no_room(seen: &Seen<'_>) -> Option<resources::NoRoom> {
    // What a pod came with was found to fit when it was bound.
    seen.memory.allotted.as_ref()?;
    let is_misfit = seen.pod.members.iter().any(|member| seen.pod.is_misfit(member));
    let (all, taken) = &seen.node;
    resources::room(seen.pod, all, taken).err().filter(|_| is_misfit)
}

/// Gives a running container the limits that it was allotted.
fn resize(seen: &Seen<'_>, member: &Member, run: &Run, plan: &mut Decision) {
    let container = seen.container(member);
    let wanted = resources::limits(member, seen.pod);
    let is_due = match &container.resize_trouble {
        Some(trouble) => plan.is_due(trouble.retry_at, seen.now),
        None => true,
    };
    let is_other = run.resources.as_ref().is_some_and(|has| *has != wanted);
    if is_other && is_due && !container.is_resizing && container.killing.is_none() {
        plan.act(Act::Resize { name: member.name().to_owned() });
    }
}

/// How long a changed specification rests before a container is restarted for it: what else changes meanwhile costs no
/// second restart, and whoever changed it can still read how the pod was.
const CHANGE_RESTS_FOR: Duration = Duration::from_millis(250);

fn reason_to_kill(
    seen: &Seen<'_>,
    member: &Member,
    run: &Run,
    plan: &mut Decision,
) -> Option<(String, Duration)> {
    let name = member.name();
    let own = seconds(seen.pod.grace_seconds());
    let is_outdated = run.hash != member.hash && member.role != Role::Ephemeral;
    if is_outdated && seen.memory.changed_at.is_none_or(|at| plan.is_due(at + CHANGE_RESTS_FOR, seen.now)) {
        return Some((format!("Container {name} definition changed, will be restarted"), own));
    }
    if let Some(has) = &run.resources
        && resources::needs_restart(member, has, &resources::limits(member, seen.pod))
    {
        return Some((format!("Container {name} resize requires restart"), own));
    }
    if let Hook::Failed(message) = &run.post_start {
        return Some((format!("FailedPostStartHook: {message}"), own));
    }
    for kind in [ProbeKind::Startup, ProbeKind::Liveness] {
        let Some(probe) = kind.of(&member.container) else { continue };
        if run.verdict(kind) == Some(false) {
            let word = kind.word().to_lowercase();
            let grace = probe.termination_grace_period_seconds.map_or(own, seconds);
            let then = if seen.pod.restarts(member, 137) { ", will be restarted" } else { "" };
            return Some((format!("{}{then}", model::pod::probe_failed(name, &word)), grace));
        }
    }
    None
}

/// Asks the probes of these kinds that are due.
fn ask(seen: &Seen<'_>, member: &Member, run: &Run, kinds: &[ProbeKind], plan: &mut Decision) {
    if run.post_start != Hook::Done {
        return;
    }
    for kind in kinds {
        let Some(tally) = run.probes.get(kind) else { continue };
        let is_gated = *kind != ProbeKind::Startup && run.verdict(ProbeKind::Startup) != Some(true);
        let is_settled = *kind == ProbeKind::Startup && tally.verdict.is_some();
        if tally.is_asking || is_gated || is_settled {
            continue;
        }
        if plan.is_due(tally.next_at, seen.now) {
            plan.act(Act::Ask { name: member.name().to_owned(), kind: *kind });
        }
    }
}

/// Ends everything that runs: ordinary containers together, then the sidecars in reverse order.
fn stop_all(seen: &Seen<'_>, deadline: Time, why: &str, plan: &mut Decision) {
    let mut is_first_busy = false;
    for member in seen.pod.with_role(&[Role::Main, Role::Ephemeral, Role::Init]) {
        is_first_busy |= seen.is_busy(member);
        stop(seen, member, deadline, why, plan);
    }
    for member in seen.pod.with_role(&[Role::Sidecar]).rev() {
        let is_busy = seen.is_busy(member);
        let has_begun = seen.container(member).killing.is_some();
        if !is_first_busy || has_begun || deadline <= seen.now {
            stop(seen, member, deadline, why, plan);
        } else if let Some(run) = seen.container(member).running() {
            ask(seen, member, run, &ProbeKind::ALL, plan);
            plan.wake(deadline);
        }
        is_first_busy |= is_busy;
    }
}

fn stop(seen: &Seen<'_>, member: &Member, deadline: Time, why: &str, plan: &mut Decision) {
    let container = seen.container(member);
    let Some(run) = container.running() else { return };
    let limit = seen.memory.ending.as_ref().map(|_| deadline);
    match &container.killing {
        Some(killing) => press(seen, member, killing, limit, plan),
        None => plan.act(Act::Kill {
            name: member.name().to_owned(),
            why: format!("{why} {}", member.name()),
            grace: Duration::try_from(deadline.duration_since(seen.now)).unwrap_or(Duration::ZERO),
        }),
    }
    ask(seen, member, run, &[ProbeKind::Readiness], plan);
}

/// Moves a killing on.
fn press(seen: &Seen<'_>, member: &Member, killing: &Killing, limit: Option<Time>, plan: &mut Decision) {
    let name = member.name().to_owned();
    let deadline = limit.map_or(killing.deadline, |limit| limit.min(killing.deadline));
    let left = Duration::try_from(deadline.duration_since(seen.now)).unwrap_or(Duration::ZERO);
    let has_hook = member.container.lifecycle.as_ref().is_some_and(|all| all.pre_stop.is_some());
    match killing.stage {
        KillStage::Asked if has_hook && !left.is_zero() => plan.act(Act::PreStop { name, limit: left }),
        KillStage::Asked if left.is_zero() => plan.act(Act::KillNow { name }),
        KillStage::Asked => plan.act(Act::Stop { name, deadline }),
        KillStage::Hook => {
            if plan.is_due(deadline, seen.now) {
                plan.act(Act::Stop { name, deadline: seen.now + GRACE_AFTER_HOOK });
            }
        }
        KillStage::HookDone => {
            plan.act(Act::Stop { name, deadline: deadline.max(seen.now + GRACE_AFTER_HOOK) });
        }
        KillStage::Stopping => {
            // A hook that used up the grace was given a little more, which the limit must not take back.
            let until = if has_hook { killing.deadline } else { deadline };
            if plan.is_due(until, seen.now) {
                plan.act(Act::KillNow { name });
            }
        }
        KillStage::Killed(at) => {
            if plan.is_due(at + KILL_AGAIN, seen.now) {
                plan.act(Act::KillNow { name });
            }
        }
    }
}

/// Clears away a pod that is over.
fn clear(seen: &Seen<'_>, plan: &mut Decision) {
    let memory = seen.memory;
    let is_vanished = memory.ending.as_ref().is_some_and(|ending| ending.is_vanished);
    let must_go = is_vanished || seen.pod.deleted_at.is_some();
    if memory.clear_retry_at.is_some_and(|at| !plan.is_due(at, seen.now)) {
        return;
    }
    // What is being made would be left behind.
    if matches!(memory.sandbox, Step::Working)
        || matches!(memory.volumes, Step::Working)
        || memory.is_renewing
    {
        return;
    }
    match memory.clearing {
        Clearing::NotYet | Clearing::Released if must_go => plan.act(Act::Remove),
        Clearing::NotYet if !memory.is_settled => plan.act(Act::Release),
        Clearing::Removed if is_vanished || memory.is_status_written => plan.act(Act::DeleteObject),
        _ => {}
    }
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

#[cfg(test)]
pub mod cases;
