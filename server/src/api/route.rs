//! Which part of the server answers a request: a stored kind, a virtual one, or a path of its own. Found once, from the parsed request line.

use super::metrics::Labels;
use super::request_info::RequestInfo;
use super::reviews::{VIRTUAL, Virtual};
use super::views::View;
use crate::registry::{RESOURCES, Resource, Subresource};

/// What answers a request.
#[derive(Clone, Copy)]
pub enum Route {
    /// A stored kind, or one of its subresources.
    Stored(&'static Resource, Option<&'static Subresource>),
    /// A kind that is answered and never stored.
    Virtual(&'static Virtual),
    /// Another version of a stored kind.
    View(&'static View),
    /// A path that is about no resource.
    Path,
    /// A resource that is not served.
    Unknown,
}

impl Route {
    /// Finds it.
    pub fn of(info: &RequestInfo) -> Self {
        if !info.is_resource {
            return Route::Path;
        }
        if let Some((view, row)) = View::find(info).and_then(|view| Some((view, view.row()?))) {
            let part = info.subresource.is_empty() || view.subresources.iter().any(|s| s.name == info.subresource) && info.rest.len() <= 1;
            let served = row.namespaced && (!info.namespace.is_empty() || across(info)) && part;
            return if served { Route::View(view) } else { Route::Unknown };
        }
        let Some(row) = RESOURCES.find(&info.group, &info.version, &info.resource) else {
            let found = VIRTUAL.iter().find(|v| v.group == info.group && v.version == info.version && v.plural == info.resource);
            return found.filter(|_| info.subresource.is_empty()).map_or(Route::Unknown, Route::Virtual);
        };
        // Requests in a namespace for a kind that has none, and the other way round for single objects, are served by no path.
        let scoped = if row.namespaced { !info.namespace.is_empty() || across(info) } else { info.namespace.is_empty() || is_a_namespace(row, info) };
        // The deprecated `/watch/` reads objects, never what is below one: that would be authorized as a watch.
        if !scoped || info.verb == "watch" && !info.subresource.is_empty() {
            return Route::Unknown;
        }
        if info.subresource.is_empty() {
            return if info.rest.len() > 1 { Route::Unknown } else { Route::Stored(row, None) };
        }
        match row.subresource(&info.subresource) {
            Some(sub) if sub.name == "proxy" || info.rest.len() <= 1 => Route::Stored(row, Some(sub)),
            _ => Route::Unknown,
        }
    }

    /// What the request is counted under.
    pub fn labels(self, info: &RequestInfo) -> Labels {
        let (group, version, resource, subresource) = match self {
            Route::Stored(row, sub) => (row.group, row.version, row.plural, sub.map_or("", |s| s.name)),
            Route::Virtual(row) => (row.group, row.version, row.plural, ""),
            Route::View(view) => (view.group, view.version, view.stored.2, ""),
            Route::Path | Route::Unknown => ("", "", "", ""),
        };
        let scope = match self {
            Route::Path | Route::Unknown => "",
            _ if !info.name.is_empty() && !matches!(info.verb, "list" | "watch") => "resource",
            _ if info.namespace.is_empty() => "cluster",
            _ => "namespace",
        };
        let verb = match (info.verb, subresource) {
            (_, "exec" | "attach" | "portforward" | "proxy" | "log") => "CONNECT",
            ("get" | "head", _) => "GET",
            ("list", _) => "LIST",
            ("watch", _) => "WATCH",
            ("create" | "post", _) => "POST",
            ("update" | "put", _) => "PUT",
            ("patch", _) => "PATCH",
            ("delete", _) => "DELETE",
            ("deletecollection", _) => "DELETECOLLECTION",
            _ => "other",
        };
        Labels { verb, group, version, resource, subresource, scope, dry_run: info.param("dryRun").is_some() }
    }
}

/// Whether a request is about the namespace that its path names, `/namespaces/a` and not `/namespaces/a/namespaces/b`: that would be
/// authorized by the roles of the one and done to the other.
fn is_a_namespace(row: &Resource, info: &RequestInfo) -> bool {
    row.plural == "namespaces" && info.namespace == info.name && !matches!(info.verb, "create" | "list" | "deletecollection")
}

/// Whether a request may leave the namespace out: it reads, or answers, for all of them.
fn across(info: &RequestInfo) -> bool {
    matches!(info.verb, "list" | "watch") || info.verb == "get" && info.name.is_empty()
}
