//! Small strategies with one special need each.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::{Claim, PrintContext, Ranges, STATUS, Strategy, Subresource};

pub(super) struct ConfigMaps;
impl Strategy for ConfigMaps {
    type Object = ConfigMap;
    const PLURAL: &'static str = "configmaps";
    const SINGULAR: &'static str = "configmap";
    fn validate(object: &ConfigMap) -> ErrorList {
        let path = Path::new("data");
        object.data.iter().flatten().filter(|(k, _)| k.contains(' ')).map(|(k, _)| Error::invalid(&path, k, "no blanks")).collect()
    }
    fn validate_update(new: &ConfigMap, old: &ConfigMap) -> ErrorList {
        if old.immutable == Some(true) && new.data != old.data {
            return vec![Error::forbidden(&Path::new("data"), "field is immutable when `immutable` is set")];
        }
        Self::validate(new)
    }
    fn cells(_: &ConfigMap, _: &PrintContext) -> Vec<Value> {
        Vec::new()
    }
}

/// Graceful deletion, a status, fields to select by.
pub(super) struct Pods;
impl Strategy for Pods {
    type Object = Pod;
    const PLURAL: &'static str = "pods";
    const SINGULAR: &'static str = "pod";
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const FIELDS: &'static [&'static str] = &["spec.nodeName", "status.phase"];
    const GENERATION: bool = true;
    fn prepare_for_create(object: &mut Pod) {
        object.status = None;
    }
    fn prepare_for_update(new: &mut Pod, old: &Pod) {
        new.status.clone_from(&old.status);
    }
    fn prepare_for_status_update(new: &mut Pod, old: &Pod) {
        new.spec.clone_from(&old.spec);
    }
    fn spec_changed(new: &Pod, old: &Pod) -> bool {
        new.spec != old.spec
    }
    fn grace_period(object: &Pod, requested: Option<i64>) -> Option<i64> {
        let bound = object.spec.as_ref().is_some_and(|s| s.node_name.is_some());
        Some(if bound { requested.unwrap_or(30) } else { 0 })
    }
    fn cells(_: &Pod, _: &PrintContext) -> Vec<Value> {
        Vec::new()
    }
}

/// A finalizer in the spec; no unconditional update.
pub(super) struct Namespaces;
impl Strategy for Namespaces {
    type Object = Namespace;
    const PLURAL: &'static str = "namespaces";
    const SINGULAR: &'static str = "namespace";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    fn prepare_for_create(object: &mut Namespace) {
        object.spec.get_or_insert_default().finalizers = Some(vec!["kubernetes".into()]);
    }
    fn prepare_for_update(new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
    }
    fn holds_deletion(object: &Namespace) -> bool {
        object.spec.as_ref().and_then(|s| s.finalizers.as_ref()).is_some_and(|f| !f.is_empty())
    }
    fn begin_deletion(object: &mut Namespace) {
        object.status.get_or_insert_default().phase = Some("Terminating".into());
    }
    fn cells(_: &Namespace, _: &PrintContext) -> Vec<Value> {
        Vec::new()
    }
}

/// Addresses and ports that are unique in the cluster; created by PUT too.
pub(super) struct Services;
impl Strategy for Services {
    type Object = Service;
    const PLURAL: &'static str = "services";
    const SINGULAR: &'static str = "service";
    const STORAGE: &'static str = "services/specs";
    const CREATE_ON_UPDATE: bool = true;
    fn claims(object: &Service) -> Vec<Claim> {
        let spec = object.spec.as_ref();
        let ip = spec.and_then(|s| s.cluster_ip.clone()).map(|value| Claim { space: "clusterips", value, field: "spec.clusterIPs" });
        let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten().filter_map(|p| p.node_port);
        let ports = ports.map(|p| Claim { space: "nodeports/TCP", value: p.to_string(), field: "spec.ports[0].nodePort" });
        ip.into_iter().chain(ports).collect()
    }
    fn allocate(object: &mut Service, _old: Option<&Service>, ranges: &Ranges, taken: &dyn Fn(&Claim) -> bool) -> Result<(), Error> {
        let spec = object.spec.get_or_insert_default();
        if spec.cluster_ip.is_none() {
            let base = u32::from(ranges.service_network);
            let size = 1_u32 << (32 - ranges.service_prefix);
            let free = (base + 1..base + size - 1).map(|n| std::net::Ipv4Addr::from(n).to_string()).find(|ip| {
                let claim = Claim { space: "clusterips", value: ip.clone(), field: "spec.clusterIPs" };
                !taken(&claim)
            });
            spec.cluster_ip = Some(free.ok_or_else(|| Error::invalid(&Path::new("spec").child("clusterIPs"), "", "range is full"))?);
        }
        Ok(())
    }
    fn cells(_: &Service, _: &PrintContext) -> Vec<Value> {
        Vec::new()
    }
}
