//! Deletes pods from nodes with NoExecute taints once their tolerations run out (`pkg/controller/tainteviction`).
//!
//! Owns nothing; the time of each deletion is computed from the taints' own times, so a restart changes none of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;

use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, Error, elapsed, now, pods, synced};
use crate::events::{Kind, Recorder};
use crate::informers::{Change, Informer};

const WORKERS: usize = 8;

/// Starts the controller.
pub fn start(ctx: Context) {
    let (nodes, all_pods) = (ctx.informers.get::<Node>(), ctx.informers.get::<Pod>());
    let queue: Queue<Key> = Queue::new();
    let (on_nodes, into) = (all_pods.clone(), queue.clone());
    ctx.on(&nodes, move |change| {
        let taints = |n: &Node| no_execute(n);
        let relevant = match &change {
            Change::Added(node) => !taints(node).is_empty(),
            Change::Updated { old, new } => taints(old) != taints(new),
            Change::Deleted(_) => false,
        };
        if relevant {
            let name = change.object().metadata.name.as_deref().unwrap_or_default();
            on_nodes.list().iter().filter(|p| pods::node_name(p) == name).for_each(|p| into.add(Key::of(&**p)));
        }
    });
    let (known, into) = (nodes.clone(), queue.clone());
    ctx.on(&all_pods, move |change| {
        let pod = change.object();
        let moved = match &change {
            Change::Added(_) => true,
            Change::Updated { old, new } => pods::node_name(old) != pods::node_name(new) || pods::tolerations(old) != pods::tolerations(new),
            Change::Deleted(_) => false,
        };
        if moved && known.get("", pods::node_name(pod)).is_some_and(|n| !no_execute(&n).is_empty()) {
            into.add(Key::of(&**pod));
        }
    });
    let evictor = Arc::new(Evictor {
        client: ctx.client.clone(),
        recorder: ctx.recorder.clone(),
        nodes: nodes.clone(),
        pods: all_pods.clone(),
        queue: queue.clone(),
        scheduled: Mutex::default(),
    });
    ctx.work(&queue, WORKERS, vec![synced(&nodes), synced(&all_pods)], move |key| {
        let evictor = evictor.clone();
        async move { evictor.sync(&key).await }
    });
}

fn no_execute(node: &Node) -> Vec<Taint> {
    node.spec.iter().flat_map(|s| s.taints.iter().flatten()).filter(|t| t.effect == "NoExecute").cloned().collect()
}

/// What becomes of a pod.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    /// Goes after this long, counted from when the taint that begrudges it most was added.
    Goes(Duration),
}

/// What becomes of a pod with these tolerations on a node with these NoExecute taints (`processPodOnNode`).
fn judge(taints: &[Taint], tolerations: &[Toleration], now: &Time) -> Verdict {
    if taints.is_empty() {
        return Verdict::Stays;
    }
    // The moment the first of the tolerations runs out; every taint needs one.
    let mut first: Option<(Duration, &Taint)> = None;
    for taint in taints {
        // The first that matches counts, as upstream's GetMatchingTolerations has it; without seconds it is for ever.
        let Some(toleration) = tolerations.iter().find(|t| pods::tolerates(t, taint)) else { return Verdict::Goes(Duration::ZERO) };
        if let Some(seconds) = toleration.toleration_seconds {
            let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            if first.as_ref().is_none_or(|(shortest, _)| lasts < *shortest) {
                first = Some((lasts, taint));
            }
        }
    }
    match first {
        None => Verdict::Stays,
        Some((lasts, taint)) => {
            let already = taint.time_added.as_ref().map(|added| elapsed(added, now)).unwrap_or_default();
            Verdict::Goes(lasts.saturating_sub(already))
        }
    }
}

struct Evictor {
    client: kube::Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    queue: Queue<Key>,
    /// Pods that have been told they will go, so that they can be told otherwise.
    scheduled: Mutex<HashSet<Key>>,
}

impl Evictor {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|p| !pods::is_terminating(p)) else {
            self.scheduled.lock().remove(key);
            return Ok(());
        };
        let Some(node) = self.nodes.get("", pods::node_name(&pod)) else { return Ok(()) };
        match judge(&no_execute(&node), pods::tolerations(&pod), &now()) {
            Verdict::Stays => {
                if self.scheduled.lock().remove(key) {
                    self.recorder.event(&*pod, Kind::Normal, "TaintManagerEviction", format!("Cancelling deletion of Pod {key}"));
                }
                Ok(())
            }
            Verdict::Goes(wait) if wait.is_zero() => {
                self.scheduled.lock().remove(key);
                self.recorder.event(&*pod, Kind::Normal, "TaintManagerEviction", format!("Marking for deletion Pod {key}"));
                self.delete(&pod).await
            }
            Verdict::Goes(wait) => {
                self.scheduled.lock().insert(key.clone());
                self.queue.add_after(key.clone(), wait);
                Ok(())
            }
        }
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let mut marked = pod.clone();
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("DeletionByTaintManager".into()),
            message: Some("Taint manager: deleting due to NoExecute taint".into()),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        };
        if pods::set_condition(&mut marked, condition, &now()) {
            let patch = json!({
                "metadata": { "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version },
                "status": { "conditions": marked.status.and_then(|s| s.conditions).unwrap_or_default() },
            });
            if found(api.patch_status(pods::name(pod), &PatchParams::default(), &Patch::Merge(patch)).await)?.is_none() {
                return Ok(());
            }
        }
        let same = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        found(api.delete(pods::name(pod), &DeleteParams::default().preconditions(same)).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn taint(key: &str, added: i64) -> Taint {
        Taint { key: key.into(), effect: "NoExecute".into(), time_added: Some(at(added)), value: None }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration { key: Some(key.into()), operator: Some("Exists".into()), toleration_seconds: seconds, ..Toleration::default() }
    }

    #[test]
    fn a_pod_stays_as_long_as_its_shortest_toleration() {
        let goes = |seconds| Verdict::Goes(Duration::from_secs(seconds));
        for (taints, tolerations, now, expected) in [
            (vec![], vec![], 0, Verdict::Stays),
            (vec![taint("a", 0)], vec![], 0, goes(0)),
            (vec![taint("a", 0)], vec![toleration("a", None)], 0, Verdict::Stays),
            (vec![taint("a", 0)], vec![toleration("a", Some(300))], 0, goes(300)),
            (vec![taint("a", 0)], vec![toleration("a", Some(300))], 100, goes(200)),
            (vec![taint("a", 0)], vec![toleration("a", Some(300))], 400, goes(0)),
            (vec![taint("a", 0), taint("b", 0)], vec![toleration("a", Some(300))], 0, goes(0)),
            (vec![taint("a", 0), taint("b", 0)], vec![toleration("a", Some(300)), toleration("b", Some(60))], 0, goes(60)),
            (vec![taint("a", 0)], vec![toleration("a", Some(300)), toleration("a", None)], 0, goes(300)),
            (vec![taint("a", 0)], vec![toleration("a", Some(-5))], 0, goes(0)),
        ] {
            assert_eq!(judge(&taints, &tolerations, &at(now)), expected, "{taints:?} {tolerations:?} {now}");
        }
    }
}
