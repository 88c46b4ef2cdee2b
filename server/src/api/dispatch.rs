//! From a filtered request to whatever answers it. Owns no behaviour: one line a route.

use http::{Method, StatusCode};
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::json;
use shared::status::{ApiError, GroupResource};

use super::chain::Call;
use super::route::Route;
use super::{Body, Response, deprecation, discovery, extensions, health, openapi, respond, reviews, subresources, verbs, version, views};
use crate::registry::RESOURCES;
use crate::registry::store::from_json;

/// Answers a request that has passed every filter.
///
/// # Errors
/// Whatever the handler says.
pub async fn dispatch(call: &Call<'_>, route: Route, body: Body) -> Result<Response, ApiError> {
    let mut answer = match route {
        Route::Stored(row, sub) => {
            let definition = extensions::permit(call, row)?;
            let answer = match sub {
                None => verbs::handle(call, row, body).await,
                Some(sub) => subresources::handle(call, row, sub, body).await,
            };
            answer.map(|mut response| {
                if let Some(text) = definition.as_ref().and_then(|d| d.deprecation.as_ref()) {
                    respond::add_warnings(response.headers_mut(), std::slice::from_ref(text));
                }
                response
            })
        }
        Route::Virtual(row) => reviews::handle(call, row, body).await,
        Route::View(view) => views::handle(call, view, body).await,
        Route::Path => path(call).await,
        Route::Unknown => Err(ApiError::unknown_path()),
    };
    if let (Ok(response), Some(text)) = (&mut answer, deprecation::warning(route)) {
        respond::add_warnings(response.headers_mut(), &[text.to_owned()]);
    }
    answer
}

/// Paths that are about no resource. All are read only.
async fn path(call: &Call<'_>) -> Result<Response, ApiError> {
    if !matches!(call.parts.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_supported(GroupResource { group: "", resource: &call.info.path }, call.info.verb));
    }
    let (server, info, headers) = (call.server, call.info, &call.parts.headers);
    if info.path.trim_end_matches('/') == "/api"
        && let Some(response) = server_address(call).and_then(|address| discovery::core_versions(headers, &address))
    {
        return Ok(response);
    }
    if let Some(answer) = discovery::answer(&info.path, headers) {
        return answer;
    }
    if let Some(answer) = health::answer(server, info).await {
        return answer;
    }
    if let Some(answer) = openapi::answer(info, headers).await {
        return answer;
    }
    let tokens = || server.tokens.as_ref().ok_or_else(ApiError::unknown_path);
    match info.path.as_str() {
        "/" => Ok(respond::json(StatusCode::OK, &json!({"paths": root_paths()}))),
        "/version" | "/version/" => Ok(respond::json(StatusCode::OK, &version::info())),
        "/metrics" => Ok(respond::with_type(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", super::metrics::page(server).into())),
        "/.well-known/openid-configuration" => Ok(respond::json(StatusCode::OK, &tokens()?.openid_configuration())),
        "/openid/v1/jwks" => Ok(respond::with_type(StatusCode::OK, "application/jwk-set+json", tokens()?.jwks().to_string().into())),
        _ => Err(ApiError::unknown_path()),
    }
}

/// Where the server says that it is, in the endpoints of the `kubernetes` service.
fn server_address(call: &Call<'_>) -> Option<String> {
    let entry = call.server.store.cache().get(RESOURCES.of::<Endpoints>()?, "default", "kubernetes").ok()??;
    let endpoints: Endpoints = from_json(&entry.bytes, None).ok()?;
    let subset = endpoints.subsets?.into_iter().next()?;
    let (address, port) = (subset.addresses?.into_iter().next()?.ip, subset.ports?.into_iter().next()?.port);
    Some(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
}

fn root_paths() -> Vec<String> {
    const FIXED: [&str; 10] = [
        "/.well-known/openid-configuration",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
        "/",
    ];
    let mut paths = discovery::paths();
    paths.extend(FIXED.into_iter().filter(|p| *p != "/").map(str::to_owned));
    paths.sort_unstable();
    paths
}
