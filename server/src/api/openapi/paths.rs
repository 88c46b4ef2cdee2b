//! The paths of a document: the operations that a kind's verbs and subresources allow.

use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Binding;
use k8s_openapi::api::policy::v1::Eviction;
use serde_json::{Map, Value, json};

use super::Kind;
use super::schemas::{Schemas, gvk};
use crate::registry::Subresource;

/// Content types of patches that are described. Strategic merge patches work too, but to say so here would make kubectl compute them from
/// this document, which has no merge keys, instead of from its own types.
const PATCH_TYPES: [&str; 3] = ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];

/// One operation's making.
struct Operation<'a> {
    kind: &'a Kind,
    /// `get`, `list`, `post`, `put`, `patch`, `delete`, `deletecollection`, as `x-kubernetes-action` has it.
    action: &'static str,
    subresource: &'a str,
    gvk: Value,
    body: Option<Value>,
    answer: Value,
}

pub(super) fn add(paths: &mut Map<String, Value>, schemas: &mut Schemas, kind: &Kind) {
    let root = if kind.group.is_empty() { format!("/api/{}", kind.version) } else { format!("/apis/{}/{}", kind.group, kind.version) };
    let collection = if kind.namespaced { format!("{root}/namespaces/{{namespace}}/{}", kind.plural) } else { format!("{root}/{}", kind.plural) };
    let one = format!("{collection}/{{name}}");
    let (object, list) = (schemas.kind(kind), schemas.list(kind));
    let (status, options, patch) = (schemas.status(), schemas.delete_options(), schemas.patch());
    let operation = |action, body, answer: &Value| Operation {
        kind,
        action,
        subresource: "",
        gvk: gvk(kind.group, kind.version, kind.kind),
        body,
        answer: answer.clone(),
    };
    let has = |verb: &str| kind.verbs.contains(&verb);
    let mut put = |path: &str, method: &str, operation: Operation<'_>| insert(paths, path, method, &operation);
    if has("list") {
        put(&collection, "get", operation("list", None, &list));
        if kind.namespaced {
            put(&format!("{root}/{}", kind.plural), "get", operation("list", None, &list));
        }
    }
    if has("create") {
        put(&collection, "post", operation("post", Some(object.clone()), &object));
    }
    if has("deletecollection") {
        put(&collection, "delete", operation("deletecollection", Some(options.clone()), &status));
    }
    if has("get") {
        put(&one, "get", operation("get", None, &object));
    }
    if has("update") {
        put(&one, "put", operation("put", Some(object.clone()), &object));
    }
    if has("patch") {
        put(&one, "patch", operation("patch", Some(patch.clone()), &object));
    }
    if has("delete") {
        put(&one, "delete", operation("delete", Some(options), &status));
    }
    for sub in kind.subresources {
        subresource(paths, schemas, kind, sub, &one, &object, &patch);
    }
}

fn subresource(paths: &mut Map<String, Value>, schemas: &mut Schemas, kind: &Kind, sub: &Subresource, one: &str, parent: &Value, patch: &Value) {
    let body = match sub.kind {
        "Scale" => schemas.of::<Scale>(),
        "Binding" => schemas.of::<Binding>(),
        "Eviction" => schemas.of::<Eviction>(),
        "TokenRequest" => schemas.of::<TokenRequest>(),
        _ if matches!(sub.name, "exec" | "attach" | "portforward" | "proxy" | "log") => json!({"type": "string"}),
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
        let operation = Operation { kind, action, subresource: sub.name, gvk: gvk.clone(), body: sent, answer: body.clone() };
        insert(paths, &format!("{one}/{}", sub.name), method, &operation);
    }
}

fn insert(paths: &mut Map<String, Value>, path: &str, method: &str, operation: &Operation<'_>) {
    let item = paths.entry(path.to_owned()).or_insert_with(|| json!({"parameters": path_parameters(path)}));
    item[method] = operation.describe(path);
}

fn path_parameters(path: &str) -> Vec<Value> {
    let parameter = |name: &str, text: &str| json!({"name": name, "in": "path", "description": text, "required": true, "schema": {"type": "string", "uniqueItems": true}});
    let mut parameters = vec![query("pretty", "string", "If 'true', then the output is pretty printed.")];
    if path.contains("{name}") {
        parameters.push(parameter("name", "name of the object"));
    }
    if path.contains("{namespace}") {
        parameters.push(parameter("namespace", "object name and auth scope, such as for teams and projects"));
    }
    parameters
}

fn query(name: &str, kind: &str, text: &str) -> Value {
    json!({"name": name, "in": "query", "description": text, "schema": {"type": kind, "uniqueItems": true}})
}

impl Operation<'_> {
    fn describe(&self, path: &str) -> Value {
        let mut value = json!({
            "tags": [self.tag()],
            "description": self.description(),
            "operationId": self.id(path),
            "parameters": self.parameters(),
            "responses": {
                "200": {"description": "OK", "content": {"application/json": {"schema": self.answer}, "application/yaml": {"schema": self.answer}}},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": self.gvk,
        });
        if let Some(body) = &self.body {
            let types: &[&str] = if self.action == "patch" { &PATCH_TYPES } else { &["*/*"] };
            let content: Map<String, Value> = types.iter().map(|t| ((*t).to_owned(), json!({"schema": body}))).collect();
            let required = !self.action.starts_with("delete");
            value["requestBody"] = if required { json!({"content": content, "required": true}) } else { json!({"content": content}) };
        }
        value
    }

    fn parameters(&self) -> Vec<Value> {
        let dry_run = || query("dryRun", "string", "When present, indicates that modifications should not be persisted. Valid values are: All");
        let writing = || {
            vec![
                dry_run(),
                query("fieldManager", "string", "fieldManager is a name associated with the actor or entity that is making these changes."),
                query(
                    "fieldValidation",
                    "string",
                    "fieldValidation instructs the server on how to handle objects in the request containing unknown or duplicate fields. Valid values are: Ignore, Warn, Strict",
                ),
            ]
        };
        let selecting = || {
            vec![
                query("allowWatchBookmarks", "boolean", "allowWatchBookmarks requests watch events with type \"BOOKMARK\"."),
                query("continue", "string", "The continue option should be set when retrieving more results from the server."),
                query("fieldSelector", "string", "A selector to restrict the list of returned objects by their fields. Defaults to everything."),
                query("labelSelector", "string", "A selector to restrict the list of returned objects by their labels. Defaults to everything."),
                query("limit", "integer", "limit is a maximum number of responses to return for a list call."),
                query("resourceVersion", "string", "resourceVersion sets a constraint on what resource versions a request may be served from."),
                query("resourceVersionMatch", "string", "resourceVersionMatch determines how resourceVersion is applied to list calls."),
                query("sendInitialEvents", "boolean", "`sendInitialEvents=true` may be set together with `watch=true`."),
                query("timeoutSeconds", "integer", "Timeout for the list/watch call."),
                query(
                    "watch",
                    "boolean",
                    "Watch for changes to the described resources and return them as a stream of add, update, and remove notifications.",
                ),
            ]
        };
        let deleting = || {
            vec![
                dry_run(),
                query("gracePeriodSeconds", "integer", "The duration in seconds before the object should be deleted."),
                query("propagationPolicy", "string", "Whether and how garbage collection will be performed."),
            ]
        };
        match self.action {
            "list" => selecting(),
            "post" | "put" => writing(),
            "patch" => [writing(), vec![query("force", "boolean", "Force is going to \"force\" Apply requests.")]].concat(),
            "delete" => deleting(),
            "deletecollection" => [selecting(), deleting()].concat(),
            _ => Vec::new(),
        }
    }

    /// `core_v1`, `apps_v1`
    fn tag(&self) -> String {
        let group = self.kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
        format!("{group}_{}", self.kind.version)
    }

    fn description(&self) -> String {
        let kind = self.kind.kind;
        let of = if self.subresource.is_empty() { String::new() } else { format!("{} of ", self.subresource) };
        match self.action {
            "list" => format!("list or watch objects of kind {kind}"),
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
        let upper = |text: &str| {
            let mut chars = text.chars();
            chars.next().map(|c| c.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
        };
        let group = upper(self.kind.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core"));
        let scope = if path.contains("{namespace}") { "Namespaced" } else { "" };
        let across = if self.action == "list" && self.kind.namespaced && scope.is_empty() { "ForAllNamespaces" } else { "" };
        let (verb, collection) = match self.action {
            "get" => ("read", ""),
            "post" => ("create", ""),
            "put" => ("replace", ""),
            "deletecollection" => ("delete", "Collection"),
            other => (other, ""),
        };
        format!("{verb}{group}{}{collection}{scope}{}{}{across}", upper(self.kind.version), self.kind.kind, upper(self.subresource))
    }
}
