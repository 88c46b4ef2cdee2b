//! Which parts of a configuration are owned as a whole, so that merging it would take away what it does not name
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go`, `findAtomics`).

use serde_json::Value;

use super::path::PathElement;
use super::schema::{Form, Node, Type};

/// The paths of lists and objects in a configuration that are atomic, e.g. `.spec.template.spec.tolerations`.
pub fn atomics(of: Type, config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(of.root(), config, "", &mut found);
    found
}

fn walk(node: Node, config: &Value, path: &str, found: &mut Vec<String>) {
    match config {
        Value::Object(fields) => {
            if node.form(config) != Form::Object {
                return found.push(path.to_owned());
            }
            for (name, value) in fields {
                walk(node.child(&PathElement::field(name)), value, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(items) => {
            if node.form(config) != Form::List {
                return found.push(path.to_owned());
            }
            for ((name, item), index) in super::walk::items(node, items).iter().zip(0..) {
                walk(node.child(name), item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_without_keys_are_atomic() {
        let of = Type::of("apps/v1", "Deployment");
        let container = json!({"name": "a", "env": [{"name": "X", "value": "1"}], "args": ["x"]});
        let config = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": [container]}}}});
        assert_eq!(atomics(of, &config), [".spec.template.spec.containers[0].args"]);
    }
}
