//! How a worker carries out its acts: the memory says that it is under way, a job does it.

use client::{ClientError, Deletion};
use model::Precondition;
use runtime::RuntimeError;

use super::*;
use crate::ask::Question;
use crate::jobs;
use crate::memory::StartTurn;
use crate::pod::Member;
use crate::probe::Pace;

/// How long a postStart hook may take: it blocks its container from being ready, so it must end some day.
const POST_START_MAX: Duration = Duration::from_secs(600);

impl Worker {
    pub(super) fn perform(&mut self, act: Act, now: Time) {
        match act {
            Act::End(ending) => self.end(ending),
            Act::MakeSandbox => self.make_sandbox(),
            Act::DropSandbox => {
                self.drop_sandbox("Pod sandbox changed, it will be killed and re-created.".into());
            }
            Act::RenewSandbox { name } => self.renew_sandbox(name),
            Act::TakeDown => self.take_down(now),
            Act::PrepareVolumes => self.prepare_volumes(),
            Act::Pull { name } => self.pull(&name),
            Act::PullShown { volume } => self.pull_shown(volume),
            Act::AskTurn => self.ask_turn(),
            Act::Start { name } => self.start(&name),
            Act::PostStart { name } => self.post_start(&name),
            Act::Kill { name, why, grace } => self.kill(&name, why, grace, now),
            Act::PreStop { name, limit } => self.pre_stop(&name, limit),
            Act::Stop { name, deadline } => self.stop(&name, deadline),
            Act::KillNow { name } => self.kill_now(&name, now),
            Act::Ask { name, kind } => self.ask(&name, kind, now),
            Act::Resize { name } => self.resize(&name),
            Act::Allot => self.allot(),
            Act::ResizeWhole { limits } => self.resize_whole(limits),
            Act::Release => self.release(),
            Act::Remove => self.remove(),
            Act::DeleteObject => self.delete_object(),
        }
    }

    fn member(&self, name: &str) -> Option<Member> {
        self.pod.member(name).cloned()
    }

    fn end(&mut self, ending: Ending) {
        // Nobody needs images for it any more.
        self.pulls.clear();
        for container in self.memory.containers.values_mut() {
            if matches!(container.image, Step::Working) {
                container.image = Step::Absent;
            }
        }
        self.memory.shown_images.retain(|_, shown| shown.image.is_done());
        self.memory.ending = Some(ending);
    }

    fn make_sandbox(&mut self) {
        self.memory.sandbox = Step::Working;
        let (agent, pod) = (self.agent.clone(), self.pod.clone());
        self.job(async move { Report::Sandbox(jobs::make_sandbox(&agent, &pod).await) });
    }

    fn renew_sandbox(&mut self, name: String) {
        let failures = self.memory.renew(&name);
        let message = format!(
            "Container {name} failed {failures} times in this sandbox: it will be killed and re-created."
        );
        self.drop_sandbox(message);
    }

    fn drop_sandbox(&mut self, message: String) {
        self.agent.events.normal(Agent::about(&self.pod, None), "SandboxChanged", message);
        self.memory.sandbox = Step::Working;
        let (agent, uid) = (self.agent.clone(), self.pod.uid.clone());
        self.job(async move { Report::Dropped(jobs::drop_sandbox(&agent, &uid).await) });
    }

    fn take_down(&mut self, now: Time) {
        let message = "The file systems of the pod's volumes were shut down when the node's lease had run out: they and the \
                       sandbox will be made anew.";
        self.agent.events.normal(Agent::about(&self.pod, None), "SandboxChanged", message);
        // What still runs stands on nothing.
        self.memory.lose(now);
        self.memory.sandbox = Step::Working;
        self.memory.volumes = Step::Working;
        let (agent, pod, ground) = (self.agent.clone(), self.pod.clone(), self.ground.clone());
        self.job(async move { Report::TakenDown(jobs::take_down(&agent, &pod, &ground).await) });
    }

    fn prepare_volumes(&mut self) {
        self.memory.volumes = Step::Working;
        let (agent, pod) = (self.agent.clone(), self.pod.clone());
        self.job(async move { Report::Ground(jobs::lay_ground(&agent, &pod).await.map(Arc::new)) });
    }

    fn pull(&mut self, name: &str) {
        let Some(member) = self.member(name) else { return };
        let container = self.memory.container(name);
        container.image = Step::Working;
        let has_run = container.last().is_some_and(|run| run.hash == member.hash);
        let wish = jobs::Wish {
            reference: member.image().to_owned(),
            policy: member.container.image_pull_policy.clone(),
            has_run,
            about: Agent::about(&self.pod, Some(name)),
        };
        let (reference, of) = (wish.reference.clone(), name.to_owned());
        self.have(name.to_owned(), wish, move |result| Report::Image { name: of, reference, result });
    }

    fn pull_shown(&mut self, volume: String) {
        let mut all = self.pod.spec().volumes.iter().flatten();
        let Some(source) = all.find(|known| known.name == volume).and_then(|known| known.image.clone())
        else {
            return;
        };
        self.memory.shown_images.entry(volume.clone()).or_default().image = Step::Working;
        let wish = jobs::Wish {
            reference: source.reference.unwrap_or_default(),
            policy: source.pull_policy,
            has_run: self.memory.containers.values().any(|container| container.last().is_some()),
            about: Agent::about(&self.pod, None),
        };
        let reference = wish.reference.clone();
        // No container has a slash in its name.
        let key = format!("volume/{volume}");
        self.have(key, wish, move |result| Report::ShownImage { volume, reference, result });
    }

    /// Has an image; the job goes with the entry of `pulls`.
    fn have(
        &mut self,
        key: String,
        wish: jobs::Wish,
        report: impl FnOnce(Result<(Image, Option<String>), PullFault>) -> Report + Send + 'static,
    ) {
        let (agent, pod, ground) = (self.agent.clone(), self.pod.clone(), self.ground.clone());
        let outbox = self.outbox.clone();
        let job = async move {
            // Credentials may come from secrets that are not read yet.
            let sources = match pod.spec().image_pull_secrets.as_ref().is_some_and(|all| !all.is_empty()) {
                true if ground.sources.secrets.is_empty() => jobs::read_pull_secrets(&agent, &pod).await,
                _ => ground.sources.clone(),
            };
            let result = jobs::have_image(&agent, &wish, &sources, &pod).await;
            // The worker that asked is gone: nobody needs the answer.
            let _ = outbox.send(Message::Done(Box::new(report(result)))).await;
        };
        self.pulls.insert(key, self.agent.means.host.spawn(job));
    }

    fn ask_turn(&mut self) {
        let priority = self.pod.spec().priority.unwrap_or(0);
        let mut turn = self.agent.starts.ask(priority, self.agent.means.host.moment());
        if let Ok(turn) = turn.try_recv() {
            return self.take_turn(turn);
        }
        self.memory.turn = StartTurn::Waiting;
        self.job(async move {
            match turn.await {
                Ok(turn) => Report::Turn(turn),
                // Who gives turns is in this very agent: it cannot be gone.
                Err(_) => std::future::pending().await,
            }
        });
    }

    fn start(&mut self, name: &str) {
        let Some(member) = self.member(name) else { return };
        let container = self.memory.container(name);
        let Step::Done(image) = container.image.clone() else { return };
        container.is_starting = true;
        tracing::debug!(pod = self.pod.name, name, "a container is being started");
        let start = jobs::Start {
            pod: self.pod.clone(),
            member,
            attempt: self.memory.container(name).next_attempt(),
            image,
            addresses: self.memory.addresses.clone(),
            ground: self.ground.clone(),
            shown_images: self.memory.shown_images.clone(),
        };
        let (agent, name) = (self.agent.clone(), name.to_owned());
        self.job(async move { Report::Started { name, result: jobs::start(&agent, start).await } });
    }

    fn post_start(&mut self, name: &str) {
        let Some(member) = self.member(name) else { return };
        let hook = member.container.lifecycle.as_ref().and_then(|all| all.post_start.as_ref());
        let Some(question) = hook.map(|hook| Question::of_hook(hook, &member.container)) else { return };
        let Some(run) = self.memory.container(name).running_mut() else { return };
        run.post_start = Hook::Running;
        let container = run.container.clone();
        let (asker, addresses, name) = (self.agent.asker(), self.memory.addresses.clone(), name.to_owned());
        self.job(async move {
            let answer = asker.ask(&container, &addresses, &question, POST_START_MAX).await;
            Report::PostStart { container, name, answer }
        });
    }

    fn kill(&mut self, name: &str, why: String, grace: Duration, now: Time) {
        let about = Agent::about(&self.pod, Some(name));
        match why.strip_prefix("FailedPostStartHook: ") {
            Some(message) => self.agent.events.warning(about, "FailedPostStartHook", message),
            None => self.agent.events.normal(about, "Killing", why.clone()),
        }
        let killing = crate::memory::Killing { why, stage: KillStage::Asked, deadline: now + grace };
        self.memory.container(name).killing = Some(killing);
    }

    fn set_stage(&mut self, name: &str, stage: KillStage) {
        if let Some(killing) = &mut self.memory.container(name).killing {
            killing.stage = stage;
        }
    }

    fn pre_stop(&mut self, name: &str, limit: Duration) {
        self.set_stage(name, KillStage::Hook);
        let Some(member) = self.member(name) else { return };
        let hook = member.container.lifecycle.as_ref().and_then(|all| all.pre_stop.as_ref());
        let Some(question) = hook.map(|hook| Question::of_hook(hook, &member.container)) else { return };
        let Some(run) = self.memory.container(name).running() else { return };
        let container = run.container.clone();
        let (asker, addresses, name) = (self.agent.asker(), self.memory.addresses.clone(), name.to_owned());
        self.job(async move {
            let answer = asker.ask(&container, &addresses, &question, limit).await;
            Report::PreStop { container, name, answer }
        });
    }

    fn stop(&mut self, name: &str, deadline: Time) {
        let signal = self.stop_signal(name);
        if let Some(killing) = &mut self.memory.container(name).killing {
            killing.stage = KillStage::Stopping;
            killing.deadline = deadline;
        }
        self.signal(name, signal);
    }

    fn kill_now(&mut self, name: &str, now: Time) {
        self.set_stage(name, KillStage::Killed(now));
        self.signal(name, SIGKILL);
    }

    fn signal(&mut self, name: &str, signal: i32) {
        let Some(run) = self.memory.container(name).running() else { return };
        let (container, name) = (run.container.clone(), name.to_owned());
        let (runtime, outbox) = (self.agent.means.runtime.clone(), self.outbox.clone());
        self.jobs.spawn(async move {
            match runtime.signal(&container, signal).await {
                Ok(()) => {}
                Err(RuntimeError::NotFound(_)) => {
                    let report = Report::NothingThere { container, name };
                    // The worker that asked is gone: nobody needs the answer.
                    let _ = outbox.send(Message::Done(Box::new(report))).await;
                }
                Err(error) => tracing::warn!(%error, name, signal, "a signal could not be sent"),
            }
        });
    }

    fn stop_signal(&self, name: &str) -> i32 {
        let own =
            self.pod.member(name).and_then(|member| member.container.lifecycle.as_ref()?.stop_signal.clone());
        let image = self.memory.containers.get(name).and_then(|container| match &container.image {
            Step::Done(here) => Some(here.image.stop_signal.clone()),
            _ => None,
        });
        own.or(image).filter(|name| !name.is_empty()).and_then(|name| signal_number(&name)).unwrap_or(SIGTERM)
    }

    fn ask(&mut self, name: &str, kind: ProbeKind, now: Time) {
        let Some(member) = self.member(name) else { return };
        let Some(probe) = kind.of(&member.container) else { return };
        let (question, limit) = (Question::of_probe(probe, &member.container), Pace::of(probe).timeout);
        let Some(run) = self.memory.container(name).running_mut() else { return };
        if let Some(tally) = run.probes.get_mut(&kind) {
            tally.asked(now);
        }
        let container = run.container.clone();
        let (asker, addresses, name) = (self.agent.asker(), self.memory.addresses.clone(), name.to_owned());
        self.job(async move {
            let answer = asker.ask(&container, &addresses, &question, limit).await;
            Report::Answer { container, name, kind, answer }
        });
    }

    fn resize(&mut self, name: &str) {
        let Some(member) = self.member(name) else { return };
        let wanted = crate::resources::limits(&member, &self.pod);
        let container = self.memory.container(name);
        let Some(run) = container.running().map(|run| run.container.clone()) else { return };
        container.is_resizing = true;
        let (runtime, name) = (self.agent.means.runtime.clone(), name.to_owned());
        self.job(async move {
            let changed = runtime.resize(&run, wanted.clone()).await;
            Report::Resized { name, result: changed.map(|()| wanted).map_err(|error| jobs::spelled(&error)) }
        });
    }

    fn allot(&mut self) {
        let asked = self.pod.asked.clone();
        self.pod.allot(&asked);
        self.memory.allotted = Some(asked);
    }

    fn resize_whole(&mut self, limits: Resources) {
        self.memory.is_resizing = true;
        let (runtime, uid) = (self.agent.means.runtime.clone(), self.pod.uid.clone());
        self.job(async move {
            let changed = runtime.resize_sandbox(&uid, limits.clone()).await;
            Report::ResizedWhole { result: changed.map(|()| limits).map_err(|error| jobs::spelled(&error)) }
        });
    }

    fn release(&mut self) {
        self.memory.clearing = Clearing::Releasing;
        let (agent, uid) = (self.agent.clone(), self.pod.uid.clone());
        self.job(async move { Report::Released(jobs::release(&agent, &uid).await) });
    }

    fn remove(&mut self) {
        self.memory.clearing = Clearing::Removing;
        let (agent, uid) = (self.agent.clone(), self.pod.uid.clone());
        self.job(async move { Report::Removed(jobs::remove(&agent, &uid).await) });
    }

    fn delete_object(&mut self) {
        let is_vanished = self.memory.ending.as_ref().is_some_and(|ending| ending.is_vanished);
        if is_vanished || self.is_object_gone {
            self.memory.clearing = Clearing::Gone;
            return;
        }
        self.memory.clearing = Clearing::Deleting;
        let (agent, uid) = (self.agent.clone(), self.pod.uid.clone());
        let key = desk::pod_key(&self.pod.namespace, &self.pod.name);
        self.job(async move {
            let when = Precondition { uid: Some(uid), resource_version: None };
            let deletion = Deletion { when, grace_seconds: Some(0), ..Deletion::default() };
            match agent.means.client.delete(&key, &deletion).await {
                Ok(_) | Err(ClientError::NotFound { .. } | ClientError::Conflict { .. }) => {
                    Report::Deleted(Ok(()))
                }
                Err(error) => Report::Deleted(Err(jobs::spelled(&error))),
            }
        });
    }
}

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// The first real-time signal that programs may use.
const SIGRTMIN: i32 = 34;
const SIGRTMAX: i32 = 64;

/// Signals by name, without `SIG`.
const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The number of a signal: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal_number(text: &str) -> Option<i32> {
    let name = text.trim().to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let number = match name {
        name if name.starts_with("RTMIN") => SIGRTMIN + offset(&name[5..])?,
        name if name.starts_with("RTMAX") => SIGRTMAX + offset(&name[5..])?,
        name => match SIGNALS.iter().find(|(known, _)| *known == name) {
            Some((_, number)) => *number,
            None => name.parse().ok()?,
        },
    };
    (1..=SIGRTMAX).contains(&number).then_some(number)
}

fn offset(text: &str) -> Option<i32> {
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::signal_number;

    #[test]
    fn signals_have_names_and_numbers() {
        let check = |text: &str, expected: Option<i32>| assert_eq!(signal_number(text), expected, "{text}");
        check("SIGTERM", Some(15));
        check("quit", Some(3));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("9", Some(9));
        check("99", None);
        check("NOPE", None);
    }
}
