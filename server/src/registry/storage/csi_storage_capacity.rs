//! CSIStorageCapacities (`pkg/registry/storage/csistoragecapacity/strategy.go`).

use k8s_openapi::api::storage::v1::CSIStorageCapacity;
use serde_json::Value;
use shared::field::{ErrorList, Path};
use shared::quantity::Quantity;

use crate::registry::validation::{check, dns1123_subdomain, immutable, resources, selectors};
use crate::registry::{Column, PrintContext, Strategy, print};

/// See the module.
pub struct CsiStorageCapacities;

impl Strategy for CsiStorageCapacities {
    type Object = CSIStorageCapacity;
    const PLURAL: &'static str = "csistoragecapacities";
    const SINGULAR: &'static str = "csistoragecapacity";
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("StorageClassName"), Column::new("Capacity")];

    fn default(object: &mut CSIStorageCapacity) {
        object.capacity.iter_mut().chain(&mut object.maximum_volume_size).for_each(Quantity::canonicalize);
    }

    fn validate(object: &CSIStorageCapacity) -> ErrorList {
        let mut errors = Vec::new();
        let class = &object.storage_class_name;
        check(&Path::new("storageClassName"), class, dns1123_subdomain(class), &mut errors);
        selectors::label_selector(&Path::new("nodeTopology"), object.node_topology.as_ref(), &mut errors);
        for (field, wire) in [("capacity", &object.capacity), ("maximumVolumeSize", &object.maximum_volume_size)] {
            wire.iter().for_each(|wire| resources::quantity(&Path::new(field), "storage", wire, &mut errors));
        }
        errors
    }

    fn validate_update(new: &CSIStorageCapacity, old: &CSIStorageCapacity) -> ErrorList {
        let mut errors = Self::validate(new);
        immutable(&Path::new("nodeTopology"), &new.node_topology, &old.node_topology, &mut errors);
        immutable(&Path::new("storageClassName"), &new.storage_class_name, &old.storage_class_name, &mut errors);
        errors
    }

    fn cells(object: &CSIStorageCapacity, _: &PrintContext) -> Vec<Value> {
        let capacity = object.capacity.as_ref().map(|c| Quantity::of(c).to_string());
        vec![print::name(&object.metadata), object.storage_class_name.clone().into(), capacity.as_deref().unwrap_or(print::UNSET).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn a_capacity_belongs_to_one_class() {
        let of = |class: &str| json!({"metadata": {"name": "c"}, "storageClassName": class, "capacity": "1024Mi"});
        assert!(errors::<CsiStorageCapacities>(of("fast")).is_empty());
        assert_eq!(update_errors::<CsiStorageCapacities>(of("fast"), of("slow")), ["storageClassName: Invalid value: \"slow\": field is immutable"]);
        assert_eq!(cells::<CsiStorageCapacities>(of("fast")), ["c", "fast", "1Gi"]);
    }
}
