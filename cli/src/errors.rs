//! What can go wrong, and the words kubectl uses for it (`k8s.io/kubectl/pkg/cmd/util/helpers.go`).
//!
//! Owns the error types every command returns through `anyhow` and their text on stderr. Prints nothing itself.

use std::fmt;
use std::io::IsTerminal;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};

/// A server's `Status` answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", .0.message.as_deref().unwrap_or_default())]
pub struct ServerError(pub Box<Status>);

impl ServerError {
    /// HTTP code, 0 when the server gave none.
    pub fn code(&self) -> i32 {
        self.0.code.unwrap_or_default()
    }
    /// Upstream's reason.
    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }
}

/// The server could not be reached, or the connection broke.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Nothing listens there.
    #[error("The connection to the server {0} was refused - did you specify the right host or port?")]
    Refused(String),
    /// Anything else below HTTP.
    #[error("Unable to connect to the server: {0}")]
    Other(String),
}

/// Ends the process with a code and no further message.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("exit status {0}")]
pub struct Exit(pub u8);

/// Words printed as they are, without the `error: ` prefix.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Plain(pub String);

/// Several failures of one command, each printed on its own line.
#[derive(Debug)]
pub struct Several(pub Vec<anyhow::Error>);

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(item_message).collect();
        f.write_str(&texts.join("\n"))
    }
}

impl std::error::Error for Several {}

/// Folds the failures of several items into one result: none is success, one stays itself.
pub fn collect(mut errors: Vec<anyhow::Error>) -> anyhow::Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Several(errors).into()),
    }
}

/// A file system error as Go tells it: `open x: no such file or directory`.
pub fn io(operation: &str, path: &str, error: &std::io::Error) -> String {
    format!("{operation} {path}: {}", reason(error))
}

/// The operating system's words, in the lower case Go gives them and without a number.
pub fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    text.to_lowercase()
}

/// kubectl's usage error: the message and where to read more.
pub fn usage(command: &str, message: impl fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("{message}\nSee 'kctl {command} -h' for help and examples")
}

/// Adds the file an object came from, as kubectl does: `error when creating "x.yaml": …`.
pub fn from_source(verb: &str, source: &str, error: anyhow::Error) -> anyhow::Error {
    if source.is_empty() {
        return error;
    }
    match error.downcast::<ServerError>() {
        Ok(mut server) => {
            server.0.message = Some(format!("error when {verb} {source:?}: {}", server.0.message.as_deref().unwrap_or_default()));
            server.into()
        }
        Err(error) if error.is::<ConnectError>() => error,
        Err(error) => anyhow::anyhow!("error when {verb} {source:?}: {error}"),
    }
}

/// Whether the server said that the object is not there.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ServerError>().is_some_and(|e| e.reason() == "NotFound" || e.code() == 404)
}

/// Whether no server could be reached at all.
pub fn is_unreachable(error: &anyhow::Error) -> bool {
    error.is::<ConnectError>()
}

/// Whether the server refused because of a concurrent change.
pub fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ServerError>().is_some_and(|e| e.reason() == "Conflict")
}

/// Whether an object of that name exists already.
pub fn is_already_exists(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ServerError>().is_some_and(|e| e.reason() == "AlreadyExists")
}

/// Readers of older courses expect `run` to have made a Deployment.
fn missing_deployment(error: &anyhow::Error) -> &'static str {
    let details = error.downcast_ref::<ServerError>().filter(|e| e.reason() == "NotFound").and_then(|e| e.0.details.as_ref());
    match details.is_some_and(|d| d.kind.as_deref() == Some("deployments") && d.group.as_deref() == Some("apps")) {
        true => "\nhint: `kctl create deployment NAME --image=IMAGE` makes a Deployment; `kctl run` makes a Pod",
        false => "",
    }
}

/// The text for stderr, without a final newline; empty when there is nothing to say.
pub fn message(error: &anyhow::Error) -> String {
    if error.is::<Exit>() {
        return String::new();
    }
    if let Some(Several(errors)) = error.downcast_ref::<Several>() {
        return errors.iter().map(item_message).collect::<Vec<_>>().join("\n");
    }
    if let Some(server) = error.downcast_ref::<ServerError>().filter(|e| e.reason() == "Invalid") {
        return invalid(&server.0);
    }
    match standard(error) {
        Some(text) if std::io::stderr().is_terminal() => text + missing_deployment(error),
        Some(text) => text,
        None => {
            let text = format!("{error:#}");
            if text.starts_with("error: ") { text } else { format!("error: {text}") }
        }
    }
}

/// How one failure of several is told.
fn item_message(error: &anyhow::Error) -> String {
    standard(error).unwrap_or_else(|| format!("{error:#}"))
}

fn standard(error: &anyhow::Error) -> Option<String> {
    if let Some(server) = error.downcast_ref::<ServerError>() {
        return Some(match server.reason() {
            "Unauthorized" => format!("error: You must be logged in to the server ({server})"),
            "" => format!("Error from server: {server}"),
            reason => format!("Error from server ({reason}): {server}"),
        });
    }
    if let Some(connect) = error.downcast_ref::<ConnectError>() {
        return Some(connect.to_string());
    }
    error.downcast_ref::<Plain>().map(ToString::to_string)
}

fn invalid(status: &Status) -> String {
    let body = status.message.as_deref().unwrap_or_default();
    let Some(details) = &status.details else {
        return if body.is_empty() { "The request is invalid".into() } else { format!("The request is invalid: {body}") };
    };
    let causes = details.causes.as_deref().unwrap_or_default();
    let (kind, name) = (details.kind.as_deref().unwrap_or_default(), details.name.as_deref().unwrap_or_default());
    let head = if !kind.is_empty() || !name.is_empty() {
        format!("The {kind} {name:?} is invalid")
    } else if !body.is_empty() && causes.is_empty() {
        format!("The request is invalid: {body}")
    } else {
        "The request is invalid".into()
    };
    let text = |cause: &StatusCause| format!("{}: {}", cause.field.as_deref().unwrap_or_default(), cause.message.as_deref().unwrap_or_default());
    let mut lines: Vec<String> = Vec::new();
    for line in causes.iter().map(text) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    match lines.as_slice() {
        [] => head,
        [one] => format!("{head}: {one}"),
        many => format!("{head}: \n{}", many.iter().map(|l| format!("* {l}")).collect::<Vec<_>>().join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::field::{Error as Field, Path};
    use shared::status::{ApiError, GroupResource};

    fn from(error: ApiError) -> anyhow::Error {
        ServerError(error.0).into()
    }

    #[test]
    fn speaks_as_kubectl_does() {
        let pods = GroupResource { group: "", resource: "pods" };
        let pod = GroupResource { group: "", resource: "Pod" };
        let path = Path::new("spec").child("containers");
        for (error, text) in [
            (from(ApiError::not_found(pods, "x")), "Error from server (NotFound): pods \"x\" not found"),
            (from(ApiError::unauthorized()), "error: You must be logged in to the server (Unauthorized)"),
            (from(ApiError::invalid(pod, "x", &[Field::required(&path, "")])), "The Pod \"x\" is invalid: spec.containers: Required value"),
            (
                from(ApiError::invalid(pod, "x", &[Field::required(&path, ""), Field::required(&path.index(0), "")])),
                "The Pod \"x\" is invalid: \n* spec.containers: Required value\n* spec.containers[0]: Required value",
            ),
            (ConnectError::Refused("h:1".into()).into(), "The connection to the server h:1 was refused - did you specify the right host or port?"),
            (anyhow::anyhow!("x"), "error: x"),
            (Exit(3).into(), ""),
            (
                collect(vec![from(ApiError::not_found(pods, "a")), anyhow::anyhow!("plain")]).unwrap_err(),
                "Error from server (NotFound): pods \"a\" not found\nplain",
            ),
            (
                from_source("creating", "x.yaml", from(ApiError::already_exists(pods, "a"))),
                "Error from server (AlreadyExists): error when creating \"x.yaml\": pods \"a\" already exists",
            ),
        ] {
            assert_eq!(message(&error), text);
        }
    }
}
