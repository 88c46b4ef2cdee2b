//! Containers, volumes and tolerations: what pods and pod templates share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerState, ContainerStatus, EnvVar, EnvVarSource, Pod, PodTemplateSpec, Probe, ResourceRequirements, Toleration,
    Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Writer;
use super::format::{capital, int_or_string, or_none, quantity, rfc1123};

impl Writer {
    /// The `Pod Template:` section.
    pub fn pod_template(&mut self, template: &PodTemplateSpec) {
        self.write(0, "Pod Template:\n");
        let meta = template.metadata.as_ref();
        self.labels("  Labels", meta.and_then(|m| m.labels.as_ref()));
        if let Some(annotations) = meta.and_then(|m| m.annotations.as_ref()).filter(|a| !a.is_empty()) {
            self.annotations("  Annotations", Some(annotations));
        }
        let Some(spec) = &template.spec else { return };
        if let Some(account) = spec.service_account_name.as_ref().filter(|n| !n.is_empty()) {
            self.field(0, "  Service Account", account);
        }
        if let Some(init) = spec.init_containers.as_ref().filter(|c| !c.is_empty()) {
            containers(self, "Init Containers", init, &[], None, "  ");
        }
        containers(self, "Containers", &spec.containers, &[], None, "  ");
        volumes(self, spec.volumes.as_deref().unwrap_or_default(), "  ");
        topology(self, spec.topology_spread_constraints.as_deref().unwrap_or_default(), "  ");
        if let Some(class) = spec.priority_class_name.as_ref().filter(|n| !n.is_empty()) {
            self.field(0, "  Priority Class Name", class);
        }
        self.labels("  Node-Selectors", spec.node_selector.as_ref());
        tolerations(self, "  Tolerations", spec.tolerations.as_deref().unwrap_or_default());
    }
}

/// A section of containers; `pod` resolves the environment of a real pod.
pub fn containers(w: &mut Writer, title: &str, containers: &[Container], statuses: &[ContainerStatus], pod: Option<&Pod>, space: &str) {
    if containers.is_empty() {
        return w.write(0, &format!("{space}{title}: <none>\n"));
    }
    w.write(0, &format!("{space}{title}:\n"));
    for container in containers {
        let status = statuses.iter().find(|s| s.name == container.name);
        basics(w, container, status, space);
        for (name, words) in [("Command", &container.command), ("Args", &container.args)] {
            if let Some(words) = words.as_ref().filter(|c| !c.is_empty()) {
                w.write(2, &format!("{name}:\n"));
                words.iter().flat_map(|c| c.split('\n')).for_each(|line| w.write(3, &format!("{line}\n")));
            }
        }
        if let Some(status) = status {
            state(w, status);
        }
        if let Some(needs) = &container.resources {
            resources(w, needs, 2);
        }
        for (name, probe) in
            [("Liveness", &container.liveness_probe), ("Readiness", &container.readiness_probe), ("Startup", &container.startup_probe)]
        {
            if let Some(probe) = probe {
                w.field(2, name, probe_text(probe));
            }
        }
        environment(w, container, pod);
        mounts(w, container);
    }
}

fn basics(w: &mut Writer, container: &Container, status: Option<&ContainerStatus>, space: &str) {
    let indent = if space.is_empty() { "" } else { " " };
    w.write(1, &format!("{indent}{}:\n", container.name));
    if let Some(status) = status {
        w.field(2, "Container ID", status.container_id.as_deref().unwrap_or_default());
    }
    w.field(2, "Image", container.image.as_deref().unwrap_or_default());
    if let Some(status) = status {
        w.field(2, "Image ID", &status.image_id);
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    let list = |number: fn(&ContainerPort) -> i32| {
        let text = |p: &ContainerPort| {
            let name = p.name.as_ref().filter(|n| !n.is_empty()).map_or_else(String::new, |n| format!(" ({n})"));
            format!("{}/{}{name}", number(p), p.protocol.as_deref().unwrap_or("TCP"))
        };
        ports.iter().map(text).collect::<Vec<_>>().join(", ")
    };
    let plural = |text: &str| if text.contains(',') { "s" } else { "" };
    let (own, host) = (list(|p| p.container_port), list(|p| p.host_port.unwrap_or(0)));
    w.field(2, &format!("Port{}", plural(&own)), or_none(&own));
    w.field(2, &format!("Host Port{}", plural(&host)), or_none(&host));
    if let Some(seccomp) = container.security_context.as_ref().and_then(|s| s.seccomp_profile.as_ref()) {
        w.field(2, "SeccompProfile", &seccomp.type_);
        if seccomp.type_ == "Localhost" {
            w.field(3, "LocalhostProfile", seccomp.localhost_profile.as_deref().unwrap_or_default());
        }
    }
}

fn state(w: &mut Writer, status: &ContainerStatus) {
    one_state(w, "State", status.state.as_ref());
    if let Some(last) = status.last_state.as_ref().filter(|s| s.terminated.is_some()) {
        one_state(w, "Last State", Some(last));
    }
    w.field(2, "Ready", capital(status.ready));
    w.field(2, "Restart Count", status.restart_count);
}

fn one_state(w: &mut Writer, name: &str, state: Option<&ContainerState>) {
    let started = |w: &mut Writer, name: &str, time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
        w.field(3, name, time.map_or_else(|| "Mon, 01 Jan 0001 00:00:00 +0000".into(), rfc1123));
    };
    match state {
        Some(ContainerState { running: Some(running), .. }) => {
            w.field(2, name, "Running");
            started(w, "Started", running.started_at.as_ref());
        }
        Some(ContainerState { waiting: Some(waiting), .. }) => {
            w.field(2, name, "Waiting");
            if let Some(reason) = waiting.reason.as_ref().filter(|r| !r.is_empty()) {
                w.field(3, "Reason", reason);
            }
        }
        Some(ContainerState { terminated: Some(end), .. }) => {
            w.field(2, name, "Terminated");
            if let Some(reason) = end.reason.as_ref().filter(|r| !r.is_empty()) {
                w.field(3, "Reason", reason);
            }
            if let Some(message) = end.message.as_ref().filter(|m| !m.is_empty()) {
                w.field(3, "Message", message);
            }
            w.field(3, "Exit Code", end.exit_code);
            if let Some(signal) = end.signal.filter(|s| *s > 0) {
                w.field(3, "Signal", signal);
            }
            started(w, "Started", end.started_at.as_ref());
            started(w, "Finished", end.finished_at.as_ref());
        }
        _ => w.field(2, name, "Waiting"),
    }
}

/// `Limits:` and `Requests:`
pub fn resources(w: &mut Writer, resources: &ResourceRequirements, level: usize) {
    let mut section = |name: &str, amounts: Option<&BTreeMap<String, Quantity>>| {
        let Some(amounts) = amounts.filter(|a| !a.is_empty()) else { return };
        w.write(level, &format!("{name}:\n"));
        amounts.iter().for_each(|(resource, amount)| w.field(level + 1, resource, quantity(amount)));
    };
    section("Limits", resources.limits.as_ref());
    section("Requests", resources.requests.as_ref());
}

/// An amount in whole units of its divisor, rounded up, as the container will see it.
fn whole_units(resource: &str, amount: &Quantity, divisor: Option<&Quantity>) -> String {
    use shared::quantity::Quantity as Amount;
    let divisor = divisor.map(Amount::of).filter(|d| !d.is_zero()).unwrap_or_else(|| Amount::from_millis(1000));
    let (amount, unit) = match resource {
        "cpu" => (Amount::of(amount).millis(), divisor.millis()),
        _ => (Amount::of(amount).value(), divisor.value()),
    };
    (amount / unit.max(1) + i64::from(amount % unit.max(1) != 0)).to_string()
}

fn probe_text(probe: &Probe) -> String {
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        probe.initial_delay_seconds.unwrap_or(0),
        probe.timeout_seconds.unwrap_or(0),
        probe.period_seconds.unwrap_or(0),
        probe.success_threshold.unwrap_or(0),
        probe.failure_threshold.unwrap_or(0)
    );
    if let Some(exec) = &probe.exec {
        return format!("exec [{}] {attributes}", exec.command.as_deref().unwrap_or_default().join(" "));
    }
    if let Some(http) = &probe.http_get {
        let path = http.path.as_deref().unwrap_or_default();
        let slash = if path.is_empty() || path.starts_with('/') { "" } else { "/" };
        let scheme = http.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        return format!("http-get {scheme}://{}:{}{slash}{path} {attributes}", http.host.as_deref().unwrap_or_default(), int_or_string(&http.port));
    }
    if let Some(tcp) = &probe.tcp_socket {
        return format!("tcp-socket {}:{} {attributes}", tcp.host.as_deref().unwrap_or_default(), int_or_string(&tcp.port));
    }
    if let Some(grpc) = &probe.grpc {
        return format!("grpc <pod>:{} {} {attributes}", grpc.port, grpc.service.as_deref().unwrap_or_default());
    }
    format!("unknown {attributes}")
}

fn environment(w: &mut Writer, container: &Container, pod: Option<&Pod>) {
    if let Some(sources) = container.env_from.as_ref().filter(|e| !e.is_empty()) {
        w.write(2, "Environment Variables from:\n");
        for source in sources {
            let (kind, name, optional) = match (&source.config_map_ref, &source.secret_ref) {
                (Some(map), _) => ("ConfigMap", &map.name, map.optional),
                (_, Some(secret)) => ("Secret", &secret.name, secret.optional),
                _ => continue,
            };
            let prefix = source.prefix.as_ref().filter(|p| !p.is_empty()).map_or_else(String::new, |p| format!(" with prefix '{p}'"));
            w.write(3, &format!("{name}\t{kind}{prefix}\tOptional: {}\n", optional.unwrap_or(false)));
        }
    }
    let env = container.env.as_deref().unwrap_or_default();
    w.write(2, &format!("Environment:{}\n", if env.is_empty() { "\t<none>" } else { "" }));
    for variable in env {
        one_variable(w, variable, container, pod);
    }
}

fn one_variable(w: &mut Writer, variable: &EnvVar, container: &Container, pod: Option<&Pod>) {
    let name = &variable.name;
    let Some(source) = &variable.value_from else {
        for (index, line) in variable.value.as_deref().unwrap_or_default().split('\n').enumerate() {
            let text = if index == 0 { format!("{name}:\t{line}\n") } else { format!("\t{line}\n") };
            w.write(3, &text);
        }
        return;
    };
    let text = match source {
        EnvVarSource { field_ref: Some(field), .. } => {
            let value = pod.map_or_else(String::new, |p| field_value(p, &field.field_path));
            format!("{name}:\t{value} ({}:{})\n", field.api_version.as_deref().unwrap_or("v1"), field.field_path)
        }
        EnvVarSource { resource_field_ref: Some(field), .. } => {
            let amount = field.resource.split_once('.').and_then(|(which, resource)| {
                let needs = container.resources.as_ref()?;
                let amounts = if which == "limits" { needs.limits.as_ref()? } else { needs.requests.as_ref()? };
                amounts.get(resource).map(|amount| whole_units(resource, amount, field.divisor.as_ref()))
            });
            let value = amount.unwrap_or_else(|| if field.resource.starts_with("limits.") { "node allocatable".into() } else { "0".into() });
            format!("{name}:\t{value} ({})\n", field.resource)
        }
        EnvVarSource { secret_key_ref: Some(key), .. } => {
            format!("{name}:\t<set to the key '{}' in secret '{}'>\tOptional: {}\n", key.key, key.name, key.optional.unwrap_or(false))
        }
        EnvVarSource { config_map_key_ref: Some(key), .. } => {
            format!("{name}:\t<set to the key '{}' of config map '{}'>\tOptional: {}\n", key.key, key.name, key.optional.unwrap_or(false))
        }
        _ => return,
    };
    w.write(3, &text);
}

/// What the downward API gives for a field path.
fn field_value(pod: &Pod, path: &str) -> String {
    let meta = &pod.metadata;
    let map =
        |values: Option<&BTreeMap<String, String>>| values.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n");
    if let Some((field, key)) = path.split_once("['").map(|(f, k)| (f, k.trim_end_matches("']"))) {
        let values = if field == "metadata.labels" { meta.labels.as_ref() } else { meta.annotations.as_ref() };
        return values.and_then(|v| v.get(key)).cloned().unwrap_or_default();
    }
    match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => map(meta.labels.as_ref()),
        "metadata.annotations" => map(meta.annotations.as_ref()),
        // Upstream resolves metadata only: the rest is the node's to say.
        _ => String::new(),
    }
}

fn mounts(w: &mut Writer, container: &Container) {
    let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
    w.write(2, &format!("Mounts:{}\n", if mounts.is_empty() { "\t<none>" } else { "" }));
    mounts.sort_by(|a, b| a.mount_path.cmp(&b.mount_path));
    for mount in mounts {
        let mut flags = vec![if mount.read_only == Some(true) { "ro".to_owned() } else { "rw".to_owned() }];
        if let Some(path) = mount.sub_path.as_ref().filter(|p| !p.is_empty()) {
            flags.push(format!("path={path:?}"));
        }
        w.write(3, &format!("{} from {} ({})\n", mount.mount_path, mount.name, flags.join(",")));
    }
    let mut devices: Vec<_> = container.volume_devices.iter().flatten().collect();
    if !devices.is_empty() {
        w.write(2, "Devices:\n");
        devices.sort_by(|a, b| a.device_path.cmp(&b.device_path));
        devices.iter().for_each(|d| w.write(3, &format!("{} from {}\n", d.device_path, d.name)));
    }
}

/// The `Volumes:` section.
pub fn volumes(w: &mut Writer, volumes: &[Volume], space: &str) {
    if volumes.is_empty() {
        return w.write(0, &format!("{space}Volumes:\t<none>\n"));
    }
    w.write(0, &format!("{space}Volumes:\n"));
    let indent = if space.is_empty() { "" } else { " " };
    for volume in volumes {
        w.write(1, &format!("{indent}{}:\n", volume.name));
        volume_source(w, volume);
    }
}

fn volume_source(w: &mut Writer, volume: &Volume) {
    let flag = |value: Option<bool>| value.unwrap_or(false);
    if let Some(host) = &volume.host_path {
        w.field(2, "Type", "HostPath (bare host directory volume)");
        w.field(2, "Path", &host.path);
        w.field(2, "HostPathType", host.type_.as_deref().unwrap_or("<none>"));
    } else if let Some(empty) = &volume.empty_dir {
        w.field(2, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
        w.field(2, "Medium", empty.medium.as_deref().unwrap_or_default());
        w.field(2, "SizeLimit", empty.size_limit.as_ref().map_or_else(|| "<unset>".into(), quantity));
    } else if let Some(secret) = &volume.secret {
        w.field(2, "Type", "Secret (a volume populated by a Secret)");
        w.field(2, "SecretName", secret.secret_name.as_deref().unwrap_or_default());
        w.field(2, "Optional", flag(secret.optional));
    } else if let Some(map) = &volume.config_map {
        w.field(2, "Type", "ConfigMap (a volume populated by a ConfigMap)");
        w.field(2, "Name", &map.name);
        w.field(2, "Optional", flag(map.optional));
    } else if let Some(claim) = &volume.persistent_volume_claim {
        w.field(2, "Type", "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)");
        w.field(2, "ClaimName", &claim.claim_name);
        w.field(2, "ReadOnly", flag(claim.read_only));
    } else if let Some(downward) = &volume.downward_api {
        w.field(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
        w.write(2, "Items:\n");
        for item in downward.items.iter().flatten() {
            let from = item.field_ref.as_ref().map(|f| f.field_path.clone()).or_else(|| item.resource_field_ref.as_ref().map(|r| r.resource.clone()));
            w.write(3, &format!("{} -> {}\n", from.unwrap_or_default(), item.path));
        }
    } else if let Some(projected) = &volume.projected {
        w.field(2, "Type", "Projected (a volume that contains injected data from multiple sources)");
        for source in projected.sources.iter().flatten() {
            if let Some(secret) = &source.secret {
                w.field(2, "SecretName", &secret.name);
                w.field(2, "Optional", flag(secret.optional));
            } else if source.downward_api.is_some() {
                w.field(2, "DownwardAPI", "true");
            } else if let Some(map) = &source.config_map {
                w.field(2, "ConfigMapName", &map.name);
                w.field(2, "Optional", flag(map.optional));
            } else if let Some(token) = &source.service_account_token {
                w.field(2, "TokenExpirationSeconds", token.expiration_seconds.unwrap_or(3600));
            }
        }
    } else if let Some(nfs) = &volume.nfs {
        w.field(2, "Type", "NFS (an NFS mount that lasts the lifetime of a pod)");
        w.field(2, "Server", &nfs.server);
        w.field(2, "Path", &nfs.path);
        w.field(2, "ReadOnly", flag(nfs.read_only));
    } else if let Some(csi) = &volume.csi {
        w.field(2, "Type", "CSI (a Container Storage Interface (CSI) volume source)");
        w.field(2, "Driver", &csi.driver);
        w.field(2, "FSType", csi.fs_type.as_deref().unwrap_or_default());
        w.field(2, "ReadOnly", flag(csi.read_only));
    } else {
        w.field(2, "Type", "<unknown>");
    }
}

/// `Tolerations:  key=value:effect op=Exists for 300s`
pub fn tolerations(w: &mut Writer, title: &str, tolerations: &[Toleration]) {
    w.write(0, &format!("{title}:\t"));
    if tolerations.is_empty() {
        return w.write(0, "<none>\n");
    }
    let mut sorted: Vec<&Toleration> = tolerations.iter().collect();
    sorted.sort_by(|a, b| a.key.cmp(&b.key));
    for (index, toleration) in sorted.into_iter().enumerate() {
        if index > 0 {
            w.write(0, "\t");
        }
        let set = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        let mut text = set(&toleration.key).unwrap_or_default();
        if let Some(value) = set(&toleration.value) {
            text.push_str(&format!("={value}"));
        }
        if let Some(effect) = set(&toleration.effect) {
            text.push_str(&format!(":{effect}"));
        }
        if toleration.operator.as_deref() == Some("Exists") && set(&toleration.value).is_none() {
            text.push_str(if text.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration.toleration_seconds {
            text.push_str(&format!(" for {seconds}s"));
        }
        w.write(0, &format!("{text}\n"));
    }
}

/// `Topology Spread Constraints:`, when there are any.
pub fn topology(w: &mut Writer, constraints: &[k8s_openapi::api::core::v1::TopologySpreadConstraint], space: &str) {
    if constraints.is_empty() {
        return;
    }
    w.write(0, &format!("{space}Topology Spread Constraints:\t"));
    let mut sorted: Vec<_> = constraints.iter().collect();
    sorted.sort_by(|a, b| a.topology_key.cmp(&b.topology_key));
    for (index, constraint) in sorted.into_iter().enumerate() {
        if index > 0 {
            w.write(0, "\t");
        }
        let selector = constraint.label_selector.as_ref().map_or_else(String::new, |s| format!(" for selector {}", super::format::selector(Some(s))));
        w.write(
            0,
            &format!("{}:{} when max skew {} is exceeded{selector}\n", constraint.topology_key, constraint.when_unsatisfiable, constraint.max_skew),
        );
    }
}
