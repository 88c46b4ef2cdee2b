//! What a request asks for: parsed once from its path and query, then used unchanged by authorization, admission, verbs and audit
//! (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`).

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
    /// Object name, empty for collections.
    pub name: String,
    /// What follows the subresource, e.g. the proxied path.
    pub rest: String,
    /// Decoded query, in order.
    pub query: Vec<(String, String)>,
}

impl RequestInfo {
    /// The first value of a query parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }
}
