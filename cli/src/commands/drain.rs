//! `cordon`, `uncordon` and `drain`: take nodes out of service and back (`k8s.io/kubectl/pkg/drain`).

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::{delete, pods};
use crate::app::Ctx;
use crate::client::Body;
use crate::errors;
use crate::outln;
use crate::print::{DryRun, DryRunArgs};
use crate::resource::{self, Info, Query, SelectorArgs, query_string};

/// The flags of `cordon` and `uncordon`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CordonArgs {
    /// NODE
    #[arg(value_name = "NODE", add = crate::commands::complete::nodes())]
    pub nodes: Vec<String>,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
}

/// Mark node as unschedulable
#[derive(Debug, clap::Args)]
pub struct Cordon {
    #[command(flatten)]
    pub args: CordonArgs,
}

/// Mark node as schedulable
#[derive(Debug, clap::Args)]
pub struct Uncordon {
    #[command(flatten)]
    pub args: CordonArgs,
}

/// Drain node in preparation for maintenance
#[derive(Debug, clap::Args)]
pub struct Drain {
    #[command(flatten)]
    pub args: CordonArgs,
    /// Continue even if there are pods using emptyDir (local data that will be deleted when the node is drained)
    #[arg(long)]
    pub delete_emptydir_data: bool,
    /// Force drain to use delete, even if eviction is supported
    #[arg(long)]
    pub disable_eviction: bool,
    /// Continue even if there are pods that do not declare a controller
    #[arg(long)]
    pub force: bool,
    /// Period of time in seconds given to each pod to terminate gracefully. If negative, the pod's own is used
    #[arg(long, default_value_t = -1)]
    pub grace_period: i64,
    /// Ignore DaemonSet-managed pods
    #[arg(long)]
    pub ignore_daemonsets: bool,
    /// Label selector to filter pods on the node
    #[arg(long, default_value = "")]
    pub pod_selector: String,
    /// Return large lists in chunks rather than all at once. Pass 0 to disable
    #[arg(long, default_value_t = 500)]
    pub chunk_size: usize,
    /// If pod DeletionTimestamp older than N seconds, skip waiting for the pod
    #[arg(long, default_value_t = 0)]
    pub skip_wait_for_delete_timeout: i64,
    /// The length of time to wait before giving up, zero means infinite
    #[arg(long, default_value = "0s", value_parser = crate::duration::checked)]
    pub timeout: String,
}

impl Cordon {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        run_cordon(&self.args, ctx, true, "cordon").await
    }
}

impl Uncordon {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        run_cordon(&self.args, ctx, false, "uncordon").await
    }
}

impl CordonArgs {
    async fn nodes(&self, ctx: &Ctx, command: &str) -> Result<(Vec<Info>, Vec<anyhow::Error>)> {
        if self.nodes.is_empty() && self.selector.is_none() {
            return Err(errors::usage(command, format!("USAGE: {command} NODE [flags]")));
        }
        if !self.nodes.is_empty() && self.selector.is_some() {
            return Err(errors::usage(command, "cannot specify both a node name and a --selector option"));
        }
        let selector = SelectorArgs { selector: self.selector.clone(), ..SelectorArgs::default() };
        let mut args = self.nodes.clone();
        if !args.iter().any(|a| a.contains('/')) {
            args.insert(0, "nodes".to_owned());
        }
        Query { args, ..Query::default() }.select(&selector).infos(ctx).await
    }
}

async fn run_cordon(args: &CordonArgs, ctx: &Ctx, wanted: bool, command: &str) -> Result<()> {
    let dry_run = args.dry_run.mode()?;
    let (nodes, mut failures) = args.nodes(ctx, command).await?;
    for node in nodes {
        if let Err(error) = cordon(ctx, &node, wanted, dry_run).await {
            failures.push(error);
        }
    }
    errors::collect(failures)
}

async fn cordon(ctx: &Ctx, node: &Info, wanted: bool, dry_run: DryRun) -> Result<()> {
    let verb = if wanted { "cordoned" } else { "uncordoned" };
    if node.object["spec"]["unschedulable"].as_bool().unwrap_or(false) == wanted {
        outln!("node/{} already {verb}{}", node.name, dry_run.suffix());
        return Ok(());
    }
    if dry_run != DryRun::Client {
        let patch = json!({ "spec": { "unschedulable": if wanted { json!(true) } else { Value::Null } } });
        let pairs: Vec<_> = dry_run.query().into_iter().collect();
        node.patch(ctx, Body::StrategicPatch, &patch, &query_string(&pairs)).await?;
    }
    outln!("node/{} {verb}{}", node.name, dry_run.suffix());
    Ok(())
}

/// What is to become of a pod on a drained node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Evict,
    Skip,
    /// Evicted with a warning.
    Warn(&'static str),
    /// Left alone with a warning.
    Ignore(&'static str),
    Refuse(&'static str),
}

impl Drain {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let dry_run = self.args.dry_run.mode()?;
        let timeout = crate::duration::parse(&self.timeout).map_err(|e| anyhow!("{e}"))?;
        let (nodes, mut failures) = self.args.nodes(ctx, "drain").await?;
        for node in &nodes {
            cordon(ctx, node, true, dry_run).await?;
        }
        let mut left: Vec<&Info> = Vec::new();
        for node in &nodes {
            let draining = self.drain(ctx, node, dry_run);
            let done = if timeout.is_zero() {
                draining.await
            } else {
                tokio::time::timeout(timeout, draining)
                    .await
                    .unwrap_or_else(|_| Err(anyhow!("global timeout reached: {}", crate::duration::format(timeout))))
            };
            match done {
                Ok(()) => outln!("node/{} drained{}", node.name, dry_run.suffix()),
                Err(error) => {
                    left.push(node);
                    eprintln!("error: unable to drain node {:?} due to error: {error}, continuing command...", node.name);
                    failures.push(error);
                }
            }
        }
        if !left.is_empty() {
            eprintln!("There are pending nodes to be drained:");
            left.iter().for_each(|n| eprintln!(" {}", n.name));
        }
        errors::collect(failures)
    }

    async fn drain(&self, ctx: &Ctx, node: &Info, dry_run: DryRun) -> Result<()> {
        let kind = pods::kind();
        let mut parameters = vec![("fieldSelector", format!("spec.nodeName={}", node.name))];
        if !self.pod_selector.is_empty() {
            parameters.push(("labelSelector", self.pod_selector.clone()));
        }
        let list = resource::list_all(ctx, &kind.collection(None), &parameters, self.chunk_size).await?;
        let (mut evicted, mut warnings, mut refusals): (Vec<Info>, Vec<(&str, String)>, Vec<(&str, String)>) = (Vec::new(), Vec::new(), Vec::new());
        for pod in resource::items_of(&std::rc::Rc::new(kind), list) {
            let full = format!("{}/{}", pod.namespace.as_deref().unwrap_or_default(), pod.name);
            match self.verdict(ctx, &pod.object).await {
                Verdict::Evict => evicted.push(pod),
                Verdict::Skip => {}
                Verdict::Warn(text) => {
                    warnings.push((text, full));
                    evicted.push(pod);
                }
                Verdict::Ignore(text) => warnings.push((text, full)),
                Verdict::Refuse(text) => refusals.push((text, full)),
            }
        }
        if !refusals.is_empty() {
            let texts = grouped(&refusals);
            bail!("{}", if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) });
        }
        if !warnings.is_empty() {
            eprintln!("{}", crate::print::style::warning(&grouped(&warnings).join("; ")));
        }
        for pod in &evicted {
            let how = if self.disable_eviction { "deleting" } else { "evicting" };
            outln!("{how} pod {}/{}{}", pod.namespace.as_deref().unwrap_or_default(), pod.name, dry_run.suffix());
        }
        if dry_run != DryRun::None {
            return Ok(());
        }
        let removals = evicted.iter().map(|pod| self.remove(ctx, pod));
        let ended: Vec<Result<()>> = futures::future::join_all(removals).await;
        errors::collect(ended.into_iter().filter_map(Result::err).collect())
    }

    async fn verdict(&self, ctx: &Ctx, pod: &Value) -> Verdict {
        let finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let annotations = &pod["metadata"]["annotations"];
        if annotations["kubernetes.io/config.mirror"].is_string() {
            return Verdict::Skip;
        }
        if self.skip_wait_for_delete_timeout > 0
            && let Some(deleted) = pod["metadata"]["deletionTimestamp"].as_str().and_then(|t| t.parse::<jiff::Timestamp>().ok())
            && jiff::Timestamp::now().as_second() - deleted.as_second() > self.skip_wait_for_delete_timeout
        {
            return Verdict::Skip;
        }
        let controller = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten().find(|o| o["controller"] == true);
        if let Some(owner) = controller.filter(|o| o["kind"] == "DaemonSet" && !finished) {
            let set = crate::discovery::Kind::built_in("apps", "v1", "DaemonSet", "daemonsets", true);
            let path = set.object(pod["metadata"]["namespace"].as_str(), owner["name"].as_str().unwrap_or_default());
            let gone = match ctx.client().await {
                Ok(client) => client.get(&path).await.is_err_and(|e| errors::is_not_found(&e)),
                Err(_) => false,
            };
            return match (gone, self.ignore_daemonsets) {
                (true, _) if self.force => Verdict::Warn("deleting Pods that declare no controller"),
                (_, true) => Verdict::Ignore("ignoring DaemonSet-managed Pods"),
                (_, false) => Verdict::Refuse("cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"),
            };
        }
        let local = pod["spec"]["volumes"].as_array().into_iter().flatten().any(|v| v["emptyDir"].is_object());
        match (controller.is_some() || finished, local && !finished) {
            (false, _) if !self.force => Verdict::Refuse("cannot delete Pods that declare no controller (use --force to override)"),
            (_, true) if !self.delete_emptydir_data => {
                Verdict::Refuse("cannot delete Pods with local storage (use --delete-emptydir-data to override)")
            }
            (false, _) => Verdict::Warn("deleting Pods that declare no controller"),
            _ => Verdict::Evict,
        }
    }

    /// Evicts one pod, again and again while a disruption budget forbids it, and waits until it is gone.
    async fn remove(&self, ctx: &Ctx, pod: &Info) -> Result<()> {
        let mut options = json!({});
        if self.grace_period >= 0 {
            options["gracePeriodSeconds"] = json!(self.grace_period);
        }
        let (namespace, name) = (pod.namespace.as_deref().unwrap_or_default(), &pod.name);
        let mut backoff = tokio::time::interval(Duration::from_secs(5));
        loop {
            backoff.tick().await;
            let sent = if self.disable_eviction {
                delete::one(ctx, pod, &delete::options("background", self.grace_period, false)?).await
            } else {
                let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name, "namespace": namespace }, "deleteOptions": options });
                ctx.client().await?.json(Method::POST, &format!("{}/eviction", pod.path()), Some((Body::Json, serde_json::to_vec(&eviction)?))).await
            };
            match sent {
                Ok(_) => break,
                Err(error) if errors::is_not_found(&error) => return Ok(()),
                Err(error) if error.downcast_ref::<errors::ServerError>().is_some_and(|e| e.code() == 429) => {
                    eprintln!("error when evicting pods/{name:?} -n {namespace:?} (will retry after 5s): {error}");
                }
                Err(error) => bail!("error when evicting pods/{name:?} -n {namespace:?}: {error}"),
            }
        }
        let uid = pod.object["metadata"]["uid"].clone();
        super::wait::until(ctx, pod, |object| object.is_none_or(|o| o["metadata"]["uid"] != uid)).await?;
        outln!("pod/{name} {}", if self.disable_eviction { "deleted" } else { "evicted" });
        Ok(())
    }
}

/// `text: ns/a, ns/b`, one for each text.
fn grouped(pairs: &[(&str, String)]) -> Vec<String> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (text, pod) in pairs {
        match groups.iter_mut().find(|(t, _)| t == text) {
            Some((_, pods)) => pods.push(pod),
            None => groups.push((text, vec![pod])),
        }
    }
    groups.sort();
    groups.into_iter().map(|(text, pods)| format!("{text}: {}", pods.join(", "))).collect()
}
