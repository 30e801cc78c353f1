//! Names, asked over UDP and TCP on the loopback.

use std::net::SocketAddr;

use hickory_server::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_server::proto::rr::rdata::A;
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use host::Host;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use network::names::{Names, NamesSettings, Records, records};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const SERVICES: &str = r#"[
    {"metadata":{"namespace":"n","name":"web"},"spec":{"clusterIP":"10.96.0.7","ports":[{"name":"http","port":80}]}},
    {"metadata":{"namespace":"n","name":"big"},"spec":{"clusterIP":"None"}},
    {"metadata":{"namespace":"n","name":"out"},"spec":{"type":"ExternalName","externalName":"example.com"}}]"#;

fn world(endpoints: usize) -> Records {
    let services: Vec<Service> = serde_json::from_str(SERVICES).expect("Services");
    let each = |n: usize| format!(r#"{{"addresses":["10.244.{}.{}"]}}"#, n / 250, n % 250);
    let endpoints = (0..endpoints).map(each).collect::<Vec<_>>().join(",");
    let slice = format!(
        r#"{{"metadata":{{"namespace":"n","labels":{{"kubernetes.io/service-name":"big"}}}},"addressType":"IPv4",
            "endpoints":[{endpoints}]}}"#
    );
    let slice: EndpointSlice = serde_json::from_str(&slice).expect("an EndpointSlice");
    records("cluster.local", &services, [&slice])
}

/// A resolver that knows one address for every name, and gives it over TCP alone if it is asked for `big.`
struct Elsewhere {
    at: SocketAddr,
    _tasks: (host::Task<()>, host::Task<()>),
}

impl Elsewhere {
    async fn start(host: &Host) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("there are ports");
        let at = udp.local_addr().expect("it is bound");
        let tcp = TcpListener::bind(at).await.expect("the port is free");
        let udp = host.spawn(async move {
            let mut buffer = [0; 1000];
            while let Ok((len, from)) = udp.recv_from(&mut buffer).await {
                let mut answer = reply(&buffer[..len]);
                if answer.queries[0].name().to_string().starts_with("big.") {
                    answer.answers.clear();
                    answer.metadata.truncation = true;
                }
                let _ = udp.send_to(&answer.to_vec().expect("it fits"), from).await;
            }
        });
        let tcp = host.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let asked = read(&mut stream).await;
                write(&mut stream, &reply(&asked.to_vec().expect("it fits"))).await;
            }
        });
        Self { at, _tasks: (udp, tcp) }
    }
}

fn reply(request: &[u8]) -> Message {
    let mut answer = Message::from_vec(request).expect("a question").into_response();
    let name = answer.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(name, 60, RData::A(A::new(192, 0, 2, 1))));
    answer
}

async fn read(stream: &mut TcpStream) -> Message {
    let mut bytes = vec![0; usize::from(stream.read_u16().await.expect("a length"))];
    stream.read_exact(&mut bytes).await.expect("a message");
    Message::from_vec(&bytes).expect("a message")
}

async fn write(stream: &mut TcpStream, message: &Message) {
    let bytes = message.to_vec().expect("it fits");
    stream.write_u16(bytes.len() as u16).await.expect("it is sent");
    stream.write_all(&bytes).await.expect("it is sent");
}

fn question(name: &str, kind: RecordType, edns: bool) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    if edns {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        message.set_edns(edns);
    }
    message
}

async fn ask_udp(at: SocketAddr, question: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("there are ports");
    socket.send_to(&question.to_vec().expect("it fits"), at).await.expect("it is sent");
    let mut buffer = [0; 65_535];
    let len = socket.recv(&mut buffer).await.expect("an answer");
    let message = Message::from_vec(&buffer[..len]).expect("a message");
    assert_eq!(message.metadata.id, question.metadata.id);
    message
}

async fn ask_tcp(at: SocketAddr, question: &Message) -> Message {
    let mut stream = TcpStream::connect(at).await.expect("it listens");
    write(&mut stream, question).await;
    read(&mut stream).await
}

async fn open(host: &Host, upstreams: Vec<SocketAddr>, records: Records) -> (Names, SocketAddr) {
    let settings = NamesSettings {
        listen: vec![([127, 0, 0, 1], 0).into()],
        upstreams: Some(upstreams),
        resolv_conf: "/etc/resolv.conf".into(),
    };
    let names = Names::open(host, settings, records).await.expect("it listens");
    let at = names.listening()[0];
    (names, at)
}

fn tell(message: &Message) -> String {
    let answers: Vec<String> =
        message.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    format!("{:?} {}", message.metadata.response_code, answers.join(", "))
}

#[tokio::test]
async fn the_clusters_names_are_answered_and_all_others_handed_on() {
    let host = Host::real();
    let elsewhere = Elsewhere::start(&host).await;
    let (_names, at) = open(&host, vec![elsewhere.at], world(2)).await;
    for (name, wanted) in [
        ("Web.n.svc.cluster.local.", "NoError Web.n.svc.cluster.local. 10.96.0.7"),
        ("nobody.n.svc.cluster.local.", "NXDomain "),
        ("www.example.org.", "NoError www.example.org. 192.0.2.1"),
        ("out.n.svc.cluster.local.", "NoError out.n.svc.cluster.local. example.com., example.com. 192.0.2.1"),
    ] {
        let question = question(name, RecordType::A, true);
        assert_eq!(tell(&ask_udp(at, &question).await), wanted);
        assert_eq!(tell(&ask_tcp(at, &question).await), wanted);
    }
    let none = ask_udp(at, &question("web.n.svc.cluster.local.", RecordType::AAAA, false)).await;
    assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
    assert_eq!(none.authorities[0].record_type(), RecordType::SOA);
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_cut_and_whole_over_tcp() {
    let host = Host::real();
    let elsewhere = Elsewhere::start(&host).await;
    let (_names, at) = open(&host, vec![elsewhere.at], world(1000)).await;
    let ours = question("big.n.svc.cluster.local.", RecordType::A, false);
    let others = question("big.example.org.", RecordType::A, false);
    for (question, count) in [(ours, 1000), (others, 1)] {
        assert!(ask_udp(at, &question).await.metadata.truncation);
        let whole = ask_tcp(at, &question).await;
        assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, count));
    }
}

#[tokio::test]
async fn new_records_are_served_at_once_and_without_resolvers_others_fail() {
    let host = Host::real();
    let (names, at) = open(&host, Vec::new(), Records::new("cluster.local")).await;
    let web = question("web.n.svc.cluster.local.", RecordType::A, false);
    assert_eq!(tell(&ask_udp(at, &web).await), "NXDomain ");
    names.set(world(0));
    assert_eq!(tell(&ask_udp(at, &web).await), "NoError web.n.svc.cluster.local. 10.96.0.7");
    assert_eq!(tell(&ask_udp(at, &question("example.com.", RecordType::A, false)).await), "ServFail ");
}
