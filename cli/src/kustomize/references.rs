//! Names inside of objects that name other objects: they follow when those are renamed (`kustomize/api/filters/nameref`). Pure.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::fields::{parts, visit};
use super::resource::{Id, Resource, Resources};
use crate::podspec;

/// A kind that is named, and where in a pod's spec.
const IN_POD_SPECS: &[(&str, &[&str])] = &[
    (
        "ConfigMap",
        &[
            "volumes/configMap/name",
            "volumes/projected/sources/configMap/name",
            "containers/env/valueFrom/configMapKeyRef/name",
            "containers/envFrom/configMapRef/name",
            "initContainers/env/valueFrom/configMapKeyRef/name",
            "initContainers/envFrom/configMapRef/name",
        ],
    ),
    (
        "Secret",
        &[
            "volumes/secret/secretName",
            "volumes/projected/sources/secret/name",
            "containers/env/valueFrom/secretKeyRef/name",
            "containers/envFrom/secretRef/name",
            "initContainers/env/valueFrom/secretKeyRef/name",
            "initContainers/envFrom/secretRef/name",
            "imagePullSecrets/name",
        ],
    ),
    ("ServiceAccount", &["serviceAccountName"]),
    ("PersistentVolumeClaim", &["volumes/persistentVolumeClaim/claimName"]),
    ("PriorityClass", &["priorityClassName"]),
];

/// The kind that names, the kind that is named, and where.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("HorizontalPodAutoscaler", "Deployment", "spec/scaleTargetRef/name"),
    ("HorizontalPodAutoscaler", "ReplicationController", "spec/scaleTargetRef/name"),
    ("HorizontalPodAutoscaler", "ReplicaSet", "spec/scaleTargetRef/name"),
    ("HorizontalPodAutoscaler", "StatefulSet", "spec/scaleTargetRef/name"),
    ("Role", "ConfigMap", "rules/resourceNames"),
    ("Role", "Secret", "rules/resourceNames"),
    ("ClusterRole", "ConfigMap", "rules/resourceNames"),
    ("ClusterRole", "Secret", "rules/resourceNames"),
    ("ClusterRole", "PersistentVolume", "rules/resourceNames"),
    ("Ingress", "Secret", "spec/tls/secretName"),
    ("Ingress", "Secret", "metadata/annotations/ingress.kubernetes.io~1auth-secret"),
    ("Ingress", "Secret", "metadata/annotations/nginx.ingress.kubernetes.io~1auth-secret"),
    ("Ingress", "Secret", "metadata/annotations/nginx.ingress.kubernetes.io~1auth-tls-secret"),
    ("Ingress", "ConfigMap", "metadata/annotations/nginx.ingress.kubernetes.io~1fastcgi-params-configmap"),
    ("Ingress", "Service", "spec/rules/http/paths/backend/serviceName"),
    ("Ingress", "Service", "spec/backend/serviceName"),
    ("Ingress", "Service", "spec/rules/http/paths/backend/service/name"),
    ("Ingress", "Service", "spec/defaultBackend/service/name"),
    ("Ingress", "IngressClass", "spec/ingressClassName"),
    ("ServiceAccount", "Secret", "imagePullSecrets/name"),
    ("StorageClass", "Secret", "parameters/secretName"),
    ("StorageClass", "Secret", "parameters/adminSecretName"),
    ("StorageClass", "Secret", "parameters/userSecretName"),
    ("StorageClass", "Secret", "parameters/secretRef"),
    ("PersistentVolume", "Secret", "spec/azureFile/secretName"),
    ("PersistentVolume", "StorageClass", "spec/storageClassName"),
    ("PersistentVolumeClaim", "StorageClass", "spec/storageClassName"),
    ("PersistentVolumeClaim", "PersistentVolume", "spec/volumeName"),
    ("StatefulSet", "StorageClass", "spec/volumeClaimTemplates/spec/storageClassName"),
    ("StatefulSet", "Service", "spec/serviceName"),
    ("APIService", "Service", "spec/service/name"),
    ("HTTPRoute", "Service", "spec/rules/backendRefs/name"),
    ("ValidatingWebhookConfiguration", "Service", "webhooks/clientConfig/service"),
    ("MutatingWebhookConfiguration", "Service", "webhooks/clientConfig/service"),
    ("RoleBinding", "Role", "roleRef/name"),
    ("RoleBinding", "ClusterRole", "roleRef/name"),
    ("ClusterRoleBinding", "ClusterRole", "roleRef/name"),
    ("RoleBinding", "ServiceAccount", "subjects"),
    ("ClusterRoleBinding", "ServiceAccount", "subjects"),
];

/// Rewrites every reference to an object that was renamed or moved.
pub fn fix(all: &mut Resources) -> Result<()> {
    let renamed: Vec<Resource> = all.0.iter().filter(|r| !r.previous.is_empty()).cloned().collect();
    for referrer in &mut all.0 {
        let past = Resource { object: Value::Null, ..referrer.clone() };
        let (id, original) = (referrer.id(), referrer.original_id());
        let mut failure = None;
        let mut follow = |object: &mut Value, path: &[&str], kind: &str| {
            visit(object, path, false, &mut |at| {
                let sought = Sought { referrer: &past, id: &id, kind, is_role: path == ["roleRef", "name"], candidates: &renamed };
                if let Err(error) = sought.set(at) {
                    failure = Some(error);
                }
            });
        };
        if let Some(pointer) = podspec::spec_pointer(&original.kind) {
            for (kind, paths) in IN_POD_SPECS {
                for path in *paths {
                    let whole: Vec<&str> = pointer.split('/').skip(1).chain(path.split('/')).collect();
                    follow(&mut referrer.object, &whole, kind);
                }
            }
        }
        let role = referrer.object["roleRef"]["kind"].as_str().unwrap_or_default().to_owned();
        for (_, kind, path) in ELSEWHERE.iter().filter(|(from, _, _)| *from == original.kind) {
            // A role is of the kind that the reference tells.
            if *path == "roleRef/name" && *kind != role {
                continue;
            }
            let whole: Vec<String> = parts(path).iter().map(|p| p.replace("~1", "/")).collect();
            follow(&mut referrer.object, &whole.iter().map(String::as_str).collect::<Vec<_>>(), kind);
        }
        if let Some(error) = failure {
            return Err(error);
        }
    }
    Ok(())
}

/// One kind of object that a referrer may name.
struct Sought<'a> {
    referrer: &'a Resource,
    id: &'a Id,
    kind: &'a str,
    is_role: bool,
    candidates: &'a [Resource],
}

impl Sought<'_> {
    fn set(&self, at: &mut Value) -> Result<()> {
        match at {
            Value::String(name) => {
                if let Some(found) = self.find(name, None)? {
                    *name = found.id().name;
                }
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.set(item))?,
            Value::Object(_) => {
                let Some(name) = at["name"].as_str() else { return Ok(()) };
                if let Some(found) = self.find(name, at["namespace"].as_str())? {
                    let id = found.id();
                    at["name"] = json!(id.name);
                    if !id.namespace.is_empty() {
                        at["namespace"] = json!(id.namespace);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The object that was called so once, if there is one and only one.
    fn find(&self, name: &str, namespace: Option<&str>) -> Result<Option<&Resource>> {
        let mut found: Vec<&Resource> = self
            .candidates
            .iter()
            .filter(|c| c.previous.iter().any(|id| id.name == name) && c.previous.iter().any(|id| id.kind == self.kind) && self.reaches(c))
            .collect();
        if let Some(namespace) = namespace {
            let before: Vec<&Resource> = found.iter().copied().filter(|c| c.original_id().effective_namespace() == namespace).collect();
            found = if before.is_empty() { found.into_iter().filter(|c| c.id().effective_namespace() == namespace).collect() } else { before };
        }
        if found.len() > 1 {
            found.retain(|c| same_ending(&c.prefixes, &self.referrer.prefixes) && same_ending(&c.suffixes, &self.referrer.suffixes));
        }
        if let Some((first, rest)) = found.split_first()
            && rest.iter().any(|c| c.id().name != first.id().name)
        {
            let ids: Vec<String> = found.iter().map(|c| c.id().to_string()).collect();
            bail!("updating name reference in {}: found multiple possible referrals: {}", self.id, ids.join(", "));
        }
        Ok(found.first().copied())
    }

    /// Objects in namespaces name only their neighbours, and what lives in none.
    fn reaches(&self, candidate: &Resource) -> bool {
        let id = candidate.id();
        self.is_role && id.is_cluster_scoped()
            || self.id.is_cluster_scoped()
            || id.is_cluster_scoped()
            || id.kind == "ServiceAccount"
            || id.effective_namespace() == self.id.effective_namespace()
    }
}

/// Whether the shorter list ends the longer one; an empty one only ends an empty one.
fn same_ending(a: &[String], b: &[String]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    if short.is_empty() { long.is_empty() } else { long.ends_with(short) }
}

#[cfg(test)]
mod tests {
    use super::super::transform;
    use super::*;

    fn resource(kind: &str, version: &str, body: Value) -> Resource {
        let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "x" } });
        object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        Resource::new(object)
    }

    #[test]
    fn references_follow_what_they_name() {
        let pod =
            json!({ "spec": { "serviceAccountName": "x", "volumes": [{ "configMap": { "name": "x" } }, { "secret": { "secretName": "other" } }] } });
        let binding = json!({ "roleRef": { "kind": "ClusterRole", "name": "x" }, "subjects": [{ "kind": "ServiceAccount", "name": "x", "namespace": "default" }] });
        let mut all = Resources(vec![
            resource("Pod", "v1", pod),
            resource("ConfigMap", "v1", json!({})),
            resource("ServiceAccount", "v1", json!({})),
            resource("ClusterRole", "rbac.authorization.k8s.io/v1", json!({})),
            resource("RoleBinding", "rbac.authorization.k8s.io/v1", binding),
        ]);
        transform::namespace(&mut all, "n").unwrap();
        transform::names(&mut all, "p-", "-s");
        fix(&mut all).unwrap();
        let spec = &all.0[0].object["spec"];
        assert_eq!((&spec["serviceAccountName"], &spec["volumes"][0]["configMap"]["name"]), (&json!("p-x-s"), &json!("p-x-s")));
        assert_eq!(spec["volumes"][1]["secret"]["secretName"], "other");
        let binding = &all.0[4].object;
        assert_eq!(binding["roleRef"]["name"], "p-x-s");
        assert_eq!(binding["subjects"][0], json!({ "kind": "ServiceAccount", "name": "p-x-s", "namespace": "n" }));
    }

    #[test]
    fn of_namesakes_the_one_with_the_same_prefix_is_meant() {
        let pod = json!({ "spec": { "volumes": [{ "configMap": { "name": "x" } }] } });
        let base = || Resources(vec![resource("Pod", "v1", pod.clone()), resource("ConfigMap", "v1", json!({}))]);
        let (mut one, mut two) = (base(), base());
        transform::names(&mut one, "one-", "");
        transform::names(&mut two, "two-", "");
        let mut all = Resources([one.0, two.0].concat());
        fix(&mut all).unwrap();
        assert_eq!(all.0[0].object["spec"]["volumes"][0]["configMap"]["name"], "one-x");
        assert_eq!(all.0[2].object["spec"]["volumes"][0]["configMap"]["name"], "two-x");
    }
}
