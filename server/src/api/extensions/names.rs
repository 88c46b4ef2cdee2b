//! Whose names are accepted, and what is established (`apiextensions-apiserver/pkg/controller/{status,establish,apiapproval}`).
//!
//! Pure: a definition and its neighbours in, conditions out.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, CustomResourceDefinitionNames};

use crate::registry::apiextensions::conditions::{self, CONFORMANT, ESTABLISHED, NAMES_ACCEPTED};
use crate::registry::apiextensions::custom_resource_definition::APPROVED;

/// Names that are taken in a group.
#[derive(Default)]
struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

/// Sets the accepted names and the conditions that follow from them.
pub(super) fn decide(crd: &mut CustomResourceDefinition, all: &[CustomResourceDefinition]) {
    approve(crd);
    let taken = taken(crd, all);
    let requested = crd.spec.names.clone();
    let before = crd.status.as_ref().and_then(|s| s.accepted_names.clone()).unwrap_or_default();
    let (accepted, conflict) = accept(&requested, before, &taken);
    let whole = accepted == requested;
    crd.status.get_or_insert_default().accepted_names = Some(accepted);
    match conflict {
        Some((reason, text)) => conditions::set(crd, NAMES_ACCEPTED, false, reason, &text),
        None => conditions::set(crd, NAMES_ACCEPTED, true, "NoConflicts", "no conflicts found"),
    }
    if conditions::is_true(crd, ESTABLISHED) {
        return;
    }
    if whole {
        conditions::set(crd, ESTABLISHED, true, "InitialNamesAccepted", "the initial names have been accepted");
    } else {
        conditions::set(crd, ESTABLISHED, false, "NotAccepted", "not all names are accepted");
    }
}

fn taken(crd: &CustomResourceDefinition, all: &[CustomResourceDefinition]) -> Taken {
    let mut taken = Taken::default();
    let others = all.iter().filter(|o| o.spec.group == crd.spec.group && o.metadata.name != crd.metadata.name);
    for names in others.filter_map(|o| o.status.as_ref()?.accepted_names.as_ref()) {
        let resources = [Some(&names.plural), names.singular.as_ref()].into_iter().flatten().chain(names.short_names.iter().flatten());
        taken.resources.extend(resources.filter(|n| !n.is_empty()).cloned());
        taken.kinds.extend([Some(&names.kind), names.list_kind.as_ref()].into_iter().flatten().filter(|n| !n.is_empty()).cloned());
    }
    taken
}

type Conflict = (&'static str, String);

/// Takes over every name that nobody has; the last conflict is the one that is told.
fn accept(
    requested: &CustomResourceDefinitionNames,
    mut accepted: CustomResourceDefinitionNames,
    taken: &Taken,
) -> (CustomResourceDefinitionNames, Option<Conflict>) {
    let mut conflict = None;
    let mut check = |name: &str, own: bool, reason: &'static str, taken: &BTreeSet<String>| {
        let clash = !own && taken.contains(name);
        if clash {
            conflict = Some((reason, format!("{name:?} is already in use")));
        }
        !clash
    };
    if check(&requested.plural, accepted.plural == requested.plural, "PluralConflict", &taken.resources) {
        accepted.plural.clone_from(&requested.plural);
    }
    let singular = requested.singular.as_deref().unwrap_or_default();
    if check(singular, accepted.singular == requested.singular, "SingularConflict", &taken.resources) {
        accepted.singular.clone_from(&requested.singular);
    }
    let known = accepted.short_names.clone().unwrap_or_default();
    let free = requested.short_names.iter().flatten().all(|n| check(n, known.contains(n), "ShortNamesConflict", &taken.resources));
    if free {
        accepted.short_names.clone_from(&requested.short_names);
    }
    if check(&requested.kind, accepted.kind == requested.kind, "KindConflict", &taken.kinds) {
        accepted.kind.clone_from(&requested.kind);
    }
    let list_kind = requested.list_kind.as_deref().unwrap_or_default();
    if check(list_kind, accepted.list_kind == requested.list_kind, "ListKindConflict", &taken.kinds) {
        accepted.list_kind.clone_from(&requested.list_kind);
    }
    accepted.categories.clone_from(&requested.categories);
    (accepted, conflict)
}

/// Whether a definition in one of Kubernetes' own groups has been approved.
fn approve(crd: &mut CustomResourceDefinition) {
    if !conditions::is_protected(&crd.spec.group) {
        return;
    }
    let value = crd.metadata.annotations.as_ref().and_then(|a| a.get(APPROVED)).cloned().unwrap_or_default();
    let (status, reason, message) = match value.as_str() {
        "" => (
            false,
            "MissingAnnotation",
            format!("protected groups must have approval annotation \"{APPROVED}\", see https://github.com/kubernetes/enhancements/pull/1111"),
        ),
        text if text.starts_with("unapproved") => (false, "UnapprovedAnnotation", format!("not approved: {text:?}")),
        text if text.contains("://") => (true, "ApprovedAnnotation", format!("approved in {text}")),
        text => (
            false,
            "InvalidAnnotation",
            format!(
                "protected groups must have approval annotation \"{APPROVED}\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111 (was {text:?})"
            ),
        ),
    };
    conditions::set(crd, CONFORMANT, status, reason, &message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn crd(plural: &str, kind: &str) -> CustomResourceDefinition {
        serde_json::from_value(json!({
            "metadata": {"name": format!("{plural}.g.io")},
            "spec": {"group": "g.io", "scope": "Cluster", "versions": [],
                     "names": {"plural": plural, "kind": kind, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")}}
        }))
        .unwrap()
    }

    #[test]
    fn names_that_nobody_has_are_accepted_at_once() {
        let mut first = crd("widgets", "Widget");
        decide(&mut first, &[]);
        assert!(conditions::is_true(&first, NAMES_ACCEPTED) && conditions::is_true(&first, ESTABLISHED));
        let once = first.clone();
        decide(&mut first, std::slice::from_ref(&once));
        assert_eq!(first, once, "deciding again changes nothing");
    }

    #[test]
    fn a_name_that_another_has_keeps_the_kind_from_being_served() {
        let mut first = crd("widgets", "Widget");
        decide(&mut first, &[]);
        let mut second = crd("gadgets", "Widget");
        decide(&mut second, &[first]);
        let condition = conditions::find(&second, NAMES_ACCEPTED).unwrap();
        assert_eq!((condition.status.as_str(), condition.reason.as_deref()), ("False", Some("ListKindConflict")));
        assert_eq!(condition.message.as_deref(), Some("\"WidgetList\" is already in use"));
        assert!(!conditions::is_true(&second, ESTABLISHED));
        decide(&mut second, &[]);
        assert!(conditions::is_true(&second, ESTABLISHED), "free names are taken up");
    }
}
