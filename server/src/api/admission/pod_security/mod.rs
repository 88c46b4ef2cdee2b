//! The Pod Security Standards, by labels on the namespace (`k8s.io/pod-security-admission/admission/admission.go`).
//!
//! `pod-security.kubernetes.io/enforce` refuses pods, `…/warn` warns about pods and their controllers; levels are privileged, baseline and
//! restricted, versions `latest` or `v1.N`. Without labels nothing is refused.

mod checks;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod, PodSpec, PodTemplate, PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use shared::field;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, forbidden, is, new_object, old_object};
pub(super) use checks::{Level, violations};

pub(super) struct PodSecurity;

const PREFIX: &str = "pod-security.kubernetes.io/";
const BOTH: &[Operation] = &[Operation::Create, Operation::Update];

/// A level at a version of the standards, as `restricted:latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub level: Level,
    /// Minor version; `None` is the latest.
    pub minor: Option<u32>,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = self.level.name();
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" { Some(None) } else { text.strip_prefix("v1.")?.parse().ok().map(Some) }
}

type Labels = BTreeMap<String, String>;

/// The policy of a mode. A bad `enforce` label means restricted, a bad one of another mode means privileged.
fn policy(labels: Option<&Labels>, mode: &str) -> Policy {
    let label = |key: String| labels.and_then(|l| l.get(&key)).map(String::as_str);
    let level = label(format!("{PREFIX}{mode}"));
    let version = label(format!("{PREFIX}{mode}-version"));
    let parsed = level.map_or(Some(Level::Privileged), Level::parse).zip(version.map_or(Some(None), parse_version));
    match parsed {
        Some((level, minor)) => Policy { level, minor },
        None if mode == "enforce" => Policy { level: Level::Restricted, minor: None },
        None => Policy { level: Level::Privileged, minor: None },
    }
}

/// What is wrong with the labels of a namespace.
fn label_errors(labels: Option<&Labels>) -> field::ErrorList {
    let path = field::Path::new("metadata").child("labels");
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        for (key, good, detail) in [
            (format!("{PREFIX}{mode}"), Level::parse as fn(&str) -> Option<Level>, "must be one of privileged, baseline, restricted"),
            (format!("{PREFIX}{mode}-version"), |v| parse_version(v).map(|_| Level::Privileged), "must be \"latest\" or \"v1.x\""),
        ] {
            if let Some(value) = labels.and_then(|l| l.get(&key))
                && good(value).is_none()
            {
                errors.push(field::Error::invalid(&path.key(&key), value, detail));
            }
        }
    }
    errors
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        const CONTROLLERS: &[(&str, &str)] = &[
            ("", "replicationcontrollers"),
            ("", "podtemplates"),
            ("apps", "replicasets"),
            ("apps", "deployments"),
            ("apps", "statefulsets"),
            ("apps", "daemonsets"),
            ("batch", "jobs"),
            ("batch", "cronjobs"),
        ];
        let pod_change = attributes.resource.group.is_empty()
            && attributes.resource.plural == "pods"
            && BOTH.contains(&attributes.operation)
            && matches!(attributes.subresource, "" | "ephemeralcontainers" | "resize");
        pod_change || is(attributes, "", "namespaces", BOTH) || CONTROLLERS.iter().any(|(group, plural)| is(attributes, group, plural, BOTH))
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if attributes.resource.plural == "namespaces" {
            return namespace(context, attributes);
        }
        let Some(namespace) = context.reader.get_fresh::<Namespace>("", attributes.namespace).await? else { return Ok(()) };
        let labels = namespace.metadata.labels.as_ref();
        let warn = policy(labels, "warn");
        if let Some(pod) = new_object::<Pod>(attributes) {
            if old_object::<Pod>(attributes).is_some_and(|old| !significant(pod, old)) {
                return Ok(());
            }
            let Some(spec) = &pod.spec else { return Ok(()) };
            let enforce = policy(labels, "enforce");
            let found = violations(&enforce, &pod.metadata, spec);
            if !found.is_empty() {
                return Err(forbidden(attributes, &format!("violates PodSecurity \"{enforce}\": {}", detail(&found))));
            }
            let found = violations(&warn, &pod.metadata, spec);
            return warning(attributes, &warn, &found);
        }
        if warn.level == Level::Privileged {
            return Ok(());
        }
        let Some((meta, spec)) = template(attributes) else { return Ok(()) };
        let found = violations(&warn, &meta, &spec);
        warning(attributes, &warn, &found)
    }
}

fn warning(attributes: &mut Attributes<'_>, policy: &Policy, found: &[checks::Violation]) -> Result<(), ApiError> {
    if !found.is_empty() {
        attributes.warnings.push(format!("would violate PodSecurity \"{policy}\": {}", detail(found)));
    }
    Ok(())
}

/// `reason (detail), reason`
fn detail(found: &[checks::Violation]) -> String {
    let shown = |v: &checks::Violation| if v.detail.is_empty() { v.reason.clone() } else { format!("{} ({})", v.reason, v.detail) };
    found.iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn template(attributes: &Attributes<'_>) -> Option<(ObjectMeta, PodSpec)> {
    let found: Option<PodTemplateSpec> = if let Some(o) = new_object::<Deployment>(attributes) {
        o.spec.as_ref().map(|s| s.template.clone())
    } else if let Some(o) = new_object::<ReplicaSet>(attributes) {
        o.spec.as_ref().and_then(|s| s.template.clone())
    } else if let Some(o) = new_object::<StatefulSet>(attributes) {
        o.spec.as_ref().map(|s| s.template.clone())
    } else if let Some(o) = new_object::<DaemonSet>(attributes) {
        o.spec.as_ref().map(|s| s.template.clone())
    } else if let Some(o) = new_object::<Job>(attributes) {
        o.spec.as_ref().map(|s| s.template.clone())
    } else if let Some(o) = new_object::<CronJob>(attributes) {
        o.spec.job_template.spec.as_ref().map(|s| s.template.clone())
    } else if let Some(o) = new_object::<ReplicationController>(attributes) {
        o.spec.as_ref().and_then(|s| s.template.clone())
    } else {
        new_object::<PodTemplate>(attributes).and_then(|o| o.template.clone())
    };
    let found = found?;
    Some((found.metadata.unwrap_or_default(), found.spec?))
}

/// Whether an update changes what the checks look at: the images, or the containers themselves.
fn significant(new: &Pod, old: &Pod) -> bool {
    type Shape<'a> = (Vec<(&'a str, Option<&'a str>)>, usize);
    fn shape(pod: &Pod) -> Option<Shape<'_>> {
        let spec = pod.spec.as_ref()?;
        let regular = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| (c.name.as_str(), c.image.as_deref()));
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| (c.name.as_str(), c.image.as_deref()));
        Some((regular.chain(ephemeral).collect(), spec.containers.len()))
    }
    shape(new) != shape(old)
}

/// Checks the labels of a namespace, and warns when a stricter level would refuse pods that run already.
fn namespace(context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
    let Some(object) = new_object::<Namespace>(attributes) else { return Ok(()) };
    let labels = object.metadata.labels.clone();
    let old_labels = old_object::<Namespace>(attributes).map(|o| o.metadata.labels.clone());
    let errors = label_errors(labels.as_ref());
    // What was wrong already does not stand in the way of other changes.
    if !errors.is_empty() && old_labels.as_ref().is_none_or(|old| label_errors(old.as_ref()) != errors) {
        let name = object.metadata.name.clone().unwrap_or_default();
        return Err(ApiError::invalid(attributes.resource.group_kind(), &name, &errors));
    }
    let Some(old_labels) = old_labels else { return Ok(()) };
    let (new, old) = (policy(labels.as_ref(), "enforce"), policy(old_labels.as_ref(), "enforce"));
    if new == old || new.level == Level::Privileged || (new.minor == old.minor && new.level <= old.level) {
        return Ok(());
    }
    let name = attributes.name;
    let mut pods_by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in context.reader.list::<Pod>(name)? {
        let Some(spec) = &pod.spec else { continue };
        let found = violations(&new, &pod.metadata, spec);
        if !found.is_empty() {
            let reasons = found.into_iter().map(|v| v.reason).collect::<Vec<_>>().join(", ");
            pods_by_reason.entry(reasons).or_default().push(pod.metadata.name.clone().unwrap_or_default());
        }
    }
    if pods_by_reason.is_empty() {
        return Ok(());
    }
    attributes.warnings.push(format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{new}\""));
    let mut lines: Vec<String> = pods_by_reason.into_iter().map(|(reason, pods)| existing(&reason, pods)).collect();
    lines.sort_unstable();
    attributes.warnings.extend(lines);
    Ok(())
}

fn existing(reason: &str, mut pods: Vec<String>) -> String {
    pods.sort_unstable();
    match pods.as_slice() {
        [] => reason.to_owned(),
        [one] => format!("{one}: {reason}"),
        [first, _] => format!("{first} (and 1 other pod): {reason}"),
        [first, rest @ ..] => format!("{first} (and {} other pods): {reason}", rest.len()),
    }
}
