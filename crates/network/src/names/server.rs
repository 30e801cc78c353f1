//! From a request on the wire to its response: our answers as the wire has them, others' handed on.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, PoisonError};

use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Edns, Message, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT};
use hickory_server::proto::rr::{DNSClass, LowerName, Name, RData, Record as WireRecord, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use host::Host;

use super::upstream::Upstream;
use super::{Answer, Data, Kind, Question, Record, Records, Snapshot, answer};

/// How long others may keep what we say, in seconds. Short, because endpoints come and go; not zero, because a
/// program that looks up a name for each request should not have to ask each time.
const KEEP_SECONDS: u32 = 5;
/// The largest UDP response that is promised to those who say what they take.
const UDP_PAYLOAD_MAX: u16 = 1232;

/// Answers requests.
pub(super) struct Answerer {
    host: Host,
    records: Arc<Snapshot>,
    upstream: Upstream,
}

/// What goes into a response.
#[derive(Default)]
struct Response {
    code: ResponseCode,
    is_ours: bool,
    is_cut: bool,
    answers: Vec<WireRecord>,
    authorities: Vec<WireRecord>,
    more: Vec<WireRecord>,
}

impl Answerer {
    pub fn new(host: Host, records: Arc<Snapshot>, upstream: Upstream) -> Self {
        Self { host, records, upstream }
    }

    fn records(&self) -> Arc<Records> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn respond(&self, request: &Request) -> Response {
        let Ok(info) = request.request_info() else { return Response::code(ResponseCode::FormErr) };
        if info.metadata.op_code != OpCode::Query {
            return Response::code(ResponseCode::NotImp);
        }
        if info.query.query_class() != DNSClass::IN {
            return self.ask_others(request).await;
        }
        let question = question(info.query.name(), info.query.query_type());
        let asked = info.query.original().name().clone();
        let records = self.records();
        match answer(&question, &records) {
            Answer::NotOurs => self.ask_others(request).await,
            Answer::NoName => Response::negative(ResponseCode::NXDomain, records.domain()),
            Answer::Nothing => Response::negative(ResponseCode::NoError, records.domain()),
            Answer::Found { mut answers, more } => {
                self.turn(&mut answers);
                Response::found(wire(&answers, &asked, &question), wire(&more, &asked, &question))
            }
            Answer::Elsewhere { aliases, target } => {
                let aliases = wire(&aliases, &asked, &question);
                self.follow(aliases, &target, info.query.query_type()).await
            }
        }
    }

    /// Puts another record first each time, so that clients which take the first spread.
    fn turn(&self, answers: &mut [Record]) {
        let aliases = answers.iter().take_while(|record| matches!(record.data, Data::Alias(_))).count();
        let rest = &mut answers[aliases..];
        if !rest.is_empty() {
            rest.rotate_left(self.host.chance().below(rest.len() as u64) as usize);
        }
    }

    async fn ask_others(&self, request: &Request) -> Response {
        match self.upstream.ask(request.as_slice(), request.protocol()).await {
            Some(message) => Response::of(message),
            None => Response::code(ResponseCode::ServFail),
        }
    }

    /// Asks others about what an alias of ours stands for.
    async fn follow(&self, aliases: Vec<WireRecord>, target: &str, kind: RecordType) -> Response {
        let Ok(name) = Name::from_ascii(format!("{target}.")) else {
            return Response::code(ResponseCode::ServFail);
        };
        let Some(message) = self.upstream.look_up(name, kind).await else {
            return Response::code(ResponseCode::ServFail);
        };
        let mut response = Response::of(message);
        response.answers.splice(0..0, aliases);
        response
    }
}

#[async_trait::async_trait]
impl RequestHandler for Answerer {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let response = self.respond(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = response.code;
        metadata.authoritative = response.is_ours;
        metadata.truncation = response.is_cut;
        metadata.recursion_available = true;
        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload().min(UDP_PAYLOAD_MAX));
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let message = builder.build(metadata, &response.answers, &response.authorities, [], &response.more);
        match response_handle.send_response(message).await {
            Ok(info) => info,
            // The client has gone, or its answer fits no message: it asks again or gives up.
            Err(error) => {
                tracing::debug!(%error, "a name's answer could not be sent");
                ResponseInfo::from(failure(request))
            }
        }
    }
}

/// One answerer for several listeners.
pub(super) struct Shared(pub Arc<Answerer>);

#[async_trait::async_trait]
impl RequestHandler for Shared {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        response_handle: R,
    ) -> ResponseInfo {
        self.0.handle_request::<R, T>(request, response_handle).await
    }
}

fn failure(request: &Request) -> hickory_server::proto::op::Header {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = ResponseCode::ServFail;
    hickory_server::proto::op::Header { metadata, counts: Default::default() }
}

impl Response {
    fn code(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }

    fn found(answers: Vec<WireRecord>, more: Vec<WireRecord>) -> Self {
        Self { is_ours: true, answers, more, ..Self::default() }
    }

    fn negative(code: ResponseCode, domain: &str) -> Self {
        Self {
            code,
            is_ours: true,
            authorities: start_of_authority(domain).into_iter().collect(),
            ..Self::default()
        }
    }

    fn of(message: Message) -> Self {
        Self {
            code: message.metadata.response_code,
            is_ours: false,
            is_cut: message.metadata.truncation,
            answers: message.answers,
            authorities: message.authorities,
            more: message.additionals,
        }
    }
}

/// The record that says how long "no such name" may be kept.
fn start_of_authority(domain: &str) -> Option<WireRecord> {
    const REFRESH: i32 = 7200;
    const RETRY: i32 = 1800;
    const EXPIRE: i32 = 86400;
    let name = |text: String| Name::from_ascii(text).ok();
    let server = name(format!("ns.dns.{domain}."))?;
    let mailbox = name(format!("hostmaster.{domain}."))?;
    let data = SOA::new(server, mailbox, 1, REFRESH, RETRY, EXPIRE, KEEP_SECONDS);
    Some(WireRecord::from_rdata(name(format!("{domain}."))?, KEEP_SECONDS, RData::SOA(data)))
}

fn question(name: &LowerName, kind: RecordType) -> Question {
    let kind = match kind {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::SRV => Kind::Srv,
        RecordType::PTR => Kind::Ptr,
        RecordType::CNAME => Kind::Cname,
        RecordType::TXT => Kind::Txt,
        RecordType::ANY => Kind::Any,
        _ => Kind::Other,
    };
    Question { name: name.to_string().trim_end_matches('.').to_ascii_lowercase(), kind }
}

/// Records as the wire has them; the name asked for is written as it was asked.
fn wire(records: &[Record], asked: &Name, question: &Question) -> Vec<WireRecord> {
    let each = |record: &Record| {
        let name = if record.name == question.name { asked.clone() } else { absolute(&record.name)? };
        Some(WireRecord::from_rdata(name, KEEP_SECONDS, data(&record.data)?))
    };
    records.iter().filter_map(each).collect()
}

fn data(data: &Data) -> Option<RData> {
    Some(match data {
        Data::Address(IpAddr::V4(address)) => RData::A(A(*address)),
        Data::Address(IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
        Data::Alias(name) => RData::CNAME(CNAME(absolute(name)?)),
        Data::Server { port, target, weight } => RData::SRV(SRV::new(0, *weight, *port, absolute(target)?)),
        Data::Pointer(name) => RData::PTR(PTR(absolute(name)?)),
        Data::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
    })
}

fn absolute(name: &str) -> Option<Name> {
    Name::from_str(&format!("{name}.")).ok()
}
