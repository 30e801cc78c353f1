//! Services, as packets meet them.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_server::proto::op::{Message, Query};
use hickory_server::proto::rr::{Name, RecordType};
use host::Host;
use network::names::{Names, NamesSettings, Records};
use network::{Protocol, ServicePort};

use crate::world::{Answerer, Cluster, Node, PATIENCE, Pod, Silent, ask_udp, on_a_machine, service};

/// A cluster address.
const WEB: [u8; 4] = [10, 41, 0, 9];

fn names(answers: Vec<String>) -> Vec<String> {
    answers.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn a_service_leads_to_all_its_endpoints_from_pods_and_from_the_node() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let (a, b, c) = (node.pod("a").await, node.pod("b").await, node.pod("client").await);
        node.serve(vec![service("web", WEB, &[&a, &b])]).await;
        assert_eq!(names(c.namespace.ask_often((WEB, 80), 40)), ["a", "b"]);
        assert_eq!(names(node.own.ask_often((WEB, 80), 40)), ["a", "b"]);
        assert_eq!(c.namespace.ask((WEB, 80)).expect("one answers").1, IpAddr::V4(c.address));
    });
}

#[test]
fn the_nodes_own_requests_keep_their_ports() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let (a, b) = (node.pod("a").await, node.pod("b").await);
        node.serve(vec![service("web", WEB, &[&a, &b])]).await;
        for _ in 0..40 {
            let (own, _, seen) = node.own.ask_by_port((WEB, 80)).expect("somebody answers");
            assert_eq!(seen, (node.settings.node_ip, own.port()).into(), "seen by a pod");
        }
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let a = node.pod("a").await;
        node.serve(vec![service("web", WEB, &[&a])]).await;
        assert_eq!(a.namespace.ask((WEB, 80)).expect("it reaches itself").0, "a");
    });
}

#[test]
fn a_service_may_lead_to_the_node_itself() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let a = node.pod("a").await;
        let _answers = Answerer::start(&node.own, "node", 5353);
        let mut dns = service("dns", WEB, &[]);
        dns.endpoints = vec![(node.settings.node_ip, 5353).into()];
        let udp = ServicePort { protocol: Protocol::Udp, ..dns.clone() };
        node.serve(vec![dns, udp]).await;
        for from in [&a.namespace, &node.own] {
            assert_eq!(from.ask((WEB, 80)).expect("the node answers").0, "node");
            assert_eq!(ask_udp(&from.udp((WEB, 80))).expect("the node answers"), "node");
        }
    });
}

#[test]
fn a_pod_asks_for_names_at_the_clusters_address() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let pod = node.pod("a").await;
        let dns = [10, 41, 0, 10];
        let settings = NamesSettings {
            listen: vec![(node.settings.node_ip, 0).into()],
            upstreams: Some(Vec::new()),
            resolv_conf: "/etc/resolv.conf".into(),
        };
        let names =
            Names::open(&Host::real(), settings, Records::new("cluster.local")).await.expect("it listens");
        let mut ports = network::names::rules(dns.into(), names.listening()[0]);
        let other = ServicePort { port: 53, ..service("kube-dns", dns, &[&pod]) };
        ports.push(other);
        node.serve(ports).await;
        let mut question = Message::query();
        let name = Name::from_ascii("dns-version.cluster.local.").expect("a name");
        question.add_query(Query::query(name, RecordType::TXT));
        let question = question.to_vec().expect("it fits");
        for from in [&pod.namespace, &node.own] {
            let socket = from.udp((dns, 53));
            let answer = tokio::task::spawn_blocking({
                let question = question.clone();
                move || {
                    socket.send(&question).expect("it is sent");
                    let mut buffer = vec![0; 1000];
                    let len = socket.recv(&mut buffer).expect("the node answers");
                    Message::from_vec(&buffer[..len]).expect("a message")
                }
            });
            let answer = answer.await.expect("the thread ends well");
            assert_eq!(answer.answers[0].data.to_string(), "1.1.0");
        }
    });
}

#[test]
fn a_node_port_is_reached_at_every_address_of_the_node() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let (a, client) = (node.pod("a").await, node.pod("client").await);
        node.serve(vec![ServicePort { node_port: 30080, ..service("web", WEB, &[&a]) }]).await;
        let node_ip = node.settings.node_ip;
        assert_eq!(node.own.ask((node_ip, 30080)).expect("a answers").0, "a");
        assert_eq!(node.own.ask(([127, 0, 0, 1], 30080)).expect("a answers").0, "a");
        assert_eq!(client.namespace.ask((node_ip, 30080)).expect("a answers").0, "a");
        assert_eq!(a.namespace.ask((node_ip, 30080)).expect("a answers itself").0, "a");
    });
}

#[test]
fn a_client_stays_with_its_endpoint_while_that_is_there() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let pods = [node.pod("a").await, node.pod("b").await, node.pod("c").await];
        let client = node.pod("client").await;
        let sticky = |without: &[String]| {
            let left =
                pods.iter().zip(["a", "b", "c"]).filter(|(_, name)| !without.contains(&(*name).to_owned()));
            let left: Vec<&Pod> = left.map(|(pod, _)| pod).collect();
            ServicePort { affinity_seconds: Some(10800), ..service("web", WEB, &left) }
        };
        let answers = || names(client.namespace.ask_often((WEB, 80), 20));
        node.serve(vec![sticky(&[])]).await;
        let first = answers();
        assert_eq!(first.len(), 1, "{first:?}");
        // A restarted agent writes everything anew; the client stays where it is.
        let again = Node::open(node.settings.clone()).await;
        again.serve(vec![sticky(&[])]).await;
        assert_eq!(answers(), first);
        // Its endpoint goes: it finds another and stays there, also when the first comes back.
        again.serve(vec![sticky(&first)]).await;
        let second = answers();
        assert!(second.len() == 1 && second != first, "{second:?}");
        again.serve(vec![sticky(&[])]).await;
        assert_eq!(answers(), second);
        let all: Vec<&Pod> = pods.iter().collect();
        again.serve(vec![service("web", WEB, &all)]).await;
        assert_eq!(answers().len(), 3);
    });
}

#[test]
fn an_endpoint_that_is_removed_gets_no_new_packet_not_even_of_an_old_udp_client() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let (a, b, c) = (node.pod("a").await, node.pod("b").await, node.pod("client").await);
        let both = |pods: &[&_]| {
            let tcp = service("web", WEB, pods);
            vec![ServicePort { protocol: Protocol::Udp, node_port: 30053, ..tcp.clone() }, tcp]
        };
        node.serve(both(&[&a])).await;
        let (old, old_node) = (c.namespace.udp((WEB, 80)), node.own.udp((node.settings.node_ip, 30053)));
        for socket in [&old, &old_node] {
            assert_eq!(ask_udp(socket).expect("a answers"), "a");
        }
        node.serve(both(&[&b])).await;
        for socket in [&old, &old_node] {
            assert_eq!(ask_udp(socket).expect("b answers"), "b");
        }
        assert_eq!(names(c.namespace.ask_often((WEB, 80), 10)), ["b"]);
    });
}

#[test]
fn a_connection_that_nobody_answers_is_led_elsewhere_when_its_endpoint_is_gone() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let (a, b, c) = (node.pod("a").await, node.pod("b").await, node.pod("client").await);
        let silent = Silent::new(&a.namespace, 81);
        let led_to = |endpoint| {
            let endpoints = vec![endpoint];
            let web = service("web", WEB, &[]);
            let web = ServicePort { endpoints: endpoints.clone(), external_endpoints: endpoints, ..web };
            vec![ServicePort { node_port: 30080, ..web }]
        };
        node.serve(led_to((a.address, 81).into())).await;
        let at: [SocketAddr; 2] = [(WEB, 80).into(), (node.settings.node_ip, 30080).into()];
        let waiting = [(&c.namespace, at[0]), (&node.own, at[0]), (&c.namespace, at[1])];
        let waiting = waiting.map(|(from, at)| from.begin(at));
        for each in &waiting {
            assert!(!each.is_connected(Duration::ZERO), "{each:?}: nobody answers yet");
        }
        node.serve(led_to(b.endpoint())).await;
        // The client's kernel tries again after a second, from the same port.
        let led = tokio::task::spawn_blocking(move || waiting.map(|each| each.is_connected(PATIENCE))).await;
        assert_eq!(led.expect("the thread ends well"), [true; 3]);
        drop(silent);
    });
}

#[test]
fn without_endpoints_a_client_is_refused_at_once() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let c = node.pod("client").await;
        let tcp = ServicePort { node_port: 30080, ..service("web", WEB, &[]) };
        let udp = ServicePort { protocol: Protocol::Udp, ..tcp.clone() };
        node.serve(vec![tcp, udp]).await;
        let nobody = [10, 41, 0, 77];
        for from in [&c.namespace, &node.own] {
            for at in [(WEB.into(), 80), (node.settings.node_ip.into(), 30080), (IpAddr::from(nobody), 80)] {
                let refused = from.ask(at).expect_err("nobody is there");
                assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "tcp {at:?}: {refused}");
                let refused = ask_udp(&from.udp(at)).expect_err("nobody is there");
                // The kernel tells its own processes that sending was not permitted.
                let kinds = [ErrorKind::ConnectionRefused, ErrorKind::PermissionDenied];
                assert!(kinds.contains(&refused.kind()), "udp {at:?}: {refused}");
            }
        }
    });
}

#[test]
fn rules_return_to_nothing_when_services_go() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let a = node.pod("a").await;
        let web = service("web", WEB, &[&a]);
        for _ in 0..3 {
            node.serve(vec![web.clone(), ServicePort { name: "test/twin:http".into(), ..web.clone() }]).await;
            assert_eq!(node.own.ask((WEB, 80)).expect("a answers").0, "a");
            // The first of two with the same address goes; the second takes over.
            node.serve(vec![ServicePort { name: "test/twin:http".into(), ..web.clone() }]).await;
            assert_eq!(node.own.ask((WEB, 80)).expect("a answers").0, "a");
            node.serve(Vec::new()).await;
            node.own.ask((WEB, 80)).expect_err("nothing is served");
        }
    });
}

#[test]
fn no_request_is_lost_while_endpoints_come_and_go_and_the_agent_restarts() {
    on_a_machine(|| async {
        let cluster = Cluster::new(40).await;
        let node = &cluster.node;
        let (a, b, c) = (node.pod("a").await, node.pod("b").await, node.pod("client").await);
        let worlds: [&[&_]; 4] = [&[&a], &[&a, &b], &[&b], &[&b, &a]];
        let rules = |n: usize| vec![service("web", WEB, worlds[n % 4])];
        node.serve(rules(0)).await;
        let stop = AtomicBool::new(false);
        let asked = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    c.namespace.ask((WEB, 80)).expect("somebody answers every time");
                    asked += 1;
                }
                asked
            });
            let settings = node.settings.clone();
            node.own.run(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime can be made").block_on(async {
                    for start in 0..10 {
                        let again = Node::open(settings.clone()).await;
                        for n in 0..100 {
                            again.serve(rules(start + n)).await;
                        }
                    }
                });
            });
            stop.store(true, Ordering::Relaxed);
            client.join().expect("no request is lost")
        });
        assert!(asked > 0);
    });
}
