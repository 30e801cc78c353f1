//! Whether values are equal, and which comes first.

use std::cmp::Ordering;

use model::Tree;

use super::authorizer::Ask;
use super::walk;
use crate::budget::{Budget, Error};
use crate::types::Type;
use crate::value::{Key, List, Value};

/// Whether two values are equal. Values of different types are not, but numbers are by what they count.
pub fn equal<'a>(one: &Value<'a>, other: &Value<'a>, budget: &mut Budget) -> Result<bool, Error> {
    Ok(match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(one), Value::Bool(other)) => one == other,
        (Value::Text(one), Value::Text(other)) => {
            let (one, other) = (one.as_str(), other.as_str());
            budget.pay(walk(one.len().min(other.len()) as u64))?;
            one == other
        }
        (Value::Bytes(one), Value::Bytes(other)) => {
            budget.pay(walk(one.len().min(other.len()) as u64))?;
            one == other
        }
        (Value::Timestamp(one), Value::Timestamp(other)) => one == other,
        (Value::Duration(one), Value::Duration(other)) => one == other,
        (Value::List(one), Value::List(other)) => lists(one, other, budget)?,
        (Value::Map(one), Value::Map(other)) => {
            let keys = one.keys();
            if keys.len() != other.len() {
                return Ok(false);
            }
            for key in keys {
                budget.pay(1)?;
                match (one.get(&key), other.get(&key)) {
                    (Some(one), Some(other)) if equal(&one, &other, budget)? => {}
                    // A field that a schema does not know is there for both or for none.
                    (None, None) => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Optional(one), Value::Optional(other)) => match (one, other) {
            (Some(one), Some(other)) => equal(one, other, budget)?,
            (one, other) => one.is_none() && other.is_none(),
        },
        (Value::Type(one), Value::Type(other)) => one == other,
        (Value::Quantity(one), Value::Quantity(other)) => one == other,
        (Value::Url(one), Value::Url(other)) => one == other,
        (Value::Ip(one), Value::Ip(other)) => one == other,
        (Value::Cidr(one), Value::Cidr(other)) => one == other,
        (Value::Semver(one), Value::Semver(other)) => one.order(other) == Ordering::Equal,
        (Value::Format(one), Value::Format(other)) => one.name == other.name,
        (Value::Ask(one), Value::Ask(other)) => Ask::same(one, other),
        (one, other) => order_numbers(one, other) == Some(Some(Ordering::Equal)),
    })
}

fn lists<'a>(one: &List<'a>, other: &List<'a>, budget: &mut Budget) -> Result<bool, Error> {
    if one.len() != other.len() {
        return Ok(false);
    }
    budget.pay(one.len() as u64)?;
    if let Some(of) = one.kind().filter(|of| matches!(of, Type::Set(..) | Type::Keyed(..))) {
        return unordered(of, one, other, budget);
    }
    for (one, other) in one.iter().zip(other.iter()) {
        if !equal(&one, &other, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Sets, and lists whose items have keys, are equal in any order.
fn unordered<'a>(of: &Type, one: &List<'a>, other: &List<'a>, budget: &mut Budget) -> Result<bool, Error> {
    for item in one.iter() {
        match partner(of, &item, other, budget)? {
            Some(found) if equal(&item, &found, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The item of a list that has an item's keys, or equals it.
pub fn partner<'a>(
    of: &Type,
    item: &Value<'a>,
    list: &List<'a>,
    budget: &mut Budget,
) -> Result<Option<Value<'a>>, Error> {
    let Type::Keyed(_, _, keys) = of else {
        for found in list.iter() {
            budget.pay(1)?;
            if equal(item, &found, budget)? {
                return Ok(Some(found));
            }
        }
        return Ok(None);
    };
    let wanted = keys_of(item, keys);
    for found in list.iter() {
        budget.pay(1)?;
        if keys_of(&found, keys) == wanted {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn keys_of(item: &Value<'_>, keys: &[String]) -> Vec<Option<Tree>> {
    let Value::Map(map) = item else { return Vec::new() };
    keys.iter().map(|key| map.field(key).and_then(|value| value.to_tree().ok())).collect()
}

/// Which comes first; `None` when one of them is no number, and `Some(None)` when one is not even that.
fn order_numbers(one: &Value<'_>, other: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (whole(one), whole(other)) {
        (Some(one), Some(other)) => Some(one.cmp(&other)),
        (Some(one), None) => mixed(one, double(other)?),
        (None, Some(other)) => mixed(other, double(one)?).map(Ordering::reverse),
        (None, None) => double(one)?.partial_cmp(&double(other)?),
    })
}

fn mixed(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    // Beyond these bounds a double is larger or smaller than any integer there is.
    if double >= 2e19 {
        return Some(Ordering::Less);
    }
    if double <= -2e19 {
        return Some(Ordering::Greater);
    }
    let floor = double.floor();
    let order = whole.cmp(&(floor as i128));
    Some(if order == Ordering::Equal && double > floor { Ordering::Less } else { order })
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Uint(number) => Some((*number).into()),
        _ => None,
    }
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        _ => None,
    }
}

/// Which of two values comes first; nothing when one is not a number.
pub fn order(one: &Value<'_>, other: &Value<'_>, budget: &mut Budget) -> Result<Option<Ordering>, Error> {
    Ok(Some(match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Text(one), Value::Text(other)) => {
            let (one, other) = (one.as_str(), other.as_str());
            budget.pay(walk(one.len().min(other.len()) as u64))?;
            one.cmp(other)
        }
        (Value::Bytes(one), Value::Bytes(other)) => {
            budget.pay(walk(one.len().min(other.len()) as u64))?;
            one.cmp(other)
        }
        (Value::Timestamp(one), Value::Timestamp(other)) => one.cmp(other),
        (Value::Duration(one), Value::Duration(other)) => one.cmp(other),
        (one, other) => return order_numbers(one, other).map_or_else(Error::no_overload, Ok),
    }))
}

/// Whether a value is among others.
pub fn is_in<'a>(item: &Value<'a>, among: &Value<'a>, budget: &mut Budget) -> Result<bool, Error> {
    match among {
        Value::List(list) => {
            for other in list.iter() {
                budget.pay(1)?;
                if equal(item, &other, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(Key::of(item).is_some_and(|key| map.get(&key).is_some())),
        _ => Error::no_overload(),
    }
}
