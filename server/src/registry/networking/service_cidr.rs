//! ServiceCIDRs (`pkg/registry/networking/servicecidr/strategy.go`).

use k8s_openapi::api::networking::v1::ServiceCIDR;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{BAD_CIDR, cidr, immutable};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    type Object = ServiceCIDR;
    const PLURAL: &'static str = "servicecidrs";
    const SINGULAR: &'static str = "servicecidr";
    const NAMESPACED: bool = false;
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("CIDRs"), print::AGE];

    fn prepare_for_create(object: &mut ServiceCIDR) {
        object.status = Some(Default::default());
    }

    fn validate(object: &ServiceCIDR) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec").child("cidrs");
        let cidrs = object.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
        match cidrs.len() {
            0 => errors.push(Error::required(&path, "at least one CIDR required")),
            count if count > 2 => errors.push(Error::invalid(&path, &cidrs, "may only hold up to 2 values")),
            _ => {}
        }
        for (index, item) in cidrs.iter().enumerate().filter(|(_, c)| cidr(c).is_none()) {
            errors.push(Error::invalid(&path.index(index), item, BAD_CIDR));
        }
        let families = cidrs.iter().filter_map(|c| cidr(c)).map(|(address, _)| address.is_ipv4());
        if cidrs.len() == 2 && families.collect::<std::collections::BTreeSet<_>>().len() == 1 {
            errors.push(Error::invalid(&path, &cidrs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96"));
        }
        errors
    }

    fn prepare_for_update(new: &mut ServiceCIDR, old: &ServiceCIDR) {
        new.status.clone_from(&old.status);
    }

    fn validate_update(new: &ServiceCIDR, old: &ServiceCIDR) -> ErrorList {
        let mut errors = Self::validate(new);
        let first = |o: &ServiceCIDR| o.spec.as_ref().and_then(|s| s.cidrs.as_ref()).and_then(|c| c.first()).cloned();
        immutable(&Path::new("spec").child("cidrs").index(0), &first(new), &first(old), &mut errors);
        errors
    }

    fn prepare_for_status_update(new: &mut ServiceCIDR, old: &ServiceCIDR) {
        new.spec.clone_from(&old.spec);
    }

    fn cells(object: &ServiceCIDR, context: &PrintContext) -> Vec<Value> {
        let cidrs = object.spec.as_ref().and_then(|s| s.cidrs.clone()).unwrap_or_default();
        vec![print::name(&object.metadata), cidrs.join(",").into(), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn one_cidr_for_each_family() {
        let of = |cidrs: Value| errors::<ServiceCidrs>(json!({"spec": {"cidrs": cidrs}}));
        assert!(of(json!(["10.0.0.0/8", "fd00::/64"])).is_empty());
        assert_eq!(of(json!([])), ["spec.cidrs: Required value: at least one CIDR required"]);
        assert!(of(json!(["10.0.0.0/8", "11.0.0.0/8"]))[0].contains("no more than one IP for each IP family"));
        assert_eq!(cells::<ServiceCidrs>(json!({"metadata": {"name": "k"}, "spec": {"cidrs": ["10.0.0.0/8"]}}))[1], "10.0.0.0/8");
    }
}
