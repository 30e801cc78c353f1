//! Many Services: that all of them work, and how long it takes.
#![allow(clippy::print_stderr)]

use std::net::SocketAddr;
use std::time::Instant;

use network::{Network, PodNetwork, ServicePort};

use crate::world::{Cluster, Namespace, on_a_machine, service};

/// Services with three endpoints each; the last endpoint of each is a pod that answers.
fn many(count: u32, answers: SocketAddr) -> Vec<ServicePort> {
    let each = |n: u32| {
        let [_, _, high, low] = n.to_be_bytes();
        let mut port = service(&format!("web-{n:05}"), [10, 41, 1 + high, low], &[]);
        port.endpoints = vec![answers; 3];
        port.external_endpoints = port.endpoints.clone();
        port.node_port = if n < 1000 { 30000 + n as u16 } else { 0 };
        port
    };
    (0..count).map(each).collect()
}

#[test]
fn a_thousand_services_are_served_and_changed_one_by_one() {
    on_a_machine(|| serve_and_change(1_000));
}

#[test]
#[ignore = "a measurement: prints how long 20,000 Services and one change take"]
fn twenty_thousand_services_are_served_and_changed_one_by_one() {
    on_a_machine(|| serve_and_change(20_000));
}

async fn serve_and_change(count: u32) {
    let cluster = Cluster::new(40).await;
    let node = &cluster.node;
    let pod = node.pod("a").await;
    let mut ports = many(count, pod.endpoint());
    let rules = ports.clone();
    let start = Instant::now();
    node.serve(rules).await;
    let all = start.elapsed();
    let mut changes = Vec::new();
    for n in 0..20 {
        let port = &mut ports[count as usize / 2 + n];
        port.endpoints.pop();
        port.external_endpoints.pop();
        let rules = ports.clone();
        let start = Instant::now();
        node.serve(rules).await;
        changes.push(start.elapsed());
    }
    changes.sort();
    eprintln!("{count} services: all {all:?}, one change {:?} (worst {:?})", changes[10], changes[19]);
    let [_, _, high, low] = (count - 1).to_be_bytes();
    assert_eq!(node.own.ask(([10, 41, 1 + high, low], 80)).expect("the last answers").0, "a");
    assert_eq!(node.own.ask(([10, 41, 1, 0], 80)).expect("the first answers").0, "a");
    assert_eq!(node.own.ask(([127, 0, 0, 1], 30999)).expect("the node port answers").0, "a");
}

#[test]
#[ignore = "a measurement: prints how long a pod takes to get and to lose its interface"]
fn pods_are_attached_and_detached_one_by_one() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let network = &cluster.node.network;
        let (mut on, mut off) = (Vec::new(), Vec::new());
        for n in 0..20 {
            let namespace = Namespace::new();
            let pod =
                PodNetwork { pod_uid: format!("pod-{n}"), netns: namespace.path(), host_ports: Vec::new() };
            let start = Instant::now();
            network.attach(pod).await.expect("it is attached");
            on.push(start.elapsed());
            let start = Instant::now();
            network.detach(&format!("pod-{n}")).await.expect("it is detached");
            off.push(start.elapsed());
        }
        on.sort();
        off.sort();
        eprintln!("attach {:?} (worst {:?}), detach {:?} (worst {:?})", on[10], on[19], off[10], off[19]);
    });
}
