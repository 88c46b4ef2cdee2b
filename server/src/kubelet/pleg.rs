//! Which runtime id belongs to which pod, and news about them: containerd's events at once, a slow relist as a net.
//!
//! Owns that index. Tells workers to look; never touches the runtime's objects itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_cri::v1 as cri;
use parking_lot::Mutex;

use super::Kubelet;
use super::runtime::events::{self, Event};
use super::runtime::labels;
use super::runtime::observe::{Observed, State};

/// Time between relists.
const RELIST: Duration = Duration::from_secs(60);
/// Time after which a subscription stands.
const SETTLED: Duration = Duration::from_secs(2);
/// First pause between attempts to subscribe.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between attempts to subscribe.
const MAX_PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Inner {
    /// Runtime id → pod UID and whether it was alive when last seen.
    known: HashMap<String, (String, bool)>,
    /// Ids whose end was announced but not yet seen in CRI.
    ended: HashSet<String>,
}

/// The index of sandboxes and containers.
#[derive(Default)]
pub struct Index {
    inner: Mutex<Inner>,
}

impl Index {
    /// Notes an id that a worker has just made.
    pub fn learn(&self, id: &str, pod_uid: &str, alive: bool) {
        self.inner.lock().known.insert(id.to_owned(), (pod_uid.to_owned(), alive));
    }

    /// Notes everything that a worker has seen of its pod.
    pub fn saw(&self, pod_uid: &str, observed: &Observed) {
        let mut inner = self.inner.lock();
        let sandboxes = observed.sandboxes.iter().map(|s| (&s.id, s.ready));
        let containers = observed.containers.iter().map(|c| (&c.id, c.state == State::Running));
        for (id, alive) in sandboxes.chain(containers).filter(|(id, _)| !id.is_empty()) {
            if !alive {
                inner.ended.remove(id);
            }
            inner.known.insert(id.clone(), (pod_uid.to_owned(), alive));
        }
    }

    /// Whether CRI still shows something as alive whose end containerd has announced.
    pub fn is_behind(&self, observed: &Observed) -> bool {
        let inner = self.inner.lock();
        let sandboxes = observed.sandboxes.iter().filter(|s| s.ready).map(|s| &s.id);
        sandboxes.chain(observed.running().map(|c| &c.id)).any(|id| inner.ended.contains(id))
    }

    /// Forgets a pod.
    pub fn forget(&self, pod_uid: &str) {
        let mut inner = self.inner.lock();
        let Inner { known, ended } = &mut *inner;
        known.retain(|id, (uid, _)| {
            let keep = uid != pod_uid;
            if !keep {
                ended.remove(id);
            }
            keep
        });
    }

    fn note(&self, event: &Event) -> Option<String> {
        let mut inner = self.inner.lock();
        let (id, exited) = match event {
            Event::Exited { id, .. } => (id, true),
            Event::OutOfMemory { id } => (id, false),
        };
        let uid = inner.known.get(id).map(|(uid, _)| uid.clone())?;
        if exited {
            inner.ended.insert(id.clone());
        }
        Some(uid)
    }

    /// UIDs of pods of which something came, went or changed its state since it was last seen.
    fn differences(&self, sandboxes: &[cri::PodSandbox], containers: &[cri::Container]) -> HashSet<String> {
        let inner = self.inner.lock();
        let uid = |labels: &HashMap<String, String>| labels.get(labels::POD_UID).cloned().unwrap_or_default();
        let now: HashMap<&str, (String, bool)> = sandboxes
            .iter()
            .map(|s| (s.id.as_str(), (uid(&s.labels), s.state() == cri::PodSandboxState::SandboxReady)))
            .chain(containers.iter().map(|c| (c.id.as_str(), (uid(&c.labels), c.state() == cri::ContainerState::ContainerRunning))))
            .collect();
        let changed = now.iter().filter(|(id, new)| inner.known.get(**id) != Some(new)).map(|(_, (uid, _))| uid.clone());
        let vanished = inner.known.iter().filter(|(id, (_, alive))| *alive && !now.contains_key(id.as_str())).map(|(_, (uid, _))| uid.clone());
        changed.chain(vanished).collect()
    }
}

/// Follows containerd's events for as long as it is polled; after every (re)connection everything is compared anew.
pub async fn run(kubelet: Arc<Kubelet>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let followed = Instant::now();
        follow(&kubelet).await;
        kubelet.set_runtime_up(false);
        if followed.elapsed() > MAX_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Follows one subscription to its end.
async fn follow(kubelet: &Kubelet) {
    let stream = events::subscribe(kubelet.runtime.channel());
    tokio::pin!(stream);
    // At once, and again when the subscription certainly stands; from then on as a net.
    let mut next = Duration::ZERO;
    let relist_timer = tokio::time::sleep(next);
    tokio::pin!(relist_timer);
    loop {
        tokio::select! {
            biased;
            event = stream.next() => match event {
                Some(Ok(event)) => {
                    if let Some(uid) = kubelet.index.note(&event) {
                        kubelet.workers.nudge(&uid);
                    }
                }
                Some(Err(error)) => return tracing::warn!(%error, "containerd's event stream ended"),
                None => return,
            },
            () = &mut relist_timer => {
                relist(kubelet).await;
                next = if next.is_zero() { SETTLED } else { RELIST };
                relist_timer.as_mut().reset(tokio::time::Instant::now() + next);
            }
        }
    }
}

async fn relist(kubelet: &Kubelet) {
    let lists = tokio::try_join!(kubelet.runtime.list_sandboxes(None), kubelet.runtime.list_containers(None));
    match lists {
        Ok((sandboxes, containers)) => {
            kubelet.set_runtime_up(true);
            for uid in kubelet.index.differences(&sandboxes, &containers) {
                kubelet.workers.nudge(&uid);
            }
        }
        Err(error) => tracing::warn!(%error, "relist failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_with_news_are_woken() {
        let index = Index::default();
        index.learn("s1", "a", true);
        index.learn("s2", "b", true);
        index.learn("s3", "c", false);
        let sandbox = |id: &str, uid: &str, ready: bool| cri::PodSandbox {
            id: id.into(),
            state: i32::from(!ready),
            labels: HashMap::from([(labels::POD_UID.to_owned(), uid.to_owned())]),
            ..Default::default()
        };
        let listed = [sandbox("s1", "a", true), sandbox("s2", "b", false), sandbox("s4", "d", true)];
        assert_eq!(index.differences(&listed, &[]), HashSet::from(["b".to_owned(), "d".to_owned()]));
        assert_eq!(index.differences(&[], &[]), HashSet::from(["a".to_owned(), "b".to_owned()]));
        assert_eq!(index.note(&Event::Exited { id: "s1".into(), code: 0 }).as_deref(), Some("a"));
        assert_eq!(index.note(&Event::Exited { id: "other".into(), code: 0 }), None);
    }
}
