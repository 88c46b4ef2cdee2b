//! The paths of a document: the operations that a kind's verbs and subresources allow.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use serde_json::{Map, Value, json};

use super::schemas::{Schemas, gvk};
use super::{Kind, parameters};
use crate::api::{negotiate, protobuf};
use crate::registry::Subresource;

/// Content types of patches. Strategic ones need types that say how their lists merge.
const PATCH_TYPES: [&str; 4] =
    ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// One operation's making.
struct Operation<'a> {
    kind: &'a Kind,
    /// `get`, `list`, `post`, `put`, `patch`, `delete`, `deletecollection`, `watch`, `watchlist`, `connect`, as `x-kubernetes-action` has it.
    action: &'static str,
    method: &'static str,
    subresource: &'a str,
    gvk: Value,
    body: Option<Value>,
    answer: Value,
}

pub(super) fn add(paths: &mut Map<String, Value>, schemas: &mut Schemas, kind: &Kind) {
    let root = root_of(kind.group, kind.version);
    let below = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
    let collection = format!("{root}/{below}{}", kind.plural);
    let one = format!("{collection}/{{name}}");
    let (object, list, event) = (schemas.kind(kind), schemas.list(kind), schemas.watch_event());
    let (status, options, patch) = (schemas.status(), schemas.delete_options(), schemas.patch());
    let deleted = if crate::api::verbs::returns_deleted(kind.plural) { &object } else { &status };
    let operation = |action, method, body, answer: &Value| Operation {
        kind,
        action,
        method,
        subresource: "",
        gvk: gvk(kind.group, kind.version, kind.kind),
        body,
        answer: answer.clone(),
    };
    let has = |verb: &str| kind.verbs.contains(&verb);
    let mut put = |path: &str, operation: Operation<'_>| insert(paths, path, &operation);
    if has("list") {
        put(&collection, operation("list", "get", None, &list));
        if kind.namespaced {
            put(&format!("{root}/{}", kind.plural), operation("list", "get", None, &list));
        }
    }
    if has("watch") {
        put(&format!("{root}/watch/{below}{}", kind.plural), operation("watchlist", "get", None, &event));
        put(&format!("{root}/watch/{below}{}/{{name}}", kind.plural), operation("watch", "get", None, &event));
        if kind.namespaced {
            put(&format!("{root}/watch/{}", kind.plural), operation("watchlist", "get", None, &event));
        }
    }
    if has("create") {
        put(&collection, operation("post", "post", Some(object.clone()), &object));
    }
    if has("deletecollection") {
        put(&collection, operation("deletecollection", "delete", Some(options.clone()), &status));
    }
    if has("get") {
        put(&one, operation("get", "get", None, &object));
    }
    if has("update") {
        put(&one, operation("put", "put", Some(object.clone()), &object));
    }
    if has("patch") {
        put(&one, operation("patch", "patch", Some(patch.clone()), &object));
    }
    if has("delete") {
        put(&one, operation("delete", "delete", Some(options), deleted));
    }
    for sub in kind.subresources {
        subresource(paths, schemas, kind, sub, &one, &object, &patch);
    }
}

/// The path that lists a group version's resources.
pub(super) fn add_resources(paths: &mut Map<String, Value>, schemas: &mut Schemas, group: &str, version: &str) {
    let (resources, tag) = (schemas.resources(), tag_of(group, version));
    let content: Map<String, Value> =
        ["application/json", "application/yaml"].iter().map(|media| ((*media).to_owned(), json!({"schema": resources}))).collect();
    let get = json!({
        "tags": [tag],
        "description": "get available resources",
        "operationId": format!("get{}{}APIResources", upper(short(group)), upper(version)),
        "responses": {"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}},
    });
    paths.insert(format!("{}/", root_of(group, version)), json!({"get": get}));
}

fn root_of(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

fn subresource(paths: &mut Map<String, Value>, schemas: &mut Schemas, kind: &Kind, sub: &Subresource, one: &str, parent: &Value, patch: &Value) {
    let connects = matches!(sub.name, "exec" | "attach" | "portforward" | "proxy");
    let body = match sub.kind {
        "Scale" => schemas.of::<Scale>(),
        "Binding" => schemas.of::<Binding>(),
        "Eviction" => schemas.of::<Eviction>(),
        "TokenRequest" => schemas.of::<TokenRequest>(),
        _ if connects || sub.name == "log" => json!({"type": "string"}),
        _ => parent.clone(),
    };
    let gvk = if sub.kind.is_empty() || sub.version.is_empty() {
        gvk(kind.group, kind.version, if sub.kind.is_empty() { kind.kind } else { sub.kind })
    } else {
        gvk(sub.group, sub.version, sub.kind)
    };
    for verb in sub.verbs {
        let (method, action, sent) = match *verb {
            "get" => ("get", "get", None),
            "create" => ("post", "post", Some(body.clone())),
            "update" => ("put", "put", Some(body.clone())),
            "patch" => ("patch", "patch", Some(patch.clone())),
            "delete" => ("delete", "delete", None),
            _ => continue,
        };
        let (action, sent) = if connects { ("connect", None) } else { (action, sent) };
        let operation = Operation { kind, action, method, subresource: sub.name, gvk: gvk.clone(), body: sent, answer: body.clone() };
        insert(paths, &format!("{one}/{}", sub.name), &operation);
        if sub.name == "proxy" {
            insert(paths, &format!("{one}/{}/{{path}}", sub.name), &operation);
        }
    }
}

fn insert(paths: &mut Map<String, Value>, path: &str, operation: &Operation<'_>) {
    let item = paths.entry(path.to_owned()).or_insert_with(|| json!({"parameters": parameters::of_path(path, operation.kind.kind)}));
    item[operation.method] = operation.describe(path);
}

impl Operation<'_> {
    fn describe(&self, path: &str) -> Value {
        let mut value = json!({
            "tags": [tag_of(self.kind.group, self.kind.version)],
            "description": self.description(),
            "operationId": self.id(path),
            "responses": self.responses(),
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": self.gvk,
        });
        let parameters = match (self.action, self.subresource) {
            ("get", "log") => parameters::of_log(),
            ("connect", subresource) => parameters::of_connection(subresource),
            (action, _) => parameters::of_action(action),
        };
        if !parameters.is_empty() {
            value["parameters"] = parameters.into();
        }
        if self.action.starts_with("watch") {
            value["deprecated"] = true.into();
        }
        if let Some(body) = &self.body {
            let types: &[&str] = if self.action == "patch" { &PATCH_TYPES } else { &["*/*"] };
            let content: Map<String, Value> = types.iter().map(|t| ((*t).to_owned(), json!({"schema": body}))).collect();
            let required = !self.action.starts_with("delete");
            value["requestBody"] = if required { json!({"content": content, "required": true}) } else { json!({"content": content}) };
        }
        value
    }

    /// The codes that an action may answer with, and in which media types.
    fn responses(&self) -> Value {
        let codes: &[(&str, &str)] = match self.action {
            "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            "put" | "patch" => &[("200", "OK"), ("201", "Created")],
            "delete" => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        };
        let mut types = match (self.action, self.subresource) {
            ("connect", _) => vec!["*/*"],
            (_, "log") => vec!["text/plain", "application/json", "application/yaml"],
            _ => vec!["application/json", "application/yaml"],
        };
        let speaks = protobuf::speaks(self.kind.group, self.kind.version, self.kind.kind);
        if self.action != "connect" && speaks {
            types.push(negotiate::PROTOBUF);
        }
        if matches!(self.action, "list" | "watch" | "watchlist") {
            types.push("application/json;stream=watch");
            if speaks {
                types.push(negotiate::PROTOBUF_STREAM);
            }
        }
        let content: Map<String, Value> = types.into_iter().map(|media| (media.to_owned(), json!({"schema": self.answer}))).collect();
        let mut responses: Map<String, Value> =
            codes.iter().map(|(code, text)| ((*code).to_owned(), json!({"description": text, "content": content}))).collect();
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        responses.into()
    }

    fn description(&self) -> String {
        let kind = self.kind.kind;
        let of = if self.subresource.is_empty() { String::new() } else { format!("{} of ", self.subresource) };
        match self.action {
            "list" => format!("list or watch objects of kind {kind}"),
            "watchlist" => {
                format!("watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list operation instead.")
            }
            "watch" => format!(
                "watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter."
            ),
            "connect" => format!("connect {} requests to {} of {kind}", self.method.to_ascii_uppercase(), self.subresource),
            "post" => format!("create {of}a {kind}"),
            "put" => format!("replace {of}the specified {kind}"),
            "patch" => format!("partially update {of}the specified {kind}"),
            "delete" => format!("delete {of}a {kind}"),
            "deletecollection" => format!("delete collection of {kind}"),
            _ => format!("read {of}the specified {kind}"),
        }
    }

    /// `readAppsV1NamespacedDeploymentScale`
    fn id(&self, path: &str) -> String {
        let group = upper(short(self.kind.group));
        let scope = if path.contains("{namespace}") { "Namespaced" } else { "" };
        let across = if matches!(self.action, "list" | "watchlist") && self.kind.namespaced && scope.is_empty() { "ForAllNamespaces" } else { "" };
        let list = if self.action == "watchlist" { "List" } else { "" };
        let (verb, collection) = match self.action {
            "get" => ("read", String::new()),
            "post" => ("create", String::new()),
            "put" => ("replace", String::new()),
            "deletecollection" => ("delete", "Collection".to_owned()),
            "watchlist" => ("watch", String::new()),
            "connect" => ("connect", upper(self.method)),
            other => (other, String::new()),
        };
        let rest = if path.ends_with("{path}") { "WithPath" } else { "" };
        format!("{verb}{group}{}{collection}{scope}{}{}{list}{across}{rest}", upper(self.kind.version), self.kind.kind, upper(self.subresource))
    }
}

/// `core_v1`, `apps_v1`
fn tag_of(group: &str, version: &str) -> String {
    format!("{}_{version}", short(group))
}

fn short(group: &str) -> &str {
    group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core")
}

fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}
