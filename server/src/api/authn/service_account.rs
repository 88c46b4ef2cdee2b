//! From a verified token to its user: everything the token is bound to must still exist, at the same UID
//! (`pkg/serviceaccount/claims.go`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shared::status::ApiError;

use super::tokens::{Claims, Ref};
use crate::api::objects::Reader;
use crate::api::user::User;
use crate::registry::{ApiObject, RESOURCES};

/// A deleted object's tokens stay good this long, so that a terminating pod can still speak.
const DELETION_GRACE_SECONDS: i64 = 60;

/// The user of a token, or `None` when something it is bound to is gone.
///
/// # Errors
/// When the cache cannot be brought up to date to look for a missing object.
pub(super) async fn user(reader: &Reader, claims: &Claims, now: Timestamp) -> Result<Option<User>, ApiError> {
    let k = &claims.kubernetes;
    if !live::<ServiceAccount>(reader, &k.namespace, &k.serviceaccount, now).await? {
        return Ok(None);
    }
    if let Some(secret) = &k.secret
        && !live::<Secret>(reader, &k.namespace, secret, now).await?
    {
        return Ok(None);
    }
    if let Some(pod) = &k.pod
        && !live::<Pod>(reader, &k.namespace, pod, now).await?
    {
        return Ok(None);
    }
    // A pod's node is told for information; only a token bound to the node itself dies with it.
    if let (Some(node), None) = (&k.node, &k.pod)
        && !live::<Node>(reader, "", node, now).await?
    {
        return Ok(None);
    }
    Ok(Some(identity(claims)))
}

async fn live<T: ApiObject>(reader: &Reader, namespace: &str, wanted: &Ref, now: Timestamp) -> Result<bool, ApiError> {
    let Some(resource) = RESOURCES.of::<T>() else { return Ok(false) };
    let found = |meta: Option<ObjectMeta>| meta.is_some_and(|m| matches(&m, wanted, now));
    if found(reader.meta(resource, namespace, &wanted.name)?) {
        return Ok(true);
    }
    reader.objects().refresh().await?;
    Ok(found(reader.meta(resource, namespace, &wanted.name)?))
}

fn matches(meta: &ObjectMeta, wanted: &Ref, now: Timestamp) -> bool {
    let deleted = meta.deletion_timestamp.as_ref().is_some_and(|t| t.0.as_second() < now.as_second() - DELETION_GRACE_SECONDS);
    !deleted && (wanted.uid.is_empty() || meta.uid.as_deref() == Some(wanted.uid.as_str()))
}

/// The user a token names, whether or not it still exists.
fn identity(claims: &Claims) -> User {
    let k = &claims.kubernetes;
    let mut user = User {
        name: claims.sub.clone(),
        uid: k.serviceaccount.uid.clone(),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{}", k.namespace), "system:authenticated".into()],
        ..User::default()
    };
    let mut extra = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    extra("credential-id", &format!("JTI={}", claims.jti));
    if let Some(pod) = &k.pod {
        extra("pod-name", &pod.name);
        extra("pod-uid", &pod.uid);
    }
    if let Some(node) = &k.node {
        extra("node-name", &node.name);
        extra("node-uid", &node.uid);
    }
    user
}
