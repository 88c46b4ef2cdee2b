//! CEL's `authorizer`: asks this server's own authorization, for the user of the write or a service account
//! (`k8s.io/apiserver/pkg/cel/library/authz.go`).

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use shared::cel::{EvalError, Opaque, Value};

use super::matching::Target;
use crate::api::admission::{Attributes, Context};
use crate::api::authz::{Access, Authorizer};
use crate::api::user::User;

#[derive(Clone)]
struct Who {
    authorizer: Arc<Authorizer>,
    user: Arc<User>,
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user.name)
    }
}

/// `authorizer`
pub(in crate::api::admission) fn of(context: &Context, user: User) -> Value {
    Value::Opaque(Arc::new(Root(Who { authorizer: context.authorizer.clone(), user: Arc::new(user) })))
}

/// `authorizer.requestResource`
pub(in crate::api::admission) fn request_resource(context: &Context, attributes: &Attributes<'_>, target: &Target<'_>) -> Value {
    Value::Opaque(Arc::new(ResourceCheck {
        who: Who { authorizer: context.authorizer.clone(), user: Arc::new(attributes.user.clone()) },
        group: target.resource.group.into(),
        resource: target.resource.plural.into(),
        subresource: target.subresource.into(),
        namespace: target.namespace.into(),
        name: target.name.into(),
        field_selector: String::new(),
    }))
}

#[derive(Debug)]
struct Root(Who);

impl Opaque for Root {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Authorizer"
    }

    fn call(&self, function: &str, args: &[Value]) -> Option<Result<Value, EvalError>> {
        Some(Ok(match (function, args) {
            ("path", [Value::String(path)]) => Value::Opaque(Arc::new(PathCheck { who: self.0.clone(), path: path.to_string() })),
            ("group", [Value::String(group)]) => Value::Opaque(Arc::new(GroupCheck { who: self.0.clone(), group: group.to_string() })),
            ("serviceAccount", [Value::String(namespace), Value::String(name)]) => {
                let user = User {
                    name: format!("system:serviceaccount:{namespace}:{name}"),
                    groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}"), "system:authenticated".into()],
                    ..User::default()
                };
                Value::Opaque(Arc::new(Root(Who { user: Arc::new(user), ..self.0.clone() })))
            }
            _ => return None,
        }))
    }

    fn any(&self) -> &dyn Any {
        self
    }
}

#[derive(Debug)]
struct PathCheck {
    who: Who,
    path: String,
}

impl Opaque for PathCheck {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.PathCheck"
    }

    fn call(&self, function: &str, args: &[Value]) -> Option<Result<Value, EvalError>> {
        let ("check", [Value::String(verb)]) = (function, args) else { return None };
        Some(Ok(decide(&self.who, &Access { verb, path: &self.path, ..Access::default() })))
    }

    fn any(&self) -> &dyn Any {
        self
    }
}

#[derive(Debug)]
struct GroupCheck {
    who: Who,
    group: String,
}

impl Opaque for GroupCheck {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.GroupCheck"
    }

    fn call(&self, function: &str, args: &[Value]) -> Option<Result<Value, EvalError>> {
        let ("resource", [Value::String(resource)]) = (function, args) else { return None };
        let (who, group) = (self.who.clone(), self.group.clone());
        let empty = String::new;
        Some(Ok(Value::Opaque(Arc::new(ResourceCheck {
            who,
            group,
            resource: resource.to_string(),
            subresource: empty(),
            namespace: empty(),
            name: empty(),
            field_selector: empty(),
        }))))
    }

    fn any(&self) -> &dyn Any {
        self
    }
}

#[derive(Clone, Debug)]
struct ResourceCheck {
    who: Who,
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    field_selector: String,
}

impl Opaque for ResourceCheck {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.ResourceCheck"
    }

    fn call(&self, function: &str, args: &[Value]) -> Option<Result<Value, EvalError>> {
        let [Value::String(arg)] = args else { return None };
        let arg = arg.to_string();
        let mut next = self.clone();
        match function {
            "subresource" => next.subresource = arg,
            "namespace" => next.namespace = arg,
            "name" => next.name = arg,
            "fieldSelector" => next.field_selector = arg,
            // Nothing here authorizes by labels, so a selector of them neither helps nor harms.
            "labelSelector" => {}
            "check" => {
                let access = Access {
                    verb: &arg,
                    group: &self.group,
                    resource: &self.resource,
                    subresource: &self.subresource,
                    namespace: &self.namespace,
                    name: &self.name,
                    path: "",
                    field_selector: &self.field_selector,
                };
                return Some(Ok(decide(&self.who, &access)));
            }
            _ => return None,
        }
        Some(Ok(Value::Opaque(Arc::new(next))))
    }

    fn any(&self) -> &dyn Any {
        self
    }
}

fn decide(who: &Who, access: &Access<'_>) -> Value {
    let decision = who.authorizer.authorize(&who.user, access);
    Value::Opaque(Arc::new(Decision { allowed: decision.allowed, reason: decision.reason }))
}

#[derive(Debug)]
struct Decision {
    allowed: bool,
    reason: String,
}

impl Opaque for Decision {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }

    fn call(&self, function: &str, _: &[Value]) -> Option<Result<Value, EvalError>> {
        Some(Ok(match function {
            "allowed" => self.allowed.into(),
            "errored" => false.into(),
            "error" => "".into(),
            "reason" => self.reason.as_str().into(),
            _ => return None,
        }))
    }

    fn any(&self) -> &dyn Any {
        self
    }
}
