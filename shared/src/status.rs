//! API errors as Kubernetes `Status` objects, with upstream's reasons, codes and wording
//! (`k8s.io/apimachinery/pkg/api/errors/errors.go`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};

use crate::field;

/// An API call's failure: what the client receives as its `Status` body.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.message.as_deref().unwrap_or_default())]
pub struct ApiError(pub Box<Status>, Vec<String>);

impl From<Box<Status>> for ApiError {
    fn from(status: Box<Status>) -> Self {
        ApiError(status, Vec::new())
    }
}

/// A group and resource (or kind), printed `resource.group`, as errors name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupResource<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural resource name, or kind where upstream names the kind.
    pub resource: &'a str,
}

impl std::fmt::Display for GroupResource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() { f.write_str(self.resource) } else { write!(f, "{}.{}", self.resource, self.group) }
    }
}

impl ApiError {
    /// A failure with any code and reason.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Box::new(Status {
            metadata: ListMeta::default(),
            status: Some("Failure".into()),
            message: Some(message.into()),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            code: Some(i32::from(code)),
            details: None,
        })
        .into()
    }
    fn about(mut self, gr: GroupResource<'_>, name: &str) -> Self {
        self.details_mut(|d| {
            d.group = (!gr.group.is_empty()).then(|| gr.group.to_owned());
            d.kind = Some(gr.resource.to_owned());
            d.name = (!name.is_empty()).then(|| name.to_owned());
        });
        self
    }
    fn details_mut(&mut self, change: impl FnOnce(&mut StatusDetails)) {
        change(self.0.details.get_or_insert_with(StatusDetails::default));
    }
    /// Adds a `retryAfterSeconds`, which the server also sends as `Retry-After`.
    #[must_use]
    pub fn retry_after(mut self, seconds: i32) -> Self {
        self.details_mut(|d| d.retry_after_seconds = Some(seconds));
        self
    }
    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, reason: &str, field: &str, message: &str) -> Self {
        let cause = StatusCause { reason: Some(reason.into()), message: Some(message.into()), field: (!field.is_empty()).then(|| field.to_owned()) };
        self.details_mut(|d| d.causes.get_or_insert_with(Vec::new).push(cause));
        self
    }
    /// Adds texts for `Warning:` headers: what is found before a request is refused is told as well.
    #[must_use]
    pub fn warned(mut self, warnings: Vec<String>) -> Self {
        self.1.extend(warnings);
        self
    }
    /// What [`Self::warned`] has added.
    pub fn warnings(&self) -> &[String] {
        &self.1
    }
    /// HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code.and_then(|c| u16::try_from(c).ok()).unwrap_or(500)
    }
    /// Upstream's `reason`, empty when unknown.
    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }
    /// 404 `pods "x" not found`
    pub fn not_found(gr: GroupResource<'_>, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{gr} \"{name}\" not found")).about(gr, name)
    }
    /// 404 for a path that no resource serves.
    pub fn unknown_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }
    /// 409 `pods "x" already exists`
    pub fn already_exists(gr: GroupResource<'_>, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{gr} \"{name}\" already exists")).about(gr, name)
    }
    /// 409 `Operation cannot be fulfilled on pods "x": detail`
    pub fn conflict(gr: GroupResource<'_>, name: &str, detail: &str) -> Self {
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {gr} \"{name}\": {detail}")).about(gr, name)
    }
    /// [`Self::conflict`] with upstream's text for a stale resourceVersion.
    pub fn modified(gr: GroupResource<'_>, name: &str) -> Self {
        Self::conflict(gr, name, "the object has been modified; please apply your changes to the latest version and try again")
    }
    /// 409 for an applied configuration that changes what others own; the causes name each field.
    pub fn apply_conflict(message: impl Into<String>) -> Self {
        Self::new(409, "Conflict", message)
    }
    /// 422 `Pod "x" is invalid: …`; `kind` carries the kind, not the plural.
    pub fn invalid(kind: GroupResource<'_>, name: &str, errors: &[field::Error]) -> Self {
        let text = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let mut status = Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {text}")).about(kind, name);
        for error in errors {
            status = status.cause(error.kind.reason(), &error.field, &error.body);
        }
        status
    }
    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }
    /// 401 `Unauthorized`
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }
    /// 403 `pods "x" is forbidden: detail`
    pub fn forbidden(gr: GroupResource<'_>, name: &str, detail: &str) -> Self {
        let message = match (gr.resource, name) {
            ("", "") => format!("forbidden: {detail}"),
            (_, "") => format!("{gr} is forbidden: {detail}"),
            _ => format!("{gr} \"{name}\" is forbidden: {detail}"),
        };
        Self::new(403, "Forbidden", message).about(gr, name)
    }
    /// 405 `verb is not supported on resources of kind "pods"`
    pub fn method_not_supported(gr: GroupResource<'_>, verb: &str) -> Self {
        Self::new(405, "MethodNotAllowed", format!("{verb} is not supported on resources of kind \"{gr}\"")).about(gr, "")
    }
    /// 410: a resourceVersion or continue token that is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }
    /// 413
    pub fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }
    /// 415
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }
    /// 406
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }
    /// 429 with Retry-After
    pub fn too_many_requests(message: impl Into<String>, seconds: i32) -> Self {
        Self::new(429, "TooManyRequests", message).retry_after(seconds)
    }
    /// 500 `Internal error occurred: detail`
    pub fn internal(detail: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {detail}"))
    }
    /// 503
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }
    /// 504: the outcome is unknown to the server.
    pub fn timeout(message: impl Into<String>, seconds: i32) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {}", message.into())).retry_after(seconds)
    }
}
