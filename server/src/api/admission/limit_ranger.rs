//! Default requests and limits of a namespace, and their bounds (`plugin/pkg/admission/limitranger/admission.go`).

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Wire;
use shared::quantity::Quantity;
use shared::status::ApiError;

use super::{Attributes, Context, Operation, Plugin, forbidden, is, new_object, new_object_mut};
use crate::registry::quota::{Amounts, amounts, pod_limits, pod_requests};

pub(super) struct LimitRanger;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let resize = attributes.resource.plural == "pods" && attributes.resource.group.is_empty() && attributes.subresource == "resize";
        // A pod's containers do not change by a plain update.
        resize
            || is(attributes, "", "pods", &[Operation::Create])
            || is(attributes, "", "persistentvolumeclaims", &[Operation::Create, Operation::Update])
    }

    async fn mutate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if attributes.operation != Operation::Create {
            return Ok(());
        }
        let ranges = context.reader.list::<LimitRange>(attributes.namespace)?;
        if let Some(pod) = new_object_mut::<Pod>(attributes) {
            for range in &ranges {
                apply_defaults(range, pod);
            }
        }
        Ok(())
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if attributes.object.as_deref().is_some_and(|o| o.meta().deletion_timestamp.is_some()) {
            return Ok(());
        }
        for range in context.reader.list::<LimitRange>(attributes.namespace)? {
            let errors = if let Some(pod) = new_object::<Pod>(attributes) {
                check_pod(&range, pod)
            } else if let Some(claim) = new_object::<PersistentVolumeClaim>(attributes) {
                check_claim(&range, claim)
            } else {
                Vec::new()
            };
            match errors.as_slice() {
                [] => {}
                [one] => return Err(forbidden(attributes, one)),
                many => return Err(forbidden(attributes, &format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

fn items<'r>(range: &'r LimitRange, kind: &'r str) -> impl Iterator<Item = &'r LimitRangeItem> {
    range.spec.iter().flat_map(|s| &s.limits).filter(move |l| l.type_ == kind)
}

type Wires = BTreeMap<String, Wire>;

/// Sets what is missing and returns its names.
fn fill(target: &mut Option<Wires>, defaults: &Wires) -> Vec<String> {
    let mut set = Vec::new();
    for (name, value) in defaults {
        let target = target.get_or_insert_default();
        if !target.contains_key(name) {
            target.insert(name.clone(), value.clone());
            set.push(name.clone());
        }
    }
    set
}

fn fill_container(kind: &str, container: &mut Container, requests: &Wires, limits: &Wires, notes: &mut Vec<String>) {
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let resources = container.resources.get_or_insert_default();
    let set_limits = fill(&mut resources.limits, limits);
    let set_requests = fill(&mut resources.requests, requests);
    for (set, what) in [(set_requests, "request"), (set_limits, "limit")] {
        if !set.is_empty() {
            notes.push(format!("{} {what} for {kind} {}", set.join(", "), container.name));
        }
    }
}

/// Fills in the namespace's defaults and notes on the pod what was set.
fn apply_defaults(range: &LimitRange, pod: &mut Pod) {
    let (mut requests, mut limits) = (Wires::new(), Wires::new());
    for item in items(range, "Container") {
        requests.extend(item.default_request.clone().unwrap_or_default());
        limits.extend(item.default.clone().unwrap_or_default());
    }
    let mut notes = Vec::new();
    if let Some(spec) = &mut pod.spec {
        for container in &mut spec.containers {
            fill_container("container", container, &requests, &limits, &mut notes);
        }
        for container in spec.init_containers.iter_mut().flatten() {
            fill_container("init container", container, &requests, &limits, &mut notes);
        }
    }
    if !notes.is_empty() {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION.into(), format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

/// What one item of a range finds wrong with requests and limits.
fn check(item: &LimitRangeItem, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    let kind = &item.type_;
    for (name, bound) in amounts(item.min.as_ref()) {
        let head = format!("minimum {name} usage per {kind} is {bound}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => errors.push(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < bound => errors.push(format!("{head}, but request is {request}")),
            (_, Some(limit)) if *limit < bound => errors.push(format!("{head}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, bound) in amounts(item.max.as_ref()) {
        let head = format!("maximum {name} usage per {kind} is {bound}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => errors.push(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if *limit > bound => errors.push(format!("{head}, but limit is {limit}")),
            (Some(request), _) if *request > bound => errors.push(format!("{head}, but request is {request}")),
            _ => {}
        }
    }
    for (name, bound) in amounts(item.max_limit_request_ratio.as_ref()) {
        let head = format!("{name} max limit to request ratio per {kind} is {bound}");
        let given = |list: &Amounts| list.get(&name).copied().filter(|q| !q.is_zero());
        match (given(requests), given(limits)) {
            (None, _) => errors.push(format!("{head}, but no request is specified or request is 0")),
            (_, None) => errors.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = ratio(limit, request);
                if ratio * 1000.0 > millis(bound) {
                    errors.push(format!("{head}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "upstream compares ratios as floats too")]
fn millis(quantity: Quantity) -> f64 {
    quantity.millis() as f64
}

/// In thousandths where they fit, else in units, as upstream compares.
#[allow(clippy::cast_precision_loss, reason = "upstream compares ratios as floats too")]
fn ratio(limit: Quantity, request: Quantity) -> f64 {
    const MAX_MILLI: i64 = i64::MAX / 1000;
    if limit.value() <= MAX_MILLI && request.value() <= MAX_MILLI {
        millis(limit) / millis(request)
    } else {
        limit.value() as f64 / request.value() as f64
    }
}

fn check_pod(range: &LimitRange, pod: &Pod) -> Vec<String> {
    let mut errors = Vec::new();
    let Some(spec) = &pod.spec else { return errors };
    for item in items(range, "Container") {
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let resources = container.resources.as_ref();
            let requests = amounts(resources.and_then(|r| r.requests.as_ref()));
            let limits = amounts(resources.and_then(|r| r.limits.as_ref()));
            check(item, &requests, &limits, &mut errors);
        }
    }
    for item in items(range, "Pod") {
        check(item, &pod_requests(spec), &pod_limits(spec), &mut errors);
    }
    errors
}

/// Claims have requests only, so both bounds are on those.
fn check_claim(range: &LimitRange, claim: &PersistentVolumeClaim) -> Vec<String> {
    let mut errors = Vec::new();
    let requests = amounts(claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()));
    for item in items(range, "PersistentVolumeClaim") {
        let only_min = LimitRangeItem { type_: item.type_.clone(), min: item.min.clone(), ..LimitRangeItem::default() };
        check(&only_min, &requests, &Amounts::new(), &mut errors);
        for (name, bound) in amounts(item.max.as_ref()) {
            let head = format!("maximum {name} usage per {} is {bound}", item.type_);
            match requests.get(&name) {
                None => errors.push(format!("{head}.  No request is specified")),
                Some(request) if *request > bound => errors.push(format!("{head}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    errors
}
