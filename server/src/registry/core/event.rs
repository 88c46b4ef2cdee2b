//! Events (`pkg/registry/core/event/strategy.go`, `pkg/apis/core/validation/events.go`). They expire by the store's lease.

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use serde_json::Value;
use shared::field::{Error, ErrorList, Path};
use shared::selector::qualified_name_errors;

use crate::registry::validation::check;
use crate::registry::{Column, FieldSource, PrintContext, Strategy, print};

/// See the module.
pub struct Events;

impl Strategy for Events {
    type Object = Event;
    const PLURAL: &'static str = "events";
    const SINGULAR: &'static str = "event";
    const SHORT_NAMES: &'static [&'static str] = &["ev"];
    const FIELDS: &'static [&'static str] = &[
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ];
    const FIELD_SOURCES: &'static [FieldSource] = &[FieldSource { field: "source", paths: &["source.component", "reportingComponent"], absent: "" }];
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column] = &[
        Column::new("Last Seen"),
        Column::new("Type"),
        Column::new("Reason"),
        Column::new("Object"),
        Column::new("Subobject").wide(),
        Column::new("Source").wide(),
        Column::new("Message"),
        Column::new("First Seen").wide(),
        Column::new("Count").wide(),
        Column::name().wide(),
    ];

    fn validate(object: &Event) -> ErrorList {
        let mut errors = Vec::new();
        namespaces_agree(object, &mut errors);
        if object.event_time.is_some() {
            reporter(object, &mut errors);
        }
        errors
    }

    fn cells(object: &Event, context: &PrintContext) -> Vec<Value> {
        let first = match &object.first_timestamp {
            Some(time) => context.age(Some(time)),
            None => context.age(whole(object.event_time.as_ref()).as_ref()),
        };
        let last = match (&object.series, &object.last_timestamp) {
            (Some(series), _) => context.age(whole(series.last_observed_time.as_ref()).as_ref()),
            (None, Some(time)) => context.age(Some(time)),
            (None, None) => first.clone(),
        };
        // Events of the newer API that happened once have no count.
        let count = match &object.series {
            Some(series) => series.count.unwrap_or_default(),
            None => object.count.filter(|c| *c != 0).unwrap_or(1),
        };
        let about = &object.involved_object;
        let kind = about.kind.as_deref().unwrap_or_default().to_lowercase();
        let target = match about.name.as_deref() {
            Some(name) if !name.is_empty() => format!("{kind}/{name}"),
            _ => kind,
        };
        vec![
            last.into(),
            object.type_.clone().unwrap_or_default().into(),
            object.reason.clone().unwrap_or_default().into(),
            target.into(),
            about.field_path.clone().unwrap_or_default().into(),
            source(object).into(),
            object.message.as_deref().unwrap_or_default().trim().into(),
            first.into(),
            count.into(),
            print::name(&object.metadata),
        ]
    }
}

fn whole(time: Option<&MicroTime>) -> Option<Time> {
    time.map(|t| Time(t.0))
}

/// `component, host`, from the older fields or the newer ones.
fn source(object: &Event) -> String {
    let first = |a: Option<&String>, b: Option<&String>| a.filter(|s| !s.is_empty()).or(b).cloned().unwrap_or_default();
    let old = object.source.as_ref();
    let component = first(old.and_then(|s| s.component.as_ref()), object.reporting_component.as_ref());
    let host = first(old.and_then(|s| s.host.as_ref()), object.reporting_instance.as_ref());
    if host.is_empty() { component } else { format!("{component}, {host}") }
}

/// An event lives beside its object; those of cluster-scoped objects live in `default` (or, for newer events, `kube-system`).
fn namespaces_agree(object: &Event, errors: &mut ErrorList) {
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let about = object.involved_object.namespace.as_deref().unwrap_or_default();
    let newer = object.event_time.is_some();
    let agree = match about {
        "" => matches!(namespace, "" | "default") || (newer && namespace == "kube-system"),
        about => newer || namespace == about,
    };
    if !agree {
        errors.push(Error::invalid(&Path::new("involvedObject").child("namespace"), about, "does not match event.namespace"));
    }
}

fn reporter(object: &Event, errors: &mut ErrorList) {
    let component = object.reporting_component.as_deref().unwrap_or_default();
    let path = Path::new("reportingComponent");
    if component.is_empty() {
        errors.push(Error::required(&path, ""));
    }
    check(&path, component, qualified_name_errors(component), errors);
    let instance = object.reporting_instance.as_deref().unwrap_or_default();
    for (field, value, limit) in [
        ("reportingInstance", instance, 128),
        ("action", object.action.as_deref().unwrap_or_default(), 128),
        ("reason", object.reason.as_deref().unwrap_or_default(), 128),
    ] {
        let path = Path::new(field);
        if value.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if value.len() > limit {
            errors.push(Error::invalid(&path, "", &format!("can have at most {limit} characters")));
        }
    }
    if object.message.as_ref().is_some_and(|m| m.len() > 1024) {
        errors.push(Error::invalid(&Path::new("message"), "", "can have at most 1024 characters"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::testing::*;

    #[test]
    fn rows_show_what_happened_to_what_and_when() {
        let row = cells::<Events>(json!({
            "metadata": {"name": "p.1", "namespace": "d"}, "type": "Warning", "reason": "Failed", "message": " no \n", "count": 4,
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{c}"},
            "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "2024-06-01T11:50:00Z", "lastTimestamp": "2024-06-01T11:59:30Z"
        }));
        assert_eq!(
            row,
            [
                json!("30s"),
                json!("Warning"),
                json!("Failed"),
                json!("pod/p"),
                json!("spec.containers{c}"),
                json!("kubelet, n1"),
                json!("no"),
                json!("10m"),
                json!(4),
                json!("p.1")
            ]
        );
        let newer = cells::<Events>(json!({
            "metadata": {"name": "p.2"}, "involvedObject": {"kind": "Node"}, "eventTime": "2024-06-01T11:59:00.000000Z",
            "reportingComponent": "c", "reportingInstance": "i"
        }));
        assert_eq!((&newer[0], &newer[3], &newer[5], &newer[8]), (&json!("60s"), &json!("node"), &json!("c, i"), &json!(1)));
    }

    #[test]
    fn an_event_lives_in_its_objects_namespace() {
        let of =
            |namespace: &str, about: &str| errors::<Events>(json!({"metadata": {"namespace": namespace}, "involvedObject": {"namespace": about}}));
        assert!(of("a", "a").is_empty() && of("default", "").is_empty());
        assert_eq!(of("a", "b"), ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]);
        assert_eq!(of("a", ""), ["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"]);
    }

    #[test]
    fn newer_events_name_their_reporter() {
        let errors = errors::<Events>(json!({
            "metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}, "eventTime": "2024-06-01T11:59:00.000000Z",
            "reportingComponent": "c"
        }));
        assert_eq!(errors, ["reportingInstance: Required value", "action: Required value", "reason: Required value"]);
    }
}
