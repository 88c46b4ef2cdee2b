//! The node group (`node.k8s.io/v1`). Nodes themselves are of the core group.

pub mod runtime_class;
