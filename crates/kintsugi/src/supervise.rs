//! Agents in processes of their own: the server notices when one dies, and starts it again.
//!
//! Nothing is polled: the end comes from the process's own descriptor (a pidfd). Containers run on meanwhile, and the
//! next agent adopts them.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use host::watch;
use host::{Host, Task};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::leave;

/// How long an agent has to have run for its end to count as bad luck: it is then started again at once.
///
/// Longer than an agent takes until it is Ready, so that one that cannot begin is not started in a circle.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

/// The first pause before an agent that ended early is started again; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest pause: what kept it from starting may be mended by hand, and nobody should wait long after that.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long an agent may take to end when it is asked to, before it is killed: it has nothing to finish.
const STOP_MAX: Duration = Duration::from_secs(5);

/// An agent that runs as long as this is there.
pub struct Supervised {
    stop: watch::Sender<bool>,
    keeper: Task<()>,
}

impl Supervised {
    /// Starts the agent of a node, on its settings' file.
    ///
    /// # Errors
    /// When it cannot even be started.
    pub fn start(host: &Host, name: String, settings: PathBuf) -> Result<Self> {
        let seat = Seat { name, settings };
        let agent = seat.start()?;
        Ok(Self::keep(host, seat, agent))
    }

    /// Looks after an agent that outlived its server as if it had been started here.
    ///
    /// # Errors
    /// When it has just ended.
    pub fn adopt(host: &Host, name: String, settings: PathBuf, pid: Pid) -> Result<Self> {
        let agent = Agent::living(pid).with_context(|| format!("cannot adopt the agent of {name}"))?;
        Ok(Self::keep(host, Seat { name, settings }, agent))
    }

    fn keep(host: &Host, seat: Seat, agent: Agent) -> Self {
        let (stop, stopped) = watch::channel(false);
        let keeper = host.spawn(keep(host.clone(), seat, agent, stopped));
        Self { stop, keeper }
    }

    /// Ends the agent, and waits for its end. Its containers run on.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        self.keeper.join().await;
    }
}

/// Whose agent it is, and what it is told.
struct Seat {
    name: String,
    settings: PathBuf,
}

impl Seat {
    fn start(&self) -> Result<Agent> {
        let exe = std::env::current_exe().context("cannot find the program's own file")?;
        let mut command = Command::new(exe);
        command.arg("agent").arg("--settings").arg(&self.settings).stdin(Stdio::null());
        // A terminal's Ctrl-C is the server's to hear; it tells its agents.
        command.process_group(0);
        Agent::of(&mut command).with_context(|| format!("cannot start the agent of {}", self.name))
    }
}

async fn keep(host: Host, seat: Seat, first: Agent, mut stopped: watch::Receiver<bool>) {
    let (mut agent, mut pause) = (Some(first), Duration::ZERO);
    loop {
        let began = host.moment();
        if let Some(mut running) = agent.take() {
            let how = tokio::select! {
                biased;
                () = told(&mut stopped) => return running.end(&host).await,
                how = running.ended() => how,
            };
            if seat.settings.parent().is_some_and(leave::has_left) {
                tracing::info!(node = seat.name, "the node has left");
                return told(&mut stopped).await;
            }
            let how = how.unwrap_or_else(|error| error.to_string());
            tracing::warn!(node = seat.name, how, "an agent ended; it is started again");
        }
        pause = next_pause(host.moment().since(began), pause);
        tokio::select! {
            biased;
            () = told(&mut stopped) => return,
            () = host.sleep(pause) => {}
        }
        match seat.start() {
            Ok(started) => agent = Some(started),
            Err(error) => tracing::warn!(node = seat.name, error = format!("{error:#}"), "no agent"),
        }
    }
}

/// Waits until the agent is no longer wanted.
async fn told(stopped: &mut watch::Receiver<bool>) {
    // Whoever could tell being gone says the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// How long to wait before the next start, after an agent that ran for so long.
pub(crate) fn next_pause(ran: Duration, before: Duration) -> Duration {
    if ran >= SETTLED_AFTER {
        return Duration::ZERO;
    }
    (before * 2).clamp(PAUSE_FIRST, PAUSE_MAX)
}

/// A process of ours; when it is dropped it is killed.
struct Agent {
    /// Whose child it is: ours, or that of a server which is gone.
    child: Option<Child>,
    pidfd: AsyncFd<OwnedFd>,
}

impl Agent {
    fn of(command: &mut Command) -> io::Result<Self> {
        let mut child = command.spawn()?;
        // Until it is waited for, its number is nobody else's.
        let pid = Pid::from_child(&child);
        match Self::living(pid) {
            Ok(mut agent) => {
                agent.child = Some(child);
                Ok(agent)
            }
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    fn living(pid: Pid) -> io::Result<Self> {
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned by what is made here, and is open and the same as long as that is there.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?;
        Ok(Self { child: None, pidfd })
    }

    /// Waits for its end; how it was, as far as that can be known. May be dropped while it waits.
    async fn ended(&mut self) -> io::Result<String> {
        let _readable = self.pidfd.readable().await?;
        match &mut self.child {
            Some(child) => child.wait().map(|status| status.to_string()),
            None => Ok("it was another server's: how is not known".to_owned()),
        }
    }

    /// Asks it to end, and waits until it has.
    async fn end(mut self, host: &Host) {
        self.signal(Signal::TERM);
        // Whoever does not listen in time is killed on the way out.
        host.within(STOP_MAX, self.ended()).await;
    }

    fn signal(&self, signal: Signal) {
        // One that has ended already needs none.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), signal);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Nothing is left of it but its status, which nobody asks for any more.
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_agent_is_started_again_at_once_and_one_that_cannot_begin_ever_later() {
        let check = |ran: u64, before: u64, wanted: u64| {
            let pause = next_pause(Duration::from_secs(ran), Duration::from_millis(before));
            assert_eq!(pause, Duration::from_millis(wanted), "ran {ran} s, {before} ms before");
        };
        check(10, 0, 0);
        check(3600, 10_000, 0);
        check(0, 0, 100);
        check(0, 100, 200);
        check(9, 8000, 10_000);
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_and_one_that_is_dropped_is_gone() {
        let mut sleeps = Agent::of(Command::new("sleep").arg("1000")).expect("sleep is there");
        let pid = Pid::from_child(sleeps.child.as_ref().expect("it is ours"));
        let mut adopted = Agent::living(pid).expect("it lives");
        sleeps.signal(Signal::KILL);
        adopted.ended().await.expect("it is noticed");
        let how = sleeps.ended().await.expect("our own child");
        assert!(how.contains("SIGKILL"), "{how}");
        drop(sleeps);
        assert_eq!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH));

        let stays = Agent::of(Command::new("sleep").arg("1000")).expect("sleep is there");
        let pid = Pid::from_child(stays.child.as_ref().expect("it is ours"));
        drop(stays);
        assert_eq!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH));
    }
}
