//! What requests to the API in memory mean: kinds, paths, queries, discovery.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::selector::Selector;

/// Group (empty for core), version, plural, kind, namespaced.
pub(super) type Row = (&'static str, &'static str, &'static str, &'static str, bool);

pub(super) const ROWS: &[Row] = &[
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "endpoints", "Endpoints", true),
    ("", "v1", "events", "Event", true),
    ("", "v1", "limitranges", "LimitRange", true),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", true),
    ("", "v1", "persistentvolumes", "PersistentVolume", false),
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "replicationcontrollers", "ReplicationController", true),
    ("", "v1", "resourcequotas", "ResourceQuota", true),
    ("", "v1", "secrets", "Secret", true),
    ("", "v1", "serviceaccounts", "ServiceAccount", true),
    ("", "v1", "services", "Service", true),
    ("apps", "v1", "controllerrevisions", "ControllerRevision", true),
    ("apps", "v1", "daemonsets", "DaemonSet", true),
    ("apps", "v1", "deployments", "Deployment", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true),
    ("apps", "v1", "statefulsets", "StatefulSet", true),
    ("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", true),
    ("batch", "v1", "cronjobs", "CronJob", true),
    ("batch", "v1", "jobs", "Job", true),
    ("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", false),
    ("coordination.k8s.io", "v1", "leases", "Lease", true),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false),
    ("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", false),
    ("storage.k8s.io", "v1", "csinodes", "CSINode", false),
    ("storage.k8s.io", "v1", "storageclasses", "StorageClass", false),
    ("storage.k8s.io", "v1", "volumeattributesclasses", "VolumeAttributesClass", false),
];

pub(super) struct Target {
    pub(super) row: Row,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
}

pub(super) fn partial(object: &Value) -> Value {
    json!({ "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"] })
}

pub(super) fn group_version(row: &Row) -> String {
    if row.0.is_empty() { row.1.to_owned() } else { format!("{}/{}", row.0, row.1) }
}

pub(super) fn resource(row: &Row) -> String {
    if row.0.is_empty() { row.2.to_owned() } else { format!("{}/{}", row.0, row.2) }
}

pub(super) fn parse(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, _, rest @ ..] => (*group, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        ["namespaces", ns, rest @ ..] if !rest.is_empty() && !matches!(rest[0], "finalize" | "status") => (*ns, rest),
        rest => ("", rest),
    };
    let row = *ROWS.iter().find(|r| r.0 == group && Some(&r.2) == rest.first())?;
    let part = |i: usize| rest.get(i).map(|s| (*s).to_owned()).unwrap_or_default();
    Some(Target { row, namespace: namespace.into(), name: part(1), subresource: part(2) })
}

pub(super) fn discovery(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let resources = |group: &str| {
        let rows = ROWS.iter().filter(|r| r.0 == group);
        let verbs = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
        let list: Vec<Value> = rows.map(|r| json!({ "name": r.2, "singularName": "", "kind": r.3, "namespaced": r.4, "verbs": verbs })).collect();
        let gv = if group.is_empty() { "v1".to_owned() } else { format!("{group}/v1") };
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": gv, "resources": list })
    };
    match parts.as_slice() {
        ["api"] => Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })),
        ["api", "v1"] => Some(resources("")),
        ["apis"] => {
            let groups: std::collections::BTreeSet<&str> = ROWS.iter().map(|r| r.0).filter(|g| !g.is_empty()).collect();
            let version = |g: &str| json!({ "groupVersion": format!("{g}/v1"), "version": "v1" });
            let groups: Vec<Value> = groups.iter().map(|g| json!({ "name": g, "versions": [version(g)], "preferredVersion": version(g) })).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["apis", group, "v1"] => Some(resources(group)),
        _ => None,
    }
}

pub(super) struct Filter {
    labels: Selector,
    fields: Vec<(String, bool, String)>,
    pub(super) metadata_only: bool,
}

impl Filter {
    pub(super) fn new(query: &BTreeMap<String, String>, metadata_only: bool) -> Self {
        let labels = query.get("labelSelector").map_or_else(Selector::everything, |s| Selector::parse(s).unwrap());
        let fields = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
        let fields = fields.split(',').filter(|t| !t.is_empty()).map(|t| match t.split_once("!=") {
            Some((path, value)) => (path.to_owned(), false, value.to_owned()),
            None => t.split_once('=').map(|(path, value)| (path.to_owned(), true, value.to_owned())).unwrap(),
        });
        Filter { labels, fields: fields.collect(), metadata_only }
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels: BTreeMap<String, String> = serde_json::from_value(object["metadata"]["labels"].clone()).unwrap_or_default();
        let field = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str).unwrap_or_default();
        self.labels.matches(&labels) && self.fields.iter().all(|(path, equal, value)| (field(path) == value) == *equal)
    }

    pub(super) fn project(&self, object: &Value) -> Value {
        if self.metadata_only { partial(object) } else { object.clone() }
    }
}

pub(super) fn decode(query: &str) -> BTreeMap<String, String> {
    let plain = |s: &str| {
        let (mut out, mut bytes) = (Vec::new(), s.bytes());
        while let Some(b) = bytes.next() {
            match b {
                b'+' => out.push(b' '),
                b'%' => {
                    let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
                    out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
                }
                b => out.push(b),
            }
        }
        String::from_utf8(out).unwrap()
    };
    query.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (plain(k), plain(v))).collect()
}
