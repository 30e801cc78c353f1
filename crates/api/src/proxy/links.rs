//! The links of an HTML page that came through a proxy: those that begin with `/` lead back through it. Pure.
//!
//! It reads tags and their attributes and nothing else; what it cannot read it leaves as it is.

/// The attributes that hold links, as HTML 4 and 5 name them.
const LINKS: &[&str] = &[
    "action",
    "archive",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "profile",
    "src",
    "usemap",
];

/// `link` with `prefix` before it if it is an absolute path that does not begin with it already.
pub fn led(link: &[u8], prefix: &str) -> Option<Vec<u8>> {
    // `//host/path` leads elsewhere.
    let is_path = link.starts_with(b"/") && !link.starts_with(b"//");
    (is_path && !link.starts_with(prefix.as_bytes())).then(|| [prefix.as_bytes(), link].concat())
}

/// The page with `prefix` before each link to an absolute path.
pub fn rewrite(page: &[u8], prefix: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(page.len() + prefix.len());
    let mut rest = page;
    while let Some(at) = rest.iter().position(|b| *b == b'<') {
        let (text, tag) = rest.split_at(at);
        out.extend_from_slice(text);
        rest = match tag {
            [b'<', b'!', b'-', b'-', ..] => copy_until(tag, b"-->", &mut out),
            [b'<', first, ..] if first.is_ascii_alphabetic() => copy_tag(tag, prefix, &mut out),
            _ => copy_until(tag, b"<", &mut out),
        };
    }
    out.extend_from_slice(rest);
    out
}

/// Copies the first byte and what follows up to the end of `end`, or everything.
fn copy_until<'a>(from: &'a [u8], end: &[u8], out: &mut Vec<u8>) -> &'a [u8] {
    let found = from.windows(end.len()).skip(1).position(|window| window == end);
    // Another tag's beginning stays for the next turn.
    let taken = if end == b"<" { 0 } else { end.len() };
    let (copied, rest) = from.split_at(found.map_or(from.len(), |at| at + 1 + taken));
    out.extend_from_slice(copied);
    rest
}

/// Copies a tag, with its links led through the proxy.
fn copy_tag<'a>(from: &'a [u8], prefix: &str, out: &mut Vec<u8>) -> &'a [u8] {
    let is_name = |b: &u8| !b.is_ascii_whitespace() && !b"/>=\"'".contains(b);
    out.push(b'<');
    let mut rest = copy_while(&from[1..], is_name, out);
    loop {
        rest = copy_while(rest, |b| !is_name(b) && *b != b'>', out);
        if rest.is_empty() || rest[0] == b'>' {
            return rest;
        }
        let name = rest;
        rest = copy_while(rest, is_name, out);
        let name = &name[..name.len() - rest.len()];
        rest = copy_while(rest, u8::is_ascii_whitespace, out);
        if rest.first() == Some(&b'=') {
            rest = copy_while(rest, |b| *b == b'=' || b.is_ascii_whitespace(), out);
            let is_link = LINKS.iter().any(|link| name.eq_ignore_ascii_case(link.as_bytes()));
            rest = copy_value(rest, is_link.then_some(prefix), out);
        }
    }
}

fn copy_value<'a>(from: &'a [u8], prefix: Option<&str>, out: &mut Vec<u8>) -> &'a [u8] {
    let quote = from.first().copied().filter(|b| matches!(b, b'"' | b'\''));
    let from = match quote {
        Some(quote) => {
            out.push(quote);
            &from[1..]
        }
        None => from,
    };
    let end = |b: &u8| match quote {
        Some(quote) => *b == quote,
        None => b.is_ascii_whitespace() || *b == b'>',
    };
    let (value, rest) = from.split_at(from.iter().position(end).unwrap_or(from.len()));
    match prefix.and_then(|prefix| led(value, prefix)) {
        Some(led) => out.extend_from_slice(&led),
        None => out.extend_from_slice(value),
    }
    match (quote, rest.split_first()) {
        (Some(quote), Some((_, rest))) => {
            out.push(quote);
            rest
        }
        _ => rest,
    }
}

fn copy_while<'a>(from: &'a [u8], goes_on: impl Fn(&u8) -> bool, out: &mut Vec<u8>) -> &'a [u8] {
    let (copied, rest) = from.split_at(from.iter().position(|b| !goes_on(b)).unwrap_or(from.len()));
    out.extend_from_slice(copied);
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(page: &str, wanted: &str) {
        assert_eq!(String::from_utf8_lossy(&rewrite(page.as_bytes(), "/p")), wanted);
    }

    #[test]
    fn links_to_absolute_paths_lead_through_the_proxy() {
        check(r#"<a href="/x">t</a>"#, r#"<a href="/p/x">t</a>"#);
        check("<img alt='/a' SRC = '/x'/>", "<img alt='/a' SRC = '/p/x'/>");
        check("<form action=/x method=get>", "<form action=/p/x method=get>");
        check(
            r#"<a href="x"><a href="//h/x"><a href="http://h/">"#,
            r#"<a href="x"><a href="//h/x"><a href="http://h/">"#,
        );
        check(r#"<a href="/p/x">"#, r#"<a href="/p/x">"#);
    }

    #[test]
    fn text_and_comments_stay_as_they_are() {
        check(
            r#"a < b href="/x" <!-- <a href="/x"> --> </a>"#,
            r#"a < b href="/x" <!-- <a href="/x"> --> </a>"#,
        );
        check(r#"<a href="/x"#, r#"<a href="/p/x"#);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_panics(page in "[<>a-z=/\"' !-]{0,64}") {
            prop_assert_eq!(rewrite(page.as_bytes(), ""), page.as_bytes());
        }
    }
}
