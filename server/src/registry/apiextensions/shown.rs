//! Stored objects as a version shows them, and objects of a version as they are stored.
//!
//! Bytes in etcd and in the cache are of whatever version and schema were in force when they were written. A reader gets them pruned,
//! defaulted and converted by what is in force now (`k8s.io/apiextensions-apiserver/pkg/apiserver/conversion`).

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use shared::status::ApiError;

use super::custom::{decode, fill};
use super::definition::{Definition, Slot};
use crate::cache::{Entry, Prepared};
use crate::registry::{Object, Resource};

/// What becomes of one entry.
enum Step {
    Done(Arc<Entry>),
    /// A webhook has to convert it.
    Convert(Value),
}

impl Slot {
    /// Entries as the version in force shows them, in the same order.
    ///
    /// # Errors
    /// 500 for an object that cannot be read or converted.
    pub async fn show(&self, row: &'static Resource, entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, ApiError> {
        let definition = self.current();
        let mut shown = Vec::with_capacity(entries.len());
        let (mut places, mut waiting) = (Vec::new(), Vec::new());
        for entry in entries {
            match step(&definition, row, &entry)? {
                Step::Done(done) => shown.push(done),
                Step::Convert(value) => {
                    places.push(shown.len());
                    waiting.push(value);
                    shown.push(entry);
                }
            }
        }
        if let Some(conversion) = definition.conversion.as_ref().filter(|_| !waiting.is_empty()) {
            let converted = conversion.convert(waiting, &definition.api_version).await?;
            for (place, value) in places.into_iter().zip(converted) {
                let entry = &shown[place];
                let object = decode(&definition, value.to_string().as_bytes(), None).map_err(ApiError::internal)?;
                let new = encode(row, object, entry.revision)?;
                entry.remember(definition.id, Some(new.clone()));
                shown[place] = new;
            }
        }
        Ok(shown)
    }

    /// An object's JSON as it is to be stored.
    ///
    /// # Errors
    /// 500 when it cannot be converted.
    pub async fn stored(&self, object: &Object) -> Result<Bytes, ApiError> {
        let definition = self.current();
        if definition.api_version == definition.storage {
            return object.encode().map(Bytes::from).map_err(ApiError::internal);
        }
        let mut value = object.to_value().map_err(ApiError::internal)?;
        match &definition.conversion {
            None => value["apiVersion"] = definition.storage.as_str().into(),
            Some(conversion) => {
                let converted = conversion.convert(vec![value], &definition.storage).await?;
                value = converted.into_iter().next().ok_or_else(|| ApiError::internal("the conversion answered without an object"))?;
            }
        }
        let object = decode(&definition, value.to_string().as_bytes(), None).map_err(ApiError::internal)?;
        object.encode().map(Bytes::from).map_err(ApiError::internal)
    }

    /// Whether an object is stored in another version than new ones are.
    pub fn outdated(&self, stored: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Version<'a> {
            #[serde(rename = "apiVersion", borrow, default)]
            api_version: std::borrow::Cow<'a, str>,
        }
        serde_json::from_slice::<Version<'_>>(stored).is_ok_and(|v| v.api_version != self.current().storage)
    }
}

fn step(definition: &Definition, row: &'static Resource, entry: &Arc<Entry>) -> Result<Step, ApiError> {
    if let Some(known) = entry.recall(definition.id) {
        return Ok(Step::Done(known.unwrap_or_else(|| entry.clone())));
    }
    let mut object = decode(definition, &entry.bytes, None).map_err(ApiError::internal)?;
    let Some(custom) = object.custom_mut() else { return Ok(Step::Done(entry.clone())) };
    fill(definition, custom);
    let same_version = custom.fields.get("apiVersion").is_some_and(|v| *v == definition.api_version);
    if !same_version && definition.conversion.is_some() {
        return object.to_value().map(Step::Convert).map_err(ApiError::internal);
    }
    custom.fields.insert("apiVersion".into(), definition.api_version.as_str().into());
    let new = encode(row, object, entry.revision)?;
    if new.bytes == entry.bytes {
        entry.remember(definition.id, None);
        return Ok(Step::Done(entry.clone()));
    }
    entry.remember(definition.id, Some(new.clone()));
    Ok(Step::Done(new))
}

/// An object as an entry of a row, at a revision.
fn encode(row: &'static Resource, mut object: Object, revision: i64) -> Result<Arc<Entry>, ApiError> {
    object.meta_mut().resource_version = None;
    let bytes = object.encode().map_err(ApiError::internal)?;
    Ok(Prepared::new(row, bytes.into()).map_err(ApiError::internal)?.at(revision))
}
