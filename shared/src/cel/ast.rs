//! The syntax tree. The parser makes it, the checker resolves names in it, the evaluator walks it.

use std::sync::Arc;

use super::functions::Function;
use super::value::Value;

/// A node and where it is.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    /// Characters before it in the source.
    pub(super) at: usize,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Literal(Value),
    Ident(Arc<str>),
    Select(Box<Select>),
    Call(Box<Call>),
    /// `&&` of all operands.
    And(Vec<Expr>),
    /// `||` of all operands.
    Or(Vec<Expr>),
    Ternary(Box<[Expr; 3]>),
    List(Vec<Item>),
    Map(Vec<(Expr, Item)>),
    Message(Box<Struct>),
    Comprehension(Box<Comprehension>),
}

/// `operand.field`, `operand.?field`, or `has(operand.field)`.
#[derive(Clone, Debug)]
pub(super) struct Select {
    pub(super) operand: Expr,
    pub(super) field: Arc<str>,
    pub(super) test: bool,
    pub(super) optional: bool,
}

/// A call of a function, operators included (`_+_`, `_[_]`, `@in`, …).
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) name: Arc<str>,
    pub(super) target: Option<Expr>,
    pub(super) args: Vec<Expr>,
    /// Found by the checker.
    pub(super) run: Option<Function>,
}

/// An element that may be absent (`?e`).
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) value: Expr,
    pub(super) optional: bool,
}

/// `Name{field: value}`.
#[derive(Clone, Debug)]
pub(super) struct Struct {
    pub(super) name: Arc<str>,
    pub(super) fields: Vec<Field>,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) at: usize,
    pub(super) name: Arc<str>,
    pub(super) item: Item,
}

/// What a macro over a range does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    /// With three arguments the middle one filters.
    Map,
    Filter,
    TransformList,
    TransformMap,
    TransformMapEntry,
    /// `optMap`: over nothing or one value.
    OptMap,
    OptFlatMap,
}

/// `range.all(x, p)` and its like.
#[derive(Clone, Debug)]
pub(super) struct Comprehension {
    pub(super) of: Macro,
    pub(super) range: Expr,
    pub(super) variables: Vec<Arc<str>>,
    /// The filter of `map` and of the transforms.
    pub(super) filter: Option<Expr>,
    pub(super) body: Expr,
}

/// Whether an expression names a variable.
pub(super) fn mentions(expr: &Expr, variable: &str) -> bool {
    let any = |e: &Expr| mentions(e, variable);
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(name) => name.as_ref() == variable,
        Kind::Select(select) => any(&select.operand),
        Kind::Call(call) => call.target.iter().chain(&call.args).any(any),
        Kind::And(all) | Kind::Or(all) => all.iter().any(any),
        Kind::Ternary(parts) => parts.iter().any(any),
        Kind::List(items) => items.iter().any(|i| any(&i.value)),
        Kind::Map(entries) => entries.iter().any(|(k, i)| any(k) || any(&i.value)),
        Kind::Message(message) => message.fields.iter().any(|f| any(&f.item.value)),
        Kind::Comprehension(c) => [Some(&c.range), c.filter.as_ref(), Some(&c.body)].into_iter().flatten().any(any),
    }
}
