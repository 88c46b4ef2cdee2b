//! Warnings about kinds that are on their way out (`k8s.io/apiserver/pkg/endpoints/deprecation`).
//!
//! Owns the texts. A custom kind's is in its definition.

use super::route::Route;

/// Group, version, plural, and what is said of it.
const DEPRECATED: [(&str, &str, &str, &str); 2] = [
    ("", "v1", "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ("", "v1", "endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
];

/// What a client is to be told of the kind that it uses.
pub fn warning(route: Route) -> Option<&'static str> {
    let (group, version, plural) = match route {
        Route::Stored(row, _) => (row.group, row.version, row.plural),
        Route::Virtual(row) => (row.group, row.version, row.plural),
        Route::View(_) | Route::Path | Route::Unknown => return None,
    };
    DEPRECATED.iter().find(|d| (d.0, d.1, d.2) == (group, version, plural)).map(|d| d.3)
}
