//! Requests for certificates: what they ask for, which signer may give it, and the giving. Pure but for the key.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{
    CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber, SigningKey,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::nodes::NODES;
use super::pki::{PemPair, PkiError};

/// Signs client certificates for users of the API.
pub const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs the certificates with which nodes' agents speak to the API.
pub const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs the certificates with which nodes' agents are spoken to.
pub const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
/// Signs whatever was approved, and promises nothing of who trusts it.
pub const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// How long a certificate is good for when its request names no time, and at most: upstream's year, in seconds.
const SECONDS_MAX: i64 = 365 * 24 * 3600;
/// How long it is good for at least, in seconds: upstream's ten minutes.
const SECONDS_MIN: i64 = 600;
/// By how much a certificate's life begins before now, for clocks that run behind, in seconds: upstream's.
const BACKDATE_SECONDS: i64 = 300;
/// A life shorter than this, in seconds, is not shortened by that: upstream's.
const SHORT_SECONDS: i64 = 8 * 3600;

/// What a request asks for.
pub struct Request {
    /// The common name: the user.
    pub name: String,
    /// The organizations: the groups.
    pub groups: Vec<String>,
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Whether it names addresses of mail.
    mails: bool,
    /// Whether it names URIs.
    uris: bool,
    /// The subject as it was sent.
    subject: Vec<u8>,
    params: CertificateSigningRequestParams,
}

/// Reads a request, and sees that its key has signed it.
///
/// # Errors
/// What is wrong with it, in words.
pub fn read(pem: &str) -> Result<Request, String> {
    if !pem.contains("-----BEGIN CERTIFICATE REQUEST-----") {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    }
    let params = CertificateSigningRequestParams::from_pem(pem).map_err(|why| why.to_string())?;
    let (_, block) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).map_err(|why| why.to_string())?;
    let (_, own) = X509CertificationRequest::from_der(&block.contents).map_err(|why| why.to_string())?;
    let subject = &own.certification_request_info.subject;
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok());
    let groups = subject.iter_organization().filter_map(|group| group.as_str().ok());
    let mut request = Request {
        name: name.unwrap_or_default().to_owned(),
        groups: groups.map(str::to_owned).collect(),
        dns: Vec::new(),
        addresses: Vec::new(),
        mails: false,
        uris: false,
        subject: subject.as_raw().to_vec(),
        params,
    };
    for name in &request.params.params.subject_alt_names {
        match name {
            SanType::DnsName(name) => request.dns.push(name.to_string()),
            SanType::IpAddress(address) => request.addresses.push(*address),
            SanType::Rfc822Name(_) => request.mails = true,
            _ => request.uris = true,
        }
    }
    Ok(request)
}

/// Whether a signer of ours gives what is asked for: `None` where the signer is none of ours, `Err` says what it minds.
pub fn judge(signer: &str, request: &Request, usages: &[String]) -> Option<Result<(), String>> {
    match signer {
        API_CLIENT => Some(client_usages(usages)),
        NODE_CLIENT => Some(node_client(request, usages)),
        NODE_SERVING => Some(node_serving(request, usages)),
        LEGACY => Some(Ok(())),
        _ => None,
    }
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    const MAY: [&str; 3] = ["digital signature", "key encipherment", "client auth"];
    if let Some(other) = usages.iter().find(|usage| !MAY.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.iter().any(|usage| usage == "client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".into()),
    }
}

/// Whether a request is one for the certificate of a node's agent as a client.
pub fn node_client(request: &Request, usages: &[String]) -> Result<(), String> {
    if request.groups != [NODES] {
        return Err("subject organization is not system:nodes".into());
    }
    for (has, what) in [
        (!request.dns.is_empty(), "DNS"),
        (request.mails, "Email"),
        (!request.addresses.is_empty(), "IP"),
        (request.uris, "URI"),
    ] {
        if has {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    node_name(request)?;
    exact_usages(usages, "client auth")
}

fn node_serving(request: &Request, usages: &[String]) -> Result<(), String> {
    if request.groups != [NODES] {
        return Err("subject organization is not system:nodes".into());
    }
    if request.dns.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    if request.mails {
        return Err("Email subjectAltNames are not allowed".into());
    }
    if request.uris {
        return Err("URI subjectAltNames are not allowed".into());
    }
    exact_usages(usages, "server auth")?;
    node_name(request).map(|_| ())
}

/// The name of the node that a request names.
///
/// # Errors
/// When it names none.
pub fn node_name(request: &Request) -> Result<&str, String> {
    request
        .name
        .strip_prefix("system:node:")
        .filter(|name| !name.is_empty())
        .ok_or_else(|| "subject common name does not begin with system:node:".into())
}

fn exact_usages(usages: &[String], side: &str) -> Result<(), String> {
    let own: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let with = BTreeSet::from(["digital signature", "key encipherment", side]);
    let without = BTreeSet::from(["digital signature", side]);
    if own == with || own == without {
        return Ok(());
    }
    let wanted: Vec<&str> = with.into_iter().collect();
    Err(format!("usages did not match [{}]", wanted.join(" ")))
}

/// Gives the certificate (PEM): for the subject and names that are asked for, these usages, and so many seconds.
///
/// # Errors
/// When the authority cannot be used.
pub fn sign(
    authority: &PemPair,
    request: &Request,
    usages: &[String],
    seconds: Option<i64>,
    serial: [u8; 16],
    now: Timestamp,
) -> Result<String, PkiError> {
    let unusable = |what| move |why: rcgen::Error| PkiError::Unusable { what, source: why.into() };
    let key = KeyPair::from_pem(&authority.key).map_err(unusable("the authority's key"))?;
    let issuer =
        Issuer::from_ca_cert_pem(&authority.cert, key).map_err(unusable("the authority's certificate"))?;
    let mut params = request.params.clone();
    let own = &mut params.params;
    own.serial_number = Some(SerialNumber::from_slice(&serial));
    own.is_ca = IsCa::ExplicitNoCa;
    own.use_authority_key_identifier_extension = true;
    own.key_usages.clear();
    own.extended_key_usages.clear();
    for usage in usages {
        if let Some(usage) = key_usage(usage) {
            own.key_usages.push(usage);
        } else if let Some(usage) = extended_usage(usage) {
            own.extended_key_usages.push(usage);
        }
    }
    let life = seconds.unwrap_or(SECONDS_MAX).clamp(SECONDS_MIN, SECONDS_MAX);
    let end = if life < SHORT_SECONDS { life } else { life - BACKDATE_SECONDS };
    let at = |second: i64| {
        let since = std::time::Duration::from_secs(u64::try_from(second).unwrap_or(0));
        rcgen::date_time_ymd(1970, 1, 1) + since
    };
    own.not_before = at(now.as_second() - BACKDATE_SECONDS);
    own.not_after = at(now.as_second() + end);
    let cert = params.signed_by(&issuer).map_err(unusable("a new certificate"))?;
    let key = KeyPair::from_pem(&authority.key).map_err(unusable("the authority's key"))?;
    let der = with_subject(cert.der(), &request.subject, &key)?;
    Ok(to_pem("CERTIFICATE", &der))
}

/// The same certificate for the subject as it was sent, signed again: the library keeps one name of each sort, and a
/// user may have several groups.
fn with_subject(cert: &[u8], subject: &[u8], key: &KeyPair) -> Result<Vec<u8>, PkiError> {
    let bad = |why: String| PkiError::Unusable { what: "a new certificate", source: why.into() };
    let (_, read) = X509Certificate::from_der(cert).map_err(|why| bad(why.to_string()))?;
    let signed: &[u8] = read.tbs_certificate.as_ref();
    let old = read.tbs_certificate.subject.as_raw();
    let place = |part: &[u8], whole: &[u8]| part.as_ptr() as usize - whole.as_ptr() as usize;
    let head = header_len(signed);
    let at = place(old, signed);
    let content = [&signed[head..at], subject, &signed[at + old.len()..]].concat();
    let signed_now = element(0x30, &content);
    let after = place(signed, cert) + signed.len();
    // The name of the algorithm follows: a sequence of fewer than 128 bytes.
    let algorithm = &cert[after..after + 2 + usize::from(cert[after + 1])];
    let signature = key.sign(&signed_now).map_err(|why| bad(why.to_string()))?;
    let signature = element(0x03, &[&[0], signature.as_slice()].concat());
    Ok(element(0x30, &[&signed_now, algorithm, &signature].concat()))
}

/// How many bytes of an element are its tag and its length (X.690).
fn header_len(element: &[u8]) -> usize {
    match element[1] {
        short if short < 0x80 => 2,
        long => 2 + usize::from(long & 0x7f),
    }
}

/// A tag, a length and the content (X.690).
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        len @ ..0x80 => out.push(len as u8),
        len => {
            let bytes = len.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

fn to_pem(what: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", lines.join("\n"))
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

fn extended_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match usage {
        "any" => ExtendedKeyUsagePurpose::Any,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        _ => return None,
    })
}

/// A new key and a request for a certificate of it, both as PEM: for this user and group, and these names.
///
/// # Errors
/// When no key can be drawn, or a name is none.
pub fn new_request(user: &str, group: &str, names: &[String]) -> Result<(String, String), PkiError> {
    let unusable = |what| move |why: rcgen::Error| PkiError::Unusable { what, source: why.into() };
    let key = KeyPair::generate().map_err(unusable("a new key"))?;
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(unusable("the names"))?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, user);
    params.distinguished_name.push(DnType::OrganizationName, group);
    let request = params.serialize_request(&key).map_err(unusable("a new request"))?;
    Ok((key.serialize_pem(), request.pem().map_err(unusable("a new request"))?))
}

#[cfg(test)]
mod tests {
    use super::super::{from_certificate, pki};
    use super::*;

    fn usages(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    fn check(signer: &str, subject: (&str, &str), names: &[&str], used: &str, wanted: Option<&str>) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let (_, pem) = new_request(subject.0, subject.1, &names).expect("keys can be drawn");
        let request = read(&pem).expect("own request");
        let said = judge(signer, &request, &usages(used));
        let said = said.map(|judged| judged.err().unwrap_or_else(|| "yes".into()));
        assert_eq!(said.as_deref(), wanted, "{signer} {subject:?} {names:?} {used}");
    }

    const CLIENT: &str = "digital signature,client auth";

    #[test]
    fn each_signer_gives_what_it_is_for() {
        let node = ("system:node:a", "system:nodes");
        check(NODE_CLIENT, node, &[], CLIENT, Some("yes"));
        check(NODE_CLIENT, node, &[], "key encipherment,digital signature,client auth", Some("yes"));
        check(NODE_CLIENT, node, &["a"], CLIENT, Some("DNS subjectAltNames are not allowed"));
        check(NODE_CLIENT, node, &["1.2.3.4"], CLIENT, Some("IP subjectAltNames are not allowed"));
        check(
            NODE_CLIENT,
            ("system:node:a", "system:masters"),
            &[],
            CLIENT,
            Some("subject organization is not system:nodes"),
        );
        check(
            NODE_CLIENT,
            ("ann", "system:nodes"),
            &[],
            CLIENT,
            Some("subject common name does not begin with system:node:"),
        );
        check(
            NODE_CLIENT,
            node,
            &[],
            "client auth",
            Some("usages did not match [client auth digital signature key encipherment]"),
        );
        check(NODE_SERVING, node, &["a", "1.2.3.4"], "digital signature,server auth", Some("yes"));
        check(
            NODE_SERVING,
            node,
            &[],
            "digital signature,server auth",
            Some("DNS or IP subjectAltName is required"),
        );
        check(API_CLIENT, ("ann", "staff"), &[], CLIENT, Some("yes"));
        check(
            API_CLIENT,
            ("ann", "staff"),
            &[],
            "server auth",
            Some("invalid usage for client certificate: server auth"),
        );
        check(
            API_CLIENT,
            ("ann", "staff"),
            &[],
            "digital signature",
            Some("missing required usage for client certificate: client auth"),
        );
        check(LEGACY, ("x", "y"), &["z"], "server auth", Some("yes"));
        check("example.com/own", ("x", "y"), &[], "client auth", None);
    }

    #[test]
    fn a_certificate_names_whom_its_request_named_for_as_long_as_it_asked() {
        let now = Timestamp::from_second(1_800_000_000).expect("a fixed time");
        let ca = pki::new_authority("ca", now).expect("keys can be drawn");
        let (_, pem) = new_request("system:node:a", "system:nodes", &[]).expect("keys can be drawn");
        let request = read(&pem).expect("own request");
        let life = |seconds: Option<i64>| {
            let pem = sign(&ca, &request, &usages(CLIENT), seconds, [7; 16], now).expect("a good authority");
            let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("own PEM");
            let identity = from_certificate(&pem.contents).expect("it names a user");
            assert_eq!((identity.node(), identity.name.as_str()), (Some("a"), "system:node:a"));
            let (_, cert) = X509Certificate::from_der(&pem.contents).expect("own DER");
            assert!(!cert.is_ca());
            let validity = cert.validity();
            assert_eq!(validity.not_before.timestamp(), now.as_second() - 300);
            validity.not_after.timestamp() - now.as_second()
        };
        assert_eq!(life(Some(3600)), 3600);
        assert_eq!(life(Some(1)), 600);
        assert_eq!(life(None), 365 * 24 * 3600 - 300);
        assert_eq!(life(Some(i64::MAX)), 365 * 24 * 3600 - 300);
    }

    #[test]
    fn all_groups_of_a_request_are_in_its_certificate_and_the_authority_has_signed_it() {
        let now = Timestamp::from_second(1_800_000_000).expect("a fixed time");
        let ca = pki::new_authority("ca", now).expect("keys can be drawn");
        let (_, pem) = new_request("ann", "one", &[]).expect("keys can be drawn");
        let mut request = read(&pem).expect("own request");
        // CN=ann, O=one, O=two, as another tool would send it.
        let word = |oid: u8, text: &str| {
            let pair = [element(0x06, &[0x55, 4, oid]), element(0x0c, text.as_bytes())].concat();
            element(0x31, &element(0x30, &pair))
        };
        request.subject = element(0x30, &[word(3, "ann"), word(10, "one"), word(10, "two")].concat());
        let pem = sign(&ca, &request, &usages(CLIENT), None, [7; 16], now).expect("a good authority");
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("own PEM");
        let identity = from_certificate(&pem.contents).expect("it names a user");
        assert_eq!(identity.groups, ["one", "two", "system:authenticated"]);
        let (_, cert) = X509Certificate::from_der(&pem.contents).expect("own DER");
        let (_, ca) = x509_parser::pem::parse_x509_pem(ca.cert.as_bytes()).expect("own PEM");
        let authority = ca.parse_x509().expect("own DER");
        assert!(cert.verify_signature(Some(authority.public_key())).is_ok());
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        assert!(read("x").is_err());
        assert!(
            read("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n").is_err()
        );
    }
}
