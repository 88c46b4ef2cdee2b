//! apiextensions.k8s.io: CustomResourceDefinitions, and the kinds that they define.
//!
//! Owns what follows from a definition alone: its own validation, the rows and semantics of its objects, their schemas. When a
//! definition comes into force and goes is the API's (`api/extensions`).

mod check;
pub mod conditions;
mod custom;
pub mod custom_resource_definition;
pub mod definition;
mod formats;
mod ownership;
pub mod row;
mod rules;
pub mod schema;
mod shown;
mod structural;

pub use definition::{Convert, Definition, Slot};
