//! Request bodies to typed objects, with `fieldValidation`
//! (`k8s.io/apimachinery/pkg/runtime/serializer/json/json.go`, `k8s.io/apiserver/pkg/endpoints/handlers/create.go`).

use serde::Deserialize;
use shared::status::ApiError;

use super::track::Findings;
use crate::registry::{Object, Resource};

/// What becomes of unknown and duplicate fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped with a warning; the default.
    #[default]
    Warn,
    /// They are an error.
    Strict,
}

impl FieldValidation {
    /// From the query parameter.
    ///
    /// # Errors
    /// 400 for anything but the three names and `""`.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            _ => Err(ApiError::bad_request(format!(
                "fieldValidation: Unsupported value: {text:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// A new object, with what the client should be told about it.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The object.
    pub object: Object,
    /// Texts for `Warning:` headers.
    pub warnings: Vec<String>,
}

impl From<Object> for Decoded {
    fn from(object: Object) -> Self {
        Decoded { object, warnings: Vec::new() }
    }
}

#[derive(Deserialize)]
struct TypeMeta {
    #[serde(default, rename = "apiVersion")]
    api_version: Option<serde_json::Value>,
    #[serde(default)]
    kind: Option<serde_json::Value>,
}

/// Decodes a JSON body as an object of a kind. A missing apiVersion or kind is taken from the request.
///
/// # Errors
/// 400 with upstream's wording: not JSON, another kind, a value of the wrong type, or, when strict, unknown and duplicate fields.
pub fn decode(resource: &Resource, bytes: &[u8], validation: FieldValidation) -> Result<Decoded, ApiError> {
    check_type(resource, bytes)?;
    let findings = Findings::default();
    let object = resource.ops.decode_with(bytes, &findings).map_err(|error| undecodable(resource, &findings, &error))?;
    let problems: Vec<String> = findings
        .unknown
        .take()
        .into_iter()
        .map(|path| format!("unknown field {path:?}"))
        .chain(findings.duplicate.take().into_iter().map(|path| format!("duplicate field {path:?}")))
        .collect();
    match validation {
        FieldValidation::Ignore => Ok(object.into()),
        FieldValidation::Warn => Ok(Decoded { object, warnings: problems }),
        FieldValidation::Strict if problems.is_empty() => Ok(object.into()),
        FieldValidation::Strict => Err(ApiError::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            resource.kind,
            resource.version,
            resource.kind,
            problems.join(", ")
        ))),
    }
}

/// What upstream reads an object's kind into, as its errors print it.
const TYPE_META: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

fn check_type(resource: &Resource, bytes: &[u8]) -> Result<(), ApiError> {
    let unrecognized = |reason: &str| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {reason} ({})",
            resource.kind,
            excerpt(bytes)
        ))
    };
    let other = match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => Some("array"),
        Some(b'"') => Some("string"),
        Some(b't' | b'f') => Some("bool"),
        Some(b'-' | b'0'..=b'9') => Some("number"),
        _ => None,
    };
    let meta: TypeMeta = match other.filter(|_| serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()) {
        Some(other) => return Err(unrecognized(&format!("json: cannot unmarshal {other} into Go value of type {TYPE_META}"))),
        None => serde_json::from_slice(bytes).map_err(|e| unrecognized(&e.to_string()))?,
    };
    let text = |value: &Option<serde_json::Value>| value.as_ref().and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let (version, kind) = (text(&meta.api_version), text(&meta.kind));
    let expected = resource.api_version();
    if !version.is_empty() && version != expected {
        return Err(ApiError::bad_request(format!("the API version in the data ({version}) does not match the expected API version ({expected})")));
    }
    if !kind.is_empty() && kind != resource.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: converting ({kind}) to ({}): unknown conversion",
            resource.version, resource.kind, resource.kind
        )));
    }
    Ok(())
}

/// The beginning of a body, as upstream shows it.
fn excerpt(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().take(20).map(|b| format!("{b:02x}")).collect();
    if bytes.len() > 20 { format!("{hex} ...") } else { hex }
}

fn undecodable(resource: &Resource, findings: &Findings, error: &serde_json::Error) -> ApiError {
    let detail = match findings.failed.take() {
        Some(failed) if error.is_data() => type_error(failed.owner, &failed.fields, error),
        _ => error.to_string(),
    };
    ApiError::bad_request(format!("{} in version {:?} cannot be handled as a {}: {detail}", resource.kind, resource.version, resource.kind))
}

/// Go's `json: cannot unmarshal string into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64`.
fn type_error(owner: &str, fields: &str, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    let Some((found, expected)) = text.strip_prefix("invalid type: ").and_then(|t| t.rsplit_once(", expected ")) else {
        return format!("json: cannot decode {fields}: {text}");
    };
    let found = if found.starts_with("map") {
        "object"
    } else if found.starts_with("sequence") {
        "array"
    } else if found.starts_with("string") {
        "string"
    } else if found.starts_with("boolean") {
        "bool"
    } else if found.starts_with("null") {
        "null"
    } else {
        "number"
    };
    let expected = match expected {
        "a string" | "string" => "string".to_owned(),
        "a boolean" => "bool".to_owned(),
        "i32" => "int32".to_owned(),
        "i64" => "int64".to_owned(),
        "f64" => "float64".to_owned(),
        other => other.to_owned(),
    };
    format!("json: cannot unmarshal {found} into Go struct field {owner}.{fields} of type {expected}")
}
