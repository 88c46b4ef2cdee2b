//! Runs a parsed template.

use serde_json::Value;

use super::parse::{Node, Operand, Pipe};
use super::{Error, Template, fail, format, functions};

/// A value, or the absence `text/template` calls "no value".
pub(super) type Maybe = Option<Value>;

enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'t> {
    template: &'t Template,
    variables: Vec<(String, Maybe)>,
    out: String,
    allow_missing: bool,
    depth: usize,
}

pub(super) fn run(template: &Template, object: &Value, allow_missing: bool) -> Result<String, Error> {
    let mut run = Run { template, variables: vec![(String::new(), Some(object.clone()))], out: String::new(), allow_missing, depth: 0 };
    run.list(&template.body, &Some(object.clone()))?;
    Ok(run.out)
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

impl Run<'_> {
    fn list(&mut self, nodes: &[Node], dot: &Maybe) -> Result<Flow, Error> {
        for node in nodes {
            match self.node(node, dot)? {
                Flow::Next => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &Node, dot: &Maybe) -> Result<Flow, Error> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                if pipe.variables.is_empty() {
                    self.out.push_str(&format::printed(&value));
                }
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::If(pipe, body, otherwise) | Node::With(pipe, body, otherwise) => {
                let scope = self.variables.len();
                let value = self.pipe(pipe, dot)?;
                let flow = match (truth(&value), node) {
                    (false, _) => self.list(otherwise, dot)?,
                    (true, Node::With(..)) => self.list(body, &value)?,
                    (true, _) => self.list(body, dot)?,
                };
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::Range(pipe, body, otherwise) => self.range(pipe, body, otherwise, dot)?,
            Node::Template(name, argument) => {
                let Some(body) = self.template.named.get(name) else { return fail(format!("template {name:?} not defined")) };
                self.depth += 1;
                if self.depth > 1000 {
                    return fail("exceeded maximum template depth (1000)");
                }
                let dot = match argument {
                    Some(pipe) => self.pipe(pipe, dot)?,
                    None => None,
                };
                let outer = std::mem::replace(&mut self.variables, vec![(String::new(), dot.clone())]);
                self.list(body, &dot)?;
                self.variables = outer;
                self.depth -= 1;
            }
        }
        Ok(Flow::Next)
    }

    fn range(&mut self, pipe: &Pipe, body: &[Node], otherwise: &[Node], dot: &Maybe) -> Result<(), Error> {
        let scope = self.variables.len();
        let value = self.pipe_value(pipe, dot)?;
        let pairs: Vec<(Value, Value)> = match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items.into_iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect(),
            Some(Value::Object(map)) => map.into_iter().map(|(k, v)| (Value::String(k), v)).collect(),
            Some(Value::Number(n)) if n.is_i64() => (0..n.as_i64().unwrap_or(0)).map(|i| (Value::from(i), Value::from(i))).collect(),
            Some(other) => return fail(format!("range can't iterate over {}", format::printed(&Some(other)))),
        };
        let empty = pairs.is_empty();
        for (key, item) in pairs {
            match pipe.variables.as_slice() {
                [one] => self.set(one, Some(item.clone()), pipe.assigns),
                [first, second] => {
                    self.set(first, Some(key), pipe.assigns);
                    self.set(second, Some(item.clone()), pipe.assigns);
                }
                _ => {}
            }
            let flow = self.list(body, &Some(item))?;
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

    fn set(&mut self, name: &str, value: Maybe, assigns: bool) {
        if assigns && let Some(slot) = self.variables.iter_mut().rev().find(|(n, _)| n == name) {
            slot.1 = value;
        } else {
            self.variables.push((name.to_owned(), value));
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Maybe) -> Result<Maybe, Error> {
        let value = self.pipe_value(pipe, dot)?;
        if let Some(name) = pipe.variables.first() {
            self.set(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    fn pipe_value(&mut self, pipe: &Pipe, dot: &Maybe) -> Result<Maybe, Error> {
        let mut last: Option<Maybe> = None;
        for command in &pipe.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.flatten())
    }

    fn command(&mut self, operands: &[Operand], dot: &Maybe, piped: Option<Maybe>) -> Result<Maybe, Error> {
        let (first, rest) = operands.split_first().ok_or_else(|| Error("missing value for command".into()))?;
        if let Operand::Function(name) = first {
            return self.call(name, rest, dot, piped);
        }
        if !rest.is_empty() || piped.is_some() {
            return fail(format!("can't give argument to non-function {}", describe(first)));
        }
        match first {
            Operand::Nil => fail("nil is not a command"),
            operand => self.value(operand, dot),
        }
    }

    fn call(&mut self, name: &str, operands: &[Operand], dot: &Maybe, piped: Option<Maybe>) -> Result<Maybe, Error> {
        // `and` and `or` stop at the argument that decides.
        if name == "and" || name == "or" {
            let mut result = None;
            for operand in operands {
                result = self.value(operand, dot)?;
                if truth(&result) == (name == "or") {
                    return Ok(result);
                }
            }
            return Ok(piped.unwrap_or(result));
        }
        let mut arguments = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            arguments.push(self.value(operand, dot)?);
        }
        arguments.extend(piped);
        functions::call(name, arguments).map_err(|e| Error(format!("error calling {name}: {}", e.0)))
    }

    fn value(&mut self, operand: &Operand, dot: &Maybe) -> Result<Maybe, Error> {
        Ok(match operand {
            Operand::Dot => dot.clone(),
            Operand::Nil => None,
            Operand::Constant(value) => Some(value.clone()),
            Operand::Function(name) => self.call(name, &[], dot, None)?,
            Operand::Variable(name) => match self.variables.iter().rev().find(|(n, _)| n == name) {
                Some((_, value)) => value.clone(),
                None => return fail(format!("undefined variable \"${name}\"")),
            },
            Operand::Nested(pipe) => self.pipe_value(pipe, dot)?,
            Operand::Chain(base, fields) => {
                let mut value = self.value(base, dot)?;
                for field in fields {
                    value = match value {
                        Some(Value::Object(mut map)) => match map.remove(field) {
                            None if !self.allow_missing => return fail(format!("map has no entry for key {field:?}")),
                            found => found,
                        },
                        None | Some(Value::Null) if self.allow_missing => None,
                        None | Some(Value::Null) => return fail(format!("nil data; no entry for key {field:?}")),
                        Some(other) => return fail(format!("can't evaluate field {field} in type {}", format::type_name(&other))),
                    };
                }
                value
            }
        })
    }
}

fn describe(operand: &Operand) -> String {
    match operand {
        Operand::Chain(_, fields) => format!(".{}", fields.join(".")),
        Operand::Constant(value) => value.to_string(),
        Operand::Variable(name) => format!("${name}"),
        _ => "operand".into(),
    }
}
