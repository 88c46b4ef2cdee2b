//! CustomResourceDefinitions (`k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/{v1/defaults,validation/validation}.go`,
//! `.../pkg/registry/customresourcedefinition`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionNames, CustomResourceDefinitionStatus, CustomResourceDefinitionVersion,
    CustomResourceSubresources,
};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::selector::{is_dns1123_label, is_dns1123_subdomain};

use super::conditions::{self, TERMINATING};
use super::structural;
use crate::registry::object::reset_for_status;
use crate::registry::validation::{check, dns1035_label, immutable};
use crate::registry::{Column, DNS1123_LABEL, DNS1123_SUBDOMAIN, PrintContext, STATUS, Strategy, Subresource, print};

/// See the module.
pub struct CustomResourceDefinitions;

/// Holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// What a definition in one of Kubernetes' own groups must carry.
pub const APPROVED: &str = "api-approved.kubernetes.io";

impl Strategy for CustomResourceDefinitions {
    type Object = CustomResourceDefinition;
    const PLURAL: &'static str = "customresourcedefinitions";
    const SINGULAR: &'static str = "customresourcedefinition";
    const SHORT_NAMES: &'static [&'static str] = &["crd", "crds"];
    const CATEGORIES: &'static [&'static str] = &["api-extensions"];
    const NAMESPACED: bool = false;
    const STORAGE: &'static str = "apiextensions.k8s.io/customresourcedefinitions";
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const GENERATION: bool = true;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Created At").of("date")];

    fn default(object: &mut CustomResourceDefinition) {
        let spec = &mut object.spec;
        let names = &mut spec.names;
        names.singular.get_or_insert_with(|| names.kind.to_lowercase());
        names.list_kind.get_or_insert_with(|| format!("{}List", names.kind));
        let conversion = spec.conversion.get_or_insert_default();
        if conversion.strategy.is_empty() {
            conversion.strategy = "None".into();
        }
        if let Some(service) = conversion.webhook.as_mut().and_then(|w| w.client_config.as_mut()).and_then(|c| c.service.as_mut()) {
            service.port.get_or_insert(443);
        }
    }

    fn prepare_for_create(object: &mut CustomResourceDefinition) {
        let storage = object.spec.versions.iter().filter(|v| v.storage).map(|v| v.name.clone()).take(1).collect();
        object.status = Some(CustomResourceDefinitionStatus { stored_versions: Some(storage), ..CustomResourceDefinitionStatus::default() });
    }

    fn validate(object: &CustomResourceDefinition) -> ErrorList {
        let mut errors = Vec::new();
        let spec = &object.spec;
        let expected = format!("{}.{}", spec.names.plural, spec.group);
        let name = object.metadata.name.as_deref().unwrap_or_default();
        if name != expected {
            errors.push(Error::invalid(&Path::new("metadata").child("name"), name, "must be spec.names.plural+\".\"+spec.group"));
        }
        approval(object, &mut errors);
        spec_errors(object, &mut errors);
        errors
    }

    fn prepare_for_update(new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
        new.status.clone_from(&old.status);
        let stored = new.status.get_or_insert_default().stored_versions.get_or_insert_default();
        for version in new.spec.versions.iter().filter(|v| v.storage) {
            if !stored.contains(&version.name) {
                stored.push(version.name.clone());
            }
        }
    }

    fn validate_update(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> ErrorList {
        let mut errors = Self::validate(new);
        let spec = Path::new("spec");
        immutable(&spec.child("group"), &new.spec.group, &old.spec.group, &mut errors);
        immutable(&spec.child("names").child("plural"), &new.spec.names.plural, &old.spec.names.plural, &mut errors);
        if conditions::is_true(old, conditions::ESTABLISHED) {
            immutable(&spec.child("scope"), &new.spec.scope, &old.spec.scope, &mut errors);
            immutable(&spec.child("names").child("kind"), &new.spec.names.kind, &old.spec.names.kind, &mut errors);
        }
        let stored = old.status.as_ref().and_then(|s| s.stored_versions.as_deref()).unwrap_or_default();
        for (index, version) in stored.iter().enumerate() {
            if !new.spec.versions.iter().any(|v| v.name == *version) {
                let text = "missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions";
                let at = Path::new("status").child("storedVersions").index(index);
                errors.push(Error::invalid(&at, version, &text.replace("v1", version)));
            }
        }
        errors
    }

    fn prepare_for_status_update(new: &mut CustomResourceDefinition, old: &CustomResourceDefinition) {
        new.spec.clone_from(&old.spec);
        reset_for_status(&mut new.metadata, &old.metadata);
    }

    fn spec_changed(new: &CustomResourceDefinition, old: &CustomResourceDefinition) -> bool {
        new.spec != old.spec
    }

    /// A definition never goes at once: its objects go first.
    fn holds_deletion(object: &CustomResourceDefinition) -> bool {
        object.metadata.deletion_timestamp.is_none()
    }

    fn begin_deletion(object: &mut CustomResourceDefinition) {
        let finalizers = object.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == CLEANUP) {
            finalizers.push(CLEANUP.into());
        }
        let text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        conditions::set(object, TERMINATING, true, "InstanceDeletionPending", text);
    }

    fn cells(object: &CustomResourceDefinition, _: &PrintContext) -> Vec<Value> {
        print::default_cells(&object.metadata)
    }
}

/// Kubernetes' own groups are for what Kubernetes has approved.
fn approval(object: &CustomResourceDefinition, errors: &mut ErrorList) {
    if !conditions::is_protected(&object.spec.group) {
        return;
    }
    let value = object.metadata.annotations.as_ref().and_then(|a| a.get(APPROVED)).map(String::as_str).unwrap_or_default();
    let path = Path::new("metadata").child("annotations").key(APPROVED);
    let hint = format!("protected groups must have approval annotation \"{APPROVED}\", see https://github.com/kubernetes/enhancements/pull/1111");
    if value.is_empty() {
        errors.push(Error::required(&path, &hint));
    } else if !value.starts_with("unapproved") && !value.contains("://") {
        errors.push(Error::invalid(&path, value, &hint));
    }
}

fn spec_errors(object: &CustomResourceDefinition, errors: &mut ErrorList) {
    let (spec, path) = (&object.spec, Path::new("spec"));
    let group = path.child("group");
    if spec.group.is_empty() {
        errors.push(Error::required(&group, ""));
    } else if !is_dns1123_subdomain(&spec.group) {
        errors.push(Error::invalid(&group, &spec.group, DNS1123_SUBDOMAIN));
    } else if !spec.group.contains('.') {
        errors.push(Error::invalid(&group, &spec.group, "should be a domain with at least one dot"));
    }
    if !["Cluster", "Namespaced"].contains(&spec.scope.as_str()) {
        errors.push(Error::not_supported(&path.child("scope"), &spec.scope, &["Cluster", "Namespaced"]));
    }
    if spec.preserve_unknown_fields == Some(true) {
        errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, "must be false in order to use defaults in the schema"));
    }
    names(&spec.names, &path.child("names"), errors);
    versions(&spec.versions, &path, errors);
    conversion(object, &path.child("conversion"), errors);
}

fn names(names: &CustomResourceDefinitionNames, path: &Path, errors: &mut ErrorList) {
    for (field, value) in
        [("plural", Some(&names.plural)), ("singular", names.singular.as_ref()), ("kind", Some(&names.kind)), ("listKind", names.list_kind.as_ref())]
    {
        match value.map(String::as_str).unwrap_or_default() {
            "" if field == "singular" => {}
            "" => errors.push(Error::required(&path.child(field), "")),
            value => check(&path.child(field), value, dns1035_label(&value.to_lowercase()), errors),
        }
    }
    for (field, list) in [("shortNames", &names.short_names), ("categories", &names.categories)] {
        for (index, name) in list.iter().flatten().enumerate() {
            check(&path.child(field).index(index), name, dns1035_label(name), errors);
        }
    }
    if names.list_kind.as_ref() == Some(&names.kind) && !names.kind.is_empty() {
        errors.push(Error::invalid(&path.child("listKind"), &names.list_kind, "kind and listKind may not be the same"));
    }
}

fn versions(list: &[CustomResourceDefinitionVersion], path: &Path, errors: &mut ErrorList) {
    let at = path.child("versions");
    let stored = list.iter().filter(|v| v.storage).count();
    let mut seen = Vec::new();
    for (index, version) in list.iter().enumerate() {
        let at = at.index(index);
        if !is_dns1123_label(&version.name) {
            errors.push(Error::invalid(&at.child("name"), &version.name, DNS1123_LABEL));
        }
        if seen.contains(&&version.name) {
            errors.push(Error::invalid(&path.child("versions"), list, "must contain unique version names"));
        }
        seen.push(&version.name);
        if version.deprecation_warning.is_some() && version.deprecated != Some(true) {
            errors.push(Error::invalid(&at.child("deprecationWarning"), &version.deprecation_warning, "can only be set for deprecated versions"));
        }
        subresources(version.subresources.as_ref(), &at.child("subresources"), errors);
        for (index, column) in version.additional_printer_columns.iter().flatten().enumerate() {
            let at = at.child("additionalPrinterColumns").index(index);
            if column.name.is_empty() {
                errors.push(Error::required(&at.child("name"), ""));
            }
            const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
            if column.type_.is_empty() {
                errors.push(Error::required(&at.child("type"), "must be one of boolean,date,integer,number,string"));
            } else if !TYPES.contains(&column.type_.as_str()) {
                errors.push(Error::invalid(&at.child("type"), &column.type_, "must be one of boolean,date,integer,number,string"));
            }
            if column.json_path.is_empty() {
                errors.push(Error::required(&at.child("jsonPath"), ""));
            } else if !column.json_path.starts_with('.') || shared::jsonpath::Template::parse(&format!("{{{}}}", column.json_path)).is_err() {
                errors.push(Error::invalid(&at.child("jsonPath"), &column.json_path, "is an invalid simple json path with jsonPath enabled"));
            }
        }
    }
    if stored != 1 {
        errors.push(Error::invalid(&at, list, "must have exactly one version marked as storage version"));
    }
    schemas(list, path, errors);
}

/// Schemas that all versions have in common are reported once, where upstream keeps such a one.
fn schemas(list: &[CustomResourceDefinitionVersion], path: &Path, errors: &mut ErrorList) {
    let common = list.iter().all(|v| v.schema == list[0].schema);
    for (index, version) in list.iter().enumerate().take(if common { 1 } else { list.len() }) {
        let at = path.child("versions").index(index).child("schema").child("openAPIV3Schema");
        let Some(schema) = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) else {
            for (index, _) in list.iter().enumerate().filter(|(i, _)| common || *i == index) {
                errors.push(Error::required(&path.child("versions").index(index).child("schema").child("openAPIV3Schema"), "schemas are required"));
            }
            continue;
        };
        let at = if common { path.child("validation").child("openAPIV3Schema") } else { at };
        errors.extend(structural::validate(schema, &at));
    }
}

fn subresources(subresources: Option<&CustomResourceSubresources>, path: &Path, errors: &mut ErrorList) {
    let Some(scale) = subresources.and_then(|s| s.scale.as_ref()) else { return };
    let path = path.child("scale");
    for (field, value, below, required) in [
        ("specReplicasPath", Some(scale.spec_replicas_path.as_str()), &[".spec."][..], true),
        ("statusReplicasPath", Some(scale.status_replicas_path.as_str()), &[".status."], true),
        ("labelSelectorPath", scale.label_selector_path.as_deref(), &[".spec.", ".status."], false),
    ] {
        let value = value.unwrap_or_default();
        if value.is_empty() {
            if required {
                errors.push(Error::required(&path.child(field), ""));
            }
        } else if value.contains('[') {
            errors.push(Error::invalid(&path.child(field), value, "should be a simple json path without array notation"));
        } else if !below.iter().any(|b| value.starts_with(b)) {
            let text = format!("should be a json path under {}", below.join(" or ").replace(". or", " or").trim_end_matches('.'));
            errors.push(Error::invalid(&path.child(field), value, &text));
        }
    }
}

fn conversion(object: &CustomResourceDefinition, path: &Path, errors: &mut ErrorList) {
    let Some(conversion) = &object.spec.conversion else { return };
    match conversion.strategy.as_str() {
        "None" => {
            if conversion.webhook.is_some() {
                errors.push(Error::forbidden(&path.child("webhookClientConfig"), "should not be set when strategy is not set to Webhook"));
            }
        }
        "Webhook" => {
            let client = conversion.webhook.as_ref().and_then(|w| w.client_config.as_ref());
            let at = path.child("webhookClientConfig");
            match client.map(|c| (c.url.is_some(), c.service.is_some())) {
                None => errors.push(Error::required(&at, "required when strategy is set to Webhook")),
                Some((true, true) | (false, false)) => {
                    errors.push(Error::required(&at, "exactly one of url or service is required"));
                }
                Some(_) => {}
            }
            let reviews = conversion.webhook.as_ref().map(|w| w.conversion_review_versions.as_slice()).unwrap_or_default();
            if !reviews.iter().any(|v| v == "v1") {
                let text = "must include at least one of v1, v1beta1";
                errors.push(Error::invalid(&path.child("conversionReviewVersions"), reviews, text));
            }
        }
        other => errors.push(Error::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
}
