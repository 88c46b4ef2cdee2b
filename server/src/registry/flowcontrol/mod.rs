//! The flow control group (`flowcontrol.apiserver.k8s.io/v1`), one file a kind. The objects are stored and shown;
//! this server's own limits are fixed lanes.

pub mod flow_schema;
pub mod priority_level;
