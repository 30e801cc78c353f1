//! The demo's cluster: this very program, started as `up` in a process of its own, so that its server can be killed.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use host::Host;

use crate::place::Place;
use crate::settings::Cluster;

/// A running server.
pub struct Served {
    child: Option<Child>,
    host: Host,
}

impl Served {
    /// Starts the server and waits until it says that it is up.
    pub async fn start(host: &Host, place: &Place, cluster: &Cluster) -> Result<Self> {
        let exe = std::env::current_exe().context("cannot find the program's own file")?;
        let mut command = Command::new(exe);
        command.arg("up").arg("--data-dir").arg(place.dir()).args(arguments(cluster));
        // A terminal's Ctrl-C is the demo's to hear; it takes its cluster down.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().context("cannot start the cluster")?;
        let out = child.stdout.take().context("its standard output is piped")?;
        let served = Self { child: Some(child), host: host.clone() };
        let said = host.blocking(move || first_line(out)).await.context("cannot hear the cluster")?;
        if said.is_empty() {
            bail!("the cluster did not start; what it lacks is said above");
        }
        Ok(served)
    }

    /// Kills the server with SIGKILL: nothing of it has time to say farewell.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(libc::SIGKILL).await
    }

    /// Stops the server; the containers run on.
    pub async fn stop(mut self) -> Result<()> {
        self.end(libc::SIGTERM).await
    }

    async fn end(&mut self, signal: i32) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        send(&child, signal);
        self.host.blocking(move || child.wait()).await.context("cannot wait for the server")?;
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            send(&child, libc::SIGTERM);
            // It ends by itself at this signal.
            let _ = child.wait();
        }
    }
}

fn send(child: &Child, signal: i32) {
    // SAFETY: takes no pointers; the process is our own child and has not been waited for.
    unsafe { libc::kill(child.id() as libc::pid_t, signal) };
}

fn first_line(out: ChildStdout) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    Ok(line)
}

/// The settings of a cluster as the words of a command line.
fn arguments(cluster: &Cluster) -> Vec<String> {
    let mut words = vec![
        "--listen".to_owned(),
        cluster.listen.to_string(),
        "--nodes".to_owned(),
        cluster.nodes.to_string(),
        "--service-cidr".to_owned(),
        cluster.service_cidr.clone(),
        "--pod-cidr".to_owned(),
        cluster.pod_cidr.clone(),
        "--cluster-domain".to_owned(),
        cluster.cluster_domain.clone(),
    ];
    if let Some(cidr) = &cluster.node_cidr {
        words.extend(["--node-cidr".to_owned(), cidr.clone()]);
    }
    if let Some(dir) = &cluster.shared_dir {
        words.extend(["--shared-dir".to_owned(), dir.display().to_string()]);
    }
    words.extend(cluster.healing.arguments());
    words.extend(cluster.strangers.arguments());
    words.extend(cluster.rights.arguments());
    let audit = &cluster.audit;
    if let (Some(policy), Some(log)) = (&audit.audit_policy_file, &audit.audit_log_path) {
        let pairs = [
            ("--audit-policy-file", policy.display().to_string()),
            ("--audit-log-path", log.display().to_string()),
            ("--audit-log-maxsize", audit.audit_log_maxsize.to_string()),
            ("--audit-log-maxage", audit.audit_log_maxage.to_string()),
            ("--audit-log-maxbackup", audit.audit_log_maxbackup.to_string()),
        ];
        words.extend(pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]));
    }
    words.extend(cluster.tls_san.iter().flat_map(|name| ["--tls-san".to_owned(), name.clone()]));
    words
}
