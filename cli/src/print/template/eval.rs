//! Runs a parsed template. What fails is told as `text/template` tells it: with the place of what was looked at last.

use serde_json::Value;

use super::parse::{Command, Node, Operand, Pipe, Place, What};
use super::{Error, Failed, Template, fail, format, functions};

/// A value, or the absence `text/template` calls "no value".
pub(super) type Maybe = Option<Value>;

enum Flow {
    Next,
    Break,
    Continue,
}

/// A value with what Go knows of its type.
#[derive(Debug, Clone, Default)]
pub(super) struct Typed {
    pub value: Maybe,
    /// It is an element of an object or list and was not the value of a pipeline since: its type is `interface {}`.
    boxed: bool,
    /// It is a number of the template's own, an `int`.
    pub own: bool,
}

impl Typed {
    pub(super) fn of(value: Maybe) -> Typed {
        Typed { value, ..Typed::default() }
    }
    fn boxed(value: Value) -> Typed {
        Typed { value: Some(value), boxed: true, own: false }
    }
    /// Go's name of its type.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.value {
            Some(Value::Number(n)) if self.own && !n.is_f64() => "int",
            Some(value) => format::type_name(value),
            None => "<nil>",
        }
    }
}

struct Run<'t> {
    template: &'t Template,
    variables: Vec<(String, Typed)>,
    out: String,
    allow_missing: bool,
    depth: usize,
    /// What errors are told of.
    at: &'t Place,
    /// The template that runs.
    name: &'t str,
}

static NOWHERE: Place = Place { at: 0, text: String::new() };

pub(super) fn run(template: &Template, object: &Value, allow_missing: bool) -> Result<String, Failed> {
    let dot = Typed::of(Some(object.clone()));
    let variables = vec![(String::new(), dot.clone())];
    let mut run = Run { template, variables, out: String::new(), allow_missing, depth: 0, at: &NOWHERE, name: "output" };
    match run.list(&template.body, &dot) {
        Ok(_) => Ok(run.out),
        Err(Error(cause)) => {
            let before = &template.source[..run.at.at];
            let (line, column) = (before.matches('\n').count() + 1, before.len() - before.rfind('\n').map_or(0, |at| at + 1));
            let error = Error(format!("template: output:{line}:{column}: executing {:?} at <{}>: {cause}", run.name, run.at.text));
            Err(Failed { printed: run.out, error })
        }
    }
}

/// Go's truth: not nil, not zero, not empty.
pub(super) fn truth(value: &Maybe) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(b)) => *b,
        Some(Value::Number(n)) => n.as_f64() != Some(0.0),
        Some(Value::String(s)) => !s.is_empty(),
        Some(Value::Array(a)) => !a.is_empty(),
        Some(Value::Object(o)) => !o.is_empty(),
    }
}

impl<'t> Run<'t> {
    fn list(&mut self, nodes: &'t [Node], dot: &Typed) -> Result<Flow, Error> {
        for node in nodes {
            match self.node(node, dot)? {
                Flow::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &'t Node, dot: &Typed) -> Result<Flow, Error> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.out.push_str(&format::printed(&value.value));
                }
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::If(pipe, body, otherwise) | Node::With(pipe, body, otherwise) => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = match (truth(&value.value), node) {
                    (false, _) => self.list(otherwise, dot)?,
                    (true, Node::With(..)) => self.list(body, &value)?,
                    (true, _) => self.list(body, dot)?,
                };
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::Range(pipe, body, otherwise) => self.range(pipe, body, otherwise, dot)?,
            Node::Template(name, argument, place) => {
                self.at = place;
                let Some((name, body)) = self.template.named.get_key_value(name) else { return fail(format!("template {name:?} not defined")) };
                self.depth += 1;
                if self.depth > 1000 {
                    return fail("exceeded maximum template depth (1000)");
                }
                let dot = match argument {
                    Some(pipe) => self.pipe(pipe, dot)?,
                    None => Typed::default(),
                };
                let outer = std::mem::replace(&mut self.variables, vec![(String::new(), dot.clone())]);
                let outer_name = std::mem::replace(&mut self.name, name);
                self.list(body, &dot)?;
                self.variables = outer;
                self.name = outer_name;
                self.depth -= 1;
            }
        }
        Ok(Flow::Next)
    }

    fn range(&mut self, pipe: &'t Pipe, body: &'t [Node], otherwise: &'t [Node], dot: &Typed) -> Result<(), Error> {
        let scope = self.variables.len();
        let own = |i: usize| Typed { value: Some(Value::from(i)), boxed: false, own: true };
        let pairs: Vec<(Typed, Typed)> = match self.pipe_value(pipe, dot)?.value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items.into_iter().enumerate().map(|(i, v)| (own(i), Typed::boxed(v))).collect(),
            Some(Value::Object(map)) => map.into_iter().map(|(k, v)| (Typed::of(Some(Value::String(k))), Typed::boxed(v))).collect(),
            Some(Value::Number(n)) if n.is_i64() => (0..usize::try_from(n.as_i64().unwrap_or(0)).unwrap_or(0)).map(|i| (own(i), own(i))).collect(),
            Some(other) => return fail(format!("range can't iterate over {}", format::printed(&Some(other)))),
        };
        let empty = pairs.is_empty();
        for (key, item) in pairs {
            match pipe.variables.as_slice() {
                [one] => self.set(one, item.clone(), pipe.assigns),
                [first, second] => {
                    self.set(first, key, pipe.assigns);
                    self.set(second, item.clone(), pipe.assigns);
                }
                _ => {}
            }
            let flow = self.list(body, &item)?;
            self.variables.truncate(scope);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        if empty {
            self.list(otherwise, dot)?;
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Typed, assigns: bool) {
        if assigns && let Some(slot) = self.variables.iter_mut().rev().find(|(n, _)| n == name) {
            slot.1 = value;
        } else {
            self.variables.push((name.to_owned(), value));
        }
    }

    fn pipe(&mut self, pipe: &'t Pipe, dot: &Typed) -> Result<Typed, Error> {
        let value = self.pipe_value(pipe, dot)?;
        if let Some(name) = pipe.variables.first() {
            self.set(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    fn pipe_value(&mut self, pipe: &'t Pipe, dot: &Typed) -> Result<Typed, Error> {
        let mut last: Option<Typed> = None;
        for command in &pipe.commands {
            let value = self.command(command, dot, last)?;
            last = Some(Typed { boxed: false, ..value });
        }
        Ok(last.unwrap_or_default())
    }

    fn command(&mut self, command: &'t Command, dot: &Typed, piped: Option<Typed>) -> Result<Typed, Error> {
        let (first, rest) = command.operands.split_first().ok_or_else(|| Error("missing value for command".into()))?;
        let arguments = !rest.is_empty() || piped.is_some();
        match &first.what {
            What::Function(name) => return self.call(name, command, first, rest, dot, piped),
            What::Chain(_, fields) if arguments => {
                self.at = &first.place;
                return fail(format!("{} is not a method but has arguments", fields.last().map_or("", String::as_str)));
            }
            What::Nested(_) => {}
            _ => self.at = &first.place,
        }
        if arguments {
            return fail(format!("can't give argument to non-function {}", first.place.text));
        }
        match &first.what {
            What::Nil => fail("nil is not a command"),
            _ => self.value(first, dot),
        }
    }

    fn call(
        &mut self,
        name: &str,
        command: &'t Command,
        function: &'t Operand,
        operands: &'t [Operand],
        dot: &Typed,
        piped: Option<Typed>,
    ) -> Result<Typed, Error> {
        self.at = &function.place;
        functions::counted(name, operands.len() + usize::from(piped.is_some()))?;
        // `and` and `or` stop at the argument that decides.
        if name == "and" || name == "or" {
            let mut result = Typed::default();
            for operand in operands {
                result = self.argument(operand, dot)?;
                if truth(&result.value) == (name == "or") {
                    return Ok(result);
                }
            }
            return Ok(piped.unwrap_or(result));
        }
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        for (index, operand) in operands.iter().enumerate() {
            let wants_text = index == 0 && functions::begins_with_text(name);
            let value = self.argument(operand, dot)?;
            if wants_text {
                text_operand(operand, &value)?;
            }
            arguments.push(value);
        }
        if let Some(value) = piped {
            if arguments.is_empty() && functions::begins_with_text(name) {
                text_value(&value)?;
            }
            arguments.push(value);
        }
        let own = name == "len";
        match functions::call(name, arguments) {
            Ok(value) => Ok(Typed { value, boxed: false, own }),
            Err(Error(cause)) => {
                self.at = &command.place;
                let place = operands.first().map_or("", |o| o.place.text.as_str());
                fail(format!("error calling {name}: {}", cause.replace(functions::OPERAND, place)))
            }
        }
    }

    fn argument(&mut self, operand: &'t Operand, dot: &Typed) -> Result<Typed, Error> {
        self.at = &operand.place;
        self.value(operand, dot)
    }

    fn value(&mut self, operand: &'t Operand, dot: &Typed) -> Result<Typed, Error> {
        Ok(match &operand.what {
            What::Dot => dot.clone(),
            What::Nil => Typed::default(),
            What::Constant(value) => Typed { value: Some(value.clone()), boxed: false, own: true },
            What::Function(name) => {
                self.at = &operand.place;
                functions::counted(name, 0)?;
                Typed::of(functions::call(name, Vec::new()).map_err(|e| Error(format!("error calling {name}: {}", e.0)))?)
            }
            What::Variable(name) => match self.variables.iter().rev().find(|(n, _)| n == name) {
                Some((_, value)) => value.clone(),
                None => return fail(format!("undefined variable \"${name}\"")),
            },
            What::Nested(pipe) => self.pipe_value(pipe, dot)?,
            What::Chain(base, fields) => {
                let mut value = self.value(base, dot)?;
                for field in fields {
                    value = self.field(value, field)?;
                }
                value
            }
        })
    }

    fn field(&self, of: Typed, field: &str) -> Result<Typed, Error> {
        let (boxed, named) = (of.boxed, of.type_name());
        match of.value {
            Some(Value::Object(mut map)) => match map.remove(field) {
                Some(found) => Ok(Typed::boxed(found)),
                None if !self.allow_missing => fail(format!("map has no entry for key {field:?}")),
                None => Ok(Typed::default()),
            },
            None | Some(Value::Null) if self.allow_missing => Ok(Typed::default()),
            None | Some(Value::Null) => fail(format!("nil data; no entry for key {field:?}")),
            Some(_) => fail(format!("can't evaluate field {field} in type {}", if boxed { "interface {}" } else { named })),
        }
    }
}

/// An operand where text is wanted: a constant must be text as it stands.
fn text_operand(operand: &Operand, value: &Typed) -> Result<(), Error> {
    match &operand.what {
        What::Constant(Value::String(_)) => Ok(()),
        What::Constant(_) => fail(format!("expected string; found {}", operand.place.text)),
        What::Nil => fail("cannot assign nil to string"),
        _ => text_value(value),
    }
}

fn text_value(value: &Typed) -> Result<(), Error> {
    match &value.value {
        Some(Value::String(_)) => Ok(()),
        None | Some(Value::Null) => fail("invalid value; expected string"),
        Some(_) => fail(format!("wrong type for value; expected string; got {}", value.type_name())),
    }
}
