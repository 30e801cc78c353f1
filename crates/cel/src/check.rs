//! What an expression gives, and what it may cost at most, before there are any values.

use std::sync::Arc;

use crate::ast::{Call, Expr, Literal, Loop, Mode, Over, Select, What};
use crate::environment::Environment;
use crate::estimate;
use crate::eval::{type_at, type_named};
use crate::library::{self, times};
use crate::loops::{KEPT_COST, TURN_COST};
use crate::parse::path_of;
use crate::problem::Problem;
use crate::types::{Known, Type};

/// How many problems of one expression are told: more than anybody reads, and each is shown in its line.
const PROBLEMS_MAX: usize = 20;

/// What is known of a part of an expression.
#[derive(Debug, Clone)]
pub struct Facts {
    /// What it gives.
    pub of: Type,
    /// What it may cost at most.
    pub cost: u64,
}

/// A check under way.
pub struct Checker<'e> {
    environment: &'e Environment,
    names: Vec<(Arc<str>, Type)>,
    known: Known,
    problems: Vec<Problem>,
}

/// Checks an expression.
pub fn check(expr: &Expr, environment: &Environment) -> Result<Facts, Vec<Problem>> {
    let names = environment.names.clone();
    let mut checker = Checker { environment, names, known: Known::default(), problems: Vec::new() };
    let facts = checker.facts(expr);
    if checker.problems.is_empty() {
        Ok(Facts { of: checker.known.resolve(&facts.of, true), cost: facts.cost })
    } else {
        Err(checker.problems)
    }
}

const fn free(of: Type) -> Facts {
    Facts { of, cost: 0 }
}

impl Checker<'_> {
    fn facts(&mut self, expr: &Expr) -> Facts {
        match &expr.what {
            What::Literal(literal) => free(type_of(literal)),
            What::Name(name) => self.name(expr.at, name),
            What::Select(select) => self.select(expr.at, select),
            What::Call(call) => self.call(expr.at, call),
            What::And(all) => self.logical(all, "_&&_"),
            What::Or(all) => self.logical(all, "_||_"),
            What::List(items) => self.list(items),
            What::Map(entries) => self.map(entries),
            What::Struct(name, fields) => self.made(expr.at, name, fields),
            What::Loop(looped) => self.looped(looped),
        }
    }

    fn tell(&mut self, at: u32, message: String) -> Facts {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem::new(at, message));
        }
        free(Type::Dyn)
    }

    fn lookup(&self, name: &str) -> Option<&Type> {
        self.names.iter().rev().find(|(known, _)| &**known == name).map(|(_, of)| of)
    }

    fn name(&mut self, at: u32, name: &str) -> Facts {
        if let Some(of) = self.lookup(name) {
            return Facts { of: of.clone(), cost: 1 };
        }
        if type_named(name).is_some() {
            return Facts { of: Type::Type, cost: 1 };
        }
        self.tell(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    #[inline(never)]
    fn select(&mut self, at: u32, select: &Select) -> Facts {
        if let Some(path) = path_of(&select.operand)
            && let Some(of) = self.lookup(&format!("{path}.{}", select.field))
        {
            return Facts { of: of.clone(), cost: 1 };
        }
        if let Some(name) = type_at(&select.operand, &select.field)
            && self.lookup(name.split('.').next().unwrap_or_default()).is_none()
        {
            return Facts { of: Type::Type, cost: 1 };
        }
        let operand = self.facts(&select.operand);
        let of = self.known.resolve(&operand.of, false);
        let (within, optional) = match &of {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let field = match &within {
            Type::Dyn | Type::Open(_) => Type::Dyn,
            Type::Map(entry, _) => entry.1.clone(),
            Type::Object(shape) => match shape.field(&select.field) {
                Some((_, of)) => of,
                None => return self.tell(at, format!("undefined field '{}'", select.field)),
            },
            other => return self.tell(at, format!("type '{other}' does not support field selection")),
        };
        let given = match select.mode {
            Mode::Test => Type::Bool,
            Mode::Plain if !optional => field,
            _ => Type::optional(field),
        };
        Facts { of: given, cost: operand.cost.saturating_add(u64::from(select.mode != Mode::Test)) }
    }

    #[inline(never)]
    fn call(&mut self, at: u32, call: &Call) -> Facts {
        let args: Vec<Facts> = call.args.iter().map(|arg| self.facts(arg)).collect();
        let Some(function) = library::find(&call.function) else {
            return self.tell(at, format!("undeclared reference to '{}' (in container '')", call.function));
        };
        self.check_literals(call);
        let Some(given) = self.overload(function, call, &args) else {
            let shown: Vec<String> =
                args.iter().map(|arg| self.known.resolve(&arg.of, false).to_string()).collect();
            let shown = match (call.method, shown.split_first()) {
                (true, Some((of, rest))) => format!("{of}.({})", rest.join(", ")),
                _ => format!("({})", shown.join(", ")),
            };
            let name = &call.function;
            return self.tell(at, format!("found no matching overload for '{name}' applied to '{shown}'"));
        };
        let takes: Vec<Type> = args.iter().map(|arg| self.known.resolve(&arg.of, false)).collect();
        let literal: Vec<bool> = call.args.iter().map(|arg| matches!(arg.what, What::Literal(_))).collect();
        let estimated = estimate::call(&call.function, &takes, &literal);
        let cost = if &*call.function == "_?_:_" {
            args[0].cost.saturating_add(args[1].cost.max(args[2].cost))
        } else {
            args.iter().fold(estimated.cost, |sum, arg| sum.saturating_add(arg.cost))
        };
        Facts { of: estimate::sized(given, estimated.len), cost }
    }

    /// What a function gives for these arguments; `None` when it does not take them.
    fn overload(&mut self, function: &library::Function, call: &Call, args: &[Facts]) -> Option<Type> {
        let mut given: Option<(Type, &library::Overload)> = None;
        for overload in &function.overloads {
            if overload.method != call.method || overload.takes.len() != args.len() {
                continue;
            }
            let mark = self.known.mark();
            let gives = self.takes(overload, args);
            self.known.forget(mark);
            given = match (given, gives) {
                (given, None) => given,
                (None, Some(gives)) => Some((gives, overload)),
                // Several would do: what comes can be told only if they all give the same.
                (Some((earlier, first)), Some(gives)) => {
                    let same = std::mem::discriminant(&earlier) == std::mem::discriminant(&gives);
                    Some((if same { earlier } else { Type::Dyn }, first))
                }
            };
        }
        let (gives, first) = given?;
        let of_first = self.takes(first, args);
        if gives.is_dyn() { Some(Type::Dyn) } else { of_first }
    }

    /// What one way to call a function gives, when it takes these arguments; what is open becomes known.
    fn takes(&mut self, overload: &library::Overload, args: &[Facts]) -> Option<Type> {
        let fresh = [self.known.fresh(), self.known.fresh()];
        let mut pairs = overload.takes.iter().zip(args);
        let fits = pairs.all(|(wanted, arg)| self.known.fits(&opened(wanted, &fresh), &arg.of));
        fits.then(|| self.known.resolve(&opened(&overload.gives, &fresh), false))
    }

    /// Texts that are written out and cannot be read are told at once.
    fn check_literals(&mut self, call: &Call) {
        let text = |expr: &Expr| match &expr.what {
            What::Literal(Literal::Text(text)) => Some(text.clone()),
            _ => None,
        };
        let place = match &*call.function {
            "duration" | "timestamp" => 0,
            "matches" | "find" | "findAll" => 1,
            _ => return,
        };
        let Some(arg) = call.args.get(place) else { return };
        let Some(written) = text(arg) else { return };
        let good = match &*call.function {
            "duration" => times::duration(&written).is_some(),
            "timestamp" => times::timestamp(&written).is_ok(),
            _ => library::can_match(&written),
        };
        if !good {
            self.tell(arg.at, format!("invalid {} argument", call.function));
        }
    }

    #[inline(never)]
    fn logical(&mut self, all: &[Expr], name: &str) -> Facts {
        let mut cost: u64 = 0;
        for one in all {
            let facts = self.facts(one);
            cost = cost.saturating_add(facts.cost);
            if !self.known.fits(&Type::Bool, &facts.of) {
                let of = self.known.resolve(&facts.of, false);
                self.tell(one.at, format!("found no matching overload for '{name}' applied to '({of})'"));
            }
        }
        Facts { of: Type::Bool, cost }
    }

    /// The type of items that have to be alike.
    fn alike(&mut self, so_far: Option<Type>, next: &Type, at: u32) -> Type {
        let Some(so_far) = so_far else { return next.clone() };
        if so_far.is_dyn() || next.is_dyn() {
            return Type::Dyn;
        }
        if !self.known.fits(&so_far, next) {
            let (wanted, found) = (self.known.resolve(&so_far, false), self.known.resolve(next, false));
            self.tell(at, format!("expected type '{wanted}' but found '{found}'"));
            return Type::Dyn;
        }
        let longer = so_far.len_max() < next.len_max();
        if longer { next.clone() } else { so_far }
    }

    /// What an optional item holds.
    fn inner(&mut self, facts: &Facts, optional: bool, at: u32) -> Type {
        if !optional {
            return facts.of.clone();
        }
        let open = self.known.fresh();
        if !self.known.fits(&Type::optional(open.clone()), &facts.of) {
            let found = self.known.resolve(&facts.of, false);
            self.tell(at, format!("expected type 'optional_type(dyn)' but found '{found}'"));
        }
        self.known.resolve(&open, false)
    }

    #[inline(never)]
    fn list(&mut self, items: &[(Expr, bool)]) -> Facts {
        let (mut of, mut cost) = (None, 10_u64);
        for (item, optional) in items {
            let facts = self.facts(item);
            cost = cost.saturating_add(facts.cost);
            let inner = self.inner(&facts, *optional, item.at);
            of = Some(self.alike(of, &inner, item.at));
        }
        let of = of.unwrap_or_else(|| self.known.fresh());
        Facts { of: Type::List(Arc::new(of), items.len() as u64), cost }
    }

    #[inline(never)]
    fn map(&mut self, entries: &[(Expr, Expr, bool)]) -> Facts {
        let (mut keys, mut values, mut cost) = (None, None, 30_u64);
        for (key, value, optional) in entries {
            let (key_facts, facts) = (self.facts(key), self.facts(value));
            cost = cost.saturating_add(key_facts.cost).saturating_add(facts.cost);
            let inner = self.inner(&facts, *optional, value.at);
            keys = Some(self.alike(keys, &key_facts.of, key.at));
            values = Some(self.alike(values, &inner, value.at));
        }
        let key = keys.unwrap_or_else(|| self.known.fresh());
        let value = values.unwrap_or_else(|| self.known.fresh());
        Facts { of: Type::Map(Arc::new((key, value)), entries.len() as u64), cost }
    }

    #[inline(never)]
    fn made(&mut self, at: u32, name: &str, fields: &[(Arc<str>, Expr, bool)]) -> Facts {
        let Some(shape) = self.environment.made.and_then(|made| made(name)) else {
            return self.tell(at, format!("undeclared reference to '{name}' (in container '')"));
        };
        let mut cost = 40_u64;
        for (field, value, optional) in fields {
            let facts = self.facts(value);
            cost = cost.saturating_add(facts.cost);
            let inner = self.inner(&facts, *optional, value.at);
            match shape.field(field) {
                None => _ = self.tell(value.at, format!("undefined field '{field}'")),
                Some((_, wanted)) if !self.known.fits(&wanted, &inner) => {
                    let found = self.known.resolve(&inner, false);
                    let why = format!(
                        "expected type of field '{field}' is '{wanted}' but provided type is '{found}'"
                    );
                    self.tell(value.at, why);
                }
                Some(_) => {}
            }
        }
        Facts { of: Type::Object(shape), cost }
    }

    #[inline(never)]
    fn looped(&mut self, looped: &Loop) -> Facts {
        let range = self.facts(&looped.range);
        let of = self.known.resolve(&range.of, false);
        let optional = matches!(looped.over, Over::OptMap | Over::OptFlatMap);
        let two = looped.names.1.is_some();
        let (first, second) = match &of {
            Type::Dyn | Type::Open(_) => (Type::Dyn, Type::Dyn),
            Type::Optional(value) if optional => ((**value).clone(), Type::Dyn),
            Type::Map(entry, _) if !optional => (entry.0.clone(), entry.1.clone()),
            other => match other.item().filter(|_| !optional) {
                Some(item) if two => (Type::Int, item.clone()),
                Some(item) => (item.clone(), Type::Dyn),
                None => {
                    let why = format!(
                        "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                    );
                    return self.tell(looped.range.at, why);
                }
            },
        };
        let depth = self.names.len();
        self.names.push((looped.names.0.clone(), first.clone()));
        if let Some(name) = &looped.names.1 {
            self.names.push((name.clone(), second));
        }
        let filter = looped.filter.as_ref().map(|filter| (self.facts(filter), filter.at));
        let body = self.facts(&looped.body);
        self.names.truncate(depth);
        let tests = matches!(looped.over, Over::All | Over::Exists | Over::ExistsOne | Over::Filter);
        let mut conditions: Vec<(Type, u32)> =
            filter.iter().map(|(facts, at)| (facts.of.clone(), *at)).collect();
        conditions.extend(tests.then(|| (body.of.clone(), looped.body.at)));
        for (of, at) in conditions {
            if !self.known.fits(&Type::Bool, &of) {
                let found = self.known.resolve(&of, false);
                self.tell(at, format!("expected type 'bool' but found '{found}'"));
            }
        }
        let turns = if optional { 1 } else { of.len_max() };
        let turn = TURN_COST + KEPT_COST * u64::from(!tests || looped.over == Over::Filter);
        let turn = turn.saturating_add(body.cost).saturating_add(filter.map_or(0, |(facts, _)| facts.cost));
        let cost = range.cost.saturating_add(turns.saturating_mul(turn)).saturating_add(1);
        Facts { of: self.gives(looped, &of, first, body.of, turns), cost }
    }

    fn gives(&mut self, looped: &Loop, of: &Type, first: Type, body: Type, turns: u64) -> Type {
        match looped.over {
            Over::All | Over::Exists | Over::ExistsOne => Type::Bool,
            Over::Map | Over::TransformList => Type::List(Arc::new(body), turns),
            Over::Filter | Over::SortBy => Type::List(Arc::new(first), turns),
            Over::TransformMap => {
                let key = if let Type::Map(entry, _) = of { entry.0.clone() } else { Type::Int };
                Type::Map(Arc::new((key, body)), turns)
            }
            Over::OptMap => Type::optional(body),
            Over::OptFlatMap | Over::TransformMapEntry => body,
        }
    }
}

/// A type of a signature with the open types of this call.
fn opened(of: &Type, fresh: &[Type; 2]) -> Type {
    match of {
        Type::Open(number) => fresh[*number as usize % 2].clone(),
        Type::List(item, len) => Type::List(Arc::new(opened(item, fresh)), *len),
        Type::Map(entry, len) => {
            Type::Map(Arc::new((opened(&entry.0, fresh), opened(&entry.1, fresh))), *len)
        }
        Type::Optional(value) => Type::optional(opened(value, fresh)),
        other => other.clone(),
    }
}

fn type_of(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::Text(text) => Type::Text(text.len() as u64),
        Literal::Bytes(bytes) => Type::Bytes(bytes.len() as u64),
    }
}
