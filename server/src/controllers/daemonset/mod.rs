//! Runs one pod on every node that a DaemonSet matches (`pkg/controller/daemon`).
//!
//! Owns pods and ControllerRevisions whose controller is the set. The scheduler places the pods, each pinned to its node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use shared::selector::Selector;

use super::control::{self, PodControl};
use super::expectations::Expectations;
use super::history::{self, Made};
use super::queue::{Key, Queue};
use super::{Context, Error, now, pods, synced};
use crate::events::Kind;
use crate::informers::{Change, Informer};

mod nodes;

const WORKERS: usize = 2;
const BURST: usize = 250;
const GENERATION: &str = "deprecated.daemonset.template.generation";

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue: Queue<Key> = Queue::new();
    let expectations = Expectations::default();
    let controller = Arc::new(Controller {
        sets: ctx.informers.get(),
        pods: ctx.informers.get(),
        nodes: ctx.informers.get(),
        revisions: ctx.informers.get(),
        control: PodControl { client: ctx.client.clone(), recorder: ctx.recorder.clone(), expectations: expectations.clone() },
        queue: queue.clone(),
        failures: Mutex::default(),
    });
    ctx.enqueue_all(&controller.sets, &queue);
    let (owners, into) = (controller.sets.clone(), queue.clone());
    ctx.on(&controller.pods, move |change| {
        control::observe::<DaemonSet>(&expectations, &change);
        let concerned = control::owners_concerned(&owners, &change);
        concerned.into_iter().chain(control::possible_owners(&owners, &change, selector)).for_each(|key| into.add(key));
    });
    let (owners, into) = (controller.sets.clone(), queue.clone());
    ctx.on(&controller.revisions, move |change| control::owners_concerned(&owners, &change).into_iter().for_each(|key| into.add(key)));
    let (owners, into) = (controller.sets.clone(), queue.clone());
    ctx.on(&controller.nodes, move |change| {
        for set in owners.list() {
            let spec = nodes::daemon_spec(&set);
            let concerned = match &change {
                Change::Updated { old, new } => nodes::should_run(&spec, old) != nodes::should_run(&spec, new),
                Change::Added(node) => nodes::should_run(&spec, node).0,
                Change::Deleted(node) => nodes::should_run(&spec, node).1,
            };
            if concerned {
                into.add(Key::of(&*set));
            }
        }
    });
    let ready = vec![synced(&controller.sets), synced(&controller.pods), synced(&controller.nodes), synced(&controller.revisions)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

fn selector(set: &DaemonSet) -> Option<Selector> {
    Selector::from_label_selector(set.spec.as_ref().map(|s| &s.selector)).ok()
}

/// How often a daemon has failed on a node, and since when nothing more was tried.
#[derive(Clone, Copy)]
struct Failed {
    times: u32,
    at: tokio::time::Instant,
}

struct Controller {
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
    control: PodControl,
    queue: Queue<Key>,
    /// By set and node.
    failures: Mutex<BTreeMap<(String, String), Failed>>,
}

/// One look at a set.
struct View {
    set: Arc<DaemonSet>,
    spec: PodSpec,
    hash: String,
    generation: Option<String>,
    min_ready: i32,
    by_node: BTreeMap<String, Vec<Arc<Pod>>>,
    nodes: Vec<Arc<Node>>,
}

impl View {
    fn updated(&self, pod: &Pod) -> bool {
        nodes::is_updated(pod, &self.hash, self.generation.as_deref())
    }

    /// The allowance of a rolling update: pods too many, pods too few.
    fn allowance(&self) -> (usize, usize) {
        let desired = self.nodes.iter().filter(|n| nodes::should_run(&self.spec, n).0).count();
        let rolling = self.set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|s| s.rolling_update.as_ref());
        let scaled = |v: Option<&k8s_openapi::apimachinery::pkg::util::intstr::IntOrString>| {
            let desired = i32::try_from(desired).unwrap_or(i32::MAX);
            usize::try_from(super::deployment::scaled(v, desired, true)).unwrap_or_default()
        };
        let (surge, mut unavailable) = (scaled(rolling.and_then(|r| r.max_surge.as_ref())), scaled(rolling.and_then(|r| r.max_unavailable.as_ref())));
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        (surge, unavailable)
    }
}

fn strategy(set: &DaemonSet) -> &str {
    set.spec.as_ref().and_then(|s| s.update_strategy.as_ref()).and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate")
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(set) = self.sets.get(&key.namespace, &key.name) else {
            self.control.expectations.forget(key);
            return Ok(());
        };
        let Some(selector) = selector(&set) else { return Ok(()) };
        if selector.is_everything() {
            let text = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.control.recorder.event(&*set, Kind::Warning, "SelectingAll", text);
            return Ok(());
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let revisions = history::list(&self.control.client, &*set, &selector, &self.revisions).await?;
        let Some((current, old)) = self.current_revision(&set, revisions).await? else { return Ok(()) };
        self.control.settle(key).await?;
        let satisfied = self.control.expectations.satisfied(key);
        let mut view = View {
            spec: nodes::daemon_spec(&set),
            hash: history::hash_of(&current).to_owned(),
            generation: set.metadata.annotations.as_ref().and_then(|a| a.get(GENERATION).cloned()),
            min_ready: set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or_default(),
            by_node: BTreeMap::new(),
            nodes: self.nodes.list(),
            set,
        };
        view.by_node = self.pods_by_node(&view.set, &selector).await?;
        let managed = if satisfied { self.update(key, &view).await } else { Ok(()) };
        if satisfied {
            self.clean_up(&view, &old).await?;
        }
        self.write_status(key, &view).await?;
        managed
    }

    /// The revision of the present template, made if there is none, and the others.
    async fn current_revision(
        &self,
        set: &Arc<DaemonSet>,
        mut revisions: Vec<Arc<ControllerRevision>>,
    ) -> Result<Option<(Arc<ControllerRevision>, Vec<Arc<ControllerRevision>>)>, Error> {
        let template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let newest = |list: &[Arc<ControllerRevision>]| list.iter().map(|r| r.revision).max().unwrap_or_default();
        if let Some(at) = revisions.iter().rposition(|r| history::keeps(r, &template)) {
            let mut current = revisions.remove(at);
            if current.revision <= newest(&revisions) {
                current = history::renumber(&self.control.client, &current, newest(&revisions) + 1).await?;
            }
            return Ok(Some((current, revisions)));
        }
        let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or_default();
        match history::make(&self.control.client, &**set, &template, newest(&revisions) + 1, collisions, history::HASH).await? {
            Made::Revision(current) => Ok(Some((current, revisions))),
            Made::Collision => {
                let mut status = set.status.clone().unwrap_or_default();
                status.collision_count = Some(collisions + 1);
                self.put_status(set, status).await?;
                Ok(None)
            }
        }
    }

    async fn pods_by_node(&self, set: &DaemonSet, selector: &Selector) -> Result<BTreeMap<String, Vec<Arc<Pod>>>, Error> {
        let mut by_node: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in control::claim(&self.control.client, set, selector, &self.pods, None).await? {
            // Finished and on its way out: only its finalizers are left, which are somebody else's.
            if !(pods::is_terminal(&pod) && pods::is_terminating(&pod)) {
                by_node.entry(nodes::target_node(&pod).to_owned()).or_default().push(pod);
            }
        }
        by_node.values_mut().for_each(|on_node| on_node.sort_by(nodes::by_age));
        Ok(by_node)
    }

    async fn update(&self, key: &Key, view: &View) -> Result<(), Error> {
        let (mut create, mut delete) = (Vec::new(), Vec::new());
        for node in &view.nodes {
            self.manage_node(view, node, &mut create, &mut delete);
        }
        // Pods pinned to nodes that are gone will never be placed; those that were placed are for the pod garbage collector.
        let known = |name: &str| view.nodes.iter().any(|n| n.metadata.name.as_deref() == Some(name));
        for (_, on_node) in view.by_node.iter().filter(|(name, _)| !known(name)) {
            delete.extend(on_node.iter().filter(|p| pods::node_name(p).is_empty() && !pods::is_terminating(p)).cloned());
        }
        self.carry_out(view, create, delete).await?;
        if !self.control.expectations.satisfied(key) || strategy(&view.set) != "RollingUpdate" {
            return Ok(());
        }
        let step = nodes::roll(&view.by_node, |p| view.updated(p), view.allowance(), view.min_ready, &now());
        let all = view.by_node.values().flatten();
        let delete = all.filter(|p| step.delete.iter().any(|d| d == pods::name(p))).cloned().collect();
        self.carry_out(view, step.create, delete).await
    }

    /// What one node lacks or has too much of (`podsShouldBeOnNode`).
    fn manage_node(&self, view: &View, node: &Node, create: &mut Vec<String>, delete: &mut Vec<Arc<Pod>>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let (start, stay) = nodes::should_run(&view.spec, node);
        let on_node = view.by_node.get(&name).map(Vec::as_slice).unwrap_or_default();
        if start && on_node.is_empty() {
            return create.push(name);
        }
        let present = on_node.iter().filter(|p| !pods::is_terminating(p));
        if !stay {
            return delete.extend(present.cloned());
        }
        let mut running = Vec::new();
        for pod in present {
            let label = format!("{}/{}", pod.metadata.namespace.as_deref().unwrap_or_default(), pods::name(pod));
            match pods::phase(pod) {
                "Failed" => {
                    if let Some(wait) = self.back_off(&view.set, &name) {
                        self.queue.add_after(Key::of(&*view.set), wait);
                        continue;
                    }
                    let text = format!("Found failed daemon pod {label} on node {name}, will try to kill it");
                    self.control.recorder.event(&*view.set, Kind::Warning, "FailedDaemonPod", text);
                    delete.push(pod.clone());
                }
                "Succeeded" => {
                    let text = format!("Found succeeded daemon pod {label} on node {name}, will try to delete it");
                    self.control.recorder.event(&*view.set, Kind::Normal, "SucceededDaemonPod", text);
                    delete.push(pod.clone());
                }
                _ => running.push(pod.clone()),
            }
        }
        if view.allowance().0 == 0 || strategy(&view.set) != "RollingUpdate" {
            return delete.extend(running.into_iter().skip(1));
        }
        let (mut new, mut old): (Vec<_>, Vec<_>) = running.into_iter().partition(|p| view.updated(p));
        delete.extend(new.split_off(1.min(new.len())));
        delete.extend(old.split_off(1.min(old.len())));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pods::is_ready(old) || pods::is_available(new, view.min_ready, &now()))
        {
            delete.push(old.clone());
        }
    }

    /// How long a failed daemon must wait on its node: 1 s, doubling to 15 min. `None`: no longer.
    fn back_off(&self, set: &DaemonSet, node: &str) -> Option<Duration> {
        let mut failures = self.failures.lock();
        let key = (set.metadata.uid.clone().unwrap_or_default(), node.to_owned());
        let limit = |times: u32| Duration::from_secs(1u64 << times.min(10)).min(Duration::from_secs(900));
        failures.retain(|_, f| f.at.elapsed() < Duration::from_secs(1800));
        match failures.get(&key).copied() {
            Some(failed) if failed.at.elapsed() < limit(failed.times) => Some(limit(failed.times) - failed.at.elapsed()),
            failed => {
                failures.insert(key, Failed { times: failed.map_or(0, |f| f.times + 1), at: tokio::time::Instant::now() });
                None
            }
        }
    }

    async fn carry_out(&self, view: &View, create: Vec<String>, delete: Vec<Arc<Pod>>) -> Result<(), Error> {
        let set = &*view.set;
        let (namespace, name) = (set.metadata.namespace.as_deref().unwrap_or_default(), set.metadata.name.as_deref().unwrap_or_default());
        let mut template = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(history::HASH.into(), view.hash.clone());
        if let Some(generation) = &view.generation {
            labels.insert("pod-template-generation".into(), generation.clone());
        }
        let make = |node: &String| {
            let mut pod = control::pod_from_template(namespace, &format!("{name}-"), &template, control::controller_ref(set));
            let mut spec = view.spec.clone();
            nodes::pin(&mut spec, node);
            pod.spec = Some(spec);
            pod
        };
        let wanted: Vec<Pod> = create.iter().take(BURST).map(make).collect();
        let delete: Vec<_> = delete.into_iter().take(BURST).collect();
        let (_, created) = if wanted.is_empty() { (0, Ok(())) } else { self.control.create_batch(set, wanted).await };
        if !delete.is_empty() {
            self.control.delete_batch(set, &delete).await?;
        }
        created.or_else(|error| if error.is_namespace_terminating() { Ok(()) } else { Err(error) })
    }

    async fn clean_up(&self, view: &View, old: &[Arc<ControllerRevision>]) -> Result<(), Error> {
        let in_use = |revision: &ControllerRevision| {
            let hash = history::hash_of(revision);
            view.by_node.values().flatten().any(|p| p.metadata.labels.as_ref().and_then(|l| l.get(history::HASH)).map(String::as_str) == Some(hash))
        };
        let limit = view.set.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
        let live = old.iter().filter(|r| in_use(r)).count();
        let unused: Vec<_> = old.iter().filter(|r| !in_use(r)).cloned().collect();
        history::truncate(&self.control.client, &unused, limit.saturating_sub(i32::try_from(live).unwrap_or(i32::MAX)).max(0)).await
    }

    async fn write_status(&self, key: &Key, view: &View) -> Result<(), Error> {
        let now = now();
        let mut status = DaemonSetStatus {
            observed_generation: view.set.metadata.generation,
            collision_count: view.set.status.as_ref().and_then(|s| s.collision_count),
            conditions: view.set.status.as_ref().and_then(|s| s.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for node in &view.nodes {
            let pod = view.by_node.get(node.metadata.name.as_deref().unwrap_or_default()).and_then(|p| p.first());
            if !nodes::should_run(&view.spec, node).0 {
                status.number_misscheduled += i32::from(pod.is_some());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(pod) = pod else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pods::is_ready(pod));
            available += i32::from(pods::is_available(pod, view.min_ready, &now));
            updated += i32::from(view.updated(pod));
        }
        let some = |n: i32| (n != 0).then_some(n);
        status.updated_number_scheduled = some(updated);
        status.number_available = some(available);
        status.number_unavailable = some(status.desired_number_scheduled - available);
        if let Some(wait) = pods::next_availability(view.by_node.values().flatten(), view.min_ready, &now) {
            self.queue.add_after(key.clone(), wait);
        }
        if view.set.status.as_ref() == Some(&status) { Ok(()) } else { self.put_status(&view.set, status).await }
    }

    async fn put_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), Error> {
        let api: Api<DaemonSet> = Api::namespaced(self.control.client.clone(), set.metadata.namespace.as_deref().unwrap_or_default());
        let changed = DaemonSet { metadata: set.metadata.clone(), spec: set.spec.clone(), status: Some(status) };
        api.replace_status(set.metadata.name.as_deref().unwrap_or_default(), &PostParams::default(), &changed).await?;
        Ok(())
    }
}
