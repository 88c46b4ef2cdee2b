use std::collections::HashSet;

use super::*;
use crate::api::authz::rules;

fn config() -> Config {
    Config { service_ip: Ipv4Addr::new(10, 96, 0, 1), advertise_address: Ipv4Addr::new(192, 168, 1, 5), port: 6443 }
}

#[test]
fn every_line_of_the_role_tables_is_a_rule_and_every_name_is_unique() {
    let mut seen = HashSet::new();
    for role in cluster_roles() {
        let name = role.metadata.name.clone().unwrap();
        for rule in role.rules.iter().flatten() {
            assert!(!rule.verbs.is_empty(), "{name}: {rule:?}");
            let resources = rule.resources.as_ref().is_some_and(|r| !r.is_empty()) && rule.api_groups.as_ref().is_some_and(|g| !g.is_empty());
            assert!(resources != rule.non_resource_urls.is_some(), "{name}: {rule:?}");
        }
        assert!(seen.insert(name));
    }
    let names: HashSet<_> = cluster_role_bindings().into_iter().map(|b| b.metadata.name.unwrap()).collect();
    assert_eq!(names.len(), cluster_role_bindings().len());
    for binding in cluster_role_bindings() {
        assert!(seen.contains(&binding.role_ref.name), "{} refers to a role that does not exist", binding.role_ref.name);
    }
    let roles: HashSet<_> = roles().into_iter().map(|r| (r.metadata.namespace.unwrap(), r.metadata.name.unwrap())).collect();
    for binding in role_bindings() {
        assert!(roles.contains(&(binding.metadata.namespace.unwrap(), binding.role_ref.name)));
    }
}

#[test]
fn admin_covers_edit_which_covers_view() {
    let find = |name: &str| cluster_roles().into_iter().find(|r| r.metadata.name.as_deref() == Some(name)).unwrap().rules.unwrap();
    let (admin, edit, view) = (find("admin"), find("edit"), find("view"));
    assert!(rules::missing(&admin, &edit).is_empty());
    assert!(rules::missing(&edit, &view).is_empty());
    assert!(!rules::missing(&view, &edit).is_empty());
    assert!(!rules::missing(&edit, &admin).is_empty());
    assert!(!view.iter().flat_map(|r| r.resources.iter().flatten()).any(|r| r == "secrets"), "view must not read secrets");
}

#[test]
fn a_stored_default_is_its_own_fixed_point() {
    for role in cluster_roles() {
        assert_eq!(reconcile::cluster_role(&role, role.clone()), None, "{:?}", role.metadata.name);
    }
    for binding in cluster_role_bindings() {
        assert_eq!(reconcile::cluster_role_binding(&binding, binding.clone()), None);
    }
    for (wanted, stored) in roles().into_iter().zip(roles()) {
        assert_eq!(reconcile::role(&wanted, stored), None);
    }
    let endpoints = initial::endpoints(&config());
    assert_eq!(reconcile::endpoints(&endpoints, endpoints.clone()), None);
    let slice = initial::endpoint_slice(&config());
    assert_eq!(reconcile::endpoint_slice(&slice, slice.clone()), None);
    let service = initial::service(&config());
    assert_eq!(reconcile::service(&service, service.clone()), None);
}

#[test]
fn a_rule_that_was_taken_away_comes_back_and_one_that_was_added_stays() {
    let wanted = cluster_roles().into_iter().find(|r| r.metadata.name.as_deref() == Some("system:kube-dns")).unwrap();
    let mut stored = wanted.clone();
    let added = rule::parse("get | core | nodes");
    stored.rules = Some(vec![added.clone()]);
    let repaired = reconcile::cluster_role(&wanted, stored.clone()).unwrap().rules.unwrap();
    assert!(repaired.contains(&added));
    assert!(rules::missing(&repaired, wanted.rules.as_ref().unwrap()).is_empty());
    let off = [("rbac.authorization.kubernetes.io/autoupdate".to_owned(), "false".to_owned())].into();
    stored.metadata.annotations = Some(off);
    assert_eq!(reconcile::cluster_role(&wanted, stored), None);
}

#[test]
fn a_second_servers_address_joins_the_first_ones() {
    let first = initial::endpoints(&config());
    let second = initial::endpoints(&Config { advertise_address: Ipv4Addr::new(192, 168, 1, 6), ..config() });
    let joined = reconcile::endpoints(&second, first.clone()).unwrap();
    let ips: Vec<_> = joined.subsets.unwrap()[0].addresses.as_ref().unwrap().iter().map(|a| a.ip.clone()).collect();
    assert_eq!(ips, ["192.168.1.5", "192.168.1.6"]);
    let moved = initial::endpoints(&Config { port: 7443, ..config() });
    assert_eq!(reconcile::endpoints(&moved, first).unwrap().subsets, moved.subsets);
}
