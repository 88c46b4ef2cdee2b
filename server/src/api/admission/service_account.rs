//! Every pod runs as a ServiceAccount that exists, and gets its token mounted unless it declines
//! (`plugin/pkg/admission/serviceaccount/admission.go`).

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod, PodSpec,
    ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
};
use rand::Rng as _;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, forbidden, is, new_object, new_object_mut};

pub(super) struct ServiceAccountPlugin;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
/// One hour and seven seconds: recognised by the token subresource as "a client that may never reload its token".
const EXPIRATION_SECONDS: i64 = 60 * 60 + 7;
const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";
/// How long a new namespace's `default` account is waited for; its controller makes it at once.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_secs(2);

#[async_trait]
impl Plugin for ServiceAccountPlugin {
    fn name(&self) -> &'static str {
        "ServiceAccount"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is(attributes, "", "pods", &[Operation::Create])
    }

    async fn mutate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(pod) = new_object_mut::<Pod>(attributes) else { return Ok(()) };
        if is_mirror(pod) {
            return Ok(());
        }
        let spec = pod.spec.get_or_insert_default();
        let name = spec.service_account_name.clone().or_else(|| spec.service_account.clone()).filter(|n| !n.is_empty());
        let name = name.unwrap_or_else(|| "default".into());
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name.clone());
        let account = lookup(context, attributes, &name).await?;
        let Some(pod) = new_object_mut::<Pod>(attributes) else { return Ok(()) };
        let spec = pod.spec.get_or_insert_default();
        if spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true) {
            mount_token(spec, &suffix());
        }
        if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
            spec.image_pull_secrets.clone_from(&account.image_pull_secrets);
        }
        Ok(())
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(pod) = new_object::<Pod>(attributes) else { return Ok(()) };
        let Some(spec) = &pod.spec else { return Ok(()) };
        if is_mirror(pod) {
            return mirror_refusal(spec).map_or(Ok(()), |text| Err(forbidden(attributes, text)));
        }
        let name = spec.service_account_name.clone().unwrap_or_default();
        let account = lookup(context, attributes, &name).await?;
        let enforced = account.metadata.annotations.as_ref().and_then(|a| a.get(ENFORCE_MOUNTABLE)).is_some_and(|v| v == "true");
        match enforced.then(|| unmountable(&account, spec)).flatten() {
            Some(text) => Err(forbidden(attributes, &text)),
            None => Ok(()),
        }
    }
}

async fn lookup(context: &Context, attributes: &Attributes<'_>, name: &str) -> Result<std::sync::Arc<ServiceAccount>, ApiError> {
    let namespace = attributes.namespace;
    let mut found = context.reader.get_fresh::<ServiceAccount>(namespace, name).await?;
    if found.is_none() && name == "default" {
        found = context.reader.wait_for::<ServiceAccount>(namespace, name, DEFAULT_ACCOUNT_WAIT).await?;
    }
    found.ok_or_else(|| forbidden(attributes, &format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found")))
}

fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"))
}

/// What a mirror pod may not refer to.
fn mirror_refusal(spec: &PodSpec) -> Option<&'static str> {
    if spec.service_account_name.as_ref().is_some_and(|n| !n.is_empty()) {
        return Some("a mirror pod may not reference service accounts");
    }
    let volumes = || spec.volumes.iter().flatten();
    if volumes().any(|v| v.secret.is_some()) {
        return Some("a mirror pod may not reference secrets");
    }
    let token = |p: &VolumeProjection| p.service_account_token.is_some();
    let projects_token = |v: &Volume| v.projected.as_ref().and_then(|p| p.sources.as_ref()).is_some_and(|s| s.iter().any(token));
    volumes().any(projects_token).then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

/// Five characters as upstream's generated names end in: no vowels, nothing that reads as another character.
fn suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = rand::rng();
    (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

/// Mounts the token into every container that has nothing at its path yet.
fn mount_token(spec: &mut PodSpec, suffix: &str) {
    let volumes = spec.volumes.iter().flatten();
    let existing = volumes.map(|v| &v.name).find(|n| n.starts_with(VOLUME_PREFIX)).cloned();
    let name = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{suffix}"));
    let mut needed = false;
    let mut mount = |container: &mut Container| {
        let mounts = container.volume_mounts.get_or_insert_default();
        if !mounts.iter().any(|m| m.mount_path == MOUNT_PATH) {
            mounts.push(VolumeMount { name: name.clone(), read_only: Some(true), mount_path: MOUNT_PATH.into(), ..VolumeMount::default() });
            needed = true;
        }
    };
    spec.init_containers.iter_mut().flatten().for_each(&mut mount);
    spec.containers.iter_mut().for_each(&mut mount);
    if needed && existing.is_none() {
        spec.volumes.get_or_insert_default().push(token_volume(name));
    }
}

fn token_volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection { expiration_seconds: Some(EXPIRATION_SECONDS), path: "token".into(), audience: None };
    let ca = ConfigMapProjection {
        name: "kube-root-ca.crt".into(),
        items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
        optional: None,
    };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".into(),
        field_ref: Some(ObjectFieldSelector { api_version: Some("v1".into()), field_path: "metadata.namespace".into() }),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(ca), ..VolumeProjection::default() },
        VolumeProjection { downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }), ..VolumeProjection::default() },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(0o644), sources: Some(sources) };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

/// The first secret a pod uses that its account does not list.
fn unmountable(account: &ServiceAccount, spec: &PodSpec) -> Option<String> {
    let allowed: BTreeSet<&str> = account.secrets.iter().flatten().filter_map(|s| s.name.as_deref()).collect();
    let owner = account.metadata.name.as_deref().unwrap_or_default();
    for volume in spec.volumes.iter().flatten() {
        if let Some(name) = volume.secret.as_ref().and_then(|s| s.secret_name.as_deref()).filter(|n| !allowed.contains(n)) {
            return Some(format!(
                "volume with secret.secretName={name:?} is not allowed because service account {owner} does not reference that secret"
            ));
        }
    }
    let kinds = spec.init_containers.iter().flatten().map(|c| ("init container", c)).chain(spec.containers.iter().map(|c| ("container", c)));
    for (kind, container) in kinds {
        for env in container.env.iter().flatten() {
            let name = env.value_from.as_ref().and_then(|v| v.secret_key_ref.as_ref()).map(|r| r.name.as_str());
            if let Some(name) = name.filter(|n| !allowed.contains(n)) {
                let (container, env) = (&container.name, &env.name);
                return Some(format!(
                    "{kind} {container} with envVar {env} referencing secret.secretName={name:?} is not allowed because service account {owner} does not reference that secret"
                ));
            }
        }
        let mut sources = container.env_from.iter().flatten().filter_map(|s| s.secret_ref.as_ref());
        if let Some(source) = sources.find(|s| !allowed.contains(s.name.as_str())) {
            let (container, name) = (&container.name, &source.name);
            return Some(format!(
                "{kind} {container} with envFrom referencing secret.secretName={name:?} is not allowed because service account {owner} does not reference that secret"
            ));
        }
    }
    let pull: BTreeSet<&str> = account.image_pull_secrets.iter().flatten().map(|s| s.name.as_str()).collect();
    let named = spec.image_pull_secrets.iter().flatten().enumerate().find(|(_, s)| !pull.contains(s.name.as_str()));
    named.map(|(index, secret)| {
        format!(
            "imagePullSecrets[{index}].name={:?} is not allowed because service account {owner} does not reference that imagePullSecret",
            secret.name
        )
    })
}
