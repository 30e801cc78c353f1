//! What a worker learns from messages: the memory changes, nothing is done.

use model::kinds as gvr;
use model::{World, storage};

use super::*;
use crate::backoff;
use crate::events::About;
use crate::farewell;
use crate::memory::{Failure, ImageHere, ShownImage, StartTurn, Trouble};
use crate::plan::Fate;
use crate::probe::Pace;

/// How much of a log becomes the termination message, where the pod asks for that: as upstream.
const FALLBACK_LINES: u64 = 80;
const FALLBACK_LEN_MAX: u64 = 2048;

/// How often in a row a volume may be not there yet before users are told: an attachment takes one turn or two.
const WAITS_MAX: u32 = 4;

impl Worker {
    pub(super) fn take(&mut self, message: Message) {
        match message {
            Message::Pod(pod) => self.take_pod(*pod),
            Message::Vanished => self.vanish(),
            Message::Runtime(event) => self.take_event(event),
            Message::Farewell => self.end_with_node(),
            Message::Source(key, object) => self.take_source(&key, object.as_ref()),
            Message::Volumes if volumes::are_of_others(&self.pod) && self.is_waiting_for_ground() => {
                self.memory.volumes = Step::Absent;
            }
            Message::Volumes
                if self.memory.volumes.is_done() && !self.memory.is_renewing && self.has_grown() =>
            {
                self.refresh_volumes();
            }
            Message::Volumes => {}
            Message::Silence(why) => {
                let is_over = self.memory.silence.is_some() && why.is_none();
                self.memory.silence = why;
                if is_over && self.is_waiting_for_ground() {
                    self.memory.volumes = Step::Absent;
                }
            }
            Message::Written { sequence, is_gone } => {
                self.acked = sequence;
                self.is_object_gone |= is_gone;
                self.memory.is_status_written =
                    self.is_object_gone || sequence == self.desk.borrow().sequence;
            }
            Message::Done(report) => self.take_report(*report),
        }
    }

    fn take_pod(&mut self, pod: PodView) {
        if pod.revision < self.pod.revision {
            return;
        }
        let has_changed = |view: &PodView| {
            let meta = &view.pod.metadata;
            (meta.labels.clone(), meta.annotations.clone(), meta.generation)
        };
        let is_news = has_changed(&pod) != has_changed(&self.pod);
        if pod.pod.metadata.generation != self.pod.pod.metadata.generation {
            self.memory.changed_at = Some(self.agent.means.host.now());
        }
        self.pod = pod;
        self.pod.allot(&self.memory.allotted.clone().unwrap_or_default());
        if !is_news {
            return;
        }
        self.follow();
        // What a container could not be started for may be mended by the change.
        self.try_again();
        if self.memory.volumes.is_done() && volumes::shows_itself(&self.pod) && !self.memory.is_renewing {
            self.refresh_volumes();
        }
    }

    fn try_again(&mut self) {
        for container in self.memory.containers.values_mut() {
            container.trouble = None;
            container.resize_trouble = None;
        }
        self.memory.resize_trouble = None;
        if matches!(self.memory.volumes, Step::Failed { .. }) {
            self.memory.volumes = Step::Absent;
        }
    }

    fn vanish(&mut self) {
        self.is_object_gone = true;
        self.pulls.clear();
        let began_at = self.agent.means.host.now();
        let known = self.memory.ending.take();
        self.memory.ending = Some(match known {
            Some(known) => Ending { is_vanished: true, grace: known.grace.min(VANISHED_GRACE), ..known },
            None => Ending { failure: None::<Failure>, is_vanished: true, began_at, grace: VANISHED_GRACE },
        });
    }

    /// A pod that ends by itself already, or has ended, goes its way.
    fn end_with_node(&mut self) {
        let now = self.agent.means.host.now();
        let is_over = self.memory.is_settled || plan::is_over(&self.seen(now));
        if self.memory.ending.is_some() || is_over {
            return;
        }
        let failure = Failure { reason: farewell::REASON.to_owned(), message: farewell::MESSAGE.to_owned() };
        let asked = self.pod.pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
        let asked = asked.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let grace = asked.unwrap_or(farewell::GRACE_MAX).min(farewell::GRACE_MAX);
        self.memory.ending =
            Some(Ending { failure: Some(failure), is_vanished: false, began_at: now, grace });
    }

    fn take_source(&mut self, key: &Key, object: Option<&Object>) {
        if !self.followed.contains(key) {
            return;
        }
        if !self.memory.volumes.is_done() && !self.is_waiting_for_ground() {
            self.changed.insert(key.clone());
            return;
        }
        if self.knows(key, object) {
            return;
        }
        let mut ground = (*self.ground).clone();
        crate::jobs::take_source(&mut ground.sources, key, object);
        self.ground = Arc::new(ground);
        self.try_again();
        if self.memory.volumes.is_done() && !self.memory.is_renewing {
            self.refresh_volumes();
        }
    }

    /// Whether a source is already known as it is now.
    fn knows(&self, key: &Key, object: Option<&Object>) -> bool {
        let sources = &self.ground.sources;
        let known = if key.gvr == model::kinds::SECRET {
            sources.secrets.get(&key.name).map(|secret| secret.metadata.resource_version.clone())
        } else {
            sources.config_maps.get(&key.name).map(|map| map.metadata.resource_version.clone())
        };
        known == object.map(|object| Some(object.meta().resource_version().to_owned()))
    }

    /// Looks at the sources that changed while the ground was laid.
    fn look_at_sources(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        for key in self.followed.clone() {
            let object = self.agent.means.caches.get(&key).filter(|object| object.revision() > 0);
            // A cache that has not seen an object yet says nothing of it; one that told of a change has.
            if object.is_some() || changed.contains(&key) {
                self.take_source(&key, object.as_ref());
            }
        }
    }

    /// Whether a volume of the pod is larger than it was when it was last made.
    fn has_grown(&self) -> bool {
        let size = |name: &str| {
            let volume = self.agent.means.caches.get(&Key::new(&gvr::PERSISTENT_VOLUME, "", name))?;
            storage::size(&*volume.seen::<model::Tree>()?)
        };
        let mut grow = self.ground.claims.values().filter_map(|claimed| claimed.grows.as_ref());
        grow.any(|(name, known)| size(name).is_some_and(|now| now > *known))
    }

    fn is_waiting_for_ground(&self) -> bool {
        matches!(self.memory.volumes, Step::Failed { .. })
    }

    fn take_event(&mut self, event: RuntimeEvent) {
        match event {
            RuntimeEvent::Exited { container, name, exit } => {
                if !self.memory.exited(&name, &container.id, exit.clone()) {
                    // Its start was not reported yet.
                    if self.memory.containers.get(&name).is_some_and(|known| known.is_starting) {
                        self.early_ends.insert(container.id, exit);
                    }
                    return;
                }
                self.has_ended(&name, container, &exit);
            }
            RuntimeEvent::MonitorLost { .. } => self.memory.lose(self.agent.means.host.now()),
        }
    }

    /// What is to be done beside the plan when a container has ended: the message, and the event of a backoff.
    fn has_ended(&mut self, name: &str, container: ContainerRef, exit: &Exit) {
        let now = self.agent.means.host.now();
        tracing::debug!(pod = self.pod.name, name, code = exit.code, at = %exit.finished_at, "a container ended");
        let Some(member) = self.pod.member(name) else { return };
        let falls_back =
            member.container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
        let (is_going, waits) = {
            let seen = self.seen(now);
            (self.memory.ending.is_none(), matches!(plan::fate(&seen, member), Fate::Wait { .. }))
        };
        if is_going && waits {
            let pod = &self.pod;
            let message = format!(
                "Back-off restarting failed container {name} in pod {}_{}({})",
                pod.name, pod.namespace, pod.uid
            );
            self.agent.events.warning(Agent::about(pod, Some(name)), "BackOff", message);
        }
        if falls_back && exit.code != 0 && exit.message.is_empty() {
            self.read_last_words(name.to_owned(), container);
        }
    }

    fn read_last_words(&mut self, name: String, container: ContainerRef) {
        let runs = self.memory.container(&name).runs.iter();
        let attempt = runs.rev().find(|run| run.container == container).map(|run| run.attempt);
        let request = runtime::LogRequest {
            pod_uid: container.pod_uid.clone(),
            name: name.clone(),
            attempt,
            tail_lines: Some(FALLBACK_LINES),
            limit_bytes: Some(FALLBACK_LEN_MAX),
            ..runtime::LogRequest::default()
        };
        let runtime = self.agent.means.runtime.clone();
        self.job(async move {
            let mut text = Vec::new();
            if let Ok(mut lines) = runtime.log(request).await {
                while let Some(part) = lines.recv().await {
                    text.extend_from_slice(&part);
                }
            }
            Report::EndMessage { container, name, message: String::from_utf8_lossy(&text).into_owned() }
        });
    }

    fn take_report(&mut self, report: Report) {
        let now = self.agent.means.host.now();
        match report {
            Report::Sandbox(result) => self.take_sandbox(result, now),
            Report::Dropped(result) => {
                self.memory.sandbox = match result {
                    Ok(()) => Step::Absent,
                    Err(message) => self.failed(&self.memory.sandbox, "FailedKillPod", message, now),
                };
            }
            Report::TakenDown(result) => {
                self.memory.volumes = Step::Absent;
                self.memory.sandbox = match result {
                    Ok(()) => Step::Absent,
                    Err(message) => self.failed(&self.memory.sandbox, "FailedKillPod", message, now),
                };
            }
            Report::Ground(result) => self.take_ground(result, now),
            Report::Image { name, reference, result } => self.take_image(&name, reference, result, now),
            Report::ShownImage { volume, reference, result } => {
                self.take_shown(volume, reference, result, now);
            }
            Report::Turn(turn) => self.take_turn(turn),
            Report::Started { name, result } => self.take_start(&name, result, now),
            Report::PostStart { container, name, answer } => {
                if let Some(run) = self.memory.container(&name).running_mut()
                    && run.container == container
                {
                    run.post_start = if answer.is_good { Hook::Done } else { Hook::Failed(answer.output) };
                }
            }
            Report::PreStop { container, name, answer } => self.take_pre_stop(&name, &container, &answer),
            Report::NothingThere { container, name } => self.take_nothing(&name, &container, now),
            Report::Answer { container, name, kind, answer } => {
                self.take_answer(&name, &container, kind, &answer, now);
            }
            Report::EndMessage { container, name, message } => {
                for run in &mut self.memory.container(&name).runs {
                    if let (true, runtime::ContainerState::Exited(exit)) =
                        (run.container == container, &mut run.state)
                    {
                        exit.message.clone_from(&message);
                    }
                }
            }
            Report::Resized { name, result } => self.take_resize(&name, result, now),
            Report::ResizedWhole { result } => {
                self.memory.is_resizing = false;
                match result {
                    Ok(limits) => {
                        self.memory.whole = Some(limits);
                        self.memory.resize_trouble = None;
                    }
                    Err(message) => {
                        tracing::warn!(message, pod = self.pod.name, "the pod's limits could not be changed");
                        let known = self.memory.resize_trouble.as_ref();
                        self.memory.resize_trouble = Some(resize_trouble(known, message, now));
                    }
                }
            }
            Report::Released(result) => self.cleared(Clearing::Released, Clearing::NotYet, result, now),
            Report::Removed(result) => self.cleared(Clearing::Removed, Clearing::Released, result, now),
            Report::Deleted(result) => self.cleared(Clearing::Gone, Clearing::Removed, result, now),
        }
    }

    pub(super) fn take_turn(&mut self, turn: Turn) {
        self.memory.turn = StartTurn::Given;
        self.turn = Some(turn);
    }

    fn take_resize(&mut self, name: &str, result: Result<Resources, String>, now: Time) {
        let container = self.memory.container(name);
        container.is_resizing = false;
        match result {
            Ok(limits) => {
                container.resize_trouble = None;
                if let Some(run) = container.running_mut() {
                    run.resources = Some(limits);
                }
            }
            Err(message) => {
                tracing::warn!(message, name, "limits could not be changed");
                container.resize_trouble =
                    Some(resize_trouble(container.resize_trouble.as_ref(), message, now));
            }
        }
    }

    fn cleared(&mut self, done: Clearing, again: Clearing, result: Result<(), String>, now: Time) {
        match result {
            Ok(()) => {
                self.memory.clearing = done;
                self.memory.clear_failures = 0;
                self.memory.clear_retry_at = None;
                // What was written before is not yet the last word.
                if done == Clearing::Released || done == Clearing::Removed {
                    self.memory.is_status_written =
                        self.is_object_gone || self.acked == self.desk.borrow().sequence;
                }
            }
            Err(message) => {
                tracing::warn!(message, pod = self.pod.name, "a pod could not be cleared away");
                self.agent.events.warning(Agent::about(&self.pod, None), "FailedKillPod", message);
                self.memory.clearing = again;
                self.memory.clear_failures += 1;
                self.memory.clear_retry_at = Some(now + backoff::trouble_wait(self.memory.clear_failures));
            }
        }
    }

    fn failed<T, U>(&self, known: &Step<U>, reason: &str, message: String, now: Time) -> Step<T> {
        let failures = known.failures() + 1;
        let retry_at = now + backoff::trouble_wait(failures);
        self.agent.events.warning(Agent::about(&self.pod, None), reason, message.clone());
        Step::Failed { reason: reason.into(), message, failures, retry_at }
    }

    fn take_sandbox(&mut self, result: Result<Vec<std::net::IpAddr>, SandboxFault>, now: Time) {
        self.memory.sandbox = match result {
            Ok(addresses) => {
                self.memory.entered(addresses);
                self.memory.whole = Some(crate::resources::pod_limits(&self.pod));
                self.sandbox_failures = 0;
                Step::Done(SandboxHere::default())
            }
            Err(fault) => {
                self.sandbox_failures += 1;
                let message = format!("Failed to create pod sandbox: {}", fault.message);
                let retry_at = now + backoff::trouble_wait(self.sandbox_failures);
                let about = Agent::about(&self.pod, None);
                self.agent.events.warning(about, "FailedCreatePodSandBox", message.clone());
                let failures = self.sandbox_failures;
                Step::Failed { reason: fault.reason.into(), message, failures, retry_at }
            }
        };
    }

    fn take_ground(&mut self, result: Result<Arc<Ground>, VolumeTrouble>, now: Time) {
        let is_renewal = std::mem::take(&mut self.memory.is_renewing);
        match result {
            Ok(ground) => {
                // What was learned of the sources while this was made is newer.
                let newer = if is_renewal { self.ground.sources.clone() } else { ground.sources.clone() };
                let is_outdated = newer != ground.sources;
                self.ground = Arc::new(Ground { sources: newer, ..(*ground).clone() });
                self.memory.volumes = Step::Done(());
                self.volume_failures = 0;
                self.look_at_sources();
                if is_outdated && !self.memory.is_renewing {
                    self.refresh_volumes();
                }
            }
            Err(trouble) => {
                self.volume_failures += 1;
                if !trouble.is_waiting() || self.volume_failures > WAITS_MAX {
                    let about = Agent::about(&self.pod, None);
                    self.agent.events.warning(about, "FailedMount", trouble.to_string());
                }
                let retry_at = now + backoff::trouble_wait(self.volume_failures);
                if is_renewal {
                    let again = Ground { renew_at: Some(retry_at), ..(*self.ground).clone() };
                    self.ground = Arc::new(again);
                } else {
                    let (reason, message) = ("FailedMount".into(), trouble.to_string());
                    self.memory.volumes =
                        Step::Failed { reason, message, failures: self.volume_failures, retry_at };
                }
            }
        }
    }

    fn take_image(
        &mut self,
        name: &str,
        reference: String,
        result: Result<(Image, Option<String>), PullFault>,
        now: Time,
    ) {
        self.pulls.remove(name);
        let about = Agent::about(&self.pod, Some(name));
        let failures = self.memory.container(name).pull_failures;
        let (image, failures) = self.had(about, reference, result, failures, now);
        let container = self.memory.container(name);
        (container.image, container.pull_failures) = (image, failures);
    }

    fn take_shown(
        &mut self,
        volume: String,
        reference: String,
        result: Result<(Image, Option<String>), PullFault>,
        now: Time,
    ) {
        self.pulls.remove(&format!("volume/{volume}"));
        let failures = self.memory.shown_images.get(&volume).map_or(0, |shown| shown.failures);
        let (image, failures) = self.had(Agent::about(&self.pod, None), reference, result, failures, now);
        self.memory.shown_images.insert(volume, ShownImage { image, failures });
    }

    /// What asking for an image led to, after so many failures; tells of it.
    fn had(
        &self,
        about: About,
        reference: String,
        result: Result<(Image, Option<String>), PullFault>,
        failures: u32,
        now: Time,
    ) -> (Step<ImageHere>, u32) {
        let fault = match result {
            Ok((image, told)) => {
                if let Some(told) = told {
                    self.agent.events.normal(about, "Pulled", told);
                }
                return (Step::Done(ImageHere { reference, image }), 0);
            }
            Err(fault) => fault,
        };
        let failures = failures + 1;
        let retry_at = now + backoff::image_wait(failures);
        let (reason, message) = (fault.reason.to_owned(), fault.message);
        let told = match fault.reason {
            "ErrImagePull" => format!("Failed to pull image {reference:?}: {message}"),
            _ => message.clone(),
        };
        self.agent.events.warning(about.clone(), "Failed", told);
        self.agent.events.warning(about, "Failed", format!("Error: {reason}"));
        (Step::Failed { reason, message, failures, retry_at }, failures)
    }

    fn take_start(
        &mut self,
        name: &str,
        result: Result<(ContainerStatus, Resources), StartFault>,
        now: Time,
    ) {
        let Some(member) = self.pod.member(name).cloned() else {
            self.memory.container(name).is_starting = false;
            return;
        };
        let about = Agent::about(&self.pod, Some(name));
        let (reason, message) = match result {
            Ok((status, resources)) => {
                tracing::debug!(pod = self.pod.name, name, attempt = status.attempt, "a container runs");
                self.memory.started(&member, &status, resources);
                self.agent.events.normal(about.clone(), "Created", "Container created");
                self.agent.events.normal(about, "Started", "Container started");
                if let Some(exit) = self.early_ends.remove(&status.container.id) {
                    self.memory.exited(name, &status.container.id, exit.clone());
                    self.has_ended(name, status.container, &exit);
                }
                return;
            }
            Err(StartFault::Program(message)) => {
                self.memory.failed_to_start(&member, message.clone(), now);
                self.agent.events.warning(about, "Failed", format!("Error: {message}"));
                return;
            }
            Err(StartFault::ImageGone) => {
                let container = self.memory.container(name);
                container.is_starting = false;
                container.image = Step::Absent;
                self.memory.shown_images.clear();
                ("RunContainerError", "the image is no longer here".to_owned())
            }
            Err(StartFault::SandboxGone) => {
                self.memory.container(name).is_starting = false;
                // Its volumes went with it.
                self.memory.volumes = Step::Absent;
                return self.memory.lose(now);
            }
            Err(StartFault::Shut) => {
                self.memory.container(name).is_starting = false;
                return self.memory.shut();
            }
            Err(StartFault::Config(message)) => ("CreateContainerConfigError", message),
            Err(StartFault::Runtime(message)) => ("RunContainerError", message),
        };
        let container = self.memory.container(name);
        container.is_starting = false;
        container.start_failures += 1;
        let failures = container.start_failures;
        let retry_at = now + backoff::trouble_wait(failures);
        container.trouble =
            Some(Trouble { reason: reason.into(), message: message.clone(), failures, retry_at });
        self.agent.events.warning(about, "Failed", format!("Error: {message}"));
    }

    fn take_pre_stop(&mut self, name: &str, of: &ContainerRef, answer: &Answer) {
        if !answer.is_good {
            let about = Agent::about(&self.pod, Some(name));
            let message = format!("PreStopHook failed: {}", answer.output);
            self.agent.events.warning(about, "FailedPreStopHook", message);
        }
        let container = self.memory.container(name);
        let is_same = container.running().is_some_and(|run| run.container == *of);
        if let Some(killing) =
            container.killing.as_mut().filter(|killing| is_same && killing.stage == KillStage::Hook)
        {
            killing.stage = KillStage::HookDone;
        }
    }

    /// A run that we believe in is not there: its end was missed.
    fn take_nothing(&mut self, name: &str, container: &ContainerRef, now: Time) {
        let started_at = self.memory.container(name).running().map_or(now, |run| run.started_at());
        let exit = Exit {
            code: 137,
            signal: None,
            oom_killed: false,
            started_at,
            finished_at: now,
            message: "The container could not be located".into(),
        };
        self.memory.exited(name, &container.id, exit);
    }

    fn take_answer(&mut self, name: &str, of: &ContainerRef, kind: ProbeKind, answer: &Answer, now: Time) {
        let Some(member) = self.pod.member(name).cloned() else { return };
        let Some(pace) = kind.of(&member.container).map(Pace::of) else { return };
        let Some(run) = self.memory.container(name).running_mut().filter(|run| run.container == *of) else {
            return;
        };
        let Some(tally) = run.probes.get_mut(&kind) else { return };
        let is_regular = tally.answered(kind, &pace, answer.is_good, now);
        if kind == ProbeKind::Startup && tally.verdict == Some(true) {
            // The others were waiting for this.
            for (other, tally) in &mut run.probes {
                if *other != ProbeKind::Startup {
                    tally.next_at = tally.next_at.max(now);
                }
            }
        }
        if !answer.is_good && is_regular {
            let message = format!("{} probe failed: {}", kind.word(), answer.output);
            self.agent.events.warning(Agent::about(&self.pod, Some(name)), "Unhealthy", message);
        }
    }
}

fn resize_trouble(known: Option<&Trouble>, message: String, now: Time) -> Trouble {
    let failures = known.map_or(0, |known| known.failures) + 1;
    let retry_at = now + backoff::trouble_wait(failures);
    Trouble { reason: "Error".into(), message, failures, retry_at }
}
