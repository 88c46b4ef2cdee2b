//! Which lists the server merges by key (`patchStrategy` and `patchMergeKey` in `k8s.io/api`).

/// How a list is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Replaced as a whole.
    Atomic,
    /// Objects merged by the value of a field.
    Merge(&'static str),
    /// Plain values, each there once.
    Set,
}

const CONTAINERS: &[&str] = &["containers", "initContainers", "ephemeralContainers"];

/// The rule of a list `field` inside an object that is itself the value of `parent` (or an item of the list `parent`), in a kind.
pub fn rule(kind: &str, parent: &str, field: &str) -> Rule {
    let in_container = CONTAINERS.contains(&parent);
    match field {
        "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "schedulingGates" => Rule::Merge("name"),
        "resourceClaims" | "resourceClaimStatuses" => Rule::Merge("name"),
        "imagePullSecrets" if kind != "ServiceAccount" => Rule::Merge("name"),
        "secrets" if kind == "ServiceAccount" => Rule::Merge("name"),
        "webhooks" => Rule::Merge("name"),
        "env" if in_container => Rule::Merge("name"),
        "ports" if in_container => Rule::Merge("containerPort"),
        "ports" if kind == "Service" => Rule::Merge("port"),
        "volumeMounts" if in_container => Rule::Merge("mountPath"),
        "volumeDevices" if in_container => Rule::Merge("devicePath"),
        "hostAliases" | "podIPs" | "hostIPs" => Rule::Merge("ip"),
        "topologySpreadConstraints" => Rule::Merge("topologyKey"),
        "conditions" => Rule::Merge("type"),
        "addresses" if kind == "Node" => Rule::Merge("type"),
        "ownerReferences" => Rule::Merge("uid"),
        "finalizers" if parent == "metadata" || kind == "Namespace" => Rule::Set,
        "podCIDRs" => Rule::Set,
        _ => Rule::Atomic,
    }
}

/// Whether fields that the new version of an object does not name are dropped (`retainKeys`): unions such as a volume's source.
pub fn retains_keys(field: &str) -> bool {
    matches!(field, "volumes" | "strategy" | "resourceClaims")
}
