//! Acting as someone else: the `Impersonate-*` headers, each attribute authorized on its own
//! (`k8s.io/apiserver/pkg/endpoints/filters/impersonation`).

use std::collections::BTreeMap;

use http::HeaderMap;
use shared::status::ApiError;

use super::Authorize;
use super::authz::{Access, forbidden};
use super::user::User;

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// The user that a request acts as: `None` when it asks for nobody else.
///
/// # Errors
/// 403 for an attribute the user may not take on, 400 for attributes without a user.
pub fn requested(authz: &dyn Authorize, user: &User, headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    if !headers.keys().any(|k| k.as_str().starts_with("impersonate-")) {
        return Ok(None);
    }
    let values = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.filter_map(|v| v.to_str().ok()).filter(|v| !v.is_empty()).map(str::to_owned).collect()
    };
    let one = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            extra.insert(unescape(key), values(name.as_str()));
        }
    }
    let target = User { name: one("impersonate-user"), uid: one("impersonate-uid"), groups: values("impersonate-group"), extra };
    if target.name.is_empty() {
        return Err(ApiError::bad_request("impersonation headers need Impersonate-User"));
    }
    for attribute in attributes(&target) {
        let decision = authz.authorize(user, &attribute);
        if !decision.allowed {
            return Err(forbidden(user, &attribute, &decision.reason));
        }
    }
    Ok(Some(complete(target)))
}

/// Extra keys arrive percent-encoded, because header names may not hold every character.
fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some(at) = rest.find('%') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        match rest.get(at + 1..at + 3).and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 3..];
            }
            None => {
                bytes.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).to_lowercase()
}

const AUTHENTICATION: &str = "authentication.k8s.io";

/// Each thing taken on, as the resource that must be allowed with the verb `impersonate`.
fn attributes(target: &User) -> Vec<Access<'_>> {
    let of = |group, resource, name| Access::resource("impersonate", group, resource, "", name);
    let mut all = vec![match service_account(&target.name) {
        Some((namespace, name)) => Access { namespace, ..of("", "serviceaccounts", name) },
        None => of("", "users", &target.name),
    }];
    all.extend(target.groups.iter().map(|group| of("", "groups", group)));
    for (key, values) in &target.extra {
        all.extend(values.iter().map(|value| Access { subresource: key, ..of(AUTHENTICATION, "userextras", value) }));
    }
    if !target.uid.is_empty() {
        all.push(of(AUTHENTICATION, "uids", &target.uid));
    }
    all
}

/// Namespace and name of `system:serviceaccount:NS:NAME`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':').filter(|(ns, name)| !ns.is_empty() && !name.is_empty())
}

/// Adds the groups that every such user has.
fn complete(mut target: User) -> User {
    if let Some((namespace, _)) = service_account(&target.name)
        && target.groups.is_empty()
    {
        target.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let everyone = if target.name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !target.in_group(everyone) {
        target.groups.push(everyone.into());
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::authz::Decision;
    use k8s_openapi::api::authorization::v1::SubjectRulesReviewStatus;

    /// Allows what its list names, as `resource/subresource:name`.
    struct Only(&'static [&'static str]);
    impl Authorize for Only {
        fn authorize(&self, _: &User, access: &Access<'_>) -> Decision {
            let asked = format!("{}/{}:{}", access.resource, access.subresource, access.name);
            Decision { allowed: self.0.contains(&asked.as_str()), reason: String::new() }
        }
        fn rules(&self, _: &User, _: &str) -> SubjectRulesReviewStatus {
            SubjectRulesReviewStatus::default()
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn every_attribute_must_be_allowed() {
        let me = User::new("me", &[]);
        let all = headers(&[
            ("impersonate-user", "you"),
            ("impersonate-group", "g1"),
            ("impersonate-group", "g2"),
            ("impersonate-extra-acme.com%2fteam", "x"),
            ("impersonate-uid", "7"),
        ]);
        let allowed = &["users/:you", "groups/:g1", "groups/:g2", "userextras/acme.com/team:x", "uids/:7"];
        let you = requested(&Only(allowed), &me, &all).unwrap().unwrap();
        assert_eq!((you.name.as_str(), you.uid.as_str(), you.groups.join(",")), ("you", "7", "g1,g2,system:authenticated".into()));
        assert_eq!(you.extra["acme.com/team"], ["x"]);
        for missing in 0..allowed.len() {
            let mut rest = allowed.to_vec();
            rest.remove(missing);
            assert_eq!(requested(&Only(rest.leak()), &me, &all).unwrap_err().code(), 403);
        }
    }

    #[test]
    fn a_service_account_gets_its_groups_and_is_authorized_as_one() {
        let sa = headers(&[("impersonate-user", "system:serviceaccount:ns:bot")]);
        let user = requested(&Only(&["serviceaccounts/:bot"]), &User::new("me", &[]), &sa).unwrap().unwrap();
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
        let error = requested(&Only(&[]), &User::new("me", &[]), &sa).unwrap_err();
        let message = "serviceaccounts \"bot\" is forbidden: User \"me\" cannot impersonate resource \"serviceaccounts\" in API group \"\" in the namespace \"ns\"";
        assert_eq!(error.to_string(), message);
    }

    #[test]
    fn nobody_is_impersonated_without_headers_and_groups_need_a_user() {
        assert_eq!(requested(&Only(&[]), &User::new("me", &[]), &headers(&[("accept", "x")])).unwrap(), None);
        assert_eq!(requested(&Only(&[]), &User::new("me", &[]), &headers(&[("impersonate-group", "system:masters")])).unwrap_err().code(), 400);
    }
}
