//! Rows of kinds that are defined at run time.
//!
//! Rows are `'static`, so each that is ever made stays. They hold only what hardly ever changes of a kind (names, scope, which parts it
//! has); the same shape is made once, whatever becomes of its definition, and the rest is in the row's [`Slot`].

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, CustomResourceDefinitionVersion};
use parking_lot::Mutex;

use super::custom::CustomOps;
use super::definition::{Definition, Slot};
use crate::registry::{ALL_VERBS, Resource, SCALE, STATUS, Subresource, intern};

/// The row of a definition's version, with the definition put in force.
pub fn publish(crd: &CustomResourceDefinition, version: &CustomResourceDefinitionVersion, definition: Definition) -> &'static Resource {
    static ROWS: LazyLock<Mutex<HashMap<String, &'static Resource>>> = LazyLock::new(Mutex::default);
    let names = crd.status.as_ref().and_then(|s| s.accepted_names.as_ref()).unwrap_or(&crd.spec.names);
    let mut subresources: Vec<Subresource> = Vec::new();
    if definition.status {
        subresources.push(STATUS);
    }
    if definition.scale.is_some() {
        subresources.push(SCALE);
    }
    let fields: Vec<&str> =
        version.selectable_fields.iter().flatten().map(|f| f.json_path.trim_start_matches('.')).filter(|p| !p.is_empty()).collect();
    let group = &crd.spec.group;
    let shape = format!("{group}/{}/{names:?}/{}/{}/{}/{fields:?}", version.name, crd.spec.scope, definition.status, definition.scale.is_some());
    let mut rows = ROWS.lock();
    if let Some(row) = rows.get(&shape) {
        if let Some(slot) = &row.custom {
            slot.replace(definition);
        }
        return row;
    }
    let slot = Arc::new(Slot::new(definition));
    let strings = |list: Vec<&str>| -> &'static [&'static str] { list.into_iter().map(intern).collect::<Vec<_>>().leak() };
    let list = |list: &Option<Vec<String>>| strings(list.iter().flatten().map(String::as_str).collect());
    let row: &'static Resource = Box::leak(Box::new(Resource {
        group: intern(group),
        version: intern(&version.name),
        kind: intern(&names.kind),
        plural: intern(&names.plural),
        singular: intern(names.singular.as_deref().filter(|s| !s.is_empty()).unwrap_or(&names.kind.to_lowercase())),
        short_names: list(&names.short_names),
        categories: list(&names.categories),
        namespaced: crd.spec.scope == "Namespaced",
        verbs: ALL_VERBS,
        subresources: subresources.leak(),
        prefix: format!("/registry/{group}/{}/", names.plural),
        fields: strings(fields),
        field_sources: &[],
        create_on_update: false,
        unconditional_update: false,
        generation: true,
        columns: &[],
        ops: Box::new(CustomOps(slot.clone())),
        schema: None,
        custom: Some(slot),
        index: usize::MAX,
    }));
    rows.insert(shape, row);
    row
}
