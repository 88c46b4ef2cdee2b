//! Validation of containers of every sort (`validateContainers`, `validateInitContainers`, `validateEphemeralContainers`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, PodSpec, VolumeDevice, VolumeMount};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use super::spec::Volumes;
use super::{as_container, environment, probes, security};
use crate::registry::validation::{check, dns1123_label, one_of, port_name, port_number, required_one_of, resources};

/// All three lists of a spec.
pub fn containers(path: &Path, spec: &PodSpec, volumes: &Volumes<'_>, errors: &mut ErrorList) {
    let list_path = path.child("containers");
    let grace = spec.termination_grace_period_seconds;
    if spec.containers.is_empty() {
        errors.push(Error::required(&list_path, ""));
    }
    let mut names = BTreeSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = list_path.index(index);
        common(&path, container, volumes, spec, errors);
        if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), &container.name));
        }
        probes::all(&path, container, grace, errors);
        one_of(&path.child("restartPolicy"), container.restart_policy.as_deref(), &["Always", "OnFailure", "Never"], errors);
    }
    host_port_conflicts(&list_path, &spec.containers, errors);
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let list_path = path.child("initContainers");
        let path = list_path.index(index);
        common(&path, container, volumes, spec, errors);
        if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), &container.name));
        }
        init(&path, container, grace, errors);
        host_port_conflicts(&list_path, std::slice::from_ref(container), errors);
    }
    let targets = names.clone();
    for (index, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.child("ephemeralContainers").index(index);
        ephemeral(&path, container, volumes, spec, errors);
        if !names.insert(container.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), &container.name));
        }
        if let Some(target) = container.target_container_name.as_deref().filter(|t| !t.is_empty() && !targets.contains(t)) {
            errors.push(Error::not_found(&path.child("targetContainerName"), target));
        }
    }
}

/// Whether an init container keeps running beside the others (a sidecar).
pub fn is_restartable(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn common(path: &Path, container: &Container, volumes: &Volumes<'_>, spec: &PodSpec, errors: &mut ErrorList) {
    match container.name.as_str() {
        "" => errors.push(Error::required(&path.child("name"), "")),
        name => check(&path.child("name"), name, dns1123_label(name), errors),
    }
    if container.image.as_ref().is_none_or(String::is_empty) {
        errors.push(Error::required(&path.child("image"), ""));
    }
    let policies = ["File", "FallbackToLogsOnError"];
    required_one_of(&path.child("terminationMessagePolicy"), container.termination_message_policy.as_deref(), &policies, errors);
    ports(&path.child("ports"), container.ports.as_deref().unwrap_or_default(), errors);
    environment::environment(path, container, errors);
    mounts(&path.child("volumeMounts"), container, volumes, errors);
    devices(&path.child("volumeDevices"), container, volumes, errors);
    let policies = ["Always", "IfNotPresent", "Never"];
    required_one_of(&path.child("imagePullPolicy"), container.image_pull_policy.as_deref(), &policies, errors);
    if let Some(resources) = &container.resources {
        resources::requirements(&path.child("resources"), resources, errors);
        claims(&path.child("resources").child("claims"), resources, spec, errors);
    }
    for policy in container.resize_policy.iter().flatten() {
        let path = path.child("resizePolicy");
        required_one_of(&path, Some(&policy.resource_name), &["cpu", "memory"], errors);
        required_one_of(&path, Some(&policy.restart_policy), &["NotRequired", "RestartContainer"], errors);
        if spec.restart_policy.as_deref() == Some("Never") && policy.restart_policy != "NotRequired" {
            errors.push(Error::invalid(&path, &policy.restart_policy, "must be 'NotRequired' when `restartPolicy` is 'Never'"));
        }
    }
    security::container(&path.child("securityContext"), container.security_context.as_ref(), errors);
}

fn claims(path: &Path, resources: &k8s_openapi::api::core::v1::ResourceRequirements, spec: &PodSpec, errors: &mut ErrorList) {
    for (index, claim) in resources.claims.iter().flatten().enumerate() {
        if !spec.resource_claims.iter().flatten().any(|c| c.name == claim.name) {
            errors.push(Error::not_found(&path.index(index).child("name"), &claim.name));
        }
    }
}

fn init(path: &Path, container: &Container, grace: Option<i64>, errors: &mut ErrorList) {
    one_of(&path.child("restartPolicy"), container.restart_policy.as_deref(), &["Always", "OnFailure", "Never"], errors);
    if is_restartable(container) {
        return probes::all(path, container, grace, errors);
    }
    let detail = "may not be set for init containers without restartPolicy=Always";
    for (field, set) in [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ] {
        if set {
            errors.push(Error::forbidden(&path.child(field), detail));
        }
    }
}

/// Fields that only containers of a pod's first plan may have.
const NOT_EPHEMERAL: [&str; 8] =
    ["ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources", "resizePolicy", "restartPolicy"];

fn ephemeral(path: &Path, ephemeral: &EphemeralContainer, volumes: &Volumes<'_>, spec: &PodSpec, errors: &mut ErrorList) {
    let container = as_container(ephemeral);
    common(path, &container, volumes, spec, errors);
    if container.image.as_ref().is_some_and(|i| i.trim().len() != i.len()) {
        errors.push(Error::invalid(&path.child("image"), &container.image, "must not have leading or trailing whitespace"));
    }
    let json = serde_json::to_value(&container).unwrap_or_default();
    let empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        other => other.is_null(),
    };
    for field in NOT_EPHEMERAL.iter().filter(|f| json.get(**f).is_some_and(|v| !empty(v))) {
        errors.push(Error::forbidden(&path.child(field), "cannot be set for an Ephemeral Container"));
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if value.as_ref().is_some_and(|v| !v.is_empty()) {
                let path = path.child("volumeMounts").index(index).child(field);
                errors.push(Error::forbidden(&path, "cannot be set for an Ephemeral Container"));
            }
        }
    }
}

fn ports(path: &Path, ports: &[ContainerPort], errors: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let messages = port_name(name);
            if messages.is_empty() && !names.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            check(&path.child("name"), name, messages, errors);
        }
        match port.container_port {
            0 => errors.push(Error::required(&path.child("containerPort"), "")),
            number => check(&path.child("containerPort"), number, port_number(number.into()), errors),
        }
        if let Some(number) = port.host_port.filter(|p| *p != 0) {
            check(&path.child("hostPort"), number, port_number(number.into()), errors);
        }
        required_one_of(&path.child("protocol"), port.protocol.as_deref(), &["TCP", "UDP", "SCTP"], errors);
    }
}

fn host_port_conflicts(path: &Path, containers: &[Container], errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|p| *p != 0) else { continue };
            let key = format!("{}/{}/{number}", port.protocol.as_deref().unwrap_or_default(), port.host_ip.as_deref().unwrap_or_default());
            if !seen.insert(key.clone()) {
                errors.push(Error::duplicate(&path.index(i).child("ports").index(j).child("hostPort"), key));
            }
        }
    }
}

fn mounts(path: &Path, container: &Container, volumes: &Volumes<'_>, errors: &mut ErrorList) {
    let mut points = BTreeSet::new();
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let item = path.index(index);
        if mount.name.is_empty() {
            errors.push(Error::required(&item.child("name"), ""));
        }
        if !volumes.contains_key(mount.name.as_str()) {
            errors.push(Error::not_found(&item.child("name"), &mount.name));
        }
        if mount.mount_path.is_empty() {
            errors.push(Error::required(&item.child("mountPath"), ""));
        }
        if !points.insert(&mount.mount_path) {
            errors.push(Error::invalid(&item.child("mountPath"), &mount.mount_path, "must be unique"));
        }
        if devices.iter().any(|d| d.name == mount.name) {
            errors.push(Error::invalid(&item.child("name"), &mount.name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|d| d.device_path == mount.mount_path) {
            errors.push(Error::invalid(&item.child("mountPath"), &mount.mount_path, "must not already exist as a path in volumeDevices"));
        }
        // Upstream names the list, not the item, in the rest.
        sub_paths(path, &item, mount, errors);
        propagation(path, mount, container, errors);
    }
}

fn sub_paths(path: &Path, item: &Path, mount: &VolumeMount, errors: &mut ErrorList) {
    let sub_path = mount.sub_path.as_deref().filter(|p| !p.is_empty());
    let expression = mount.sub_path_expr.as_deref().filter(|p| !p.is_empty());
    if let Some(value) = sub_path {
        descending(&path.child("subPath"), value, errors);
    }
    if let Some(value) = expression {
        if sub_path.is_some() {
            errors.push(Error::invalid(&item.child("subPathExpr"), value, "subPathExpr and subPath are mutually exclusive"));
        }
        descending(&path.child("subPathExpr"), value, errors);
    }
}

/// A relative path that stays below where it starts (`validateLocalDescendingPath`).
pub fn descending(path: &Path, value: &str, errors: &mut ErrorList) {
    if value.starts_with('/') {
        errors.push(Error::invalid(path, value, "must be a relative path"));
    }
    no_backsteps(path, value, errors);
}

/// No `..` element (`validatePathNoBacksteps`).
pub fn no_backsteps(path: &Path, value: &str, errors: &mut ErrorList) {
    if value.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, value, "must not contain '..'"));
    }
}

fn propagation(path: &Path, mount: &VolumeMount, container: &Container, errors: &mut ErrorList) {
    let Some(mode) = mount.mount_propagation.as_deref() else { return };
    let path = path.child("mountPropagation");
    one_of(&path, Some(mode), &["None", "HostToContainer", "Bidirectional"], errors);
    let privileged = container.security_context.as_ref().is_some_and(|s| s.privileged == Some(true));
    if mode == "Bidirectional" && !privileged {
        errors.push(Error::forbidden(&path, "Bidirectional mount propagation is available only to privileged containers"));
    }
}

fn devices(path: &Path, container: &Container, volumes: &Volumes<'_>, errors: &mut ErrorList) {
    let devices: &[VolumeDevice] = container.volume_devices.as_deref().unwrap_or_default();
    for (index, device) in devices.iter().enumerate() {
        let path = path.index(index);
        if device.name.is_empty() {
            errors.push(Error::required(&path.child("name"), ""));
        }
        if devices[..index].iter().any(|d| d.name == device.name) {
            errors.push(Error::invalid(&path.child("name"), &device.name, "must be unique"));
        }
        match volumes.get(device.name.as_str()) {
            None => errors.push(Error::not_found(&path.child("name"), &device.name)),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(&path.child("name"), &device.name, detail));
            }
            Some(_) => {}
        }
        if device.device_path.is_empty() {
            errors.push(Error::required(&path.child("devicePath"), ""));
        }
        if devices[..index].iter().any(|d| d.device_path == device.device_path) {
            errors.push(Error::invalid(&path.child("devicePath"), &device.device_path, "must be unique"));
        }
        if device.device_path.split('/').any(|part| part == "..") {
            errors.push(Error::invalid(&path.child("devicePath"), &device.device_path, "can not contain backsteps ('..')"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors_of(spec: Value) -> Vec<String> {
        let mut spec: PodSpec = serde_json::from_value(spec).unwrap();
        super::super::default_spec(&mut spec);
        let volumes = spec.volumes.iter().flatten().map(|v| (v.name.as_str(), v)).collect();
        let mut errors = Vec::new();
        containers(&Path::new("spec"), &spec, &volumes, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn containers_need_unique_names_and_images() {
        assert_eq!(
            errors_of(json!({"containers": [{"name": "a", "image": "i"}, {"name": "a"}], "initContainers": [{"name": "a", "image": "i"}]})),
            [
                "spec.containers[1].image: Required value",
                "spec.containers[1].name: Duplicate value: \"a\"",
                "spec.initContainers[0].name: Duplicate value: \"a\""
            ]
        );
        assert!(errors_of(json!({"containers": [{"name": "A_b", "image": "i"}]}))[0].starts_with("spec.containers[0].name: Invalid value: \"A_b\""));
    }

    #[test]
    fn ports_are_numbers_in_range_used_once() {
        let of = |ports: Value| errors_of(json!({"containers": [{"name": "a", "image": "i", "ports": ports}]}));
        assert_eq!(of(json!([{"containerPort": 0}])), ["spec.containers[0].ports[0].containerPort: Required value"]);
        assert_eq!(
            of(json!([{"containerPort": 70000}])),
            ["spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive"]
        );
        assert_eq!(
            of(json!([{"containerPort": 80, "name": "http"}, {"containerPort": 81, "name": "http"}])),
            ["spec.containers[0].ports[1].name: Duplicate value: \"http\""]
        );
        assert_eq!(
            of(json!([{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 80}])),
            ["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""]
        );
        assert_eq!(
            of(json!([{"containerPort": 80, "protocol": "ICMP"}])),
            ["spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\""]
        );
    }

    #[test]
    fn mounts_name_volumes_and_stay_below_them() {
        let of = |mounts: Value| errors_of(json!({"volumes": [{"name": "v"}], "containers": [{"name": "a", "image": "i", "volumeMounts": mounts}]}));
        assert!(of(json!([{"name": "v", "mountPath": "/v", "subPath": "a/b"}])).is_empty());
        assert_eq!(of(json!([{"name": "w", "mountPath": "/v"}])), ["spec.containers[0].volumeMounts[0].name: Not found: \"w\""]);
        assert_eq!(
            of(json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}])),
            ["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique"]
        );
        assert_eq!(
            of(json!([{"name": "v", "mountPath": "/v", "subPath": "../x"}])),
            ["spec.containers[0].volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'"]
        );
    }

    #[test]
    fn init_containers_have_no_probes_unless_they_stay() {
        let probe = json!({"exec": {"command": ["x"]}});
        let of = |policy: Value| {
            errors_of(json!({
                "containers": [{"name": "a", "image": "i"}],
                "initContainers": [{"name": "b", "image": "i", "restartPolicy": policy, "readinessProbe": probe}]
            }))
        };
        assert!(of(json!("Always")).is_empty());
        assert_eq!(
            of(Value::Null),
            ["spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always"]
        );
    }

    #[test]
    fn ephemeral_containers_are_for_looking_only() {
        assert_eq!(
            errors_of(json!({
                "containers": [{"name": "a", "image": "i"}],
                "ephemeralContainers": [
                    {"name": "d", "image": "i", "targetContainerName": "a"},
                    {"name": "e", "image": "i", "targetContainerName": "z", "ports": [{"containerPort": 1}]}
                ]
            })),
            [
                "spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container",
                "spec.ephemeralContainers[1].targetContainerName: Not found: \"z\""
            ]
        );
    }
}
