//! Objects on their way through a build: what they are called now, and what they were called before. Pure.

use anyhow::{Result, anyhow, bail};
use serde_json::{Map, Value, json};

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

/// Built-in kinds whose objects live in no namespace; any other kind is taken to live in one.
const CLUSTER_SCOPED: &[&str] = &[
    "APIService",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterTrustBundle",
    "ComponentStatus",
    "CustomResourceDefinition",
    "DeviceClass",
    "FlowSchema",
    "IPAddress",
    "IngressClass",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "ResourceSlice",
    "RuntimeClass",
    "SelfSubjectAccessReview",
    "SelfSubjectRulesReview",
    "ServiceCIDR",
    "StorageClass",
    "SubjectAccessReview",
    "TokenReview",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
    "VolumeAttributesClass",
];

impl Id {
    /// The id that an object gives itself.
    pub fn of(object: &Value) -> Id {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let api_version = text(&object["apiVersion"]);
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", &api_version));
        Id {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: text(&object["kind"]),
            name: text(&object["metadata"]["name"]),
            namespace: text(&object["metadata"]["namespace"]),
        }
    }

    /// Whether the kind is Kubernetes' own.
    pub fn is_built_in(&self) -> bool {
        !self.group.contains('.') || self.group.ends_with(".k8s.io")
    }

    /// Whether the object lives in no namespace.
    pub fn is_cluster_scoped(&self) -> bool {
        self.is_built_in() && CLUSTER_SCOPED.contains(&self.kind.as_str())
    }

    /// No namespace means the default one.
    pub fn effective_namespace(&self) -> &str {
        match self.namespace.as_str() {
            _ if self.is_cluster_scoped() => "_non_namespaceable_",
            "" => "default",
            namespace => namespace,
        }
    }

    /// Whether both name one object.
    pub fn is_same(&self, other: &Id) -> bool {
        self.effective_namespace() == other.effective_namespace()
            && (&self.group, &self.version, &self.kind, &self.name) == (&other.group, &other.version, &other.kind, &other.name)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or = |text: &str, none: &str| if text.is_empty() { format!("[no{none}]") } else { text.to_owned() };
        let (kind, version, group) = (or(&self.kind, "Kind"), or(&self.version, "Ver"), or(&self.group, "Grp"));
        write!(f, "{kind}.{version}.{group}/{}.{}", or(&self.name, "Name"), or(&self.namespace, "Ns"))
    }
}

/// An object and its past.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The object.
    pub object: Value,
    /// Its ids before each change of name or namespace, the first one first.
    pub previous: Vec<Id>,
    /// What was put in front of its name, and behind.
    pub prefixes: Vec<String>,
    pub suffixes: Vec<String>,
    /// Its name is to end in a hash of its content.
    pub needs_hash: bool,
}

impl Resource {
    /// An object that has no past.
    pub fn new(object: Value) -> Resource {
        Resource { object, previous: Vec::new(), prefixes: Vec::new(), suffixes: Vec::new(), needs_hash: false }
    }

    /// What it is called now.
    pub fn id(&self) -> Id {
        Id::of(&self.object)
    }

    /// What it was called first.
    pub fn original_id(&self) -> Id {
        self.previous.first().cloned().unwrap_or_else(|| self.id())
    }

    /// Every id it has or had.
    pub fn ids(&self) -> Vec<Id> {
        let mut ids = self.previous.clone();
        ids.push(self.id());
        ids
    }

    /// Keeps today's id before it changes.
    pub fn remember(&mut self) {
        let id = self.id();
        if self.previous.last() != Some(&id) {
            self.previous.push(id);
        }
    }

    /// Gives it another name.
    pub fn rename(&mut self, name: &str) {
        self.object["metadata"]["name"] = json!(name);
    }

    /// A map of its metadata or body, made when it is not there.
    pub fn map_mut<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
        let mut at = object;
        for part in path {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[*part];
        }
        if !at.is_object() {
            *at = json!({});
        }
        match at {
            Value::Object(map) => map,
            _ => unreachable!("it was made an object above"),
        }
    }
}

/// What to do with a generated object that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    Create,
    Merge,
    Replace,
}

/// The objects of a build, in order.
#[derive(Clone, Debug, Default)]
pub struct Resources(pub Vec<Resource>);

impl Resources {
    /// Adds an object that must be new.
    pub fn append(&mut self, resource: Resource) -> Result<()> {
        let id = resource.id();
        if self.0.iter().any(|r| r.id().is_same(&id)) {
            bail!("may not add resource with an already registered id: {id}");
        }
        self.0.push(resource);
        Ok(())
    }

    /// The one object that has or had an id.
    pub fn by_any_id(&mut self, id: &Id) -> Result<&mut Resource> {
        let mut found: Vec<&mut Resource> = self.0.iter_mut().filter(|r| r.ids().iter().any(|i| i.is_same(id))).collect();
        match found.len() {
            0 => bail!("no matches for Id {id}; failed to find unique target for patch {id}"),
            1 => Ok(found.remove(0)),
            _ => bail!("multiple matches for Id {id}; failed to find unique target for patch {id}"),
        }
    }

    /// Adds a generated object, or folds it into the one that is there.
    pub fn absorb(&mut self, mut resource: Resource, behavior: Behavior) -> Result<()> {
        let id = resource.id();
        let mut matching = self.0.iter_mut().filter(|r| r.ids().iter().any(|i| i.is_same(&id)));
        let Some(old) = matching.next() else {
            if behavior == Behavior::Create {
                return self.append(resource);
            }
            bail!("id {id} does not exist; cannot merge or replace");
        };
        if matching.next().is_some() {
            bail!("found multiple objects that could accept merge of {id}");
        }
        if behavior == Behavior::Create {
            bail!("id {id} exists; behavior must be merge or replace");
        }
        for field in ["labels", "annotations"] {
            overlay(&mut resource.object["metadata"], &old.object["metadata"], field);
        }
        if behavior == Behavior::Merge {
            for field in ["data", "binaryData"] {
                overlay(&mut resource.object, &old.object, field);
            }
        }
        resource.rename(&old.id().name);
        if let Some(namespace) = old.object["metadata"].get("namespace") {
            resource.object["metadata"]["namespace"] = namespace.clone();
        }
        resource.needs_hash |= old.needs_hash;
        *old = Resource { object: resource.object, needs_hash: resource.needs_hash, ..old.clone() };
        Ok(())
    }
}

/// Fills in the entries of a map that only the older object has.
fn overlay(new: &mut Value, old: &Value, field: &str) {
    let Some(entries) = old.get(field).and_then(Value::as_object).filter(|m| !m.is_empty()) else { return };
    let mut merged = entries.clone();
    merged.extend(new.get(field).and_then(Value::as_object).cloned().unwrap_or_default());
    new[field] = Value::Object(merged);
}

/// An object of a file, checked for what every object has.
pub fn checked(object: Value) -> Result<Resource> {
    let missing = |field: &str| anyhow!("missing {field} in object {}", shared::gojson::compact(&object));
    if object["kind"].as_str().unwrap_or_default().is_empty() {
        return Err(missing("kind"));
    }
    if object["metadata"]["name"].as_str().unwrap_or_default().is_empty() {
        return Err(missing("metadata.name"));
    }
    Ok(Resource::new(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str, data: Value) -> Resource {
        Resource::new(json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data }))
    }

    #[test]
    fn generated_objects_are_created_merged_or_replaced() {
        let mut all = Resources::default();
        let mut first = map("base", json!({ "a": "1", "b": "1" }));
        first.remember();
        first.rename("pre-base");
        first.needs_hash = true;
        all.append(first).unwrap();
        assert!(all.clone().absorb(map("base", json!({})), Behavior::Create).is_err());
        assert!(all.clone().absorb(map("other", json!({})), Behavior::Merge).is_err());
        let mut merged = all.clone();
        merged.absorb(map("base", json!({ "b": "2" })), Behavior::Merge).unwrap();
        assert_eq!((&merged.0[0].object["data"], merged.0[0].id().name.as_str()), (&json!({ "a": "1", "b": "2" }), "pre-base"));
        assert!(merged.0[0].needs_hash);
        all.absorb(map("base", json!({ "b": "2" })), Behavior::Replace).unwrap();
        assert_eq!(all.0[0].object["data"], json!({ "b": "2" }));
    }

    #[test]
    fn the_default_namespace_is_no_namespace() {
        let mut all = Resources::default();
        all.append(map("a", json!({}))).unwrap();
        let mut other = map("a", json!({}));
        other.object["metadata"]["namespace"] = json!("default");
        assert_eq!(
            all.append(other.clone()).unwrap_err().to_string(),
            "may not add resource with an already registered id: ConfigMap.v1.[noGrp]/a.default"
        );
        other.object["metadata"]["namespace"] = json!("x");
        all.append(other).unwrap();
    }
}
