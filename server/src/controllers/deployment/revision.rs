//! Which ReplicaSet is a deployment's newest, and the annotations and labels that keep its history (`util/deployment_util.go`). Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::rollout::Limits;
use crate::controllers::control::controller_ref;

/// Number of the deployment's or ReplicaSet's revision.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Earlier numbers of a ReplicaSet that was rolled back to.
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// The deployment's size when the ReplicaSet was last scaled.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// The deployment's size and surge when the ReplicaSet was last scaled.
pub const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Tells the pods of a deployment's ReplicaSets apart.
pub const HASH: &str = "pod-template-hash";
/// Longest history kept, in characters.
const HISTORY_LENGTH: usize = 2000;
/// Annotations of a deployment that its ReplicaSets do not inherit.
const NOT_COPIED: &[&str] =
    &["kubectl.kubernetes.io/last-applied-configuration", REVISION, REVISION_HISTORY, DESIRED, MAX, "deprecated.deployment.rollback.to"];

type Annotations = BTreeMap<String, String>;

/// The annotations of an object, none if there are none.
pub fn annotations(meta: &ObjectMeta) -> Annotations {
    meta.annotations.clone().unwrap_or_default()
}

/// A whole number in an annotation.
pub fn number(meta: &ObjectMeta, key: &str) -> Option<i32> {
    meta.annotations.as_ref()?.get(key)?.parse().ok()
}

/// The revision of a ReplicaSet, 0 if it has none.
pub fn revision(meta: &ObjectMeta) -> i64 {
    meta.annotations.as_ref().and_then(|a| a.get(REVISION)).and_then(|v| v.parse().ok()).unwrap_or_default()
}

/// A template as plain data, without what never makes a difference: the hash label, empty lists and nulls.
fn canonical(template: &PodTemplateSpec) -> Value {
    fn prune(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(prune);
                fields.retain(|_, v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()));
            }
            Value::Array(items) => items.iter_mut().for_each(prune),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("creationTimestamp");
        if let Some(labels) = meta.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(HASH);
        }
        meta.retain(|_, v| v.as_object().is_none_or(|o| !o.is_empty()));
    }
    if value.get("metadata").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
        && let Some(fields) = value.as_object_mut()
    {
        fields.remove("metadata");
    }
    prune(&mut value);
    value
}

/// Whether two templates make the same pods (`EqualIgnoreHash`).
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a == b || canonical(a) == canonical(b)
}

/// The value of the hash label for a template: FNV-1a over its canonical JSON, written in the alphabet of upstream's `SafeEncodeString`.
/// The same template always has the same hash; `collisions` makes another of it when the name is taken.
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    encode(fnv(&canonical(template).to_string(), collisions))
}

/// FNV-1a, 32 bits, of a text and a count of collisions.
pub fn fnv(text: &str, collisions: Option<i32>) -> u32 {
    let tail = collisions.map(|c| u64::from(c.unsigned_abs()).to_le_bytes());
    let bytes = text.bytes().chain(tail.into_iter().flatten());
    bytes.fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A number in letters that make no words (`rand.SafeEncodeString`).
pub fn encode(number: u32) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    number.to_string().bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// By age, then by name, as upstream sorts where order matters.
pub fn by_age(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp).then_with(|| a.metadata.name.cmp(&b.metadata.name))
}

/// Whether a ReplicaSet has the deployment's template.
pub fn is_new(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let (Some(wanted), Some(has)) = (&deployment.spec, set.spec.as_ref().and_then(|s| s.template.as_ref())) else { return false };
    same_template(&wanted.template, has)
}

/// The ReplicaSet with the deployment's template (the oldest of several, deterministically) and all others.
pub fn split(deployment: &Deployment, sets: &[Arc<ReplicaSet>]) -> (Option<Arc<ReplicaSet>>, Vec<Arc<ReplicaSet>>) {
    let mut sets = sets.to_vec();
    sets.sort_by(|a, b| by_age(a, b));
    let at = sets.iter().position(|s| is_new(deployment, s));
    let new = at.map(|i| sets.remove(i));
    (new, sets)
}

/// The annotations of a ReplicaSet after a sync under `new_revision` (`SetNewReplicaSetAnnotations`).
pub fn inherit(deployment: &Deployment, mut set: Annotations, new_revision: i64, exists: bool, limits: &Limits) -> Annotations {
    for (key, value) in deployment.metadata.annotations.iter().flatten() {
        if !NOT_COPIED.contains(&key.as_str()) {
            set.insert(key.clone(), value.clone());
        }
    }
    let old = set.get(REVISION).cloned();
    let old_number: i64 = old.as_deref().and_then(|v| v.parse().ok()).unwrap_or_default();
    if old_number < new_revision {
        set.insert(REVISION.into(), new_revision.to_string());
        if let Some(old) = old.filter(|o| !o.is_empty()) {
            let history = set.get(REVISION_HISTORY).cloned().unwrap_or_default();
            set.insert(REVISION_HISTORY.into(), extend_history(&history, &old));
        }
    }
    if !exists {
        set.insert(DESIRED.into(), limits.desired.to_string());
        set.insert(MAX.into(), limits.most().to_string());
    }
    set
}

fn extend_history(history: &str, old: &str) -> String {
    let mut numbers: Vec<&str> = history.split(',').filter(|n| !n.is_empty()).chain([old]).collect();
    while numbers.len() > 1 && numbers.iter().map(|n| n.len() + 1).sum::<usize>() - 1 > HISTORY_LENGTH {
        numbers.remove(0);
    }
    numbers.join(",")
}

/// A new ReplicaSet for the deployment's template.
pub fn new_set(deployment: &Deployment, replicas: i32, revision: i64, limits: &Limits) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = hash(&spec.template, deployment.status.as_ref().and_then(|s| s.collision_count));
    let mut template = spec.template;
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().insert(HASH.into(), hash.clone());
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let kept: String = name.chars().take(252 - hash.len()).collect();
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{kept}-{hash}")),
            namespace: deployment.metadata.namespace.clone(),
            owner_references: Some(vec![controller_ref(deployment)]),
            labels: Some(labels),
            annotations: Some(inherit(deployment, Annotations::new(), revision, false, limits)),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec { replicas: Some(replicas), min_ready_seconds: spec.min_ready_seconds, selector, template: Some(template) }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Container, PodSpec};

    use super::*;

    fn template(image: &str, labels: &[(&str, &str)]) -> PodTemplateSpec {
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let container = Container { name: "c".into(), image: Some(image.into()), ..Container::default() };
        PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: (!labels.is_empty()).then_some(labels), ..ObjectMeta::default() }),
            spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }),
        }
    }

    #[test]
    fn the_hash_label_and_empty_lists_do_not_make_another_template() {
        let plain = template("nginx", &[("app", "a")]);
        let labelled = template("nginx", &[("app", "a"), (HASH, "abc")]);
        assert!(same_template(&plain, &labelled));
        assert_eq!(hash(&plain, None), hash(&labelled, None));
        let mut empty_list = plain.clone();
        empty_list.spec.as_mut().unwrap().volumes = Some(Vec::new());
        assert!(same_template(&plain, &empty_list));
        assert!(same_template(&template("nginx", &[]), &PodTemplateSpec { metadata: None, ..template("nginx", &[]) }));
        assert!(!same_template(&plain, &template("nginx:2", &[("app", "a")])));
        assert_ne!(hash(&plain, None), hash(&template("nginx:2", &[("app", "a")]), None));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
    }

    #[test]
    fn hashes_use_upstreams_alphabet() {
        assert!(encode(u32::MAX).bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b)));
        // '0' is 48 = 27 + 21, the 22nd letter; '9' is 57 = 2 * 27 + 3, the 4th.
        assert_eq!(encode(0), "4");
        assert_eq!(encode(9), "f");
    }

    #[test]
    fn a_rollback_keeps_the_history_of_revisions() {
        let mut deployment = Deployment::default();
        deployment.metadata.annotations =
            Some([("kubernetes.io/change-cause".to_owned(), "why".to_owned()), (REVISION.to_owned(), "7".to_owned())].into());
        let limits = Limits { desired: 3, surge: 1, unavailable: 0 };
        let first = inherit(&deployment, Annotations::new(), 1, false, &limits);
        assert_eq!(first[REVISION], "1");
        assert_eq!((first[DESIRED].as_str(), first[MAX].as_str()), ("3", "4"));
        assert_eq!(first["kubernetes.io/change-cause"], "why");
        assert!(!first.contains_key(REVISION_HISTORY));
        let third = inherit(&deployment, inherit(&deployment, first, 3, true, &limits), 5, true, &limits);
        assert_eq!((third[REVISION].as_str(), third[REVISION_HISTORY].as_str()), ("5", "1,3"));
        let unchanged = inherit(&deployment, third.clone(), 5, true, &limits);
        assert_eq!(third, unchanged);
        let long = (0..1500).fold(String::new(), |h, n| extend_history(&h, &n.to_string()));
        assert!(long.len() <= HISTORY_LENGTH && long.ends_with(",1499"));
    }
}
