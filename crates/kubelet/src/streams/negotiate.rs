//! Which protocol a client and we speak after the upgrade. Pure.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::websocket::Coding;

/// The header in which SPDY clients offer protocols and servers choose one.
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// What the streams are for: which protocols may be offered depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// exec and attach.
    Command,
    /// port-forward.
    PortForward,
    /// The lines of a log.
    Log,
}

/// What is spoken after the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SPDY/3.1 on the connection itself.
    Spdy {
        /// Whether the command's end is told as a `Status` (v4) or as text (v1 to v3).
        status: bool,
    },
    /// Numbered channels in WebSocket messages.
    Channels {
        /// How they are written.
        coding: Coding,
        /// Whether the command's end is told as a `Status` (v4, v5) or as text.
        status: bool,
    },
    /// SPDY/3.1 inside WebSocket messages.
    Tunnel,
    /// Plain bytes in WebSocket messages, to the client alone.
    Pieces {
        /// How they are written.
        coding: Coding,
    },
}

/// An upgrade that both sides agree on: the headers of the 101 answer, and what follows.
#[derive(Debug, Clone)]
pub struct Agreement {
    /// The headers of the answer.
    pub headers: HeaderMap,
    /// What is spoken then.
    pub protocol: Protocol,
}

/// WebSocket protocols by preference, with what each means.
const WEBSOCKET: &[(&str, Purpose, Protocol)] = &[
    ("v5.channel.k8s.io", Purpose::Command, Protocol::Channels { coding: Coding::Binary, status: true }),
    ("v4.channel.k8s.io", Purpose::Command, Protocol::Channels { coding: Coding::Binary, status: true }),
    (
        "v4.base64.channel.k8s.io",
        Purpose::Command,
        Protocol::Channels { coding: Coding::Base64, status: true },
    ),
    ("channel.k8s.io", Purpose::Command, Protocol::Channels { coding: Coding::Binary, status: false }),
    ("base64.channel.k8s.io", Purpose::Command, Protocol::Channels { coding: Coding::Base64, status: false }),
    ("SPDY/3.1+portforward.k8s.io", Purpose::PortForward, Protocol::Tunnel),
    ("binary.k8s.io", Purpose::Log, Protocol::Pieces { coding: Coding::Binary }),
    ("base64.binary.k8s.io", Purpose::Log, Protocol::Pieces { coding: Coding::Base64 }),
];

/// SPDY protocols by preference. (`v4` tells a `Status`; the others text.)
const SPDY: &[(&str, Purpose, bool)] = &[
    ("v4.channel.k8s.io", Purpose::Command, true),
    ("v3.channel.k8s.io", Purpose::Command, false),
    ("v2.channel.k8s.io", Purpose::Command, false),
    ("channel.k8s.io", Purpose::Command, false),
    ("portforward.k8s.io", Purpose::PortForward, false),
];

/// What both speak; the refusal's text when there is nothing.
pub fn negotiate(headers: &HeaderMap, purpose: Purpose) -> Result<Agreement, String> {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if upgrade.eq_ignore_ascii_case("websocket") {
        websocket(headers, purpose)
    } else if upgrade.eq_ignore_ascii_case("spdy/3.1") {
        spdy(headers, purpose)
    } else {
        Err("unable to upgrade: missing upgrade to websocket or SPDY/3.1".to_owned())
    }
}

fn offered<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|offer| !offer.is_empty()).collect()
}

fn websocket(headers: &HeaderMap, purpose: Purpose) -> Result<Agreement, String> {
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or("unable to upgrade: no Sec-WebSocket-Key")?;
    let offers = offered(headers, &SEC_WEBSOCKET_PROTOCOL);
    // A client that offers nothing gets the oldest.
    let offers = match (offers.is_empty(), purpose) {
        (true, Purpose::Command) => vec!["channel.k8s.io"],
        (true, Purpose::Log) => vec!["binary.k8s.io"],
        _ => offers,
    };
    let chosen = WEBSOCKET.iter().find(|(name, fits, _)| *fits == purpose && offers.contains(name));
    let (name, _, protocol) = chosen
        .ok_or_else(|| format!("unable to upgrade: none of the protocols {offers:?} is spoken here"))?;
    let mut answer = switching("websocket");
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|why| why.to_string())?;
    answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok(Agreement { headers: answer, protocol: *protocol })
}

fn spdy(headers: &HeaderMap, purpose: Purpose) -> Result<Agreement, String> {
    let offers = offered(headers, &STREAM_PROTOCOL);
    let offers = match (offers.is_empty(), purpose) {
        (true, Purpose::Command) => vec!["channel.k8s.io"],
        (true, Purpose::PortForward) => vec!["portforward.k8s.io"],
        (true, Purpose::Log) | (false, _) => offers,
    };
    let chosen = SPDY.iter().find(|(name, fits, _)| *fits == purpose && offers.contains(name));
    let (name, _, status) = chosen
        .ok_or_else(|| format!("unable to upgrade: none of the protocols {offers:?} is spoken here"))?;
    let mut answer = switching("SPDY/3.1");
    answer.insert(STREAM_PROTOCOL, HeaderValue::from_static(name));
    Ok(Agreement { headers: answer, protocol: Protocol::Spdy { status: *status } })
}

fn switching(to: &'static str) -> HeaderMap {
    let mut answer = HeaderMap::new();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static(to));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], purpose: Purpose, wanted: Option<Protocol>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().expect("a header name");
            map.append(name, value.parse().expect("a header value"));
        }
        assert_eq!(negotiate(&map, purpose).ok().map(|agreement| agreement.protocol), wanted, "{headers:?}");
    }

    #[test]
    fn the_newest_protocol_that_both_speak_is_chosen() {
        let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let channels = |coding, status| Some(Protocol::Channels { coding, status });
        let ws = ("upgrade", "websocket");
        let offer = |list| ("sec-websocket-protocol", list);
        check(
            &[ws, key, offer("v4.channel.k8s.io, v5.channel.k8s.io")],
            Purpose::Command,
            channels(Coding::Binary, true),
        );
        check(&[ws, key, offer("base64.channel.k8s.io")], Purpose::Command, channels(Coding::Base64, false));
        check(&[ws, key], Purpose::Command, channels(Coding::Binary, false));
        check(&[ws, key, offer("SPDY/3.1+portforward.k8s.io")], Purpose::PortForward, Some(Protocol::Tunnel));
        check(&[ws, key, offer("SPDY/3.1+portforward.k8s.io")], Purpose::Command, None);
        check(&[ws, offer("v5.channel.k8s.io")], Purpose::Command, None);
        let pieces = |coding| Some(Protocol::Pieces { coding });
        check(&[ws, key, offer("binary.k8s.io")], Purpose::Log, pieces(Coding::Binary));
        check(&[ws, key, offer("base64.binary.k8s.io")], Purpose::Log, pieces(Coding::Base64));
        check(&[ws, key, offer("binary.k8s.io")], Purpose::Command, None);
    }

    #[test]
    fn spdy_clients_are_answered_in_spdy() {
        let spdy = ("upgrade", "SPDY/3.1");
        let offer = |list| ("x-stream-protocol-version", list);
        check(
            &[spdy, offer("v4.channel.k8s.io"), offer("v3.channel.k8s.io")],
            Purpose::Command,
            Some(Protocol::Spdy { status: true }),
        );
        check(&[spdy, offer("v2.channel.k8s.io")], Purpose::Command, Some(Protocol::Spdy { status: false }));
        check(
            &[spdy, offer("portforward.k8s.io")],
            Purpose::PortForward,
            Some(Protocol::Spdy { status: false }),
        );
        check(&[("upgrade", "h2c")], Purpose::Command, None);
    }
}
