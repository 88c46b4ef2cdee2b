//! The `Scale` of kinds that have one (`autoscaling/v1`): what `…/scale` reads and writes.
//!
//! Pure; the API's handlers and the autoscaler's view of a kind both come from here.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use shared::field::{ErrorList, Path};
use shared::selector::Selector;

use super::validation::not_negative;
use super::{Object, Resource};

/// The parts of an object that its scale shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Replicas wanted.
    pub replicas: i32,
    /// Replicas there are.
    pub status_replicas: i32,
    /// The selector of its pods, as text.
    pub selector: String,
}

/// The scale of an object; `None` for kinds without one.
pub fn of(object: &Object) -> Option<Parts> {
    if let Some(o) = object.downcast_ref::<Deployment>() {
        let spec = o.spec.as_ref();
        Some(parts(spec.and_then(|s| s.replicas), o.status.as_ref().and_then(|s| s.replicas), spec.map(|s| &s.selector)))
    } else if let Some(o) = object.downcast_ref::<ReplicaSet>() {
        let spec = o.spec.as_ref();
        Some(parts(spec.and_then(|s| s.replicas), o.status.as_ref().map(|s| s.replicas), spec.map(|s| &s.selector)))
    } else if let Some(o) = object.downcast_ref::<StatefulSet>() {
        let spec = o.spec.as_ref();
        Some(parts(spec.and_then(|s| s.replicas), o.status.as_ref().map(|s| s.replicas), spec.map(|s| &s.selector)))
    } else if let Some(o) = object.downcast_ref::<ReplicationController>() {
        let spec = o.spec.as_ref();
        let selector = spec.and_then(|s| s.selector.clone()).unwrap_or_default();
        let mut parts = parts(spec.and_then(|s| s.replicas), o.status.as_ref().map(|s| s.replicas), None);
        parts.selector = Selector::from_map(&selector).to_string();
        Some(parts)
    } else {
        None
    }
}

fn parts(replicas: Option<i32>, status_replicas: Option<i32>, selector: Option<&LabelSelector>) -> Parts {
    let selector = selector.and_then(|s| Selector::from_label_selector(Some(s)).ok()).map(|s| s.to_string());
    Parts { replicas: replicas.unwrap_or_default(), status_replicas: status_replicas.unwrap_or_default(), selector: selector.unwrap_or_default() }
}

/// Sets the replicas wanted. Returns whether the kind has a scale.
pub fn set_replicas(object: &mut Object, replicas: i32) -> bool {
    if let Some(o) = object.downcast_mut::<Deployment>() {
        o.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(o) = object.downcast_mut::<ReplicaSet>() {
        o.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(o) = object.downcast_mut::<StatefulSet>() {
        o.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(o) = object.downcast_mut::<ReplicationController>() {
        o.spec.get_or_insert_default().replicas = Some(replicas);
    } else {
        return false;
    }
    true
}

/// The `Scale` object: the parts, under the object's own name and version.
pub fn to_scale(resource: &Resource, object: &Object) -> Option<Scale> {
    let parts = resource.ops.scale(object)?;
    let meta = object.meta();
    Some(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(parts.replicas) }),
        status: Some(ScaleStatus { replicas: parts.status_replicas, selector: (!parts.selector.is_empty()).then_some(parts.selector) }),
    })
}

/// Errors of a `Scale` (`ValidateScale`).
pub fn validate(scale: &Scale) -> ErrorList {
    let mut errors = Vec::new();
    let replicas = scale.spec.as_ref().and_then(|s| s.replicas);
    not_negative(&Path::new("spec").child("replicas"), replicas.map(i64::from), &mut errors);
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scale_reads_and_writes_replicas() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "d", "namespace": "n", "resourceVersion": "7", "labels": {"x": "y"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "a"}}, "template": {}}, "status": {"replicas": 2}
        }))
        .unwrap();
        let mut object = Object::new(deployment);
        assert_eq!(of(&object), Some(Parts { replicas: 3, status_replicas: 2, selector: "app=a".into() }));
        assert!(set_replicas(&mut object, 5));
        assert_eq!(
            serde_json::to_value(to_scale(super::super::RESOURCES.of::<Deployment>().unwrap(), &object).unwrap()).unwrap(),
            json!({
                "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "n", "resourceVersion": "7"},
                "spec": {"replicas": 5}, "status": {"replicas": 2, "selector": "app=a"}
            })
        );
    }

    #[test]
    fn a_controllers_plain_selector_prints_the_same() {
        let controller: ReplicationController = serde_json::from_value(json!({"spec": {"selector": {"b": "2", "a": "1"}}})).unwrap();
        assert_eq!(of(&Object::new(controller)).unwrap().selector, "a=1,b=2");
    }

    #[test]
    fn other_kinds_have_no_scale_and_negative_ones_are_refused() {
        let mut pod = Object::new(k8s_openapi::api::core::v1::Pod::default());
        assert!(of(&pod).is_none() && !set_replicas(&mut pod, 1));
        let scale = Scale { spec: Some(ScaleSpec { replicas: Some(-1) }), ..Scale::default() };
        assert_eq!(validate(&scale)[0].to_string(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
    }
}
