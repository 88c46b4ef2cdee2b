//! The worker of one pod: looks at the runtime, asks [`super::plan`] what to do, does it, reports, waits for news
//! (`pkg/kubelet/pod_workers.go`).
//!
//! Exactly one task runs it for a pod, so nothing about a pod happens twice at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::Api;

use super::backoff::{self, Backoff};
use super::mailbox::Mailbox;
use super::plan::{self, Health, Plan, Start, Waiting};
use super::report::ContainerReport;
use super::start::{self, NotStarted};
use super::{admit, container, kill, predicates, resize, spec};
use crate::events::Kind as EventKind;
use crate::kubelet::Kubelet;
use crate::kubelet::images::Report;
use crate::kubelet::probes::check::Target;
use crate::kubelet::probes::{Probes, Subject};
use crate::kubelet::refs::PodRefs;
use crate::kubelet::runtime::observe::{self, Cache, Observed, State};
use crate::kubelet::runtime::{RuntimeError, observe::Container};
use crate::kubelet::status::writer::StatusWriter;
use crate::kubelet::status::{self, Failure};
use crate::kubelet::volumes::{self, PodVolumes};

/// Pause after a failure of the runtime, doubled up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Time until a resize that could not be done is tried again.
const RESIZE_RETRY: Duration = Duration::from_secs(30);
/// How long CRI's state may lag behind containerd's events.
const LAG: Duration = Duration::from_secs(2);

/// What to do after a step.
pub(super) enum Next {
    /// Look again at once.
    Again,
    /// Wait for news, at most this long.
    Wait(Option<Duration>),
    /// The pod is gone.
    Done,
}

/// A container that is not to be started before some time.
struct Hold {
    until: Instant,
    is_config: bool,
}

/// Everything known about one pod between two steps.
pub struct Worker {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) writer: StatusWriter,
    pub(super) probes: Probes,
    pub(super) waiting: HashMap<String, Waiting>,
    /// Set when the kubelet itself ends the pod.
    pub(super) failure: Option<Failure>,
    /// Nothing is to be started any more.
    pub(super) ended: bool,
    pub(super) cleaned: bool,
    pause: Duration,
    /// When the pause under way is over.
    retry_at: Instant,
    /// Something has failed in this round.
    troubled: bool,
    pub(super) volumes: PodVolumes,
    cache: Cache,
    refs: PodRefs,
    /// Ephemeral containers when `refs` were collected: nothing else that refers to an object can be added to a pod.
    refs_of: usize,
    pub(super) applied: resize::Applied,
    pub(super) resized: Option<status::Resize>,
    volumes_are_due: bool,
    volumes_of: Option<Arc<Pod>>,
    backoff: HashMap<String, Backoff>,
    holds: HashMap<String, Hold>,
}

impl Worker {
    /// A worker for the pod in the mailbox.
    pub fn new(kubelet: Arc<Kubelet>, mailbox: Arc<Mailbox>) -> Self {
        let pod = mailbox.pod();
        let terminal = status::is_final(pod.status.as_ref());
        Worker {
            writer: StatusWriter::new(&pod),
            probes: Probes::new(&kubelet.tasks, mailbox.changed()),
            refs_of: ephemeral_containers(&pod),
            refs: if terminal { PodRefs::default() } else { kubelet.refs.of(&pod) },
            waiting: HashMap::new(),
            failure: failure_before(&pod),
            ended: terminal,
            cleaned: false,
            pause: FIRST_PAUSE,
            retry_at: Instant::now(),
            troubled: false,
            cache: Cache::default(),
            volumes: PodVolumes::default(),
            applied: resize::Applied::default(),
            resized: None,
            volumes_are_due: true,
            volumes_of: None,
            backoff: HashMap::new(),
            holds: HashMap::new(),
            kubelet,
            mailbox,
        }
    }

    /// Works until the pod is gone from the node.
    pub async fn run(mut self) {
        let (writer, pod, client) = (self.writer.clone(), self.mailbox.pod(), self.kubelet.client.clone());
        tokio::select! {
            () = writer.run(client, &pod) => {}
            () = self.live() => {}
        }
    }

    async fn live(&mut self) {
        let pod = self.mailbox.pod();
        if !has_started(&pod) && !self.ended && !self.mailbox.stopping().borrow().wanted {
            self.admit(&pod).await;
        }
        loop {
            match self.step().await {
                Next::Again => {}
                Next::Wait(limit) => self.wait(limit).await,
                Next::Done => return,
            }
        }
    }

    /// Takes a new pod on, or fails it.
    async fn admit(&mut self, pod: &Pod) {
        let kubelet = self.kubelet.clone();
        let refused_by = |node: Option<&Node>| {
            kubelet.workers.admit(spec::uid(pod), |admitted| {
                admit::refuse(pod, kubelet.abilities).or_else(|| {
                    let mut others = kubelet.pods.list();
                    others.retain(|other| has_started(other) || admitted.contains(spec::uid(other)));
                    predicates::refuse(pod, node?, &others)
                })
            })
        };
        let known = kubelet.nodes.get("", &kubelet.config.node_name);
        let mut refused = refused_by(known.as_deref());
        if refused.is_some() {
            // The scheduler may know a newer Node than this watch has shown, and what is failed here is failed for good.
            match Api::<Node>::all(kubelet.client.clone()).get(&kubelet.config.node_name).await {
                Ok(node) => refused = refused_by(Some(&node)),
                Err(error) => tracing::warn!(pod = %spec::title(pod), %error, "refusing the pod by what is known of the node"),
            }
        }
        if let Some(failure) = refused {
            kubelet.recorder.event(pod, EventKind::Warning, &failure.reason, failure.message.clone());
            self.failure = Some(failure);
        }
    }

    async fn step(&mut self) -> Next {
        self.troubled = false;
        let next = self.round().await;
        if !self.troubled {
            self.pause = FIRST_PAUSE;
        }
        next
    }

    async fn round(&mut self) -> Next {
        let pod = self.mailbox.pod();
        self.writer.reconcile(&pod);
        let observed = match self.observe(&pod).await {
            Ok(observed) => observed,
            Err(error) => return self.failed(&pod, &error),
        };
        let stop = *self.mailbox.stopping().borrow();
        // Somebody else may have ended it, for instance a controller that failed it.
        self.ended |= status::is_final(pod.status.as_ref());
        self.check_deadline(&pod);
        if !self.ended
            && self.failure.is_none()
            && let Some(evicted) = self.mailbox.evicted()
        {
            self.kubelet.recorder.event(&*pod, EventKind::Warning, &evicted.reason, evicted.message.clone());
            self.failure = Some(evicted);
        }
        if !self.ended && self.refs_of != ephemeral_containers(&pod) {
            self.refs = self.kubelet.refs.of(&pod);
            self.refs_of = ephemeral_containers(&pod);
            // Until the new objects are known.
            self.volumes_are_due = true;
        }
        if stop.wanted || self.ended || self.failure.is_some() {
            return self.terminate(&pod, observed, stop).await;
        }
        self.sync(&pod, observed).await
    }

    /// Waits for a letter, a nudge, a change of a reference, or the time limit.
    async fn wait(&mut self, limit: Option<Duration>) {
        let changed = self.mailbox.changed();
        let sleep = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed.notified() => {}
            () = self.refs.changed() => {
                self.refs.mark_seen();
                self.volumes_are_due = true;
                self.holds.retain(|_, hold| !hold.is_config);
            }
            () = sleep => {}
        }
    }

    /// After the runtime failed us: say so and try again later.
    pub(super) fn failed(&mut self, pod: &Pod, error: &RuntimeError) -> Next {
        tracing::warn!(pod = %spec::title(pod), call = error.call, %error, "container runtime failed");
        Next::Wait(Some(self.back_off()))
    }

    /// How long to wait after a failure: twice as long as after the one before, until a round succeeds.
    fn back_off(&mut self) -> Duration {
        self.troubled = true;
        let now = Instant::now();
        if now < self.retry_at {
            // Something else has caused a round in between; it says nothing of how long the trouble lasts.
            return self.retry_at - now;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(MAX_PAUSE);
        self.retry_at = now + pause;
        pause
    }

    /// What the runtime has, not older than the last event about it.
    pub(super) async fn observe(&mut self, pod: &Pod) -> Result<Observed, RuntimeError> {
        let deadline = Instant::now() + LAG;
        let mut pause = Duration::from_millis(2);
        let mut observed = loop {
            let observed = observe::observe(&self.kubelet.runtime, spec::uid(pod), &mut self.cache).await?;
            self.kubelet.index.saw(spec::uid(pod), &observed);
            if !self.kubelet.index.is_behind(&observed) || Instant::now() > deadline {
                break observed;
            }
            // containerd has announced an end that its CRI plugin is still writing down; it sends no further event.
            tokio::time::sleep(pause).await;
            pause *= 2;
        };
        let status = pod.status.clone().unwrap_or_default();
        for list in [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses] {
            observe::remember(&mut observed, list.as_deref().unwrap_or_default());
        }
        self.mailbox.saw(&observed);
        Ok(observed)
    }

    /// Ends a pod that ran longer than it may.
    fn check_deadline(&mut self, pod: &Pod) {
        if !self.ended && self.failure.is_none() && self.deadline_in(pod).is_some_and(|left| left.is_zero()) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.kubelet.recorder.event(pod, EventKind::Normal, "DeadlineExceeded", message);
            self.failure = Some(Failure { reason: "DeadlineExceeded".into(), message: message.into() });
        }
    }

    fn deadline_in(&self, pod: &Pod) -> Option<Duration> {
        let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
        let start = pod.status.as_ref().and_then(|s| s.start_time.clone()).or_else(|| self.writer.written().start_time)?;
        let left = start.0.as_second().saturating_add(seconds) - Timestamp::now().as_second();
        Some(Duration::from_secs(u64::try_from(left).unwrap_or(0)))
    }

    /// One round for a pod that is to run.
    async fn sync(&mut self, pod: &Arc<Pod>, mut observed: Observed) -> Next {
        self.watch_health(pod, &observed);
        self.resize(pod, &observed).await;
        let health = self.probes.health();
        let mut plan = self.plan(pod, &observed, &health);
        self.note_waiting(pod, &observed, &plan);
        if plan.finished {
            self.ended = true;
            return Next::Again;
        }
        self.publish(pod, &observed);
        if let Some(attempt) = plan.create_sandbox {
            if observed.is_alive() {
                return self.end_old_sandbox(pod, &observed).await;
            }
            match self.make_sandbox(pod, &observed, attempt).await {
                Ok(Some(sandbox)) => observed.sandboxes.insert(0, sandbox),
                Ok(None) => return Next::Again,
                Err(next) => return next,
            }
            self.mailbox.saw(&observed);
            self.publish(pod, &observed);
            plan = self.plan(pod, &observed, &health);
        } else if let Err(next) = self.set_up_volumes(pod).await {
            return next;
        }
        let acted = self.carry_out(pod, &observed, plan).await;
        match acted {
            Acted::Something => Next::Again,
            Acted::Nothing(wake) => {
                self.collect_garbage(&observed).await;
                // Room for a larger pod appears without a word to this one.
                let room = self.resized.as_ref().map(|_| RESIZE_RETRY);
                let wakes = [wake, self.volumes.renew_in(), self.deadline_in(pod), self.hold_ends(), room];
                if self.volumes.renew_in().is_some_and(|d| d.is_zero()) {
                    self.volumes_are_due = true;
                }
                Next::Wait(wakes.into_iter().flatten().min())
            }
        }
    }

    fn plan(&self, pod: &Pod, observed: &Observed, health: &HashMap<String, Health>) -> Plan {
        plan::plan(&plan::Input { pod, observed, health, backoff: &self.backoff, now: backoff::now() })
    }

    fn hold_ends(&self) -> Option<Duration> {
        self.holds.values().map(|h| h.until.saturating_duration_since(Instant::now())).min()
    }

    /// Starts probes of what runs, ends those of what does not.
    fn watch_health(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        self.probes.retain(|id| observed.running().any(|c| c.id == id));
        for running in observed.running().filter(|c| !self.probes.knows(&c.id)).cloned().collect::<Vec<_>>() {
            let Some((kind, spec)) = spec::container(pod, &running.name).filter(|(kind, _)| container::has_hooks(*kind)) else { continue };
            if spec.startup_probe.is_none() && spec.readiness_probe.is_none() && spec.liveness_probe.is_none() {
                continue;
            }
            tracing::debug!(pod = %spec::title(pod), container = %running.name, ?kind, "probing");
            let host = spec::host_network(pod).then_some(self.kubelet.config.node_ip);
            let ip = host.or_else(|| observed.sandbox().and_then(|s| s.ips.first().copied())).unwrap_or(self.kubelet.config.node_ip);
            self.probes.add(Subject {
                started_at: running.started_at / 1_000_000_000,
                before: health_before(pod, &running),
                report: Arc::new(ContainerReport::new(&self.kubelet, pod, &running.name)),
                target: Target { runtime: self.kubelet.runtime.clone(), container_id: running.id, container: Arc::new(spec), ip },
            });
        }
    }

    /// Keeps why containers wait, for the status, and tells about crash loops.
    fn note_waiting(&mut self, pod: &Pod, observed: &Observed, plan: &Plan) {
        self.waiting.retain(|name, _| observed.current(name).is_none_or(|c| c.state != State::Running));
        for (name, waiting) in &plan.backing_off {
            if self.waiting.insert(name.clone(), waiting.clone()).as_ref() != Some(waiting) {
                let text = format!("Back-off restarting failed container {name} in pod {}", spec::title(pod));
                ContainerReport::new(&self.kubelet, pod, name).event(EventKind::Warning, "BackOff", text);
            }
        }
    }

    /// Stops what is left of a sandbox that has to be replaced; the next look plans the new one.
    async fn end_old_sandbox(&mut self, pod: &Arc<Pod>, observed: &Observed) -> Next {
        match kill::pod(&self.kubelet, pod, observed, kill::default_grace(pod), true).await {
            Ok(()) => Next::Again,
            Err(error) => self.failed(pod, &error),
        }
    }

    /// Makes a sandbox in place of those that ended, setting volumes up at the same time. `None`: stop was asked for meanwhile.
    async fn make_sandbox(&mut self, pod: &Arc<Pod>, observed: &Observed, attempt: u32) -> Result<Option<observe::Sandbox>, Next> {
        if !observed.sandboxes.is_empty() {
            self.kubelet.recorder.event(&**pod, EventKind::Normal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.");
        }
        for old in &observed.sandboxes {
            // Frees the address also of a sandbox whose pause process died. One that never held a container has nothing to tell.
            let used = observed.containers.iter().any(|c| c.sandbox_id == old.id);
            let mut freed = self.kubelet.runtime.stop_sandbox(&old.id).await;
            if freed.is_ok() && !used {
                freed = self.kubelet.runtime.remove_sandbox(&old.id).await;
            }
            if let Err(error) = freed {
                return Err(self.failed(pod, &error));
            }
        }
        let kubelet = self.kubelet.clone();
        let Ok(permit) = kubelet.starts.acquire().await else { return Ok(None) };
        if self.mailbox.stopping().borrow().wanted {
            return Ok(None);
        }
        let (volumes, sandbox) = tokio::join!(self.set_up_volumes(pod), start::sandbox(&kubelet, pod, attempt));
        drop(permit);
        let sandbox = sandbox.map_err(|error| {
            let text = format!("Failed to create pod sandbox: {error}");
            self.kubelet.recorder.event(&**pod, EventKind::Warning, "FailedCreatePodSandBox", text);
            self.failed(pod, &error)
        })?;
        volumes?;
        Ok(Some(sandbox))
    }

    /// Sets volumes up or brings their contents up to date, if there is a reason to.
    async fn set_up_volumes(&mut self, pod: &Arc<Pod>) -> Result<(), Next> {
        let same = |a: &Pod, b: &Pod| a.metadata.labels == b.metadata.labels && a.metadata.annotations == b.metadata.annotations;
        if !self.volumes_are_due && self.volumes_of.as_ref().is_some_and(|old| same(old, pod)) {
            return Ok(());
        }
        let mut stopping = self.mailbox.stopping();
        tokio::select! {
            _ = self.refs.known() => {}
            _ = stopping.wait_for(|s| s.wanted) => return Err(Next::Again),
        }
        self.refs.mark_seen();
        let dir = self.kubelet.pod_dir(spec::uid(pod));
        let context =
            volumes::Context { pod, refs: &self.refs, dir: &dir, client: &self.kubelet.client, allocatable: self.kubelet.machine.allocatable() };
        match self.volumes.set_up(&context).await {
            Ok(()) => {
                self.volumes_are_due = false;
                self.volumes_of = Some(pod.clone());
                Ok(())
            }
            Err(error) => {
                self.kubelet.recorder.event(&**pod, EventKind::Warning, "FailedMount", error.to_string());
                // A missing ConfigMap or Secret that appears wakes the worker sooner.
                Err(Next::Wait(Some(self.back_off())))
            }
        }
    }

    /// Kills and starts what the plan says.
    async fn carry_out(&mut self, pod: &Arc<Pod>, observed: &Observed, plan: Plan) -> Acted {
        let kubelet = self.kubelet.clone();
        for kill in &plan.kill {
            let Some(container) = observed.containers.iter().find(|c| c.id == kill.id) else { continue };
            let grace = kill.grace.map_or_else(|| kill::default_grace(pod), kill::grace);
            let killing = kill::container(&kubelet, pod, container, grace, true, kill.message.clone());
            if let Err(error) = self.reporting(pod, observed, killing).await {
                tracing::warn!(pod = %spec::title(pod), %error, "container not killed");
                return Acted::Nothing(Some(self.back_off()));
            }
            if container.state == State::Created {
                let _ = kubelet.runtime.remove_container(&container.id).await;
            }
        }
        let mut acted = !plan.kill.is_empty();
        self.holds.retain(|_, hold| hold.until > Instant::now());
        for start in plan.start.iter().filter(|s| !self.holds.contains_key(&s.name)).cloned().collect::<Vec<_>>() {
            acted |= self.start_one(pod, observed, &start).await;
            if self.mailbox.stopping().borrow().wanted {
                return Acted::Something;
            }
        }
        if acted { Acted::Something } else { Acted::Nothing(plan.wake_in) }
    }

    /// Starts one container; true if the runtime has changed.
    async fn start_one(&mut self, pod: &Arc<Pod>, observed: &Observed, start: &Start) -> bool {
        if let Some(previous) = observed.container(&start.name).filter(|c| c.state == State::Exited) {
            let now = backoff::now();
            self.backoff.entry(start.name.clone()).or_default().next(previous.finished_at, now);
        }
        let kubelet = self.kubelet.clone();
        let context = start::Context { kubelet: &kubelet, pod, observed, refs: &self.refs, volumes: &self.volumes };
        let mut stopping = self.mailbox.stopping();
        let starting = async {
            tokio::select! {
                biased;
                result = start::start(&context, start) => Some(result),
                // A long pull or hook must not hold a deletion up; what was half done is found by the next observation.
                _ = stopping.wait_for(|s| s.wanted) => None,
            }
        };
        let result = self.reporting(pod, observed, starting).await;
        let Some(result) = result else { return true };
        let Err(NotStarted { waiting, retry_in, is_config }) = result else {
            self.waiting.remove(&start.name);
            return true;
        };
        self.waiting.insert(start.name.clone(), waiting);
        let exists = retry_in.is_none();
        if let Some(after) = retry_in {
            self.holds.insert(start.name.clone(), Hold { until: Instant::now() + after, is_config });
        }
        self.publish(pod, observed);
        exists
    }

    /// Waits for something that may take long, and goes on reporting meanwhile: readiness is not to wait for the worker.
    pub(super) async fn reporting<T>(&self, pod: &Pod, observed: &Observed, work: impl Future<Output = T>) -> T {
        let changed = self.mailbox.changed();
        tokio::pin!(work);
        let mut heard = false;
        let done = loop {
            tokio::select! {
                biased;
                done = &mut work => break done,
                () = changed.notified() => {
                    heard = true;
                    self.publish(pod, observed);
                }
            }
        };
        if heard {
            // Whatever else it was about is still to be looked at.
            self.mailbox.nudge();
        }
        done
    }

    /// Asks for a status that says what was seen.
    pub(super) fn publish(&self, pod: &Pod, observed: &Observed) -> PodStatus {
        let mut pod = pod.clone();
        // Transition and start times are kept from what was written last, which may be newer than the informer.
        let foreign = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let mut before = self.writer.written();
        let mut conditions = before.conditions.take().unwrap_or_default();
        conditions.retain(|c| status::conditions::OWNED.contains(&c.type_.as_str()));
        conditions.extend(foreign.into_iter().filter(|c| !status::conditions::OWNED.contains(&c.type_.as_str())));
        before.conditions = Some(conditions);
        pod.status = Some(before);
        let status = status::compute(&status::Input {
            pod: &pod,
            observed,
            health: &self.probes.health(),
            waiting: &self.waiting,
            failure: self.failure.as_ref(),
            applied: &self.applied,
            resize: self.resized.as_ref(),
            terminal: self.ended || self.failure.is_some() || self.mailbox.stopping().borrow().wanted,
            node_ips: &[self.kubelet.config.node_ip],
            now: Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default()),
        });
        self.writer.set(status.clone());
        status
    }

    /// Keeps one dead container a name (for `logs -p`) and no sandbox that nothing belongs to.
    async fn collect_garbage(&mut self, observed: &Observed) {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut kept: Vec<&Container> = Vec::new();
        for container in &observed.containers {
            let dead = container.state == State::Exited && !container.sandbox_id.is_empty();
            let count = seen.entry(&container.name).or_default();
            *count += usize::from(dead);
            if dead && *count > 1 {
                if self.kubelet.runtime.remove_container(&container.id).await.is_ok() {
                    crate::kubelet::logs::rotate::remove(std::path::Path::new(&container.log_path));
                }
            } else {
                kept.push(container);
            }
        }
        for sandbox in observed.sandboxes.iter().skip(1).filter(|s| !s.ready) {
            if !kept.iter().any(|c| c.sandbox_id == sandbox.id)
                && let Err(error) = self.kubelet.runtime.remove_sandbox(&sandbox.id).await
            {
                tracing::debug!(%error, "dead sandbox not removed");
            }
        }
    }
}

/// Whether a round has changed anything; if not, when to look again.
enum Acted {
    Something,
    Nothing(Option<Duration>),
}

/// Whether a kubelet has taken the pod on before.
fn has_started(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|s| s.start_time.is_some())
}

fn ephemeral_containers(pod: &Pod) -> usize {
    pod.spec.as_ref().and_then(|s| s.ephemeral_containers.as_ref()).map_or(0, Vec::len)
}

/// Why a pod was failed by the kubelet that ran before this one.
fn failure_before(pod: &Pod) -> Option<Failure> {
    let status = pod.status.as_ref().filter(|s| s.phase.as_deref() == Some("Failed"))?;
    let reason = status.reason.clone().filter(|r| !r.is_empty())?;
    Some(Failure { reason, message: status.message.clone().unwrap_or_default() })
}

/// What the API knows of a container that ran before this kubelet started, so that a restart of the kubelet makes no pod unready.
fn health_before(pod: &Pod, running: &Container) -> Option<Health> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let known = lists.into_iter().flatten().flatten().find(|s| s.name == running.name)?;
    let same = known.container_id.as_deref().is_some_and(|id| id.ends_with(&running.id));
    (same && known.started == Some(true)).then_some(Health { started: true, ready: known.ready, failed: None })
}
