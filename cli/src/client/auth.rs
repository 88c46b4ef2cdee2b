//! Credentials: certificates, tokens, token files, basic, exec plugins, impersonation.

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use reqwest::header::HeaderMap;

use super::kubeconfig::{Secret, User};
use super::{Settings, bearer, exec_plugin, header};

/// What identifies the user to the server.
#[derive(Default)]
pub(super) struct Credentials {
    /// Client certificate and key, PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub token: Option<String>,
}

pub(super) async fn credentials(settings: &Settings) -> Result<Credentials> {
    let user = &settings.user;
    let mut credentials =
        Credentials { certificate: certificate(user, &settings.user_name)?, token: Secret::text(&user.token).map(ToOwned::to_owned) };
    if let Some(file) = user.token_file.as_ref().filter(|f| !f.is_empty()) {
        // A token file wins over a token: it is the one that gets rotated.
        let text = std::fs::read_to_string(file).map_err(|e| anyhow!("failed to read token file {file:?}: {e}"))?;
        credentials.token = Some(text.trim().to_owned());
    }
    if let Some(plugin) = &user.exec
        && credentials.token.is_none()
    {
        let given = exec_plugin::run(plugin, settings).await?;
        credentials.token = given.token.or(credentials.token);
        credentials.certificate = given.certificate.or(credentials.certificate);
    } else if let Some(provider) = &user.auth_provider
        && credentials.token.is_none()
    {
        bail!("no Auth Provider found for name {:?}: auth-provider entries were removed upstream, use an exec plugin", provider.name);
    }
    Ok(credentials)
}

fn certificate(user: &User, of: &str) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
    let decode =
        |field: &str, data: &str| base64::engine::general_purpose::STANDARD.decode(data.trim()).with_context(|| format!("{field} is not base64"));
    let read = |field: &str, file: &str| std::fs::read(file).map_err(|e| super::config::unreadable(field, file, of, &e));
    let certificate = match (&user.client_certificate_data, &user.client_certificate) {
        (Some(data), _) if !data.is_empty() => Some(decode("client-certificate-data", data)?),
        (_, Some(file)) if !file.is_empty() => Some(read("client-cert", file)?),
        _ => None,
    };
    let key = match (Secret::text(&user.client_key_data), &user.client_key) {
        (Some(data), _) => Some(decode("client-key-data", data)?),
        (_, Some(file)) if !file.is_empty() => Some(read("client-key", file)?),
        _ => None,
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => bail!("client-key-data or client-key must be specified to use the clientCert authentication method."),
        (None, Some(_)) => bail!("client-certificate-data or client-certificate must be specified to use the clientCert authentication method."),
    }
}

pub(super) fn headers(settings: &Settings, credentials: &Credentials) -> Result<HeaderMap> {
    let user = &settings.user;
    let mut headers = HeaderMap::new();
    if let Some(token) = &credentials.token {
        let (name, value) = bearer(token)?;
        headers.insert(name, value);
    } else if let Some(name) = user.username.as_ref().filter(|n| !n.is_empty()) {
        let pair = format!("{name}:{}", Secret::text(&user.password).unwrap_or_default());
        let (name, mut value) = header("authorization", &format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let mut add = |name: &str, value: &str| -> Result<()> {
        let (name, value) = header(name, value)?;
        headers.append(name, value);
        Ok(())
    };
    if let Some(name) = user.impersonate.as_ref().filter(|n| !n.is_empty()) {
        add("Impersonate-User", name)?;
    }
    for group in &user.impersonate_groups {
        add("Impersonate-Group", group)?;
    }
    if let Some(uid) = user.impersonate_uid.as_ref().filter(|u| !u.is_empty()) {
        add("Impersonate-Uid", uid)?;
    }
    for (key, values) in &user.impersonate_extra {
        for value in values {
            add(&format!("Impersonate-Extra-{key}"), value)?;
        }
    }
    for (key, value) in &settings.impersonate_extra {
        add(&format!("Impersonate-Extra-{key}"), value)?;
    }
    Ok(headers)
}
