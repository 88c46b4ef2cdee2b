//! Whether a request fits into every quota that concerns it, and what each would then have used
//! (`k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go`, `CheckRequest`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::jiff::Timestamp;
use shared::quantity::Quantity;

use super::evaluate::{self, Item};
use super::{Amounts, add, amounts, mask, pretty, to_wire};

/// A write that may cost something.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// API group of the resource.
    pub group: &'a str,
    /// Its plural.
    pub plural: &'a str,
    /// The object to be stored.
    pub item: Item<'a>,
    /// The object as it is stored, for an update.
    pub old: Option<Item<'a>>,
    /// The time of the request.
    pub now: Timestamp,
}

/// Charges a request: each quota whose use changes, by its index, with its new status.
///
/// # Errors
/// Why it is forbidden, in upstream's words.
pub fn charge(quotas: &[&ResourceQuota], request: &Request<'_>) -> Result<Vec<(usize, ResourceQuota)>, String> {
    let Request { group, plural, item, old, now } = *request;
    let mut interesting = Vec::new();
    for (index, quota) in quotas.iter().enumerate() {
        if !evaluate::matches(quota, group, plural, item) {
            continue;
        }
        let name = quota.metadata.name.as_deref().unwrap_or_default();
        let status = quota.status.clone().unwrap_or_default();
        let (hard, used) = (amounts(status.hard.as_ref()), amounts(status.used.as_ref()));
        let restricted = evaluate::matching_resources(group, plural, hard.keys());
        if let Some(missing) = evaluate::unspecified(item, &restricted) {
            return Err(format!("failed quota: {name}: must specify {missing}"));
        }
        if restricted.iter().any(|r| !used.contains_key(r)) {
            return Err(format!("status unknown for quota: {name}, resources: {}", join(&restricted)));
        }
        interesting.push((index, hard, used));
    }
    if interesting.is_empty() {
        return Ok(Vec::new());
    }
    let cost = evaluate::usage(group, plural, item, now);
    let negative: BTreeSet<String> = cost.iter().filter(|(_, a)| a.signum() < 0).map(|(n, _)| n.clone()).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", join(&negative)));
    }
    let before = old.map(|old| evaluate::usage(group, plural, old, now));
    let mut changed = Vec::new();
    for (index, hard, used) in interesting {
        // An object that was outside the quota's scope before pays in full.
        let paid = before.as_ref().filter(|_| old.is_some_and(|o| evaluate::matches(quotas[index], group, plural, o)));
        let mut delta = cost.clone();
        for (name, amount) in paid.into_iter().flatten() {
            if let Some(cost) = delta.get_mut(name) {
                *cost = cost.minus(*amount);
            }
        }
        delta.retain(|_, amount| amount.signum() > 0);
        let requested = mask(&delta, hard.keys());
        if requested.is_empty() {
            continue;
        }
        changed.push((index, charged(quotas[index], &hard, used, &requested)?));
    }
    Ok(changed)
}

fn charged(quota: &ResourceQuota, hard: &Amounts, used: Amounts, requested: &Amounts) -> Result<ResourceQuota, String> {
    let mut next = used.clone();
    add(&mut next, requested);
    let over = |name: &&String| next.get(*name).zip(hard.get(*name)).is_some_and(|(n, h): (&Quantity, &Quantity)| n > h);
    let exceeded: Vec<&String> = requested.keys().filter(over).collect();
    if !exceeded.is_empty() {
        let shown = |amounts: &Amounts| pretty(&mask(amounts, exceeded.iter().copied()));
        let name = quota.metadata.name.as_deref().unwrap_or_default();
        return Err(format!("exceeded quota: {name}, requested: {}, used: {}, limited: {}", shown(requested), shown(&used), shown(hard)));
    }
    let mut quota = quota.clone();
    quota.status.get_or_insert_default().used = Some(to_wire(&next));
    Ok(quota)
}

fn join(names: &BTreeSet<String>) -> String {
    names.iter().cloned().collect::<Vec<_>>().join(",")
}
