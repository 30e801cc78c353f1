//! What names, labels and ports may look like. Each check returns what is wrong, in the API's words; none: all is well.

/// The longest DNS label, in bytes (RFC 1123).
pub const DNS_LABEL_LEN_MAX: usize = 63;
/// The longest DNS name that the API takes, in bytes.
pub const DNS_SUBDOMAIN_LEN_MAX: usize = 253;
/// The longest label value and the longest name part of a label key, in bytes.
pub const LABEL_LEN_MAX: usize = 63;
/// The longest name of a port, in bytes (RFC 6335).
const PORT_NAME_LEN_MAX: usize = 15;

const LABEL_1123: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_1123: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

/// A DNS label: `my-name`.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut faults = too_long(text, DNS_LABEL_LEN_MAX);
    if !is_label_1123(text) {
        faults.push(if is_subdomain_1123(text) {
            "must not contain dots".to_owned()
        } else {
            pattern(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                 start and end with an alphanumeric character",
                LABEL_1123,
                &["my-name", "123-abc"],
            )
        });
    }
    faults
}

/// A DNS name: `example.com`.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut faults = too_long(text, DNS_SUBDOMAIN_LEN_MAX);
    if !is_subdomain_1123(text) {
        faults.push(pattern(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
             must start and end with an alphanumeric character",
            SUBDOMAIN_1123,
            &["example.com"],
        ));
    }
    faults
}

/// A DNS name or a wildcard one: `*.example.com`.
pub fn wildcard_dns1123_subdomain(text: &str) -> Vec<String> {
    let mut faults = too_long(text, DNS_SUBDOMAIN_LEN_MAX);
    if !text.strip_prefix("*.").is_some_and(is_subdomain_1123) {
        faults.push(pattern(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
             consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!("\\*\\.{SUBDOMAIN_1123}"),
            &["*.example.com"],
        ));
    }
    faults
}

/// A DNS label that starts with a letter, as the names of services do.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut faults = too_long(text, DNS_LABEL_LEN_MAX);
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
    if !starts_well || !is_label_1123(text) {
        faults.push(pattern(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            LABEL_1035,
            &["my-name", "abc-123"],
        ));
    }
    faults
}

/// A name that is one segment of a path.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => ["/", "%"]
            .into_iter()
            .filter(|part| text.contains(part))
            .map(|part| format!("may not contain '{part}'"))
            .collect(),
    }
}

/// An IP address as it is written in canonical form, as the names of IPAddresses are.
pub fn canonical_ip(text: &str) -> Vec<String> {
    match text.parse::<std::net::IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
        Ok(ip) if ip.to_string() == text => Vec::new(),
        Ok(ip) => vec![format!("must be in canonical form (\"{ip}\")")],
    }
}

/// A key of a label or an annotation, a taint, a finalizer: `name` or `prefix/name`.
pub fn qualified_name(text: &str) -> Vec<String> {
    const SAYS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut faults = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            let said = if prefix.is_empty() { vec![empty()] } else { dns1123_subdomain(prefix) };
            faults.extend(said.into_iter().map(|fault| format!("prefix part {fault}")));
            *name
        }
        _ => {
            let whole = pattern(SAYS, QUALIFIED, EXAMPLES);
            let optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {whole} {optional}")];
        }
    };
    if name.is_empty() {
        faults.push(format!("name part {}", empty()));
    } else {
        faults.extend(too_long(name, LABEL_LEN_MAX).into_iter().map(|fault| format!("name part {fault}")));
    }
    if !is_qualified(name) {
        faults.push(format!("name part {}", pattern(SAYS, QUALIFIED, EXAMPLES)));
    }
    faults
}

/// The value of a label.
pub fn label_value(text: &str) -> Vec<String> {
    let mut faults = too_long(text, LABEL_LEN_MAX);
    if !text.is_empty() && !is_qualified(text) {
        faults.push(pattern(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
             must start and end with an alphanumeric character",
            LABEL_VALUE,
            &["MyValue", "my_value", "12345"],
        ));
    }
    faults
}

/// The name of a port.
pub fn port_name(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut unless = |good: bool, fault: &str| {
        if !good {
            faults.push(fault.to_owned());
        }
    };
    unless(text.len() <= PORT_NAME_LEN_MAX, "must be no more than 15 characters");
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let all_plain = !text.is_empty() && text.bytes().all(plain);
    unless(all_plain, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    unless(text.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    unless(!text.contains("--"), "must not contain consecutive hyphens");
    let edges = !text.is_empty() && !text.starts_with('-') && !text.ends_with('-');
    unless(edges, "must not begin or end with a hyphen");
    faults
}

/// The number of a port.
pub fn port_number(port: i64) -> Vec<String> {
    within(port, 1, 65535)
}

/// A number between two, both allowed.
pub fn within(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        Vec::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive")]
    }
}

/// The name of an environment variable: printable ASCII other than `=`.
pub fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec![format!("environment variable name {}", empty())];
    }
    if text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec![
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned(),
    ]
}

/// A key of a ConfigMap or a Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut faults = too_long_in_characters(text, DNS_SUBDOMAIN_LEN_MAX);
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if text.is_empty() || !text.bytes().all(plain) {
        faults.push(pattern(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => faults.push("must not be '.'".to_owned()),
        ".." => faults.push("must not be '..'".to_owned()),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// The name of an HTTP header.
pub fn header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![pattern(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A share such as `25%`.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![pattern(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

fn is_label_1123(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

fn is_subdomain_1123(text: &str) -> bool {
    text.split('.').all(is_label_1123)
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn too_long(text: &str, len_max: usize) -> Vec<String> {
    if text.len() > len_max { vec![format!("must be no more than {len_max} bytes")] } else { Vec::new() }
}

fn too_long_in_characters(text: &str, len_max: usize) -> Vec<String> {
    if text.len() > len_max { vec![format!("must be no more than {len_max} characters")] } else { Vec::new() }
}

fn empty() -> String {
    "must be non-empty".to_owned()
}

fn pattern(says: &str, expression: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{says} (e.g. {}regex used for validation is '{expression}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names_pass_and_bad_ones_are_told_apart() {
        for good in ["a", "a-b", "0a", "abc.def-1.x"] {
            assert!(dns1123_subdomain(good).is_empty(), "{good}");
        }
        for bad in ["", "A", "-a", "a-", "a..b", "a_b", ".a"] {
            assert!(!dns1123_subdomain(bad).is_empty(), "{bad}");
        }
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert!(!dns1035_label("1a").is_empty());
        assert!(dns1123_label(&"a".repeat(64))[0].starts_with("must be no more than 63"));
    }

    #[test]
    fn label_keys_may_have_one_prefix() {
        for good in ["a", "A_b.c", "example.com/a", "0"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "UPPER/a", "-a", "a b"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty());
        assert!(!label_value("a b").is_empty());
    }

    #[test]
    fn patterns_are_told_in_the_words_of_the_api() {
        assert_eq!(
            dns1123_label("A")[0],
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
             and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        );
    }

    #[test]
    fn port_names_are_short_and_have_a_letter() {
        assert!(port_name("http-2").is_empty());
        for bad in ["", "8080", "a--b", "-a", "averyveryverylongname", "Http"] {
            assert!(!port_name(bad).is_empty(), "{bad}");
        }
    }
}
