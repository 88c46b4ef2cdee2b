//! Registry credentials from `imagePullSecrets` (`pkg/credentialprovider`).
//!
//! Pure: secrets in, matching credentials out. Never logs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::name;

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
}

/// Credentials whose registry matches the image, the most specific first.
pub fn for_image(secrets: &[Arc<Secret>], image: &str) -> Vec<AuthConfig> {
    let Some(full) = name::normalize(image) else { return Vec::new() };
    let mut found: Vec<(String, Entry)> = secrets.iter().flat_map(|s| entries(s)).filter(|(server, _)| matches(server, &full)).collect();
    found.sort_by_key(|(server, _)| std::cmp::Reverse(server.len()));
    found.into_iter().map(|(server, entry)| auth(server, entry)).collect()
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let data = secret.data.as_ref();
    let field = |key: &str| data.and_then(|d| d.get(key));
    let auths = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            field(".dockerconfigjson").and_then(|b| serde_json::from_slice::<DockerConfig>(&b.0).ok()).map(|c| c.auths)
        }
        Some("kubernetes.io/dockercfg") => field(".dockercfg").and_then(|b| serde_json::from_slice(&b.0).ok()),
        _ => None,
    };
    auths.unwrap_or_default().into_iter().collect()
}

/// Whether `docker.io/library/x:1` lies under a server entry such as `https://index.docker.io/v1/` or `reg.example/team`.
fn matches(server: &str, full: &str) -> bool {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    let bare = if bare == "index.docker.io" { "docker.io" } else { bare };
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let (image_host, image_path) = full.split_once('/').unwrap_or((full, ""));
    host_matches(host, image_host) && image_path.starts_with(path)
}

/// `*.example.com` matches one label.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<&str>, Vec<&str>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern.len() == host.len() && pattern.iter().zip(host).all(|(p, h)| *p == "*" || *p == h)
}

fn auth(server: String, entry: Entry) -> AuthConfig {
    let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    let (user, password) = decoded.split_once(':').unwrap_or_default();
    let or = |given: String, other: &str| if given.is_empty() { other.to_owned() } else { given };
    AuthConfig {
        username: or(entry.username, user),
        password: or(entry.password, password),
        identity_token: entry.identitytoken,
        server_address: server,
        ..AuthConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn registries_match_by_host_and_path() {
        for (server, image, expected) in [
            ("https://index.docker.io/v1/", "docker.io/library/busybox:1", true),
            ("reg.example", "reg.example/a/b:1", true),
            ("reg.example/a", "reg.example/a/b:1", true),
            ("reg.example/c", "reg.example/a/b:1", false),
            ("*.example", "reg.example/a:1", true),
            ("127.0.0.1:5000", "127.0.0.1:5000/a:1", true),
            ("other", "reg.example/a:1", false),
        ] {
            assert_eq!(matches(server, image), expected, "{server} {image}");
        }
    }

    #[test]
    fn the_auth_field_is_decoded() {
        let json = format!(r#"{{"auths":{{"reg.example":{{"auth":"{}"}}}}}}"#, STANDARD.encode("me:pass:word"));
        let secret = Secret {
            type_: Some("kubernetes.io/dockerconfigjson".into()),
            data: Some([(".dockerconfigjson".to_owned(), ByteString(json.into_bytes()))].into()),
            ..Secret::default()
        };
        let found = for_image(&[Arc::new(secret)], "reg.example/x:1");
        assert_eq!((found[0].username.as_str(), found[0].password.as_str()), ("me", "pass:word"));
    }
}
