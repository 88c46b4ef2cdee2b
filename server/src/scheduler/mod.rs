//! kube-scheduler: gives each pending pod a node.
//!
//! Owns the decision and the binding. Must never write a pod other than through `pods/binding`, the `PodScheduled` condition and
//! `nominatedNodeName` of its status, and the deletion of preemption's victims. The core ([`decide`], [`preemption`], [`queue`],
//! [`cluster`], [`plugins`]) is pure; [`shell`] and [`writes`] do the I/O.

pub mod cluster;
pub mod decide;
pub mod event;
mod feed;
pub mod node_info;
pub mod node_selector;
pub mod plugins;
pub mod pod_info;
pub mod preemption;
pub mod queue;
pub mod resources;
mod shell;
mod writes;

#[cfg(test)]
mod live;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod testing;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::events::Recorder;
use crate::informers::Informers;
use crate::leader::Election;
use crate::tasks::Tasks;

/// How the scheduler runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The `schedulerName` it answers to.
    pub scheduler_name: String,
    /// Identity in the election; stable over restarts. `None` runs without an election.
    pub identity: Option<String>,
    /// Bindings under way at once.
    pub binds_in_flight: usize,
    /// Seed of the choice between equally good nodes.
    pub seed: u64,
    /// Where the last refusal of each waiting pod can be read, node by node.
    pub verdicts: Verdicts,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            scheduler_name: "default-scheduler".into(),
            identity: None,
            binds_in_flight: 64,
            seed: rand::random(),
            verdicts: Verdicts::default(),
        }
    }
}

/// Of so many pods the refusal is kept node by node; of the others, those refused longer ago, only the counts.
const DETAILED: usize = 256;

/// Why each waiting pod was refused last, by UID. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Verdicts(Arc<RwLock<Refusals>>);

#[derive(Debug, Default)]
struct Refusals {
    by_uid: HashMap<String, Arc<decide::Diagnosis>>,
    /// UIDs of pods with every node's verdict, the one refused longest ago first.
    detailed: VecDeque<String>,
}

impl Verdicts {
    /// The last refusal of a pod that still waits.
    pub fn get(&self, uid: &str) -> Option<Arc<decide::Diagnosis>> {
        self.0.read().by_uid.get(uid).cloned()
    }
    fn set(&self, uid: &str, diagnosis: Arc<decide::Diagnosis>) {
        let mut all = self.0.write();
        all.by_uid.insert(uid.to_owned(), diagnosis);
        all.detailed.retain(|other| other != uid);
        all.detailed.push_back(uid.to_owned());
        if all.detailed.len() > DETAILED
            && let Some(oldest) = all.detailed.pop_front()
            && let Some(diagnosis) = all.by_uid.get_mut(&oldest)
        {
            *diagnosis = Arc::new(diagnosis.summary());
        }
    }
    fn forget(&self, uid: &str) {
        // Most pods never have one; do not take the write lock for them.
        if self.0.read().by_uid.contains_key(uid) {
            let mut all = self.0.write();
            all.by_uid.remove(uid);
            all.detailed.retain(|other| other != uid);
        }
    }
}

/// Starts the scheduler and returns. Informers start at once, so that whoever wins the election is warm.
///
/// # Errors
/// A configuration that cannot be used.
pub async fn run(config: Config, client: kube::Client, informers: &Informers, tasks: &Tasks) -> anyhow::Result<()> {
    anyhow::ensure!(config.binds_in_flight > 0, "the scheduler needs at least one binding in flight");
    anyhow::ensure!(config.identity.as_deref() != Some(""), "the scheduler's identity in its election is empty");
    let recorder = Recorder::new(client.clone(), tasks, &config.scheduler_name, "");
    let feed = feed::Feed::new(informers);
    let election = config.identity.as_ref().map(|identity| Election::new(client.clone(), "kube-system", "kube-scheduler", identity));
    let lead = move |client: kube::Client| shell::Scheduler::new(config.clone(), client, recorder.clone()).run(feed.clone());
    match election {
        Some(election) => {
            let group = tasks.clone();
            // It watches the group's token itself, to give the lease back at the end.
            tasks.spawn_draining("scheduler", async move { election.lead(&group, |_, fence| lead(fence.guard(client.clone()))).await });
        }
        None => tasks.spawn("scheduler", lead(client)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::plugins::Refusal;
    use super::*;

    #[test]
    fn old_refusals_lose_their_nodes_but_read_the_same() {
        let verdicts = Verdicts::default();
        let nodes = ["a", "b"].map(|n| (n.into(), Refusal::resolvable("Insufficient cpu")));
        let diagnosis = Arc::new(decide::Diagnosis::of(2, nodes.into_iter()));
        for pod in 0..=DETAILED {
            verdicts.set(&format!("{pod}"), diagnosis.clone());
        }
        let (oldest, next) = (verdicts.get("0").unwrap(), verdicts.get("1").unwrap());
        assert_eq!((oldest.verdicts.len(), next.verdicts.len()), (0, 2));
        assert_eq!(oldest.to_string(), next.to_string());
        verdicts.forget("0");
        assert!(verdicts.get("0").is_none());
    }
}
