//! The `serviceaccounts/token` subresource: a token for a ServiceAccount, bound to an object if asked
//! (`pkg/registry/core/serviceaccount/storage/token.go`, `pkg/apis/authentication/validation/validation.go`).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestStatus};
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use shared::field;
use shared::status::{ApiError, GroupResource};

use super::tokens::{Claims, Kubernetes, Ref, TokenIssuer};
use crate::api::objects::Reader;

const MIN_SECONDS: i64 = 10 * 60;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 60 * 60;
/// What the ServiceAccount admission plugin asks for in pods; recognised, so that clients that never reload their token keep working.
const POD_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Answers a TokenRequest: the same object with its status filled in.
///
/// # Errors
/// 404 without the ServiceAccount or the bound object, 409 when that object's UID differs, 422 for bad values.
pub async fn create(reader: &Reader, issuer: &TokenIssuer, namespace: &str, name: &str, mut request: TokenRequest) -> Result<TokenRequest, ApiError> {
    let account = reader.get_fresh::<ServiceAccount>(namespace, name).await?;
    let account = account.ok_or_else(|| ApiError::not_found(GroupResource { group: "", resource: "serviceaccounts" }, name))?;
    if request.metadata.name.as_deref().is_some_and(|n| !n.is_empty() && n != name) {
        let given = request.metadata.name.as_deref().unwrap_or_default();
        return Err(ApiError::bad_request(format!("invalid object name {given:?}, must match service account name {name:?}")));
    }
    if request.metadata.namespace.as_deref().is_some_and(|n| !n.is_empty() && n != namespace) {
        let given = request.metadata.namespace.as_deref().unwrap_or_default();
        return Err(ApiError::bad_request(format!("invalid object namespace {given:?}, must match service account namespace {namespace:?}")));
    }
    default(&mut request, issuer);
    validate(&request)?;
    let now = Timestamp::now();
    let account = Ref { name: name.to_owned(), uid: account.metadata.uid.clone().unwrap_or_default() };
    let mut kubernetes =
        Kubernetes { namespace: namespace.to_owned(), node: None, pod: None, secret: None, serviceaccount: account, warnafter: None };
    let spec = request.spec.get_or_insert_default();
    if let Some(reference) = &spec.bound_object_ref {
        bind(reader, &mut kubernetes, reference, name).await?;
    }
    let seconds = spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
    let claims = claims(issuer, kubernetes, spec.audiences.clone().unwrap_or_default(), seconds, now);
    let token = issuer.sign(&claims).map_err(ApiError::internal)?;
    let expires = now.checked_add(SignedDuration::from_secs(seconds)).map_err(ApiError::internal)?;
    request.metadata.name = Some(name.to_owned());
    request.metadata.namespace = Some(namespace.to_owned());
    request.metadata.creation_timestamp = Some(Time(now));
    request.status = Some(TokenRequestStatus { token: Some(token), expiration_timestamp: Some(Time(expires)) });
    Ok(request)
}

fn default(request: &mut TokenRequest, issuer: &TokenIssuer) {
    let spec = request.spec.get_or_insert_default();
    spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    if spec.audiences.as_ref().is_none_or(Vec::is_empty) {
        spec.audiences = Some(issuer.audiences().to_vec());
    }
}

fn validate(request: &TokenRequest) -> Result<(), ApiError> {
    let path = field::Path::new("spec").child("expirationSeconds");
    let seconds = request.spec.as_ref().and_then(|s| s.expiration_seconds).unwrap_or(DEFAULT_SECONDS);
    let mut errors = field::ErrorList::new();
    if seconds < MIN_SECONDS {
        errors.push(field::Error::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > MAX_SECONDS {
        errors.push(field::Error::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let kind = GroupResource { group: "authentication.k8s.io", resource: "TokenRequest" };
    Err(ApiError::invalid(kind, request.metadata.name.as_deref().unwrap_or_default(), &errors))
}

/// Fills in what the token is bound to, after checking that it exists.
async fn bind(reader: &Reader, claims: &mut Kubernetes, reference: &BoundObjectReference, account: &str) -> Result<(), ApiError> {
    let name = reference.name.clone().unwrap_or_default();
    let missing = |resource| ApiError::not_found(GroupResource { group: "", resource }, &name);
    let checked = |kind, uid: Option<&String>| {
        let uid = uid.cloned().unwrap_or_default();
        match reference.uid.as_deref() {
            Some(wanted) if wanted != uid => {
                let detail = format!(
                    "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
                );
                Err(ApiError::conflict(GroupResource { group: "", resource: kind }, &name, &detail))
            }
            _ => Ok(Ref { name: name.clone(), uid }),
        }
    };
    let namespace = claims.namespace.clone();
    match (reference.api_version.as_deref().unwrap_or_default(), reference.kind.as_deref().unwrap_or_default()) {
        ("" | "v1", "Pod") => {
            let pod = reader.get_fresh::<Pod>(&namespace, &name).await?.ok_or_else(|| missing("pods"))?;
            let spec = pod.spec.as_ref();
            let of_pod = spec.and_then(|s| s.service_account_name.as_deref()).unwrap_or_default();
            if of_pod != account {
                let detail = format!("cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name.");
                return Err(ApiError::bad_request(detail));
            }
            claims.pod = Some(checked("Pod", pod.metadata.uid.as_ref())?);
            if let Some(node) = spec.and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty()) {
                let uid = reader.get::<Node>("", &node)?.and_then(|n| n.metadata.uid.clone()).unwrap_or_default();
                claims.node = Some(Ref { name: node, uid });
            }
        }
        ("" | "v1", "Secret") => {
            let secret = reader.get_fresh::<Secret>(&namespace, &name).await?.ok_or_else(|| missing("secrets"))?;
            claims.secret = Some(checked("Secret", secret.metadata.uid.as_ref())?);
        }
        ("" | "v1", "Node") => {
            let node = reader.get_fresh::<Node>("", &name).await?.ok_or_else(|| missing("nodes"))?;
            claims.node = Some(checked("Node", node.metadata.uid.as_ref())?);
        }
        (version, kind) => {
            let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
            return Err(ApiError::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
        }
    }
    Ok(())
}

fn claims(issuer: &TokenIssuer, mut kubernetes: Kubernetes, audiences: Vec<String>, seconds: i64, now: Timestamp) -> Claims {
    let start = now.as_second();
    let mut lifetime = seconds;
    if seconds == POD_SECONDS && kubernetes.pod.is_some() && audiences == issuer.audiences() {
        lifetime = EXTENDED_SECONDS;
        kubernetes.warnafter = Some(start + seconds);
    }
    Claims {
        aud: audiences,
        exp: start + lifetime,
        iat: start,
        iss: issuer.issuer().to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!("system:serviceaccount:{}:{}", kubernetes.namespace, kubernetes.serviceaccount.name),
        nbf: start,
        kubernetes,
    }
}
