//! Role-based access control over tables indexed by subject (`plugin/pkg/auth/authorizer/rbac/rbac.go`).
//!
//! A decision looks only at the bindings of the user and of its groups, and allocates nothing until it has something to say.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

use super::{Access, rules};
use crate::api::user::User;

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug)]
pub(super) struct Binding {
    name: String,
    /// Empty for a ClusterRoleBinding.
    namespace: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Bindings by whom they name.
#[derive(Debug, Default)]
struct Subjects {
    /// Users and ServiceAccounts, by user name.
    users: HashMap<String, Vec<Arc<Binding>>>,
    groups: HashMap<String, Vec<Arc<Binding>>>,
    by_name: HashMap<String, Arc<Binding>>,
}

/// Every role and binding.
#[derive(Debug, Default)]
pub(super) struct Tables {
    cluster_roles: HashMap<String, Vec<PolicyRule>>,
    /// By namespace, then name.
    roles: HashMap<String, HashMap<String, Vec<PolicyRule>>>,
    /// By namespace; `""` holds the ClusterRoleBindings.
    bindings: HashMap<String, Subjects>,
}

fn service_account_name(subject: &Subject, namespace: &str) -> Option<String> {
    let namespace = subject.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace);
    (!namespace.is_empty()).then(|| format!("system:serviceaccount:{namespace}:{}", subject.name))
}

impl Subjects {
    fn slot(&mut self, subject: &Subject, namespace: &str) -> Option<&mut Vec<Arc<Binding>>> {
        match subject.kind.as_str() {
            "User" => Some(self.users.entry(subject.name.clone()).or_default()),
            "Group" => Some(self.groups.entry(subject.name.clone()).or_default()),
            "ServiceAccount" => service_account_name(subject, namespace).map(|name| self.users.entry(name).or_default()),
            _ => None,
        }
    }

    fn remove(&mut self, name: &str) {
        let Some(old) = self.by_name.remove(name) else { return };
        for subject in &old.subjects {
            if let Some(slot) = self.slot(subject, &old.namespace) {
                slot.retain(|b| !Arc::ptr_eq(b, &old));
            }
        }
        self.users.retain(|_, b| !b.is_empty());
        self.groups.retain(|_, b| !b.is_empty());
    }

    fn insert(&mut self, binding: Binding) {
        let binding = Arc::new(binding);
        for subject in &binding.subjects {
            if let Some(slot) = self.slot(subject, &binding.namespace)
                && !slot.iter().any(|b| Arc::ptr_eq(b, &binding))
            {
                slot.push(binding.clone());
            }
        }
        self.by_name.insert(binding.name.clone(), binding);
    }

    /// The bindings that name a user or one of its groups.
    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Arc<Binding>> {
        let direct = self.users.get(&user.name).into_iter().flatten();
        direct.chain(user.groups.iter().filter_map(|g| self.groups.get(g)).flatten())
    }
}

impl Binding {
    /// `ClusterRoleBinding "x" of ClusterRole "y" to Group "z"`
    pub(super) fn describe(&self, user: &User) -> String {
        let (kind, name) = if self.namespace.is_empty() {
            ("ClusterRoleBinding", self.name.clone())
        } else {
            ("RoleBinding", format!("{}/{}", self.name, self.namespace))
        };
        let applies = |s: &&Subject| match s.kind.as_str() {
            "User" => s.name == user.name,
            "Group" => user.in_group(&s.name),
            _ => service_account_name(s, &self.namespace).is_some_and(|n| n == user.name),
        };
        let subject = self.subjects.iter().find(applies).map_or_else(String::new, |s| match s.kind.as_str() {
            "ServiceAccount" => {
                let namespace = s.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(&self.namespace);
                format!("ServiceAccount {:?}", format!("{}/{namespace}", s.name))
            }
            kind => format!("{kind} {:?}", s.name),
        });
        format!("{kind} {name:?} of {} {:?} to {subject}", self.role.kind, self.role.name)
    }
}

impl Tables {
    pub(super) fn set_cluster_role(&mut self, name: &str, rules: Option<Vec<PolicyRule>>) {
        match rules {
            Some(rules) => self.cluster_roles.insert(name.to_owned(), rules),
            None => self.cluster_roles.remove(name),
        };
    }

    pub(super) fn set_role(&mut self, namespace: &str, name: &str, rules: Option<Vec<PolicyRule>>) {
        let roles = self.roles.entry(namespace.to_owned()).or_default();
        match rules {
            Some(rules) => roles.insert(name.to_owned(), rules),
            None => roles.remove(name),
        };
        if roles.is_empty() {
            self.roles.remove(namespace);
        }
    }

    pub(super) fn set_binding(&mut self, namespace: &str, name: &str, binding: Option<(RoleRef, Vec<Subject>)>) {
        let subjects = self.bindings.entry(namespace.to_owned()).or_default();
        subjects.remove(name);
        if let Some((role, to)) = binding {
            subjects.insert(Binding { name: name.to_owned(), namespace: namespace.to_owned(), role, subjects: to });
        }
        if subjects.by_name.is_empty() {
            self.bindings.remove(namespace);
        }
    }

    /// The rules behind a role reference.
    ///
    /// # Errors
    /// Upstream's `not found` text.
    pub(super) fn resolve(&self, role: &RoleRef, namespace: &str) -> Result<&[PolicyRule], String> {
        match role.kind.as_str() {
            "Role" => self.roles.get(namespace).and_then(|r| r.get(&role.name)).map(Vec::as_slice).ok_or_else(|| missing_role("role", &role.name)),
            "ClusterRole" => self.cluster_roles.get(&role.name).map(Vec::as_slice).ok_or_else(|| missing_role("clusterrole", &role.name)),
            kind => Err(format!("unsupported role reference kind: {kind:?}")),
        }
    }

    fn bindings_of<'a>(&'a self, user: &'a User, namespace: &str) -> impl Iterator<Item = &'a Arc<Binding>> {
        let cluster = self.bindings.get("").into_iter();
        let local = (!namespace.is_empty()).then(|| self.bindings.get(namespace)).flatten().into_iter();
        cluster.chain(local).flat_map(|s| s.of(user))
    }

    /// The binding that allows something; otherwise why none could be asked, if that is so.
    pub(super) fn allowing<'a>(&'a self, user: &'a User, access: &Access<'_>) -> Result<&'a Binding, String> {
        let mut errors = Vec::new();
        for binding in self.bindings_of(user, access.namespace) {
            match self.resolve(&binding.role, &binding.namespace) {
                Ok(found) => {
                    if found.iter().any(|rule| rules::allows(rule, access)) {
                        return Ok(binding);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        errors.sort_unstable();
        errors.dedup();
        Err(match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// Every rule of a user in a namespace, and what could not be resolved.
    pub(super) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut found, mut errors) = (Vec::new(), Vec::new());
        for binding in self.bindings_of(user, namespace) {
            match self.resolve(&binding.role, &binding.namespace) {
                Ok(rules) => found.extend_from_slice(rules),
                Err(error) => errors.push(error),
            }
        }
        (found, errors)
    }
}

fn missing_role(resource: &str, name: &str) -> String {
    format!("{resource}.rbac.authorization.k8s.io {name:?} not found")
}
