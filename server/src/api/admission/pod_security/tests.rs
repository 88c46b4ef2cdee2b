use serde_json::{Value, json};

use super::*;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
}

fn check(level: &str, version: Option<u32>, spec: Value) -> String {
    let pod = pod(spec);
    let policy = Policy { level: Level::parse(level).unwrap(), minor: version };
    detail(&violations(&policy, &pod.metadata, pod.spec.as_ref().unwrap()))
}

fn good_container() -> Value {
    json!({"name": "c", "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "seccompProfile": {"type": "RuntimeDefault"}}})
}

#[test]
fn a_plain_pod_fails_the_restricted_level_in_upstreams_words() {
    assert_eq!(
        check("restricted", None, json!({"containers": [{"name": "nginx"}]})),
        "allowPrivilegeEscalation != false (container \"nginx\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"nginx\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"nginx\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"nginx\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn each_check_finds_what_it_is_for() {
    let with = |extra: Value| {
        let mut spec = json!({"containers": [good_container()]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        spec
    };
    let container = |extra: Value| {
        let mut container = good_container();
        for (key, value) in extra.as_object().unwrap() {
            match (container.get_mut(key), value) {
                (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
                _ => container[key] = value.clone(),
            }
        }
        json!({"containers": [container]})
    };
    for (spec, baseline, restricted) in [
        (with(json!({})), "", ""),
        (
            with(json!({"hostNetwork": true, "hostPID": true})),
            "host namespaces (hostNetwork=true, hostPID=true)",
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            with(
                json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}, {"name": "n", "nfs": {"server": "s", "path": "/"}}, {"name": "e", "emptyDir": {}}]}),
            ),
            "hostPath volumes (volume \"h\")",
            "restricted volume types (volumes \"h\", \"n\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
        (
            container(json!({"ports": [{"containerPort": 80, "hostPort": 80}, {"containerPort": 81, "hostPort": 443}]})),
            "hostPort (container \"c\" uses hostPorts 443, 80)",
            "hostPort (container \"c\" uses hostPorts 443, 80)",
        ),
        (
            container(json!({"securityContext": {"privileged": true}})),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            container(json!({"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN", "CHOWN"]}}})),
            "non-default capabilities (container \"c\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
            "unrestricted capabilities (container \"c\" must not include \"CHOWN\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            container(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            "seccompProfile (container \"c\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            with(json!({"securityContext": {"runAsUser": 0, "runAsNonRoot": false}})),
            "",
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false), runAsUser=0 (pod must not set runAsUser=0)",
        ),
        (
            with(
                json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}, "sysctls": [{"name": "kernel.msgmax", "value": "1"}, {"name": "net.ipv4.tcp_rmem", "value": "1"}]}}),
            ),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set), forbidden sysctls (kernel.msgmax)",
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set), forbidden sysctls (kernel.msgmax)",
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"host": "example.com", "port": 80}}})),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"example.com\")",
            "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"example.com\")",
        ),
        (
            container(json!({"securityContext": {"procMount": "Unmasked", "appArmorProfile": {"type": "Unconfined"}}})),
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\"), procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
            "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\"), procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
    ] {
        assert_eq!(check("baseline", None, spec.clone()), baseline, "{spec}");
        assert_eq!(check("restricted", None, spec.clone()), restricted, "{spec}");
        assert_eq!(check("privileged", None, spec), "");
    }
}

#[test]
fn old_versions_leave_out_newer_checks_and_every_sort_of_container_counts() {
    let probe = json!({"containers": [{"name": "c", "livenessProbe": {"tcpSocket": {"host": "h", "port": 1}}}]});
    assert_eq!(check("baseline", Some(33), probe.clone()), "");
    assert_ne!(check("baseline", Some(34), probe), "");
    let all = json!({
        "containers": [{"name": "c", "securityContext": {"privileged": true}}],
        "initContainers": [{"name": "i", "securityContext": {"privileged": true}}],
        "ephemeralContainers": [{"name": "e", "securityContext": {"privileged": true}}]
    });
    assert_eq!(check("baseline", None, all), "privileged (containers \"i\", \"c\", \"e\" must not set securityContext.privileged=true)");
}

#[test]
fn labels_are_read_as_upstream_reads_them() {
    let labels = |pairs: &[(&str, &str)]| -> Labels { pairs.iter().map(|(k, v)| (format!("{PREFIX}{k}"), (*v).to_owned())).collect() };
    for (pairs, enforce, warn, errors) in [
        (&[][..], "privileged:latest", "privileged:latest", 0),
        (&[("enforce", "baseline"), ("enforce-version", "v1.30"), ("warn", "restricted")][..], "baseline:v1.30", "restricted:latest", 0),
        (&[("enforce", "strict"), ("warn", "strict")][..], "restricted:latest", "privileged:latest", 2),
        (&[("enforce", "baseline"), ("enforce-version", "1.30")][..], "restricted:latest", "privileged:latest", 1),
    ] {
        let labels = labels(pairs);
        assert_eq!(policy(Some(&labels), "enforce").to_string(), enforce, "{pairs:?}");
        assert_eq!(policy(Some(&labels), "warn").to_string(), warn, "{pairs:?}");
        assert_eq!(label_errors(Some(&labels)).len(), errors, "{pairs:?}");
    }
}
