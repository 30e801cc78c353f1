//! Several nodes, several clusters, and their end.

use std::net::IpAddr;

use host::Host;
use network::links::{Way, prefix_of, tear_down};
use network::{Network, NodeRoute, ServicePort};

use crate::world::{Cluster, Namespace, Node, on_a_machine, service, settings};

/// What a tear-down has to leave as it was.
fn traces() -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let first_words = |text: String| {
        text.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut links = first_words(read("/proc/thread-self/net/dev"));
    links.sort();
    vec![
        format!("{links:?}"),
        first_words(read("/proc/thread-self/net/route"))
            .into_iter()
            .filter(|word| word != "Iface")
            .collect::<String>(),
        read("/proc/sys/net/ipv4/ip_forward"),
    ]
}

#[test]
fn tearing_down_leaves_nothing_also_when_done_twice() {
    on_a_machine(|| async {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("the test runs as root");
        let before = traces();
        let cluster = Cluster::new(40).await;
        let pod = cluster.node.pod("a").await;
        cluster.node.serve(vec![service("web", [10, 41, 0, 9], &[&pod])]).await;
        let node = cluster.lan.join(1).await.expect("a node joins");
        cluster
            .node
            .network
            .route(vec![route(&node.address, "10.40.1.0/24")])
            .await
            .expect("the route is made");
        assert_ne!(traces(), before);
        let (dir, prefix) = (cluster.dir.path(), prefix_of(cluster.dir.path()));
        for _ in 0..2 {
            tear_down(&Host::real(), dir.to_owned(), prefix.clone()).await.expect("it is torn down");
            tear_down(&Host::real(), cluster.node.settings.data_dir.clone(), prefix.clone())
                .await
                .expect("so is this");
            assert_eq!(traces(), before);
            assert!(!node.netns.exists() && !cluster.node.settings.data_dir.join("run/network").exists());
        }
    });
}

#[test]
fn two_clusters_live_side_by_side_and_die_alone() {
    on_a_machine(|| async {
        // A new namespace begins as the machine is; here, as one that forwards nothing.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("the test runs as root");
        let (one, two) = (Cluster::new(40).await, Cluster::new(50).await);
        let (a, b) = (one.node.pod("a").await, two.node.pod("b").await);
        one.node.serve(vec![service("web", [10, 41, 0, 9], &[&a])]).await;
        two.node.serve(vec![service("web", [10, 51, 0, 9], &[&b])]).await;
        assert_eq!(a.namespace.ask(([10, 41, 0, 9], 80)).expect("a answers").0, "a");
        assert_eq!(b.namespace.ask(([10, 51, 0, 9], 80)).expect("b answers").0, "b");
        let gone = tear_down(&Host::real(), one.dir.path().to_owned(), prefix_of(one.dir.path())).await;
        gone.expect("it is torn down");
        assert_eq!(b.namespace.ask(([10, 51, 0, 9], 80)).expect("b answers").0, "b");
        assert_eq!(two.node.own.ask(([10, 51, 0, 9], 80)).expect("b answers").0, "b");
        let gone = tear_down(&Host::real(), two.dir.path().to_owned(), prefix_of(two.dir.path())).await;
        gone.expect("it is torn down");
        assert_eq!(traces()[2].trim(), "0", "forwarding is as it was before the first");
    });
}

fn route(via: &IpAddr, range: &str) -> NodeRoute {
    NodeRoute { node: range.to_owned(), via: *via, pod_cidr: range.to_owned() }
}

/// Runs part of a test as the agent of a node in a namespace of its own.
fn as_agent<T: Send>(namespace: &Namespace, work: impl AsyncFnOnce() -> T + Send) -> T {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(work())
    })
}

#[test]
fn nodes_of_one_machine_reach_each_other_until_one_is_cut_off() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let joined = cluster.lan.join(1).await.expect("a node joins");
        assert_eq!(cluster.lan.join(1).await.expect("it is there"), joined);
        let IpAddr::V4(address) = joined.address else { panic!("nodes have IPv4 addresses") };
        let there = Namespace::at(&joined.netns);
        let settings = settings(cluster.dir.path(), &prefix_of(cluster.dir.path()), 40, 1, address);
        let a = cluster.node.pod("a").await;
        let server = cluster.lan.server_address();
        let (web, local) = ([10, 41, 0, 9], [10, 41, 0, 10]);
        let rules = |b: &crate::world::Pod| {
            let kept = ServicePort {
                node_port: 30081,
                keep_source: true,
                external_endpoints: Vec::new(),
                ..service("local", local, &[&a, b])
            };
            vec![ServicePort { node_port: 30080, ..service("web", web, &[b]) }, kept]
        };
        let (node, b) = as_agent(&there, async || {
            let node = Node::open(settings).await;
            node.network.route(vec![route(&server, "10.40.0.0/24")]).await.expect("the route is made");
            let b = node.pod("b").await;
            let mut own = rules(&b);
            own[1].external_endpoints = vec![b.endpoint()];
            node.serve(own).await;
            (node, b)
        });
        cluster
            .node
            .network
            .route(vec![route(&joined.address, "10.40.1.0/24")])
            .await
            .expect("the route is made");
        cluster.node.serve(rules(&b)).await;
        // Pods reach each other and Services of both nodes, and are seen by their own addresses.
        assert_eq!(a.namespace.ask(b.endpoint()).expect("b answers").1, IpAddr::V4(a.address));
        assert_eq!(b.namespace.ask(a.endpoint()).expect("a answers").1, IpAddr::V4(b.address));
        assert_eq!(a.namespace.ask((web, 80)).expect("b answers"), ("b".to_owned(), a.address.into()));
        assert_eq!(cluster.node.own.ask((web, 80)).expect("b answers").0, "b");
        assert_eq!(cluster.node.own.ask(([127, 0, 0, 1], 30080)).expect("b answers").0, "b");
        // A node port of the other node; one that keeps the source answers only where it has endpoints.
        assert_eq!(there.ask((server, 30080)).expect("b answers").0, "b");
        let kept = cluster.node.own.ask((joined.address, 30081)).expect("b answers");
        assert_eq!(kept, ("b".to_owned(), server));
        there.ask((server, 30081)).expect_err("there is no endpoint on that node");
        for way in [Way::Both, Way::Out, Way::In] {
            cluster.lan.isolate(1, way).await.expect("it is cut off");
            a.namespace.ask(b.endpoint()).expect_err("it is cut off");
            b.namespace.ask(a.endpoint()).expect_err("it is cut off");
            cluster.lan.rejoin(1).await.expect("it is joined again");
            assert_eq!(a.namespace.ask(b.endpoint()).expect("b answers").0, "b");
        }
        cluster.node.network.route(Vec::new()).await.expect("the route is removed");
        a.namespace.ask(b.endpoint()).expect_err("there is no route");
        drop((node, b));
        cluster.lan.leave(1).await.expect("the node leaves");
        assert!(!joined.netns.exists());
    });
}
