//! What a request asks for: parsed once from its path and query, then used unchanged by authorization, admission, verbs and audit
//! (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).
//!
//! Owns percent-decoding: each segment is decoded exactly once, here. A segment that would mean another path to anyone who decodes it
//! again or joins it (`%2F`, `..`, NUL) is refused, so that authorization and a proxied server can never see different paths.

use http::{Method, Uri};
use shared::status::ApiError;

/// A parsed request line. All segments are percent-decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether it is about a resource; otherwise only `path` and `verb` count.
    pub is_resource: bool,
    /// Decoded path.
    pub path: String,
    /// `get list watch create update patch delete deletecollection`, or the lower-case HTTP method of a non-resource request.
    pub verb: &'static str,
    /// API group, empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, empty for cluster-scoped requests and requests across namespaces.
    pub namespace: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource, empty for the object itself.
    pub subresource: String,
    /// Object name, empty for collections. A list or watch with the field selector `metadata.name=x` has the name `x`, as upstream,
    /// so that RBAC's resourceNames apply to it.
    pub name: String,
    /// What follows the subresource, e.g. the proxied path, with its leading slash; empty when nothing follows.
    pub rest: String,
    /// Decoded query, in order.
    pub query: Vec<(String, String)>,
}

impl RequestInfo {
    /// The first value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
    /// All values of a query parameter.
    pub fn params<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.query.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }
    /// A boolean query parameter: absent, `false` and `0` are false, anything else is true (`Convert_Slice_string_To_bool`).
    pub fn flag(&self, name: &str) -> bool {
        self.param(name).is_some_and(|v| !v.eq_ignore_ascii_case("false") && v != "0")
    }
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }
    /// Whether the request lives as long as its client wants: a watch, a log that is followed, a stream, a proxied request.
    pub fn long_running(&self) -> bool {
        self.verb == "watch" || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log")
    }

    /// Parses a request line.
    ///
    /// # Errors
    /// 400 for a path or query that cannot be decoded, or that would decode to another path.
    pub fn parse(method: &Method, uri: &Uri) -> Result<Self, ApiError> {
        let raw = uri.path();
        let path = decode_path(raw)?;
        let mut info = RequestInfo { verb: method_verb(method), query: parse_query(uri.query().unwrap_or_default())?, ..Self::default() };
        let trimmed = path.trim_matches('/');
        let mut parts: Parts<'_> = trimmed.split('/').peekable();
        let resource = match parts.next() {
            Some("api") => parts.peek().is_some(),
            Some("apis") => {
                info.group = parts.next().unwrap_or_default().to_owned();
                parts.peek().is_some()
            }
            _ => false,
        };
        if resource {
            info.version = parts.next().unwrap_or_default().to_owned();
        }
        if resource && parts.peek().is_some() {
            info.is_resource = true;
            info.resource_path(&mut parts, method);
            info.rest = rest(&path, parts);
            info.collection_verb();
        } else {
            info.group.clear();
            info.version.clear();
            info.verb = lower_method(method);
        }
        info.path = path;
        Ok(info)
    }

    /// `[watch/][namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE]]`
    fn resource_path(&mut self, parts: &mut Parts<'_>, method: &Method) {
        if parts.peek() == Some(&"watch") {
            parts.next();
            // The deprecated form. Only reading watches.
            if matches!(*method, Method::GET | Method::HEAD) {
                self.verb = "watch";
            }
        }
        let mut resource = parts.next().unwrap_or_default();
        let mut name = parts.next().unwrap_or_default();
        if resource == "namespaces" && !name.is_empty() {
            name.clone_into(&mut self.namespace);
            // A namespace's own subresources are not resources in it.
            if let Some(next) = parts.next_if(|next| !matches!(*next, "status" | "finalize")) {
                resource = next;
                name = parts.next().unwrap_or_default();
            }
        }
        resource.clone_into(&mut self.resource);
        name.clone_into(&mut self.name);
        parts.next().unwrap_or_default().clone_into(&mut self.subresource);
    }

    /// A get without a name is a list or a watch, a delete without one a deletecollection.
    fn collection_verb(&mut self) {
        if !self.name.is_empty() {
            return;
        }
        if self.verb == "get" {
            self.verb = if self.flag("watch") { "watch" } else { "list" };
        }
        match self.verb {
            "list" | "watch" => self.name = self.selected_name().unwrap_or_default(),
            "delete" => self.verb = "deletecollection",
            _ => {}
        }
    }

    /// The name that a field selector asks for.
    fn selected_name(&self) -> Option<String> {
        let selector = self.param("fieldSelector")?;
        let name = selector.split(',').find_map(|term| {
            let value = term.strip_prefix("metadata.name=")?;
            Some(value.strip_prefix('=').unwrap_or(value))
        })?;
        let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%', '\\']);
        plain.then(|| name.to_owned())
    }
}

type Parts<'a> = std::iter::Peekable<std::str::Split<'a, char>>;

/// What of `path` follows the parts that were consumed, with its leading slash.
fn rest(path: &str, mut parts: Parts<'_>) -> String {
    let Some(first) = parts.peek() else {
        // `…/proxy/` differs from `…/proxy` for the server behind.
        return if path.ends_with('/') { "/".into() } else { String::new() };
    };
    let start = first.as_ptr() as usize - path.as_ptr() as usize;
    path[start - 1..].to_owned()
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn lower_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

/// Decodes a path segment by segment.
fn decode_path(raw: &str) -> Result<String, ApiError> {
    if !raw.starts_with('/') {
        return Err(ApiError::bad_request("the request's path must start with a slash"));
    }
    let mut path = String::with_capacity(raw.len());
    for segment in raw[1..].split('/') {
        path.push('/');
        let start = path.len();
        if segment.contains('%') {
            path.push_str(&percent_decode(segment)?);
        } else {
            path.push_str(segment);
        }
        let decoded = &path[start..];
        if decoded == ".." || decoded == "." || decoded.contains(['/', '\0']) {
            return Err(ApiError::bad_request(format!("the request's path may not have the segment {segment:?}")));
        }
    }
    Ok(path)
}

fn percent_decode(text: &str) -> Result<String, ApiError> {
    let malformed = || ApiError::bad_request(format!("invalid URL escape in {text:?}"));
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = bytes.next().zip(bytes.next()).and_then(|(high, low)| Some((hex(high)?, hex(low)?)));
        let (high, low) = digits.ok_or_else(malformed)?;
        decoded.push(high << 4 | low);
    }
    String::from_utf8(decoded).map_err(|_| malformed())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

fn parse_query(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let decode = |text: &str| {
        if !text.contains(['%', '+']) {
            return Ok(text.to_owned());
        }
        percent_decode(&text.replace('+', " "))
    };
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(method: &str, uri: &str) -> Result<RequestInfo, ApiError> {
        RequestInfo::parse(&Method::from_bytes(method.as_bytes()).unwrap(), &uri.parse::<Uri>().unwrap())
    }

    /// verb group version namespace resource name subresource rest
    fn line(info: &RequestInfo) -> String {
        if !info.is_resource {
            return format!("{} {}", info.verb, info.path);
        }
        let show = |s: &str| if s.is_empty() { "-".to_owned() } else { s.to_owned() };
        [info.verb, &info.group, &info.version, &info.namespace, &info.resource, &info.name, &info.subresource, &info.rest].map(show).join(" ")
    }

    #[test]
    fn paths_mean_what_upstream_takes_them_for() {
        let table = [
            ("GET", "/api/v1/namespaces", "list - v1 - namespaces - - -"),
            ("GET", "/api/v1/namespaces/other", "get - v1 other namespaces other - -"),
            ("PUT", "/api/v1/namespaces/other/finalize", "update - v1 other namespaces other finalize -"),
            ("PATCH", "/api/v1/namespaces/other/status", "patch - v1 other namespaces other status -"),
            ("GET", "/api/v1/namespaces/other/pods", "list - v1 other pods - - -"),
            ("GET", "/api/v1/namespaces/other/pods/", "list - v1 other pods - - /"),
            ("GET", "/api/v1/namespaces/other/pods/foo", "get - v1 other pods foo - -"),
            ("HEAD", "/api/v1/namespaces/other/pods/foo", "get - v1 other pods foo - -"),
            ("GET", "/api/v1/pods", "list - v1 - pods - - -"),
            ("GET", "/api/v1/pods?watch=true", "watch - v1 - pods - - -"),
            ("GET", "/api/v1/pods?watch=1", "watch - v1 - pods - - -"),
            ("GET", "/api/v1/pods?watch", "watch - v1 - pods - - -"),
            ("GET", "/api/v1/pods?watch=false", "list - v1 - pods - - -"),
            ("GET", "/api/v1/pods?watch=0", "list - v1 - pods - - -"),
            ("GET", "/api/v1/watch/pods", "watch - v1 - pods - - -"),
            ("GET", "/api/v1/watch/namespaces/other/pods/foo", "watch - v1 other pods foo - -"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dfoo", "list - v1 a pods foo - -"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=spec.nodeName%3Dn,metadata.name%3D%3Dfoo&watch=1", "watch - v1 a pods foo - -"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name!%3Dfoo", "list - v1 a pods - - -"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3D..", "list - v1 a pods - - -"),
            ("POST", "/api/v1/namespaces/other/pods", "create - v1 other pods - - -"),
            ("POST", "/api/v1/namespaces/other/pods/foo/exec?command=ls", "create - v1 other pods foo exec -"),
            ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete - v1 other pods foo - -"),
            ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection - v1 other pods - - -"),
            ("GET", "/apis/apps/v1/namespaces/other/deployments/foo/scale", "get apps v1 other deployments foo scale -"),
            ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node", "get rbac.authorization.k8s.io v1 - clusterroles system:node - -"),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get rbac.authorization.k8s.io v1 - clusterroles system:node - -",
            ),
            ("GET", "/api/v1/namespaces/d/services/http:web:80/proxy/a//b%20c/", "get - v1 d services http:web:80 proxy /a//b c/"),
            ("GET", "/api/v1/nodes/n1/proxy/", "get - v1 - nodes n1 proxy /"),
            ("GET", "/api/v1/nodes/n1/proxy", "get - v1 - nodes n1 proxy -"),
            ("GET", "/api", "get /api"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/api/v1/", "get /api/v1/"),
            ("GET", "/apis/apps", "get /apis/apps"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/", "get /"),
            ("HEAD", "/healthz", "head /healthz"),
            ("POST", "/openapi/v3/apis/apps/v1", "post /openapi/v3/apis/apps/v1"),
            ("GET", "/api/v1//pods", "get - v1 - - pods - -"),
        ];
        for (method, uri, expected) in table {
            assert_eq!(line(&parse(method, uri).unwrap()), expected, "{method} {uri}");
        }
    }

    #[test]
    fn segments_that_would_decode_to_another_path_are_bad_requests() {
        for uri in [
            "/api/v1/namespaces/a%2Fb/pods",
            "/api/v1/namespaces/a%2fb/pods",
            "/api/v1/namespaces/../secrets/x",
            "/api/v1/namespaces/%2e%2E/secrets/x",
            "/api/v1/namespaces/%2e/pods",
            "/api/v1/namespaces/a%00/pods",
            "/api/v1/nodes/n/proxy/a/%2e%2e/b",
            "/api/v1/namespaces/%zz",
            "/api/v1/namespaces/%4",
            "/api/v1/namespaces/%ff",
            "/api/v1/pods?labelSelector=%z",
        ] {
            assert_eq!(parse("GET", uri).unwrap_err().code(), 400, "{uri}");
        }
        // Decoded once only: what looks encoded after that is a name's own text.
        assert_eq!(parse("GET", "/api/v1/nodes/a%252Fb").unwrap().name, "a%2Fb");
    }

    #[test]
    fn the_query_is_decoded_and_keeps_its_order() {
        let info = parse("GET", "/api/v1/pods?command=a+b&command=c%2Bd&x&labelSelector=a%20in%20(b)").unwrap();
        assert_eq!(info.params("command").collect::<Vec<_>>(), ["a b", "c+d"]);
        assert_eq!((info.param("x"), info.param("labelSelector"), info.param("y")), (Some(""), Some("a in (b)"), None));
    }

    proptest! {
        #[test]
        fn any_path_parses_to_segments_without_slashes_or_is_a_bad_request(path in "(/([a-z.%A-F0-9:~_-]|%2[eEfF]|%00){0,8}){0,9}/?", query in "[a-z=&%+0-9]{0,20}") {
            let Ok(uri) = format!("/{path}?{query}").parse::<Uri>() else { return Ok(()) };
            match RequestInfo::parse(&Method::GET, &uri) {
                Err(error) => prop_assert_eq!(error.code(), 400),
                Ok(info) => {
                    for segment in [&info.group, &info.version, &info.namespace, &info.resource, &info.name, &info.subresource] {
                        prop_assert!(!segment.contains(['/', '\0']) && segment != "..");
                    }
                    prop_assert!(!info.path.split('/').any(|s| s == ".."));
                    prop_assert!(info.path.ends_with(&info.rest));
                }
            }
        }

        #[test]
        fn a_resource_path_parses_back_to_its_parts(
            group in "[a-z]{1,5}\\.io", namespace in "[a-z]{1,9}", resource in "[a-z]{3,9}", name in "[a-z0-9:.]{3,9}", subresource in "(scale|status|)"
        ) {
            prop_assume!(resource != "watch");
            let uri: Uri = format!("/apis/{group}/v1/namespaces/{namespace}/{resource}/{name}/{subresource}").trim_end_matches('/').parse().unwrap();
            let info = RequestInfo::parse(&Method::PUT, &uri).unwrap();
            prop_assert_eq!((info.group, info.namespace, info.resource, info.name, info.subresource), (group, namespace, resource, name, subresource));
        }
    }
}
