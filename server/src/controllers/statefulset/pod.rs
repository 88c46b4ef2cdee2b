//! A StatefulSet's pods and claims: names, identity, storage, revisions (`pkg/controller/statefulset/stateful_set_utils.go`). Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::controllers::control::controller_ref;
use crate::controllers::{history, pods};

/// Names the pod on its own label, for Services that select one pod.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The name of a set.
pub fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The first ordinal and the number of replicas.
pub fn ordinals(set: &StatefulSet) -> (i64, i64) {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|s| s.ordinals.as_ref()).and_then(|o| o.start).unwrap_or_default();
    (i64::from(start), i64::from(spec.and_then(|s| s.replicas).unwrap_or(1)))
}

/// `web-3` of `web` is 3; `None` for any other name.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i64> {
    let digits = pods::name(pod).strip_prefix(set_name(set))?.strip_prefix('-')?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i32>().ok().map(i64::from)).flatten()
}

/// The revision a pod was made from.
pub fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|l| l.get(history::HASH)).map_or("", String::as_str)
}

/// The name of a claim of a pod.
pub fn claim_name(set: &StatefulSet, template: &str, ordinal: i64) -> String {
    format!("{template}-{}-{ordinal}", set_name(set))
}

/// Whether a claim of this name could be one of the set's.
pub fn may_claim(set: &StatefulSet, name: &str) -> bool {
    let ordinal = |template: &PersistentVolumeClaim| {
        let prefix = format!("{}-{}-", template.metadata.name.as_deref().unwrap_or_default(), set_name(set));
        name.strip_prefix(&prefix).is_some_and(|digits| digits.parse::<u32>().is_ok())
    };
    claim_templates(set).iter().any(ordinal)
}

fn deletes(policy: Option<&String>) -> bool {
    policy.map(String::as_str) == Some("Delete")
}

/// Whether claims go with pods that are scaled away.
pub fn scaling_deletes_claims(set: &StatefulSet) -> bool {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    deletes(policy.and_then(|p| p.when_scaled.as_ref()))
}

/// Whether a claim belongs to an earlier pod of the same name.
pub fn is_owned_by_predecessor(claim: &PersistentVolumeClaim, pod: &Pod) -> bool {
    let earlier = |o: &OwnerReference| o.kind == "Pod" && o.name == pods::name(pod) && Some(&o.uid) != pod.metadata.uid.as_ref();
    claim.metadata.owner_references.iter().flatten().any(earlier)
}

fn claim_templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|s| s.volume_claim_templates.as_deref()).unwrap_or_default()
}

/// The claims of the pod with an ordinal.
pub fn claims(set: &StatefulSet, ordinal: i64) -> Vec<PersistentVolumeClaim> {
    let labels = set.spec.as_ref().and_then(|s| s.selector.match_labels.clone()).unwrap_or_default();
    let claim = |template: &PersistentVolumeClaim| {
        let name = claim_name(set, template.metadata.name.as_deref().unwrap_or_default(), ordinal);
        let mut own = template.metadata.labels.clone().unwrap_or_default();
        own.extend(labels.clone());
        PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(name),
                namespace: set.metadata.namespace.clone(),
                labels: Some(own),
                annotations: template.metadata.annotations.clone(),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    };
    claim_templates(set).iter().map(claim).collect()
}

fn volumes(set: &StatefulSet, ordinal: i64, present: &[Volume]) -> Vec<Volume> {
    let templates = claim_templates(set);
    let volume = |template: &PersistentVolumeClaim| {
        let name = template.metadata.name.clone().unwrap_or_default();
        let claim_name = claim_name(set, &name, ordinal);
        Volume { name, persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: Some(false) }), ..Volume::default() }
    };
    let own = present.iter().filter(|v| !templates.iter().any(|t| t.metadata.name.as_ref() == Some(&v.name)));
    templates.iter().map(volume).chain(own.cloned()).collect()
}

/// Gives a pod the identity and storage of its ordinal.
pub fn identify(set: &StatefulSet, pod: &mut Pod, ordinal: i64) {
    let name = format!("{}-{ordinal}", set_name(set));
    let labels: &mut BTreeMap<String, String> = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    pod.metadata.name = Some(name);
    pod.metadata.namespace = set.metadata.namespace.clone();
    let spec = pod.spec.get_or_insert_default();
    let all = volumes(set, ordinal, spec.volumes.as_deref().unwrap_or_default());
    spec.volumes = (!all.is_empty()).then_some(all);
}

/// Whether a pod has the identity and storage of its ordinal.
pub fn is_identified(set: &StatefulSet, pod: &Pod) -> bool {
    let Some(ordinal) = ordinal(set, pod) else { return false };
    let labels = pod.metadata.labels.as_ref();
    let wanted = volumes(set, ordinal, &[]);
    let present = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let claim = |v: &Volume| v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
    labels.and_then(|l| l.get(POD_NAME)).map(String::as_str) == Some(pods::name(pod))
        && wanted.iter().all(|w| present.iter().any(|p| p.name == w.name && claim(p) == claim(w)))
}

/// A new pod of a template and revision.
pub fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i64) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut pod = Pod {
        metadata: ObjectMeta {
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_ref(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone().unwrap_or_default()),
        status: None,
    };
    identify(set, &mut pod, ordinal);
    let name = pod.metadata.name.clone();
    if let Some(spec) = &mut pod.spec {
        spec.hostname = name;
        spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone());
    }
    pod.metadata.labels.get_or_insert_default().insert(history::HASH.into(), revision.to_owned());
    pod
}

/// The owners a claim should have by the set's retention policy: the set if claims go with it, the pod if they go with a pod that is
/// scaled away. `None` if it has them (`claimOwnerMatchesSetAndPod`).
pub fn claim_owners(set: &StatefulSet, pod: Option<&Pod>, claim: &PersistentVolumeClaim, condemned: bool) -> Option<Vec<OwnerReference>> {
    let policy = set.spec.as_ref().and_then(|s| s.persistent_volume_claim_retention_policy.clone()).unwrap_or_default();
    let before = claim.metadata.owner_references.clone().unwrap_or_default();
    if before
        .iter()
        .any(|o| o.controller == Some(true) && Some(&o.uid) != set.metadata.uid.as_ref() && Some(&o.uid) != pod.and_then(|p| p.metadata.uid.as_ref()))
    {
        // Somebody else's claim.
        return None;
    }
    let with_pod = condemned && deletes(policy.when_scaled.as_ref());
    let with_set = deletes(policy.when_deleted.as_ref()) && !with_pod;
    let plain = |mut owner: OwnerReference| {
        owner.controller = None;
        owner.block_owner_deletion = None;
        owner
    };
    let is_set = |o: &OwnerReference| o.kind == "StatefulSet" && o.name == set_name(set);
    let is_pod = |o: &OwnerReference| o.kind == "Pod" && pod.is_none_or(|p| o.name == pods::name(p));
    let mut wanted: Vec<OwnerReference> = before.iter().filter(|o| !is_set(o) && !is_pod(o)).cloned().collect();
    if with_set {
        wanted.push(plain(controller_ref(set)));
    }
    if let Some(pod) = pod.filter(|_| with_pod) {
        wanted.push(plain(controller_ref(pod)));
    }
    let key = |list: &[OwnerReference]| {
        let mut uids: Vec<String> = list.iter().map(|o| o.uid.clone()).collect();
        uids.sort();
        uids
    };
    (key(&wanted) != key(&before)).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(policy: (&str, &str)) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": { "name": "db", "namespace": "ns", "uid": "set" },
            "spec": {
                "serviceName": "db", "replicas": 3, "selector": { "matchLabels": { "app": "db" } },
                "template": { "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [] } },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": { "accessModes": ["ReadWriteOnce"] } }],
                "persistentVolumeClaimRetentionPolicy": { "whenDeleted": policy.0, "whenScaled": policy.1 },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_is_known_by_its_ordinal() {
        let set = set(("Retain", "Retain"));
        let template = set.spec.as_ref().unwrap().template.clone();
        let mut pod = new_pod(&set, &template, "db-abc", 2);
        assert_eq!((pods::name(&pod), ordinal(&set, &pod), revision(&pod)), ("db-2", Some(2), "db-abc"));
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.hostname.as_deref(), spec.subdomain.as_deref()), (Some("db-2"), Some("db")));
        assert_eq!(spec.volumes.as_ref().unwrap()[0].persistent_volume_claim.as_ref().unwrap().claim_name, "data-db-2");
        assert!(is_identified(&set, &pod));
        pod.metadata.labels.as_mut().unwrap().remove(POD_NAME);
        assert!(!is_identified(&set, &pod));
        for name in ["db", "db-", "db-x", "db-1-2", "other-1", "db--1"] {
            pod.metadata.name = Some(name.into());
            assert_eq!(ordinal(&set, &pod), None, "{name}");
        }
        let claims = claims(&set, 2);
        assert_eq!((claims[0].metadata.name.as_deref(), &claims[0].metadata.labels.as_ref().unwrap()["app"]), (Some("data-db-2"), &"db".to_owned()));
    }

    #[test]
    fn a_claim_of_an_earlier_pod_of_the_name_is_known_as_such() {
        let set = set(("Retain", "Delete"));
        let mut pod = new_pod(&set, &set.spec.as_ref().unwrap().template, "r", 0);
        let mut claim = claims(&set, 0).remove(0);
        assert!(!is_owned_by_predecessor(&claim, &pod));
        let mut owner = controller_ref(&pod);
        owner.uid = "old".into();
        claim.metadata.owner_references = Some(vec![owner]);
        assert!(is_owned_by_predecessor(&claim, &pod));
        pod.metadata.uid = Some("old".into());
        assert!(!is_owned_by_predecessor(&claim, &pod));
        assert!(scaling_deletes_claims(&set));
        for (name, expected) in [("data-db-0", true), ("data-db-x", false), ("data-other-0", false), ("data-db-1-0", false)] {
            assert_eq!(may_claim(&set, name), expected, "{name}");
        }
    }

    #[test]
    fn claims_go_with_whom_the_policy_says() {
        for (policy, condemned, expected) in [
            (("Retain", "Retain"), false, vec![]),
            (("Retain", "Retain"), true, vec![]),
            (("Delete", "Retain"), false, vec!["set"]),
            (("Delete", "Delete"), false, vec!["set"]),
            (("Retain", "Delete"), false, vec![]),
            (("Retain", "Delete"), true, vec!["pod"]),
            (("Delete", "Delete"), true, vec!["pod"]),
        ] {
            let set = set(policy);
            let mut pod = new_pod(&set, &set.spec.as_ref().unwrap().template, "r", 0);
            pod.metadata.uid = Some("pod".into());
            let mut claim = claims(&set, 0).remove(0);
            let owners = claim_owners(&set, Some(&pod), &claim, condemned).unwrap_or_default();
            assert_eq!(owners.iter().map(|o| o.uid.as_str()).collect::<Vec<_>>(), expected, "{policy:?} {condemned}");
            claim.metadata.owner_references = Some(owners);
            assert_eq!(claim_owners(&set, Some(&pod), &claim, condemned), None);
        }
    }
}
