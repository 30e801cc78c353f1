//! Functions of lists: those of Kubernetes, and the language's extension of version 3.

use std::cmp::Ordering;

use super::{Row, compare, row};
use crate::budget::{Budget, Error};
use crate::value::{List, Value};

type Done<'a> = Result<Value<'a>, Error>;

/// How many numbers a range may have: as many as anybody may go through within the budget of an expression.
const RANGE_LEN_MAX: i64 = 1_000_000;

pub const ROWS: &[Row] = &[
    row("isSorted", &["list<A>.() bool"], |args, budget| {
        let list = list(args, budget)?;
        let mut last: Option<Value<'_>> = None;
        for item in list.iter() {
            if let Some(last) = &last
                && compare::order(last, &item, budget)? == Some(Ordering::Greater)
            {
                return Ok(Value::Bool(false));
            }
            last = Some(item);
        }
        Ok(Value::Bool(true))
    }),
    row(
        "sum",
        &["list<int>.() int", "list<uint>.() uint", "list<double>.() double", "list<duration>.() duration"],
        sum,
    ),
    row("min", &["list<A>.() A"], |args, budget| extreme(args, budget, Ordering::Less)),
    row("max", &["list<A>.() A"], |args, budget| extreme(args, budget, Ordering::Greater)),
    row("distinct", &["list<A>.() list<A>"], |args, budget| {
        let mut kept: Vec<Value<'_>> = Vec::new();
        for item in list(args, budget)?.iter() {
            let mut new = true;
            for other in &kept {
                budget.pay(1)?;
                new = new && !compare::equal(&item, other, budget)?;
            }
            if new {
                kept.push(item);
            }
        }
        Ok(Value::list(kept))
    }),
    row("flatten", &["list<dyn>.() list<dyn>", "list<dyn>.(int) list<dyn>"], |args, budget| {
        let depth = match args.get(1) {
            Some(Value::Int(depth)) if *depth < 0 => return Error::said("level must be non-negative"),
            Some(Value::Int(depth)) => *depth,
            _ => 1,
        };
        let mut kept = Vec::new();
        flatten(list(args, budget)?, depth, &mut kept, budget)?;
        Ok(Value::list(kept))
    }),
    row("lists.range", &["(int) list<int>"], |args, budget| {
        let Value::Int(count) = &args[0] else { return Error::no_overload() };
        if *count > RANGE_LEN_MAX {
            return Err(Error::TooCostly);
        }
        budget.pay(u64::try_from(*count).unwrap_or(0))?;
        Ok(Value::list((0..*count).map(Value::Int).collect()))
    }),
    row("reverse", &["list<A>.() list<A>"], |args, budget| {
        let mut items: Vec<Value<'_>> = list(args, budget)?.iter().collect();
        items.reverse();
        Ok(Value::list(items))
    }),
    row("slice", &["list<A>.(int, int) list<A>"], |args, budget| {
        let [_, Value::Int(start), Value::Int(end)] = args else { return Error::no_overload() };
        let list = list(args, budget)?;
        let count = i64::try_from(list.len()).unwrap_or(i64::MAX);
        if *start < 0 || *end < 0 {
            return Error::said(format!("cannot slice({start}, {end}), negative indexes not supported"));
        }
        if start > end {
            return Error::said(format!(
                "cannot slice({start}, {end}), start index must be less than or equal to end index"
            ));
        }
        if *end > count {
            return Error::said(format!("cannot slice({start}, {end}), list is length {count}"));
        }
        let (skip, take) = (usize::try_from(*start).unwrap_or(0), usize::try_from(end - start).unwrap_or(0));
        Ok(Value::list(list.iter().skip(skip).take(take).collect()))
    }),
    row("sort", &["list<A>.() list<A>"], |args, budget| {
        let items: Vec<Value<'_>> = list(args, budget)?.iter().collect();
        sorted(items.iter().cloned().zip(items.clone()).collect(), budget)
    }),
    row("first", &["list<A>.() optional<A>"], |args, _| match &args[0] {
        Value::List(list) => Ok(Value::optional(list.get(0))),
        _ => Error::no_overload(),
    }),
    row("last", &["list<A>.() optional<A>"], |args, _| match &args[0] {
        Value::List(list) => Ok(Value::optional(list.len().checked_sub(1).and_then(|at| list.get(at)))),
        _ => Error::no_overload(),
    }),
];

fn list<'a, 'b>(args: &'b [Value<'a>], budget: &mut Budget) -> Result<&'b List<'a>, Error> {
    let Some(Value::List(list)) = args.first() else { return Error::no_overload() };
    budget.pay(list.len() as u64)?;
    Ok(list)
}

/// Values in the order of the keys beside them.
pub fn sorted<'a>(mut items: Vec<(Value<'a>, Value<'a>)>, budget: &mut Budget) -> Done<'a> {
    let rounds = u64::from(items.len().max(1).ilog2()) + 1;
    budget.pay((items.len() as u64).saturating_mul(rounds))?;
    let mut failed = None;
    items.sort_by(|(one, _), (other, _)| match compare::order(one, other, budget) {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) => {
            failed.get_or_insert(error);
            Ordering::Equal
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(Value::list(items.into_iter().map(|(_, value)| value).collect())),
    }
}

fn extreme<'a>(args: &[Value<'a>], budget: &mut Budget, wanted: Ordering) -> Done<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list(args, budget)?.iter() {
        best = match best {
            Some(best) if compare::order(&item, &best, budget)? != Some(wanted) => Some(best),
            _ => Some(item),
        };
    }
    let word = if wanted == Ordering::Less { "min" } else { "max" };
    best.map_or_else(|| Error::said(format!("{word} called on empty list")), Ok)
}

fn sum<'a>(args: &[Value<'a>], budget: &mut Budget) -> Done<'a> {
    let add = super::find("_+_").map(|function| function.does);
    let mut total: Option<Value<'a>> = None;
    for item in list(args, budget)?.iter() {
        total = match (total, add) {
            (Some(total), Some(add)) => Some(add(&[total, item], budget)?),
            _ => Some(item),
        };
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

fn flatten<'a>(
    list: &List<'a>,
    depth: i64,
    into: &mut Vec<Value<'a>>,
    budget: &mut Budget,
) -> Result<(), Error> {
    for item in list.iter() {
        budget.pay(1)?;
        match &item {
            Value::List(inner) if depth > 0 => flatten(inner, depth - 1, into, budget)?,
            _ => into.push(item),
        }
    }
    Ok(())
}
