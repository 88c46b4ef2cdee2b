//! Every kind the server knows: one row each, and the strategy behind it.
//!
//! Routing, discovery, RBAC verbs, storage keys, the watch cache, table columns, short names and categories all come from [`RESOURCES`].
//!
//! # Adding a kind
//! One file that implements [`Strategy`], and one line in [`RESOURCES`]. The file names the type and says what is special about it; every
//! method has the default of a kind about which nothing is. All of `core/service_account.rs`, but for its `token` subresource:
//!
//! ```ignore
//! pub struct ServiceAccounts;
//!
//! impl Strategy for ServiceAccounts {
//!     type Object = k8s_openapi::api::core::v1::ServiceAccount;
//!     const PLURAL: &'static str = "serviceaccounts";
//!     const SINGULAR: &'static str = "serviceaccount";
//!     const SHORT_NAMES: &'static [&'static str] = &["sa"];
//!     const COLUMNS: &'static [Column] = &[Column::name(), print::AGE];
//!
//!     fn cells(object: &Self::Object, context: &PrintContext) -> Vec<Value> {
//!         vec![print::name(&object.metadata), print::age(&object.metadata, context)]
//!     }
//! }
//!
//! // and in RESOURCES:
//! Resource::of::<core::service_account::ServiceAccounts>(),
//! ```
//!
//! With that the kind is created, read, listed, watched, patched, applied and deleted, is in discovery and OpenAPI, has RBAC verbs, a place in
//! etcd and in the cache, and a table. `node/runtime_class.rs` shows defaults, validation and an immutable field with their test.

pub mod admissionregistration;
pub mod admit;
pub mod apiextensions;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod bootstrap;
pub mod certificates;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod fields;
pub mod flowcontrol;
pub mod networking;
pub mod node;
pub mod object;
mod ops;
pub mod policy;
pub mod print;
pub mod quota;
pub mod rbac;
#[cfg(test)]
mod registered;
pub mod resource;
pub mod scale;
pub mod scheduling;
pub mod storage;
pub mod store;
#[cfg(test)]
pub mod testing;
pub mod validation;
pub mod workload;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use shared::field;
use shared::status::GroupResource;

pub use fields::FieldSource;
pub use object::{ApiObject, Object};
pub use ops::Ops;

/// What can be done to a resource, as RBAC and discovery name it.
pub const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A part of an object with a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// Last path segment, e.g. `status`.
    pub name: &'static str,
    /// Kind that discovery shows, e.g. `Scale`; empty for the parent's own kind.
    pub kind: &'static str,
    /// Group of that kind, when it is not the parent's.
    pub group: &'static str,
    /// Version of that kind, when it is not the parent's.
    pub version: &'static str,
    /// Verbs it supports.
    pub verbs: &'static [&'static str],
}

/// `…/status`, with the parent's kind.
pub const STATUS: Subresource = Subresource { name: "status", kind: "", group: "", version: "", verbs: &["get", "patch", "update"] };
/// `…/scale` as autoscaling/v1.
pub const SCALE: Subresource = Subresource { name: "scale", kind: "Scale", group: "autoscaling", version: "v1", verbs: &["get", "patch", "update"] };

/// A column of the printed table (`metav1.TableColumnDefinition`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading, e.g. `Ready`.
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `number` or `date`.
    pub kind: &'static str,
    /// `name` for the name column, else empty.
    pub format: &'static str,
    /// 0 is always shown, 1 only with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A text column that is always shown.
    pub const fn new(name: &'static str) -> Self {
        Column { name, kind: "string", format: "", priority: 0 }
    }
    /// The `Name` column.
    pub const fn name() -> Self {
        Column { name: "Name", kind: "string", format: "name", priority: 0 }
    }
    /// The same column with another type.
    pub const fn of(self, kind: &'static str) -> Self {
        Column { kind, ..self }
    }
    /// The same column, only with `-o wide`.
    pub const fn wide(self) -> Self {
        Column { priority: 1, ..self }
    }
}

/// What table cells are computed against.
#[derive(Clone, Copy, Debug)]
pub struct PrintContext {
    /// The time ages are counted to.
    pub now: k8s_openapi::jiff::Timestamp,
}

impl PrintContext {
    /// An age such as `5m30s`, `<unknown>` when there is no time.
    pub fn age(&self, time: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>) -> String {
        time.map_or_else(|| "<unknown>".into(), |t| shared::age::human_duration(self.now.as_second() - t.0.as_second()))
    }
}

/// The typed behaviour of a kind; every method has the default that a kind without special needs wants.
///
/// Order on create: decode → `default` → `prepare_for_create` → admission → `validate` → `claims` → store.
/// On update: decode → `default` → `prepare_for_update` → admission → `validate_update` → `claims` → store.
/// On a status update `prepare_for_status_update` replaces `prepare_for_update` and `validate_status_update` replaces `validate_update`.
pub trait Strategy: Sized + 'static {
    /// The k8s-openapi type.
    type Object: ApiObject;
    /// Lower-case plural, as in URLs.
    const PLURAL: &'static str;
    /// Lower-case singular.
    const SINGULAR: &'static str;
    /// Short names, e.g. `po`.
    const SHORT_NAMES: &'static [&'static str] = &[];
    /// Categories, e.g. `all`.
    const CATEGORIES: &'static [&'static str] = &[];
    /// Whether objects live in namespaces.
    const NAMESPACED: bool = true;
    /// Verbs of the resource itself.
    const VERBS: &'static [&'static str] = ALL_VERBS;
    /// Subresources, e.g. [`STATUS`].
    const SUBRESOURCES: &'static [Subresource] = &[];
    /// The etcd directory below `/registry/`, where upstream's differs from the plural (`services/specs`, `minions`).
    const STORAGE: &'static str = Self::PLURAL;
    /// Fields a field selector may name besides `metadata.name` and `metadata.namespace`, as JSON paths. An absent one reads as `""`.
    const FIELDS: &'static [&'static str] = &[];
    /// Those of [`Self::FIELDS`] that are not simply at their JSON path, or not empty when absent.
    const FIELD_SOURCES: &'static [FieldSource] = &[];
    /// Whether PUT on a missing object creates it (upstream's `AllowCreateOnUpdate`).
    const CREATE_ON_UPDATE: bool = false;
    /// Whether PUT without a resourceVersion overwrites (upstream's `AllowUnconditionalUpdate`).
    const UNCONDITIONAL_UPDATE: bool = true;
    /// Whether `metadata.generation` counts changes of the spec.
    const GENERATION: bool = false;
    /// Whether names are checked as DNS-1123 subdomains (upstream's default). `Ok` or upstream's message.
    fn validate_name(name: &str) -> Result<(), String> {
        if shared::selector::is_dns1123_subdomain(name) { Ok(()) } else { Err(DNS1123_SUBDOMAIN.into()) }
    }
    /// The printed columns, after upstream's `printers/internalversion/printers.go`.
    const COLUMNS: &'static [Column] = &[Column::name(), Column::new("Created At").of("date")];

    /// Fills in upstream's defaults (`pkg/apis/<group>/<version>/defaults.go`). Must be idempotent.
    fn default(_object: &mut Self::Object) {}
    /// Drops what a client may not set at creation: status, above all.
    fn prepare_for_create(_object: &mut Self::Object) {}
    /// Errors of a new object.
    fn validate(_object: &Self::Object) -> field::ErrorList {
        Vec::new()
    }
    /// Keeps what an update of the main resource may not change: status, above all.
    fn prepare_for_update(_new: &mut Self::Object, _old: &Self::Object) {}
    /// Errors of an update: immutable fields and the rules of [`Self::validate`].
    fn validate_update(new: &Self::Object, _old: &Self::Object) -> field::ErrorList {
        Self::validate(new)
    }
    /// Keeps everything but the status.
    fn prepare_for_status_update(_new: &mut Self::Object, _old: &Self::Object) {}
    /// Errors of a status update.
    fn validate_status_update(_new: &Self::Object, _old: &Self::Object) -> field::ErrorList {
        Vec::new()
    }
    /// Whether the spec (what `generation` counts) differs.
    fn spec_changed(_new: &Self::Object, _old: &Self::Object) -> bool {
        false
    }
    /// Cluster-wide values this object owns at this state, each unique in the cluster (IPs, node ports); see [`Claim`].
    fn claims(_object: &Self::Object) -> Vec<Claim> {
        Vec::new()
    }
    /// Chooses values that the server allocates (cluster IPs, node ports) where the object leaves them open.
    /// Runs before [`Self::validate`]; is run again with another `attempt` when a claim turns out to be taken.
    fn allocate(
        _object: &mut Self::Object,
        _old: Option<&Self::Object>,
        _ranges: &Ranges,
        _taken: &dyn Fn(&Claim) -> bool,
    ) -> Result<(), field::Error> {
        Ok(())
    }
    /// Seconds a deletion waits for someone (the kubelet) to finish it; `None` deletes at once.
    /// `requested` is the client's gracePeriodSeconds.
    fn grace_period(_object: &Self::Object, _requested: Option<i64>) -> Option<i64> {
        None
    }
    /// Whether something besides `metadata.finalizers` still holds the object's deletion up (a namespace's `spec.finalizers`).
    fn holds_deletion(_object: &Self::Object) -> bool {
        false
    }
    /// Shows in the status that the object is being deleted (a namespace's phase).
    fn begin_deletion(_object: &mut Self::Object) {}
    /// Warnings shown to the client (`Warning:` headers) for a new or updated object.
    fn warnings(_object: &Self::Object) -> Vec<String> {
        Vec::new()
    }
    /// The cells of a row, one for each of [`Self::COLUMNS`].
    fn cells(object: &Self::Object, context: &PrintContext) -> Vec<Value>;
}

/// A cluster-wide unique value, stored as a key of its own in the transaction that writes its owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// `clusterips`, `nodeports/TCP`, …
    pub space: &'static str,
    /// The value, e.g. `10.96.0.10`.
    pub value: String,
    /// Field that asks for it, for the error when it is taken.
    pub field: &'static str,
}

impl Claim {
    /// Its etcd key.
    pub fn key(&self) -> String {
        format!("/registry/kserver/claims/{}/{}", self.space, self.value)
    }
}

/// Ranges the server allocates from.
#[derive(Clone, Debug)]
pub struct Ranges {
    /// First address of the service range, e.g. 10.96.0.0.
    pub service_network: std::net::Ipv4Addr,
    /// Its prefix length, e.g. 12.
    pub service_prefix: u8,
    /// Node ports, inclusive (30000-32767).
    pub node_ports: (u16, u16),
}

/// Upstream's message for a bad RFC 1123 subdomain.
pub const DNS1123_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
/// Upstream's message for a bad RFC 1123 label.
pub const DNS1123_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

/// Makes a type's OpenAPI schema.
pub type SchemaOf = fn(&mut schemars::SchemaGenerator) -> schemars::Schema;

/// One kind: everything generic code needs to know of it.
pub struct Resource {
    /// API group, empty for core.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// Kind, e.g. `Pod`.
    pub kind: &'static str,
    /// See [`Strategy::PLURAL`].
    pub plural: &'static str,
    /// See [`Strategy::SINGULAR`].
    pub singular: &'static str,
    /// See [`Strategy::SHORT_NAMES`].
    pub short_names: &'static [&'static str],
    /// See [`Strategy::CATEGORIES`].
    pub categories: &'static [&'static str],
    /// See [`Strategy::NAMESPACED`].
    pub namespaced: bool,
    /// See [`Strategy::VERBS`].
    pub verbs: &'static [&'static str],
    /// See [`Strategy::SUBRESOURCES`].
    pub subresources: &'static [Subresource],
    /// Etcd prefix of all objects, e.g. `/registry/pods/`.
    pub prefix: String,
    /// See [`Strategy::FIELDS`].
    pub fields: &'static [&'static str],
    /// See [`Strategy::FIELD_SOURCES`].
    pub field_sources: &'static [FieldSource],
    /// See [`Strategy::CREATE_ON_UPDATE`].
    pub create_on_update: bool,
    /// See [`Strategy::UNCONDITIONAL_UPDATE`].
    pub unconditional_update: bool,
    /// See [`Strategy::GENERATION`].
    pub generation: bool,
    /// See [`Strategy::COLUMNS`].
    pub columns: &'static [Column],
    /// The strategy.
    pub ops: Box<dyn Ops>,
    /// The type's OpenAPI schema: a reference, with its definitions left in the generator. A kind made at run time has its own.
    pub schema: Option<SchemaOf>,
    /// For a kind that was defined at run time, where its definition is.
    pub custom: Option<Arc<apiextensions::Slot>>,
    /// Position in [`RESOURCES`]: a small dense index for per-kind tables. Kinds that were defined at run time have none.
    pub index: usize,
}

impl Resource {
    /// A row, from a strategy.
    pub fn of<S: Strategy>() -> Self {
        Resource {
            group: <S::Object as k8s_openapi::Resource>::GROUP,
            version: <S::Object as k8s_openapi::Resource>::VERSION,
            kind: <S::Object as k8s_openapi::Resource>::KIND,
            plural: S::PLURAL,
            singular: S::SINGULAR,
            short_names: S::SHORT_NAMES,
            categories: S::CATEGORIES,
            namespaced: S::NAMESPACED,
            verbs: S::VERBS,
            subresources: S::SUBRESOURCES,
            prefix: format!("/registry/{}/", S::STORAGE),
            fields: S::FIELDS,
            field_sources: S::FIELD_SOURCES,
            create_on_update: S::CREATE_ON_UPDATE,
            unconditional_update: S::UNCONDITIONAL_UPDATE,
            generation: S::GENERATION,
            columns: S::COLUMNS,
            ops: ops::erased::<S>(),
            schema: Some(|generator| generator.subschema_for::<S::Object>()),
            custom: None,
            index: 0,
        }
    }
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }
    /// As errors name it: `deployments.apps`.
    pub fn group_resource(&self) -> GroupResource<'static> {
        GroupResource { group: self.group, resource: self.plural }
    }
    /// As `Invalid` errors name it: `Deployment.apps`.
    pub fn group_kind(&self) -> GroupResource<'static> {
        GroupResource { group: self.group, resource: self.kind }
    }
    /// Etcd key of an object; the namespace is ignored for cluster-scoped kinds.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced { format!("{}{namespace}/{name}", self.prefix) } else { format!("{}{name}", self.prefix) }
    }
    /// Etcd prefix of a namespace's objects, or of all with `""`.
    pub fn namespace_prefix(&self, namespace: &str) -> String {
        if self.namespaced && !namespace.is_empty() { format!("{}{namespace}/", self.prefix) } else { self.prefix.clone() }
    }
    /// The kind of a list, e.g. `PodList`.
    pub fn list_kind(&self) -> String {
        self.custom.as_ref().map_or_else(|| format!("{}List", self.kind), |slot| slot.current().list_kind.clone())
    }
    /// What tables show; of a kind that was defined at run time, what its definition says now.
    pub fn printed_columns(&self) -> Cow<'static, [Column]> {
        match &self.custom {
            None => Cow::Borrowed(self.columns),
            Some(slot) => slot.current().columns.iter().map(|c| c.column).collect(),
        }
    }
    /// A subresource by name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// A text that is kept for good; the same text is kept once. For names that definitions give at run time.
pub fn intern(text: &str) -> &'static str {
    static KNOWN: LazyLock<Mutex<HashSet<&'static str>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock();
    if let Some(kept) = known.get(text) {
        return kept;
    }
    let kept: &'static str = Box::leak(text.into());
    known.insert(kept);
    kept
}

/// The rows, with their look-ups.
pub struct Registry {
    rows: Vec<Resource>,
    by_path: HashMap<(&'static str, &'static str, &'static str), usize>,
    /// Rows of kinds that were defined at run time, by the definition's name: `plural.group`.
    custom: RwLock<BTreeMap<String, Vec<&'static Resource>>>,
    /// Counts the changes of `custom`.
    generation: AtomicU64,
}

impl Registry {
    fn new(mut rows: Vec<Resource>) -> Self {
        let mut by_path = HashMap::new();
        for (index, row) in rows.iter_mut().enumerate() {
            row.index = index;
            let previous = by_path.insert((row.group, row.version, row.plural), index);
            assert!(previous.is_none(), "{} is registered twice", row.group_resource());
        }
        Registry { rows, by_path, custom: RwLock::default(), generation: AtomicU64::new(0) }
    }
    /// The kind that a path names.
    pub fn find(&'static self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        if let Some(index) = self.by_path.get(&(group, version, plural)) {
            return self.rows.get(*index);
        }
        if group.is_empty() {
            return None;
        }
        self.custom.read().get(&format!("{plural}.{group}"))?.iter().find(|r| r.version == version).copied()
    }
    /// The kind of an object.
    pub fn find_kind(&'static self, group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
        let named = |r: &Resource| r.group == group && r.version == version && r.kind == kind;
        self.rows.iter().find(|r| named(r)).or_else(|| self.custom.read().values().flatten().find(|r| named(r)).copied())
    }
    /// The row of a Rust type.
    pub fn of<T: ApiObject>(&self) -> Option<&Resource> {
        self.rows.iter().find(|r| (r.group, r.version, r.kind) == (T::GROUP, T::VERSION, T::KIND))
    }
    /// All rows but those of kinds that were defined at run time.
    pub fn iter(&self) -> impl Iterator<Item = &Resource> {
        self.rows.iter()
    }
    /// The rows of kinds that were defined at run time and are served now.
    pub fn custom(&self) -> Vec<&'static Resource> {
        self.custom.read().values().flatten().copied().collect()
    }
    /// Serves the versions of a kind that was defined at run time instead of those it had; none ends it. `name` is its definition's.
    pub fn publish(&self, name: &str, rows: Vec<&'static Resource>) {
        let mut custom = self.custom.write();
        let before = if rows.is_empty() { custom.remove(name) } else { custom.insert(name.to_owned(), rows.clone()) };
        self.generation.fetch_add(1, Ordering::Release);
        drop(custom);
        for gone in before.into_iter().flatten().filter(|b| !rows.iter().any(|r| std::ptr::eq(*r, *b))) {
            if let Some(slot) = &gone.custom {
                slot.close();
            }
        }
    }
    /// Changes whenever kinds come, go or change: what was made from the rows is then to be made anew.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Every stored kind. One line each.
pub static RESOURCES: LazyLock<Registry> = LazyLock::new(|| {
    Registry::new(vec![
        Resource::of::<core::namespace::Namespaces>(),
        Resource::of::<core::node::Nodes>(),
        Resource::of::<core::pod::Pods>(),
        Resource::of::<core::service::Services>(),
        Resource::of::<core::endpoints::Endpoints>(),
        Resource::of::<core::configmap::ConfigMaps>(),
        Resource::of::<core::secret::Secrets>(),
        Resource::of::<core::service_account::ServiceAccounts>(),
        Resource::of::<core::event::Events>(),
        Resource::of::<core::resource_quota::ResourceQuotas>(),
        Resource::of::<core::limit_range::LimitRanges>(),
        Resource::of::<core::replication_controller::ReplicationControllers>(),
        Resource::of::<core::persistent_volume::PersistentVolumes>(),
        Resource::of::<core::persistent_volume_claim::PersistentVolumeClaims>(),
        Resource::of::<core::pod_template_object::PodTemplates>(),
        Resource::of::<apps::deployment::Deployments>(),
        Resource::of::<apps::replica_set::ReplicaSets>(),
        Resource::of::<apps::daemon_set::DaemonSets>(),
        Resource::of::<apps::stateful_set::StatefulSets>(),
        Resource::of::<apps::controller_revision::ControllerRevisions>(),
        Resource::of::<batch::job::Jobs>(),
        Resource::of::<batch::cron_job::CronJobs>(),
        Resource::of::<autoscaling::horizontal_pod_autoscaler::HorizontalPodAutoscalers>(),
        Resource::of::<policy::pod_disruption_budget::PodDisruptionBudgets>(),
        Resource::of::<discovery::endpoint_slice::EndpointSlices>(),
        Resource::of::<coordination::lease::Leases>(),
        Resource::of::<rbac::roles::Roles>(),
        Resource::of::<rbac::roles::ClusterRoles>(),
        Resource::of::<rbac::bindings::RoleBindings>(),
        Resource::of::<rbac::bindings::ClusterRoleBindings>(),
        Resource::of::<scheduling::priority_class::PriorityClasses>(),
        Resource::of::<networking::ingress::Ingresses>(),
        Resource::of::<networking::ingress_class::IngressClasses>(),
        Resource::of::<networking::network_policy::NetworkPolicies>(),
        Resource::of::<networking::ip_address::IpAddresses>(),
        Resource::of::<networking::service_cidr::ServiceCidrs>(),
        Resource::of::<storage::storage_class::StorageClasses>(),
        Resource::of::<storage::volume_attachment::VolumeAttachments>(),
        Resource::of::<storage::volume_attributes_class::VolumeAttributesClasses>(),
        Resource::of::<storage::csi_driver::CsiDrivers>(),
        Resource::of::<storage::csi_node::CsiNodes>(),
        Resource::of::<storage::csi_storage_capacity::CsiStorageCapacities>(),
        Resource::of::<node::runtime_class::RuntimeClasses>(),
        Resource::of::<certificates::certificate_signing_request::CertificateSigningRequests>(),
        Resource::of::<admissionregistration::webhooks::ValidatingWebhookConfigurations>(),
        Resource::of::<admissionregistration::webhooks::MutatingWebhookConfigurations>(),
        Resource::of::<admissionregistration::policies::ValidatingAdmissionPolicies>(),
        Resource::of::<admissionregistration::policies::ValidatingAdmissionPolicyBindings>(),
        Resource::of::<admissionregistration::policies::MutatingAdmissionPolicies>(),
        Resource::of::<admissionregistration::policies::MutatingAdmissionPolicyBindings>(),
        Resource::of::<resource::device_class::DeviceClasses>(),
        Resource::of::<resource::resource_claim::ResourceClaims>(),
        Resource::of::<resource::resource_claim_template::ResourceClaimTemplates>(),
        Resource::of::<resource::resource_slice::ResourceSlices>(),
        Resource::of::<apiextensions::custom_resource_definition::CustomResourceDefinitions>(),
        Resource::of::<flowcontrol::flow_schema::FlowSchemas>(),
        Resource::of::<flowcontrol::priority_level::PriorityLevelConfigurations>(),
    ])
});
