//! Kinds that are answered and never stored: may I, may they, what may I, who is this token, who am I
//! (`pkg/registry/authorization`, `pkg/registry/authentication`).
//!
//! Owns the translation between reviews and the authorizer's and authenticator's own terms.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::StatusCode;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, UserInfo};
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
    SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::field;
use shared::status::{ApiError, GroupResource};

use super::authz::Access;
use super::chain::Call;
use super::negotiate::{self, Accepted};
use super::user::User;
use super::{Body, Response, component_statuses, resource_metrics, respond};
use crate::registry::store::from_json;

type Answer<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, ApiError>> + Send + 'a>>;

/// A kind that is answered at once and never stored; all but one are only ever created.
pub struct Virtual {
    /// API group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Lower-case plural.
    pub plural: &'static str,
    /// Lower-case singular.
    pub singular: &'static str,
    /// Whether it is asked in a namespace.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// Short names.
    pub short_names: &'static [&'static str],
    /// Its OpenAPI schema.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
    answer: for<'a> fn(&'a Call<'a>, Bytes) -> Answer<'a>,
}

const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";

macro_rules! row {
    ($group:expr, $type:ty, $plural:literal, $singular:literal, $namespaced:literal, $answer:expr) => {
        Virtual {
            group: $group,
            version: "v1",
            kind: <$type as k8s_openapi::Resource>::KIND,
            plural: $plural,
            singular: $singular,
            namespaced: $namespaced,
            verbs: &["create"],
            short_names: &[],
            schema: |generator| generator.subschema_for::<$type>(),
            answer: |call, body| Box::pin(async move { encode(&$answer(call, decode::<$type>(&body)?).await?) }),
        }
    };
}

/// Every virtual kind. One line each.
pub static VIRTUAL: &[Virtual] = &[
    row!(AUTHENTICATION, TokenReview, "tokenreviews", "tokenreview", false, token_review),
    row!(AUTHENTICATION, SelfSubjectReview, "selfsubjectreviews", "selfsubjectreview", false, self_subject_review),
    row!(AUTHORIZATION, SubjectAccessReview, "subjectaccessreviews", "subjectaccessreview", false, subject_access_review),
    row!(AUTHORIZATION, SelfSubjectAccessReview, "selfsubjectaccessreviews", "selfsubjectaccessreview", false, self_access_review),
    row!(AUTHORIZATION, LocalSubjectAccessReview, "localsubjectaccessreviews", "localsubjectaccessreview", true, local_access_review),
    row!(AUTHORIZATION, SelfSubjectRulesReview, "selfsubjectrulesreviews", "selfsubjectrulesreview", false, self_rules_review),
    Virtual {
        group: "",
        version: "v1",
        kind: "ComponentStatus",
        plural: "componentstatuses",
        singular: "componentstatus",
        namespaced: false,
        verbs: &["get", "list"],
        short_names: &["cs"],
        schema: |generator| generator.subschema_for::<k8s_openapi::api::core::v1::ComponentStatus>(),
        answer: |call, _| Box::pin(component_statuses::answer(call)),
    },
    Virtual {
        group: resource_metrics::GROUP,
        version: resource_metrics::VERSION,
        kind: "NodeMetrics",
        plural: "nodes",
        singular: "",
        namespaced: false,
        verbs: &["get", "list"],
        short_names: &[],
        schema: |generator| generator.subschema_for::<resource_metrics::NodeMetrics>(),
        answer: |call, _| Box::pin(resource_metrics::nodes(call)),
    },
    Virtual {
        group: resource_metrics::GROUP,
        version: resource_metrics::VERSION,
        kind: "PodMetrics",
        plural: "pods",
        singular: "",
        namespaced: true,
        verbs: &["get", "list"],
        short_names: &[],
        schema: |generator| generator.subschema_for::<resource_metrics::PodMetrics>(),
        answer: |call, _| Box::pin(resource_metrics::pods(call)),
    },
];

/// Answers a request for a virtual kind.
///
/// # Errors
/// 405 for a verb that it does not have, 400 for a body that is not the kind, and what the kind itself says.
pub async fn handle(call: &Call<'_>, row: &'static Virtual, body: Body) -> Result<Response, ApiError> {
    let created = call.info.verb == "create";
    let scoped = row.namespaced != call.info.namespace.is_empty() || row.namespaced && call.info.verb == "list";
    let misplaced = !scoped || created != call.info.name.is_empty() && call.info.verb != "list";
    if !row.verbs.contains(&call.info.verb) || misplaced {
        return Err(ApiError::method_not_supported(GroupResource { group: row.group, resource: row.plural }, call.info.verb));
    }
    let accepted = Accepted::choose(&call.parts.headers, call.info)?;
    let json = if created { negotiate::request_json(&call.parts.headers, body.read().await?)? } else { Bytes::new() };
    let answer = (row.answer)(call, json).await?;
    respond::negotiated(if created { StatusCode::CREATED } else { StatusCode::OK }, accepted, answer.into())
}

fn decode<T: DeserializeOwned + k8s_openapi::Resource>(body: &[u8]) -> Result<T, ApiError> {
    from_json(body, None)
        .map_err(|e| ApiError::bad_request(format!("{} in version \"{}\" cannot be handled as a {}: {e}", T::KIND, T::VERSION, T::KIND)))
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(ApiError::internal)
}

fn invalid(kind: &str, errors: field::ErrorList) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(GroupResource { group: AUTHORIZATION, resource: kind }, "", &errors)) }
}

async fn token_review(call: &Call<'_>, mut review: TokenReview) -> Result<TokenReview, ApiError> {
    review.status = Some(call.server.authn.review(&review.spec).await?);
    Ok(review)
}

async fn self_subject_review(call: &Call<'_>, mut review: SelfSubjectReview) -> Result<SelfSubjectReview, ApiError> {
    review.metadata.creation_timestamp = Some(Time(k8s_openapi::jiff::Timestamp::now()));
    review.status = Some(SelfSubjectReviewStatus { user_info: Some(user_info(call.user)) });
    Ok(review)
}

fn user_info(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
        groups: Some(user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    }
}

async fn subject_access_review(call: &Call<'_>, mut review: SubjectAccessReview) -> Result<SubjectAccessReview, ApiError> {
    invalid("SubjectAccessReview", validate_spec(&review.spec))?;
    review.status =
        Some(decide(call, &subject(&review.spec), review.spec.resource_attributes.as_ref(), review.spec.non_resource_attributes.as_ref()));
    Ok(review)
}

async fn self_access_review(call: &Call<'_>, mut review: SelfSubjectAccessReview) -> Result<SelfSubjectAccessReview, ApiError> {
    let (resource, path) = (review.spec.resource_attributes.as_ref(), review.spec.non_resource_attributes.as_ref());
    invalid("SelfSubjectAccessReview", exactly_one(resource, path))?;
    review.status = Some(decide(call, call.user, resource, path));
    Ok(review)
}

async fn local_access_review(call: &Call<'_>, mut review: LocalSubjectAccessReview) -> Result<LocalSubjectAccessReview, ApiError> {
    let namespace = review.spec.resource_attributes.as_ref().and_then(|a| a.namespace.as_deref()).unwrap_or_default();
    let mut errors = validate_spec(&review.spec);
    let path = field::Path::new("spec").child("resourceAttributes").child("namespace");
    if namespace != call.info.namespace {
        errors.push(field::Error::invalid(&path, namespace, &format!("must match metadata.namespace: {}", call.info.namespace)));
    }
    if review.spec.non_resource_attributes.is_some() {
        errors.push(field::Error::invalid(&field::Path::new("spec").child("nonResourceAttributes"), (), "disallowed on this kind of request"));
    }
    invalid("LocalSubjectAccessReview", errors)?;
    review.status = Some(decide(call, &subject(&review.spec), review.spec.resource_attributes.as_ref(), None));
    Ok(review)
}

async fn self_rules_review(call: &Call<'_>, mut review: SelfSubjectRulesReview) -> Result<SelfSubjectRulesReview, ApiError> {
    let namespace = review.spec.namespace.as_deref().unwrap_or_default();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    review.status = Some(call.server.authz.rules(call.user, namespace));
    Ok(review)
}

fn validate_spec(spec: &SubjectAccessReviewSpec) -> field::ErrorList {
    let mut errors = exactly_one(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    if spec.user.as_deref().is_none_or(str::is_empty) && spec.groups.as_ref().is_none_or(Vec::is_empty) {
        errors.push(field::Error::invalid(
            &field::Path::new("spec").child("user"),
            spec.user.as_deref().unwrap_or_default(),
            "at least one of user or group must be specified",
        ));
    }
    errors
}

fn exactly_one(resource: Option<&ResourceAttributes>, path: Option<&NonResourceAttributes>) -> field::ErrorList {
    let at = field::Path::new("spec").child("resourceAttributes");
    match (resource, path) {
        (Some(_), Some(_)) => {
            vec![field::Error::invalid(
                &field::Path::new("spec").child("nonResourceAttributes"),
                (),
                "cannot be specified in combination with resourceAttributes",
            )]
        }
        (None, None) => vec![field::Error::invalid(&at, (), "exactly one of nonResourceAttributes or resourceAttributes must be specified")],
        _ => Vec::new(),
    }
}

fn subject(spec: &SubjectAccessReviewSpec) -> User {
    User {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    }
}

fn decide(call: &Call<'_>, user: &User, resource: Option<&ResourceAttributes>, path: Option<&NonResourceAttributes>) -> SubjectAccessReviewStatus {
    fn text(value: &Option<String>) -> &str {
        value.as_deref().unwrap_or_default()
    }
    let access = match (resource, path) {
        (Some(of), _) => Access {
            verb: text(&of.verb),
            group: text(&of.group),
            resource: text(&of.resource),
            subresource: text(&of.subresource),
            namespace: text(&of.namespace),
            name: text(&of.name),
            path: "",
            field_selector: of.field_selector.as_ref().map_or("", |s| text(&s.raw_selector)),
        },
        (None, Some(of)) => Access { verb: text(&of.verb), path: text(&of.path), ..Access::default() },
        (None, None) => Access::default(),
    };
    let decision = call.server.authz.authorize(user, &access);
    let reason = (!decision.reason.is_empty()).then_some(decision.reason);
    SubjectAccessReviewStatus { allowed: decision.allowed, reason, ..SubjectAccessReviewStatus::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_kind_of_attributes_is_asked_for() {
        let (resource, path) = (ResourceAttributes::default(), NonResourceAttributes::default());
        assert!(exactly_one(Some(&resource), None).is_empty() && exactly_one(None, Some(&path)).is_empty());
        assert_eq!(exactly_one(None, None).len(), 1);
        assert_eq!(exactly_one(Some(&resource), Some(&path)).len(), 1);
    }
}
