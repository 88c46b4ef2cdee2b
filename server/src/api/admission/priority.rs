//! A pod's priority comes from its class, and only from there (`plugin/pkg/admission/priority/admission.go`).

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, forbidden, is, new_object, new_object_mut, old_object};

pub(super) struct Priority;

const BOTH: &[Operation] = &[Operation::Create, Operation::Update];
const DEFAULT_POLICY: &str = "PreemptLowerPriority";

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        is(attributes, "", "pods", BOTH) || is(attributes, "scheduling.k8s.io", "priorityclasses", BOTH)
    }

    async fn mutate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if attributes.resource.plural != "pods" {
            return Ok(());
        }
        if attributes.operation == Operation::Update {
            let old = old_object::<Pod>(attributes).and_then(|p| p.spec.as_ref()).map(|s| (s.priority, s.preemption_policy.clone()));
            if let (Some((priority, policy)), Some(spec)) = (old, new_object_mut::<Pod>(attributes).and_then(|p| p.spec.as_mut())) {
                spec.priority = spec.priority.or(priority);
                if spec.preemption_policy.is_none() {
                    spec.preemption_policy = policy;
                }
            }
            return Ok(());
        }
        let named = new_object::<Pod>(attributes).and_then(|p| p.spec.as_ref()).and_then(|s| s.priority_class_name.clone());
        let class = match named.filter(|n| !n.is_empty()) {
            Some(name) => match context.reader.get_fresh::<PriorityClass>("", &name).await? {
                Some(class) => Some(class),
                None => return Err(forbidden(attributes, &format!("no PriorityClass with name {name} was found"))),
            },
            None => default_class(context)?,
        };
        match new_object_mut::<Pod>(attributes).map(|pod| assign(pod, class.as_deref())) {
            Some(Err(text)) => Err(forbidden(attributes, &text)),
            _ => Ok(()),
        }
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        let Some(class) = new_object::<PriorityClass>(attributes) else { return Ok(()) };
        let other = match default_class(context)? {
            Some(default) if class.global_default == Some(true) => default.metadata.name.clone().filter(|n| *n != attributes.name),
            _ => None,
        };
        match other {
            Some(name) => Err(forbidden(attributes, &format!("PriorityClass {name} is already marked as default. Only one default can exist"))),
            None => Ok(()),
        }
    }
}

/// The default class; of several, the one with the lowest value.
fn default_class(context: &Context) -> Result<Option<std::sync::Arc<PriorityClass>>, ApiError> {
    let classes = context.reader.list::<PriorityClass>("")?;
    Ok(classes.into_iter().filter(|c| c.global_default == Some(true)).min_by_key(|c| c.value))
}

fn assign(pod: &mut Pod, class: Option<&PriorityClass>) -> Result<(), String> {
    let spec = pod.spec.get_or_insert_default();
    let priority = class.and_then(|c| c.value).unwrap_or(0);
    let policy = class.and_then(|c| c.preemption_policy.clone()).unwrap_or_else(|| DEFAULT_POLICY.into());
    if let Some(given) = spec.priority.filter(|p| *p != priority) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    if let Some(given) = spec.preemption_policy.as_ref().filter(|p| **p != policy) {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    spec.priority = Some(priority);
    spec.preemption_policy = Some(policy);
    if let Some(name) = class.and_then(|c| c.metadata.name.clone()) {
        spec.priority_class_name = Some(name);
    }
    Ok(())
}
