//! Deletes pods from nodes with NoExecute taints once their tolerations run out (`pkg/controller/tainteviction`).
//!
//! Owns nothing; the time of each deletion is computed from the taints' own times where they have any, so that a restart changes none of
//! them, and from when they were first seen otherwise.

use std::collections::HashMap;
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
    /// Goes after this long.
    Goes(Duration),
}

/// What becomes of a pod with these tolerations on a node with these NoExecute taints (`processPodOnNode`); `since` says from when on
/// a taint counts for the pod.
fn judge(taints: &[Taint], tolerations: &[Toleration], since: impl Fn(&Taint) -> Time, now: &Time) -> Verdict {
    // The moment the first of the tolerations runs out; every taint needs one.
    let mut left: Option<Duration> = None;
    for taint in taints {
        // The first that matches counts, as upstream's GetMatchingTolerations has it; without seconds it is for ever.
        let Some(toleration) = tolerations.iter().find(|t| pods::tolerates(t, taint)) else { return Verdict::Goes(Duration::ZERO) };
        if let Some(seconds) = toleration.toleration_seconds {
            let lasts = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            let wait = lasts.saturating_sub(elapsed(&since(taint), now));
            left = Some(left.map_or(wait, |l| l.min(wait)));
        }
    }
    left.map_or(Verdict::Stays, Verdict::Goes)
}

/// When a pod came to its node.
fn placed_at(pod: &Pod) -> Option<Time> {
    let scheduled = pods::condition(pod, "PodScheduled").filter(|c| c.status == "True").and_then(|c| c.last_transition_time.clone());
    scheduled.max(pod.metadata.creation_timestamp.clone())
}

/// A pod that has been told it will go, and since when the taints that do not say so themselves have been known.
struct Scheduled {
    uid: String,
    first_seen: HashMap<String, Time>,
}

struct Evictor {
    client: kube::Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    queue: Queue<Key>,
    /// Pods that have been told they will go, so that they can be told otherwise.
    scheduled: Mutex<HashMap<Key, Scheduled>>,
}

impl Evictor {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name).filter(|p| !pods::is_terminating(p)) else {
            self.scheduled.lock().remove(key);
            return Ok(());
        };
        let Some(node) = self.nodes.get("", pods::node_name(&pod)) else { return Ok(()) };
        let (taints, now) = (no_execute(&node), now());
        let first_seen = self.first_seen(key, &pod, &taints, &now);
        let placed = placed_at(&pod);
        let since = |taint: &Taint| {
            let known = taint.time_added.clone().or_else(|| first_seen.get(&taint.key).cloned());
            known.max(placed.clone()).unwrap_or_else(|| now.clone())
        };
        match judge(&taints, pods::tolerations(&pod), since, &now) {
            Verdict::Stays => {
                if self.scheduled.lock().remove(key).is_some() {
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
                self.scheduled.lock().insert(key.clone(), Scheduled { uid: pods::uid(&pod).to_owned(), first_seen });
                self.queue.add_after(key.clone(), wait);
                Ok(())
            }
        }
    }

    /// Since when each taint without a time has been known; taints that are gone are forgotten.
    fn first_seen(&self, key: &Key, pod: &Pod, taints: &[Taint], now: &Time) -> HashMap<String, Time> {
        let all = self.scheduled.lock();
        let before = all.get(key).filter(|s| s.uid == pods::uid(pod)).map(|s| &s.first_seen);
        let untimed = taints.iter().filter(|t| t.time_added.is_none());
        untimed.map(|t| (t.key.clone(), before.and_then(|b| b.get(&t.key)).unwrap_or(now).clone())).collect()
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
            (vec![taint("a", 0), taint("b", 90)], vec![toleration("a", Some(100)), toleration("b", Some(60))], 90, goes(10)),
        ] {
            let since = |taint: &Taint| taint.time_added.clone().unwrap();
            assert_eq!(judge(&taints, &tolerations, since, &at(now)), expected, "{taints:?} {tolerations:?} {now}");
        }
    }
}
