//! IPAddresses (`pkg/registry/networking/ipaddress/strategy.go`). Named after the address they stand for.

use k8s_openapi::api::networking::v1::IPAddress;
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use crate::registry::validation::{BAD_IP, immutable, ip};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct IpAddresses;

impl Strategy for IpAddresses {
    type Object = IPAddress;
    const PLURAL: &'static str = "ipaddresses";
    const SINGULAR: &'static str = "ipaddress";
    const SHORT_NAMES: &'static [&'static str] = &["ip"];
    const NAMESPACED: bool = false;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("ParentRef"), print::AGE];

    fn validate_name(name: &str) -> Result<(), String> {
        match ip(name) {
            None => Err(BAD_IP.into()),
            Some(parsed) if parsed.to_string() != name => Err("must be a canonical IP address".into()),
            Some(_) => Ok(()),
        }
    }

    fn validate(object: &IPAddress) -> ErrorList {
        let mut errors = Vec::new();
        let parent = &object.spec.parent_ref;
        let path = Path::new("spec").child("parentRef");
        for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
            if value.is_empty() {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        errors
    }

    fn validate_update(new: &IPAddress, old: &IPAddress) -> ErrorList {
        let mut errors = Self::validate(new);
        immutable(&Path::new("spec").child("parentRef"), &new.spec.parent_ref, &old.spec.parent_ref, &mut errors);
        errors
    }

    fn cells(object: &IPAddress, context: &PrintContext) -> Vec<Value> {
        let parent = &object.spec.parent_ref;
        let mut text = parent.resource.to_lowercase();
        if let Some(group) = parent.group.as_deref().filter(|g| !g.is_empty()) {
            text = format!("{text}.{}", group.to_lowercase());
        }
        if let Some(namespace) = parent.namespace.as_deref().filter(|n| !n.is_empty()) {
            text = format!("{text}/{namespace}");
        }
        vec![print::name(&object.metadata), format!("{text}/{}", parent.name).into(), print::age(&object.metadata, context)]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn an_address_is_its_own_name_and_has_a_parent() {
        assert!(IpAddresses::validate_name("10.0.0.1").is_ok() && IpAddresses::validate_name("fd00::1").is_ok());
        assert_eq!(IpAddresses::validate_name("FD00::1").unwrap_err(), "must be a canonical IP address");
        assert_eq!(errors::<IpAddresses>(json!({"spec": {"parentRef": {"name": "s"}}})), ["spec.parentRef.resource: Required value"]);
        let row = cells::<IpAddresses>(json!({
            "metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {"resource": "services", "namespace": "n", "name": "s"}}
        }));
        assert_eq!(row, ["10.0.0.1", "services/n/s", "<unknown>"]);
    }
}
