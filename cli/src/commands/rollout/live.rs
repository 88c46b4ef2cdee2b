//! What a person sees while a rollout goes on: a bar with what its pods wait for, and at a bad end their reasons.
//!
//! Where stderr is no terminal, only kubectl's lines are printed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::IsTerminal;

use anyhow::Result;
use serde_json::Value;

use super::verdict::counts;
use crate::app::Ctx;
use crate::commands::{pods, why};
use crate::podspec;
use crate::progress::{Progress, for_people};
use crate::resource::{self, Info};
use crate::watch::Watch;

/// The progress of one rollout.
pub(super) struct Live {
    progress: Option<Progress>,
    message: RefCell<String>,
    /// Why pods are not ready, by the pod's name.
    troubles: RefCell<BTreeMap<String, String>>,
}

impl Live {
    pub(super) fn new(waits: bool) -> Live {
        let progress = (waits && for_people()).then(|| Progress::steps(1));
        Live { progress, message: RefCell::default(), troubles: RefCell::default() }
    }

    /// Tells how far the rollout is. On a terminal the bar says what is still awaited, and only the last line stays.
    pub(super) fn tell(&self, object: &Value, message: &str, last: bool) -> Result<()> {
        let Some(progress) = self.progress.as_ref().filter(|_| !last) else { return crate::print::emit(&format!("{message}\n")) };
        let (done, total) = counts(object);
        progress.reach(done, total);
        message.clone_into(&mut self.message.borrow_mut());
        self.show(progress);
        if std::io::stdout().is_terminal() { Ok(()) } else { crate::print::emit(&format!("{message}\n")) }
    }

    fn show(&self, progress: &Progress) {
        let message = self.message.borrow();
        match self.troubles.borrow().iter().next() {
            // What is wrong says more than how long it goes on, which the bar tells too.
            Some((pod, trouble)) => progress.say(&format!("{pod}: {}", trouble.replace('\n', " "))),
            None => progress.say(&message),
        }
    }

    /// Keeps the bar up to date with what the pods wait for. Never ends; that the pods cannot be watched is no reason to stop waiting.
    pub(super) async fn follow_pods(&self, ctx: &Ctx, info: &Info) {
        if let (Some(progress), Some(selector)) = (&self.progress, podspec::pod_selector(&info.object)) {
            let _ended = self.watch_pods(ctx, info, progress, &[("labelSelector", selector)]).await;
        }
        std::future::pending().await
    }

    async fn watch_pods(&self, ctx: &Ctx, info: &Info, progress: &Progress, parameters: &[(&str, String)]) -> Result<()> {
        let collection = pods::kind().collection(info.namespace.as_deref());
        // From no version on, a watch begins with what is there.
        let mut watch = Watch::open(ctx, &collection, parameters, "", "application/json").await?;
        while let Some(event) = watch.next().await? {
            let name = event.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let trouble = trouble(&event.object).filter(|_| event.kind != "DELETED");
            match trouble {
                Some(trouble) => drop(self.troubles.borrow_mut().insert(name, trouble)),
                None => drop(self.troubles.borrow_mut().remove(&name)),
            }
            self.show(progress);
        }
        Ok(())
    }
}

/// The first reason why a pod is not as it should be. One that is going says nothing about the rollout.
fn trouble(pod: &Value) -> Option<String> {
    if pod["metadata"]["deletionTimestamp"].is_string() {
        return None;
    }
    why::reasons::of(pod).into_iter().next()
}

/// The error with the reasons of the pods that kept the rollout from ending, for a person to read.
pub(super) async fn explained(ctx: &Ctx, info: &Info, error: anyhow::Error) -> anyhow::Error {
    let Some(selector) = podspec::pod_selector(&info.object).filter(|_| for_people()) else { return error };
    let collection = pods::kind().collection(info.namespace.as_deref());
    let Ok(list) = resource::list_all(ctx, &collection, &[("labelSelector", selector)], 0).await else { return error };
    let mut text = error.to_string();
    for pod in list["items"].as_array().into_iter().flatten() {
        // Items of a list carry no kind.
        let mut pod = pod.clone();
        pod["kind"] = "Pod".into();
        if let Some(trouble) = trouble(&pod) {
            text.push_str(&format!("\n  {}: {trouble}", pod["metadata"]["name"].as_str().unwrap_or_default()));
        }
    }
    anyhow::anyhow!(text)
}
