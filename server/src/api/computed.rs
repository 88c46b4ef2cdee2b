//! Objects that are computed for one request and never stored, in the shape that its client accepts.
//!
//! Owns how they are written. Must never know how they come about.

use serde_json::{Value, json};
use shared::selector::{FieldSelector, Selector};
use shared::status::ApiError;

use super::negotiate::{Include, Shape};
use super::openapi;
use super::request_info::RequestInfo;

/// A kind of them: what tables show of it.
pub struct Computed {
    /// Its kind, e.g. `NodeMetrics`.
    pub kind: &'static str,
    /// Its `apiVersion`.
    pub api_version: &'static str,
    /// Columns after the name, with their descriptions.
    pub columns: &'static [(&'static str, &'static str)],
    /// The cells of those.
    pub cells: fn(&Value) -> Vec<Value>,
}

impl Computed {
    /// One object, without its type, as the answer.
    pub fn one(&self, shape: Shape, object: Value) -> Vec<u8> {
        let answer = match shape {
            Shape::Object => self.typed(object),
            Shape::Metadata => partial(&object),
            Shape::Table(include) => self.table(include, vec![object]),
        };
        answer.to_string().into_bytes()
    }

    /// A list of objects without their types as the answer.
    pub fn list(&self, shape: Shape, objects: Vec<Value>) -> Vec<u8> {
        let answer = match shape {
            Shape::Object => json!({"kind": format!("{}List", self.kind), "apiVersion": self.api_version, "metadata": {}, "items": objects}),
            Shape::Metadata => {
                let items: Vec<Value> = objects.iter().map(partial).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items})
            }
            Shape::Table(include) => self.table(include, objects),
        };
        answer.to_string().into_bytes()
    }

    fn typed(&self, mut object: Value) -> Value {
        object["kind"] = self.kind.into();
        object["apiVersion"] = self.api_version.into();
        object
    }

    fn table(&self, include: Include, objects: Vec<Value>) -> Value {
        let column = |name: &str, format: &str, description: &str| json!({"name": name, "type": "string", "format": format, "description": description, "priority": 0});
        let columns: Vec<Value> =
            std::iter::once(column("Name", "name", openapi::NAME)).chain(self.columns.iter().map(|(name, text)| column(name, "", text))).collect();
        let row = |object: Value| {
            let mut cells = vec![object["metadata"]["name"].clone()];
            cells.extend((self.cells)(&object));
            match include {
                Include::Nothing => json!({ "cells": cells }),
                Include::Metadata => json!({"cells": cells, "object": partial(&object)}),
                Include::Object => json!({"cells": cells, "object": self.typed(object)}),
            }
        };
        let rows: Vec<Value> = objects.into_iter().map(row).collect();
        json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": columns, "rows": rows})
    }
}

fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A request's selectors. Only names can be selected by field.
///
/// # Errors
/// 400 for a selector that cannot be read.
pub fn selectors(info: &RequestInfo) -> Result<(Selector, FieldSelector), ApiError> {
    let labels = Selector::parse(info.param("labelSelector").unwrap_or_default());
    let labels = labels.map_err(|e| ApiError::bad_request(format!("unable to parse requirement: {e}")))?;
    let fields = FieldSelector::parse(info.param("fieldSelector").unwrap_or_default()).map_err(|e| ApiError::bad_request(e.to_string()))?;
    Ok((labels, fields))
}
