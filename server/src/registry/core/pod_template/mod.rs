//! The pod template: defaulting and validation that pods and every workload with a template share
//! (`pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`).
//!
//! Owns `PodSpec`. What only a Pod has (status, updates, deletion) lives in `core/pod`; what only a workload asks of its template
//! lives in that workload's file. Pure.

mod affinity;
mod containers;
mod defaults;
mod environment;
mod probes;
mod security;
mod spec;
mod volumes;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, PodTemplateSpec};
use shared::field::{ErrorList, Path};

pub use affinity::tolerations as validate_tolerations;
pub use containers::no_backsteps as path_no_backsteps;
pub use defaults::{claim_spec as default_claim_spec, spec as default_spec, template as default_template};
pub use spec::{Use, spec as validate_spec};

use crate::registry::validation::meta;

/// Validates a workload's template.
pub fn validate_template(path: &Path, template: &PodTemplateSpec, errors: &mut ErrorList) {
    let none = Default::default();
    // Upstream leaves `metadata` out of these paths.
    meta::template(path, template.metadata.as_ref(), errors);
    let spec = template.spec.as_ref().unwrap_or(&none);
    validate_spec(&path.child("spec"), spec, Use::Template, errors);
    if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        let path = path.child("spec").child("ephemeralContainers");
        errors.push(shared::field::Error::forbidden(&path, "ephemeral containers not allowed in pod template"));
    }
}

/// The part of an ephemeral container that every container has.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let c = ephemeral.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        restart_policy_rules: c.restart_policy_rules,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}

/// Writes the fields that defaulting may set back into an ephemeral container.
fn set_defaulted(ephemeral: &mut EphemeralContainer, container: Container) {
    ephemeral.env = container.env;
    ephemeral.image_pull_policy = container.image_pull_policy;
    ephemeral.lifecycle = container.lifecycle;
    ephemeral.liveness_probe = container.liveness_probe;
    ephemeral.ports = container.ports;
    ephemeral.readiness_probe = container.readiness_probe;
    ephemeral.resources = container.resources;
    ephemeral.startup_probe = container.startup_probe;
    ephemeral.termination_message_path = container.termination_message_path;
    ephemeral.termination_message_policy = container.termination_message_policy;
}
