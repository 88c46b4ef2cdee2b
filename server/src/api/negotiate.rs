//! Media types: what a client accepts and what it sends
//! (`k8s.io/apiserver/pkg/endpoints/handlers/negotiation`).
//!
//! JSON, YAML and, for Kubernetes' own kinds, protobuf both ways. Everything is JSON inside; this is the only place that turns it into
//! something else.

use bytes::Bytes;
use http::{HeaderMap, header};
use shared::status::ApiError;

use super::protobuf;
use super::request_info::RequestInfo;
use crate::registry::store::yaml_to_json;

/// Upstream's message for a media type that is not served, with the types that are.
const ACCEPTED: &str = "application/json, application/yaml";

/// Encoding of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// Media type of protobuf.
pub const PROTOBUF: &str = protobuf::MEDIA_TYPE;
/// Media type of a watch in protobuf.
pub const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// How much of each object a table's row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    /// `includeObject=None`
    Nothing,
    /// `includeObject=Metadata`, the default.
    Metadata,
    /// `includeObject=Object`
    Object,
}

/// What objects are turned into before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Themselves.
    Object,
    /// `as=Table;g=meta.k8s.io;v=v1`
    Table(Include),
    /// `as=PartialObjectMetadata[List];g=meta.k8s.io;v=v1`
    Metadata,
}

/// How a response is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its encoding.
    pub format: Format,
    /// What its objects become.
    pub shape: Shape,
    /// Whether JSON is indented.
    pub pretty: bool,
}

impl Accepted {
    /// Plain JSON, as errors are sent when nothing else is known.
    pub const JSON: Accepted = Accepted { format: Format::Json, shape: Shape::Object, pretty: false };

    /// Whether stored bytes can go out as they are.
    pub fn verbatim(self) -> bool {
        self.format == Format::Json && self.shape == Shape::Object && !self.pretty
    }

    /// Picks the first of a client's preferences that can be served.
    ///
    /// # Errors
    /// 406 when there is none, 400 for an unknown `includeObject`.
    pub fn choose(headers: &HeaderMap, info: &RequestInfo) -> Result<Self, ApiError> {
        let mut clauses: Vec<Clause<'_>> = Vec::new();
        for value in headers.get_all(header::ACCEPT) {
            let text = value.to_str().map_err(|_| ApiError::bad_request("the Accept header is not text"))?;
            clauses.extend(text.split(',').map(Clause::parse));
        }
        clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
        let (format, shaped, pretty) = if clauses.is_empty() {
            (Format::Json, None, false)
        } else {
            // Asked only when protobuf is: most clients do not, and the answer takes the table of messages.
            let speaks_protobuf = || protobuf::speaks_version(&info.group, &info.version);
            let found = clauses.iter().find_map(|clause| clause.served(speaks_protobuf));
            found.ok_or_else(|| {
                let also = if speaks_protobuf() { ", application/vnd.kubernetes.protobuf" } else { "" };
                ApiError::not_acceptable(format!("only the following media types are accepted: {ACCEPTED}{also}"))
            })?
        };
        let shape = match shaped {
            None => Shape::Object,
            Some(Transform::Metadata) => Shape::Metadata,
            Some(Transform::Table) => Shape::Table(include(info.param("includeObject").unwrap_or_default())?),
        };
        Ok(Accepted { format, shape, pretty: pretty || wants_pretty(headers, info) })
    }
}

#[derive(Clone, Copy)]
enum Transform {
    Table,
    Metadata,
}

/// One alternative of an Accept header.
struct Clause<'a> {
    media: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<_> = parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))).collect();
        let quality = parameters.iter().find(|(k, _)| *k == "q").and_then(|(_, v)| v.parse().ok()).unwrap_or(1.0);
        Clause { media, quality, parameters }
    }
    fn parameter(&self, name: &str) -> &'a str {
        self.parameters.iter().find(|(k, _)| *k == name).map_or("", |(_, v)| v)
    }
    fn served(&self, speaks_protobuf: impl Fn() -> bool) -> Option<(Format, Option<Transform>, bool)> {
        let format = match self.media {
            "application/json" | "application/*" | "*/*" | "" => Format::Json,
            "application/yaml" => Format::Yaml,
            PROTOBUF if speaks_protobuf() => Format::Protobuf,
            _ => return None,
        };
        let transform = match (self.parameter("as"), self.parameter("g"), self.parameter("v")) {
            ("", _, _) => None,
            // Cells have no types of their own, so tables have no protobuf form.
            ("Table", "meta.k8s.io", "v1") if format != Format::Protobuf => Some(Transform::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Some(Transform::Metadata),
            _ => return None,
        };
        Some((format, transform, self.parameter("pretty") == "1"))
    }
}

fn include(value: &str) -> Result<Include, ApiError> {
    match value {
        "" | "Metadata" => Ok(Include::Metadata),
        "None" => Ok(Include::Nothing),
        "Object" => Ok(Include::Object),
        other => Err(ApiError::bad_request(format!(
            "unable to convert to Table as requested: includeObject: Invalid value: \"{other}\": must be 'Metadata', 'Object', 'None', or empty"
        ))),
    }
}

/// `?pretty=true`, and by default people's own HTTP clients.
fn wants_pretty(headers: &HeaderMap, info: &RequestInfo) -> bool {
    if info.param("pretty").is_some() {
        return info.flag("pretty");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|a| agent.starts_with(a))
}

/// A request body's JSON, whatever it was sent as.
///
/// # Errors
/// 415 for a media type that is not read, 400 for YAML that cannot be.
pub fn request_json(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiError> {
    match media_type(headers) {
        "" | "application/json" => Ok(body),
        "application/yaml" => yaml_to_json(&body).map(Bytes::from),
        protobuf::MEDIA_TYPE => protobuf::to_json(&body),
        _ => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {ACCEPTED}, {}",
            protobuf::MEDIA_TYPE
        ))),
    }
}

/// A request's media type without its parameters; empty when there is none.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Turns JSON into what a client asked for: YAML, protobuf, or indented JSON. A kind that has no protobuf form stays JSON.
///
/// # Errors
/// 500 for bytes that are not JSON.
pub fn encode(accepted: Accepted, json: Bytes) -> Result<(Bytes, &'static str), ApiError> {
    match accepted.format {
        Format::Json if !accepted.pretty => Ok((json, "application/json")),
        Format::Json => {
            let value: Box<serde_json::value::RawValue> = serde_json::from_slice(&json).map_err(ApiError::internal)?;
            Ok((indent(value.get()).into(), "application/json"))
        }
        Format::Yaml => {
            let value: serde_yaml::Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
            Ok((serde_yaml::to_string(&value).map_err(ApiError::internal)?.into(), "application/yaml"))
        }
        Format::Protobuf => Ok(match protobuf::from_json(&json)? {
            Some(bytes) => (bytes, PROTOBUF),
            None => (json, "application/json"),
        }),
    }
}

/// Indents JSON by two spaces a level, keys in the order they are in, as Go's `json.Indent`.
fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if in_string {
            out.push(c);
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            c if c.is_ascii_whitespace() => {}
            '"' => {
                in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                let closing = if c == '{' { '}' } else { ']' };
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if chars.next_if_eq(&closing).is_some() {
                    out.push(closing);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(accept: &str, query: &str) -> Result<Accepted, ApiError> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, accept.parse().unwrap());
        }
        let uri = format!("/api/v1/pods?{query}").parse().unwrap();
        Accepted::choose(&headers, &RequestInfo::parse(&http::Method::GET, &uri).unwrap())
    }

    #[test]
    fn the_first_preference_that_is_served_wins() {
        let table = Shape::Table(Include::Metadata);
        let cases = [
            ("", Format::Json, Shape::Object),
            ("*/*", Format::Json, Shape::Object),
            ("application/json", Format::Json, Shape::Object),
            ("application/yaml", Format::Yaml, Shape::Object),
            ("application/vnd.kubernetes.protobuf,application/json", Format::Protobuf, Shape::Object),
            ("application/vnd.kubernetes.protobuf, */*", Format::Protobuf, Shape::Object),
            ("application/vnd.kubernetes.protobuf;stream=watch", Format::Protobuf, Shape::Object),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io", Format::Json, table),
            ("application/json;q=0.5, application/yaml", Format::Yaml, Shape::Object),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Format::Json, table),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Format::Json, Shape::Object),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                Format::Protobuf,
                Shape::Metadata,
            ),
            ("application/json;stream=watch", Format::Json, Shape::Object),
        ];
        for (accept, format, shape) in cases {
            assert_eq!(choose(accept, "").unwrap(), Accepted { format, shape, pretty: false }, "{accept}");
        }
        assert_eq!(choose("text/html", "").unwrap_err().code(), 406);
    }

    #[test]
    fn custom_kinds_have_no_protobuf_form() {
        let headers = |accept: &'static str| HeaderMap::from_iter([(header::ACCEPT, http::HeaderValue::from_static(accept))]);
        let info = RequestInfo::parse(&http::Method::GET, &"/apis/apps.example.com/v1/things".parse().unwrap()).unwrap();
        assert_eq!(Accepted::choose(&headers("application/vnd.kubernetes.protobuf, */*"), &info).unwrap(), Accepted::JSON);
        assert_eq!(Accepted::choose(&headers("application/vnd.kubernetes.protobuf"), &info).unwrap_err().code(), 406);
    }

    #[test]
    fn a_table_carries_what_include_object_says() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
        for (query, include) in [("", Include::Metadata), ("includeObject=None", Include::Nothing), ("includeObject=Object", Include::Object)] {
            assert_eq!(choose(accept, query).unwrap().shape, Shape::Table(include));
        }
        assert_eq!(choose(accept, "includeObject=All").unwrap_err().code(), 400);
    }

    #[test]
    fn pretty_json_is_indented_as_go_does() {
        let json = r#"{"a":{},"b":[],"c":[1,"x,{\"y\\"],"d":{"e":null}}"#;
        let expected = "{\n  \"a\": {},\n  \"b\": [],\n  \"c\": [\n    1,\n    \"x,{\\\"y\\\\\"\n  ],\n  \"d\": {\n    \"e\": null\n  }\n}";
        assert_eq!(indent(json), expected);
        assert_eq!(indent(&indent(json)), expected);
    }

    #[test]
    fn a_yaml_bomb_is_a_bad_request() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in b'b'..=b'i' {
            let (this, last) = (char::from(level), char::from(level - 1));
            bomb.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{last}"); 9].join(",")));
        }
        assert_eq!(yaml_to_json(bomb.as_bytes()).unwrap_err().code(), 400);
        for nested in ["[", "{", "&a [", "!!seq [", "- ", "? ", "[ \"]\", ", "a: {"] {
            let deep = nested.repeat(100_000);
            assert_eq!(yaml_to_json(deep.as_bytes()).unwrap_err().code(), 400, "{nested}");
        }
        assert_eq!(yaml_to_json(b"{\"a\": 1}").unwrap(), b"{\"a\": 1}");
        assert_eq!(yaml_to_json(b"a: 1\nb: [x]\n").unwrap(), br#"{"a":1,"b":["x"]}"#);
    }
}
