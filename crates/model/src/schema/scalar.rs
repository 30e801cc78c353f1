//! Single values in the text in which they are stored.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Shape;
use crate::{Quantity, time};

/// The canonical text of a time or of bytes, or what is wrong with it.
pub fn canonical(shape: &Shape, text: String) -> Result<String, String> {
    let time_of =
        |text: &str| time::parse(text).map_err(|_| format!("{text:?} is not a time as in RFC 3339"));
    match shape {
        Shape::Time => time_of(&text).map(time::seconds),
        Shape::MicroTime => time_of(&text).map(time::micros),
        Shape::Bytes => bytes(text),
        _ => Ok(text),
    }
}

/// The canonical text of a quantity; `listed` ones, in lists of resources, are rounded up to thousandths.
pub fn quantity(text: &str, listed: bool) -> Result<String, String> {
    let quantity: Quantity = text.parse().map_err(|why: crate::quantity::NotAQuantity| why.to_string())?;
    let kept = if listed { quantity.rounded_up_to_millis() } else { quantity };
    Ok(kept.to_string())
}

fn bytes(mut text: String) -> Result<String, String> {
    text.retain(|c| !matches!(c, '\r' | '\n'));
    match STANDARD.decode(&text) {
        Ok(_) => Ok(text),
        Err(why) => Err(format!("illegal base64 data: {why}")),
    }
}

/// What stands where a list or a map has a null.
pub fn zero(shape: &Shape) -> Value {
    match shape {
        Shape::Text | Shape::Bytes => Value::String(String::new()),
        Shape::Flag => Value::Bool(false),
        Shape::Int32 | Shape::Int64 | Shape::IntOrString | Shape::Double => 0.into(),
        Shape::Quantity => Value::String("0".to_owned()),
        Shape::Object(_) | Shape::Map { .. } => Value::Object(Map::new()),
        Shape::List { .. } => Value::Array(Vec::new()),
        Shape::Any | Shape::Time | Shape::MicroTime => Value::Null,
    }
}
