//! The default Roles and RoleBindings of kube-system and kube-public
//! (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy/namespace_policy.go`).

const EVENTS: &str = "create patch update | core events.k8s.io | events";

/// Namespace, name and rules.
pub(super) const ROLES: &[(&str, &str, &[&str])] = &[
    ("kube-system", "extension-apiserver-authentication-reader", &["read | core | configmaps | extension-apiserver-authentication"]),
    ("kube-system", "system:controller:bootstrap-signer", &["read | core | secrets"]),
    ("kube-system", "system:controller:cloud-provider", &["create read | core | configmaps"]),
    ("kube-system", "system:controller:token-cleaner", &["delete read | core | secrets", EVENTS]),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        &[
            "watch | core | configmaps",
            "get update | core | configmaps | kube-controller-manager",
            "create read update | coordination.k8s.io | leases",
        ],
    ),
    ("kube-system", "system::leader-locking-kube-scheduler", &["watch | core | configmaps", "get update | core | configmaps | kube-scheduler"]),
    ("kube-public", "system:controller:bootstrap-signer", &["read | core | configmaps", "update | core | configmaps | cluster-info", EVENTS]),
];

/// Namespace, name, role and subjects (`user:x`, `group:x`, `sa:namespace/x`).
pub(super) const BINDINGS: &[(&str, &str, &str, &[&str])] = &[
    (
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &["user:system:kube-controller-manager", "user:system:kube-scheduler"],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &["user:system:kube-controller-manager", "sa:kube-system/kube-controller-manager", "sa:kube-system/leader-election-controller"],
    ),
    (
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &["user:system:kube-scheduler", "sa:kube-system/kube-scheduler"],
    ),
    ("kube-system", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &["sa:kube-system/bootstrap-signer"]),
    ("kube-system", "system:controller:cloud-provider", "system:controller:cloud-provider", &["sa:kube-system/cloud-provider"]),
    ("kube-system", "system:controller:token-cleaner", "system:controller:token-cleaner", &["sa:kube-system/token-cleaner"]),
    ("kube-public", "system:controller:bootstrap-signer", "system:controller:bootstrap-signer", &["sa:kube-system/bootstrap-signer"]),
];

/// ClusterRoleBindings that do not belong to a controller: name, role, subjects.
pub(super) const CLUSTER_BINDINGS: &[(&str, &str, &[&str])] = &[
    ("cluster-admin", "cluster-admin", &["group:system:masters"]),
    ("system:monitoring", "system:monitoring", &["group:system:monitoring"]),
    ("system:discovery", "system:discovery", &["group:system:authenticated"]),
    ("system:basic-user", "system:basic-user", &["group:system:authenticated"]),
    ("system:public-info-viewer", "system:public-info-viewer", &["group:system:authenticated", "group:system:unauthenticated"]),
    ("system:node-proxier", "system:node-proxier", &["user:system:kube-proxy"]),
    ("system:kube-controller-manager", "system:kube-controller-manager", &["user:system:kube-controller-manager"]),
    ("system:kube-dns", "system:kube-dns", &["sa:kube-system/kube-dns"]),
    ("system:kube-scheduler", "system:kube-scheduler", &["user:system:kube-scheduler"]),
    ("system:volume-scheduler", "system:volume-scheduler", &["user:system:kube-scheduler"]),
    ("system:node", "system:node", &[]),
    ("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", &["group:system:serviceaccounts"]),
    // kubeadm's: the administrator's group, and what a joining node needs.
    ("kubeadm:cluster-admins", "cluster-admin", &["group:kubeadm:cluster-admins"]),
    ("kubeadm:get-nodes", "kubeadm:get-nodes", &["group:system:bootstrappers:kubeadm:default-node-token"]),
    ("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", &["group:system:bootstrappers:kubeadm:default-node-token"]),
    (
        "kubeadm:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &["group:system:bootstrappers:kubeadm:default-node-token"],
    ),
    (
        "kubeadm:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &["group:system:nodes"],
    ),
];
