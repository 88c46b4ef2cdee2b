//! Checks built-in kinds against k8s-openapi's types and tells unknown fields and wrong types by position.
//!
//! Every type names its fields when it is deserialised, so a deserialiser over the tree can compare them with what is written:
//! the types are the schema. Kinds not listed here are left to the server.

use std::cell::RefCell;

use k8s_openapi::api::{apps, autoscaling, batch, core, networking, policy, rbac, scheduling, storage};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde_json::Value;

use super::diagnose::Problem;
use super::tree::{Content, Node, Position};

type Check = fn(&Node, &Findings<'_>);

/// The kinds that are checked before anything is sent.
const KINDS: &[(&str, &str, Check)] = &[
    ("v1", "Pod", check_as::<core::v1::Pod>),
    ("v1", "Service", check_as::<core::v1::Service>),
    ("v1", "ConfigMap", check_as::<core::v1::ConfigMap>),
    ("v1", "Secret", check_as::<core::v1::Secret>),
    ("v1", "Namespace", check_as::<core::v1::Namespace>),
    ("v1", "Node", check_as::<core::v1::Node>),
    ("v1", "ServiceAccount", check_as::<core::v1::ServiceAccount>),
    ("v1", "ResourceQuota", check_as::<core::v1::ResourceQuota>),
    ("v1", "LimitRange", check_as::<core::v1::LimitRange>),
    ("v1", "Endpoints", check_as::<core::v1::Endpoints>),
    ("v1", "PersistentVolume", check_as::<core::v1::PersistentVolume>),
    ("v1", "PersistentVolumeClaim", check_as::<core::v1::PersistentVolumeClaim>),
    ("v1", "ReplicationController", check_as::<core::v1::ReplicationController>),
    ("apps/v1", "Deployment", check_as::<apps::v1::Deployment>),
    ("apps/v1", "ReplicaSet", check_as::<apps::v1::ReplicaSet>),
    ("apps/v1", "DaemonSet", check_as::<apps::v1::DaemonSet>),
    ("apps/v1", "StatefulSet", check_as::<apps::v1::StatefulSet>),
    ("batch/v1", "Job", check_as::<batch::v1::Job>),
    ("batch/v1", "CronJob", check_as::<batch::v1::CronJob>),
    ("autoscaling/v2", "HorizontalPodAutoscaler", check_as::<autoscaling::v2::HorizontalPodAutoscaler>),
    ("networking.k8s.io/v1", "Ingress", check_as::<networking::v1::Ingress>),
    ("networking.k8s.io/v1", "NetworkPolicy", check_as::<networking::v1::NetworkPolicy>),
    ("policy/v1", "PodDisruptionBudget", check_as::<policy::v1::PodDisruptionBudget>),
    ("rbac.authorization.k8s.io/v1", "Role", check_as::<rbac::v1::Role>),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", check_as::<rbac::v1::RoleBinding>),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", check_as::<rbac::v1::ClusterRole>),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", check_as::<rbac::v1::ClusterRoleBinding>),
    ("scheduling.k8s.io/v1", "PriorityClass", check_as::<scheduling::v1::PriorityClass>),
    ("storage.k8s.io/v1", "StorageClass", check_as::<storage::v1::StorageClass>),
];

/// Everything the schema has to say about a document; nothing for kinds it does not know.
pub fn check(node: &Node, source: &str) -> Vec<Problem> {
    let problems = RefCell::new(Vec::new());
    let kind = node.get("kind").map(Node::text).unwrap_or_default();
    let version = node.get("apiVersion").map(Node::text).unwrap_or_default();
    let findings = Findings { source, kind, problems: &problems, root: node };
    if kind == "List" {
        if let Some(Node { content: Content::Sequence(items), .. }) = node.get("items") {
            return items.iter().flat_map(|item| check(item, source)).collect();
        }
    } else if let Some((_, _, check)) = KINDS.iter().find(|(v, k, _)| *v == version && *k == kind) {
        check(node, &findings);
    } else {
        misspelt_head(node, &findings);
    }
    problems.into_inner()
}

fn check_as<T: DeserializeOwned>(node: &Node, findings: &Findings<'_>) {
    let checker = Checker { node, path: String::new(), findings };
    if let Err(Wrong(Some((at, message)))) = T::deserialize(checker) {
        findings.problems.borrow_mut().push(Problem { source: findings.source.to_owned(), at, message, hint: None });
    }
}

/// `piVersion` and `netadata`: words that only resemble those every object begins with.
fn misspelt_head(node: &Node, findings: &Findings<'_>) {
    const HEAD: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
    let Content::Mapping(entries) = &node.content else { return };
    for (key, at, _) in entries {
        let near = HEAD.iter().find(|h| *h != key && crate::suggest::distance(key, h) <= 2 && node.get(h).is_none());
        if let Some(wanted) = near {
            findings.add(*at, format!("unknown field {key:?}"), Some(format!("hint: did you mean {wanted:?}?")));
        }
    }
}

struct Findings<'a> {
    source: &'a str,
    kind: &'a str,
    problems: &'a RefCell<Vec<Problem>>,
    root: &'a Node,
}

impl Findings<'_> {
    fn add(&self, at: Position, message: String, hint: Option<String>) {
        self.problems.borrow_mut().push(Problem { source: self.source.to_owned(), at, message, hint });
    }

    fn unknown(&self, key: &str, at: Position, path: &str, fields: &'static [&'static str]) {
        let full = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let name = self.root.get("metadata").and_then(|m| m.get("name")).map(Node::text).unwrap_or_default();
        let owner = if name.is_empty() { self.kind.to_owned() } else { format!("{} {name:?}", self.kind) };
        let near = fields.iter().filter(|f| crate::suggest::distance(key, f) <= 2).min_by_key(|f| crate::suggest::distance(key, f));
        let hint = match near {
            Some(near) => Some(format!("hint: did you mean {near:?}?")),
            None if path.is_empty() && fields.contains(&"spec") && self.fits_spec(key) => {
                Some(format!("hint: {key:?} belongs inside \"spec\": did you mean spec.{key}? Indent it, and what is below it, by two spaces more"))
            }
            None => fits_below(fields, key)
                .map(|parent| format!("hint: {key:?} is a field of {parent:?}; did you mean {}?", join(path, &format!("{parent}.{key}")))),
        };
        self.add(at, format!("unknown field {full:?} in {owner}"), hint);
    }

    /// Whether the key would be known inside `spec`: asked of the type itself.
    fn fits_spec(&self, key: &str) -> bool {
        let version = self.root.get("apiVersion").map(Node::text).unwrap_or_default();
        let Some((_, _, check)) = KINDS.iter().find(|(v, k, _)| *v == version && *k == self.kind) else { return false };
        let at = Position::default();
        let null = Node { at, content: Content::Scalar(Value::Null) };
        let spec = Node { at, content: Content::Mapping(vec![(key.to_owned(), at, null)]) };
        let probe = Node { at, content: Content::Mapping(vec![("spec".to_owned(), at, spec)]) };
        let problems = RefCell::new(Vec::new());
        check(&probe, &Findings { problems: &problems, source: "", kind: "", root: &probe });
        !problems.borrow().iter().any(|p: &Problem| p.message.contains("unknown field"))
    }
}

/// Fields that are often written one level too high.
fn fits_below(fields: &[&str], key: &str) -> Option<&'static str> {
    const NESTED: &[(&str, &[&str])] = &[
        ("metadata", &["name", "namespace", "labels", "annotations"]),
        ("template", &["containers", "restartPolicy", "volumes"]),
        ("securityContext", &["privileged", "runAsUser", "runAsNonRoot", "capabilities"]),
        ("resources", &["limits", "requests"]),
    ];
    NESTED.iter().find(|(parent, keys)| fields.contains(parent) && keys.contains(&key)).map(|(parent, _)| *parent)
}

fn join(path: &str, rest: &str) -> String {
    if path.is_empty() { rest.to_owned() } else { format!("{path}.{rest}") }
}

/// A value of the wrong type: where, and what is wrong. Without a place the type itself complained, and its container places it.
#[derive(Debug)]
struct Wrong(Option<(Position, String)>);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_ref().map_or("", |(_, m)| m))
    }
}
impl std::error::Error for Wrong {}
impl de::Error for Wrong {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Wrong(Some((Position::default(), message.to_string())))
    }
}

#[derive(Clone)]
struct Checker<'a> {
    node: &'a Node,
    path: String,
    findings: &'a Findings<'a>,
}

impl<'a> Checker<'a> {
    fn place<T>(&self, result: Result<T, Wrong>) -> Result<T, Wrong> {
        result.map_err(|Wrong(found)| match found {
            Some((at, message)) if at == Position::default() => {
                let path = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
                Wrong(Some((self.node.at, format!("{path}{message}"))))
            }
            other => Wrong(other),
        })
    }

    /// Go's decoder reads Base64 over several lines.
    fn is_base64(&self) -> bool {
        match self.findings.kind {
            "Secret" => self.path.starts_with("data."),
            "ConfigMap" => self.path.starts_with("binaryData."),
            _ => false,
        }
    }

    fn visit<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Wrong> {
        let result = match &self.node.content {
            Content::Scalar(Value::Null) => visitor.visit_unit(),
            Content::Scalar(Value::Bool(b)) => visitor.visit_bool(*b),
            Content::Scalar(Value::String(s)) if self.is_base64() => visitor.visit_str(&s.replace(['\n', '\r'], "")),
            Content::Scalar(Value::String(s)) => visitor.visit_str(s),
            Content::Scalar(Value::Number(n)) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(i), _, _) => visitor.visit_i64(i),
                (_, Some(u), _) => visitor.visit_u64(u),
                (_, _, f) => visitor.visit_f64(f.unwrap_or_default()),
            },
            Content::Scalar(_) => visitor.visit_unit(),
            Content::Sequence(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), owner: self }),
            Content::Mapping(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None, owner: self }),
        };
        self.place(result)
    }
}

impl<'de, 'a> de::Deserializer<'de> for Checker<'a> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.visit(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.node.content {
            Content::Scalar(Value::Null) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Wrong> {
        // The server takes bare numbers for quantities.
        if name == "Quantity"
            && let Content::Scalar(Value::Number(n)) = &self.node.content
        {
            return visitor.visit_newtype_struct(n.to_string().into_deserializer());
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(self, _: &'static str, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Wrong> {
        if let Content::Mapping(entries) = &self.node.content {
            for (key, at, _) in entries {
                let head = self.path.is_empty() && matches!(key.as_str(), "apiVersion" | "kind");
                if !fields.contains(&key.as_str()) && !head {
                    self.findings.unknown(key, *at, &self.path, fields);
                }
            }
        }
        self.visit(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map enum identifier
        ignored_any
    }
}

struct Items<'a, 'b> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    owner: &'b Checker<'a>,
}

impl<'de> de::SeqAccess<'de> for Items<'_, '_> {
    type Error = Wrong;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let child = Checker { node, path: format!("{}[{index}]", self.owner.path), findings: self.owner.findings };
        let placed = child.clone();
        placed.place(seed.deserialize(child)).map(Some)
    }
}

struct Entries<'a, 'b> {
    entries: std::slice::Iter<'a, (String, Position, Node)>,
    value: Option<&'a (String, Position, Node)>,
    owner: &'b Checker<'a>,
}

impl<'de> de::MapAccess<'de> for Entries<'_, '_> {
    type Error = Wrong;

    fn next_key_seed<K: de::DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.value = self.entries.next();
        self.value.map(|(key, _, _)| seed.deserialize(key.as_str().into_deserializer())).transpose()
    }

    fn next_value_seed<T: de::DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        let Some((key, _, node)) = self.value.take() else { return Err(Wrong(None)) };
        let child = Checker { node, path: join(&self.owner.path, key), findings: self.owner.findings };
        let placed = child.clone();
        placed.place(seed.deserialize(child))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::check;

    fn told(text: &str) -> Vec<String> {
        tree::documents(text).unwrap().iter().flat_map(|n| check(n, "x.yaml")).map(|p| p.to_string()).collect()
    }

    #[test]
    fn a_field_outside_spec_is_sent_back_inside() {
        let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\nspec:\n  type: NodePort\nports:\n- port: 80\n";
        let said = told(text);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].starts_with("x.yaml:7:1: unknown field \"ports\" in Service \"s\""), "{}", said[0]);
        assert!(said[0].contains("did you mean spec.ports?"), "{}", said[0]);
    }

    #[test]
    fn misspelt_words_get_a_suggestion() {
        assert!(told("piVersion: v1\nkind: Pod\nmetadata: {name: x}\n")[0].contains("did you mean \"apiVersion\"?"));
        assert!(told("apiVersion: v1\nkind: Pod\nnetadata: {name: x}\n")[0].contains("did you mean \"metadata\"?"));
        let deep = told("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: a\n    imagee: b\n");
        assert_eq!(deep[0].lines().next().unwrap(), "x.yaml:6:5: unknown field \"spec.containers[0].imagee\" in Pod");
    }

    #[test]
    fn wrong_types_are_placed() {
        let said = told("apiVersion: apps/v1\nkind: Deployment\nspec:\n  replicas: three\n  selector: {}\n  template: {}\n");
        assert!(said[0].starts_with("x.yaml:4:13: spec.replicas: invalid type: string \"three\""), "{said:?}");
    }

    #[test]
    fn whole_and_unknown_kinds_pass() {
        assert!(
            told("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, creationTimestamp: null}\ndata: {a: b}\nbinaryData: {c: aGk=}\n").is_empty()
        );
        assert!(told("apiVersion: example.com/v1\nkind: Foo\nwhatever: 1\n").is_empty());
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - name: a\n    image: b\n    ports: [{containerPort: 80}]\n    resources: {limits: {cpu: 1}}\n    livenessProbe: {httpGet: {port: http}}\n";
        assert_eq!(told(pod), Vec::<String>::new());
    }
}
