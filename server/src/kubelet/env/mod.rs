//! A container's environment variables: literals with `$(VAR)`, references, `envFrom`, services (`makeEnvironmentVariables` in
//! `pkg/kubelet/kubelet_pods.go`).
//!
//! Pure: what is referred to has been fetched before.

pub mod downward;
pub mod expand;
pub mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod, Service};

use super::pods::spec;
use super::refs::PodRefs;

/// What a container's environment depends on.
pub struct Input<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// ConfigMaps and Secrets it refers to.
    pub refs: &'a PodRefs,
    /// Every service.
    pub services: &'a [Arc<Service>],
    /// The node's addresses.
    pub node_ips: &'a [IpAddr],
    /// The pod's addresses.
    pub pod_ips: &'a [IpAddr],
    /// What stands in for absent limits: millicores and bytes of the node.
    pub allocatable: downward::Allocatable,
}

/// The variables, in the order in which they were defined; a later definition of a name replaces the earlier one in place.
/// The error is the message of `CreateContainerConfigError`.
pub fn variables(input: &Input<'_>) -> Result<Vec<(String, String)>, String> {
    let mut result = Ordered::default();
    let links = input.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    let services = services::variables(input.services, spec::namespace(input.pod), links);
    for from in input.container.env_from.iter().flatten() {
        for (name, value) in all_of(input, from)? {
            result.set(name, value);
        }
    }
    let mut known: BTreeMap<String, String> = result.values.clone();
    for variable in input.container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => expand::expand(value, |name| known.get(name).or_else(|| services.get(name)).cloned()),
            (_, Some(source)) => match resolve(input, source)? {
                Some(value) => value,
                None => continue,
            },
            _ => String::new(),
        };
        known.insert(variable.name.clone(), value.clone());
        result.set(variable.name.clone(), value);
    }
    for (name, value) in services {
        if !result.values.contains_key(&name) {
            result.set(name, value);
        }
    }
    Ok(result.into_list())
}

#[derive(Default)]
struct Ordered {
    names: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Ordered {
    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.names.push(name);
        }
    }
    fn into_list(mut self) -> Vec<(String, String)> {
        self.names.into_iter().filter_map(|name| self.values.remove_entry(&name)).collect()
    }
}

/// The variables of an `envFrom` source.
fn all_of(input: &Input<'_>, from: &EnvFromSource) -> Result<Vec<(String, String)>, String> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let mut found: Vec<(String, String)> = Vec::new();
    if let Some(source) = &from.config_map_ref {
        match input.refs.config_map(&source.name) {
            Some(map) => found.extend(map.data.clone().unwrap_or_default()),
            None if source.optional == Some(true) => {}
            None => return Err(format!("configmap \"{}\" not found", source.name)),
        }
    } else if let Some(source) = &from.secret_ref {
        match input.refs.secret(&source.name) {
            Some(secret) => found.extend(secret.data.iter().flatten().map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned()))),
            None if source.optional == Some(true) => {}
            None => return Err(format!("secret \"{}\" not found", source.name)),
        }
    }
    // Since 1.30 every printable name without `=` is a variable.
    Ok(found.into_iter().map(|(k, v)| (format!("{prefix}{k}"), v)).filter(|(k, _)| !k.is_empty() && !k.contains(['=', '\0'])).collect())
}

/// The value of a reference; `None` if it is optional and absent.
fn resolve(input: &Input<'_>, source: &EnvVarSource) -> Result<Option<String>, String> {
    let namespace = spec::namespace(input.pod);
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = input.refs.config_map(&key.name) else {
            return if optional { Ok(None) } else { Err(format!("configmap \"{}\" not found", key.name)) };
        };
        return match map.data.as_ref().and_then(|d| d.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = input.refs.secret(&key.name) else {
            return if optional { Ok(None) } else { Err(format!("secret \"{}\" not found", key.name)) };
        };
        return match secret.data.as_ref().and_then(|d| d.get(&key.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)),
        };
    }
    if let Some(field) = &source.field_ref {
        let addresses = downward::Addresses { node: input.node_ips, pod: input.pod_ips };
        return downward::field(input.pod, &field.field_path, &addresses).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return downward::resource(input.pod, input.container, resource, &input.allocatable).map(Some);
    }
    if source.file_key_ref.is_some() {
        return Err("environment variables from files (fileKeyRef) are not supported by this kubelet".into());
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::{Value, json};

    fn environment(container: Value) -> Result<Vec<(String, String)>, String> {
        let mut container = container;
        container["name"] = json!("a");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "app": "web" }, "annotations": { "a/b": "c" } },
            "spec": { "nodeName": "node", "serviceAccountName": "sa", "enableServiceLinks": false, "containers": [container] },
        }))
        .unwrap();
        let map: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": "map" }, "data": { "k": "v", "K2": "v2" } })).unwrap();
        let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": "sec" }, "data": { "k": "c2VjcmV0" } })).unwrap();
        let refs = PodRefs::fixed(vec![map], vec![secret]);
        variables(&Input {
            pod: &pod,
            container: &pod.spec.as_ref().unwrap().containers[0],
            refs: &refs,
            services: &[],
            node_ips: &["192.0.2.1".parse().unwrap()],
            pod_ips: &["10.0.0.2".parse().unwrap()],
            allocatable: downward::Allocatable { millicores: 2000, memory: 1 << 30, storage: 1 << 32 },
        })
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn variables_expand_what_was_defined_before_them() {
        let env = json!({ "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "$(A)-$(C)-$$(A)" }, { "name": "C", "value": "3" }, { "name": "A", "value": "$(A)2" }] });
        assert_eq!(environment(env).unwrap(), pairs(&[("A", "12"), ("B", "1-$(C)-$(A)"), ("C", "3")]));
    }

    #[test]
    fn references_are_resolved_and_prefixed() {
        let env = json!({
            "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "map" } }, { "secretRef": { "name": "none", "optional": true } }],
            "env": [
                { "name": "M", "valueFrom": { "configMapKeyRef": { "name": "map", "key": "k" } } },
                { "name": "S", "valueFrom": { "secretKeyRef": { "name": "sec", "key": "k" } } },
                { "name": "O", "valueFrom": { "secretKeyRef": { "name": "sec", "key": "zzz", "optional": true } } },
                { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
            ],
        });
        let expected = pairs(&[("P_K2", "v2"), ("P_k", "v"), ("M", "v"), ("S", "secret"), ("IP", "10.0.0.2"), ("CPU", "2")]);
        assert_eq!(environment(env).unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_named_in_upstreams_words() {
        for (source, message) in [
            (json!({ "configMapKeyRef": { "name": "no", "key": "k" } }), "configmap \"no\" not found"),
            (json!({ "configMapKeyRef": { "name": "map", "key": "no" } }), "couldn't find key no in ConfigMap n/map"),
            (json!({ "secretKeyRef": { "name": "no", "key": "k" } }), "secret \"no\" not found"),
            (json!({ "secretKeyRef": { "name": "sec", "key": "no" } }), "couldn't find key no in Secret n/sec"),
        ] {
            let env = json!({ "env": [{ "name": "A", "valueFrom": source }] });
            assert_eq!(environment(env).unwrap_err(), message);
        }
    }
}
