//! The server's power is cut after one particular sync of its disk: nothing that was being done may be done by halves.
//!
//! A trial says what people ask for, one wish after the other, and what has to come of each. It is run once in peace, to
//! count the syncs; then as often with a crash, one sync later each time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use client::ClientError;
use model::Tree;

use crate::cluster::{Beginning, Cluster};
use crate::node::NodeSettings;
use crate::observe::Condition;
use crate::sandbox;
use crate::scenario::{Act, Rest, apply, check_end, expand, unmet};

/// How long a wish may take to come true, a crash included.
const WISH_MAX: Duration = Duration::from_secs(300);

/// The pause between two looks.
const GLANCE: Duration = Duration::from_millis(20);

/// How long the server is away after the crash.
const AWAY: Duration = Duration::from_secs(1);

/// How long nothing may be at rest, and for how long what is at rest is watched then.
const REST: Rest = Rest { within: Duration::from_secs(300), watched: Duration::from_secs(30) };

/// How often a lease is renewed here: seldom, as each renewal is a sync that tries nothing.
const LEASE_EVERY: Duration = Duration::from_secs(10);

/// How long a lease lasts here, in seconds.
const LEASE_SECONDS: i32 = 40;

/// What people ask for, and what has to come of it.
#[derive(Debug, Clone)]
pub struct Trial {
    /// What it tries.
    pub name: String,
    /// The wishes, in order.
    pub wishes: Vec<Wish>,
}

/// One wish.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What is asked for.
    pub what: What,
    /// What has to be seen.
    pub sees: Vec<Condition>,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub enum What {
    /// An object is to be like this, in the short form of scenarios.
    Apply(String, Tree),
    /// What a scenario can say.
    Act(Act),
}

/// What came of a run.
#[derive(Debug)]
pub struct Ran {
    /// What went wrong.
    pub faults: Vec<String>,
    /// How many syncs there were between the first wish and the last one's coming true.
    pub syncs: u64,
}

impl Trial {
    /// A trial without wishes.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), wishes: Vec::new() }
    }

    /// Asks for an object.
    pub fn apply(mut self, head: &str, said: Tree, sees: &[&str]) -> Result<Self> {
        self.wishes.push(Wish { what: What::Apply(head.to_owned(), said), sees: read(sees)? });
        Ok(self)
    }

    /// Asks for something else.
    pub fn act(mut self, act: &str, sees: &[&str]) -> Result<Self> {
        self.wishes.push(Wish { what: What::Act(Act::read(act)?), sees: read(sees)? });
        Ok(self)
    }

    /// Runs it; the power is cut after so many syncs, if at all.
    pub fn run(&self, cut_after: Option<u64>) -> Result<Ran> {
        let mut ran = sandbox::run(self.play(cut_after))??;
        ran.faults.extend(sandbox::take_panics().into_iter().map(|panic| format!("nothing panics: {panic}")));
        Ok(ran)
    }

    async fn play(&self, cut_after: Option<u64>) -> Result<Ran> {
        let settings = NodeSettings {
            lease_every: LEASE_EVERY,
            lease_seconds: LEASE_SECONDS,
            ..NodeSettings::default()
        };
        let nodes: BTreeMap<_, _> = ["a", "b"].map(|name| (name.to_owned(), settings.clone())).into();
        let mut cluster = Cluster::start(Beginning { seed: 1, ..Beginning::default() }, &nodes).await?;
        let book = cluster.book.clone();
        let ready = read(&["node a Ready=True", "node b Ready=True"])?;
        settle(&mut cluster, &ready).await?;
        let before = cluster.syncs();
        if let Some(count) = cut_after {
            cluster.cut_power_after_syncs(count);
        }
        for wish in &self.wishes {
            grant(&mut cluster, &wish.what).await?;
            settle(&mut cluster, &wish.sees).await?;
        }
        let syncs = cluster.syncs() - before;
        cluster.cut_power_after_syncs(u64::MAX);
        check_end(&cluster, Some(REST)).await;
        book.look(unmet).into_iter().for_each(|fault| book.fault(fault));
        let not_seen = |sees: &Condition| !book.look(|sight| sees.holds(sight));
        for sees in self.wishes.last().into_iter().flat_map(|wish| &wish.sees).filter(|sees| not_seen(sees)) {
            let found = book.look(|sight| sees.found(sight));
            book.fault(format!("what was reached stays so: {sees}; it is {found}"));
        }
        Ok(Ran { faults: book.faults(), syncs })
    }
}

fn read(sees: &[&str]) -> Result<Vec<Condition>> {
    sees.iter().map(|line| Condition::read(line)).collect()
}

/// Gets a wish through to a server that may crash meanwhile.
async fn grant(cluster: &mut Cluster, what: &What) -> Result<()> {
    let until = cluster.book.since() + WISH_MAX;
    loop {
        let done = match what {
            What::Apply(head, said) => ask(cluster, head, said).await,
            What::Act(act) => act.perform(cluster).await,
        };
        match done {
            Ok(()) => return Ok(()),
            Err(error) if is_done_already(&error) => return Ok(()),
            Err(error) if cluster.book.since() >= until => return Err(error),
            Err(_) => {}
        }
        recover(cluster).await?;
        cluster.pass_time(GLANCE).await;
    }
}

async fn ask(cluster: &Cluster, head: &str, said: &Tree) -> Result<()> {
    for wanted in expand(head, said)? {
        apply(&cluster.user, &wanted).await?;
    }
    Ok(())
}

/// Whether what was to go is gone: the crash came after the deed, and before the answer.
fn is_done_already(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ClientError::NotFound { .. }))
}

/// Waits until all is seen, and brings the server back when its power was cut.
async fn settle(cluster: &mut Cluster, sees: &[Condition]) -> Result<()> {
    let until = cluster.book.since() + WISH_MAX;
    loop {
        recover(cluster).await?;
        let missing = sees.iter().find(|sees| !cluster.book.look(|sight| sees.holds(sight)));
        let Some(missing) = missing else { return Ok(()) };
        if cluster.book.since() >= until {
            let found = cluster.book.look(|sight| missing.found(sight));
            cluster.book.fault(format!("not seen: {missing}; it is {found}"));
            return Ok(());
        }
        cluster.pass_time(GLANCE).await;
    }
}

async fn recover(cluster: &mut Cluster) -> Result<()> {
    if cluster.is_power_cut() {
        cluster.book.line("do         crash server");
        cluster.crash_server(0).await;
        cluster.pass_time(AWAY).await;
        cluster.start_server(0).await.context("the server does not come back")?;
    }
    Ok(())
}
