//! The formats of strings that schemas name. Pure. A format that is not known here allows everything, as upstream.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use model::{syntax, time};

/// Whether a text is of a format.
pub fn is_of(format: &str, text: &str) -> bool {
    match format {
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "date-time" | "datetime" => time::parse(text).is_ok(),
        "duration" => is_duration(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "hostname" => syntax::dns1123_subdomain(&text.to_ascii_lowercase()).is_empty(),
        "email" => is_email(text),
        "uri" => text.parse::<http::Uri>().is_ok(),
        "hexcolor" => is_hex_color(text),
        _ => true,
    }
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(length) = length.parse::<u8>() else { return false };
    let four = address.parse::<Ipv4Addr>().is_ok() && length <= 32;
    four || (address.parse::<Ipv6Addr>().is_ok() && length <= 128)
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '-']).collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() == 2 && u8::from_str_radix(part, 16).is_ok())
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    let bare: String = text.chars().filter(|letter| *letter != '-').collect();
    let hex = bare.len() == 32 && bare.chars().all(|letter| letter.is_ascii_hexdigit());
    hex && version.is_none_or(|version| bare.chars().nth(12) == Some(version))
}

/// Numbers with units, as Go writes them; days and weeks too.
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim_start_matches(['+', '-']);
    if rest == "0" {
        return true;
    }
    let began = rest;
    while !rest.is_empty() {
        let unit =
            rest.trim_start().trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        if unit.len() == rest.len() {
            return false;
        }
        let unit = unit.trim_start();
        let end = unit.find(|letter: char| !letter.is_alphabetic()).unwrap_or(unit.len());
        let units =
            ["ns", "us", "µs", "ms", "s", "sec", "m", "min", "h", "hr", "d", "day", "days", "w", "week"];
        if !units.contains(&&unit[..end]) {
            return false;
        }
        rest = &unit[end..];
    }
    !began.is_empty()
}

fn is_email(text: &str) -> bool {
    let Some((name, host)) = text.rsplit_once('@') else { return false };
    !name.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace)
}

fn is_hex_color(text: &str) -> bool {
    let bare = text.strip_prefix('#').unwrap_or(text);
    matches!(bare.len(), 3 | 6) && bare.chars().all(|letter| letter.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_tell_texts_apart() {
        let check = |format: &str, good: &str, bad: &str| {
            assert!(is_of(format, good), "{format} {good}");
            assert!(!is_of(format, bad), "{format} {bad}");
        };
        check("ipv4", "10.0.0.1", "10.0.0");
        check("ipv6", "fd00::1", "10.0.0.1");
        check("cidr", "10.0.0.0/8", "10.0.0.0/33");
        check("mac", "01:23:45:67:89:ab", "01:23");
        check("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000");
        check("date", "2026-01-31", "2026-02-31");
        check("date-time", "2026-01-31T00:00:00Z", "2026-01-31");
        check("duration", "1h30m", "1 fortnight");
        check("byte", "YWJj", "a");
        check("hostname", "a.example.com", "a_b");
        check("email", "a@b.c", "a b@c");
        check("hexcolor", "#a0B1c2", "#xyz");
        assert!(is_of("something-else", "x"));
    }
}
