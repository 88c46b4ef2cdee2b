//! CEL, the expression language of admission policies, match conditions and CustomResourceDefinitions, with Kubernetes' libraries at v1.36
//! (`k8s.io/apiserver/pkg/cel`).
//!
//! [`compile`] parses and type-checks against an [`Env`]; [`Program::eval`] computes over [`Bindings`] within a [`Budget`].
//! Pure: no I/O. What an expression may ask of the server comes in as an [`Opaque`] value.
//! Must never panic nor run without end, whatever is written in an expression: users write them.
//!
//! ```
//! use shared::cel::{Bindings, Budget, Env, Type, Value, compile};
//! let env = Env::new().variable("object", Type::Dyn);
//! let program = compile("object.spec.replicas <= 5", &env).unwrap();
//! let object = Value::from_json(&serde_json::json!({"spec": {"replicas": 3}}));
//! let bindings = Bindings::new().with("object", object);
//! assert_eq!(program.eval(&bindings, &Budget::per_call()).unwrap(), Value::Bool(true));
//! ```

pub mod admission;
mod ast;
mod check;
mod declarations;
mod eval;
mod functions;
mod lex;
mod parse;
mod schema;
#[cfg(test)]
mod tests;
mod time;
mod types;
mod value;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use schema::{Definitions, type_of_schema};
pub use types::{Fields, ObjectType, Type, escape, unescape};
pub use value::{Key, Message, Opaque, Value};

/// What expressions may refer to.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, Type>,
    messages: Option<Arc<dyn Messages>>,
}

/// The struct types that expressions may build.
pub trait Messages: Send + Sync {
    /// The object type of this name.
    fn message(&self, name: &str) -> Option<Type>;
}

impl Env {
    /// Nothing but the standard functions.
    pub fn new() -> Self {
        Env::default()
    }

    /// Declares a variable; its name may have dots.
    #[must_use]
    pub fn variable(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.to_owned(), of);
        self
    }

    /// Declares struct types.
    #[must_use]
    pub fn messages(mut self, messages: Arc<dyn Messages>) -> Self {
        self.messages = Some(messages);
        self
    }

    fn message(&self, name: &str) -> Option<Type> {
        self.messages.as_ref()?.message(name)
    }
}

/// Why an expression does not compile: upstream's text, with the line and a caret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CompileError(String);

/// Why an evaluation failed, in cel-go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EvalError(String);

impl EvalError {
    /// An error of this text.
    pub fn new(text: impl Into<String>) -> Self {
        EvalError(text.into())
    }

    fn no_overload() -> Self {
        EvalError("no such overload".into())
    }

    /// Whether the budget is what ended it.
    pub fn over_budget(&self) -> bool {
        self.0 == OVER_BUDGET
    }
}

const OVER_BUDGET: &str = "operation cancelled: actual cost limit exceeded";

/// How much evaluation may still cost, in cel-go's units: about one a step, and a tenth of each byte looked at.
#[derive(Debug)]
pub struct Budget {
    left: AtomicU64,
}

impl Budget {
    /// A budget of this many units.
    pub fn new(units: u64) -> Self {
        Budget { left: AtomicU64::new(units) }
    }

    /// What one expression may cost (upstream's `PerCallLimit`).
    pub fn per_call() -> Self {
        Budget::new(1_000_000)
    }

    /// What is left of it.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Relaxed)
    }

    /// Takes some of it.
    ///
    /// # Errors
    /// When there is not as much left.
    pub fn charge(&self, units: u64) -> Result<(), EvalError> {
        let take = |left: u64| left.checked_sub(units);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(()),
            Err(_) => {
                self.left.store(0, Ordering::Relaxed);
                Err(EvalError(OVER_BUDGET.into()))
            }
        }
    }
}

/// The variables' values.
#[derive(Clone, Debug, Default)]
pub struct Bindings(HashMap<String, Value>);

impl Bindings {
    /// None.
    pub fn new() -> Self {
        Bindings::default()
    }

    /// One more.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}

/// A compiled expression. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Program {
    root: Arc<ast::Expr>,
    result: Type,
}

impl Program {
    /// What it evaluates to.
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// Computes it.
    ///
    /// # Errors
    /// What went wrong, in cel-go's words.
    pub fn eval(&self, bindings: &Bindings, budget: &Budget) -> Result<Value, EvalError> {
        eval::Evaluator::new(bindings, budget).expr(&self.root)
    }

    /// Whether it names this variable anywhere, so that what it costs to provide can be saved.
    pub fn mentions(&self, variable: &str) -> bool {
        ast::mentions(&self.root, variable)
    }
}

/// Compiles an expression.
///
/// # Errors
/// Its syntax and type errors, one below the other.
pub fn compile(source: &str, env: &Env) -> Result<Program, CompileError> {
    let mut root = parse::parse(source).map_err(|error| CompileError(display(source, &[error])))?;
    let mut checker = check::Checker::new(env);
    let result = checker.whole(&mut root);
    let mut errors = checker.errors;
    if !errors.is_empty() {
        errors.sort();
        return Err(CompileError(display(source, &errors)));
    }
    Ok(Program { root: Arc::new(root), result })
}

/// `ERROR: <input>:1:6: text`, the line, and a caret below the place.
fn display(source: &str, errors: &[(usize, String)]) -> String {
    let one = |(at, text): &(usize, String)| {
        let before: Vec<char> = source.chars().take(*at).collect();
        let line = before.iter().filter(|c| **c == '\n').count();
        let column = before.iter().rev().take_while(|c| **c != '\n').count();
        let snippet = source.split('\n').nth(line).unwrap_or_default().replace('\t', " ");
        format!("ERROR: <input>:{}:{}: {text}\n | {snippet}\n | {}^", line + 1, column + 1, ".".repeat(column))
    };
    errors.iter().map(one).collect::<Vec<_>>().join("\n")
}
