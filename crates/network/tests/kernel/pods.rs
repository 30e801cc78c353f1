//! Pods and their interfaces.

use std::net::IpAddr;

use network::{HostPort, Network, NetworkError, PodNetwork, Protocol};

use crate::world::{Answerer, Cluster, Namespace, Node, ask_udp, on_a_machine};

#[test]
fn a_pod_reaches_another_and_is_seen_by_its_own_address() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let (a, b) = (cluster.node.pod("a").await, cluster.node.pod("b").await);
        assert_eq!(a.namespace.ask(b.endpoint()).expect("b answers"), ("b".to_owned(), a.address.into()));
        assert_eq!(ask_udp(&a.namespace.udp(b.endpoint())).expect("b answers"), "b");
    });
}

#[test]
fn node_and_pod_reach_each_other() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let (node, own) = (&cluster.node, &cluster.node.own);
        let pod = node.pod("a").await;
        let _node_answers = Answerer::start(own, "node", 8080);
        let node_ip: IpAddr = node.settings.node_ip.into();
        assert_eq!(own.ask(pod.endpoint()).expect("the pod answers"), ("a".to_owned(), node_ip));
        let seen = pod.namespace.ask((node_ip, 8080)).expect("the node answers");
        assert_eq!(seen, ("node".to_owned(), pod.address.into()));
    });
}

#[test]
fn attaching_again_changes_nothing_and_detaching_frees() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let (network, pod) = (&cluster.node.network, cluster.node.pod("a").await);
        let again = PodNetwork { pod_uid: "a".into(), netns: pod.namespace.path(), host_ports: Vec::new() };
        assert_eq!(network.attach(again).await.expect("it is attached"), [IpAddr::V4(pod.address)]);
        assert_eq!(network.attached().await.expect("it is listed"), [("a".into(), vec![pod.address.into()])]);
        for _ in 0..2 {
            network.detach("a").await.expect("it is detached");
        }
        assert_eq!(network.attached().await.expect("it is listed"), []);
        assert_ne!(cluster.node.pod("b").await.address, pod.address, "an address is not reused at once");
    });
}

#[test]
fn a_pod_moves_to_a_new_namespace_with_its_address() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let (old, other) = (cluster.node.pod("a").await, cluster.node.pod("b").await);
        let new = cluster.node.pod("a").await;
        assert_eq!(new.address, old.address);
        assert_eq!(new.namespace.ask(other.endpoint()).expect("b answers").1, IpAddr::V4(new.address));
        assert_eq!(other.namespace.ask(new.endpoint()).expect("a answers").0, "a");
    });
}

#[test]
fn a_restarted_agent_finds_its_pods_and_forgets_lost_ones() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let (a, b) = (cluster.node.pod("a").await, cluster.node.pod("b").await);
        let lost = cluster.node.pod("lost").await;
        drop(lost);
        let again = Node::open(cluster.node.settings.clone()).await;
        let mut found = again.network.attached().await.expect("they are listed");
        found.retain(|(uid, _)| uid != "lost");
        assert_eq!(found, [("a".into(), vec![a.address.into()]), ("b".into(), vec![b.address.into()])]);
        assert_eq!(a.namespace.ask(b.endpoint()).expect("b answers").0, "b");
    });
}

#[test]
fn a_host_port_leads_to_its_pod_from_everywhere() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let (node, own) = (&cluster.node, &cluster.node.own);
        let port = |number, host_ip: Option<&str>| HostPort {
            host_ip: host_ip.map(|ip| ip.parse().expect("an address")),
            host_port: number,
            pod_port: 80,
            protocol: Protocol::Tcp,
        };
        let pod = node.pod_with("a", vec![port(8080, None), port(8081, Some("127.0.0.1"))]).await;
        let other = node.pod("b").await;
        let node_ip = node.settings.node_ip;
        assert_eq!(own.ask((node_ip, 8080)).expect("it leads to the pod").0, "a");
        assert_eq!(own.ask(([127, 0, 0, 1], 8080)).expect("it leads to the pod").0, "a");
        assert_eq!(own.ask(([127, 0, 0, 1], 8081)).expect("it leads to the pod").0, "a");
        assert_eq!(
            other.namespace.ask((node_ip, 8080)).expect("it leads there").1,
            IpAddr::V4(other.address)
        );
        assert_eq!(pod.namespace.ask((node_ip, 8080)).expect("it leads back").0, "a");
        own.ask((node_ip, 8081)).expect_err("that port is the loopback's alone");
        let taken = PodNetwork {
            pod_uid: "c".into(),
            netns: Namespace::new().path(),
            host_ports: vec![port(8081, Some("127.0.0.1"))],
        };
        let refused = node.network.attach(taken).await.expect_err("the port is taken");
        assert!(matches!(refused, NetworkError::PortTaken(8081)), "{refused}");
        node.network.detach("a").await.expect("it is detached");
        own.ask((node_ip, 8080)).expect_err("nobody is there any more");
    });
}

#[test]
fn many_pods_are_attached_at_once() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let network = &cluster.node.network;
        let namespaces: Vec<Namespace> = (0..30).map(|_| Namespace::new()).collect();
        let attach = |(n, namespace): (usize, &Namespace)| {
            let port =
                HostPort { host_ip: None, host_port: 9000 + n as u16, pod_port: 80, protocol: Protocol::Tcp };
            network.attach(PodNetwork {
                pod_uid: format!("pod-{n}"),
                netns: namespace.path(),
                host_ports: vec![port],
            })
        };
        let start = std::time::Instant::now();
        let given = futures_util::future::join_all(namespaces.iter().enumerate().map(attach)).await;
        #[allow(clippy::print_stderr)]
        {
            eprintln!("30 pods attached at once in {:?}", start.elapsed());
        }
        let mut addresses: Vec<IpAddr> =
            given.into_iter().flat_map(|one| one.expect("it is attached")).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 30);
        for (n, namespace) in namespaces.iter().enumerate() {
            let _answers = Answerer::start(namespace, "pod", 80);
            let at = (cluster.node.settings.node_ip, 9000 + n as u16);
            assert_eq!(cluster.node.own.ask(at).expect("it leads to the pod").0, "pod");
        }
    });
}
