//! Named formats of strings.

use model::syntax;

use super::{Row, row, urls::Url};
use crate::budget::{Budget, Error};
use crate::value::Value;

/// A named format.
#[derive(Debug)]
pub struct Format {
    /// Its name.
    pub name: &'static str,
    check: fn(&str) -> Vec<String>,
}

const FORMATS: &[Format] = &[
    Format { name: "dns1123Label", check: syntax::dns1123_label },
    Format { name: "dns1123Subdomain", check: syntax::dns1123_subdomain },
    Format { name: "dns1035Label", check: syntax::dns1035_label },
    Format { name: "dns1123LabelPrefix", check: |text| syntax::dns1123_label(&prefix(text)) },
    Format { name: "dns1123SubdomainPrefix", check: |text| syntax::dns1123_subdomain(&prefix(text)) },
    Format { name: "dns1035LabelPrefix", check: |text| syntax::dns1035_label(&prefix(text)) },
    Format { name: "qualifiedName", check: syntax::qualified_name },
    Format { name: "labelValue", check: syntax::label_value },
    Format {
        name: "uri",
        check: |text| told(Url::read(text).is_some(), || format!("parse {text:?}: invalid URI for request")),
    },
    Format { name: "uuid", check: |text| told(is_uuid(text), || "does not match the UUID format".into()) },
    Format { name: "byte", check: |text| told(is_base64(text), || "invalid base64".into()) },
    Format { name: "date", check: |text| told(is_date(text), || "invalid date".into()) },
    Format {
        name: "datetime",
        check: |text| told(super::times::timestamp(text).is_ok(), || "invalid datetime".into()),
    },
];

/// A prefix before a generated name may end in a dash.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) => format!("{rest}a"),
        None => text.to_owned(),
    }
}

fn told(good: bool, why: impl Fn() -> String) -> Vec<String> {
    if good { Vec::new() } else { vec![why()] }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let hex = groups.iter().all(|group| group.bytes().all(|read| read.is_ascii_hexdigit()));
    hex && (lengths == [8, 4, 4, 4, 12] || lengths == [32])
}

fn is_base64(text: &str) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// The rows of this library: a function a format, then the rest.
macro_rules! rows {
    ($($function:literal $name:literal,)* ; $($row:expr),*) => {
        &[$(row($function, &["() Format"], |_, _| known($name)),)* $($row),*]
    };
}

pub const ROWS: &[Row] = rows!(
    "format.dns1123Label" "dns1123Label",
    "format.dns1123Subdomain" "dns1123Subdomain",
    "format.dns1035Label" "dns1035Label",
    "format.dns1123LabelPrefix" "dns1123LabelPrefix",
    "format.dns1123SubdomainPrefix" "dns1123SubdomainPrefix",
    "format.dns1035LabelPrefix" "dns1035LabelPrefix",
    "format.qualifiedName" "qualifiedName",
    "format.labelValue" "labelValue",
    "format.uri" "uri",
    "format.uuid" "uuid",
    "format.byte" "byte",
    "format.date" "date",
    "format.datetime" "datetime",
    ;
    row("format.named", &["(string) optional<Format>"], by_name),
    row("validate", &["Format.(string) optional<list<string>>"], validate)
);

fn known<'a>(name: &str) -> Result<Value<'a>, Error> {
    match FORMATS.iter().find(|format| format.name == name) {
        Some(format) => Ok(Value::Format(format)),
        None => Error::said(format!("no format is called {name}")),
    }
}

fn by_name<'a>(args: &[Value<'a>], _: &mut Budget) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Text(text) => Ok(Value::optional(known(text.as_str()).ok())),
        _ => Error::no_overload(),
    }
}

fn validate<'a>(args: &[Value<'a>], budget: &mut Budget) -> Result<Value<'a>, Error> {
    let [Value::Format(format), Value::Text(text)] = args else { return Error::no_overload() };
    budget.pay(super::walk(text.as_str().len() as u64 + 1).saturating_mul(32))?;
    let found = (format.check)(text.as_str());
    let told = (!found.is_empty()).then(|| Value::list(found.into_iter().map(Value::text).collect()));
    Ok(Value::optional(told))
}
