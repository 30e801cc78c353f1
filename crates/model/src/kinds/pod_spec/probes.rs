//! May probes and hooks be so?

use super::super::Faults;
use crate::tree::{is_set, is_there, items, text, whole};
use crate::{Tree, syntax};

/// May a container's probes and hooks be so? `grace` is how long its pod may take to end.
pub fn check_all(container: &Tree, grace: Option<i64>, field: &str, faults: &mut Faults) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let (probe, field) = (&container[name], format!("{field}.{name}"));
        if probe.is_null() {
            continue;
        }
        check_probe(probe, grace, &field, faults);
        let threshold = whole(probe, "successThreshold").unwrap_or(0);
        if name != "readinessProbe" && threshold != 1 {
            faults.invalid(format!("{field}.successThreshold"), threshold, "must be 1");
        }
        if name == "readinessProbe" && is_there(probe, "terminationGracePeriodSeconds") {
            let value = probe["terminationGracePeriodSeconds"].clone();
            let detail = "must not be set for readinessProbes";
            faults.invalid(format!("{field}.terminationGracePeriodSeconds"), value, detail);
        }
    }
    for name in ["postStart", "preStop"] {
        let hook = &container["lifecycle"][name];
        if !hook.is_null() {
            check_handler(hook, grace, &format!("{field}.lifecycle.{name}"), faults);
        }
    }
}

fn check_probe(probe: &Tree, grace: Option<i64>, field: &str, faults: &mut Faults) {
    check_handler(probe, grace, field, faults);
    for name in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        faults.non_negative(format_args!("{field}.{name}"), &probe[name]);
    }
    if whole(probe, "terminationGracePeriodSeconds").is_some_and(|seconds| seconds <= 0) {
        let value = probe["terminationGracePeriodSeconds"].clone();
        faults.invalid(format!("{field}.terminationGracePeriodSeconds"), value, "must be greater than 0");
    }
}

fn check_handler(handler: &Tree, grace: Option<i64>, field: &str, faults: &mut Faults) {
    const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
    let named: Vec<&str> = HANDLERS.into_iter().filter(|name| is_there(handler, name)).collect();
    let Some((first, more)) = named.split_first() else {
        return faults.required(field, "must specify a handler type");
    };
    for name in more {
        faults.forbidden(format!("{field}.{name}"), "may not specify more than 1 handler type");
    }
    let (action, field) = (&handler[*first], format!("{field}.{first}"));
    match *first {
        "exec" if !is_set(action, "command") => faults.required(format!("{field}.command"), ""),
        "httpGet" => check_http(action, &field, faults),
        "tcpSocket" => check_port(&action["port"], &format!("{field}.port"), faults),
        "grpc" => {
            let port = whole(action, "port").unwrap_or(0);
            faults.each(format_args!("{field}.port"), port, syntax::port_number(port));
        }
        "sleep" => {
            let seconds = whole(action, "seconds").unwrap_or(0);
            if let Some(grace) = grace.filter(|grace| seconds < 0 || seconds > *grace) {
                let detail =
                    format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                faults.invalid(field, seconds, &detail);
            }
        }
        _ => {}
    }
}

fn check_http(action: &Tree, field: &str, faults: &mut Faults) {
    if text(action, "path").is_empty() {
        faults.required(format!("{field}.path"), "");
    }
    check_port(&action["port"], &format!("{field}.port"), faults);
    let scheme = text(action, "scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        faults.not_supported(format!("{field}.scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in items(action, "httpHeaders") {
        let name = text(header, "name");
        faults.each(format_args!("{field}.httpHeaders"), name, syntax::header_name(name));
    }
}

fn check_port(port: &Tree, field: &str, faults: &mut Faults) {
    match port.as_str() {
        Some(name) => faults.each(field, name, syntax::port_name(name)),
        None => {
            let number = port.as_i64().unwrap_or(0);
            faults.each(field, number, syntax::port_number(number));
        }
    }
}
