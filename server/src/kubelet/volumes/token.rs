//! Service account tokens in projected volumes: bound to the pod, renewed at 80 % of their lifetime (`pkg/kubelet/token`).
//!
//! Owns the tokens of one pod. Never logs them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::PostParams;
use kube::{Api, Client};

use crate::kubelet::pods::spec;

/// Lifetime that is asked for when the projection names none, in seconds.
const LIFETIME: i64 = 3600;
/// Oldest age of a token whatever its lifetime (upstream: 24 hours).
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// Time until another try after a renewal failed.
const RETRY: Duration = Duration::from_secs(60);

struct Token {
    text: String,
    renew_at: Instant,
}

/// Tokens by volume and source.
#[derive(Default)]
pub struct Tokens {
    tokens: HashMap<String, Token>,
}

impl Tokens {
    /// The token of a source, renewed if it is time. A token that cannot be renewed stays in use.
    pub async fn get(&mut self, client: &Client, pod: &Pod, key: &str, source: &ServiceAccountTokenProjection) -> Result<String, String> {
        let now = Instant::now();
        if let Some(token) = self.tokens.get(key).filter(|t| t.renew_at > now) {
            return Ok(token.text.clone());
        }
        match request(client, pod, source).await {
            Ok((text, lifetime)) => {
                let renew_at = now + (lifetime * 4 / 5).min(MAX_AGE);
                self.tokens.insert(key.to_owned(), Token { text: text.clone(), renew_at });
                Ok(text)
            }
            Err(error) => match self.tokens.get_mut(key) {
                Some(token) => {
                    tracing::warn!(pod = %spec::title(pod), %error, "service account token not renewed");
                    token.renew_at = now + RETRY;
                    Ok(token.text.clone())
                }
                None => Err(error),
            },
        }
    }

    /// Time until the first renewal; `None` without tokens.
    pub fn renew_in(&self) -> Option<Duration> {
        self.tokens.values().map(|t| t.renew_at.saturating_duration_since(Instant::now())).min()
    }
}

async fn request(client: &Client, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<(String, Duration), String> {
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
    let seconds = source.expiration_seconds.unwrap_or(LIFETIME);
    let bound = BoundObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let wanted = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: source.audience.clone().filter(|a| !a.is_empty()).map(|a| vec![a]),
            bound_object_ref: Some(bound),
            expiration_seconds: Some(seconds),
        }),
        ..TokenRequest::default()
    };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), spec::namespace(pod));
    let answer: TokenRequest = api
        .create_subresource("token", &account, &PostParams::default(), &wanted)
        .await
        .map_err(|e| format!("failed to fetch token: {}", super::claim::api_error(&e)))?;
    let status = answer.status.ok_or("the API server sent no token")?;
    let token = status.token.ok_or("the API server sent no token")?;
    let end = status.expiration_timestamp.map_or(0, |t| t.0.as_second());
    let left = end - k8s_openapi::jiff::Timestamp::now().as_second();
    Ok((token, Duration::from_secs(u64::try_from(left).unwrap_or(0))))
}
