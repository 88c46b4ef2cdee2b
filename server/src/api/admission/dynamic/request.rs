//! One write as webhooks and policies see it: `admission.k8s.io/v1`'s AdmissionRequest, and how what they made of the object is taken over.
//!
//! Owns the form of subresources: a scale is shown as a Scale, a binding as a Binding, though both are updates of their parent here.

use k8s_openapi::api::authentication::v1::UserInfo;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use shared::status::ApiError;

use super::matching::Target;
use crate::api::admission::Attributes;
use crate::registry::admit::Operation;
use crate::registry::{Object, Resource, scale};

/// One write, in JSON.
#[derive(Clone, Debug)]
pub(in crate::api::admission) struct Request {
    /// Everything but `uid`, `object` and `oldObject`.
    pub(in crate::api::admission) head: Value,
    /// The object, `null` where there is none.
    pub(in crate::api::admission) object: Value,
    pub(in crate::api::admission) old: Value,
}

impl Request {
    /// The write, shown as of `kind`, which may be another version of what it is.
    ///
    /// # Errors
    /// 500 when the object cannot be encoded.
    pub(in crate::api::admission) fn of(attributes: &Attributes<'_>, target: &Target<'_>, kind: &'static Resource) -> Result<Self, ApiError> {
        let form = Form::of(attributes);
        let (mut object, mut old) = match form {
            Form::Connect => (attributes.options.cloned().unwrap_or(Value::Null), Value::Null),
            Form::Scale => (scale_json(attributes.resource, attributes.object.as_deref())?, scale_json(attributes.resource, attributes.old)?),
            Form::Binding => (binding(attributes), Value::Null),
            Form::Whole | Form::Own => (whole(attributes.object.as_deref())?, whole(attributes.old)?),
        };
        if !std::ptr::eq(kind, attributes.resource) && form == Form::Whole {
            for shown in [&mut object, &mut old] {
                if shown.is_object() {
                    shown["apiVersion"] = kind.api_version().into();
                }
            }
        }
        let requested = gvk_of(form, attributes.resource, &object, &old);
        let gvk = gvk_of(form, kind, &object, &old);
        let resource = |row: &Resource| json!({"group": row.group, "version": row.version, "resource": row.plural});
        let mut head = json!({
            "kind": gvk,
            "resource": resource(kind),
            "requestKind": requested,
            "requestResource": resource(attributes.resource),
            "operation": target.operation,
            "userInfo": user_info(attributes)?,
            "dryRun": attributes.dry_run,
        });
        for (field, value) in [("subResource", attributes.subresource), ("requestSubResource", attributes.subresource)] {
            if !value.is_empty() {
                head[field] = value.into();
            }
        }
        for (field, value) in [("name", attributes.name), ("namespace", target.namespace)] {
            if !value.is_empty() {
                head[field] = value.into();
            }
        }
        if let Some(options) = options(attributes, target.operation) {
            head["options"] = options;
        }
        Ok(Request { head, object, old })
    }

    /// The kind that is shown, e.g. to find its schema.
    pub(in crate::api::admission) fn kind(&self) -> (&str, &str) {
        (self.object["apiVersion"].as_str().unwrap_or_default(), self.object["kind"].as_str().unwrap_or_default())
    }
}

/// In which form a write's object is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// The object of the resource itself.
    Whole,
    /// A subresource's object that is the write's own, e.g. an Eviction.
    Own,
    Scale,
    Binding,
    Connect,
}

impl Form {
    fn of(attributes: &Attributes<'_>) -> Self {
        match (attributes.operation, attributes.subresource) {
            (Operation::Connect, _) => Form::Connect,
            (_, "scale") => Form::Scale,
            (_, "binding") => Form::Binding,
            (_, "eviction" | "token") => Form::Own,
            _ => Form::Whole,
        }
    }
}

fn whole(object: Option<&Object>) -> Result<Value, ApiError> {
    object.map_or(Ok(Value::Null), |o| o.to_value().map_err(ApiError::internal))
}

fn scale_json(resource: &Resource, object: Option<&Object>) -> Result<Value, ApiError> {
    let scale = object.and_then(|o| scale::to_scale(resource, o));
    scale.map_or(Ok(Value::Null), |s| serde_json::to_value(s).map_err(ApiError::internal))
}

fn binding(attributes: &Attributes<'_>) -> Value {
    let pod = attributes.object.as_deref().and_then(|o| o.downcast_ref::<Pod>());
    let node = pod.and_then(|p| p.spec.as_ref()).and_then(|s| s.node_name.clone()).unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": attributes.name, "namespace": attributes.namespace},
        "target": {"kind": "Node", "name": node},
    })
}

/// Group, version and kind of what is shown; of the resource where nothing is.
fn gvk_of(form: Form, row: &Resource, object: &Value, old: &Value) -> Value {
    let shown = if object.is_object() { object } else { old };
    if form != Form::Whole
        && let (Some(api_version), Some(kind)) = (shown["apiVersion"].as_str(), shown["kind"].as_str())
    {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        return json!({"group": group, "version": version, "kind": kind});
    }
    json!({"group": row.group, "version": row.version, "kind": row.kind})
}

fn user_info(attributes: &Attributes<'_>) -> Result<Value, ApiError> {
    let user = attributes.user;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let info = UserInfo {
        username: text(&user.name),
        uid: text(&user.uid),
        groups: (!user.groups.is_empty()).then(|| user.groups.clone()),
        extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
    };
    serde_json::to_value(info).map_err(ApiError::internal)
}

fn options(attributes: &Attributes<'_>, operation: &str) -> Option<Value> {
    let kind = match operation {
        "CREATE" => "CreateOptions",
        "UPDATE" => "UpdateOptions",
        "DELETE" => "DeleteOptions",
        _ => return None,
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    if attributes.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    if !attributes.field_manager.is_empty() {
        options["fieldManager"] = attributes.field_manager.into();
    }
    Some(options)
}

/// Puts what somebody made of the shown object in the place of the write's own, with the defaults of what was added.
///
/// # Errors
/// 500 when it is not an object of its kind any more.
pub(in crate::api::admission) fn take_over(attributes: &mut Attributes<'_>, mut changed: Value) -> Result<(), ApiError> {
    let form = Form::of(attributes);
    let row = attributes.resource;
    let Some(object) = attributes.object.as_deref_mut() else { return Ok(()) };
    match form {
        Form::Scale => {
            let wanted: Scale = serde_json::from_value(changed).map_err(ApiError::internal)?;
            row.ops.set_replicas(object, wanted.spec.and_then(|s| s.replicas).unwrap_or(0));
        }
        Form::Binding => {
            if let Some(pod) = object.downcast_mut::<Pod>() {
                pod.spec.get_or_insert_default().node_name = changed["target"]["name"].as_str().map(str::to_owned);
            }
        }
        Form::Own => own(object, changed)?,
        Form::Connect => {}
        Form::Whole => {
            changed["apiVersion"] = row.api_version().into();
            changed["kind"] = row.kind.into();
            let bytes = serde_json::to_vec(&changed).map_err(ApiError::internal)?;
            // Whoever may write here need not be allowed to write there.
            if changed["metadata"]["namespace"].as_str().unwrap_or_default() != object.namespace() {
                return Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
            }
            *object = row.ops.decode(&bytes).map_err(ApiError::internal)?;
            row.ops.default(object);
        }
    }
    Ok(())
}

fn own(object: &mut Object, changed: Value) -> Result<(), ApiError> {
    use k8s_openapi::api::authentication::v1::TokenRequest;
    use k8s_openapi::api::policy::v1::Eviction;
    if object.downcast_ref::<Eviction>().is_some() {
        *object = Object::new::<Eviction>(serde_json::from_value(changed).map_err(ApiError::internal)?);
    } else if object.downcast_ref::<TokenRequest>().is_some() {
        *object = Object::new::<TokenRequest>(serde_json::from_value(changed).map_err(ApiError::internal)?);
    }
    Ok(())
}
