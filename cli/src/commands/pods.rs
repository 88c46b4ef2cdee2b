//! From what a user names to one pod and container: for logs, exec, attach, cp and port-forward
//! (`k8s.io/kubectl/pkg/polymorphichelpers`, `pkg/cmd/util/podcmd`).

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::app::Ctx;
use crate::discovery::Kind;
use crate::podspec;
use crate::resource::{self, Info, Query};
use crate::watch::Watch;

/// The pods kind.
pub fn kind() -> Kind {
    Kind::built_in("", "v1", "Pod", "pods", true)
}

/// What a pod is looked for, which decides what is said when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To talk to its processes or ports.
    Attach,
    /// To read what it printed.
    Logs,
}

/// Reads `--pod-running-timeout`.
pub fn running_timeout(text: &str) -> Result<Duration> {
    let limit = crate::duration::parse(text)?;
    if limit.is_zero() {
        bail!("--pod-running-timeout must be higher than zero");
    }
    Ok(limit)
}

/// The pod a word names: `x`, `pod/x`, or a pod of `deploy/x`, `svc/x`, which is waited for.
pub async fn find(ctx: &Ctx, word: &str, purpose: Purpose, limit: Duration) -> Result<Info> {
    let found = find_all(ctx, word, purpose, limit).await?;
    let total = found.len();
    let first = found.into_iter().next().ok_or_else(|| anyhow!("no pods found for {word}"))?;
    if total > 1 && purpose == Purpose::Logs {
        eprintln!("Found {total} pods, using pod/{}", first.name);
    }
    Ok(first)
}

/// Every pod a word stands for, the best first; the first one of a workload is waited for.
pub async fn find_all(ctx: &Ctx, word: &str, purpose: Purpose, limit: Duration) -> Result<Vec<Info>> {
    if !word.contains('/') {
        let kind = kind();
        let namespace = ctx.namespace()?;
        let object = ctx.client().await?.get(&kind.object(Some(&namespace), word)).await?;
        return Ok(vec![Info { kind: Rc::new(kind), namespace: Some(namespace), name: word.to_owned(), object, source: String::new() }]);
    }
    let query = Query { args: vec![word.to_owned()], ..Query::default() };
    let (infos, mut failures) = query.infos(ctx).await?;
    if let Some(error) = failures.pop() {
        return Err(error);
    }
    let Some(info) = infos.into_iter().next() else { bail!("{word} names nothing") };
    if info.kind.is("", "Pod") {
        return Ok(vec![info]);
    }
    let Some(selector) = podspec::pod_selector(&info.object) else {
        let kind = format!("*{}.{}", info.kind.version, info.kind.kind);
        let what = if purpose == Purpose::Logs { "cannot get the logs from" } else { "cannot attach to" };
        bail!("{what} {kind}: selector for {kind} not implemented");
    };
    let mut pods = appearing(ctx, info.namespace.as_deref(), &selector, limit, |_| true).await?;
    pods.sort_by_key(|p| rank(&p.object));
    Ok(pods)
}

/// The pods a selector chooses, once one of them will do.
pub async fn appearing(ctx: &Ctx, namespace: Option<&str>, selector: &str, limit: Duration, will_do: impl Fn(&Value) -> bool) -> Result<Vec<Info>> {
    let waiting = async {
        loop {
            let found = by_selector(ctx, namespace, selector).await?;
            if found.iter().any(|pod| will_do(&pod.object)) {
                return Ok(found);
            }
            let parameters = [("labelSelector", selector.to_owned())];
            let mut watch = Watch::open(ctx, &kind().collection(namespace), &parameters, "", "application/json").await?;
            while let Some(event) = watch.next().await? {
                if event.kind != "BOOKMARK" && will_do(&event.object) {
                    break;
                }
            }
        }
    };
    tokio::time::timeout(limit, waiting).await.map_err(|_| anyhow!("timed out waiting for the condition"))?
}

/// The pods a selector chooses.
pub async fn by_selector(ctx: &Ctx, namespace: Option<&str>, selector: &str) -> Result<Vec<Info>> {
    let kind = kind();
    let list = resource::list_all(ctx, &kind.collection(namespace), &[("labelSelector", selector.to_owned())], 500).await?;
    Ok(resource::items_of(&Rc::new(kind), list))
}

/// Assigned, running, ready pods come first.
pub fn rank(pod: &Value) -> (bool, u8, bool, String) {
    let phase = match pod["status"]["phase"].as_str() {
        Some("Running") => 0,
        Some("Pending") => 1,
        _ => 2,
    };
    let ready = pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
    (pod["spec"]["nodeName"].is_null(), phase, !ready, pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned())
}

const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The container to talk to: the one named, the annotated default, or the first. A choice among several is told on stderr.
pub fn container(pod: &Pod, named: Option<&str>, quiet: bool) -> Result<String> {
    let Some(spec) = &pod.spec else { bail!("the pod has no spec") };
    let object = serde_json::to_value(spec)?;
    let names = podspec::container_names(&object);
    if let Some(named) = named.filter(|n| !n.is_empty()) {
        if names.iter().any(|n| n == named) {
            return Ok(named.to_owned());
        }
        bail!("container {named} is not valid for pod {} out of: {}", pod.metadata.name.as_deref().unwrap_or_default(), all_names(&object));
    }
    let annotated = pod.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT_CONTAINER)).filter(|n| !n.is_empty());
    if let Some(name) = annotated {
        if names.contains(name) {
            return Ok(name.clone());
        }
        eprintln!("Default container name {name:?} not found in pod {}", pod.metadata.name.as_deref().unwrap_or_default());
    }
    let Some(first) = spec.containers.first() else { bail!("pod {} has no containers", pod.metadata.name.as_deref().unwrap_or_default()) };
    if names.len() > 1 && !quiet {
        eprintln!("Defaulted container {:?} out of: {}", first.name, all_names(&object));
    }
    Ok(first.name.clone())
}

/// `a, b, i (init), e (ephem)`
fn all_names(spec: &Value) -> String {
    let named = |field: &str, mark: &str| {
        spec[field].as_array().into_iter().flatten().filter_map(|c| Some(format!("{}{mark}", c["name"].as_str()?))).collect::<Vec<_>>()
    };
    [named("containers", ""), named("ephemeralContainers", " (ephem)"), named("initContainers", " (init)")].concat().join(", ")
}

/// An object as a typed pod.
pub fn typed(info: &Info) -> Result<Pod> {
    Ok(serde_json::from_value(info.object.clone())?)
}
