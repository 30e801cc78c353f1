//! Macros that go through a list or a map.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::ast::{Expr, Loop, Over};
use crate::budget::Error;
use crate::eval::{Done, Walk};
use crate::library;
use crate::value::{Key, Map, Value};

/// What an element costs beside what is made of it: looking whether to go on, and taking note.
pub const TURN_COST: u64 = 3;
/// What an element costs that is kept.
pub const KEPT_COST: u64 = 11;

/// An element: what its names stand for.
type Element<'a> = (Value<'a>, Option<Value<'a>>);

impl<'a> Walk<'a, '_> {
    /// The value of a macro.
    #[inline(never)]
    pub fn looped(&mut self, looped: &Loop) -> Done<'a> {
        let range = self.eval(&looped.range)?;
        let elements = match (&range, looped.over) {
            (Value::Optional(value), Over::OptMap | Over::OptFlatMap) => {
                return self.optional(looped, value.as_deref());
            }
            (Value::List(list), _) => {
                let index = |at: usize| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
                let two = looped.names.1.is_some();
                let element = |(at, item)| if two { (index(at), Some(item)) } else { (item, None) };
                list.iter().enumerate().map(element).collect::<Vec<Element<'a>>>()
            }
            (Value::Map(map), _) => {
                let two = looped.names.1.is_some();
                let second = |key: &Key<'a>| if two { map.get(key) } else { None };
                map.keys().into_iter().map(|key| (key.value(), second(&key))).collect()
            }
            _ => return Error::no_overload(),
        };
        self.budget.pay(1)?;
        match looped.over {
            Over::All => self.quantified(looped, elements, false),
            Over::Exists => self.quantified(looped, elements, true),
            Over::ExistsOne => self.exactly_one(looped, elements),
            Over::SortBy => self.sort_by(looped, elements),
            Over::TransformMap | Over::TransformMapEntry => self.mapped(looped, elements),
            _ => self.listed(looped, elements),
        }
    }

    /// Evaluates with an element's names.
    fn with(&mut self, looped: &Loop, element: &Element<'a>, expr: &Expr) -> Done<'a> {
        let depth = self.names.len();
        self.names.push((looped.names.0.clone(), element.0.clone()));
        if let (Some(name), Some(value)) = (&looped.names.1, &element.1) {
            self.names.push((name.clone(), value.clone()));
        }
        let value = self.eval(expr);
        self.names.truncate(depth);
        value
    }

    fn holds(&mut self, looped: &Loop, element: &Element<'a>, expr: &Expr) -> Result<bool, Error> {
        match self.with(looped, element, expr)? {
            Value::Bool(flag) => Ok(flag),
            _ => Error::no_overload(),
        }
    }

    fn passes(&mut self, looped: &Loop, element: &Element<'a>) -> Result<bool, Error> {
        match &looped.filter {
            Some(filter) => self.holds(looped, element, filter),
            None => Ok(true),
        }
    }

    /// `all` and `exists`: an element that decides makes up for an error at another.
    fn quantified(&mut self, looped: &Loop, elements: Vec<Element<'a>>, decides: bool) -> Done<'a> {
        let mut failed = None;
        for element in elements {
            self.budget.pay(TURN_COST)?;
            match self.holds(looped, &element, &looped.body) {
                Ok(flag) if flag == decides => return Ok(Value::Bool(decides)),
                Ok(_) => {}
                Err(Error::TooCostly) => return Err(Error::TooCostly),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    fn exactly_one(&mut self, looped: &Loop, elements: Vec<Element<'a>>) -> Done<'a> {
        let mut count = 0;
        for element in elements {
            self.budget.pay(TURN_COST)?;
            count += u64::from(self.holds(looped, &element, &looped.body)?);
        }
        Ok(Value::Bool(count == 1))
    }

    fn listed(&mut self, looped: &Loop, elements: Vec<Element<'a>>) -> Done<'a> {
        let mut kept = Vec::new();
        for element in elements {
            self.budget.pay(TURN_COST)?;
            if !self.passes(looped, &element)? {
                continue;
            }
            if looped.over == Over::Filter {
                if self.holds(looped, &element, &looped.body)? {
                    self.budget.pay(KEPT_COST)?;
                    kept.push(element.0);
                }
                continue;
            }
            self.budget.pay(KEPT_COST)?;
            kept.push(self.with(looped, &element, &looped.body)?);
        }
        Ok(Value::list(kept))
    }

    fn mapped(&mut self, looped: &Loop, elements: Vec<Element<'a>>) -> Done<'a> {
        let mut kept: BTreeMap<Key<'a>, Value<'a>> = BTreeMap::new();
        for element in elements {
            self.budget.pay(TURN_COST)?;
            if !self.passes(looped, &element)? {
                continue;
            }
            self.budget.pay(KEPT_COST)?;
            let made = self.with(looped, &element, &looped.body)?;
            let entries = match (looped.over, &made) {
                (Over::TransformMap, _) => {
                    Key::of(&element.0).map(|key| vec![(key, made)]).unwrap_or_default()
                }
                (_, Value::Map(map)) => {
                    let entry = |key: Key<'a>| map.get(&key).map(|value| (key, value));
                    map.keys().into_iter().filter_map(entry).collect()
                }
                _ => return Error::no_overload(),
            };
            for (key, value) in entries {
                if kept.contains_key(&key) {
                    return Error::said(format!("insert failed: key {:?} already exists", key.value()));
                }
                kept.insert(key, value);
            }
        }
        Ok(Value::Map(Map::Made(Rc::new(kept))))
    }

    fn sort_by(&mut self, looped: &Loop, elements: Vec<Element<'a>>) -> Done<'a> {
        let mut pairs = Vec::new();
        for element in elements {
            self.budget.pay(TURN_COST + KEPT_COST)?;
            pairs.push((self.with(looped, &element, &looped.body)?, element.0));
        }
        library::sorted(pairs, self.budget)
    }

    fn optional(&mut self, looped: &Loop, value: Option<&Value<'a>>) -> Done<'a> {
        let Some(value) = value else { return Ok(Value::Optional(None)) };
        let made = self.with(looped, &(value.clone(), None), &looped.body)?;
        match (looped.over, made) {
            (Over::OptMap, made) => Ok(Value::optional(Some(made))),
            (_, made @ Value::Optional(_)) => Ok(made),
            _ => Error::no_overload(),
        }
    }
}
