//! Fills ClusterRoles that have an aggregation rule with the rules of those it selects
//! (`pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`).

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::PostParams;
use shared::selector::Selector;

use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, Error, synced};
use crate::informers::Informer;

/// Starts the controller.
pub fn start(ctx: Context) {
    let roles = ctx.informers.get::<ClusterRole>();
    let queue: Queue<Key> = Queue::new();
    let aggregating =
        |roles: &Informer<ClusterRole>| -> Vec<Key> { roles.list().iter().filter(|r| r.aggregation_rule.is_some()).map(|r| Key::of(&**r)).collect() };
    let all = roles.clone();
    queue.set_resync(ctx.config.resync, move || aggregating(&all));
    // Any role may be part of any other.
    let (all, into) = (roles.clone(), queue.clone());
    ctx.on(&roles, move |_| aggregating(&all).into_iter().for_each(|key| into.add(key)));
    let client = ctx.client.clone();
    ctx.work(&queue, 1, vec![synced(&roles)], move |key| {
        let (client, roles) = (client.clone(), roles.clone());
        async move {
            let Some(role) = roles.get("", &key.name) else { return Ok(()) };
            let Some(rules) = aggregate(&role, &roles.list().iter().map(|r| &**r).collect::<Vec<_>>())? else { return Ok(()) };
            if role.rules.clone().unwrap_or_default() == rules {
                return Ok(());
            }
            let mut changed = (*role).clone();
            changed.rules = Some(rules);
            found(Api::<ClusterRole>::all(client).replace(&key.name, &PostParams::default(), &changed).await)?;
            Ok(())
        }
    });
}

/// The rules of every role that is selected, in the order of names, each once; `None` if the role does not aggregate.
fn aggregate(role: &ClusterRole, all: &[&ClusterRole]) -> Result<Option<Vec<PolicyRule>>, Error> {
    let Some(rule) = &role.aggregation_rule else { return Ok(None) };
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in rule.cluster_role_selectors.iter().flatten() {
        let selector = Selector::from_label_selector(Some(selector)).map_err(|e| Error::Other(e.to_string()))?;
        let mut selected: Vec<_> = all.iter().filter(|r| r.metadata.name != role.metadata.name && selector.matches(&r.metadata.labels)).collect();
        selected.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        for rule in selected.into_iter().flat_map(|r| r.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    Ok(Some(rules))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn role(name: &str, labels: Value, aggregate: Value, resources: &[&str]) -> ClusterRole {
        let rules: Vec<Value> = resources.iter().map(|r| json!({ "verbs": ["get"], "resources": [r] })).collect();
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels }, "aggregationRule": aggregate, "rules": rules })).unwrap()
    }

    #[test]
    fn rules_of_selected_roles_are_gathered_once_each() {
        let rule = json!({ "clusterRoleSelectors": [{ "matchLabels": { "view": "true" } }, { "matchLabels": { "edit": "true" } }] });
        let view = role("view", json!({ "view": "true" }), rule, &["stale"]);
        let (b, a) = (
            role("b", json!({ "view": "true" }), Value::Null, &["pods", "services"]),
            role("a", json!({ "view": "true", "edit": "true" }), Value::Null, &["pods"]),
        );
        let other = role("c", json!({}), Value::Null, &["secrets"]);
        let rules = aggregate(&view, &[&view, &b, &a, &other]).unwrap().unwrap();
        assert_eq!(rules.iter().map(|r| r.resources.clone().unwrap().remove(0)).collect::<Vec<_>>(), ["pods", "services"]);
        assert!(aggregate(&other, &[&b]).unwrap().is_none());
    }
}
