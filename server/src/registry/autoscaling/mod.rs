//! The autoscaling group (`autoscaling/v2`). `Scale` (`autoscaling/v1`) is no stored kind: see `registry::scale`.

pub mod horizontal_pod_autoscaler;
mod targets;
