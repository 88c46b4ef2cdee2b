//! What the subresources of a pod keep and check: ephemeral containers and resize (`pkg/registry/core/pod/strategy.go`).
//!
//! Pure; the API's handlers run them inside the store's compare-and-retry loop.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;

use super::{MIRROR_ANNOTATION, Pods, status};
use crate::registry::Strategy;
use crate::registry::validation::diff::changes;

/// Of the new pod keeps only its ephemeral containers.
pub fn prepare_for_ephemeral_containers(new: &mut Pod, old: &Pod) {
    let ephemeral = new.spec.as_mut().and_then(|s| s.ephemeral_containers.take());
    new.spec.clone_from(&old.spec);
    new.status.clone_from(&old.status);
    if let Some(spec) = &mut new.spec {
        spec.ephemeral_containers = ephemeral;
    }
}

/// Ephemeral containers are only ever added (`ValidatePodEphemeralContainersUpdate`).
pub fn validate_ephemeral_containers(new: &Pod, old: &Pod) -> ErrorList {
    if is_static(old) {
        return vec![Error::forbidden(&Path::new(""), "static pods do not support ephemeral containers")];
    }
    let mut errors = Pods::validate(new);
    let path = Path::new("spec").child("ephemeralContainers");
    let list = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let new = list(new);
    for old in list(old) {
        match new.iter().find(|n| n.name == old.name) {
            None => errors.push(Error::forbidden(&path, &format!("existing ephemeral containers {:?} may not be removed\n", old.name))),
            Some(same) if *same == old => {}
            Some(other) => {
                let detail = format!("existing ephemeral containers {:?} may not be changed\n{}", old.name, changes(&old, other));
                errors.push(Error::forbidden(&path, &detail));
            }
        }
    }
    errors
}

fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR_ANNOTATION))
}

/// Of the new pod keeps only the resources and resize policies of its containers.
pub fn prepare_for_resize(new: &mut Pod, old: &Pod) {
    let asked = new.spec.take().unwrap_or_default();
    new.spec.clone_from(&old.spec);
    new.status.clone_from(&old.status);
    let Some(spec) = &mut new.spec else { return };
    let copy = |to: &mut [Container], from: &[Container]| {
        for (to, from) in to.iter_mut().filter_map(|to| Some((from.iter().find(|f| f.name == to.name)?, to))).map(|(f, t)| (t, f)) {
            to.resources.clone_from(&from.resources);
            to.resize_policy.clone_from(&from.resize_policy);
        }
    };
    copy(&mut spec.containers, &asked.containers);
    if let (Some(to), Some(from)) = (&mut spec.init_containers, &asked.init_containers) {
        copy(to, from);
    }
}

/// A resize changes CPU and memory, removes neither, and keeps the class of service (`ValidatePodResize`).
pub fn validate_resize(new: &Pod, old: &Pod) -> ErrorList {
    let path = Path::new("spec");
    if is_static(old) {
        return vec![Error::forbidden(&Path::new(""), "static pods cannot be resized")];
    }
    if old.spec.as_ref().and_then(|s| s.os.as_ref()).is_some_and(|os| os.name == "windows") {
        return vec![Error::forbidden(&Path::new(""), "windows pods cannot be resized")];
    }
    let mut errors = Pods::validate(new);
    let class = status::qos_class(new.spec.as_ref());
    if status::qos_class(old.spec.as_ref()) != class {
        errors.push(Error::invalid(&path, class, "Pod QOS Class may not change as a result of resizing"));
    }
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else { return errors };
    for (index, (new, old)) in new.containers.iter().zip(&old.containers).enumerate() {
        resize(&path.child("containers").index(index).child("resources"), new, old, &mut errors);
    }
    for (index, (new, old)) in new.init_containers.iter().flatten().zip(old.init_containers.iter().flatten()).enumerate() {
        if new == old {
            continue;
        }
        if old.restart_policy.as_deref() == Some("Always") {
            resize(&path.child("initContainers").index(index).child("resources"), new, old, &mut errors);
        } else {
            errors.push(Error::forbidden(&path, "resources for non-sidecar init containers are immutable"));
        }
    }
    errors
}

fn resize(path: &Path, new: &Container, old: &Container, errors: &mut ErrorList) {
    let none = ResourceRequirements::default();
    let (after, before) = (new.resources.as_ref().unwrap_or(&none), old.resources.as_ref().unwrap_or(&none));
    for (field, after, before, what) in
        [("requests", &after.requests, &before.requests, "requests"), ("limits", &after.limits, &before.limits, "limits")]
    {
        let has = |name: &String| after.as_ref().is_some_and(|l| l.contains_key(name));
        if before.iter().flatten().any(|(name, _)| !has(name)) {
            errors.push(Error::forbidden(&path.child(field), &format!("resource {what} cannot be removed")));
        }
        let fixed = |list: &Option<std::collections::BTreeMap<_, _>>| {
            let mut list = list.clone().unwrap_or_default();
            list.retain(|name: &String, _| !["cpu", "memory"].contains(&name.as_str()));
            list
        };
        if fixed(after) != fixed(before) {
            errors.push(Error::forbidden(&Path::new("spec"), "only cpu and memory resources are mutable"));
        }
    }
    let restarts = new.resize_policy.iter().flatten().any(|p| p.resource_name == "memory" && p.restart_policy == "RestartContainer");
    let memory = |r: &ResourceRequirements| r.limits.as_ref().and_then(|l| l.get("memory")).map(Quantity::of);
    let detail = match (memory(after), memory(before)) {
        (Some(after), Some(before)) if after < before => "memory limits cannot be decreased unless resizePolicy is RestartContainer",
        (Some(_), None) => "memory limits cannot be added unless resizePolicy is RestartContainer",
        _ => return,
    };
    if !restarts {
        errors.push(Error::forbidden(&path.child("limits").key("memory"), detail));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::registry::testing::{created, with};

    fn pod(patch: Value) -> Pod {
        created::<Pods>(with(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}), patch))
    }

    #[test]
    fn ephemeral_containers_are_added_but_never_changed() {
        let one = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "x"}]}});
        let (old, mut new) = (pod(json!({})), pod(with(one.clone(), json!({"spec": {"nodeName": "sneaky"}}))));
        prepare_for_ephemeral_containers(&mut new, &old);
        assert_eq!(new.spec.as_ref().unwrap().node_name, None);
        assert_eq!(validate_ephemeral_containers(&new, &old), []);
        let mut gone = pod(json!({}));
        prepare_for_ephemeral_containers(&mut gone, &new);
        assert!(validate_ephemeral_containers(&gone, &new)[0].body.contains("\"d\" may not be removed"));
    }

    #[test]
    fn a_resize_changes_cpu_and_memory_only() {
        let with_resources = |resources: Value| pod(json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}}));
        let old = with_resources(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}}));
        let errors = |resources: Value| {
            let mut new = with_resources(resources);
            prepare_for_resize(&mut new, &old);
            validate_resize(&new, &old).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(errors(json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "3Gi"}})).is_empty());
        assert_eq!(
            errors(json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}})),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        assert_eq!(
            errors(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "1Gi"}})),
            ["spec.containers[0].resources.limits[memory]: Forbidden: memory limits cannot be decreased unless resizePolicy is RestartContainer"]
        );
        assert!(errors(json!({}))[0].contains("QOS Class may not change"));
    }
}
