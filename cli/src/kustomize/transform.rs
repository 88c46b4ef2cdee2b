//! The changes that a kustomization makes to every object it holds: namespace, names, labels, annotations, replicas, images. Pure.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::fields::{parts, visit};
use super::resource::{Id, Resource, Resources};
use super::spec::{Image, Kustomization, Label, Replica};

/// Moves every object into a namespace.
pub fn namespace(all: &mut Resources, namespace: &str) -> Result<()> {
    if namespace.is_empty() {
        return Ok(());
    }
    for resource in &mut all.0 {
        let id = resource.id();
        resource.remember();
        if !id.is_cluster_scoped() {
            resource.object["metadata"]["namespace"] = json!(namespace);
        }
        let (path, create) = match id.kind.as_str() {
            "Namespace" => ("metadata/name", true),
            "APIService" => ("spec/service/namespace", true),
            "CustomResourceDefinition" => ("spec/conversion/webhook/clientConfig/service/namespace", false),
            "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => ("webhooks/clientConfig/service/namespace", false),
            "RoleBinding" | "ClusterRoleBinding" => {
                visit(&mut resource.object, &["subjects"], false, &mut |subject| {
                    if subject["kind"] == "ServiceAccount" && subject["name"] == "default" {
                        subject["namespace"] = json!(namespace);
                    }
                });
                continue;
            }
            _ => continue,
        };
        visit(&mut resource.object, &parts(path), create, &mut |at| *at = json!(namespace));
    }
    for resource in &all.0 {
        let id = resource.id();
        if all.0.iter().filter(|r| r.id().is_same(&id)).count() > 1 {
            bail!("namespace transformation produces ID conflict: {id}");
        }
    }
    Ok(())
}

/// Puts something in front of every name, and something behind it.
pub fn names(all: &mut Resources, prefix: &str, suffix: &str) {
    for resource in &mut all.0 {
        if matches!(resource.original_id().kind.as_str(), "Namespace" | "CustomResourceDefinition" | "APIService") {
            continue;
        }
        if !prefix.is_empty() {
            resource.remember();
            resource.rename(&format!("{prefix}{}", resource.id().name));
            resource.prefixes.push(prefix.to_owned());
        }
        if !suffix.is_empty() {
            resource.remember();
            resource.rename(&format!("{}{suffix}", resource.id().name));
            resource.suffixes.push(suffix.to_owned());
        }
    }
}

/// The labels of `commonLabels` and `labels`.
pub fn labels(all: &mut Resources, kustomization: &Kustomization) {
    let mut common = Label::default();
    (common.pairs, common.include_selectors) = (kustomization.common_labels.clone(), true);
    for label in kustomization.labels.iter().chain([&common]).filter(|l| !l.pairs.is_empty()) {
        for resource in &mut all.0 {
            let id = resource.id();
            set(&mut resource.object, "metadata/labels", true, &label.pairs);
            if label.include_selectors || label.include_templates {
                for root in templates(&id) {
                    set(&mut resource.object, &format!("{root}/metadata/labels"), true, &label.pairs);
                }
            }
            if label.include_selectors {
                for (path, create) in selectors(&id) {
                    set(&mut resource.object, &path, create, &label.pairs);
                }
            }
        }
    }
}

/// The annotations of `commonAnnotations`.
pub fn annotations(all: &mut Resources, pairs: &BTreeMap<String, String>) {
    for resource in all.0.iter_mut().filter(|_| !pairs.is_empty()) {
        let id = resource.id();
        set(&mut resource.object, "metadata/annotations", true, pairs);
        for root in templates(&id) {
            set(&mut resource.object, &format!("{root}/metadata/annotations"), true, pairs);
        }
    }
}

fn set(object: &mut Value, path: &str, create: bool, pairs: &BTreeMap<String, String>) {
    visit(object, &parts(path), create, &mut |at| {
        let map = Resource::map_mut(at, &[]);
        map.extend(pairs.iter().map(|(k, v)| (k.clone(), json!(v))));
    });
}

/// The templates of a kind, from which other objects are made.
fn templates(id: &Id) -> &'static [&'static str] {
    match (id.group.as_str(), id.kind.as_str()) {
        ("", "ReplicationController") | (_, "Deployment" | "ReplicaSet" | "DaemonSet") | ("apps", "StatefulSet") | ("batch", "Job") => {
            &["spec/template"]
        }
        ("batch", "CronJob") => &["spec/jobTemplate", "spec/jobTemplate/spec/template"],
        _ => &[],
    }
}

/// Where a kind selects by labels, and whether a selector is made where there is none.
fn selectors(id: &Id) -> Vec<(String, bool)> {
    const AFFINITY: [&str; 5] = [
        "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
        "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
        "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution/podAffinityTerm/labelSelector/matchLabels",
        "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/labelSelector/matchLabels",
        "topologySpreadConstraints/labelSelector/matchLabels",
    ];
    let own: &[(&str, bool)] = match (id.group.as_str(), id.kind.as_str()) {
        ("", "Service" | "ReplicationController") => &[("spec/selector", true)],
        (_, "Deployment" | "ReplicaSet" | "DaemonSet") => &[("spec/selector/matchLabels", true)],
        ("apps", "StatefulSet") => &[("spec/selector/matchLabels", true), ("spec/volumeClaimTemplates[]/metadata/labels", true)],
        ("batch", "Job") | ("policy", "PodDisruptionBudget") => &[("spec/selector/matchLabels", false)],
        ("batch", "CronJob") => &[("spec/jobTemplate/spec/selector/matchLabels", false)],
        ("networking.k8s.io", "NetworkPolicy") => &[
            ("spec/podSelector/matchLabels", false),
            ("spec/ingress/from/podSelector/matchLabels", false),
            ("spec/egress/to/podSelector/matchLabels", false),
        ],
        _ => &[],
    };
    let mut paths: Vec<(String, bool)> = own.iter().map(|(path, create)| ((*path).to_owned(), *create)).collect();
    if id.group == "apps" && matches!(id.kind.as_str(), "Deployment" | "StatefulSet") {
        paths.extend(AFFINITY.map(|path| (format!("spec/template/spec/{path}"), false)));
    }
    paths
}

/// The numbers of `replicas`.
pub fn replicas(all: &mut Resources, wanted: &[Replica]) -> Result<()> {
    const KINDS: [&str; 4] = ["Deployment", "StatefulSet", "ReplicaSet", "ReplicationController"];
    for replica in wanted {
        let named = |r: &&mut Resource| r.ids().iter().any(|id| id.name == replica.name) && KINDS.contains(&r.id().kind.as_str());
        let mut found = false;
        for resource in all.0.iter_mut().filter(named) {
            visit(&mut resource.object, &["spec", "replicas"], true, &mut |at| *at = json!(replica.count));
            found = true;
        }
        if !found {
            let kinds = KINDS.map(|kind| format!("{kind}.[noVer].[noGrp]")).join(" ");
            bail!("resource with name {} does not match a config with the following GVK [{kinds}]", replica.name);
        }
    }
    Ok(())
}

/// The names, tags and digests of `images`, in every container wherever it stands.
pub fn images(all: &mut Resources, images: &[Image]) {
    for image in images {
        for resource in all.0.iter_mut().filter(|r| r.id().kind != "CustomResourceDefinition") {
            in_containers(&mut resource.object, image);
        }
    }
}

fn in_containers(value: &mut Value, image: &Image) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| in_containers(item, image)),
        Value::Object(fields) => {
            for (name, field) in fields {
                let path: &[&str] = match name.as_str() {
                    "containers" | "initContainers" => &["image"],
                    "volumes" => &["image", "reference"],
                    _ => &[],
                };
                if !path.is_empty() && field.is_array() {
                    visit(field, path, false, &mut |at| {
                        if let Some(text) = at.as_str().and_then(|text| changed(text, image)) {
                            *at = json!(text);
                        }
                    });
                }
                in_containers(field, image);
            }
        }
        _ => {}
    }
}

/// An image's new reference; none when it is another image.
fn changed(reference: &str, image: &Image) -> Option<String> {
    let (rest, digest) = reference.split_once('@').map_or((reference, ""), |(rest, digest)| (rest, digest));
    let tag_at = rest.rfind(':').filter(|at| !rest[*at..].contains('/'));
    let (name, tag) = tag_at.map_or((rest, ""), |at| (&rest[..at], &rest[at + 1..]));
    if name != image.name {
        return None;
    }
    let name = if image.new_name.is_empty() { name } else { &image.new_name };
    let (tag, digest) = match (image.new_tag.as_str(), image.digest.as_str(), image.tag_suffix.as_str()) {
        ("", "", "") => (tag.to_owned(), digest),
        ("", "", suffix) => (format!("{tag}{suffix}"), ""),
        (tag, digest, _) => (tag.to_owned(), digest),
    };
    let part = |mark: &str, text: &str| if text.is_empty() { String::new() } else { format!("{mark}{text}") };
    Some(format!("{name}{}{}", part(":", &tag), part("@", digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_matched_by_their_name_alone() {
        let image = |new_name: &str, new_tag: &str, digest: &str, tag_suffix: &str| Image {
            name: "nginx".into(),
            new_name: new_name.into(),
            new_tag: new_tag.into(),
            tag_suffix: tag_suffix.into(),
            digest: digest.into(),
        };
        for (from, by, to) in [
            ("nginx", image("", "2", "", ""), Some("nginx:2")),
            ("nginx:1@sha256:a", image("", "2", "", ""), Some("nginx:2")),
            ("nginx:1", image("my/n", "", "", ""), Some("my/n:1")),
            ("nginx:1", image("", "", "sha256:b", ""), Some("nginx@sha256:b")),
            ("nginx:1", image("", "3", "sha256:b", ""), Some("nginx:3@sha256:b")),
            ("nginx:1@sha256:a", image("", "", "", "-x"), Some("nginx:1-x")),
            ("nginx:1@sha256:a", image("n", "", "", ""), Some("n:1@sha256:a")),
            ("host:5000/nginx:1", image("n", "", "", ""), None),
        ] {
            assert_eq!(changed(from, &by).as_deref(), to, "{from}");
        }
    }
}
