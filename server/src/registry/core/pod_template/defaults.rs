//! Defaults of a pod's spec (`pkg/apis/core/v1/defaults.go`). Idempotent.

use k8s_openapi::api::core::v1::{
    Container, EnvVarSource, HTTPGetAction, LifecycleHandler, ObjectFieldSelector, PersistentVolumeClaimSpec, PodSpec, PodTemplateSpec, Probe,
    ProjectedVolumeSource, ResourceFieldSelector, Volume,
};
use shared::quantity::Quantity;

use super::{as_container, set_defaulted};
use crate::registry::validation::resources::{canonicalize_requirements, default_list};

/// 0644, the mode of projected files.
const FILE_MODE: i32 = 0o644;

/// Defaults of a workload's template.
pub fn template(template: &mut PodTemplateSpec) {
    spec(template.spec.get_or_insert_default());
}

/// Sets an empty or absent text.
fn text(field: &mut Option<String>, default: &str) {
    if field.as_ref().is_none_or(String::is_empty) {
        *field = Some(default.to_owned());
    }
}

/// Sets an absent or zero number.
fn number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or_default() == 0 {
        *field = Some(default);
    }
}

/// Defaults of a pod's spec, wherever it stands.
pub fn spec(spec: &mut PodSpec) {
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    // The older name of the service account follows the newer one.
    if spec.service_account_name.as_ref().is_none_or(String::is_empty) {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        self::container(container);
    }
    for ephemeral in spec.ephemeral_containers.iter_mut().flatten() {
        let mut common = as_container(ephemeral);
        self::container(&mut common);
        set_defaulted(ephemeral, common);
    }
    for volume in spec.volumes.iter_mut().flatten() {
        self::volume(volume);
    }
    default_list(&mut spec.overhead);
    canonicalize_requirements(spec.resources.as_mut());
}

fn container(container: &mut Container) {
    if container.image_pull_policy.as_ref().is_none_or(String::is_empty) {
        container.image_pull_policy = Some(pull_policy(container.image.as_deref().unwrap_or_default()).into());
    }
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
    }
    for source in container.env.iter_mut().flatten().filter_map(|e| e.value_from.as_mut()) {
        env_source(source);
    }
    // Upstream's struct is not a pointer: it is always encoded.
    canonicalize_requirements(Some(container.resources.get_or_insert_default()));
    for probe in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe].into_iter().flatten() {
        self::probe(probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten() {
            self::handler(handler);
        }
    }
}

/// `Always` for the tag `latest`, given or implied; else `IfNotPresent`.
pub fn pull_policy(image: &str) -> &'static str {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    let tag = last.split_once(':').map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !image.contains('@') && !image.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn env_source(source: &mut EnvVarSource) {
    if let Some(field) = &mut source.field_ref {
        field_ref(field);
    }
    if let Some(field) = &mut source.resource_field_ref {
        resource_ref(field);
    }
    if let Some(file) = &mut source.file_key_ref {
        file.optional.get_or_insert(false);
    }
}

fn field_ref(field: &mut ObjectFieldSelector) {
    text(&mut field.api_version, "v1");
}

/// Upstream's divisor is not a pointer: it is encoded as `0` when it is not given.
fn resource_ref(field: &mut ResourceFieldSelector) {
    Quantity::canonicalize(field.divisor.get_or_insert_with(|| Quantity::zero().to_wire()));
}

fn probe(probe: &mut Probe) {
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    if let Some(http) = &mut probe.http_get {
        http_get(http);
    }
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn handler(handler: &mut LifecycleHandler) {
    if let Some(http) = &mut handler.http_get {
        http_get(http);
    }
}

fn http_get(http: &mut HTTPGetAction) {
    text(&mut http.path, "/");
    text(&mut http.scheme, "HTTP");
}

fn volume(volume: &mut Volume) {
    // A volume without a source is an empty directory.
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|e| e.size_limit.as_mut()) {
        Quantity::canonicalize(limit);
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(map) = &mut volume.config_map {
        map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(projected) = &mut volume.projected {
        self::projected(projected);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_mode.get_or_insert(FILE_MODE);
        for item in downward.items.iter_mut().flatten() {
            item.field_ref.iter_mut().for_each(field_ref);
            item.resource_field_ref.iter_mut().for_each(resource_ref);
        }
    }
    if let Some(path) = &mut volume.host_path {
        path.type_.get_or_insert_default();
    }
    if let Some(image) = &mut volume.image
        && image.pull_policy.as_ref().is_none_or(String::is_empty)
    {
        image.pull_policy = Some(pull_policy(image.reference.as_deref().unwrap_or_default()).into());
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        claim_spec(&mut template.spec);
    }
    network_volume(volume);
}

fn projected(projected: &mut ProjectedVolumeSource) {
    projected.default_mode.get_or_insert(FILE_MODE);
    for source in projected.sources.iter_mut().flatten() {
        if let Some(token) = &mut source.service_account_token {
            token.expiration_seconds.get_or_insert(3600);
        }
        for item in source.downward_api.iter_mut().flat_map(|d| d.items.iter_mut().flatten()) {
            item.field_ref.iter_mut().for_each(field_ref);
            item.resource_field_ref.iter_mut().for_each(resource_ref);
        }
    }
}

/// Volumes of other machines that upstream has defaults for.
fn network_volume(volume: &mut Volume) {
    if let Some(iscsi) = &mut volume.iscsi {
        text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = &mut volume.rbd {
        text(&mut rbd.pool, "rbd");
        text(&mut rbd.user, "admin");
        text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(disk) = &mut volume.azure_disk {
        disk.caching_mode.get_or_insert_with(|| "ReadWrite".into());
        disk.kind.get_or_insert_with(|| "Shared".into());
        disk.fs_type.get_or_insert_with(|| "ext4".into());
        disk.read_only.get_or_insert(false);
    }
    if let Some(scale) = &mut volume.scale_io {
        text(&mut scale.storage_mode, "ThinProvisioned");
        text(&mut scale.fs_type, "xfs");
    }
}

/// Defaults of a claim's spec, in a claim or in a template of one.
pub fn claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    spec.volume_mode.get_or_insert_with(|| "Filesystem".into());
    let resources = spec.resources.get_or_insert_default();
    default_list(&mut resources.limits);
    default_list(&mut resources.requests);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn defaulted(spec: Value) -> Value {
        let mut spec: PodSpec = serde_json::from_value(spec).unwrap();
        super::spec(&mut spec);
        serde_json::to_value(spec).unwrap()
    }

    #[test]
    fn a_bare_pod_gets_what_upstream_gives_it() {
        assert_eq!(
            defaulted(json!({"containers": [{"name": "c", "image": "nginx"}]})),
            json!({
                "containers": [{
                    "name": "c", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"
                }],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30
            })
        );
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.7.9", "IfNotPresent"),
            ("reg:5000/a/b", "Always"),
            ("reg:5000/a/b:2", "IfNotPresent"),
            ("a@sha256:0123", "IfNotPresent"),
            ("a:latest@sha256:0123", "Always"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn probes_and_handlers_get_their_timings() {
        let spec = defaulted(json!({"containers": [{
            "name": "c", "livenessProbe": {"httpGet": {"port": 80}}, "readinessProbe": {"grpc": {"port": 1}},
            "lifecycle": {"preStop": {"httpGet": {"port": "p"}}}
        }]}));
        let container = &spec["containers"][0];
        assert_eq!(
            container["livenessProbe"],
            json!({
                "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3
            })
        );
        assert_eq!(container["readinessProbe"]["grpc"], json!({"port": 1, "service": ""}));
        assert_eq!(container["lifecycle"]["preStop"]["httpGet"], json!({"port": "p", "path": "/", "scheme": "HTTP"}));
    }

    #[test]
    fn volumes_get_modes_and_types() {
        let spec = defaulted(json!({"containers": [], "volumes": [
            {"name": "a"}, {"name": "b", "secret": {"secretName": "s"}}, {"name": "c", "hostPath": {"path": "/x"}},
            {"name": "d", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}},
                {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}}
            ]}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1024Mi"}}}}}}
        ]}));
        assert_eq!(
            spec["volumes"],
            json!([
                {"name": "a", "emptyDir": {}},
                {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
                {"name": "c", "hostPath": {"path": "/x", "type": ""}},
                {"name": "d", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}]}}
                ]}},
                {"name": "e", "ephemeral": {"volumeClaimTemplate": {
                    "spec": {"volumeMode": "Filesystem", "resources": {"requests": {"storage": "1Gi"}}}
                }}}
            ])
        );
    }

    #[test]
    fn the_downward_api_gets_its_version_and_divisor() {
        let spec = defaulted(json!({"containers": [{"name": "c", "env": [
            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}
        ]}]}));
        assert_eq!(spec["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(spec["containers"][0]["env"][1]["valueFrom"]["resourceFieldRef"], json!({"resource": "limits.cpu", "divisor": "0"}));
    }

    #[test]
    fn both_names_of_the_service_account_agree() {
        assert_eq!(defaulted(json!({"containers": [], "serviceAccount": "old"}))["serviceAccountName"], "old");
        assert_eq!(defaulted(json!({"containers": [], "serviceAccount": "old", "serviceAccountName": "new"}))["serviceAccount"], "new");
    }

    fn maybe(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Value> {
        prop_oneof![Just(Value::Null), value].boxed()
    }

    fn arbitrary_container() -> impl Strategy<Value = Value> {
        let image = prop_oneof![Just(""), Just("a"), Just("a:latest"), Just("r:5/a:1"), Just("a@sha256:1")];
        let quantity = prop_oneof![Just("1"), Just("1000m"), Just("0.00001"), Just("1024Mi"), Just("1.5Gi"), Just("nonsense")];
        let probe = (maybe(Just(json!({"port": 1}))), maybe((0..3i32).prop_map(|n| json!(n))))
            .prop_map(|(http, period)| json!({"httpGet": http, "periodSeconds": period}));
        let policy = maybe(prop_oneof![Just(json!("")), Just(json!("Never"))]);
        (image, quantity, maybe(probe), policy).prop_map(|(image, quantity, probe, policy)| {
            json!({
                "name": "c", "image": image, "imagePullPolicy": policy, "livenessProbe": probe,
                "resources": {"limits": {"cpu": quantity}}, "ports": [{"containerPort": 1}],
                "env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]
            })
        })
    }

    fn arbitrary_volume() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(json!({"name": "v"})),
            Just(json!({"name": "v", "hostPath": {"path": "/"}})),
            Just(json!({"name": "v", "emptyDir": {"sizeLimit": "1024Ki"}})),
            Just(json!({"name": "v", "image": {"reference": "a"}})),
            Just(json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}})),
            Just(json!({"name": "v", "rbd": {"image": "i", "monitors": []}})),
            Just(json!({"name": "v", "iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}})),
        ]
    }

    proptest! {
        #[test]
        fn defaulting_twice_changes_nothing_more(
            containers in proptest::collection::vec(arbitrary_container(), 0..3),
            init in maybe(proptest::collection::vec(arbitrary_container(), 0..2).prop_map(Value::from)),
            ephemeral in maybe(proptest::collection::vec(arbitrary_container(), 0..2).prop_map(Value::from)),
            volumes in maybe(proptest::collection::vec(arbitrary_volume(), 0..3).prop_map(Value::from)),
            policy in maybe(prop_oneof![Just(json!("")), Just(json!("Never"))]),
        ) {
            let once = defaulted(json!({
                "containers": containers, "initContainers": init, "ephemeralContainers": ephemeral, "volumes": volumes, "restartPolicy": policy
            }));
            prop_assert_eq!(defaulted(once.clone()), once);
        }
    }
}
