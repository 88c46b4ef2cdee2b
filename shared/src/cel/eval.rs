//! Walks a checked tree. Owns the order of evaluation and what errors `&&`, `||` and the macros swallow.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Call, Comprehension, Expr, Item, Kind, Macro, Select, Struct};
use super::value::{Key, Message, Value};
use super::{Bindings, Budget, EvalError};

type Result<T = Value> = std::result::Result<T, EvalError>;

pub(super) struct Evaluator<'a> {
    bindings: &'a Bindings,
    budget: &'a Budget,
    /// What comprehensions bind, innermost last.
    scope: Vec<(Arc<str>, Value)>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(bindings: &'a Bindings, budget: &'a Budget) -> Self {
        Evaluator { bindings, budget, scope: Vec::new() }
    }

    pub(super) fn expr(&mut self, expr: &Expr) -> Result {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(name) => self.ident(name),
            Kind::Select(select) => self.select(select),
            Kind::Call(call) => self.call(call),
            Kind::And(all) => self.logic(all, false),
            Kind::Or(all) => self.logic(all, true),
            Kind::Ternary(parts) => match self.expr(&parts[0])? {
                Value::Bool(true) => self.expr(&parts[1]),
                Value::Bool(false) => self.expr(&parts[2]),
                _ => Err(EvalError::no_overload()),
            },
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Message(message) => self.message(message),
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn ident(&mut self, name: &str) -> Result {
        self.budget.charge(1)?;
        if let Some((_, value)) = self.scope.iter().rev().find(|(n, _)| n.as_ref() == name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.bindings.get(name) {
            return Ok(value.clone());
        }
        if super::check::is_type(name) {
            return Ok(Value::Type(name.into()));
        }
        Err(EvalError::new(format!("no such attribute(s): {name}")))
    }

    fn select(&mut self, select: &Select) -> Result {
        let operand = self.expr(&select.operand)?;
        self.budget.charge(1)?;
        let field = &*select.field;
        if select.test {
            return Ok(Value::Bool(match &operand {
                Value::Optional(Some(inner)) => lookup(inner, field)?.is_some(),
                Value::Optional(None) => false,
                other => lookup(other, field)?.is_some(),
            }));
        }
        match &operand {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => optional(lookup(inner, field)?),
            other if select.optional => optional(lookup(other, field)?),
            other => lookup(other, field)?.ok_or_else(|| no_such_key(field)),
        }
    }

    fn call(&mut self, call: &Call) -> Result {
        let mut args = Vec::with_capacity(call.args.len() + 1);
        for arg in call.target.iter().chain(&call.args) {
            args.push(self.expr(arg)?);
        }
        self.budget.charge(1)?;
        if let Some(Value::Opaque(opaque)) = args.first()
            && let Some(result) = opaque.call(&call.name, &args[1..])
        {
            return result;
        }
        match call.run {
            Some(run) => run(self.budget, &args),
            None => Err(EvalError::no_overload()),
        }
    }

    /// `&&` (`settles` is false) or `||` (true): one operand that settles it hides the errors of others.
    fn logic(&mut self, all: &[Expr], settles: bool) -> Result {
        let mut error = None;
        for operand in all {
            match self.expr(operand) {
                Ok(Value::Bool(value)) if value == settles => return Ok(Value::Bool(settles)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => error = error.or_else(|| Some(EvalError::no_overload())),
                Err(over) if over.over_budget() => return Err(over),
                Err(other) => error = error.or(Some(other)),
            }
        }
        error.map_or(Ok(Value::Bool(!settles)), Err)
    }

    /// An element's value; `None` when it is optional and absent.
    fn item(&mut self, item: &Item) -> Result<Option<Value>> {
        let value = self.expr(&item.value)?;
        Ok(match (item.optional, value) {
            (false, value) => Some(value),
            (true, Value::Optional(inner)) => inner.map(|v| Value::clone(&v)),
            (true, other) => {
                return Err(EvalError::new(format!("cannot initialize optional entry from non-optional value of type {}", other.type_name())));
            }
        })
    }

    fn list(&mut self, items: &[Item]) -> Result {
        self.budget.charge(10)?;
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            out.extend(self.item(item)?);
        }
        Ok(out.into())
    }

    fn map(&mut self, entries: &[(Expr, Item)]) -> Result {
        self.budget.charge(30)?;
        let mut out = BTreeMap::new();
        for (key, item) in entries {
            let key = self.expr(key)?;
            let key = Key::of(&key).ok_or_else(|| EvalError::new(format!("unsupported key type: {}", key.type_name())))?;
            if let Some(value) = self.item(item)? {
                insert(&mut out, key, value)?;
            }
        }
        Ok(Value::Map(Arc::new(out)))
    }

    fn message(&mut self, message: &Struct) -> Result {
        self.budget.charge(40)?;
        let mut fields = BTreeMap::new();
        for field in &message.fields {
            if let Some(value) = self.item(&field.item)? {
                fields.insert(field.name.clone(), value);
            }
        }
        Ok(Value::Message(Arc::new(Message { name: message.name.clone(), fields })))
    }

    fn comprehension(&mut self, c: &Comprehension) -> Result {
        let range = self.expr(&c.range)?;
        self.budget.charge(1)?;
        if let Value::Optional(inner) = &range {
            return self.over_optional(c, inner.as_deref());
        }
        let pairs = match c.variables.len() {
            1 => singles(&range)?,
            _ => pairs(&range)?,
        };
        let depth = self.scope.len();
        let result = self.over(c, pairs);
        self.scope.truncate(depth);
        result
    }

    /// `optMap` and `optFlatMap`.
    fn over_optional(&mut self, c: &Comprehension, inner: Option<&Value>) -> Result {
        if !matches!(c.of, Macro::OptMap | Macro::OptFlatMap) {
            return Err(EvalError::no_overload());
        }
        let (Some(value), Some(name)) = (inner, c.variables.first()) else { return Ok(Value::Optional(None)) };
        let depth = self.scope.len();
        self.scope.push((name.clone(), value.clone()));
        let result = self.expr(&c.body);
        self.scope.truncate(depth);
        Ok(if c.of == Macro::OptMap { Value::some(result?) } else { result? })
    }

    fn over(&mut self, c: &Comprehension, pairs: Vec<(Value, Value)>) -> Result {
        let depth = self.scope.len();
        let mut out = Outcome::new();
        for (first, second) in pairs {
            self.scope.truncate(depth);
            // What the loop itself does: a step, a condition, a result.
            self.budget.charge(3)?;
            match c.variables.as_slice() {
                [one] => self.scope.push((one.clone(), first.clone())),
                [one, two] => self.scope.extend([(one.clone(), first.clone()), (two.clone(), second)]),
                _ => {}
            }
            if let Some(filter) = &c.filter {
                match self.expr(filter)? {
                    Value::Bool(true) => {}
                    Value::Bool(false) => continue,
                    _ => return Err(EvalError::no_overload()),
                }
            }
            let body = self.expr(&c.body);
            if let Some(settled) = out.take(c.of, first, body)? {
                return Ok(settled);
            }
        }
        out.finish(c.of)
    }
}

/// What a macro has gathered so far.
struct Outcome {
    error: Option<EvalError>,
    count: usize,
    list: Vec<Value>,
    map: BTreeMap<Key, Value>,
}

impl Outcome {
    fn new() -> Self {
        Outcome { error: None, count: 0, list: Vec::new(), map: BTreeMap::new() }
    }

    /// One more body's value; `Some` when nothing after it matters.
    fn take(&mut self, of: Macro, first: Value, body: Result) -> Result<Option<Value>> {
        match of {
            Macro::All | Macro::Exists => {
                let settles = of == Macro::Exists;
                match body {
                    Ok(Value::Bool(value)) if value == settles => return Ok(Some(Value::Bool(settles))),
                    Ok(Value::Bool(_)) => {}
                    Ok(_) => drop(self.error.get_or_insert_with(EvalError::no_overload)),
                    Err(error) if error.over_budget() => return Err(error),
                    Err(error) => drop(self.error.get_or_insert(error)),
                }
            }
            Macro::ExistsOne | Macro::Filter => match body? {
                Value::Bool(true) => {
                    self.count += 1;
                    if of == Macro::Filter {
                        self.list.push(first);
                    }
                }
                Value::Bool(false) => {}
                _ => return Err(EvalError::no_overload()),
            },
            Macro::Map | Macro::TransformList => self.list.push(body?),
            Macro::TransformMap => {
                let key = Key::of(&first).ok_or_else(EvalError::no_overload)?;
                insert(&mut self.map, key, body?)?;
            }
            Macro::TransformMapEntry => match body? {
                Value::Map(entries) => {
                    for (key, value) in entries.iter() {
                        insert(&mut self.map, key.clone(), value.clone())?;
                    }
                }
                _ => return Err(EvalError::no_overload()),
            },
            Macro::OptMap | Macro::OptFlatMap => return Err(EvalError::no_overload()),
        }
        Ok(None)
    }

    fn finish(self, of: Macro) -> Result {
        Ok(match of {
            Macro::All | Macro::Exists => match self.error {
                Some(error) => return Err(error),
                None => Value::Bool(of == Macro::All),
            },
            Macro::ExistsOne => Value::Bool(self.count == 1),
            Macro::Map | Macro::Filter | Macro::TransformList => self.list.into(),
            _ => Value::Map(Arc::new(self.map)),
        })
    }
}

fn insert(map: &mut BTreeMap<Key, Value>, key: Key, value: Value) -> Result<()> {
    if map.contains_key(&key) {
        return Err(EvalError::new(format!("insert failed: key {key} already exists")));
    }
    map.insert(key, value);
    Ok(())
}

/// What one variable goes through: a list's elements, a map's keys.
fn singles(range: &Value) -> Result<Vec<(Value, Value)>> {
    Ok(match range {
        Value::List(items) => items.iter().map(|v| (v.clone(), Value::Null)).collect(),
        Value::Map(entries) => entries.keys().map(|k| (k.value(), Value::Null)).collect(),
        Value::Message(message) => message.fields.keys().map(|k| (Value::String(k.clone()), Value::Null)).collect(),
        _ => return Err(EvalError::no_overload()),
    })
}

/// What two variables go through: index and element, key and value.
fn pairs(range: &Value) -> Result<Vec<(Value, Value)>> {
    Ok(match range {
        Value::List(items) => items.iter().enumerate().map(|(i, v)| (Value::Int(i as i64), v.clone())).collect(),
        Value::Map(entries) => entries.iter().map(|(k, v)| (k.value(), v.clone())).collect(),
        _ => return Err(EvalError::no_overload()),
    })
}

fn optional(found: Option<Value>) -> Result {
    Ok(Value::Optional(found.map(Arc::new)))
}

pub(super) fn no_such_key(key: impl std::fmt::Display) -> EvalError {
    EvalError::new(format!("no such key: {key}"))
}

/// A field's value, `None` when it is absent.
fn lookup(of: &Value, field: &str) -> Result<Option<Value>> {
    Ok(match of {
        Value::Map(entries) => entries.get(&Key::String(field.into())).cloned(),
        Value::Message(message) => message.fields.get(field).cloned(),
        Value::Opaque(opaque) => opaque.field(field).transpose()?,
        // cel-go says this of anything that has no fields.
        _ => return Err(EvalError::no_overload()),
    })
}
