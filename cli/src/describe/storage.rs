//! Persistent volumes, claims and storage classes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec};
use k8s_openapi::api::storage::v1::StorageClass;

use super::Writer;
use super::format::{access_modes, or_none, quantity, since};

fn finalizers(list: Option<&Vec<String>>) -> String {
    format!("[{}]", list.map(|l| l.join(" ")).unwrap_or_default())
}

pub(super) fn volume(w: &mut Writer, volume: &PersistentVolume) {
    let (meta, spec, status) = (&volume.metadata, volume.spec.clone().unwrap_or_default(), volume.status.clone().unwrap_or_default());
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    w.field(0, "Finalizers", finalizers(meta.finalizers.as_ref()));
    w.field(0, "StorageClass", spec.storage_class_name.as_deref().unwrap_or_default());
    w.field(
        0,
        "Status",
        match &meta.deletion_timestamp {
            Some(time) => format!("Terminating (lasts {})", since(Some(time.0), jiff::Timestamp::now())),
            None => status.phase.clone().unwrap_or_default(),
        },
    );
    let claim = spec
        .claim_ref
        .as_ref()
        .map_or_else(String::new, |c| format!("{}/{}", c.namespace.as_deref().unwrap_or_default(), c.name.as_deref().unwrap_or_default()));
    w.field(0, "Claim", claim);
    w.field(0, "Reclaim Policy", spec.persistent_volume_reclaim_policy.as_deref().unwrap_or_default());
    w.field(0, "Access Modes", access_modes(spec.access_modes.as_ref()));
    w.field(0, "VolumeMode", spec.volume_mode.as_deref().unwrap_or_default());
    w.field(0, "Capacity", spec.capacity.as_ref().and_then(|c| c.get("storage")).map_or_else(String::new, quantity));
    affinity(w, &spec);
    w.field(0, "Message", status.message.as_deref().unwrap_or_default());
    w.write(0, "Source:\n");
    source(w, &spec);
}

fn affinity(w: &mut Writer, spec: &PersistentVolumeSpec) {
    let required = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    let Some(required) = required else { return w.field(0, "Node Affinity", "<none>") };
    w.write(0, "Node Affinity:\t\n");
    w.write(1, "Required Terms:\t\n");
    for (index, term) in required.node_selector_terms.iter().enumerate() {
        w.write(2, &format!("Term {index}:\t"));
        let Some(expressions) = term.match_expressions.as_ref().filter(|e| !e.is_empty()) else {
            w.write(0, "<none>\n");
            continue;
        };
        for (index, expression) in expressions.iter().enumerate() {
            if index > 0 {
                w.write(2, "\t");
            }
            let values = expression.values.as_ref().filter(|v| !v.is_empty()).map_or_else(String::new, |v| format!(" [{}]", v.join(", ")));
            w.write(0, &format!("{} {}{values}\n", expression.key, expression.operator.to_lowercase()));
        }
    }
}

fn source(w: &mut Writer, spec: &PersistentVolumeSpec) {
    if let Some(host) = &spec.host_path {
        w.field(2, "Type", "HostPath (bare host directory volume)");
        w.field(2, "Path", &host.path);
        w.field(2, "HostPathType", host.type_.as_deref().unwrap_or_default());
    } else if let Some(local) = &spec.local {
        w.field(2, "Type", "LocalVolume (a persistent volume backed by local storage on a node)");
        w.field(2, "Path", &local.path);
    } else if let Some(nfs) = &spec.nfs {
        w.field(2, "Type", "NFS (an NFS mount that lasts the lifetime of a pod)");
        w.field(2, "Server", &nfs.server);
        w.field(2, "Path", &nfs.path);
        w.field(2, "ReadOnly", nfs.read_only.unwrap_or(false));
    } else if let Some(csi) = &spec.csi {
        w.field(2, "Type", "CSI (a Container Storage Interface (CSI) volume source)");
        w.field(2, "Driver", &csi.driver);
        w.field(2, "FSType", csi.fs_type.as_deref().unwrap_or_default());
        w.field(2, "VolumeHandle", &csi.volume_handle);
        w.field(2, "ReadOnly", csi.read_only.unwrap_or(false));
    } else {
        w.field(2, "Type", "<unknown>");
    }
}

pub(super) fn claim(w: &mut Writer, claim: &PersistentVolumeClaim, users: &[String]) {
    let (meta, spec, status) = (&claim.metadata, claim.spec.clone().unwrap_or_default(), claim.status.clone().unwrap_or_default());
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    w.field(0, "Namespace", meta.namespace.as_deref().unwrap_or_default());
    w.field(0, "StorageClass", spec.storage_class_name.as_deref().unwrap_or_default());
    w.field(
        0,
        "Status",
        match &meta.deletion_timestamp {
            Some(time) => format!("Terminating (lasts {})", since(Some(time.0), jiff::Timestamp::now())),
            None => status.phase.clone().unwrap_or_default(),
        },
    );
    w.field(0, "Volume", spec.volume_name.as_deref().unwrap_or_default());
    w.labels("Labels", meta.labels.as_ref());
    w.annotations("Annotations", meta.annotations.as_ref());
    w.field(0, "Finalizers", finalizers(meta.finalizers.as_ref()));
    let bound = spec.volume_name.as_ref().is_some_and(|n| !n.is_empty());
    let capacity = status.capacity.as_ref().and_then(|c| c.get("storage")).filter(|_| bound);
    w.field(0, "Capacity", capacity.map_or_else(String::new, quantity));
    w.field(0, "Access Modes", if bound { access_modes(status.access_modes.as_ref()) } else { String::new() });
    w.field(0, "VolumeMode", spec.volume_mode.as_deref().unwrap_or_default());
    w.write(0, "Used By:\t");
    if users.is_empty() {
        w.write(0, "<none>\n");
    }
    for (index, user) in users.iter().enumerate() {
        w.write(0, &format!("{}{user}\n", if index > 0 { "\t" } else { "" }));
    }
    if let Some(conditions) = status.conditions.as_ref().filter(|c| !c.is_empty()) {
        w.write(0, "Conditions:\n  Type\tStatus\tLastProbeTime\tLastTransitionTime\tReason\tMessage\n");
        w.write(1, "----\t------\t-----------------\t------------------\t------\t-------\n");
        for c in conditions {
            w.write(
                1,
                &format!(
                    "{} \t{} \t\t\t{} \t{}\n",
                    c.type_,
                    c.status,
                    c.reason.as_deref().unwrap_or_default(),
                    c.message.as_deref().unwrap_or_default()
                ),
            );
        }
    }
}

pub(super) fn class(w: &mut Writer, class: &StorageClass) {
    const DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
    let meta = &class.metadata;
    w.field(0, "Name", meta.name.as_deref().unwrap_or_default());
    let default = meta.annotations.as_ref().and_then(|a| a.get(DEFAULT)).is_some_and(|v| v == "true");
    w.field(0, "IsDefaultClass", if default { "Yes" } else { "No" });
    w.field(0, "Annotations", super::format::labels(meta.annotations.as_ref()));
    w.field(0, "Provisioner", &class.provisioner);
    w.field(0, "Parameters", super::format::labels(class.parameters.as_ref()));
    w.field(0, "AllowVolumeExpansion", class.allow_volume_expansion.map_or("<unset>", super::format::capital));
    match class.mount_options.as_ref().filter(|o| !o.is_empty()) {
        None => w.write(0, "MountOptions:\t<none>\n"),
        Some(options) => {
            w.write(0, "MountOptions:\n");
            options.iter().for_each(|o| w.write(1, &format!("{o}\n")));
        }
    }
    w.field(0, "ReclaimPolicy", or_none(class.reclaim_policy.as_deref().unwrap_or_default()));
    w.field(0, "VolumeBindingMode", or_none(class.volume_binding_mode.as_deref().unwrap_or_default()));
    if class.allowed_topologies.as_ref().is_none_or(|t| t.is_empty()) {
        w.write(0, "AllowedTopologies:\t<none>\n");
    }
}
