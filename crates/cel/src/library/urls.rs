//! URLs, as far as expressions ask for their parts.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Row, row, walk};
use crate::budget::Error;
use crate::value::{Key, Map, Text, Value};

/// A URL in its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// Reads an absolute URL, or a path from the root.
    pub fn read(text: &str) -> Option<Self> {
        if text.bytes().any(|read| read < b' ' || read == 0x7f) {
            return None;
        }
        let text = text.split_once('#').map_or(text, |(text, _)| text);
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        if text.starts_with('/') && !text.starts_with("//") {
            let path = escaped(text)?;
            return Some(Self { scheme: String::new(), host: String::new(), path, query: query.to_owned() });
        }
        let (scheme, rest) = text.split_once(':')?;
        let letters = scheme.bytes().all(|read| read.is_ascii_alphanumeric() || b"+-.".contains(&read));
        let named = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
        let rest = rest.strip_prefix("//").filter(|_| letters && named)?;
        let slash = rest.find('/').unwrap_or(rest.len());
        let (place, path) = rest.split_at(slash);
        let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
        let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
        let port = after.rsplit_once(':').map_or("", |(_, port)| port);
        let bad = |read: char| read.is_whitespace() || "<>\"{}|\\^`".contains(read);
        if !port.bytes().all(|read| read.is_ascii_digit())
            || host.contains(bad)
            || host.contains('[') != host.contains(']')
        {
            return None;
        }
        let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_owned());
        Some(Self { scheme, host, path: escaped(path)?, query: query.to_owned() })
    }

    fn port(&self) -> &str {
        let after = self.host.rsplit_once(']').map_or(self.host.as_str(), |(_, after)| after);
        after.rsplit_once(':').map_or("", |(_, port)| port)
    }

    fn hostname(&self) -> &str {
        match self.host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((host, _)) => host,
            None => self.host.split_once(':').map_or(self.host.as_str(), |(host, _)| host),
        }
    }
}

/// A path in which what has to be escaped is; none when an escape is broken.
fn escaped(path: &str) -> Option<String> {
    unescaped(path, false)?;
    let plain = |read: u8| read.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*%[]".contains(&read);
    let mut made = String::with_capacity(path.len());
    for read in path.bytes() {
        if plain(read) { made.push(read.into()) } else { made += &format!("%{read:02X}") }
    }
    Some(made)
}

fn unescaped(text: &str, query: bool) -> Option<String> {
    let (bytes, mut made, mut at) = (text.as_bytes(), Vec::new(), 0);
    while let Some(read) = bytes.get(at) {
        at += 1;
        made.push(match read {
            b'%' => {
                let digits = std::str::from_utf8(bytes.get(at..at + 2)?).ok()?;
                at += 2;
                u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?
            }
            b'+' if query => b' ',
            other => *other,
        });
    }
    Some(String::from_utf8_lossy(&made).into_owned())
}

pub const ROWS: &[Row] = &[
    row("url", &["(string) URL"], |args, budget| {
        let Value::Text(text) = &args[0] else { return Error::no_overload() };
        budget.pay(walk(text.as_str().len() as u64))?;
        match Url::read(text.as_str()) {
            Some(url) => Ok(Value::Url(Rc::new(url))),
            None => Error::said(format!(
                "URL parse error during conversion from string: parse {:?}: invalid URI for request",
                text.as_str()
            )),
        }
    }),
    row("isURL", &["(string) bool"], |args, budget| {
        let Value::Text(text) = &args[0] else { return Error::no_overload() };
        budget.pay(walk(text.as_str().len() as u64))?;
        Ok(Value::Bool(Url::read(text.as_str()).is_some()))
    }),
    row("getScheme", &["URL.() string"], |args, _| part(args, |url| &url.scheme)),
    row("getHost", &["URL.() string"], |args, _| part(args, |url| &url.host)),
    row("getHostname", &["URL.() string"], |args, _| part(args, Url::hostname)),
    row("getPort", &["URL.() string"], |args, _| part(args, Url::port)),
    row("getEscapedPath", &["URL.() string"], |args, _| part(args, |url| &url.path)),
    row("getQuery", &["URL.() map<string, list<string>>"], |args, budget| {
        let Value::Url(url) = &args[0] else { return Error::no_overload() };
        budget.pay(walk(url.query.len() as u64))?;
        let mut all: BTreeMap<String, Vec<Value<'_>>> = BTreeMap::new();
        for pair in url.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescaped(key, true), unescaped(value, true)) {
                all.entry(key).or_default().push(Value::text(value));
            }
        }
        let entries =
            all.into_iter().map(|(key, values)| (Key::Text(Text::Made(key.into())), Value::list(values)));
        Ok(Value::Map(Map::Made(Rc::new(entries.collect()))))
    }),
];

fn part<'a>(args: &[Value<'a>], of: fn(&Url) -> &str) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Url(url) => Ok(Value::text(of(url))),
        _ => Error::no_overload(),
    }
}
