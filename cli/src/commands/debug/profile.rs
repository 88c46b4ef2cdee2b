//! What a debugging profile allows the new container and changes in its pod (`k8s.io/kubectl/pkg/cmd/debug/profiles.go`). Pure.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

/// A named set of privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// What `debug` did before there were profiles.
    Legacy,
    /// Reasonable for each way of debugging.
    General,
    /// Nothing that the baseline pod security standard forbids.
    Baseline,
    /// What the restricted pod security standard demands.
    Restricted,
    /// Network debugging.
    Netadmin,
    /// Everything.
    Sysadmin,
}

/// How a container gets to what it debugs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// An ephemeral container of a pod that runs.
    Ephemeral,
    /// A copy of a pod.
    Copy,
    /// A pod in the namespaces of a node.
    Node,
}

/// What a copy keeps of the pod it is made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Its labels, by which services and controllers would find the copy too.
    pub labels: bool,
    /// Its annotations.
    pub annotations: bool,
    /// Its liveness probes.
    pub liveness: bool,
    /// Its readiness probes.
    pub readiness: bool,
    /// Its startup probes.
    pub startup: bool,
    /// Its init containers.
    pub init_containers: bool,
}

impl Profile {
    /// Reads `--profile`.
    pub fn parse(name: &str) -> Result<Profile> {
        Ok(match name {
            "legacy" => Profile::Legacy,
            "general" => Profile::General,
            "baseline" => Profile::Baseline,
            "restricted" => Profile::Restricted,
            "netadmin" => Profile::Netadmin,
            "sysadmin" => Profile::Sysadmin,
            other => bail!("unknown profile: {other}"),
        })
    }

    /// Changes a pod, and the container of that name in it.
    pub fn apply(self, pod: &mut Value, container: &str, style: Style, keep: Keep) {
        match self {
            Profile::Legacy => {}
            Profile::General if style == Style::Node => with_container(pod, container, |c| drop(c.remove("securityContext"))),
            Profile::General => add_capabilities(pod, container, &["SYS_PTRACE"]),
            Profile::Baseline => with_container(pod, container, |c| drop(c.remove("securityContext"))),
            Profile::Restricted => with_container(pod, container, |c| {
                let context = json!({
                    "allowPrivilegeEscalation": false,
                    "capabilities": { "drop": ["ALL"] },
                    "runAsNonRoot": true,
                    "seccompProfile": { "type": "RuntimeDefault" },
                });
                c.insert("securityContext".into(), context);
            }),
            Profile::Netadmin => add_capabilities(pod, container, &["NET_ADMIN", "NET_RAW"]),
            Profile::Sysadmin => with_container(pod, container, |c| context_of(c)["privileged"] = json!(true)),
        }
        match style {
            Style::Ephemeral => {}
            Style::Copy if self == Profile::Legacy => Keep { labels: false, ..Keep::ALL }.strip(pod),
            Style::Copy => {
                keep.strip(pod);
                if pod["spec"]["shareProcessNamespace"].is_null() {
                    pod["spec"]["shareProcessNamespace"] = json!(true);
                }
            }
            Style::Node => {
                if matches!(self, Profile::Legacy | Profile::General | Profile::Sysadmin) {
                    mount_root(pod, container);
                }
                if !matches!(self, Profile::Baseline | Profile::Restricted) {
                    for field in ["hostIPC", "hostNetwork", "hostPID"] {
                        pod["spec"][field] = json!(true);
                    }
                }
            }
        }
    }
}

impl Keep {
    const ALL: Keep = Keep { labels: true, annotations: true, liveness: true, readiness: true, startup: true, init_containers: true };

    fn strip(self, pod: &mut Value) {
        let kept = [("labels", self.labels), ("annotations", self.annotations)];
        if let Some(metadata) = pod["metadata"].as_object_mut() {
            kept.iter().filter(|(_, keep)| !keep).for_each(|(field, _)| drop(metadata.remove(*field)));
        }
        let probes = [("livenessProbe", self.liveness), ("readinessProbe", self.readiness), ("startupProbe", self.startup)];
        for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            probes.iter().filter(|(_, keep)| !keep).for_each(|(field, _)| drop(container.remove(*field)));
        }
        if let Some(spec) = pod["spec"].as_object_mut().filter(|_| !self.init_containers) {
            spec.remove("initContainers");
        }
    }
}

/// The container of that name, whatever its sort.
fn with_container(pod: &mut Value, name: &str, change: impl FnOnce(&mut Map<String, Value>)) {
    let Some(spec) = pod["spec"].as_object_mut() else { return };
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten();
        if let Some(container) = containers.filter_map(Value::as_object_mut).find(|c| c.get("name").is_some_and(|n| n == name)) {
            return change(container);
        }
    }
}

fn context_of(container: &mut Map<String, Value>) -> &mut Value {
    let context = container.entry("securityContext").or_insert_with(|| json!({}));
    if !context.is_object() {
        *context = json!({});
    }
    context
}

fn add_capabilities(pod: &mut Value, container: &str, names: &[&str]) {
    with_container(pod, container, |c| {
        let capabilities = &mut context_of(c)["capabilities"];
        match capabilities.get_mut("add").and_then(Value::as_array_mut) {
            Some(added) => added.extend(names.iter().map(|n| json!(n))),
            None => capabilities["add"] = json!(names),
        }
    });
}

fn mount_root(pod: &mut Value, container: &str) {
    push(&mut pod["spec"]["volumes"], json!({ "name": "host-root", "hostPath": { "path": "/" } }));
    with_container(pod, container, |c| {
        push(c.entry("volumeMounts").or_insert(Value::Null), json!({ "mountPath": "/host", "name": "host-root" }));
    });
}

/// Adds to a list, which may not be there yet.
pub(super) fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": { "name": "p", "labels": { "a": "b" }, "annotations": { "c": "d" } },
            "spec": {
                "containers": [{ "name": "app", "livenessProbe": {}, "readinessProbe": {}, "startupProbe": {} }, { "name": "d" }],
                "initContainers": [{ "name": "i" }],
            },
        })
    }

    #[test]
    fn a_copy_is_hidden_from_controllers_unless_told_otherwise() {
        for profile in ["general", "baseline", "restricted", "netadmin", "sysadmin"] {
            let mut copy = pod();
            Profile::parse(profile).unwrap().apply(&mut copy, "d", Style::Copy, Keep { init_containers: true, ..Keep::default() });
            assert_eq!(copy["metadata"], json!({ "name": "p" }), "{profile}");
            assert_eq!(copy["spec"]["containers"][0], json!({ "name": "app" }), "{profile}");
            assert_eq!(copy["spec"]["shareProcessNamespace"], true, "{profile}");
            assert_eq!(copy["spec"]["initContainers"][0]["name"], "i", "{profile}");
        }
        let mut copy = pod();
        let keep = Keep { init_containers: false, ..Keep::ALL };
        copy["spec"]["shareProcessNamespace"] = json!(false);
        Profile::General.apply(&mut copy, "d", Style::Copy, keep);
        assert_eq!(copy["metadata"], pod()["metadata"]);
        assert_eq!(copy["spec"]["containers"][0], pod()["spec"]["containers"][0]);
        assert_eq!(copy["spec"]["shareProcessNamespace"], false);
        assert!(copy["spec"].get("initContainers").is_none());
        let mut legacy = pod();
        Profile::Legacy.apply(&mut legacy, "d", Style::Copy, Keep::default());
        assert_eq!(legacy["metadata"], json!({ "name": "p", "annotations": { "c": "d" } }));
        assert_eq!(legacy["spec"], pod()["spec"]);
    }

    #[test]
    fn a_profile_gives_its_container_what_its_name_says() {
        let on = |profile: Profile| {
            let mut copy = pod();
            profile.apply(&mut copy, "d", Style::Ephemeral, Keep::default());
            copy["spec"]["containers"][1]["securityContext"].take()
        };
        assert_eq!(on(Profile::General), json!({ "capabilities": { "add": ["SYS_PTRACE"] } }));
        assert_eq!(on(Profile::Netadmin), json!({ "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } }));
        assert_eq!(on(Profile::Sysadmin), json!({ "privileged": true }));
        assert_eq!(on(Profile::Baseline), Value::Null);
        assert_eq!(on(Profile::Restricted)["capabilities"], json!({ "drop": ["ALL"] }));
    }

    #[test]
    fn a_node_is_seen_as_far_as_the_profile_allows() {
        for (profile, root, host) in [
            (Profile::Legacy, true, true),
            (Profile::General, true, true),
            (Profile::Sysadmin, true, true),
            (Profile::Netadmin, false, true),
            (Profile::Baseline, false, false),
            (Profile::Restricted, false, false),
        ] {
            let mut debugger = json!({ "spec": { "containers": [{ "name": "debugger" }] } });
            profile.apply(&mut debugger, "debugger", Style::Node, Keep::default());
            let spec = &debugger["spec"];
            assert_eq!(spec["volumes"][0]["hostPath"]["path"] == "/", root, "{profile:?}");
            assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"] == "/host", root, "{profile:?}");
            assert_eq!(spec["hostPID"] == true && spec["hostNetwork"] == true && spec["hostIPC"] == true, host, "{profile:?}");
        }
    }
}
