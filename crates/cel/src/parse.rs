//! From words to a tree. Macros are seen here, as part of the grammar.

use std::sync::Arc;

use crate::ast::{Call, Expr, Literal, Loop, Mode, Over, Select, What};
use crate::lex::{Token, words};
use crate::library;
use crate::problem::{Faulty, Problem};

/// The longest text that is read, in characters: what upstream reads.
pub const TEXT_LEN_MAX: usize = 100_000;
/// How deep the tree of an expression may be, chains of operators and fields counted: what upstream's grammar takes, and
/// what a walk down needs of a thread's stack of 2 MiB is well below half of it.
pub const DEPTH_MAX: u16 = 250;
/// How many brackets may stand within each other: reading one takes ten calls, so it is less than [`DEPTH_MAX`].
pub const NESTING_MAX: u16 = 100;

/// What may not be a name.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Binary operators by how strongly they bind, the weakest first; `&&` and `||` have functions of their own.
const LEVELS: [&[(&str, &str)]; 3] = [
    &[
        ("<", "_<_"),
        ("<=", "_<=_"),
        (">=", "_>=_"),
        (">", "_>_"),
        ("==", "_==_"),
        ("!=", "_!=_"),
        ("in", "@in"),
    ],
    &[("+", "_+_"), ("-", "_-_")],
    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
];

/// Reads an expression.
pub fn parse(source: &str) -> Result<Expr, Faulty> {
    let text: Vec<char> = source.chars().collect();
    if text.len() > TEXT_LEN_MAX {
        let why =
            format!("expression code point size exceeds limit: size: {}, limit {TEXT_LEN_MAX}", text.len());
        return Err(Faulty { text: format!("ERROR: <input>:-1:0: {why}") });
    }
    let read = || {
        let mut parser = Parser { words: words(&text)?, at: 0, depth: 0 };
        let expr = parser.expr()?;
        match parser.peek() {
            Token::End => Ok(expr),
            _ => parser.unexpected("'<EOF>'"),
        }
    };
    read().map_err(|problem| Faulty::of(source, vec![problem]))
}

struct Parser {
    words: Vec<(Token, u32)>,
    at: usize,
    depth: u16,
}

type Parsed<T = Expr> = Result<T, Problem>;

impl Parser {
    fn peek(&self) -> &Token {
        &self.words[self.at.min(self.words.len() - 1)].0
    }

    fn place(&self) -> u32 {
        self.words[self.at.min(self.words.len() - 1)].1
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Parsed<()> {
        if self.take(sign) { Ok(()) } else { self.unexpected(&format!("'{sign}'")) }
    }

    fn unexpected<T>(&self, wanted: &str) -> Parsed<T> {
        let found = match self.peek() {
            Token::End => "<EOF>".to_owned(),
            Token::Name(name) | Token::Quoted(name) => name.clone(),
            Token::Sign(sign) => (*sign).to_owned(),
            Token::Int(number) => number.to_string(),
            Token::Uint(number) => format!("{number}u"),
            Token::Double(number) => number.to_string(),
            Token::Text(text) => format!("{text:?}"),
            Token::Bytes(_) => "bytes".to_owned(),
        };
        Err(Problem::new(
            self.place(),
            format!("Syntax error: mismatched input '{found}' expecting {wanted}"),
        ))
    }

    /// Goes one level down.
    fn down<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= NESTING_MAX {
            return too_deep(self.place(), NESTING_MAX);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    fn expr(&mut self) -> Parsed {
        self.down(|parser| {
            let condition = parser.logical("||")?;
            let at = parser.place();
            if !parser.take("?") {
                return Ok(condition);
            }
            let yes = parser.logical("||")?;
            parser.expect(":")?;
            let no = parser.expr()?;
            call(at, "_?_:_", false, vec![condition, yes, no])
        })
    }

    fn logical(&mut self, sign: &str) -> Parsed {
        let within = |parser: &mut Self| match sign {
            "||" => parser.logical("&&"),
            _ => parser.binary(0),
        };
        let first = within(self)?;
        let at = self.place();
        let mut all = vec![first];
        while self.take(sign) {
            all.push(within(self)?);
        }
        match all.len() {
            1 => Ok(all.remove(0)),
            _ if sign == "||" => make(at, What::Or(all)),
            _ => make(at, What::And(all)),
        }
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(signs) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let word = match self.peek() {
                Token::Sign(sign) => *sign,
                Token::Name(name) if name == "in" => "in",
                _ => return Ok(left),
            };
            let Some((_, function)) = signs.iter().find(|(sign, _)| *sign == word) else { return Ok(left) };
            let at = self.place();
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = call(at, function, false, vec![left, right])?;
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.place();
        if self.is("!") || self.is("-") {
            let sign = if self.is("!") { "!" } else { "-" };
            let mut count = 0;
            while self.take(sign) {
                count += 1;
            }
            // Two of a kind take each other back; of minuses, the last belongs to a number that follows.
            let number = sign == "-" && matches!(self.peek(), Token::Int(_) | Token::Double(_));
            if number {
                count -= 1;
                self.at -= 1;
            }
            let operand = self.postfix()?;
            let function = if sign == "!" { "!_" } else { "-_" };
            return if count % 2 == 1 { call(at, function, false, vec![operand]) } else { Ok(operand) };
        }
        self.postfix()
    }

    fn postfix(&mut self) -> Parsed {
        let mut operand = self.primary()?;
        loop {
            let at = self.place();
            if self.take(".") {
                let optional = self.take("?");
                let name = match self.next() {
                    Token::Name(name) if !matches!(name.as_str(), "in" | "true" | "false" | "null") => name,
                    Token::Quoted(name) => name,
                    _ => {
                        self.at -= 1;
                        return self.unexpected("IDENTIFIER");
                    }
                };
                if !optional && self.is("(") {
                    operand = self.method(at, operand, &name)?;
                    continue;
                }
                let mode = if optional { Mode::Optional } else { Mode::Plain };
                operand = make(at, What::Select(Box::new(Select { operand, field: name.into(), mode })))?;
            } else if self.take("[") {
                let function = if self.take("?") { "_[?_]" } else { "_[_]" };
                let index = self.expr()?;
                self.expect("]")?;
                operand = call(at, function, false, vec![operand, index])?;
            } else if self.is("{")
                && let Some(name) = path_of(&operand)
            {
                self.at += 1;
                operand = self.fields(operand.at, &name)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.place();
        let literal = match self.next() {
            Token::Int(number) => match i64::try_from(number) {
                Ok(number) => Literal::Int(number),
                Err(_) => return Err(Problem::new(at, "Syntax error: invalid int literal")),
            },
            Token::Uint(number) => Literal::Uint(number),
            Token::Double(number) => Literal::Double(number),
            Token::Text(text) => Literal::Text(text.into()),
            Token::Bytes(bytes) => Literal::Bytes(bytes.into()),
            Token::Sign("-") => match self.next() {
                Token::Int(number) => Literal::Int((number as i64).wrapping_neg()),
                Token::Double(number) => Literal::Double(-number),
                _ => {
                    self.at -= 1;
                    return self.unexpected("a number");
                }
            },
            Token::Sign("(") => {
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => {
                let items = self.series("]", |parser| {
                    let optional = parser.take("?");
                    Ok((parser.expr()?, optional))
                })?;
                return make(at, What::List(items));
            }
            Token::Sign("{") => {
                let entries = self.series("}", |parser| {
                    let optional = parser.take("?");
                    let key = parser.expr()?;
                    parser.expect(":")?;
                    Ok((key, parser.expr()?, optional))
                })?;
                return make(at, What::Map(entries));
            }
            // A name that begins with a dot is looked for at the root, where all of ours are.
            Token::Sign(".") => match self.next() {
                Token::Name(name) => return self.name(at, &name),
                _ => {
                    self.at -= 1;
                    return self.unexpected("IDENTIFIER");
                }
            },
            Token::Name(name) => match name.as_str() {
                "null" => Literal::Null,
                "true" => Literal::Bool(true),
                "false" => Literal::Bool(false),
                _ => return self.name(at, &name),
            },
            _ => {
                self.at -= 1;
                return self.unexpected("an expression");
            }
        };
        make(at, What::Literal(literal))
    }

    fn name(&mut self, at: u32, name: &str) -> Parsed {
        if RESERVED.contains(&name) || name == "in" {
            return Err(Problem::new(at, format!("Syntax error: reserved identifier: {name}")));
        }
        if !self.is("(") {
            return make(at, What::Name(name.into()));
        }
        let at = self.place();
        self.at += 1;
        let args = self.args()?;
        if name == "has" && args.len() == 1 {
            let mut args = args;
            let what = args.remove(0);
            return match what.what {
                What::Select(select) if select.mode == Mode::Plain => {
                    make(at, What::Select(Box::new(Select { mode: Mode::Test, ..*select })))
                }
                _ => Err(Problem::new(what.at, "invalid argument to has() macro")),
            };
        }
        call(at, name, false, args)
    }

    fn args(&mut self) -> Parsed<Vec<Expr>> {
        self.series(")", Self::expr)
    }

    fn series<T>(&mut self, end: &str, read: impl Fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut all = Vec::new();
        while !self.take(end) {
            all.push(read(self)?);
            if !self.take(",") {
                self.expect(end)?;
                break;
            }
            if end == ")" && self.is(")") {
                return self.unexpected("an expression");
            }
        }
        Ok(all)
    }

    fn fields(&mut self, at: u32, name: &str) -> Parsed {
        let fields = self.series("}", |parser| {
            let optional = parser.take("?");
            let field = match parser.next() {
                Token::Name(name) | Token::Quoted(name) => name,
                _ => {
                    parser.at -= 1;
                    return parser.unexpected("IDENTIFIER");
                }
            };
            parser.expect(":")?;
            Ok((Arc::from(field), parser.expr()?, optional))
        })?;
        make(at, What::Struct(name.into(), fields))
    }

    fn method(&mut self, at: u32, operand: Expr, name: &str) -> Parsed {
        let at = if self.is("(") { self.place() } else { at };
        self.expect("(")?;
        let args = self.args()?;
        if let Some(path) = path_of(&operand) {
            let qualified = format!("{path}.{name}");
            if library::find(&qualified).is_some() {
                return call(at, &qualified, false, args);
            }
        }
        match macro_of(name, args.len()) {
            Some(shape) => looped(at, operand, shape, args),
            None => {
                let all = std::iter::once(operand).chain(args).collect();
                call(at, name, true, all)
            }
        }
    }
}

/// A macro: what it does, how many names, and whether a filter comes before its body.
type Shape = (Over, usize, bool);

fn macro_of(name: &str, args: usize) -> Option<Shape> {
    Some(match (name, args) {
        ("all", 2) => (Over::All, 1, false),
        ("all", 3) => (Over::All, 2, false),
        ("exists", 2) => (Over::Exists, 1, false),
        ("exists", 3) => (Over::Exists, 2, false),
        ("exists_one" | "existsOne", 2) => (Over::ExistsOne, 1, false),
        ("exists_one" | "existsOne", 3) => (Over::ExistsOne, 2, false),
        ("map", 2) => (Over::Map, 1, false),
        ("map", 3) => (Over::Map, 1, true),
        ("filter", 2) => (Over::Filter, 1, false),
        ("transformList", 3) => (Over::TransformList, 2, false),
        ("transformList", 4) => (Over::TransformList, 2, true),
        ("transformMap", 3) => (Over::TransformMap, 2, false),
        ("transformMap", 4) => (Over::TransformMap, 2, true),
        ("transformMapEntry", 3) => (Over::TransformMapEntry, 2, false),
        ("transformMapEntry", 4) => (Over::TransformMapEntry, 2, true),
        ("sortBy", 2) => (Over::SortBy, 1, false),
        ("optMap", 2) => (Over::OptMap, 1, false),
        ("optFlatMap", 2) => (Over::OptFlatMap, 1, false),
        _ => return None,
    })
}

fn looped(at: u32, range: Expr, (over, names, filtered): Shape, args: Vec<Expr>) -> Parsed {
    let mut args = args.into_iter();
    let mut name = || match args.next() {
        Some(Expr { what: What::Name(name), .. }) => Ok(name),
        other => {
            let at = other.map_or(at, |other| other.at);
            Err(Problem::new(at, "argument must be a simple name"))
        }
    };
    let first = name()?;
    let second = if names == 2 { Some(name()?) } else { None };
    let filter = if filtered { args.next() } else { None };
    let Some(body) = args.next() else { return Err(Problem::new(at, "a macro needs a body")) };
    make(at, What::Loop(Box::new(Loop { over, range, names: (first, second), filter, body })))
}

fn call(at: u32, function: &str, method: bool, args: Vec<Expr>) -> Parsed {
    make(at, What::Call(Box::new(Call { function: function.into(), method, args })))
}

fn too_deep<T>(at: u32, most: u16) -> Parsed<T> {
    Err(Problem::new(at, format!("expression recursion limit exceeded: {most}")))
}

/// A tree of its parts, unless that would be too deep.
fn make(at: u32, what: What) -> Parsed {
    let deepest = |all: &mut dyn Iterator<Item = &Expr>| all.map(|expr| expr.depth).max().unwrap_or(0);
    let below = match &what {
        What::Literal(_) | What::Name(_) => 0,
        What::Select(select) => select.operand.depth,
        What::Call(call) => deepest(&mut call.args.iter()),
        What::And(all) | What::Or(all) => deepest(&mut all.iter()),
        What::List(items) => deepest(&mut items.iter().map(|(item, _)| item)),
        What::Map(entries) => deepest(&mut entries.iter().flat_map(|(key, value, _)| [key, value])),
        What::Struct(_, fields) => deepest(&mut fields.iter().map(|(_, value, _)| value)),
        What::Loop(looped) => {
            deepest(&mut [&looped.range, &looped.body].into_iter().chain(looped.filter.as_ref()))
        }
    };
    if below >= DEPTH_MAX { too_deep(at, DEPTH_MAX) } else { Ok(Expr { at, depth: below + 1, what }) }
}

/// `a.b.c` as one name, when an expression is nothing but names.
pub fn path_of(expr: &Expr) -> Option<String> {
    match &expr.what {
        What::Name(name) => Some(name.to_string()),
        What::Select(select) if select.mode == Mode::Plain => {
            Some(format!("{}.{}", path_of(&select.operand)?, select.field))
        }
        _ => None,
    }
}
