//! What `kctl` and `kserver` both need: selectors, quantities, ages, `Status` errors, field errors, patches and paths.
//!
//! Owns pure values and functions only: no I/O, no async, no knowledge of either binary.
#![deny(missing_docs)]

pub mod age;
pub mod cel;
pub mod field;
pub mod gojson;
pub mod jsonpath;
pub mod managed;
pub mod patch;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod yaml11;
