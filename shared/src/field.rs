//! Field paths and validation errors with upstream's wording
//! (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::fmt;

/// A path to a field, such as `spec.containers[0].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path starting at a root field; `""` is the object itself.
    pub fn new(root: &str) -> Self {
        Path(root.to_owned())
    }
    /// The path of a child field.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path(format!("{}.{name}", self.0)) }
    }
    /// The path of a list element.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Path(format!("{}[{index}]", self.0))
    }
    /// The path of a map entry, printed `path[key]`.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Path(format!("{}[{key}]", self.0))
    }
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field. The `Display` of [`Error`] is upstream's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// `Required value`
    Required,
    /// `Invalid value`
    Invalid,
    /// `Unsupported value`
    NotSupported,
    /// `Duplicate value`
    Duplicate,
    /// `Forbidden`
    Forbidden,
    /// `Too long`
    TooLong,
    /// `Too many`
    TooMany,
    /// `Not found`
    NotFound,
    /// `Internal error`
    Internal,
    /// `Invalid value` of the wrong type
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of the matching `StatusCause`.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One validation error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of error it is.
    pub kind: ErrorType,
    /// Where.
    pub field: String,
    /// The message without the field.
    pub body: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body)
    }
}

/// Errors found by a validation, in field order.
pub type ErrorList = Vec<Error>;

/// How a bad value is shown: strings quoted as Go's `%q`, the rest as compact JSON.
fn show(value: impl serde::Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_default()
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

impl Error {
    fn new(kind: ErrorType, path: &Path, body: String) -> Self {
        Error { kind, field: if path.0.is_empty() { "<nil>".into() } else { path.0.clone() }, body }
    }
    /// `field: Required value[: detail]`
    pub fn required(path: &Path, detail: &str) -> Self {
        Self::new(ErrorType::Required, path, with_detail("Required value".into(), detail))
    }
    /// `field: Invalid value: "x": detail`
    pub fn invalid(path: &Path, value: impl serde::Serialize, detail: &str) -> Self {
        Self::new(ErrorType::Invalid, path, with_detail(format!("Invalid value: {}", show(value)), detail))
    }
    /// `field: Unsupported value: "x": supported values: "a", "b"`
    pub fn not_supported(path: &Path, value: impl serde::Serialize, supported: &[&str]) -> Self {
        let mut sorted: Vec<&str> = supported.to_vec();
        sorted.sort_unstable();
        let list = sorted.iter().map(show).collect::<Vec<_>>().join(", ");
        let detail = if list.is_empty() { String::new() } else { format!("supported values: {list}") };
        Self::new(ErrorType::NotSupported, path, with_detail(format!("Unsupported value: {}", show(value)), &detail))
    }
    /// `field: Duplicate value: "x"`
    pub fn duplicate(path: &Path, value: impl serde::Serialize) -> Self {
        Self::new(ErrorType::Duplicate, path, format!("Duplicate value: {}", show(value)))
    }
    /// `field: Forbidden: detail`
    pub fn forbidden(path: &Path, detail: &str) -> Self {
        Self::new(ErrorType::Forbidden, path, with_detail("Forbidden".into(), detail))
    }
    /// `field: Not found: "x"`
    pub fn not_found(path: &Path, value: impl serde::Serialize) -> Self {
        Self::new(ErrorType::NotFound, path, format!("Not found: {}", show(value)))
    }
    /// `field: Too long: may not be more than N bytes`
    pub fn too_long(path: &Path, max_bytes: usize) -> Self {
        Self::new(ErrorType::TooLong, path, format!("Too long: may not be more than {max_bytes} bytes"))
    }
    /// `field: Too many: N: must have at most M items`
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        Self::new(ErrorType::TooMany, path, format!("Too many: {actual}: must have at most {max} items"))
    }
    /// `field: Invalid value: "x": detail`, for a value of the wrong type.
    pub fn type_invalid(path: &Path, value: impl serde::Serialize, detail: &str) -> Self {
        Self::new(ErrorType::TypeInvalid, path, with_detail(format!("Invalid value: {}", show(value)), detail))
    }
}
