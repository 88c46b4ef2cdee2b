//! The files of configMap, secret, downwardAPI and projected volumes (`pkg/volume/{configmap,secret,downwardapi,projected}`).
//!
//! Collects from what is at hand; only tokens are asked for. Writing is [`super::atomic`]'s.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeProjection};

use super::atomic::{File, Files};
use super::{Context, fs_group, token};
use crate::kubelet::env::downward;
use crate::kubelet::pods::spec;

const DEFAULT_MODE: i32 = 0o644;

/// The plugin directory of a volume whose contents come from the API.
pub fn kind(volume: &Volume) -> Option<&'static str> {
    match () {
        () if volume.config_map.is_some() => Some("kubernetes.io~configmap"),
        () if volume.secret.is_some() => Some("kubernetes.io~secret"),
        () if volume.downward_api.is_some() => Some("kubernetes.io~downward-api"),
        () if volume.projected.is_some() => Some("kubernetes.io~projected"),
        () => None,
    }
}

/// The files that a volume is to hold now.
pub async fn files(context: &Context<'_>, volume: &Volume, tokens: &mut token::Tokens) -> Result<Files, String> {
    let mut files = Files::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        add_config_map(context, &source.name, source.optional, source.items.as_deref(), mode, &mut files)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.clone().unwrap_or_default();
        add_secret(context, &name, source.optional, source.items.as_deref(), mode, &mut files)?;
    } else if let Some(source) = &volume.downward_api {
        add_downward(context, source.items.as_deref(), source.default_mode.unwrap_or(DEFAULT_MODE), &mut files)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        for (index, part) in source.sources.iter().flatten().enumerate() {
            add_projection(context, part, &format!("{}/{index}", volume.name), mode, tokens, &mut files).await?;
        }
    }
    Ok(files)
}

async fn add_projection(
    context: &Context<'_>,
    part: &VolumeProjection,
    key: &str,
    mode: i32,
    tokens: &mut token::Tokens,
    files: &mut Files,
) -> Result<(), String> {
    if let Some(source) = &part.config_map {
        add_config_map(context, &source.name, source.optional, source.items.as_deref(), mode, files)
    } else if let Some(source) = &part.secret {
        add_secret(context, &source.name, source.optional, source.items.as_deref(), mode, files)
    } else if let Some(source) = &part.downward_api {
        add_downward(context, source.items.as_deref(), mode, files)
    } else if let Some(source) = &part.service_account_token {
        let token = tokens.get(context.client, context.pod, key, source).await?;
        // A token that can be given to the pod's user or group is for them only.
        let owner = fs_user(context.pod);
        let mode = if owner.is_some() || fs_group(context.pod).is_some() { 0o600 } else { mode };
        files.insert(source.path.clone(), File { bytes: token.into_bytes(), mode: bits(mode), owner });
        Ok(())
    } else {
        Err("this kind of projected volume source is not supported by this kubelet".into())
    }
}

/// The user that every container runs as, if all name the same (`FsUserFrom` in `pkg/volume/util/util.go`).
fn fs_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let mut users = spec.init_containers.iter().flatten().chain(&spec.containers).map(|container| {
        let own = container.security_context.as_ref().and_then(|s| s.run_as_user);
        own.or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

fn add_config_map(
    context: &Context<'_>,
    name: &str,
    optional: Option<bool>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    files: &mut Files,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let Some(map) = context.refs.config_map(name) else {
        return if optional { Ok(()) } else { Err(format!("configmap \"{name}\" not found")) };
    };
    let text = map.data.iter().flatten().map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone()));
    let missing = |key: &str| format!("configmap references non-existent config key: {key}");
    select(text.chain(binary).collect(), items, mode, optional, missing, files)
}

fn add_secret(
    context: &Context<'_>,
    name: &str,
    optional: Option<bool>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    files: &mut Files,
) -> Result<(), String> {
    let optional = optional == Some(true);
    let Some(secret) = context.refs.secret(name) else {
        return if optional { Ok(()) } else { Err(format!("secret \"{name}\" not found")) };
    };
    let data = secret.data.iter().flatten().map(|(k, v)| (k.clone(), v.0.clone())).collect();
    select(data, items, mode, optional, |key| format!("references non-existent secret key: {key}"), files)
}

/// Every key, or the listed ones under their paths.
fn select(
    data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    mode: i32,
    optional: bool,
    missing: impl Fn(&str) -> String,
    files: &mut Files,
) -> Result<(), String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        files.extend(data.into_iter().map(|(key, bytes)| (key, File { bytes, mode: bits(mode), owner: None })));
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => {
                files.insert(item.path.clone(), File { bytes: bytes.clone(), mode: bits(item.mode.unwrap_or(mode)), owner: None });
            }
            None if optional => {}
            None => return Err(missing(&item.key)),
        }
    }
    Ok(())
}

fn add_downward(context: &Context<'_>, items: Option<&[DownwardAPIVolumeFile]>, mode: i32, files: &mut Files) -> Result<(), String> {
    for item in items.into_iter().flatten() {
        let text = if let Some(field) = &item.field_ref {
            downward::field(context.pod, &field.field_path, &downward::Addresses { node: &[], pod: &[] })?
        } else if let Some(resource) = &item.resource_field_ref {
            let name = resource.container_name.as_deref().unwrap_or_default();
            let (_, container) = spec::container(context.pod, name).ok_or_else(|| format!("container {name} not found"))?;
            downward::resource(context.pod, &container, resource, &context.allocatable)?
        } else {
            continue;
        };
        files.insert(item.path.clone(), File { bytes: text.into_bytes(), mode: bits(item.mode.unwrap_or(mode)), owner: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_the_user_that_all_containers_share() {
        for (of_pod, init, main, expected) in [
            (None, None, None, None),
            (Some(7), None, None, Some(7)),
            (Some(7), Some(8), None, None),
            (None, Some(8), Some(8), Some(8)),
            (None, None, Some(8), None),
        ] {
            let context = |user: Option<i64>| serde_json::json!({ "runAsUser": user });
            let pod: Pod = serde_json::from_value(serde_json::json!({ "spec": {
                "securityContext": context(of_pod),
                "initContainers": [{ "name": "i", "securityContext": context(init) }],
                "containers": [{ "name": "a", "securityContext": context(main) }],
            } }))
            .unwrap();
            assert_eq!(fs_user(&pod), expected, "{of_pod:?} {init:?} {main:?}");
        }
    }

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let data = || BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        let item = |key: &str, path: &str, mode| KeyToPath { key: key.into(), path: path.into(), mode };
        let mut files = Files::new();
        select(data(), Some(&[item("a", "x/y", Some(0o400))]), 0o644, false, |k| k.into(), &mut files).unwrap();
        assert_eq!(files.get("x/y"), Some(&File { bytes: b"1".to_vec(), mode: 0o400, owner: None }));
        assert_eq!(files.len(), 1);
        assert_eq!(select(data(), Some(&[item("z", "z", None)]), 0o644, false, |k| format!("no {k}"), &mut files), Err("no z".into()));
        assert_eq!(select(data(), Some(&[item("z", "z", None)]), 0o644, true, |k| k.into(), &mut files), Ok(()));
        select(data(), None, 0o600, false, |k| k.into(), &mut files).unwrap();
        assert_eq!(files.len(), 3);
    }
}
