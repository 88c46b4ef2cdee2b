//! One version of a kind that a CustomResourceDefinition defines, compiled, and the slot in which a row finds the one in force.
//!
//! Owns what follows from a definition's spec. Must never decide whether it is served: that is the API's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use parking_lot::RwLock;
use serde_json::{Value, json};
use shared::jsonpath::Template;
use shared::managed::Type;
use shared::status::ApiError;
use tokio_util::sync::CancellationToken;

use super::ownership;
use super::schema::Schema;
use crate::registry::{Column, intern};

/// Converts objects between the versions of a kind.
#[async_trait]
pub trait Convert: Send + Sync {
    /// The objects in a version, in the same order.
    ///
    /// # Errors
    /// 500 when the conversion fails or answers with something else.
    async fn convert(&self, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, ApiError>;
}

/// A column with where its cells come from.
pub struct PrintedColumn {
    /// Its heading and form.
    pub column: Column,
    /// Path of the value; `None` never finds one.
    pub path: Option<Template>,
}

/// Where a scale is kept, as JSON pointers.
pub struct ScalePaths {
    /// `.spec.replicas` as `/spec/replicas`.
    pub spec_replicas: String,
    /// Of the replicas there are.
    pub status_replicas: String,
    /// Of the selector's text, if there is one.
    pub selector: Option<String>,
}

/// A version in force.
pub struct Definition {
    /// Never the same for two of them.
    pub id: u64,
    /// `group/version`
    pub api_version: String,
    /// `group/version` that objects are stored as.
    pub storage: String,
    /// Kind.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Schemas of all versions, by version.
    pub schemas: Arc<BTreeMap<String, Schema>>,
    /// This version.
    pub version: String,
    /// Its schema as it was given, for publishing.
    pub published: Value,
    /// What tables show.
    pub columns: Vec<PrintedColumn>,
    /// How its fields are owned.
    pub ownership: Type,
    /// Whether the status is a subresource.
    pub status: bool,
    /// Where its scale is, if it has one.
    pub scale: Option<ScalePaths>,
    /// What clients of a deprecated version are told.
    pub deprecation: Option<String>,
    /// Between versions; `None` changes the version's name only.
    pub conversion: Option<Arc<dyn Convert>>,
    /// Cancelled when this is in force no longer: watches end.
    pub closed: CancellationToken,
}

static IDS: AtomicU64 = AtomicU64::new(1);

impl Definition {
    /// Compiles a version of a definition. `schemas` are those of all its versions, from [`schemas`].
    pub fn new(
        crd: &CustomResourceDefinition,
        version: &CustomResourceDefinitionVersion,
        schemas: Arc<BTreeMap<String, Schema>>,
        conversion: Option<Arc<dyn Convert>>,
    ) -> Self {
        let (group, names) = (&crd.spec.group, crd.status.as_ref().and_then(|s| s.accepted_names.as_ref()).unwrap_or(&crd.spec.names));
        let storage = crd.spec.versions.iter().find(|v| v.storage).map_or(version.name.as_str(), |v| v.name.as_str());
        let subresources = version.subresources.as_ref();
        let deprecated = version.deprecated.unwrap_or(false);
        let default_warning = || format!("{group}/{} {} is deprecated", version.name, names.kind);
        let ownership = schemas.get(&version.name).map_or_else(|| Type::define("Kind"), ownership::of);
        Definition {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            api_version: format!("{group}/{}", version.name),
            storage: format!("{group}/{storage}"),
            kind: names.kind.clone(),
            list_kind: names.list_kind.clone().unwrap_or_else(|| format!("{}List", names.kind)),
            schemas,
            version: version.name.clone(),
            published: version
                .schema
                .as_ref()
                .and_then(|s| serde_json::to_value(s.open_api_v3_schema.as_ref()?).ok())
                .unwrap_or_else(|| json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
            columns: columns(version.additional_printer_columns.as_deref()),
            ownership,
            status: subresources.is_some_and(|s| s.status.is_some()),
            scale: subresources.and_then(|s| s.scale.as_ref()).map(|s| ScalePaths {
                spec_replicas: pointer(&s.spec_replicas_path),
                status_replicas: pointer(&s.status_replicas_path),
                selector: s.label_selector_path.as_deref().filter(|p| !p.is_empty()).map(pointer),
            }),
            deprecation: deprecated.then(|| version.deprecation_warning.clone().unwrap_or_else(default_warning)),
            conversion,
            closed: CancellationToken::new(),
        }
    }

    /// The schema of a version; of this one when it is not known.
    pub fn schema(&self, api_version: &str) -> Option<&Schema> {
        let version = api_version.rsplit('/').next().unwrap_or_default();
        self.schemas.get(version).or_else(|| self.schemas.get(&self.version))
    }

    /// The schema of this version.
    pub fn own_schema(&self) -> Option<&Schema> {
        self.schemas.get(&self.version)
    }
}

/// The schemas of a definition's versions.
pub fn schemas(crd: &CustomResourceDefinition) -> Arc<BTreeMap<String, Schema>> {
    let of = |version: &CustomResourceDefinitionVersion| {
        let props = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
        let mut schema = props.map(Schema::of_objects).unwrap_or_default();
        schema.preserve_unknown |= props.is_none() || crd.spec.preserve_unknown_fields == Some(true);
        (version.name.clone(), schema)
    };
    Arc::new(crd.spec.versions.iter().map(of).collect())
}

/// `Name`, then those of the definition, or the age without any (`tableconvertor.New`).
fn columns(given: Option<&[CustomResourceColumnDefinition]>) -> Vec<PrintedColumn> {
    let mut columns = vec![PrintedColumn { column: Column::name(), path: None }];
    let age = CustomResourceColumnDefinition {
        name: "Age".into(),
        type_: "date".into(),
        json_path: ".metadata.creationTimestamp".into(),
        ..CustomResourceColumnDefinition::default()
    };
    let given = given.filter(|g| !g.is_empty()).unwrap_or(std::slice::from_ref(&age));
    columns.extend(given.iter().map(|c| PrintedColumn {
        column: Column {
            name: intern(&c.name),
            kind: intern(&c.type_),
            format: intern(c.format.as_deref().unwrap_or_default()),
            priority: c.priority.unwrap_or_default(),
        },
        path: Template::parse(&format!("{{{}}}", c.json_path)).ok(),
    }));
    columns
}

/// `.spec.replicas` as a JSON pointer.
fn pointer(path: &str) -> String {
    path.trim_start_matches('.').split('.').map(|part| format!("/{part}")).collect()
}

/// Where a row finds the definition in force.
pub struct Slot {
    current: RwLock<Arc<Definition>>,
    terminating: AtomicBool,
}

impl Slot {
    /// A slot with a definition.
    pub fn new(definition: Definition) -> Self {
        Slot { current: RwLock::new(Arc::new(definition)), terminating: AtomicBool::new(false) }
    }
    /// The definition in force, or the last one that was.
    pub fn current(&self) -> Arc<Definition> {
        self.current.read().clone()
    }
    /// Puts another in force; watches of the one before end.
    pub fn replace(&self, definition: Definition) {
        let before = std::mem::replace(&mut *self.current.write(), Arc::new(definition));
        before.closed.cancel();
    }
    /// Nothing is in force any more.
    pub fn close(&self) {
        self.current.read().closed.cancel();
    }
    /// Says whether the definition is being deleted.
    pub fn set_terminating(&self, terminating: bool) {
        self.terminating.store(terminating, Ordering::Relaxed);
    }
    /// Whether the definition is being deleted: objects may go, none may come.
    pub fn terminating(&self) -> bool {
        self.terminating.load(Ordering::Relaxed)
    }
}
