//! Validation of volumes (`ValidateVolumes`): one source each, with what that source needs.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume};
use shared::field::{Error, ErrorList, Path};
use shared::quantity::Quantity;

use super::containers::{descending, no_backsteps};
use super::environment::{file_field, resource_field};
use super::spec::Volumes;
use crate::registry::validation::{check, config_key, dns1123_label, one_of};

/// Every volume; returns those with a good name, for the mounts.
pub fn volumes<'a>(path: &Path, volumes: &'a [Volume], errors: &mut ErrorList) -> Volumes<'a> {
    let mut good = Volumes::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        let before = errors.len();
        source(&path, volume, errors);
        match volume.name.as_str() {
            "" => errors.push(Error::required(&path.child("name"), "")),
            name => check(&path.child("name"), name, dns1123_label(name), errors),
        }
        if good.contains_key(volume.name.as_str()) {
            errors.push(Error::duplicate(&path.child("name"), &volume.name));
        }
        // A mount of a broken volume is not reported a second time.
        if errors.len() == before || !volume.name.is_empty() {
            good.insert(&volume.name, volume);
        }
    }
    good
}

fn source(path: &Path, volume: &Volume, errors: &mut ErrorList) {
    let json = serde_json::to_value(volume).unwrap_or_default();
    let mut set: Vec<&str> = json.as_object().into_iter().flat_map(|m| m.keys()).map(String::as_str).filter(|k| *k != "name").collect();
    // Upstream checks empty directories first.
    set.sort_by_key(|k| (*k != "emptyDir", *k));
    match set.as_slice() {
        [] => errors.push(Error::required(path, "must specify a volume type")),
        [_] => one_source(path, volume, errors),
        [_, more @ ..] => {
            errors.extend(more.iter().map(|name| Error::forbidden(&path.child(name), "may not specify more than 1 volume type")));
        }
    }
}

fn one_source(path: &Path, volume: &Volume, errors: &mut ErrorList) {
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref())
        && Quantity::of(limit).signum() < 0
    {
        errors.push(Error::forbidden(&path.child("emptyDir").child("sizeLimit"), "SizeLimit field must be a valid resource quantity"));
    }
    if let Some(host) = &volume.host_path {
        let path = path.child("hostPath");
        match host.path.as_str() {
            "" => errors.push(Error::required(&path.child("path"), "")),
            value => no_backsteps(&path.child("path"), value, errors),
        }
        let types = ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
        one_of(&path.child("type"), host.type_.as_deref(), &types, errors);
    }
    if let Some(secret) = &volume.secret {
        let path = path.child("secret");
        required(&path.child("secretName"), secret.secret_name.as_deref(), errors);
        mode(&path.child("defaultMode"), secret.default_mode, errors);
        items(&path.child("items"), secret.items.as_deref().unwrap_or_default(), errors);
    }
    if let Some(map) = &volume.config_map {
        let path = path.child("configMap");
        required(&path.child("name"), Some(&map.name), errors);
        mode(&path.child("defaultMode"), map.default_mode, errors);
        items(&path.child("items"), map.items.as_deref().unwrap_or_default(), errors);
    }
    if let Some(downward) = &volume.downward_api {
        let path = path.child("downwardAPI");
        mode(&path.child("defaultMode"), downward.default_mode, errors);
        for (index, file) in downward.items.iter().flatten().enumerate() {
            downward_file(&path.child("items").index(index), file, errors);
        }
    }
    if let Some(projected) = &volume.projected {
        self::projected(&path.child("projected"), projected, errors);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        required(&path.child("persistentVolumeClaim").child("claimName"), Some(&claim.claim_name), errors);
    }
    if let Some(nfs) = &volume.nfs {
        let path = path.child("nfs");
        required(&path.child("server"), Some(&nfs.server), errors);
        required(&path.child("path"), Some(&nfs.path), errors);
        if !nfs.path.starts_with('/') {
            errors.push(Error::invalid(&path.child("path"), &nfs.path, "must be an absolute path"));
        }
    }
    if let Some(csi) = &volume.csi {
        required(&path.child("csi").child("driver"), Some(&csi.driver), errors);
    }
    if let Some(ephemeral) = &volume.ephemeral {
        let path = path.child("ephemeral").child("volumeClaimTemplate");
        match &ephemeral.volume_claim_template {
            None => errors.push(Error::required(&path, "")),
            Some(template) => crate::registry::core::persistent_volume_claim::spec(&path.child("spec"), &template.spec, errors),
        }
    }
    if let Some(image) = &volume.image {
        let path = path.child("image");
        one_of(&path.child("pullPolicy"), image.pull_policy.as_deref(), &["Always", "IfNotPresent", "Never"], errors);
    }
}

fn required(path: &Path, value: Option<&str>, errors: &mut ErrorList) {
    if value.unwrap_or_default().is_empty() {
        errors.push(Error::required(path, ""));
    }
}

fn mode(path: &Path, mode: Option<i32>, errors: &mut ErrorList) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errors.push(Error::invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

fn items(path: &Path, items: &[KeyToPath], errors: &mut ErrorList) {
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        match item.key.as_str() {
            "" => errors.push(Error::required(&path.child("key"), "")),
            key => check(&path.child("key"), key, config_key(key), errors),
        }
        required(&path.child("path"), Some(&item.path), errors);
        file_path(&path.child("path"), &item.path, errors);
        mode(&path.child("mode"), item.mode, errors);
    }
}

/// A path below the volume that does not begin with `..`, which is the kubelet's own.
fn file_path(path: &Path, value: &str, errors: &mut ErrorList) {
    descending(path, value, errors);
    if value.starts_with("..") && !value.split('/').any(|part| part == "..") {
        errors.push(Error::invalid(path, value, "must not start with '..'"));
    }
}

fn downward_file(path: &Path, file: &DownwardAPIVolumeFile, errors: &mut ErrorList) {
    required(&path.child("path"), Some(&file.path), errors);
    file_path(&path.child("path"), &file.path, errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), None) => file_field(&path.child("fieldRef"), field, errors),
        (None, Some(field)) => resource_field(&path.child("resourceFieldRef"), field, true, errors),
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"));
        }
        (None, None) => errors.push(Error::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(&path.child("mode"), file.mode, errors);
}

fn projected(path: &Path, projected: &ProjectedVolumeSource, errors: &mut ErrorList) {
    mode(&path.child("defaultMode"), projected.default_mode, errors);
    let mut paths = BTreeSet::new();
    for (index, source) in projected.sources.iter().flatten().enumerate() {
        let path = path.child("sources").index(index);
        let mut files: Vec<&str> = Vec::new();
        if let Some(secret) = &source.secret {
            required(&path.child("secret").child("name"), Some(&secret.name), errors);
            items(&path.child("secret").child("items"), secret.items.as_deref().unwrap_or_default(), errors);
            files.extend(secret.items.iter().flatten().map(|i| i.path.as_str()));
        }
        if let Some(map) = &source.config_map {
            required(&path.child("configMap").child("name"), Some(&map.name), errors);
            items(&path.child("configMap").child("items"), map.items.as_deref().unwrap_or_default(), errors);
            files.extend(map.items.iter().flatten().map(|i| i.path.as_str()));
        }
        for (index, file) in source.downward_api.iter().flat_map(|d| d.items.iter().flatten()).enumerate() {
            downward_file(&path.child("downwardAPI").child("items").index(index), file, errors);
            files.push(&file.path);
        }
        if let Some(token) = &source.service_account_token {
            let path = path.child("serviceAccountToken");
            if token.expiration_seconds.is_some_and(|s| s < 600) {
                let detail = "may not specify a duration less than 10 minutes";
                errors.push(Error::invalid(&path.child("expirationSeconds"), token.expiration_seconds, detail));
            }
            required(&path.child("path"), Some(&token.path), errors);
            descending(&path.child("path"), &token.path, errors);
            files.push(&token.path);
        }
        for file in files.into_iter().filter(|f| !f.is_empty()) {
            if !paths.insert(file.to_owned()) {
                errors.push(Error::invalid(&path, file, "conflicting duplicate paths"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_has_one_source_with_what_it_needs() {
        let of = |volume: serde_json::Value| {
            let mut list: Vec<Volume> = vec![serde_json::from_value(volume).unwrap()];
            let mut spec = k8s_openapi::api::core::v1::PodSpec { volumes: Some(std::mem::take(&mut list)), ..Default::default() };
            super::super::default_spec(&mut spec);
            let mut errors = Vec::new();
            volumes(&Path::new("v"), spec.volumes.as_ref().unwrap(), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        for (volume, expected) in [
            (json!({"name": "a"}), vec![]),
            (json!({"name": "a", "secret": {}}), vec!["v[0].secret.secretName: Required value"]),
            (
                json!({"name": "a", "emptyDir": {}, "secret": {"secretName": "s"}}),
                vec!["v[0].secret: Forbidden: may not specify more than 1 volume type"],
            ),
            (json!({"name": "a", "hostPath": {"path": "/a/../b"}}), vec!["v[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"]),
            (
                json!({"name": "a", "configMap": {"name": "c", "items": [{"key": "k", "path": "/x"}]}}),
                vec!["v[0].configMap.items[0].path: Invalid value: \"/x\": must be a relative path"],
            ),
            (
                json!({"name": "a", "configMap": {"name": "c", "defaultMode": 1000}}),
                vec!["v[0].configMap.defaultMode: Invalid value: 1000: must be a number between 0 and 0777 (octal), both inclusive"],
            ),
            (json!({"name": "a", "persistentVolumeClaim": {"claimName": ""}}), vec!["v[0].persistentVolumeClaim.claimName: Required value"]),
            (
                json!({"name": "a", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}}]}}),
                vec![
                    "v[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                ],
            ),
        ] {
            assert_eq!(of(volume.clone()), expected, "{volume}");
        }
    }

    #[test]
    fn names_are_labels_used_once() {
        let list: Vec<Volume> = serde_json::from_value(json!([{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}])).unwrap();
        let mut errors = Vec::new();
        volumes(&Path::new("v"), &list, &mut errors);
        assert_eq!(errors[0].to_string(), "v[1].name: Duplicate value: \"a\"");
    }
}
