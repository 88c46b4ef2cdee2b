//! The default ClusterRoles (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`).

/// A name, the aggregation labels it carries (`admin`, `edit`, `view`) and its rules.
pub(super) type Row = (&'static str, &'static str, &'static [&'static str]);

const EVENTS: &str = "create patch update | core events.k8s.io | events";
const TOKEN_REVIEWS: &str = "create | authentication.k8s.io | tokenreviews";
const ACCESS_REVIEWS: &str = "create | authorization.k8s.io | subjectaccessreviews";

/// The roles that are made of others by label: name, the label they collect, the label they carry.
pub(super) const AGGREGATED: &[(&str, &str, &str)] = &[("admin", "admin", ""), ("edit", "edit", "admin"), ("view", "view", "edit")];

/// What a kubelet may do (`NodeRules`); the node authorizer narrows most of it to the node's own objects.
pub(super) const NODE: &[&str] = &[
    TOKEN_REVIEWS,
    "create | authorization.k8s.io | localsubjectaccessreviews subjectaccessreviews",
    "read | core | services",
    "create read | core | nodes",
    "patch update | core | nodes/status",
    "patch update | core | nodes",
    "create patch update | core events.k8s.io | events",
    "read | core | pods",
    "create delete | core | pods",
    "patch update | core | pods/status",
    "create | core | pods/eviction",
    "read | core | configmaps secrets",
    "get | core | persistentvolumeclaims persistentvolumes",
    "get | core | endpoints",
    "create read | certificates.k8s.io | certificatesigningrequests",
    "create delete get patch update | coordination.k8s.io | leases",
    "get | storage.k8s.io | volumeattachments",
    "create | core | serviceaccounts/token",
    "get patch update | core | persistentvolumeclaims/status",
    "read | storage.k8s.io | csidrivers",
    "create delete get patch update | storage.k8s.io | csinodes",
    "read | node.k8s.io | runtimeclasses",
    "get | resource.k8s.io | resourceclaims",
    "create delete deletecollection get list patch update watch | resource.k8s.io | resourceslices",
];

/// Every other role.
pub(super) const ROLES: &[Row] = &[
    ("cluster-admin", "", &["* | * | *", "* | url | *"]),
    ("system:monitoring", "", &["get | url | /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"]),
    ("system:discovery", "", &["get | url | /api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"]),
    ("system:public-info-viewer", "", &["get | url | /healthz /livez /readyz /version /version/"]),
    (
        "system:basic-user",
        "",
        &["create | authorization.k8s.io | selfsubjectaccessreviews selfsubjectrulesreviews", "create | authentication.k8s.io | selfsubjectreviews"],
    ),
    (
        "system:aggregate-to-admin",
        "admin",
        &["create | authorization.k8s.io | localsubjectaccessreviews", "read write | rbac.authorization.k8s.io | rolebindings roles"],
    ),
    (
        "system:aggregate-to-edit",
        "edit",
        &[
            "read | core | pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy",
            "impersonate | core | serviceaccounts",
            "write | core | pods pods/attach pods/exec pods/portforward pods/proxy",
            "create | core | pods/eviction",
            "write | core | configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy",
            "create | core | serviceaccounts/token",
            "write | apps | daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
            "write | autoscaling | horizontalpodautoscalers",
            "write | batch | cronjobs jobs",
            "write | extensions | daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale replicationcontrollers/scale",
            "write | policy | poddisruptionbudgets",
            "write | networking.k8s.io | ingresses networkpolicies",
            "read write | coordination.k8s.io | leases",
            "write | resource.k8s.io | resourceclaims resourceclaimtemplates",
        ],
    ),
    (
        "system:aggregate-to-view",
        "view",
        &[
            "read | core | configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status",
            "read | core | bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas resourcequotas/status",
            "read | core | namespaces",
            "read | discovery.k8s.io | endpointslices",
            "read | apps | controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            "read | autoscaling | horizontalpodautoscalers horizontalpodautoscalers/status",
            "read | batch | cronjobs cronjobs/status jobs jobs/status",
            "read | extensions | daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale",
            "read | policy | poddisruptionbudgets poddisruptionbudgets/status",
            "read | networking.k8s.io | ingresses ingresses/status networkpolicies",
            "read | resource.k8s.io | resourceclaims resourceclaims/status resourceclaimtemplates",
        ],
    ),
    // metrics-server brings this one with its deployment; here the metrics are the server's own.
    ("system:aggregated-metrics-reader", "view", &["read | metrics.k8s.io | nodes pods"]),
    ("system:heapster", "", &["read | core | events namespaces nodes pods", "read | extensions | deployments"]),
    ("system:node-problem-detector", "", &["get | core | nodes", "patch | core | nodes/status", EVENTS]),
    (
        "system:node-proxier",
        "",
        &[
            "list watch | core | endpoints services",
            "read | core | nodes",
            EVENTS,
            "list watch | discovery.k8s.io | endpointslices",
            "list watch | networking.k8s.io | servicecidrs",
        ],
    ),
    (
        "system:kubelet-api-admin",
        "",
        &[
            "read | core | nodes",
            "proxy | core | nodes",
            "* | core | nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats",
        ],
    ),
    ("system:node-bootstrapper", "", &["create read | certificates.k8s.io | certificatesigningrequests"]),
    ("system:auth-delegator", "", &[TOKEN_REVIEWS, ACCESS_REVIEWS]),
    ("system:kube-aggregator", "", &["read | core | endpoints services"]),
    (
        "system:kube-controller-manager",
        "",
        &[
            EVENTS,
            "create | coordination.k8s.io | leases",
            "get update | coordination.k8s.io | leases | kube-controller-manager",
            "create | core | secrets serviceaccounts",
            "delete | core | secrets",
            "get | core | configmaps namespaces secrets serviceaccounts",
            "update | core | secrets serviceaccounts",
            TOKEN_REVIEWS,
            ACCESS_REVIEWS,
            "list watch | * | *",
            "create | core | serviceaccounts/token",
        ],
    ),
    (
        "system:kube-scheduler",
        "",
        &[
            EVENTS,
            "create | coordination.k8s.io | leases",
            "get list update watch | coordination.k8s.io | leases | kube-scheduler",
            "read | core | nodes",
            "delete read | core | pods",
            "create | core | bindings pods/binding",
            "patch update | core | pods/status",
            "read | core | replicationcontrollers services",
            "read | apps extensions | replicasets",
            "read | apps | statefulsets",
            "read | policy | poddisruptionbudgets",
            "read | core | persistentvolumeclaims persistentvolumes",
            TOKEN_REVIEWS,
            ACCESS_REVIEWS,
            "read | storage.k8s.io | csinodes",
            "read | core | namespaces",
            "read | storage.k8s.io | csidrivers",
            "read | storage.k8s.io | csistoragecapacities",
            "read | storage.k8s.io | volumeattachments",
            "read | resource.k8s.io | deviceclasses resourceslices",
            "patch read update | resource.k8s.io | resourceclaims",
            "patch update | resource.k8s.io | resourceclaims/status",
        ],
    ),
    ("system:kube-dns", "", &["list watch | core | endpoints services"]),
    (
        "system:persistent-volume-provisioner",
        "",
        &[
            "create delete read | core | persistentvolumes",
            "read update | core | persistentvolumeclaims",
            "read | storage.k8s.io | storageclasses",
            "watch | core | events",
            EVENTS,
        ],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        "",
        &["create | certificates.k8s.io | certificatesigningrequests/nodeclient"],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "",
        &["create | certificates.k8s.io | certificatesigningrequests/selfnodeclient"],
    ),
    (
        "system:volume-scheduler",
        "",
        &[
            "patch read update | core | persistentvolumes",
            "read | storage.k8s.io | storageclasses",
            "patch read update | core | persistentvolumeclaims",
        ],
    ),
    ("system:certificates.k8s.io:legacy-unknown-approver", "", &["approve | certificates.k8s.io | signers | kubernetes.io/legacy-unknown"]),
    ("system:certificates.k8s.io:kubelet-serving-approver", "", &["approve | certificates.k8s.io | signers | kubernetes.io/kubelet-serving"]),
    (
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        "",
        &["approve | certificates.k8s.io | signers | kubernetes.io/kube-apiserver-client"],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        "",
        &["approve | certificates.k8s.io | signers | kubernetes.io/kube-apiserver-client-kubelet"],
    ),
    (
        "system:service-account-issuer-discovery",
        "",
        &["get | url | /.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/"],
    ),
    // kubeadm's own, so that nodes can join with a bootstrap token.
    ("kubeadm:get-nodes", "", &["get | core | nodes"]),
];
