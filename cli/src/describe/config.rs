//! Config maps, secrets and service accounts.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, ServiceAccount};

use super::Writer;

pub(super) fn config_map(w: &mut Writer, map: &ConfigMap) {
    w.field(0, "Name", map.metadata.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", map.metadata.namespace.as_deref().unwrap_or_default());
    w.labels("Labels", map.metadata.labels.as_ref());
    w.annotations("Annotations", map.metadata.annotations.as_ref());
    w.write(0, "\nData\n====\n");
    for (key, value) in map.data.iter().flatten() {
        w.write(0, &format!("{key}:\n----\n{value}\n\n"));
    }
    w.write(0, "\nBinaryData\n====\n");
    for (key, value) in map.binary_data.iter().flatten() {
        w.write(0, &format!("{key}: {} bytes\n", value.0.len()));
    }
    w.write(0, "\n");
}

pub(super) fn secret(mut w: Writer, secret: &Secret) -> String {
    w.field(0, "Name", secret.metadata.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", secret.metadata.namespace.as_deref().unwrap_or_default());
    w.labels("Labels", secret.metadata.labels.as_ref());
    w.annotations("Annotations", secret.metadata.annotations.as_ref());
    let kind = secret.type_.as_deref().unwrap_or("Opaque");
    w.write(0, &format!("\nType:\t{kind}\n"));
    w.write(0, "\nData\n====\n");
    for (key, value) in secret.data.iter().flatten() {
        if key == "token" && kind == "kubernetes.io/service-account-token" {
            w.field(0, key, String::from_utf8_lossy(&value.0));
        } else {
            w.field(0, key, format!("{} bytes", value.0.len()));
        }
    }
    w.finish()
}

pub(super) fn service_account(w: &mut Writer, account: &ServiceAccount) {
    w.field(0, "Name", account.metadata.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", account.metadata.namespace.as_deref().unwrap_or_default());
    w.labels("Labels", account.metadata.labels.as_ref());
    w.annotations("Annotations", account.metadata.annotations.as_ref());
    let names: Vec<&str> = account.image_pull_secrets.iter().flatten().map(|r| r.name.as_str()).collect();
    w.field(0, "Image pull secrets", if names.is_empty() { "<none>".into() } else { names.join("\n\t") });
}
