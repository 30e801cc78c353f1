//! Samples, their medians, and the table that holds them against their aims.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// What the figures are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Thousandths of a second.
    Milliseconds,
    /// Of memory or disk.
    Mebibytes,
    /// Of one core.
    Percent,
    /// Things done in a second: here more is better.
    PerSecond,
    /// Things that happened.
    Count,
}

impl Unit {
    fn shown(self, value: f64) -> String {
        match self {
            Unit::Milliseconds if value < 0.1 => format!("{:.1} µs", value * 1000.0),
            Unit::Milliseconds if value < 1.0 => format!("{value:.2} ms"),
            Unit::Milliseconds if value < 10.0 => format!("{value:.1} ms"),
            Unit::Milliseconds => format!("{value:.0} ms"),
            Unit::Mebibytes if value < 10.0 => format!("{value:.2} MiB"),
            Unit::Mebibytes => format!("{value:.1} MiB"),
            Unit::Percent => format!("{value:.2} %"),
            Unit::PerSecond => format!("{value:.0} /s"),
            Unit::Count => format!("{value:.0}"),
        }
    }

    fn reaches(self, value: f64, aim: f64) -> bool {
        if self == Unit::PerSecond { value >= aim } else { value <= aim }
    }

    fn sign(self) -> &'static str {
        if self == Unit::PerSecond { "≥" } else { "≤" }
    }
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Figure {
    what: String,
    unit: Unit,
    samples: Vec<f64>,
    aim: Option<f64>,
    tail_aim: Option<f64>,
    /// Whether the 99th percentile is shown.
    tail: bool,
    stock: Option<f64>,
}

impl Figure {
    /// A line without an aim.
    pub fn new(what: impl Into<String>, unit: Unit, samples: Vec<f64>) -> Self {
        let (aim, tail_aim, stock) = (None, None, None);
        Self { what: what.into(), unit, samples, aim, tail_aim, tail: false, stock }
    }

    /// A line of times.
    pub fn times(what: impl Into<String>, samples: &[Duration]) -> Self {
        Self::new(
            what,
            Unit::Milliseconds,
            samples.iter().map(|sample| sample.as_secs_f64() * 1000.0).collect(),
        )
    }

    /// What the median is to be.
    pub fn aim(self, aim: f64) -> Self {
        Self { aim: Some(aim), ..self }
    }

    /// Shows the 99th percentile (of fewer than 100 samples the worst).
    pub fn tail(self) -> Self {
        Self { tail: true, ..self }
    }

    /// What the 99th percentile is to be.
    pub fn tail_aim(self, aim: f64) -> Self {
        Self { tail: true, tail_aim: Some(aim), ..self }
    }

    /// What stock Kubernetes v1.36 needs on this kind of machine.
    pub fn stock(self, stock: f64) -> Self {
        Self { stock: Some(stock), ..self }
    }

    fn cells(&self) -> [String; 6] {
        let (median, tail) = (quantile(&self.samples, 0.5), quantile(&self.samples, 0.99));
        let unit = self.unit;
        let mut aims = String::new();
        let mut met = true;
        for (name, value, aim) in [("", median, self.aim), (" p99", tail, self.tail_aim)] {
            if let Some(aim) = aim {
                let comma = if aims.is_empty() { "" } else { "," };
                let _ = write!(aims, "{comma}{name} {} {}", unit.sign(), unit.shown(aim));
                met &= unit.reaches(value, aim);
            }
        }
        let missed = if met { "" } else { " **missed**" };
        let stock = self.stock.map(|stock| {
            let (more, less) = if stock > median { (stock, median) } else { (median, stock) };
            format!("{} ({:.1} ×)", unit.shown(stock), more / less)
        });
        [
            self.what.clone(),
            unit.shown(median),
            if self.tail { unit.shown(tail) } else { String::new() },
            self.samples.len().to_string(),
            format!("{}{missed}", aims.trim()),
            stock.unwrap_or_default(),
        ]
    }
}

/// The value below which so large a part of the samples lies; the nearest sample above.
pub fn quantile(samples: &[f64], part: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Table {
    figures: Vec<Figure>,
    failed: bool,
}

const HEAD: [&str; 6] = ["what", "median", "p99", "samples", "aim", "stock v1.36"];

impl Table {
    /// Adds and prints lines, or why there are none.
    pub fn add(&mut self, figures: Result<Vec<Figure>>) {
        match figures {
            Ok(figures) => {
                for figure in figures {
                    println!("{}", line(&figure.cells()));
                    self.figures.push(figure);
                }
            }
            Err(error) => {
                self.failed = true;
                println!("| not measured: {error:#} |");
            }
        }
    }

    /// Whether every part was measured.
    pub fn is_whole(&self) -> bool {
        !self.failed
    }

    /// Writes the page of figures.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut text = PAGE.to_owned();
        let _ = writeln!(
            text,
            "{}, load of the machine, the bench's own included: {}.\n",
            machine(),
            machine_load()
        );
        let _ = writeln!(text, "{}", line(&HEAD.map(str::to_owned)));
        let _ = writeln!(text, "{}", line(&HEAD.map(|_| "---".to_owned())));
        for figure in &self.figures {
            let _ = writeln!(text, "{}", line(&figure.cells()));
        }
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// The machine and the day.
fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let day = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    format!("{day}, {cores} cores ({model}), {} GiB, Linux {}", kib >> 20, kernel.trim())
}

/// Processes that ran or waited to run over the last 1, 5 and 15 minutes.
fn machine_load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(", ")
}

fn line(cells: &[String; 6]) -> String {
    format!("| {} |", cells.join(" | "))
}

const PAGE: &str = "\
# Speed and size

Measured by `cargo xtask bench` (as root, about ten minutes) with the release binary, in a network namespace and a folder of its own. The machine
has two cores, shared with its neighbours and noisy, and the load generator runs on the same two. A p99 of fewer than 100 samples is
the worst of them. The last column is stock Kubernetes v1.36 (kube-apiserver, etcd, kube-controller-manager,
kube-scheduler, kubelet, kube-proxy, containerd + runc) on the same kind of machine, measured earlier, and the ratio.

- A container killed: SIGKILL to its process, until another process answers at the pod's address; each of 30 pods three times.
- `up` on an empty data directory: from the start of the process; the image is unpacked, store and keys are empty.
- `up` again: the pods' containers ran on; no container changes, no pod turns unready.
- A reboot: every process of the cluster is killed, its mounts, network namespaces and control groups are gone.
- Three nodes, each in a network namespace: one is killed by cutting its link and killing its agent and all monitors. Its addresses are out of the Service when
  no EndpointSlice of it calls one of them ready; the database is a StatefulSet with its claim on shared storage, and counts as moved when it is Ready elsewhere and has
  written. Behind it is the write oracle, which counts writes by two at once.
- The server away: killed for as long as the row says, while four clients ask a Service in a loop; the requests of the return are counted too.
- Memory is what the kernel calls resident (`VmRSS`), the pages of the program's file included. A monitor's is
  `Private_Clean` + `Private_Dirty`.
- Processor time is that of the server, agent and all monitors together, user and system; that of the control plane alone is of `kintsugi server` without a node.
- 10,000 pods: bound to a node that nobody runs; 1.5 kB each as stored, alone in a cluster of their own. Of a list every byte is read, and none is kept; its reader rests as that of the watchers does.
- A flood of lists: a user who may read one namespace lists its 10,000 pods over 32 connections, each again as soon as it has its answer, whatever that is.
- 200 watchers, each over a connection of its own, read on one thread of their own and look for the names of objects alone; it rests a quarter of a millisecond whenever there is nothing to read. An event's delay is counted
  from the moment at which its create was sent until its bytes are decrypted; rate and processor time from the first create on, when all are connected.
- Creates: ConfigMaps with 1 KiB of data over HTTP/1.1 and TLS, a connection for each of those at once; an answer means
  that the object is synced to disk.
- Not measured but simulated, with the real control plane and agents: a day of noise, of which nothing may come (`cargo xtask sim --noise`; 20 % of requests lost, 500 ms of jitter, pauses shorter
  than the lease), and 60 % of the nodes cut off at once, for which nothing is evicted and no Service emptied (`sim/scenarios/most-nodes-cut-of-ten.yaml`).

";
