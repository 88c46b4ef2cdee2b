//! The downward API: pod fields and container resources as text (`pkg/fieldpath`, `pkg/api/v1/resource/helpers.go`).
//!
//! Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use shared::quantity::Quantity;

use crate::kubelet::pods::spec;

/// Addresses that fields can name.
pub struct Addresses<'a> {
    /// The node's, primary first.
    pub node: &'a [IpAddr],
    /// The pod's, primary first.
    pub pod: &'a [IpAddr],
}

/// What stands in for limits that a container does not set.
#[derive(Clone, Copy, Debug)]
pub struct Allocatable {
    /// CPU in thousandths.
    pub millicores: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub storage: i64,
}

/// The value of a field path.
pub fn field(pod: &Pod, path: &str, addresses: &Addresses<'_>) -> Result<String, String> {
    let join = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let of_spec =
        |get: fn(&k8s_openapi::api::core::v1::PodSpec) -> &Option<String>| pod.spec.as_ref().and_then(|s| get(s).clone()).unwrap_or_default();
    let meta = &pod.metadata;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let values = match map {
            "metadata.annotations" => &meta.annotations,
            "metadata.labels" => &meta.labels,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(values.as_ref().and_then(|v| v.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => spec::uid(pod).to_owned(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => of_spec(|s| &s.node_name),
        "spec.serviceAccountName" => of_spec(|s| &s.service_account_name),
        "status.hostIP" => first(addresses.node),
        "status.hostIPs" => join(addresses.node),
        "status.podIP" => first(addresses.pod),
        "status.podIPs" => join(addresses.pod),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"` a line, the value quoted as Go's `%q` does.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value))).collect::<Vec<_>>().join("\n")
}

fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() && u32::from(c) < 0x80 => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The value of a resource field such as `limits.memory`, divided and rounded up.
pub fn resource(pod: &Pod, container: &Container, selector: &ResourceFieldSelector, node: &Allocatable) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|n| !n.is_empty());
    let other = named.and_then(|n| spec::container(pod, n)).map(|(_, c)| c);
    if let (Some(name), None) = (named, &other) {
        return Err(format!("container {name} not found"));
    }
    let container = other.as_ref().unwrap_or(container);
    let (kind, name) = selector.resource.split_once('.').ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
    let given = match kind {
        "limits" => spec::limit(container, name),
        // A limit alone is the request too.
        "requests" => spec::request(container, name).or_else(|| spec::limit(container, name)),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().map(Quantity::of).filter(|d| !d.is_zero());
    if name == "cpu" {
        let fallback = if kind == "limits" { node.millicores } else { 0 };
        let millis = given.map_or(fallback, |q| q.millis());
        return Ok(divide(millis, divisor.map_or(1000, |d| d.millis())));
    }
    let fallback = match (kind, name) {
        ("limits", "memory") => node.memory,
        ("limits", "ephemeral-storage") => node.storage,
        _ => 0,
    };
    Ok(divide(given.map_or(fallback, |q| q.value()), divisor.map_or(1, |d| d.value())))
}

fn divide(value: i64, divisor: i64) -> String {
    let divisor = divisor.max(1);
    (value / divisor + i64::from(value % divisor != 0)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_have_upstreams_values() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "b": "2", "a": "x\"y" }, "annotations": { "k/x": "v" } },
            "spec": { "nodeName": "node", "serviceAccountName": "sa", "containers": [] },
        }))
        .unwrap();
        let (node, ips) = (["192.0.2.1".parse().unwrap()], ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]);
        let addresses = Addresses { node: &node, pod: &ips };
        for (path, value) in [
            ("metadata.name", "p"),
            ("metadata.uid", "u"),
            ("metadata.labels", "a=\"x\\\"y\"\nb=\"2\""),
            ("metadata.labels['b']", "2"),
            ("metadata.annotations['k/x']", "v"),
            ("metadata.annotations['none']", ""),
            ("spec.nodeName", "node"),
            ("spec.serviceAccountName", "sa"),
            ("status.hostIP", "192.0.2.1"),
            ("status.podIPs", "10.0.0.1,fd00::1"),
        ] {
            assert_eq!(field(&pod, path, &addresses).unwrap(), value, "{path}");
        }
        assert!(field(&pod, "status.phase", &addresses).is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let container: Container = serde_json::from_value(json!({ "name": "c", "resources": {
            "limits": { "memory": "64Mi", "cpu": "1500m" }, "requests": { "memory": "10M" } } }))
        .unwrap();
        let node = Allocatable { millicores: 4000, memory: 1024, storage: 7 };
        for (resource_name, divisor, value) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.cpu", None, "2"),
            ("limits.memory", Some("1Mi"), "64"),
            ("requests.memory", Some("1Mi"), "10"),
            ("limits.ephemeral-storage", None, "7"),
            ("requests.ephemeral-storage", None, "0"),
        ] {
            let selector: ResourceFieldSelector = serde_json::from_value(json!({ "resource": resource_name, "divisor": divisor })).unwrap();
            assert_eq!(resource(&Pod::default(), &container, &selector, &node).unwrap(), value, "{resource_name} {divisor:?}");
        }
    }
}
