//! An expression as a tree.

use std::sync::Arc;

/// A part of an expression.
#[derive(Debug, Clone)]
pub struct Expr {
    /// Where it stands, as messages point at it: the index of a character.
    pub at: u32,
    /// How deep the tree is from here down.
    pub depth: u16,
    /// What it is.
    pub what: What,
}

/// What a part of an expression is.
#[derive(Debug, Clone)]
pub enum What {
    /// A literal.
    Literal(Literal),
    /// A name.
    Name(Arc<str>),
    /// `operand.field`, `operand.?field`, or with `has` around it.
    Select(Box<Select>),
    /// A function, an operator, or a method of its first argument.
    Call(Box<Call>),
    /// `a && b && …`
    And(Vec<Expr>),
    /// `a || b || …`
    Or(Vec<Expr>),
    /// `[a, ?b]`; the flags say which items are optional.
    List(Vec<(Expr, bool)>),
    /// `{key: value, ?key: value}`
    Map(Vec<(Expr, Expr, bool)>),
    /// `Name{field: value}`
    Struct(Arc<str>, Vec<(Arc<str>, Expr, bool)>),
    /// A macro over a range.
    Loop(Box<Loop>),
}

/// A value that is written out.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A double.
    Double(f64),
    /// A string.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
}

/// A field of an operand.
#[derive(Debug, Clone)]
pub struct Select {
    /// Whose.
    pub operand: Expr,
    /// Its name.
    pub field: Arc<str>,
    /// How it is asked for.
    pub mode: Mode,
}

/// How a field is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `a.b`: an error when there is none.
    Plain,
    /// `a.?b`: an optional.
    Optional,
    /// `has(a.b)`
    Test,
}

/// A function with its arguments.
#[derive(Debug, Clone)]
pub struct Call {
    /// The function; operators are named as messages name them, such as `_+_`.
    pub function: Arc<str>,
    /// Whether the first argument stands before the function.
    pub method: bool,
    /// The arguments.
    pub args: Vec<Expr>,
}

/// What a macro does with each element of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// `all`
    All,
    /// `exists`
    Exists,
    /// `exists_one`
    ExistsOne,
    /// `map`
    Map,
    /// `filter`
    Filter,
    /// `transformList`
    TransformList,
    /// `transformMap`
    TransformMap,
    /// `transformMapEntry`
    TransformMapEntry,
    /// `sortBy`
    SortBy,
    /// `optMap`
    OptMap,
    /// `optFlatMap`
    OptFlatMap,
}

/// A macro over a range.
#[derive(Debug, Clone)]
pub struct Loop {
    /// What it does.
    pub over: Over,
    /// What it goes through.
    pub range: Expr,
    /// What an element is called: one name, or those of key and value.
    pub names: (Arc<str>, Option<Arc<str>>),
    /// Which elements take part, where the macro says so.
    pub filter: Option<Expr>,
    /// What is made of each.
    pub body: Expr,
}

impl Expr {
    /// Whether a name stands anywhere in it.
    pub fn mentions(&self, name: &str) -> bool {
        match &self.what {
            What::Literal(_) => false,
            What::Name(own) => &**own == name,
            What::Select(select) => select.operand.mentions(name),
            What::Call(call) => call.args.iter().any(|arg| arg.mentions(name)),
            What::And(all) | What::Or(all) => all.iter().any(|one| one.mentions(name)),
            What::List(items) => items.iter().any(|(item, _)| item.mentions(name)),
            What::Map(entries) => {
                entries.iter().any(|(key, value, _)| key.mentions(name) || value.mentions(name))
            }
            What::Struct(_, fields) => fields.iter().any(|(_, value, _)| value.mentions(name)),
            What::Loop(looped) => {
                let within = looped.filter.as_ref().is_some_and(|filter| filter.mentions(name));
                within || looped.range.mentions(name) || looped.body.mentions(name)
            }
        }
    }
}
