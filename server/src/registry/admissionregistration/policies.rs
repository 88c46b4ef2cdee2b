//! Validating and mutating admission policies and their bindings (`pkg/apis/admissionregistration/v1/defaults.go`,
//! `pkg/apis/admissionregistration/validation/validation.go`). Their expressions' rules are in `conditions`.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ParamKind, ParamRef, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};

use super::webhooks::rule_lists;
use super::{conditions, default_match};
use crate::registry::object::reset_for_status;
use crate::registry::validation::{one_of, required_one_of, selectors};
use crate::registry::{Column, PrintContext, STATUS, Strategy, Subresource, print};
use shared::cel::admission::Scope;

/// See the module.
pub struct ValidatingAdmissionPolicies;
/// See the module.
pub struct ValidatingAdmissionPolicyBindings;
/// See the module.
pub struct MutatingAdmissionPolicies;
/// See the module.
pub struct MutatingAdmissionPolicyBindings;

const BINDING_COLUMNS: &[Column] = &[Column::name(), Column::new("PolicyName"), Column::new("ParamRef"), print::AGE];

impl Strategy for ValidatingAdmissionPolicies {
    type Object = ValidatingAdmissionPolicy;
    const PLURAL: &'static str = "validatingadmissionpolicies";
    const SINGULAR: &'static str = "validatingadmissionpolicy";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const SUBRESOURCES: &'static [Subresource] = &[STATUS];
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Validations").of("integer"), Column::new("ParamKind"), print::AGE];

    fn default(object: &mut ValidatingAdmissionPolicy) {
        let spec = object.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".into());
        spec.match_constraints.iter_mut().for_each(default_match);
    }

    fn prepare_for_create(object: &mut ValidatingAdmissionPolicy) {
        object.status = Some(Default::default());
    }

    fn validate(object: &ValidatingAdmissionPolicy) -> ErrorList {
        let mut errors = Vec::new();
        let spec = object.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        one_of(&path.child("failurePolicy"), spec.failure_policy.as_deref(), &["Fail", "Ignore"], &mut errors);
        param_kind(&path.child("paramKind"), spec.param_kind.as_ref(), &mut errors);
        constraints(&path.child("matchConstraints"), spec.match_constraints.as_ref(), &mut errors);
        let validations = spec.validations.as_deref().unwrap_or_default();
        let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
        if validations.is_empty() && annotations.is_empty() {
            errors.push(Error::required(&path.child("validations"), "validations or auditAnnotations must contain at least one item"));
        }
        let mut scope = Scope { params: spec.param_kind.is_some(), authorizer: true, ..Scope::default() };
        conditions::match_conditions(&path.child("matchConditions"), &scope, spec.match_conditions.as_deref().unwrap_or_default(), &mut errors);
        conditions::variables(&path.child("variables"), &mut scope, spec.variables.as_deref().unwrap_or_default(), &mut errors);
        conditions::validations(&path.child("validations"), &scope, validations, &mut errors);
        conditions::audit_annotations(&path.child("auditAnnotations"), &scope, annotations, &mut errors);
        errors
    }

    fn validate_update(new: &ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy) -> ErrorList {
        // What is stored already stays valid, whatever has become of the language.
        if new.spec == old.spec { Vec::new() } else { Self::validate(new) }
    }

    fn prepare_for_update(new: &mut ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy) {
        new.status.clone_from(&old.status);
    }

    fn prepare_for_status_update(new: &mut ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy) {
        new.spec.clone_from(&old.spec);
        reset_for_status(&mut new.metadata, &old.metadata);
    }

    fn spec_changed(new: &ValidatingAdmissionPolicy, old: &ValidatingAdmissionPolicy) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &ValidatingAdmissionPolicy, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        vec![
            print::name(&object.metadata),
            spec.validations.iter().flatten().count().into(),
            param_kind_text(spec.param_kind.as_ref()).into(),
            print::age(&object.metadata, context),
        ]
    }
}

impl Strategy for MutatingAdmissionPolicies {
    type Object = MutatingAdmissionPolicy;
    const PLURAL: &'static str = "mutatingadmissionpolicies";
    const SINGULAR: &'static str = "mutatingadmissionpolicy";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Mutations").of("integer"), Column::new("ParamKind"), print::AGE];

    fn default(object: &mut MutatingAdmissionPolicy) {
        let spec = object.spec.get_or_insert_default();
        spec.failure_policy.get_or_insert_with(|| "Fail".into());
        spec.match_constraints.iter_mut().for_each(default_match);
    }

    fn validate(object: &MutatingAdmissionPolicy) -> ErrorList {
        let mut errors = Vec::new();
        let spec = object.spec.clone().unwrap_or_default();
        let path = Path::new("spec");
        one_of(&path.child("failurePolicy"), spec.failure_policy.as_deref(), &["Fail", "Ignore"], &mut errors);
        param_kind(&path.child("paramKind"), spec.param_kind.as_ref(), &mut errors);
        constraints(&path.child("matchConstraints"), spec.match_constraints.as_ref(), &mut errors);
        let mutations = spec.mutations.as_deref().unwrap_or_default();
        if mutations.is_empty() {
            errors.push(Error::required(&path.child("mutations"), "mutations must contain at least one item"));
        }
        for (index, mutation) in mutations.iter().enumerate() {
            let path = path.child("mutations").index(index);
            required_one_of(&path.child("patchType"), Some(&mutation.patch_type), &["ApplyConfiguration", "JSONPatch"], &mut errors);
        }
        let policies = ["IfNeeded", "Never"];
        required_one_of(&path.child("reinvocationPolicy"), spec.reinvocation_policy.as_deref(), &policies, &mut errors);
        let mut scope = Scope { params: spec.param_kind.is_some(), authorizer: true, ..Scope::default() };
        conditions::match_conditions(&path.child("matchConditions"), &scope, spec.match_conditions.as_deref().unwrap_or_default(), &mut errors);
        conditions::variables(&path.child("variables"), &mut scope, spec.variables.as_deref().unwrap_or_default(), &mut errors);
        conditions::mutations(&path.child("mutations"), &scope, mutations, &mut errors);
        errors
    }

    fn validate_update(new: &MutatingAdmissionPolicy, old: &MutatingAdmissionPolicy) -> ErrorList {
        if new.spec == old.spec { Vec::new() } else { Self::validate(new) }
    }

    fn spec_changed(new: &MutatingAdmissionPolicy, old: &MutatingAdmissionPolicy) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &MutatingAdmissionPolicy, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        vec![
            print::name(&object.metadata),
            spec.mutations.iter().flatten().count().into(),
            param_kind_text(spec.param_kind.as_ref()).into(),
            print::age(&object.metadata, context),
        ]
    }
}

impl Strategy for ValidatingAdmissionPolicyBindings {
    type Object = ValidatingAdmissionPolicyBinding;
    const PLURAL: &'static str = "validatingadmissionpolicybindings";
    const SINGULAR: &'static str = "validatingadmissionpolicybinding";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = BINDING_COLUMNS;

    fn default(object: &mut ValidatingAdmissionPolicyBinding) {
        object.spec.match_resources.iter_mut().for_each(default_match);
    }

    fn validate(object: &ValidatingAdmissionPolicyBinding) -> ErrorList {
        let mut errors = Vec::new();
        let path = Path::new("spec");
        binding(&path, &object.spec.policy_name, object.spec.param_ref.as_ref(), object.spec.match_resources.as_ref(), &mut errors);
        let actions = &object.spec.validation_actions;
        let actions_path = path.child("validationActions");
        if actions.is_empty() {
            errors.push(Error::required(&actions_path, "at least one validation action is required"));
        }
        for (index, action) in actions.iter().enumerate() {
            one_of(&actions_path.index(index), Some(action), &["Audit", "Deny", "Warn"], &mut errors);
            if actions[..index].contains(action) {
                errors.push(Error::duplicate(&actions_path.index(index), action));
            }
        }
        if actions.iter().any(|a| a == "Deny") && actions.iter().any(|a| a == "Warn") {
            errors.push(Error::invalid(&actions_path, actions, "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"));
        }
        errors
    }

    fn spec_changed(new: &ValidatingAdmissionPolicyBinding, old: &ValidatingAdmissionPolicyBinding) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &ValidatingAdmissionPolicyBinding, context: &PrintContext) -> Vec<Value> {
        let spec = &object.spec;
        vec![
            print::name(&object.metadata),
            spec.policy_name.clone().into(),
            param_text(spec.param_ref.as_ref()),
            print::age(&object.metadata, context),
        ]
    }
}

impl Strategy for MutatingAdmissionPolicyBindings {
    type Object = MutatingAdmissionPolicyBinding;
    const PLURAL: &'static str = "mutatingadmissionpolicybindings";
    const SINGULAR: &'static str = "mutatingadmissionpolicybinding";
    const NAMESPACED: bool = false;
    const UNCONDITIONAL_UPDATE: bool = false;
    const GENERATION: bool = true;
    const COLUMNS: &'static [Column] = BINDING_COLUMNS;

    fn default(object: &mut MutatingAdmissionPolicyBinding) {
        object.spec.get_or_insert_default().match_resources.iter_mut().for_each(default_match);
    }

    fn validate(object: &MutatingAdmissionPolicyBinding) -> ErrorList {
        let mut errors = Vec::new();
        let spec = object.spec.clone().unwrap_or_default();
        let name = spec.policy_name.unwrap_or_default();
        binding(&Path::new("spec"), &name, spec.param_ref.as_ref(), spec.match_resources.as_ref(), &mut errors);
        errors
    }

    fn spec_changed(new: &MutatingAdmissionPolicyBinding, old: &MutatingAdmissionPolicyBinding) -> bool {
        new.spec != old.spec
    }

    fn cells(object: &MutatingAdmissionPolicyBinding, context: &PrintContext) -> Vec<Value> {
        let spec = object.spec.clone().unwrap_or_default();
        vec![
            print::name(&object.metadata),
            spec.policy_name.unwrap_or_default().into(),
            param_text(spec.param_ref.as_ref()),
            print::age(&object.metadata, context),
        ]
    }
}

fn param_kind(path: &Path, kind: Option<&ParamKind>, errors: &mut ErrorList) {
    let Some(kind) = kind else { return };
    for (field, value) in [("apiVersion", &kind.api_version), ("kind", &kind.kind)] {
        if value.as_ref().is_none_or(String::is_empty) {
            errors.push(Error::required(&path.child(field), ""));
        }
    }
}

fn param_kind_text(kind: Option<&ParamKind>) -> String {
    kind.map_or_else(
        || print::UNSET.to_owned(),
        |k| format!("{}/{}", k.api_version.as_deref().unwrap_or_default(), k.kind.as_deref().unwrap_or_default()),
    )
}

fn constraints(path: &Path, resources: Option<&MatchResources>, errors: &mut ErrorList) {
    let Some(resources) = resources else { return errors.push(Error::required(path, "")) };
    match_resources(path, resources, errors);
    if resources.resource_rules.as_ref().is_none_or(Vec::is_empty) {
        errors.push(Error::required(&path.child("resourceRules"), ""));
    }
}

fn match_resources(path: &Path, resources: &MatchResources, errors: &mut ErrorList) {
    one_of(&path.child("matchPolicy"), resources.match_policy.as_deref(), &["Equivalent", "Exact"], errors);
    selectors::label_selector(&path.child("namespaceSelector"), resources.namespace_selector.as_ref(), errors);
    selectors::label_selector(&path.child("objectSelector"), resources.object_selector.as_ref(), errors);
    for (field, rules) in [("resourceRules", &resources.resource_rules), ("excludeResourceRules", &resources.exclude_resource_rules)] {
        for (index, rule) in rules.iter().flatten().enumerate() {
            let path = path.child(field).index(index);
            rule_lists(&path, &rule.operations, &rule.api_groups, &rule.api_versions, &rule.resources, errors);
            one_of(&path.child("scope"), rule.scope.as_deref(), &["*", "Cluster", "Namespaced"], errors);
        }
    }
}

fn binding(path: &Path, policy: &str, param: Option<&ParamRef>, resources: Option<&MatchResources>, errors: &mut ErrorList) {
    if policy.is_empty() {
        errors.push(Error::required(&path.child("policyName"), ""));
    }
    if let Some(param) = param {
        let path = path.child("paramRef");
        match (param.name.as_deref().unwrap_or_default(), &param.selector) {
            ("", None) => errors.push(Error::required(&path, "one of name or selector must be specified")),
            (name, Some(_)) if !name.is_empty() => {
                errors.push(Error::forbidden(&path.child("name"), "name and selector are mutually exclusive"));
            }
            _ => {}
        }
        let actions = ["Allow", "Deny"];
        required_one_of(&path.child("parameterNotFoundAction"), param.parameter_not_found_action.as_deref(), &actions, errors);
    }
    resources.into_iter().for_each(|r| match_resources(&path.child("matchResources"), r, errors));
}

/// `namespace/name`, `*/name`, the selector, or `<unset>`.
fn param_text(param: Option<&ParamRef>) -> Value {
    let Some(param) = param else { return print::UNSET.into() };
    match (param.name.as_deref().filter(|n| !n.is_empty()), param.namespace.as_deref().filter(|n| !n.is_empty())) {
        (Some(name), Some(namespace)) => format!("{namespace}/{name}").into(),
        (Some(name), None) => format!("*/{name}").into(),
        (None, _) => match &param.selector {
            Some(selector) => print::selector(Some(selector)),
            None => print::UNSET.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    fn policy(patch: Value) -> Value {
        let rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        with(
            json!({"metadata": {"name": "p"}, "spec": {
                "validations": [{"expression": "true"}], "matchConstraints": {"resourceRules": [rule]}
            }}),
            patch,
        )
    }

    #[test]
    fn a_policy_has_constraints_and_something_to_check() {
        let stored = defaulted::<ValidatingAdmissionPolicies>(policy(json!({})));
        assert_eq!((&stored["spec"]["failurePolicy"], &stored["spec"]["matchConstraints"]["matchPolicy"]), (&json!("Fail"), &json!("Equivalent")));
        assert!(errors::<ValidatingAdmissionPolicies>(policy(json!({}))).is_empty());
        assert_eq!(
            errors::<ValidatingAdmissionPolicies>(policy(json!({"spec": {"validations": null, "matchConstraints": null}}))),
            [
                "spec.matchConstraints: Required value",
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item"
            ]
        );
        assert_eq!(cells::<ValidatingAdmissionPolicies>(policy(json!({})))[1..3], [json!(1), json!("<unset>")]);
    }

    #[test]
    fn a_binding_names_its_policy_and_actions() {
        let binding = |patch: Value| with(json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}}), patch);
        assert!(errors::<ValidatingAdmissionPolicyBindings>(binding(json!({}))).is_empty());
        let both = errors::<ValidatingAdmissionPolicyBindings>(binding(json!({"spec": {"validationActions": ["Deny", "Warn"]}})));
        assert!(both[0].contains("must not contain both Deny and Warn"), "{both:?}");
        let row = cells::<ValidatingAdmissionPolicyBindings>(binding(json!({"spec": {"paramRef": {"name": "x"}}})));
        assert_eq!(row[1..3], ["p", "*/x"]);
    }

    #[test]
    fn a_mutating_policy_says_how_it_patches() {
        let mutating = policy(json!({"spec": {"validations": null, "reinvocationPolicy": "Never", "mutations": [{"patchType": "Magic"}]}}));
        assert_eq!(
            errors::<MutatingAdmissionPolicies>(mutating.clone()),
            ["spec.mutations[0].patchType: Unsupported value: \"Magic\": supported values: \"ApplyConfiguration\", \"JSONPatch\""]
        );
        assert_eq!(cells::<MutatingAdmissionPolicies>(mutating)[1], 1);
        assert_eq!(errors::<MutatingAdmissionPolicyBindings>(json!({"spec": {}})), ["spec.policyName: Required value"]);
    }
}
