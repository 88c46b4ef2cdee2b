//! The erased object that verbs, admission and storage carry: a typed Kubernetes object behind one small interface.
//!
//! Owns nothing but the typed value. Decoding and encoding happen here and nowhere else, so that a kind's Rust type is known
//! to its strategy only.

use std::any::Any;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;

/// Takes back what a write of `status` has done to metadata, for kinds whose status carries none of it
/// (`ResetObjectMetaForStatus` in `k8s.io/apimachinery/pkg/apis/meta/v1`).
pub fn reset_for_status(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.generation = old.generation;
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
}

/// A kind that can be stored: any top-level k8s-openapi type with `ObjectMeta`.
pub trait ApiObject:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + schemars::JsonSchema
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
}
impl<T> ApiObject for T where
    T: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + schemars::JsonSchema
        + Clone
        + Debug
        + Send
        + Sync
        + 'static
{
}

trait Erased: Any + Debug + Send + Sync {
    fn meta(&self) -> &ObjectMeta;
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    fn encode(&self) -> serde_json::Result<Vec<u8>>;
    fn to_value(&self) -> serde_json::Result<serde_json::Value>;
    fn clone_box(&self) -> Box<dyn Erased>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: ApiObject> Erased for T {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }
    fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
    fn to_value(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
    fn clone_box(&self) -> Box<dyn Erased> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// An object of a kind that was defined at run time: its metadata, and everything else as it came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Custom {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// All other fields, `apiVersion` and `kind` among them.
    pub fields: serde_json::Map<String, serde_json::Value>,
}

impl Serialize for Custom {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const FIRST: [&str; 2] = ["apiVersion", "kind"];
        let mut map = serializer.serialize_map(None)?;
        for name in FIRST {
            if let Some(value) = self.fields.get(name) {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("metadata", &self.metadata)?;
        for (name, value) in self.fields.iter().filter(|(name, _)| !FIRST.contains(&name.as_str())) {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Erased for Custom {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
    fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }
    fn to_value(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
    fn clone_box(&self) -> Box<dyn Erased> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// A typed object whose type only its kind's strategy knows.
#[derive(Debug)]
pub struct Object(Box<dyn Erased>);

impl Clone for Object {
    fn clone(&self) -> Self {
        Object(self.0.clone_box())
    }
}

impl Object {
    /// Erases a typed object.
    pub fn new<T: ApiObject>(object: T) -> Self {
        Object(Box::new(object))
    }
    /// Erases an object of a kind that was defined at run time.
    pub fn from_custom(object: Custom) -> Self {
        Object(Box::new(object))
    }
    /// The object, if its kind was defined at run time.
    pub fn custom(&self) -> Option<&Custom> {
        self.0.as_any().downcast_ref()
    }
    /// The object, if its kind was defined at run time.
    pub fn custom_mut(&mut self) -> Option<&mut Custom> {
        self.0.as_any_mut().downcast_mut()
    }
    /// Its metadata.
    pub fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }
    /// Its metadata, to change.
    pub fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
    /// Its name, `""` when unset.
    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }
    /// Its namespace, `""` when unset or cluster-scoped.
    pub fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }
    /// The object as a `T`, if it is one.
    pub fn downcast_ref<T: ApiObject>(&self) -> Option<&T> {
        self.0.as_any().downcast_ref()
    }
    /// The object as a `T`, if it is one.
    pub fn downcast_mut<T: ApiObject>(&mut self) -> Option<&mut T> {
        self.0.as_any_mut().downcast_mut()
    }
    /// Its JSON, with `apiVersion` and `kind`.
    ///
    /// # Errors
    /// Only what a type's `Serialize` refuses, which k8s-openapi's never do.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        self.0.encode()
    }
    /// Its JSON as a tree, with `apiVersion` and `kind`.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn to_value(&self) -> serde_json::Result<serde_json::Value> {
        self.0.to_value()
    }
}
