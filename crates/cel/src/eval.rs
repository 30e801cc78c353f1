//! From a tree to a value.
//!
//! Every step is paid for, so an evaluation ends when its budget does; how deep it goes down was bounded when the text
//! was read.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::ast::{Call, Expr, Literal, Mode, Select, What};
use crate::budget::{Budget, Error};
use crate::library;
use crate::parse::path_of;
use crate::value::{Key, List, Map, Text, Value};

pub type Done<'a> = Result<Value<'a>, Error>;

/// What a name or a field, a list, a map and an object cost.
const NAME_COST: u64 = 1;
const LIST_COST: u64 = 10;
const MAP_COST: u64 = 30;
const STRUCT_COST: u64 = 40;

/// The names of types, as expressions compare them with `type(x)`.
const TYPES: [&str; 19] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "type",
    "null_type",
    "optional_type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "net.IP",
    "net.CIDR",
    "kubernetes.Quantity",
    "kubernetes.URL",
    "kubernetes.Semver",
    "kubernetes.NamedFormat",
];

/// The name of a type, when it is one.
pub fn type_named(name: &str) -> Option<&'static str> {
    TYPES.into_iter().find(|known| *known == name)
}

/// The type that a path names, such as `net.IP`.
pub fn type_at(operand: &Expr, field: &str) -> Option<&'static str> {
    let known =
        TYPES.into_iter().find(|known| known.rsplit_once('.').is_some_and(|(_, last)| last == field))?;
    (format!("{}.{field}", path_of(operand)?) == known).then_some(known)
}

/// An evaluation under way.
pub struct Walk<'a, 'b> {
    /// What names stand for, the innermost last.
    pub names: Vec<(Arc<str>, Value<'a>)>,
    /// What may still be spent.
    pub budget: &'b mut Budget,
}

impl<'a> Walk<'a, '_> {
    /// The value of an expression.
    pub fn eval(&mut self, expr: &Expr) -> Done<'a> {
        match &expr.what {
            What::Literal(literal) => Ok(value_of(literal)),
            What::Name(name) => self.name(name),
            What::Select(select) => self.select(select),
            What::Call(call) => self.call(call),
            What::And(all) => self.logical(all, false),
            What::Or(all) => self.logical(all, true),
            What::List(items) => self.list(items),
            What::Map(entries) => self.map(entries),
            What::Struct(name, fields) => self.made(name, fields),
            What::Loop(looped) => self.looped(looped),
        }
    }

    fn name(&mut self, name: &Arc<str>) -> Done<'a> {
        self.budget.pay(NAME_COST)?;
        if let Some((_, value)) = self.names.iter().rev().find(|(known, _)| known == name) {
            return Ok(value.clone());
        }
        match type_named(name) {
            Some(name) => Ok(Value::Type(name.into())),
            None => Error::said(format!("undeclared reference to '{name}' (in container '')")),
        }
    }

    #[inline(never)]
    fn select(&mut self, select: &Select) -> Done<'a> {
        if let Some(found) = self.dotted(select) {
            self.budget.pay(NAME_COST)?;
            return Ok(found);
        }
        let operand = self.eval(&select.operand)?;
        self.budget.pay(if select.mode == Mode::Test { 0 } else { NAME_COST })?;
        if let Value::Optional(inner) = &operand {
            let found = match inner {
                Some(inner) => self.field(inner, &select.field)?,
                None => None,
            };
            return Ok(match select.mode {
                Mode::Test => Value::Bool(found.is_some()),
                _ => Value::optional(found),
            });
        }
        if let (Mode::Test, Value::Lazy(fields)) = (select.mode, &operand) {
            return Ok(Value::Bool(fields.has(&select.field)));
        }
        let found = self.field(&operand, &select.field)?;
        match (select.mode, found) {
            (Mode::Test, found) => Ok(Value::Bool(found.is_some())),
            (Mode::Optional, found) => Ok(Value::optional(found)),
            (Mode::Plain, Some(found)) => Ok(found),
            (Mode::Plain, None) => Error::said(format!("no such key: {}", select.field)),
        }
    }

    /// What a path as a whole stands for: a name with a dot in it, or a type such as `net.IP`.
    fn dotted(&self, select: &Select) -> Option<Value<'a>> {
        if let What::Name(root) = &select.operand.what {
            let is = |name: &str| {
                let rest = name.strip_prefix(&**root).and_then(|rest| rest.strip_prefix('.'));
                rest == Some(&*select.field)
            };
            if let Some((_, value)) = self.names.iter().find(|(name, _)| is(name)) {
                return Some(value.clone());
            }
        }
        let name = type_at(&select.operand, &select.field)?;
        let root = name.split('.').next()?;
        let hidden = self.names.iter().any(|(known, _)| &**known == root);
        (!hidden).then(|| Value::Type(name.into()))
    }

    fn field(&mut self, of: &Value<'a>, name: &str) -> Result<Option<Value<'a>>, Error> {
        match of {
            Value::Map(map) => Ok(map.field(name)),
            Value::Lazy(fields) if fields.has(name) => fields.get(name, self.budget).map(Some),
            Value::Lazy(_) => Ok(None),
            _ => Error::no_overload(),
        }
    }

    #[inline(never)]
    fn call(&mut self, call: &Call) -> Done<'a> {
        match (&*call.function, call.args.as_slice()) {
            ("_?_:_", [condition, yes, no]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.eval(yes),
                    Value::Bool(false) => self.eval(no),
                    _ => Error::no_overload(),
                };
            }
            ("or" | "orValue", [first, _]) if call.method => {
                let value = self.eval(first)?;
                self.budget.pay(1)?;
                return match (value, &*call.function) {
                    (value @ Value::Optional(Some(_)), "or") => Ok(value),
                    (Value::Optional(Some(value)), _) => Ok((*value).clone()),
                    (Value::Optional(None), _) => self.eval(&call.args[1]),
                    _ => Error::no_overload(),
                };
            }
            _ => {}
        }
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.eval(arg)?);
        }
        self.budget.pay(1)?;
        let Some(function) = library::find(&call.function) else { return Error::no_overload() };
        let takes = |overload: &library::Overload| {
            overload.takes.len() == args.len() && overload.method == call.method
        };
        if !function.overloads.iter().any(takes) {
            return Error::no_overload();
        }
        (function.does)(&args, self.budget)
    }

    /// `&&` and `||`: one side that decides makes up for an error in another.
    #[inline(never)]
    fn logical(&mut self, all: &[Expr], decides: bool) -> Done<'a> {
        let mut failed = None;
        for one in all {
            match self.eval(one) {
                Ok(Value::Bool(flag)) if flag == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or(Some(Error::Said("no such overload".into()))),
                Err(Error::TooCostly) => return Err(Error::TooCostly),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.budget.pay(1)?;
        failed.map_or(Ok(Value::Bool(!decides)), Err)
    }

    #[inline(never)]
    fn list(&mut self, items: &[(Expr, bool)]) -> Done<'a> {
        self.budget.pay(LIST_COST)?;
        let mut all = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let value = self.eval(item)?;
            all.extend(if *optional { given(value)? } else { Some(value) });
        }
        Ok(Value::List(List::Made(Rc::new(all))))
    }

    #[inline(never)]
    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Done<'a> {
        self.budget.pay(MAP_COST)?;
        let mut all = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let Some(key) = Key::of(&key) else { return Error::said("unsupported key type") };
            let value = self.eval(value)?;
            let value = if *optional { given(value)? } else { Some(value) };
            let Some(value) = value else { continue };
            if all.insert(key, value).is_some() {
                return Error::said("Failed with repeated key");
            }
        }
        Ok(Value::Map(Map::Made(Rc::new(all))))
    }

    #[inline(never)]
    fn made(&mut self, name: &Arc<str>, fields: &[(Arc<str>, Expr, bool)]) -> Done<'a> {
        self.budget.pay(STRUCT_COST)?;
        let mut all = BTreeMap::new();
        for (field, value, optional) in fields {
            let value = self.eval(value)?;
            if let Some(value) = if *optional { given(value)? } else { Some(value) } {
                all.insert(Key::Text(Text::Said(field.clone())), value);
            }
        }
        Ok(Value::Map(Map::Struct(name.clone(), Rc::new(all))))
    }
}

/// What an optional holds, where one is wanted.
fn given(value: Value<'_>) -> Result<Option<Value<'_>>, Error> {
    match value {
        Value::Optional(value) => Ok(value.map(|value| (*value).clone())),
        _ => Error::no_overload(),
    }
}

fn value_of<'a>(literal: &Literal) -> Value<'a> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(flag) => Value::Bool(*flag),
        Literal::Int(number) => Value::Int(*number),
        Literal::Uint(number) => Value::Uint(*number),
        Literal::Double(number) => Value::Double(*number),
        Literal::Text(text) => Value::Text(Text::Said(text.clone())),
        Literal::Bytes(bytes) => Value::Bytes((&**bytes).into()),
    }
}
