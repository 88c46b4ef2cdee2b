//! The whole chain of plugins over a real etcd, with the default objects seeded.

mod hook;
mod policies;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ResourceQuota, ServiceAccount};
use serde_json::{Value, json};
use shared::status::ApiError;

use super::Admission;
use crate::api::authn::{Authenticator, Peer, TokenIssuer, token_request};
use crate::api::authz::{Access, Authorizer};
use crate::api::objects::Reader;
use crate::api::user::User;
use crate::cache::Cache;
use crate::registry::admit::AdmitAll;
use crate::registry::bootstrap;
use crate::registry::store::{Config, Current, DeleteOptions, Store, WriteOptions};
use crate::registry::{ApiObject, Object, RESOURCES, Ranges, Resource};
use crate::storage::testing::Etcd;
use crate::tasks::Tasks;

struct World {
    store: Store,
    reader: Reader,
    authorizer: Arc<Authorizer>,
    admission: Arc<Admission>,
    tasks: Tasks,
    _etcd: Etcd,
}

fn row<T: ApiObject>() -> &'static Resource {
    RESOURCES.of::<T>().unwrap()
}

fn admin() -> User {
    User::new("admin", &["system:masters"])
}

fn from<T: ApiObject>(json: Value) -> T {
    let mut json = json;
    json["apiVersion"] = T::API_VERSION.into();
    json["kind"] = T::KIND.into();
    serde_json::from_value(json).unwrap()
}

impl World {
    async fn start() -> Self {
        let etcd = Etcd::start().await;
        let tasks = Tasks::new();
        let storage = etcd.storage(&tasks).await;
        let cache = Cache::start(&RESOURCES, storage.clone(), &tasks);
        let ranges = Ranges { service_network: [10, 96, 0, 0].into(), service_prefix: 24, node_ports: (30000, 32767) };
        let config = Config { ranges, event_ttl: Duration::from_secs(3600) };
        let authorizer = Arc::new(Authorizer::new());
        authorizer.follow(&cache, &tasks).await.unwrap();
        let reader = Reader::new(Arc::new(cache.clone()));
        let admission = Arc::new(Admission::new(reader.clone(), authorizer.clone()));
        let store = Store::new(&RESOURCES, storage, cache, config);
        let world = World { store, reader, authorizer, admission, tasks, _etcd: etcd };
        world.seed().await;
        world
    }

    async fn seed(&self) {
        let config = bootstrap::Config { service_ip: [10, 96, 0, 1].into(), advertise_address: [192, 168, 1, 5].into(), port: 6443 };
        bootstrap::ensure(&self.store, &config).await.unwrap();
        self.refresh().await;
    }

    async fn refresh(&self) {
        self.reader.objects().refresh().await.unwrap();
    }

    async fn create_as<T: ApiObject>(&self, user: &User, namespace: &str, json: Value) -> Result<T, ApiError> {
        let object = Object::new(from::<T>(json));
        let written = self.store.create(row::<T>(), namespace, object, &WriteOptions::new(user), &*self.admission).await?;
        Ok(serde_json::from_slice(&written.entry.bytes).unwrap())
    }

    async fn create<T: ApiObject>(&self, namespace: &str, json: Value) -> Result<T, ApiError> {
        self.create_as(&admin(), namespace, json).await
    }

    /// Stores an object as a controller would, past admission.
    async fn put<T: ApiObject>(&self, namespace: &str, json: Value) {
        let object = Object::new(from::<T>(json));
        self.store.create(row::<T>(), namespace, object, &WriteOptions::new(&admin()), &AdmitAll).await.unwrap();
        self.refresh().await;
    }

    /// Writes an object as it stands, past validation too: what an older server may have stored.
    async fn put_unchecked<T: ApiObject>(&self, namespace: &str, json: Value) {
        let object = Object::new(from::<T>(json));
        let key = row::<T>().key(namespace, object.name());
        let value = Some(object.encode().unwrap().into());
        let write = crate::storage::Write { key, expect: crate::storage::Expect::Absent, value, lease: 0 };
        self.store.storage().commit(&[write]).await.unwrap();
        self.refresh().await;
    }

    async fn update_as<T: ApiObject>(
        &self,
        user: &User,
        namespace: &str,
        name: &str,
        subresource: &str,
        change: impl Fn(&mut T) + Send + Sync,
    ) -> Result<T, ApiError> {
        let change = |current: Option<&Current>| {
            let mut object = current.unwrap().object.clone();
            change(object.downcast_mut::<T>().unwrap());
            Ok(object.into())
        };
        let options = WriteOptions { subresource, ..WriteOptions::new(user) };
        let written = self.store.update(row::<T>(), namespace, name, &options, &change, &*self.admission).await?;
        Ok(serde_json::from_slice(&written.entry.bytes).unwrap())
    }

    async fn delete_as<T: ApiObject>(&self, user: &User, namespace: &str, name: &str) -> Result<(), ApiError> {
        self.store.delete(row::<T>(), namespace, name, &DeleteOptions::default(), user, &*self.admission).await.map(|_| ())
    }

    async fn get<T: ApiObject>(&self, namespace: &str, name: &str) -> T {
        let entry = self.store.get(row::<T>(), namespace, name, "").await.unwrap();
        serde_json::from_slice(&entry.bytes).unwrap()
    }

    /// A namespace with its default ServiceAccount.
    async fn namespace(&self, name: &str) {
        self.put::<Namespace>("", json!({"metadata": {"name": name}})).await;
        self.put::<ServiceAccount>(name, json!({"metadata": {"name": "default", "namespace": name}})).await;
    }

    /// Waits until the authorizer has heard of everything that is stored.
    async fn settled(&self, user: &User, access: &Access<'_>) {
        let seen = async {
            while !self.authorizer.authorize(user, access).allowed {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the authorizer hears of new bindings");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "nginx", "image": "nginx"}]}})
}

fn message<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn the_default_objects_are_seeded_once_and_a_second_start_writes_nothing() {
    let world = World::start().await;
    let revision = world.store.storage().revision().await.unwrap();
    world.seed().await;
    assert_eq!(world.store.storage().revision().await.unwrap(), revision, "nothing is written when nothing is missing");
    let service: k8s_openapi::api::core::v1::Service = world.get("default", "kubernetes").await;
    assert_eq!(service.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
    for (user, verb, group, resource, namespace, allowed) in [
        (User::new("a", &["kubeadm:cluster-admins"]), "delete", "", "nodes", "", true),
        (User::new("system:kube-scheduler", &[]), "create", "", "pods", "x", false),
        (User::new("system:kube-scheduler", &[]), "get", "", "nodes", "", true),
        (User::new("system:kube-controller-manager", &[]), "list", "batch", "jobs", "", true),
        (User::new("system:serviceaccount:kube-system:replicaset-controller", &[]), "create", "", "pods", "x", true),
        (User::new("a", &[]), "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", true),
        (User::new("a", &[]), "list", "", "pods", "default", false),
        (User::anonymous(), "get", "", "pods", "default", false),
    ] {
        let decision = world.authorizer.authorize(&user, &Access::resource(verb, group, resource, namespace, ""));
        assert_eq!(decision.allowed, allowed, "{} {verb} {resource}", user.name);
    }
}

#[tokio::test]
async fn a_pod_gets_its_account_token_priority_and_tolerations() {
    let world = World::start().await;
    world.namespace("ns").await;
    let created: Pod = world.create("ns", pod("p")).await.unwrap();
    let spec = created.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    let volume = &spec.volumes.as_ref().unwrap()[0];
    assert!(volume.name.starts_with("kube-api-access-") && volume.name.len() == "kube-api-access-".len() + 5);
    assert_eq!(
        serde_json::to_value(volume.projected.as_ref().unwrap()).unwrap(),
        json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}
        ]})
    );
    let mount = &spec.containers[0].volume_mounts.as_ref().unwrap()[0];
    assert_eq!((mount.mount_path.as_str(), mount.read_only), ("/var/run/secrets/kubernetes.io/serviceaccount", Some(true)));
    assert_eq!((spec.priority, spec.preemption_policy.as_deref()), (Some(0), Some("PreemptLowerPriority")));
    let tolerations: Vec<_> = spec.tolerations.unwrap().into_iter().map(|t| (t.key.unwrap(), t.toleration_seconds)).collect();
    assert_eq!(tolerations, [("node.kubernetes.io/not-ready".to_owned(), Some(300)), ("node.kubernetes.io/unreachable".to_owned(), Some(300))]);

    let mut critical = pod("critical");
    critical["spec"]["priorityClassName"] = "system-node-critical".into();
    critical["spec"]["automountServiceAccountToken"] = false.into();
    let spec = world.create::<Pod>("ns", critical).await.unwrap().spec.unwrap();
    assert_eq!((spec.priority, spec.volumes.unwrap_or_default().len()), (Some(2_000_001_000), 0));
    for (field, value, expected) in [
        ("priorityClassName", json!("gone"), "pods \"bad\" is forbidden: no PriorityClass with name gone was found"),
        (
            "serviceAccountName",
            json!("gone"),
            "pods \"bad\" is forbidden: error looking up service account ns/gone: serviceaccount \"gone\" not found",
        ),
        (
            "priority",
            json!(7),
            "pods \"bad\" is forbidden: the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 0 from the given PriorityClass name",
        ),
    ] {
        let mut bad = pod("bad");
        bad["spec"][field] = value;
        assert_eq!(message(world.create::<Pod>("ns", bad).await), expected);
    }
}

#[tokio::test]
async fn a_pod_waits_for_the_default_account_of_a_namespace_that_was_just_made() {
    let world = World::start().await;
    world.put::<Namespace>("", json!({"metadata": {"name": "new"}})).await;
    let account = async { world.put::<ServiceAccount>("new", json!({"metadata": {"name": "default", "namespace": "new"}})).await };
    let (created, ()) = tokio::join!(world.create::<Pod>("new", pod("p")), account);
    created.unwrap();
}

#[tokio::test]
async fn namespaces_must_exist_and_live_and_the_systems_stay() {
    let world = World::start().await;
    assert_eq!(message(world.create::<ConfigMap>("gone", json!({"metadata": {"name": "c"}})).await), "namespaces \"gone\" not found");
    world.put::<Namespace>("", json!({"metadata": {"name": "ending", "finalizers": ["example.com/hold"]}})).await;
    world.create::<ConfigMap>("ending", json!({"metadata": {"name": "c"}})).await.unwrap();
    world.delete_as::<Namespace>(&admin(), "", "ending").await.unwrap();
    world.refresh().await;
    let error = world.create::<ConfigMap>("ending", json!({"metadata": {"name": "d"}})).await.unwrap_err();
    assert_eq!(error.to_string(), "configmaps \"d\" is forbidden: unable to create new content in namespace ending because it is being terminated");
    assert_eq!(error.0.details.unwrap().causes.unwrap()[0].reason.as_deref(), Some("NamespaceTerminating"));
    for name in ["default", "kube-system", "kube-public"] {
        let refused = message(world.delete_as::<Namespace>(&admin(), "", name).await);
        assert_eq!(refused, format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"));
    }
}

#[tokio::test]
async fn limit_ranges_fill_in_defaults_and_refuse_what_is_out_of_bounds() {
    use k8s_openapi::api::core::v1::LimitRange;
    let world = World::start().await;
    world.namespace("ns").await;
    let limits = json!([{"type": "Container", "default": {"cpu": "500m", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "800m"}, "min": {"cpu": "50m"}, "maxLimitRequestRatio": {"cpu": "6"}}]);
    world.put::<LimitRange>("ns", json!({"metadata": {"name": "l", "namespace": "ns"}, "spec": {"limits": limits}})).await;
    let created: Pod = world.create("ns", pod("p")).await.unwrap();
    let resources = serde_json::to_value(created.spec.unwrap().containers[0].resources.as_ref().unwrap()).unwrap();
    assert_eq!(resources["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(resources["requests"]["cpu"], "100m");
    let note = &created.metadata.annotations.unwrap()["kubernetes.io/limit-ranger"];
    assert!(note.starts_with("LimitRanger plugin set: cpu") && note.ends_with("cpu, memory limit for container nginx"), "{note}");
    for (resources, expected) in [
        (json!({"limits": {"cpu": "1500m"}, "requests": {"cpu": "500m"}}), "maximum cpu usage per Container is 800m, but limit is 1500m"),
        (
            json!({"limits": {"cpu": "100m"}, "requests": {"cpu": "10m"}}),
            "[minimum cpu usage per Container is 50m, but request is 10m, cpu max limit to request ratio per Container is 6, but provided ratio is 10.000000]",
        ),
    ] {
        let mut bad = pod("bad");
        bad["spec"]["containers"][0]["resources"] = resources;
        assert_eq!(message(world.create::<Pod>("ns", bad).await), format!("pods \"bad\" is forbidden: {expected}"));
    }
}

#[tokio::test]
async fn many_writers_at_once_never_exceed_a_quota_and_its_use_is_exact() {
    let world = Arc::new(World::start().await);
    world.namespace("ns").await;
    let hard = json!({"configmaps": "20", "count/secrets": "5"});
    world.put::<ResourceQuota>("ns", json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard}})).await;
    let status = json!({"hard": hard, "used": {"configmaps": "0", "count/secrets": "0"}});
    let set = |q: &mut ResourceQuota| q.status = serde_json::from_value(status.clone()).unwrap();
    world.update_as::<ResourceQuota>(&admin(), "ns", "q", "status", set).await.unwrap();
    world.refresh().await;
    let writers = (0..50).map(|i| {
        let world = world.clone();
        tokio::spawn(async move { world.create::<ConfigMap>("ns", json!({"metadata": {"name": format!("c{i}")}})).await.map(|_| ()) })
    });
    // Someone else keeps writing the quota meanwhile, as its controller does.
    let meddler = tokio::spawn({
        let world = world.clone();
        async move {
            for i in 0..10 {
                let label = |q: &mut ResourceQuota| drop(q.metadata.labels.get_or_insert_default().insert("n".into(), i.to_string()));
                world.update_as::<ResourceQuota>(&admin(), "ns", "q", "", label).await.unwrap();
            }
        }
    });
    let outcomes = futures::future::join_all(writers).await;
    meddler.await.unwrap();
    let (accepted, refused): (Vec<_>, Vec<_>) = outcomes.into_iter().map(Result::unwrap).partition(Result::is_ok);
    assert_eq!((accepted.len(), refused.len()), (20, 30));
    for error in refused {
        let text = message(error);
        assert!(text.ends_with("is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=20, limited: configmaps=20"), "{text}");
    }
    let quota: ResourceQuota = world.get("ns", "q").await;
    assert_eq!(quota.status.unwrap().used.unwrap()["configmaps"].0, "20");
    assert_eq!(world.store.cache().list(row::<ConfigMap>(), "ns").unwrap().len(), 20);

    // A release is heard of at once; a dry run is checked but not charged.
    let release = |q: &mut ResourceQuota| {
        drop(q.status.as_mut().unwrap().used.as_mut().unwrap().insert("configmaps".into(), serde_json::from_value(json!("19")).unwrap()))
    };
    world.update_as::<ResourceQuota>(&admin(), "ns", "q", "status", release).await.unwrap();
    let (user, object) = (admin(), from::<ConfigMap>(json!({"metadata": {"name": "late"}})));
    let dry = WriteOptions { dry_run: true, ..WriteOptions::new(&user) };
    for _ in 0..2 {
        world.store.create(row::<ConfigMap>(), "ns", Object::new(object.clone()), &dry, &*world.admission).await.unwrap();
    }
    world.create::<ConfigMap>("ns", json!({"metadata": {"name": "late"}})).await.unwrap();
    let over = world
        .store
        .create(row::<ConfigMap>(), "ns", Object::new(from::<ConfigMap>(json!({"metadata": {"name": "later"}}))), &dry, &*world.admission)
        .await;
    assert!(over.is_err());
}

#[tokio::test]
async fn nobody_grants_what_they_do_not_hold() {
    use k8s_openapi::api::rbac::v1::{ClusterRole, Role, RoleBinding};
    let world = World::start().await;
    world.namespace("ns").await;
    let subjects = json!([{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}]);
    let binding = |name: &str, role: &str| json!({"metadata": {"name": name, "namespace": "ns"}, "subjects": subjects, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}});
    world.create::<RoleBinding>("ns", binding("ann-admin", "admin")).await.unwrap();
    let ann = User::new("ann", &[]);
    world.settled(&ann, &Access::resource("create", "rbac.authorization.k8s.io", "roles", "ns", "")).await;
    let role = |resource: &str| json!({"metadata": {"name": "r", "namespace": "ns"}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get", "list"]}]});
    world.create_as::<Role>(&ann, "ns", role("pods")).await.unwrap();
    let mut grant = role("nodes");
    grant["metadata"]["name"] = "r2".into();
    assert_eq!(
        message(world.create_as::<Role>(&ann, "ns", grant).await),
        "roles.rbac.authorization.k8s.io \"r2\" is forbidden: user \"ann\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}"
    );
    world.create_as::<RoleBinding>(&ann, "ns", binding("view", "view")).await.unwrap();
    assert!(message(world.create_as::<RoleBinding>(&ann, "ns", binding("root", "cluster-admin")).await).contains("permissions not currently held"));
    assert_eq!(
        message(world.create_as::<RoleBinding>(&ann, "ns", binding("none", "gone")).await),
        "clusterroles.rbac.authorization.k8s.io \"gone\" not found"
    );
    let changed = world.update_as::<RoleBinding>(&admin(), "ns", "view", "", |b| b.role_ref.name = "edit".into()).await;
    assert!(message(changed).ends_with("cannot change roleRef"));
    let aggregated = json!({"metadata": {"name": "agg"}, "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}});
    assert!(
        message(world.create_as::<ClusterRole>(&ann, "", aggregated).await).ends_with("must have cluster-admin privileges to use an aggregationRule")
    );
}

#[tokio::test]
async fn a_token_is_good_while_what_it_is_bound_to_lives() {
    let world = World::start().await;
    world.namespace("ns").await;
    world.put::<ServiceAccount>("ns", json!({"metadata": {"name": "sa", "namespace": "ns"}})).await;
    let mut spec = pod("p");
    spec["spec"]["serviceAccountName"] = "sa".into();
    spec["spec"]["nodeName"] = "n1".into();
    let created: Pod = world.create("ns", spec).await.unwrap();
    world.refresh().await;
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let audience = "https://kubernetes.default.svc.cluster.local".to_owned();
    let issuer = Arc::new(TokenIssuer::new(&audience, std::slice::from_ref(&audience), &[key]).unwrap());
    let authenticator = Authenticator::new(world.reader.clone(), issuer.clone());
    let request = |spec: Value| serde_json::from_value(json!({"spec": spec})).unwrap();
    let issue = |spec: Value| token_request::create(&world.reader, &issuer, "ns", "sa", request(spec));
    let authenticate = async |token: &str| {
        let mut request = http::Request::get("/api").body(()).unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request.extensions_mut().insert(Peer::Tls(None));
        authenticator.authenticate(&request.into_parts().0).await
    };
    let token = |answer: Result<k8s_openapi::api::authentication::v1::TokenRequest, ApiError>| answer.unwrap().status.unwrap().token.unwrap();
    let uid = created.metadata.uid.unwrap();
    let bound =
        token(issue(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": uid}, "expirationSeconds": 3607})).await);
    let user = authenticate(&bound).await.unwrap();
    assert_eq!((user.name.as_str(), user.in_group("system:serviceaccounts:ns")), ("system:serviceaccount:ns:sa", true));
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(user.extra["authentication.kubernetes.io/node-name"], ["n1"]);
    let plain = token(issue(json!({})).await);
    let foreign = token(issue(json!({"audiences": ["vault"]})).await);
    assert!(authenticate(&plain).await.is_ok());
    for bad in [foreign.as_str(), "garbage", "a.b.c", &plain[..plain.len() - 4], ""] {
        assert_eq!(authenticate(bad).await.unwrap_err().code(), 401, "{bad}");
    }
    let review = authenticator.review(&serde_json::from_value(json!({"token": foreign, "audiences": ["vault", "x"]})).unwrap()).await.unwrap();
    assert_eq!((review.authenticated, review.audiences.unwrap()), (Some(true), vec!["vault".to_owned()]));
    assert_eq!(issue(json!({"expirationSeconds": 60})).await.unwrap_err().code(), 422);
    assert_eq!(issue(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "other"}})).await.unwrap_err().code(), 409);
    assert_eq!(issue(json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "gone"}})).await.unwrap_err().code(), 404);

    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    world.store.delete(row::<Pod>(), "ns", "p", &options, &admin(), &AdmitAll).await.unwrap();
    world.refresh().await;
    assert_eq!(authenticate(&bound).await.unwrap_err().code(), 401, "the pod is gone");
    assert!(authenticate(&plain).await.is_ok());
    world.delete_as::<ServiceAccount>(&admin(), "ns", "sa").await.unwrap();
    world.put::<ServiceAccount>("ns", json!({"metadata": {"name": "sa", "namespace": "ns"}})).await;
    assert_eq!(authenticate(&plain).await.unwrap_err().code(), 401, "the account is another one now");
}

#[tokio::test]
async fn without_credentials_only_health_is_open() {
    let world = World::start().await;
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let authenticator = Authenticator::new(world.reader.clone(), Arc::new(TokenIssuer::new("i", &["i".to_owned()], &[key]).unwrap()));
    for (path, open) in [
        ("/healthz", true),
        ("/livez/etcd", true),
        ("/readyz", true),
        ("/healthzz", false),
        ("/version", false),
        ("/api", false),
        ("/apis", false),
        ("/metrics", false),
        ("/", false),
    ] {
        let parts = http::Request::get(path).body(()).unwrap().into_parts().0;
        assert_eq!(authenticator.authenticate(&parts).await.is_ok(), open, "{path}");
    }
    let parts = http::Request::get("/healthz").header("authorization", "Basic eDp5").body(()).unwrap().into_parts().0;
    assert_eq!(authenticator.authenticate(&parts).await.unwrap_err().code(), 401, "wrong credentials are not anonymous");
}

#[tokio::test]
async fn a_kubelet_writes_only_what_is_its_own() {
    let world = World::start().await;
    world.namespace("ns").await;
    let node = User::new("system:node:n1", &["system:nodes"]);
    let own = world.create_as::<Node>(&node, "", json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}})).await.unwrap();
    assert_eq!(own.spec.unwrap().taints.unwrap()[0].key, "node.kubernetes.io/not-ready");
    assert_eq!(
        message(world.create_as::<Node>(&node, "", json!({"metadata": {"name": "n2"}})).await),
        "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\""
    );
    let untaint = |n: &mut Node| n.spec.as_mut().unwrap().taints = None;
    assert!(message(world.update_as::<Node>(&node, "", "n1", "", untaint).await).ends_with("node \"n1\" is not allowed to modify taints"));
    let label = |n: &mut Node| drop(n.metadata.labels.as_mut().unwrap().insert("node-role.kubernetes.io/x".into(), String::new()));
    assert!(
        message(world.update_as::<Node>(&node, "", "n1", "", label).await).contains("is not allowed to modify labels: node-role.kubernetes.io/x")
    );
    for (name, on) in [("mine", "n1"), ("theirs", "n2")] {
        let mut spec = pod(name);
        spec["spec"]["nodeName"] = on.into();
        spec["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": format!("{name}-secret")}}]);
        world.create::<Pod>("ns", spec).await.unwrap();
    }
    let phase = |p: &mut Pod| p.status.get_or_insert_default().phase = Some("Running".into());
    world.update_as::<Pod>(&node, "ns", "mine", "status", phase).await.unwrap();
    assert!(
        message(world.update_as::<Pod>(&node, "ns", "theirs", "status", phase).await)
            .contains("can only update pod status for pods with spec.nodeName set to itself")
    );
    assert!(message(world.delete_as::<Pod>(&node, "ns", "theirs").await).contains("can only delete pods with spec.nodeName set to itself"));
    assert!(message(world.create_as::<Pod>(&node, "ns", pod("plain")).await).contains("can only create mirror pods"));
    world.settled(&node, &Access::resource("get", "", "secrets", "ns", "mine-secret")).await;
    let decision = world.authorizer.authorize(&node, &Access::resource("get", "", "secrets", "ns", "theirs-secret"));
    assert_eq!((decision.allowed, decision.reason.as_str()), (false, "no relationship found between node 'n1' and this object"));
}

#[tokio::test]
async fn a_restricted_namespace_refuses_and_warns() {
    use k8s_openapi::api::apps::v1::Deployment;
    let world = World::start().await;
    world.namespace("ns").await;
    let labels = |n: &mut Namespace| {
        n.metadata.labels =
            serde_json::from_value(json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}))
                .unwrap()
    };
    world.create::<Pod>("ns", pod("old")).await.unwrap();
    world.refresh().await;
    let change = |current: Option<&Current>| {
        let mut object = current.unwrap().object.clone();
        labels(object.downcast_mut().unwrap());
        Ok(object.into())
    };
    let written = world.store.update(row::<Namespace>(), "", "ns", &WriteOptions::new(&admin()), &change, &*world.admission).await.unwrap();
    assert_eq!(written.warnings[0], "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"restricted:latest\"");
    assert!(written.warnings[1].starts_with("old: allowPrivilegeEscalation != false, unrestricted capabilities"));
    world.refresh().await;
    let refused = message(world.create::<Pod>("ns", pod("p")).await);
    assert!(refused.starts_with("pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"nginx\" must set securityContext.allowPrivilegeEscalation=false), "), "{refused}");
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]});
    let deployment =
        Object::new(from::<Deployment>(json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})));
    let written = world.store.create(row::<Deployment>(), "ns", deployment, &WriteOptions::new(&admin()), &*world.admission).await.unwrap();
    assert!(written.warnings.iter().any(|w| w.starts_with("would violate PodSecurity \"restricted:latest\": ")));
    let bad = |n: &mut Namespace| drop(n.metadata.labels.as_mut().unwrap().insert("pod-security.kubernetes.io/enforce".into(), "strict".into()));
    assert_eq!(world.update_as::<Namespace>(&admin(), "", "ns", "", bad).await.unwrap_err().code(), 422);
}

#[tokio::test]
async fn services_take_no_external_addresses_and_owners_must_be_ones_own() {
    use k8s_openapi::api::core::v1::Service;
    let world = World::start().await;
    world.namespace("ns").await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["1.2.3.4"]}});
    assert!(message(world.create::<Service>("ns", service).await).ends_with("Use of external IPs is denied by admission control."));
    let owner = json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "blockOwnerDeletion": true}]);
    let owned = json!({"metadata": {"name": "c", "ownerReferences": owner}});
    let eve = User::new("eve", &[]);
    let refused = message(world.create_as::<ConfigMap>(&eve, "ns", owned.clone()).await);
    assert!(refused.contains("cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on"), "{refused}");
    world.create::<ConfigMap>("ns", owned).await.unwrap();
}

#[test]
fn quota_is_charged_last_and_no_plugin_is_listed_twice() {
    let names: Vec<&str> = super::plugins().iter().map(|p| p.name()).collect();
    assert_eq!(names.last(), Some(&"ResourceQuota"));
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
}
