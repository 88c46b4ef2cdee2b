//! Compiling the expressions of webhooks and policies: what each may refer to and what it must come to
//! (`k8s.io/apiserver/pkg/admission/plugin/cel/compile.go`).
//!
//! Pure. Validation, the type checker and evaluation all compile here, so that they never disagree.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::{CompileError, Env, Fields, Messages, ObjectType, Program, Type, compile};

/// What an expression may refer to beside the object, the request and the namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Whether there is a parameter.
    pub params: bool,
    /// Whether the authorizer may be asked.
    pub authorizer: bool,
    /// Whether `Object{…}` and `JSONPatch{…}` may be built.
    pub patches: bool,
    /// The variables before it, with their types.
    pub variables: Vec<(String, TypeName)>,
}

/// A type with its text, by which it is compared.
#[derive(Clone, Debug)]
pub struct TypeName(pub Type, String);

impl From<Type> for TypeName {
    fn from(of: Type) -> Self {
        let text = of.to_string();
        TypeName(of, text)
    }
}

impl PartialEq for TypeName {
    fn eq(&self, other: &Self) -> bool {
        self.1 == other.1
    }
}

impl Eq for TypeName {}

impl std::hash::Hash for TypeName {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.1.hash(state);
    }
}

/// The types of the objects that an expression is about; anything, unless they are checked against schemas.
#[derive(Clone)]
pub struct Objects {
    /// `object` and `oldObject`.
    pub object: Type,
    /// `params`.
    pub params: Type,
}

impl Default for Objects {
    fn default() -> Self {
        Objects { object: Type::Dyn, params: Type::Dyn }
    }
}

const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

/// The declarations of a scope.
pub fn environment(scope: &Scope, objects: &Objects) -> Env {
    let mut env = Env::new()
        .variable("object", objects.object.clone())
        .variable("oldObject", objects.object.clone())
        .variable("request", REQUEST.clone())
        .variable("namespaceObject", NAMESPACE.clone());
    if scope.params {
        env = env.variable("params", objects.params.clone());
    }
    if scope.authorizer {
        env = env.variable("authorizer", Type::Opaque(AUTHORIZER)).variable("authorizer.requestResource", Type::Opaque(RESOURCE_CHECK));
    }
    let variables = scope.variables.iter().map(|(name, of)| (name.clone(), of.0.clone()));
    env = env.variable("variables", Type::object("kubernetes.variables", variables));
    if scope.patches { env.messages(Arc::new(Patches)) } else { env }
}

/// Compiled programs that are kept; past this many, all are dropped.
const KEPT: usize = 4096;

type Key = (Scope, String);

static PROGRAMS: LazyLock<Mutex<HashMap<Key, Result<Program, CompileError>>>> = LazyLock::new(Mutex::default);

/// Compiles an expression, once.
///
/// # Errors
/// Its errors, with line and caret.
pub fn program(scope: &Scope, expression: &str) -> Result<Program, CompileError> {
    let key = (scope.clone(), expression.to_owned());
    if let Some(known) = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return known.clone();
    }
    let compiled = compile(expression, &environment(scope, &Objects::default()));
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    if programs.len() >= KEPT {
        programs.clear();
    }
    programs.insert(key, compiled.clone());
    compiled
}

/// Compiles an expression that must come to certain types.
///
/// # Errors
/// Upstream's text: `compilation failed: …`, or what it must evaluate to.
pub fn checked(scope: &Scope, expression: &str, wanted: &[&str]) -> Result<Program, String> {
    let program = program(scope, expression).map_err(|e| format!("compilation failed: {e}"))?;
    let result = program.result().to_string();
    if wanted.is_empty() || wanted.contains(&result.as_str()) {
        return Ok(program);
    }
    // As upstream prints types here, which is not as it prints them elsewhere.
    let shown = |of: &str| if of == "null" { "null_type".to_owned() } else { of.to_owned() };
    match wanted {
        [one] => Err(format!("must evaluate to {one}")),
        many => Err(format!("must evaluate to one of [{}]", many.iter().map(|of| shown(of)).collect::<Vec<_>>().join(" "))),
    }
}

static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let text = || Type::String;
    let kind = || Type::object("kubernetes.GroupVersionKind", [("group", text()), ("version", text()), ("kind", text())]);
    let resource = || Type::object("kubernetes.GroupVersionResource", [("group", text()), ("version", text()), ("resource", text())]);
    let user = Type::object(
        "kubernetes.UserInfo",
        [("username", text()), ("uid", text()), ("groups", Type::list(text())), ("extra", Type::map(text(), Type::list(text())))],
    );
    Type::object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", text()),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
});

static NAMESPACE: LazyLock<Type> = LazyLock::new(|| {
    let texts = || Type::map(Type::String, Type::String);
    let metadata = Type::object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::list(Type::String)),
        ],
    );
    let spec = Type::object("kubernetes.NamespaceSpec", [("finalizers", Type::list(Type::String))]);
    let status = Type::object("kubernetes.NamespaceStatus", [("phase", Type::String)]);
    Type::object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
});

/// The type of `namespaceObject`, for its value.
pub fn namespace_type() -> &'static Type {
    &NAMESPACE
}

/// `Object{…}`, `Object.spec{…}`, … and `JSONPatch{…}` (`k8s.io/apiserver/pkg/cel/mutation`).
struct Patches;

/// Fields of anything: what an apply configuration may have is known when it is merged.
struct AnyField;

impl Fields for AnyField {
    fn field(&self, _: &str) -> Option<Type> {
        Some(Type::Dyn)
    }
}

/// The type of JSON patch operations.
pub const JSON_PATCH: &str = "JSONPatch";

impl Messages for Patches {
    fn message(&self, name: &str) -> Option<Type> {
        if name == JSON_PATCH {
            let text = |name| (name, Type::String);
            return Some(Type::object(JSON_PATCH, [text("op"), text("path"), text("from"), ("value", Type::Dyn)]));
        }
        let known = name == "Object" || name.starts_with("Object.");
        known.then(|| Type::Object(ObjectType { name: name.into(), fields: Arc::new(AnyField) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_upstreams() {
        let scope = Scope { authorizer: true, ..Scope::default() };
        let of = |source: &str| checked(&scope, source, &["bool"]).map(drop);
        assert_eq!(of("object.spec.replicas > 1"), Ok(()));
        assert_eq!(of("object.spec.replicas"), Err("must evaluate to bool".into()));
        assert_eq!(of("1 + 1"), Err("must evaluate to bool".into()));
        assert_eq!(
            of("params.x == 1"),
            Err("compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^".into())
        );
        assert_eq!(
            of("variables.x == 1"),
            Err("compilation failed: ERROR: <input>:1:10: undefined field 'x'\n | variables.x == 1\n | .........^".into())
        );
        assert_eq!(of("request.userInfo.username == 'x' && namespaceObject.metadata.labels['a'] == 'b'"), Ok(()));
        assert_eq!(of("authorizer.requestResource.check('update').allowed()"), Ok(()));
    }

    #[test]
    fn patches_are_built_only_where_they_are_wanted() {
        let scope = Scope { patches: true, ..Scope::default() };
        assert!(checked(&scope, "Object{spec: Object.spec{replicas: 1}}", &["Object"]).is_ok());
        assert!(checked(&scope, "[JSONPatch{op: 'add', path: '/a', value: 1}]", &["list(JSONPatch)"]).is_ok());
        assert!(checked(&Scope::default(), "Object{}", &["Object"]).is_err());
    }
}
