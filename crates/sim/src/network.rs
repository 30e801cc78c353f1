//! A network without packets: addresses are given out, rules are kept, and a request goes where the rules lead.
//!
//! It belongs to the machine, not to the agent: rules outlive a killed agent, and end with the machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use host::Host;
use network::{Network, NetworkError, NodeRoute, PodNetwork, PolicyRules, ServicePort, ServiceRules};

use crate::flaw::Flaw;
use crate::pace::Pace;

/// How long the kernel usually takes to attach a pod.
const ATTACH: Duration = Duration::from_millis(4);
/// How long it usually takes to change rules.
const RULES: Duration = Duration::from_millis(2);

/// The first address of a node's range that a pod gets; the one before is the gateway's.
const FIRST: u8 = 2;
/// The last.
const LAST: u8 = 254;

/// The network of one machine; clones share it.
#[derive(Clone)]
pub struct SimNetwork(Arc<Inner>);

struct Inner {
    host: Host,
    pace: Pace,
    flaw: Option<Flaw>,
    /// The node's number: its pods live in `10.244.NUMBER.0/24`.
    number: u8,
    /// Guards what the kernel would hold, for the length of one act.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: BTreeMap<String, u8>,
    last: u8,
    rules: ServiceRules,
    routes: Vec<NodeRoute>,
}

impl SimNetwork {
    /// The network of node number `number`, without pods.
    pub fn new(number: u8, host: Host, pace: Pace, flaw: Option<Flaw>) -> Self {
        Self(Arc::new(Inner { host, pace, flaw, number, state: Mutex::default() }))
    }

    /// The range of the node's pods.
    pub fn pod_cidr(&self) -> String {
        format!("10.244.{}.0/24", self.0.number)
    }

    /// The pod that has an address here.
    pub fn pod_at(&self, address: IpAddr) -> Option<String> {
        let state = self.state();
        let found = state.pods.iter().find(|(_, last)| self.address(**last) == address);
        found.map(|(uid, _)| uid.clone())
    }

    /// The rule of a Service's port as this node has it: the first one, where it has several.
    pub fn rule(&self, service: &str) -> Option<ServicePort> {
        let prefix = format!("{service}:");
        let rules = &self.state().rules;
        rules.ports.iter().find(|port| port.name == service || port.name.starts_with(&prefix)).cloned()
    }

    /// Whether this node has a route to the pods of a range.
    pub fn has_route(&self, pod_cidr: &str) -> bool {
        pod_cidr == self.pod_cidr() || self.state().routes.iter().any(|route| route.pod_cidr == pod_cidr)
    }

    /// Forgets everything, as a reboot does.
    pub fn power_off(&self) {
        *self.state() = State::default();
    }

    /// The pods that have addresses here.
    pub fn pods(&self) -> Vec<String> {
        self.state().pods.keys().cloned().collect()
    }

    fn address(&self, last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 244, self.0.number, last))
    }

    async fn take(&self, usual: Duration) {
        self.0.host.sleep(self.0.pace.of(usual)).await;
    }

    /// Guards what the kernel would hold, for the length of one act.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The next free address; one that was just let go comes last, as connections to it may linger.
    fn next(&self) -> Option<u8> {
        let after = (self.last.max(FIRST - 1) + 1)..=LAST;
        after.chain(FIRST..=LAST).find(|last| !self.pods.values().any(|taken| taken == last))
    }
}

#[async_trait]
impl Network for SimNetwork {
    async fn attach(&self, pod: PodNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        self.take(ATTACH).await;
        let mut state = self.state();
        if let Some(last) = state.pods.get(&pod.pod_uid) {
            return Ok(vec![self.address(*last)]);
        }
        let last = state.next().ok_or_else(|| NetworkError::NoAddress { range: self.pod_cidr() })?;
        state.last = last;
        state.pods.insert(pod.pod_uid, last);
        Ok(vec![self.address(last)])
    }

    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        self.take(ATTACH).await;
        if self.0.flaw != Some(Flaw::AddressesStay) {
            self.state().pods.remove(pod_uid);
        }
        Ok(())
    }

    async fn attached(&self) -> Result<Vec<(String, Vec<IpAddr>)>, NetworkError> {
        self.take(RULES).await;
        let state = self.state();
        Ok(state.pods.iter().map(|(uid, last)| (uid.clone(), vec![self.address(*last)])).collect())
    }

    async fn serve(&self, rules: ServiceRules) -> Result<(), NetworkError> {
        self.take(RULES).await;
        if self.0.flaw != Some(Flaw::RulesStale) {
            self.state().rules = rules;
        }
        Ok(())
    }

    async fn guard(&self, _rules: PolicyRules) -> Result<(), NetworkError> {
        // No agent here asks for it: its setting is off, as nothing filters packets between simulated pods.
        Ok(())
    }

    async fn route(&self, routes: Vec<NodeRoute>) -> Result<(), NetworkError> {
        self.take(RULES).await;
        self.state().routes = routes;
        Ok(())
    }
}
