//! What objects cost a ResourceQuota, and whether one more fits: pure functions that admission charges with and the quota controller
//! recounts with (`k8s.io/apiserver/pkg/quota/v1`, `pkg/quota/v1/evaluator/core`).
//!
//! Owns the arithmetic and upstream's wording. Must never read or write anything.

mod charge;
mod evaluate;
mod pod;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use shared::quantity::Quantity;

pub use charge::{Request, charge};
pub use evaluate::{Item, matches, matching_resources, usage};
pub use pod::{is_best_effort, pod_limits, pod_requests};

/// Amounts by resource name, e.g. `requests.cpu`.
pub type Amounts = BTreeMap<String, Quantity>;

/// Amounts from their wire form.
pub fn amounts(wire: Option<&BTreeMap<String, Wire>>) -> Amounts {
    wire.into_iter().flatten().map(|(k, v)| (k.clone(), Quantity::of(v))).collect()
}

/// The wire form of amounts.
pub fn to_wire(amounts: &Amounts) -> BTreeMap<String, Wire> {
    amounts.iter().map(|(k, v)| (k.clone(), v.to_wire())).collect()
}

/// Adds amounts by name.
pub fn add(into: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = into.get(name).map_or(*amount, |have| have.plus(*amount));
        into.insert(name.clone(), sum);
    }
}

/// Takes the greater amount by name.
pub fn max(into: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        if into.get(name).is_none_or(|have| have < amount) {
            into.insert(name.clone(), *amount);
        }
    }
}

/// The amounts of some names only.
pub fn mask<'n>(amounts: &Amounts, names: impl IntoIterator<Item = &'n String>) -> Amounts {
    names.into_iter().filter_map(|n| amounts.get_key_value(n)).map(|(k, v)| (k.clone(), *v)).collect()
}

/// `cpu=1,pods=2`, sorted by name.
pub fn pretty(amounts: &Amounts) -> String {
    amounts.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
