//! Which secrets, config maps, claims and volumes the pods of a node use (`plugin/pkg/auth/authorizer/node/graph.go`).
//!
//! Kept as reference counts per object and node, so a decision is one or two look-ups.

use std::collections::{BTreeSet, HashMap, HashSet};

use k8s_openapi::api::core::v1::{PersistentVolume, PodSpec, PodStatus, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// Kinds the graph holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    ServiceAccount,
    ResourceClaim,
}

/// A pod as far as the graph needs it.
#[derive(Debug, Default, Deserialize)]
pub(super) struct PodRefs {
    #[serde(default)]
    pub metadata: ObjectMeta,
    pub spec: Option<PodSpec>,
    pub status: Option<PodStatus>,
}

type Key = (Kind, String, String);

#[derive(Debug, Default)]
pub(super) struct Graph {
    /// Object → node → how many of the node's pods use it.
    users: HashMap<Key, HashMap<String, u32>>,
    /// Pod (namespace, name) → its node and what was counted for it.
    pods: HashMap<(String, String), (String, Vec<Key>)>,
    /// Volume → the claim it is bound to (namespace, name).
    volumes: HashMap<String, (String, String)>,
    /// Secret (namespace, name) → volumes that use it.
    volume_secrets: HashMap<(String, String), HashSet<String>>,
    /// VolumeAttachment → node.
    attachments: HashMap<String, String>,
}

fn env_refs(spec: &PodSpec, found: &mut HashSet<(Kind, String)>) {
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (&c.env, &c.env_from));
    let regular = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| (&c.env, &c.env_from));
    for (env, env_from) in regular.chain(ephemeral) {
        for source in env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            found.extend(source.secret_key_ref.iter().map(|s| (Kind::Secret, s.name.clone())));
            found.extend(source.config_map_key_ref.iter().map(|s| (Kind::ConfigMap, s.name.clone())));
        }
        for source in env_from.iter().flatten() {
            found.extend(source.secret_ref.iter().map(|s| (Kind::Secret, s.name.clone())));
            found.extend(source.config_map_ref.iter().map(|s| (Kind::ConfigMap, s.name.clone())));
        }
    }
}

fn volume_refs(volume: &Volume, pod: &str, found: &mut HashSet<(Kind, String)>) {
    let mut secret = |name: Option<&String>| found.extend(name.map(|n| (Kind::Secret, n.clone())));
    secret(volume.secret.as_ref().and_then(|s| s.secret_name.as_ref()));
    secret(volume.azure_file.as_ref().map(|s| &s.secret_name));
    secret(volume.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name));
    secret(volume.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name));
    secret(volume.csi.as_ref().and_then(|s| s.node_publish_secret_ref.as_ref()).map(|r| &r.name));
    secret(volume.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name));
    secret(volume.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name));
    secret(volume.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name));
    secret(volume.scale_io.as_ref().map(|s| &s.secret_ref.name));
    secret(volume.storageos.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|r| &r.name));
    found.extend(volume.config_map.iter().map(|c| (Kind::ConfigMap, c.name.clone())));
    found.extend(volume.persistent_volume_claim.iter().map(|c| (Kind::Claim, c.claim_name.clone())));
    if volume.ephemeral.is_some() {
        found.insert((Kind::Claim, format!("{pod}-{}", volume.name)));
    }
    for source in volume.projected.iter().filter_map(|p| p.sources.as_ref()).flatten() {
        found.extend(source.secret.iter().map(|s| (Kind::Secret, s.name.clone())));
        found.extend(source.config_map.iter().map(|c| (Kind::ConfigMap, c.name.clone())));
    }
}

/// What a pod uses in its namespace. A mirror pod, which a kubelet makes by itself, gives rights to nothing but itself.
fn references(pod: &PodRefs, name: &str) -> HashSet<(Kind, String)> {
    let mut found = HashSet::from([(Kind::Pod, name.to_owned())]);
    let mirror = pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"));
    let Some(spec) = pod.spec.as_ref().filter(|_| !mirror) else { return found };
    spec_references(spec, name, &mut found);
    let statuses = pod.status.iter().filter_map(|s| s.resource_claim_statuses.as_ref()).flatten();
    found.extend(statuses.filter_map(|c| c.resource_claim_name.clone()).map(|n| (Kind::ResourceClaim, n)));
    found
}

fn spec_references(spec: &PodSpec, name: &str, found: &mut HashSet<(Kind, String)>) {
    found.extend(spec.service_account_name.iter().filter(|n| !n.is_empty()).map(|n| (Kind::ServiceAccount, n.clone())));
    found.extend(spec.image_pull_secrets.iter().flatten().map(|s| (Kind::Secret, s.name.clone())));
    env_refs(spec, found);
    for volume in spec.volumes.iter().flatten() {
        volume_refs(volume, name, found);
    }
    found.extend(spec.resource_claims.iter().flatten().filter_map(|c| c.resource_claim_name.clone()).map(|n| (Kind::ResourceClaim, n)));
}

/// The sorts of objects a pod refers to, for NodeRestriction.
pub(super) fn kinds_referenced(spec: &PodSpec) -> BTreeSet<&'static str> {
    let mut found = HashSet::new();
    spec_references(spec, "", &mut found);
    let name = |kind: Kind| match kind {
        Kind::Secret => Some("Secret"),
        Kind::ConfigMap => Some("ConfigMap"),
        Kind::Claim => Some("Claim"),
        Kind::ResourceClaim => Some("ResourceClaim"),
        Kind::Pod | Kind::ServiceAccount => None,
    };
    found.into_iter().filter_map(|(kind, _)| name(kind)).collect()
}

/// Namespaces and names of the secrets a volume's driver needs on the node.
fn secrets_of(volume: &PersistentVolume) -> Vec<(String, String)> {
    let Some(spec) = &volume.spec else { return Vec::new() };
    let claim_namespace = spec.claim_ref.as_ref().and_then(|c| c.namespace.clone()).unwrap_or_default();
    let refs = [
        spec.cephfs.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.cinder.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.flex_volume.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.iscsi.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.rbd.as_ref().and_then(|s| s.secret_ref.as_ref()),
        spec.scale_io.as_ref().map(|s| &s.secret_ref),
        spec.csi.as_ref().and_then(|s| s.node_publish_secret_ref.as_ref()),
        spec.csi.as_ref().and_then(|s| s.node_stage_secret_ref.as_ref()),
        spec.csi.as_ref().and_then(|s| s.node_expand_secret_ref.as_ref()),
    ];
    let mut found: Vec<_> = refs
        .into_iter()
        .flatten()
        .filter_map(|r| {
            let namespace = r.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| claim_namespace.clone());
            Some((namespace, r.name.clone()?))
        })
        .collect();
    if let Some(azure) = &spec.azure_file {
        found.push((azure.secret_namespace.clone().unwrap_or(claim_namespace), azure.secret_name.clone()));
    }
    found
}

impl Graph {
    pub(super) fn set_pod(&mut self, namespace: &str, name: &str, pod: Option<PodRefs>) {
        let key = (namespace.to_owned(), name.to_owned());
        let node = pod.as_ref().and_then(|p| p.spec.as_ref()).and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty());
        let next = node.zip(pod).map(|(node, pod)| {
            let mut keys: Vec<Key> = references(&pod, name).into_iter().map(|(kind, n)| (kind, namespace.to_owned(), n)).collect();
            keys.sort_unstable();
            (node, keys)
        });
        // Most changes of a pod touch its status only.
        if self.pods.get(&key) == next.as_ref() {
            return;
        }
        if let Some((node, keys)) = self.pods.remove(&key) {
            for used in keys {
                self.release(&used, &node);
            }
        }
        if let Some((node, keys)) = next {
            for used in &keys {
                *self.users.entry(used.clone()).or_default().entry(node.clone()).or_default() += 1;
            }
            self.pods.insert(key, (node, keys));
        }
    }

    fn release(&mut self, used: &Key, node: &str) {
        let Some(nodes) = self.users.get_mut(used) else { return };
        if let Some(count) = nodes.get_mut(node) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(node);
            }
        }
        if nodes.is_empty() {
            self.users.remove(used);
        }
    }

    pub(super) fn set_volume(&mut self, name: &str, volume: Option<PersistentVolume>) {
        self.volumes.remove(name);
        self.volume_secrets.retain(|_, volumes| {
            volumes.remove(name);
            !volumes.is_empty()
        });
        let Some(volume) = volume else { return };
        for secret in secrets_of(&volume) {
            self.volume_secrets.entry(secret).or_default().insert(name.to_owned());
        }
        let claim = volume.spec.and_then(|s| s.claim_ref);
        if let Some((Some(namespace), Some(claim))) = claim.map(|c| (c.namespace, c.name)) {
            self.volumes.insert(name.to_owned(), (namespace, claim));
        }
    }

    pub(super) fn set_attachment(&mut self, name: &str, node: Option<String>) {
        match node {
            Some(node) => self.attachments.insert(name.to_owned(), node),
            None => self.attachments.remove(name),
        };
    }

    /// Whether a pod of the node uses the object, directly or through a bound volume.
    pub(super) fn uses(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let key = (kind, namespace.to_owned(), name.to_owned());
        if self.users.get(&key).is_some_and(|nodes| nodes.contains_key(node)) {
            return true;
        }
        kind == Kind::Secret && self.volume_secrets.get(&(key.1, key.2)).is_some_and(|volumes| volumes.iter().any(|v| self.uses_volume(node, v)))
    }

    /// Whether a pod of the node uses the claim that a volume is bound to.
    pub(super) fn uses_volume(&self, node: &str, name: &str) -> bool {
        self.volumes.get(name).is_some_and(|(namespace, claim)| self.uses(node, Kind::Claim, namespace, claim))
    }

    /// Whether an attachment is to the node.
    pub(super) fn attached(&self, node: &str, attachment: &str) -> bool {
        self.attachments.get(attachment).is_some_and(|n| n == node)
    }
}
