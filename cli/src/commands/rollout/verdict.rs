//! How far the rollout of an object is, in kubectl's words and in numbers (`k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go`). Pure.

use anyhow::{Result, bail};
use serde_json::Value;

/// A rollout that did not end in time, for which its pods have the reasons.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stuck(pub String);

/// The line that tells how far an object's rollout is, and whether it is done.
///
/// # Errors
/// When it cannot be done any more, or follows no strategy that could be watched.
pub fn verdict(object: &Value, revision: i64) -> Result<(String, bool)> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let observed = number(&object["metadata"]["generation"]) <= number(&status["observedGeneration"]);
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => {
            if revision > 0 {
                let current: i64 = object["metadata"]["annotations"][super::REVISION].as_str().and_then(|r| r.parse().ok()).unwrap_or(0);
                if current != revision {
                    bail!("desired revision ({revision}) is different from the running revision ({current})");
                }
            }
            if !observed {
                return Ok(("Waiting for deployment spec update to be observed...".into(), false));
            }
            let failed = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
            if failed {
                return Err(Stuck(format!("deployment {name:?} exceeded its progress deadline")).into());
            }
            let wanted = spec["replicas"].as_i64().unwrap_or(1);
            let (all, updated, available) = (number(&status["replicas"]), number(&status["updatedReplicas"]), number(&status["availableReplicas"]));
            Ok(if updated < wanted {
                (format!("Waiting for deployment {name:?} rollout to finish: {updated} out of {wanted} new replicas have been updated..."), false)
            } else if all > updated {
                (format!("Waiting for deployment {name:?} rollout to finish: {} old replicas are pending termination...", all - updated), false)
            } else if available < updated {
                (format!("Waiting for deployment {name:?} rollout to finish: {available} of {updated} updated replicas are available..."), false)
            } else {
                (format!("deployment {name:?} successfully rolled out"), true)
            })
        }
        "DaemonSet" => {
            let strategy = spec["updateStrategy"]["type"].as_str().unwrap_or("RollingUpdate");
            if strategy != "RollingUpdate" {
                bail!("rollout status is only available for RollingUpdate strategy type");
            }
            if !observed {
                return Ok(("Waiting for daemon set spec update to be observed...".into(), false));
            }
            let (wanted, updated, available) =
                (number(&status["desiredNumberScheduled"]), number(&status["updatedNumberScheduled"]), number(&status["numberAvailable"]));
            Ok(if updated < wanted {
                (format!("Waiting for daemon set {name:?} rollout to finish: {updated} out of {wanted} new pods have been updated..."), false)
            } else if available < wanted {
                (format!("Waiting for daemon set {name:?} rollout to finish: {available} of {wanted} updated pods are available..."), false)
            } else {
                (format!("daemon set {name:?} successfully rolled out"), true)
            })
        }
        "StatefulSet" => stateful_set(object, observed),
        other => bail!("no status viewer has been implemented for {other}"),
    }
}

fn stateful_set(object: &Value, observed: bool) -> Result<(String, bool)> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    if spec["updateStrategy"]["type"].as_str().unwrap_or("RollingUpdate") != "RollingUpdate" {
        bail!("rollout status is only available for RollingUpdate strategy type");
    }
    if number(&status["observedGeneration"]) == 0 || !observed {
        return Ok(("Waiting for statefulset spec update to be observed...".into(), false));
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (number(&status["readyReplicas"]), number(&status["updatedReplicas"]));
    if ready < wanted {
        return Ok((format!("Waiting for {} pods to be ready...", wanted - ready), false));
    }
    if let Some(partition) = spec["updateStrategy"]["rollingUpdate"]["partition"].as_i64() {
        if updated < wanted - partition {
            return Ok((
                format!("Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...", wanted - partition),
                false,
            ));
        }
        return Ok((format!("partitioned roll out complete: {updated} new pods have been updated..."), true));
    }
    if status["updateRevision"] != status["currentRevision"] {
        return Ok((
            format!(
                "waiting for statefulset rolling update to complete {updated} pods at revision {}...",
                status["updateRevision"].as_str().unwrap_or_default()
            ),
            false,
        ));
    }
    Ok((
        format!(
            "statefulset rolling update complete {} pods at revision {}...",
            number(&status["currentReplicas"]),
            status["currentRevision"].as_str().unwrap_or_default()
        ),
        true,
    ))
}

/// How many pods are as they should be, and how many there should be.
pub fn counts(object: &Value) -> (u64, u64) {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    match object["kind"].as_str() {
        Some("DaemonSet") => {
            (number(&status["updatedNumberScheduled"]).min(number(&status["numberAvailable"])), number(&status["desiredNumberScheduled"]))
        }
        _ => (number(&status["updatedReplicas"]).min(number(&status["availableReplicas"])), spec["replicas"].as_u64().unwrap_or(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::{counts, verdict};
    use serde_json::json;

    #[test]
    fn every_stage_has_its_line() {
        let deployment = |updated: i64, all: i64, available: i64, generation: i64| {
            json!({"kind": "Deployment", "metadata": {"name": "d", "generation": generation}, "spec": {"replicas": 3},
                   "status": {"observedGeneration": 1, "updatedReplicas": updated, "replicas": all, "availableReplicas": available}})
        };
        for (object, line, done) in [
            (deployment(3, 3, 3, 2), "Waiting for deployment spec update to be observed...", false),
            (deployment(1, 3, 3, 1), "Waiting for deployment \"d\" rollout to finish: 1 out of 3 new replicas have been updated...", false),
            (deployment(3, 4, 3, 1), "Waiting for deployment \"d\" rollout to finish: 1 old replicas are pending termination...", false),
            (deployment(3, 3, 2, 1), "Waiting for deployment \"d\" rollout to finish: 2 of 3 updated replicas are available...", false),
            (deployment(3, 3, 3, 1), "deployment \"d\" successfully rolled out", true),
            (
                json!({"kind": "DaemonSet", "metadata": {"name": "d", "generation": 1}, "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1}}),
                "Waiting for daemon set \"d\" rollout to finish: 1 of 2 updated pods are available...",
                false,
            ),
            (
                json!({"kind": "StatefulSet", "metadata": {"name": "s", "generation": 1}, "spec": {"replicas": 2}, "status": {"observedGeneration": 1, "readyReplicas": 1}}),
                "Waiting for 1 pods to be ready...",
                false,
            ),
        ] {
            assert_eq!(verdict(&object, 0).unwrap(), (line.to_owned(), done));
        }
        assert_eq!(counts(&deployment(2, 4, 3, 1)), (2, 3));
        let mut late = deployment(3, 3, 3, 1);
        late["status"]["conditions"] = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert_eq!(verdict(&late, 0).unwrap_err().to_string(), "deployment \"d\" exceeded its progress deadline");
    }
}
