//! How often webhooks were asked, refused, and could not be asked: for `/metrics`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// How many different rows are counted: a hundred webhooks with their operations and codes. What comes after is not.
const ROWS_MAX: usize = 2048;

/// Counters by their name and labels.
#[derive(Default)]
pub struct Counts {
    /// Guards the numbers while one is counted up.
    rows: Mutex<BTreeMap<(&'static str, String), u64>>,
}

/// The counters: name and help.
const COUNTERS: [(&str, &str); 3] = [
    ("apiserver_admission_webhook_request_total", "Requests to admission webhooks."),
    ("apiserver_admission_webhook_rejection_count", "Refusals by admission webhooks."),
    (
        "apiserver_admission_webhook_fail_open_count",
        "Admission webhooks that could not be asked and were passed over.",
    ),
];

impl Counts {
    /// A webhook was asked: how it ended.
    pub fn asked(&self, name: &str, sort: &str, operation: &str, code: u16, rejected: bool) {
        self.up(
            0,
            format!(
                "name={name:?},type={sort:?},operation={operation:?},code=\"{code}\",rejected=\"{rejected}\""
            ),
        );
    }

    /// A request was refused, by a webhook or for want of it.
    pub fn rejected(&self, name: &str, sort: &str, operation: &str, error: &str, code: u16) {
        let code = if error == "no_error" { code } else { 0 };
        self.up(
            1,
            format!("error_type={error:?},name={name:?},operation={operation:?},rejection_code=\"{code}\",type={sort:?}"),
        );
    }

    /// A webhook was passed over.
    pub fn failed_open(&self, name: &str, sort: &str) {
        self.up(2, format!("name={name:?},type={sort:?}"));
    }

    fn up(&self, counter: usize, labels: String) {
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (COUNTERS[counter].0, labels);
        if rows.len() < ROWS_MAX || rows.contains_key(&key) {
            *rows.entry(key).or_insert(0) += 1;
        }
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> String {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::new();
        for (name, help) in COUNTERS {
            let own: Vec<_> = rows.iter().filter(|((counter, _), _)| *counter == name).collect();
            if own.is_empty() {
                continue;
            }
            // Writing to a text cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for ((_, labels), count) in own {
                let _ = writeln!(out, "{name}{{{labels}}} {count}");
            }
        }
        out
    }
}
