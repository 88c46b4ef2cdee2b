//! ValidatingWebhookConfigurations and MutatingWebhookConfigurations (`pkg/apis/admissionregistration/v1/defaults.go`,
//! `pkg/apis/admissionregistration/validation/validation.go`).

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use super::conditions::match_conditions;
use crate::registry::validation::{dns1123_subdomain, one_of, required_one_of, selectors};
use crate::registry::{Column, PrintContext, Strategy, print};
use shared::cel::admission::Scope;

/// See the module.
pub struct ValidatingWebhookConfigurations;
/// See the module.
pub struct MutatingWebhookConfigurations;

const COLUMNS: &[Column] = &[Column::name(), Column::new("Webhooks").of("integer"), print::AGE];

/// The fields that both sorts of webhook share.
struct Webhook<'a> {
    name: &'a str,
    client: &'a WebhookClientConfig,
    rules: &'a [RuleWithOperations],
    failure_policy: Option<&'a str>,
    match_policy: Option<&'a str>,
    side_effects: &'a str,
    timeout_seconds: Option<i32>,
    review_versions: &'a [String],
    conditions: &'a [MatchCondition],
    selectors: [(&'static str, Option<&'a LabelSelector>); 2],
}

impl Strategy for ValidatingWebhookConfigurations {
    type Object = ValidatingWebhookConfiguration;
    const PLURAL: &'static str = "validatingwebhookconfigurations";
    const SINGULAR: &'static str = "validatingwebhookconfiguration";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = COLUMNS;

    fn default(object: &mut ValidatingWebhookConfiguration) {
        for hook in object.webhooks.iter_mut().flatten() {
            hook.failure_policy.get_or_insert_with(|| "Fail".into());
            hook.match_policy.get_or_insert_with(|| "Equivalent".into());
            hook.namespace_selector.get_or_insert_default();
            hook.object_selector.get_or_insert_default();
            hook.timeout_seconds.get_or_insert(10);
            default_client(&mut hook.client_config, hook.rules.as_mut());
        }
    }

    fn validate(object: &ValidatingWebhookConfiguration) -> ErrorList {
        let hooks = object.webhooks.iter().flatten().map(|h| Webhook {
            name: &h.name,
            client: &h.client_config,
            rules: h.rules.as_deref().unwrap_or_default(),
            failure_policy: h.failure_policy.as_deref(),
            match_policy: h.match_policy.as_deref(),
            side_effects: &h.side_effects,
            timeout_seconds: h.timeout_seconds,
            review_versions: &h.admission_review_versions,
            conditions: h.match_conditions.as_deref().unwrap_or_default(),
            selectors: [("namespaceSelector", h.namespace_selector.as_ref()), ("objectSelector", h.object_selector.as_ref())],
        });
        validate(hooks)
    }

    fn spec_changed(new: &ValidatingWebhookConfiguration, old: &ValidatingWebhookConfiguration) -> bool {
        new.webhooks != old.webhooks
    }

    fn cells(object: &ValidatingWebhookConfiguration, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), object.webhooks.iter().flatten().count().into(), print::age(&object.metadata, context)]
    }
}

impl Strategy for MutatingWebhookConfigurations {
    type Object = MutatingWebhookConfiguration;
    const PLURAL: &'static str = "mutatingwebhookconfigurations";
    const SINGULAR: &'static str = "mutatingwebhookconfiguration";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = COLUMNS;

    fn default(object: &mut MutatingWebhookConfiguration) {
        for hook in object.webhooks.iter_mut().flatten() {
            hook.failure_policy.get_or_insert_with(|| "Fail".into());
            hook.match_policy.get_or_insert_with(|| "Equivalent".into());
            hook.namespace_selector.get_or_insert_default();
            hook.object_selector.get_or_insert_default();
            hook.timeout_seconds.get_or_insert(10);
            hook.reinvocation_policy.get_or_insert_with(|| "Never".into());
            default_client(&mut hook.client_config, hook.rules.as_mut());
        }
    }

    fn validate(object: &MutatingWebhookConfiguration) -> ErrorList {
        let hooks = object.webhooks.iter().flatten().map(|h| Webhook {
            name: &h.name,
            client: &h.client_config,
            rules: h.rules.as_deref().unwrap_or_default(),
            failure_policy: h.failure_policy.as_deref(),
            match_policy: h.match_policy.as_deref(),
            side_effects: &h.side_effects,
            timeout_seconds: h.timeout_seconds,
            review_versions: &h.admission_review_versions,
            conditions: h.match_conditions.as_deref().unwrap_or_default(),
            selectors: [("namespaceSelector", h.namespace_selector.as_ref()), ("objectSelector", h.object_selector.as_ref())],
        });
        let mut errors = validate(hooks);
        for (index, hook) in object.webhooks.iter().flatten().enumerate() {
            let path = Path::new("webhooks").index(index).child("reinvocationPolicy");
            one_of(&path, hook.reinvocation_policy.as_deref(), &["IfNeeded", "Never"], &mut errors);
        }
        errors
    }

    fn spec_changed(new: &MutatingWebhookConfiguration, old: &MutatingWebhookConfiguration) -> bool {
        new.webhooks != old.webhooks
    }

    fn cells(object: &MutatingWebhookConfiguration, context: &PrintContext) -> Vec<Value> {
        vec![print::name(&object.metadata), object.webhooks.iter().flatten().count().into(), print::age(&object.metadata, context)]
    }
}

fn default_client(client: &mut WebhookClientConfig, rules: Option<&mut Vec<RuleWithOperations>>) {
    if let Some(service) = &mut client.service {
        service.port.get_or_insert(443);
    }
    for rule in rules.into_iter().flatten() {
        rule.scope.get_or_insert_with(|| "*".into());
    }
}

fn validate<'a>(hooks: impl Iterator<Item = Webhook<'a>>) -> ErrorList {
    let mut errors = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for (index, hook) in hooks.enumerate() {
        let path = Path::new("webhooks").index(index);
        webhook(&path, &hook, &mut errors);
        if !names.insert(hook.name.to_owned()) {
            errors.push(Error::duplicate(&path.child("name"), hook.name));
        }
    }
    errors
}

fn webhook(path: &Path, hook: &Webhook<'_>, errors: &mut ErrorList) {
    let name = path.child("name");
    if hook.name.is_empty() {
        errors.push(Error::required(&name, ""));
    } else if !dns1123_subdomain(hook.name).is_empty() {
        dns1123_subdomain(hook.name).iter().for_each(|m| errors.push(Error::invalid(&name, hook.name, m)));
    } else if hook.name.split('.').count() < 3 {
        errors.push(Error::invalid(&name, hook.name, "should be a domain with at least three segments separated by dots"));
    }
    let versions = path.child("admissionReviewVersions");
    let known = ["v1", "v1beta1"];
    if hook.review_versions.is_empty() {
        errors.push(Error::required(&versions, &format!("must specify one of {}", known.join(", "))));
    } else if !hook.review_versions.iter().any(|v| known.contains(&v.as_str())) {
        let detail = format!("must include at least one of {}", known.join(", "));
        errors.push(Error::invalid(&versions, hook.review_versions, &detail));
    }
    for (index, item) in hook.rules.iter().enumerate() {
        rule(&path.child("rules").index(index), item, errors);
    }
    one_of(&path.child("failurePolicy"), hook.failure_policy, &["Fail", "Ignore"], errors);
    one_of(&path.child("matchPolicy"), hook.match_policy, &["Equivalent", "Exact"], errors);
    required_one_of(&path.child("sideEffects"), Some(hook.side_effects), &["None", "NoneOnDryRun"], errors);
    if let Some(seconds) = hook.timeout_seconds.filter(|s| !(1..=30).contains(s)) {
        errors.push(Error::invalid(&path.child("timeoutSeconds"), seconds, "the timeout value must be between 1 and 30 seconds"));
    }
    for (field, selector) in hook.selectors {
        selectors::label_selector(&path.child(field), selector, errors);
    }
    client(&path.child("clientConfig"), hook.client, errors);
    let scope = Scope { authorizer: true, ..Scope::default() };
    match_conditions(&path.child("matchConditions"), &scope, hook.conditions, errors);
}

fn client(path: &Path, client: &WebhookClientConfig, errors: &mut ErrorList) {
    match (&client.url, &client.service) {
        (None, None) | (Some(_), Some(_)) => errors.push(Error::required(path, "exactly one of url or service is required")),
        (Some(url), None) => {
            if !url.starts_with("https://") {
                let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
                let detail = format!("'https' is the only allowed URL scheme; desired format: https://host[/path], got scheme {scheme:?}");
                errors.push(Error::invalid(&path.child("url"), url, &detail));
            }
        }
        (None, Some(service)) => {
            let path = path.child("service");
            for (field, value) in [("name", &service.name), ("namespace", &service.namespace)] {
                if value.is_empty() {
                    errors.push(Error::required(&path.child(field), &format!("service {field} is required")));
                }
            }
            if let Some(port) = service.port.filter(|p| !(1..=65535).contains(p)) {
                let detail = "port is not valid: must be between 1 and 65535, inclusive";
                errors.push(Error::invalid(&path.child("port"), port, detail));
            }
        }
    }
}

/// A rule names groups, versions, resources and operations; a star stands alone.
pub(super) fn rule(path: &Path, rule: &RuleWithOperations, errors: &mut ErrorList) {
    rule_lists(path, &rule.operations, &rule.api_groups, &rule.api_versions, &rule.resources, errors);
    one_of(&path.child("scope"), rule.scope.as_deref(), &["*", "Cluster", "Namespaced"], errors);
}

pub(super) fn rule_lists(
    path: &Path,
    operations: &Option<Vec<String>>,
    groups: &Option<Vec<String>>,
    versions: &Option<Vec<String>>,
    resources: &Option<Vec<String>>,
    errors: &mut ErrorList,
) {
    let star = "if '*' is present, must not specify other";
    for (field, list, others) in [
        ("operations", operations, "operations"),
        ("apiGroups", groups, "API groups"),
        ("apiVersions", versions, "API versions"),
        ("resources", resources, "resources without subresources"),
    ] {
        let list = list.as_deref().unwrap_or_default();
        let path = path.child(field);
        if list.is_empty() {
            errors.push(Error::required(&path, ""));
        }
        if field != "resources" && list.len() > 1 && list.iter().any(|item| item == "*") {
            errors.push(Error::invalid(&path, list, &format!("{star} {others}")));
        }
        for (index, item) in list.iter().enumerate() {
            if field == "operations" {
                one_of(&path.index(index), Some(item), &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"], errors);
            } else if item.is_empty() && field != "apiGroups" {
                errors.push(Error::required(&path.index(index), ""));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn configuration(patch: Value) -> Value {
        let hook = with(
            json!({
                "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"name": "s", "namespace": "n"}},
                "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]
            }),
            patch,
        );
        json!({"metadata": {"name": "c"}, "webhooks": [hook]})
    }

    #[test]
    fn defaults_are_upstreams() {
        let hook = defaulted::<MutatingWebhookConfigurations>(configuration(json!({})))["webhooks"][0].clone();
        for (field, value) in [
            ("failurePolicy", json!("Fail")),
            ("matchPolicy", json!("Equivalent")),
            ("namespaceSelector", json!({})),
            ("objectSelector", json!({})),
            ("timeoutSeconds", json!(10)),
            ("reinvocationPolicy", json!("Never")),
        ] {
            assert_eq!(hook[field], value, "{field}");
        }
        assert_eq!((&hook["rules"][0]["scope"], &hook["clientConfig"]["service"]["port"]), (&json!("*"), &json!(443)));
    }

    #[test]
    fn each_rule_names_its_field() {
        let of = |patch: Value| errors::<ValidatingWebhookConfigurations>(configuration(patch));
        assert!(of(json!({})).is_empty());
        for (patch, expected) in [
            (json!({"name": "a"}), "webhooks[0].name: Invalid value: \"a\": should be a domain with at least three segments separated by dots"),
            (json!({"clientConfig": {"service": null}}), "webhooks[0].clientConfig: Required value: exactly one of url or service is required"),
            (json!({"timeoutSeconds": 60}), "webhooks[0].timeoutSeconds: Invalid value: 60: the timeout value must be between 1 and 30 seconds"),
            (json!({"sideEffects": "Some"}), "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""),
        ] {
            assert_eq!(of(patch), [expected]);
        }
        assert_eq!(cells::<ValidatingWebhookConfigurations>(configuration(json!({})))[1], 1);
    }
}
