use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

fn quota(hard: Value, used: Value) -> ResourceQuota {
    serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})).unwrap()
}

fn pod(containers: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})).unwrap()
}

fn small() -> Pod {
    pod(
        json!([{"name": "nginx", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}}}]),
    )
}

fn create<'a>(plural: &'a str, item: Item<'a>) -> Request<'a> {
    Request { group: "", plural, item, old: None, now: now() }
}

fn used(quota: &ResourceQuota) -> Value {
    serde_json::to_value(quota.status.as_ref().unwrap().used.as_ref().unwrap()).unwrap()
}

#[test]
fn refusals_have_upstreams_wording() {
    let bare = pod(json!([{"name": "nginx"}, {"name": "b", "resources": {"limits": {"cpu": "1"}}}]));
    for (quota, pod, message) in [
        (quota(json!({"pods": "4"}), json!({"pods": "4"})), small(), "exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4"),
        (
            quota(json!({"requests.cpu": "1", "pods": "9"}), json!({"requests.cpu": "950m", "pods": "1"})),
            small(),
            "exceeded quota: q, requested: requests.cpu=100m, used: requests.cpu=950m, limited: requests.cpu=1",
        ),
        (
            quota(json!({"limits.cpu": "2", "limits.memory": "2Gi"}), json!({"limits.cpu": "0", "limits.memory": "0"})),
            bare,
            "failed quota: q: must specify limits.cpu for: nginx; limits.memory for: b,nginx",
        ),
        (quota(json!({"pods": "4", "cpu": "1"}), json!({"pods": "0"})), small(), "status unknown for quota: q, resources: cpu,pods"),
        (
            quota(json!({"cpu": "9", "memory": "64Mi", "count/pods": "0"}), json!({"cpu": "0", "memory": "32Mi", "count/pods": "0"})),
            small(),
            "exceeded quota: q, requested: count/pods=1,memory=64Mi, used: count/pods=0,memory=32Mi, limited: count/pods=0,memory=64Mi",
        ),
    ] {
        assert_eq!(charge(&[&quota], &create("pods", Item::Pod(&pod))).unwrap_err(), message);
    }
}

#[test]
fn a_pod_is_charged_under_every_name_a_quota_may_use() {
    let hard = json!({"pods": "9", "count/pods": "9", "cpu": "9", "requests.cpu": "9", "limits.cpu": "9", "memory": "9Gi", "requests.memory": "9Gi", "limits.memory": "9Gi", "services": "1"});
    let zero: Value = hard.as_object().unwrap().keys().map(|k| (k.clone(), json!("0"))).collect::<serde_json::Map<_, _>>().into();
    let charged = charge(&[&quota(hard, zero)], &create("pods", Item::Pod(&small()))).unwrap();
    assert_eq!(
        used(&charged[0].1),
        json!({"pods": "1", "count/pods": "1", "cpu": "100m", "requests.cpu": "100m", "limits.cpu": "1", "memory": "64Mi", "requests.memory": "64Mi", "limits.memory": "1Gi", "services": "0"})
    );
}

#[test]
fn init_containers_sidecars_and_overhead_count_as_upstream_counts_them() {
    let pod: Pod = serde_json::from_value(json!({"spec": {
        "containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b", "resources": {"requests": {"cpu": "1"}}}],
        "initContainers": [
            {"name": "first", "resources": {"requests": {"cpu": "3"}}},
            {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
            {"name": "last", "resources": {"requests": {"cpu": "2900m"}}}
        ],
        "overhead": {"cpu": "100m"}
    }}))
    .unwrap();
    assert_eq!(pretty(&pod_requests(pod.spec.as_ref().unwrap())), "cpu=3500m");
}

#[test]
fn gpus_huge_pages_and_ended_pods() {
    let gpu = pod(json!([{"name": "c", "resources": {"requests": {"nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"}}}]));
    let quota = quota(
        json!({"requests.nvidia.com/gpu": "3", "hugepages-2Mi": "8Mi", "pods": "1", "count/pods": "5"}),
        json!({"requests.nvidia.com/gpu": "1", "hugepages-2Mi": "0", "pods": "0", "count/pods": "1"}),
    );
    let charged = charge(&[&quota], &create("pods", Item::Pod(&gpu))).unwrap();
    assert_eq!(used(&charged[0].1), json!({"requests.nvidia.com/gpu": "3", "hugepages-2Mi": "4Mi", "pods": "1", "count/pods": "2"}));
    let mut ended = gpu;
    ended.status.get_or_insert_default().phase = Some("Succeeded".into());
    assert_eq!(pretty(&usage("", "pods", Item::Pod(&ended), now())), "count/pods=1");
}

#[test]
fn services_claims_and_counts() {
    let service = |spec: Value| serde_json::from_value::<Service>(json!({"spec": spec})).unwrap();
    let ports = json!([{"port": 80}, {"port": 443, "nodePort": 30443}]);
    for (spec, expected) in [
        (json!({"type": "ClusterIP", "ports": ports}), "count/services=1,services=1,services.loadbalancers=0,services.nodeports=0"),
        (json!({"type": "NodePort", "ports": ports}), "count/services=1,services=1,services.loadbalancers=0,services.nodeports=2"),
        (json!({"type": "LoadBalancer", "ports": ports}), "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"),
        (
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": ports}),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1",
        ),
    ] {
        assert_eq!(pretty(&usage("", "services", Item::Service(&service(spec)), now())), expected);
    }
    let claim: PersistentVolumeClaim =
        serde_json::from_value(json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}})).unwrap();
    assert_eq!(
        pretty(&usage("", "persistentvolumeclaims", Item::Claim(&claim), now())),
        "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/requests.storage=5Gi,persistentvolumeclaims=1,requests.storage=5Gi"
    );
    assert_eq!(pretty(&usage("", "configmaps", Item::Other, now())), "configmaps=1,count/configmaps=1");
    assert_eq!(pretty(&usage("apps", "deployments", Item::Other, now())), "count/deployments.apps=1");
}

#[test]
fn an_update_pays_the_difference_and_never_gets_any_back() {
    let claim =
        |size: &str| -> PersistentVolumeClaim { serde_json::from_value(json!({"spec": {"resources": {"requests": {"storage": size}}}})).unwrap() };
    let quota =
        quota(json!({"requests.storage": "10Gi", "persistentvolumeclaims": "1"}), json!({"requests.storage": "5Gi", "persistentvolumeclaims": "1"}));
    let (old, bigger, smaller, huge) = (claim("5Gi"), claim("8Gi"), claim("1Gi"), claim("11Gi"));
    let update = |new| Request { old: Some(Item::Claim(&old)), ..create("persistentvolumeclaims", Item::Claim(new)) };
    assert_eq!(used(&charge(&[&quota], &update(&bigger)).unwrap()[0].1), json!({"requests.storage": "8Gi", "persistentvolumeclaims": "1"}));
    assert!(charge(&[&quota], &update(&smaller)).unwrap().is_empty());
    assert!(charge(&[&quota], &update(&huge)).unwrap_err().contains("requested: requests.storage=6Gi, used: requests.storage=5Gi"));
}

#[test]
fn scopes_select_the_pods_they_name() {
    let best_effort = pod(json!([{"name": "c"}]));
    let mut deadline = small();
    deadline.spec.as_mut().unwrap().active_deadline_seconds = Some(5);
    let mut high = small();
    high.spec.as_mut().unwrap().priority_class_name = Some("high".into());
    let scoped = |spec: Value| -> ResourceQuota {
        let mut spec = spec;
        spec["hard"] = json!({"pods": "1"});
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}})).unwrap()
    };
    let priority = |operator: &str, values: Value| {
        scoped(json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}))
    };
    for (quota, expected) in [
        (scoped(json!({})), [true, true, true]),
        (scoped(json!({"scopes": ["BestEffort"]})), [true, false, false]),
        (scoped(json!({"scopes": ["NotBestEffort"]})), [false, true, true]),
        (scoped(json!({"scopes": ["Terminating"]})), [false, true, false]),
        (scoped(json!({"scopes": ["NotTerminating", "NotBestEffort"]})), [false, false, true]),
        (scoped(json!({"scopes": ["CrossNamespacePodAffinity"]})), [false, false, false]),
        (priority("In", json!(["high"])), [false, false, true]),
        (priority("NotIn", json!(["high"])), [true, true, false]),
        (priority("Exists", json!(null)), [false, false, true]),
        (priority("DoesNotExist", json!(null)), [true, true, false]),
    ] {
        let found = [&best_effort, &deadline, &high].map(|p| matches(&quota, "", "pods", Item::Pod(p)));
        assert_eq!(found, expected, "{:?}", quota.spec);
    }
    let service = Service::default();
    assert!(!matches(&scoped(json!({"scopes": ["NotTerminating"]})), "", "services", Item::Service(&service)));
}

proptest! {
    /// However requests come, what is used never passes what is hard, and each accepted one is paid for exactly.
    #[test]
    fn use_never_exceeds_the_limit(limit in 0i64..40, sizes in proptest::collection::vec(1i64..12, 0..30)) {
        let mut quota = quota(json!({"requests.storage": limit.to_string()}), json!({"requests.storage": "0"}));
        let mut paid = 0;
        for size in sizes {
            let claim: PersistentVolumeClaim = serde_json::from_value(json!({"spec": {"resources": {"requests": {"storage": size.to_string()}}}})).unwrap();
            match charge(&[&quota], &create("persistentvolumeclaims", Item::Claim(&claim))) {
                Ok(changed) => {
                    quota = changed.into_iter().next().unwrap().1;
                    paid += size;
                }
                Err(_) => prop_assert!(paid + size > limit),
            }
            let used = amounts(quota.status.as_ref().unwrap().used.as_ref())["requests.storage"].value();
            prop_assert_eq!(used, paid);
            prop_assert!(used <= limit);
        }
    }
}
