//! Type checking: every name declared, every field known, an overload for every call (`cel-go/checker/checker.go`).
//!
//! Also resolves what the parser cannot tell: whether `a.b(c)` is a member call or a function of the namespace `a`, and whether `a.b` is one
//! declared variable. Texts are upstream's.

use std::collections::HashMap;
use std::sync::Arc;

use super::Env;
use super::ast::{Call, Comprehension, Expr, Kind, Macro, Select, Struct};
use super::declarations::{self, Overload};
use super::functions;
use super::parse::qualified;
use super::types::{Substitution, Type};
use super::value::Value;

pub(super) struct Checker<'a> {
    env: &'a Env,
    /// Variables of the comprehensions around, innermost last.
    scope: Vec<(Arc<str>, Type)>,
    known: Substitution,
    fresh: u32,
    /// Whether the arguments of `format` are being looked at, which alone may be of several types.
    mixed: bool,
    pub(super) errors: Vec<(usize, String)>,
}

/// Names of types, which are values as well.
const TYPES: &[(&str, Type)] = &[
    ("bool", Type::Bool),
    ("int", Type::Int),
    ("uint", Type::Uint),
    ("double", Type::Double),
    ("string", Type::String),
    ("bytes", Type::Bytes),
    ("null_type", Type::Null),
    ("dyn", Type::Dyn),
    ("type", Type::Dyn),
    ("list", Type::Dyn),
    ("map", Type::Dyn),
    ("optional_type", Type::Dyn),
    ("google.protobuf.Timestamp", Type::Timestamp),
    ("google.protobuf.Duration", Type::Duration),
    ("kubernetes.Quantity", Type::Opaque("kubernetes.Quantity")),
    ("kubernetes.URL", Type::Opaque("kubernetes.URL")),
    ("kubernetes.Semver", Type::Opaque("kubernetes.Semver")),
    ("net.IP", Type::Opaque("net.IP")),
    ("net.CIDR", Type::Opaque("net.CIDR")),
];

impl<'a> Checker<'a> {
    pub(super) fn new(env: &'a Env) -> Self {
        Checker { env, scope: Vec::new(), known: Substitution::default(), fresh: 1000, mixed: false, errors: Vec::new() }
    }

    /// The type of a whole expression, nothing left open.
    pub(super) fn whole(&mut self, expr: &mut Expr) -> Type {
        let of = self.expr(expr);
        self.known.apply(&of, true)
    }

    fn error(&mut self, at: usize, text: String) -> Type {
        self.errors.push((at, text));
        Type::Error
    }

    fn open(&mut self) -> Type {
        self.fresh += 1;
        Type::Param(self.fresh)
    }

    fn expr(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        if let Some((name, of)) = self.declared(expr) {
            expr.kind = Kind::Ident(name);
            return of;
        }
        match &mut expr.kind {
            Kind::Literal(value) => literal(value),
            Kind::Ident(name) => {
                let text = format!("undeclared reference to '{name}' (in container '')");
                self.error(at, text)
            }
            Kind::Select(select) => self.select(at, select),
            Kind::Call(_) => self.call_expr(expr),
            Kind::And(all) => self.logic(at, "_&&_", all),
            Kind::Or(all) => self.logic(at, "_||_", all),
            Kind::Ternary(parts) => {
                let types: Vec<Type> = parts.iter_mut().map(|p| self.expr(p)).collect();
                self.overload(at, "_?_:_", false, &types)
            }
            Kind::List(items) => {
                let mut item = self.open();
                for entry in items {
                    let of = self.expr(&mut entry.value);
                    let of = if entry.optional { self.unwrap_optional(&of) } else { of };
                    item = self.join(entry.value.at, &item, &of);
                }
                Type::list(item)
            }
            Kind::Map(entries) => {
                let (mut key, mut value) = (self.open(), self.open());
                for (k, entry) in entries {
                    let of = self.expr(k);
                    key = self.join(k.at, &key, &of);
                    let of = self.expr(&mut entry.value);
                    let of = if entry.optional { self.unwrap_optional(&of) } else { of };
                    value = self.join(entry.value.at, &value, &of);
                }
                Type::map(key, value)
            }
            Kind::Message(message) => self.message(at, message),
            Kind::Comprehension(comprehension) => self.comprehension(at, comprehension),
        }
    }

    /// The variable or type that a name, perhaps with dots, stands for. What a comprehension binds hides what is declared.
    fn declared(&self, expr: &Expr) -> Option<(Arc<str>, Type)> {
        let name = qualified(expr)?;
        let root = name.split('.').next().unwrap_or_default();
        if let Some((_, of)) = self.scope.iter().rev().find(|(n, _)| n.as_ref() == root) {
            return (root == name.as_ref()).then(|| (name, of.clone()));
        }
        if let Some(of) = self.env.variables.get(name.as_ref()) {
            return Some((name, of.clone()));
        }
        let (_, of) = TYPES.iter().find(|(n, _)| *n == name.as_ref())?;
        Some((name, Type::Type(Arc::new(of.clone()))))
    }

    /// One element type for all of an aggregate (upstream's homogeneous literals); numbers and texts must not be mixed.
    fn join(&mut self, at: usize, known: &Type, of: &Type) -> Type {
        let before = self.known.clone();
        let (known, of) = (self.known.apply(known, false), self.known.apply(of, false));
        if known.is_dyn() || of.is_dyn() || self.mixed {
            return Type::Dyn;
        }
        if self.known.assignable(&of, &known) {
            return known;
        }
        self.known = before;
        if self.known.assignable(&known, &of) {
            return of;
        }
        // Objects built from other aggregates may differ: only what is plain must agree.
        if matches!(of, Type::List(_) | Type::Map(..) | Type::Object(_)) && matches!(known, Type::List(_) | Type::Map(..) | Type::Object(_)) {
            return Type::Dyn;
        }
        let close = |t: &Type| self.known.apply(t, true).to_string();
        let text = format!("expected type '{}' but found '{}'", close(&known), close(&of));
        self.error(at, text);
        Type::Dyn
    }

    fn unwrap_optional(&mut self, of: &Type) -> Type {
        match self.known.apply(of, false) {
            Type::Optional(inner) => Type::clone(&inner),
            _ => Type::Dyn,
        }
    }

    fn logic(&mut self, at: usize, name: &str, all: &mut [Expr]) -> Type {
        let types: Vec<Type> = all.iter_mut().map(|e| self.expr(e)).collect();
        for of in &types {
            let fits = self.known.assignable(of, &Type::Bool);
            if !fits {
                // Named as the pair it is part of.
                let pair = if self.is_bool(&types[0]) { [Type::Bool, of.clone()] } else { [types[0].clone(), types[1].clone()] };
                return self.no_overload(at, name, false, &pair);
            }
        }
        Type::Bool
    }

    fn is_bool(&self, of: &Type) -> bool {
        matches!(self.known.apply(of, false), Type::Bool)
    }

    fn select(&mut self, at: usize, select: &mut Select) -> Type {
        let operand = self.expr(&mut select.operand);
        let of = self.field_of(at, &operand, &select.field);
        if select.test {
            return Type::Bool;
        }
        match of {
            Type::Optional(_) | Type::Error => of,
            of if select.optional => Type::optional(of),
            of => of,
        }
    }

    /// The type of a field; optional when what it is a field of is.
    fn field_of(&mut self, at: usize, of: &Type, field: &str) -> Type {
        match self.known.apply(of, false) {
            Type::Error => Type::Error,
            Type::Dyn => Type::Dyn,
            Type::Param(number) => {
                self.known.assignable(&Type::Dyn, &Type::Param(number));
                Type::Dyn
            }
            Type::Optional(inner) => match self.field_of(at, &inner, field) {
                Type::Error => Type::Error,
                Type::Optional(inner) => Type::Optional(inner),
                inner => Type::optional(inner),
            },
            Type::Map(_, value) => Type::clone(&value),
            Type::Object(object) => match object.fields.field(field) {
                Some(of) => of,
                None => self.error(at, format!("undefined field '{field}'")),
            },
            other => {
                let text = format!("type '{}' does not support field selection", self.known.apply(&other, true));
                self.error(at, text)
            }
        }
    }

    fn call_expr(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        let Kind::Call(call) = &mut expr.kind else { return Type::Error };
        // `a.b(c)` where `a` is no variable may be the function `a.b`.
        if let Some(target) = &call.target
            && let Some(namespace) = qualified(target)
            && self.declared_root(&namespace).is_none()
        {
            let full = format!("{namespace}.{}", call.name);
            if !declarations::overloads(&full).is_empty() {
                (call.name, call.target) = (full.into(), None);
            }
        }
        self.call(at, call)
    }

    fn declared_root(&self, name: &str) -> Option<()> {
        let root = name.split('.').next().unwrap_or_default();
        (self.scope.iter().any(|(n, _)| n.as_ref() == root) || self.env.variables.contains_key(root)).then_some(())
    }

    fn call(&mut self, at: usize, call: &mut Call) -> Type {
        let member = call.target.is_some();
        let overloads = declarations::overloads(&call.name);
        let mut types: Vec<Type> = Vec::with_capacity(call.args.len() + 1);
        if overloads.is_empty() {
            let text = format!("undeclared reference to '{}' (in container '')", call.name);
            self.error(at, text);
        }
        if let Some(target) = &mut call.target {
            types.push(self.expr(target));
        }
        let around = self.mixed;
        self.mixed |= call.name.as_ref() == "format";
        for arg in &mut call.args {
            types.push(self.expr(arg));
        }
        self.mixed = around;
        call.run = functions::find(&call.name);
        if overloads.is_empty() || types.iter().any(|t| matches!(t, Type::Error)) {
            return Type::Error;
        }
        self.overload(at, &call.name.clone(), member, &types)
    }

    /// The result of the overload that these arguments fit.
    fn overload(&mut self, at: usize, name: &str, member: bool, types: &[Type]) -> Type {
        if types.iter().any(|t| matches!(t, Type::Error)) {
            return Type::Error;
        }
        let mut found: Option<(Type, Substitution)> = None;
        let before = self.known.clone();
        for overload in declarations::overloads(name).iter().filter(|o| o.member == member && o.params.len() == types.len()) {
            self.known = before.clone();
            let (params, result) = self.instance(overload);
            if !types.iter().zip(&params).all(|(of, param)| self.known.assignable(of, param)) {
                continue;
            }
            match &mut found {
                None => found = Some((self.known.apply(&result, false), self.known.clone())),
                // Several fit because an argument may be anything: so may the result, unless they agree.
                Some((first, known)) if known.apply(first, true).to_string() != self.known.apply(&result, true).to_string() => {
                    *first = Type::Dyn;
                    *known = before.clone();
                }
                Some((_, known)) => *known = before.clone(),
            }
        }
        match found {
            Some((result, known)) => {
                self.known = known;
                result
            }
            None => {
                self.known = before;
                self.no_overload(at, name, member, types)
            }
        }
    }

    fn no_overload(&mut self, at: usize, name: &str, member: bool, types: &[Type]) -> Type {
        let mut names = types.iter().map(|t| self.known.apply(t, true).to_string());
        let target = if member { format!("{}.", names.next().unwrap_or_default()) } else { String::new() };
        let list = names.collect::<Vec<_>>().join(", ");
        self.error(at, format!("found no matching overload for '{name}' applied to '{target}({list})'"))
    }

    /// An overload with its open types made this call's own.
    fn instance(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        let mut own = HashMap::new();
        let params = overload.params.iter().map(|p| self.renamed(p, &mut own)).collect();
        (params, self.renamed(&overload.result, &mut own))
    }

    fn renamed(&mut self, of: &Type, own: &mut HashMap<u32, Type>) -> Type {
        match of {
            Type::Param(number) => match own.get(number) {
                Some(own) => own.clone(),
                None => {
                    let fresh = self.open();
                    own.insert(*number, fresh.clone());
                    fresh
                }
            },
            Type::List(item) => Type::list(self.renamed(item, own)),
            Type::Map(key, value) => Type::map(self.renamed(key, own), self.renamed(value, own)),
            Type::Optional(value) => Type::optional(self.renamed(value, own)),
            Type::Type(inner) => Type::Type(Arc::new(self.renamed(inner, own))),
            other => other.clone(),
        }
    }

    fn message(&mut self, at: usize, message: &mut Struct) -> Type {
        let Some(of) = self.env.message(&message.name) else {
            for field in &mut message.fields {
                self.expr(&mut field.item.value);
            }
            let text = format!("undeclared reference to '{}' (in container '')", message.name);
            return self.error(at, text);
        };
        let Type::Object(object) = &of else { return of };
        for field in &mut message.fields {
            let found = self.expr(&mut field.item.value);
            let found = if field.item.optional { self.unwrap_optional(&found) } else { found };
            match object.fields.field(&field.name) {
                None => drop(self.error(field.at, format!("undefined field '{}'", field.name))),
                Some(wanted) => {
                    if !self.known.assignable(&found, &wanted) {
                        let text = format!(
                            "expected type of field '{}' is '{wanted}' but provided type is '{}'",
                            field.name,
                            self.known.apply(&found, true)
                        );
                        self.error(field.at, text);
                    }
                }
            }
        }
        of
    }

    fn comprehension(&mut self, at: usize, c: &mut Comprehension) -> Type {
        let range = self.expr(&mut c.range);
        let range = self.known.apply(&range, false);
        // The types of one variable, or of key (index) and value.
        let (single, key, value) = match &range {
            Type::List(item) => (Type::clone(item), Type::Int, Type::clone(item)),
            Type::Map(key, value) => (Type::clone(key), Type::clone(key), Type::clone(value)),
            Type::Optional(inner) if matches!(c.of, Macro::OptMap | Macro::OptFlatMap) => (Type::clone(inner), Type::Dyn, Type::Dyn),
            Type::Dyn | Type::Error | Type::Param(_) => (Type::Dyn, Type::Dyn, Type::Dyn),
            other => {
                let text = format!(
                    "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                    self.known.apply(other, true)
                );
                self.error(c.range.at, text);
                (Type::Error, Type::Error, Type::Error)
            }
        };
        let depth = self.scope.len();
        match c.variables.as_slice() {
            [one] => self.scope.push((one.clone(), single)),
            [first, second] => self.scope.extend([(first.clone(), key.clone()), (second.clone(), value)]),
            _ => {}
        }
        if let Some(filter) = &mut c.filter {
            let of = self.expr(filter);
            if !self.known.assignable(&of, &Type::Bool) {
                let text = format!("found no matching overload for '_?_:_' applied to '({}, list(dyn), list(dyn))'", self.known.apply(&of, true));
                self.error(at, text);
            }
        }
        let body = self.expr(&mut c.body);
        self.scope.truncate(depth);
        let body = self.known.apply(&body, false);
        match c.of {
            Macro::All | Macro::Exists | Macro::ExistsOne | Macro::Filter => {
                if !self.known.assignable(&body, &Type::Bool) {
                    let body = self.known.apply(&body, true);
                    let text = match c.of {
                        Macro::All => format!("found no matching overload for '_&&_' applied to '(bool, {body})'"),
                        Macro::Exists => format!("found no matching overload for '_||_' applied to '(bool, {body})'"),
                        _ => format!("found no matching overload for '_?_:_' applied to '({body}, dyn, dyn)'"),
                    };
                    self.error(at, text);
                }
                match (c.of, range) {
                    (Macro::Filter, Type::Map(key, _)) => Type::List(key),
                    (Macro::Filter, Type::List(item)) => Type::List(item),
                    (Macro::Filter, _) => Type::list(Type::Dyn),
                    _ => Type::Bool,
                }
            }
            Macro::Map | Macro::TransformList => Type::list(body),
            Macro::TransformMap => Type::map(key, body),
            Macro::TransformMapEntry => match body {
                Type::Map(..) => body,
                _ => Type::map(Type::Dyn, Type::Dyn),
            },
            Macro::OptMap => Type::optional(body),
            Macro::OptFlatMap => match body {
                Type::Optional(_) => body,
                _ => Type::optional(Type::Dyn),
            },
        }
    }
}

fn literal(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::String(_) => Type::String,
        Value::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}

/// Whether a name is a type's.
pub(super) fn is_type(name: &str) -> bool {
    TYPES.iter().any(|(n, _)| *n == name)
}
