//! From what a user names to one pod and container: for logs, exec, attach, cp and port-forward
//! (`k8s.io/kubectl/pkg/polymorphichelpers`, `pkg/cmd/util/podcmd`).

use std::rc::Rc;

use anyhow::{Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::app::Ctx;
use crate::discovery::Kind;
use crate::podspec;
use crate::resource::{self, Info, Query};

/// The pods kind.
pub fn kind() -> Kind {
    Kind::built_in("", "v1", "Pod", "pods", true)
}

/// The pod a word names: `x`, `pod/x`, or a pod of `deploy/x`, `svc/x`.
pub async fn find(ctx: &Ctx, word: &str) -> Result<Info> {
    let (found, total) = find_all(ctx, word).await?;
    let first = found.into_iter().next().ok_or_else(|| anyhow!("no pods found for {word}"))?;
    if total > 1 {
        eprintln!("Found {total} pods, using pod/{}", first.name);
    }
    Ok(first)
}

/// Every pod a word stands for, the best first.
pub async fn find_all(ctx: &Ctx, word: &str) -> Result<(Vec<Info>, usize)> {
    if !word.contains('/') {
        let kind = kind();
        let namespace = ctx.namespace()?;
        let object = ctx.client().await?.get(&kind.object(Some(&namespace), word)).await?;
        return Ok((vec![Info { kind: Rc::new(kind), namespace: Some(namespace), name: word.to_owned(), object, source: String::new() }], 1));
    }
    let query = Query { args: vec![word.to_owned()], ..Query::default() };
    let (infos, mut failures) = query.infos(ctx).await?;
    if let Some(error) = failures.pop() {
        return Err(error);
    }
    let Some(info) = infos.into_iter().next() else { bail!("{word} names nothing") };
    if info.kind.is("", "Pod") {
        return Ok((vec![info], 1));
    }
    let Some(selector) = podspec::pod_selector(&info.object) else { bail!("cannot find the pods of {}: it selects none", info.printed()) };
    let mut pods = by_selector(ctx, info.namespace.as_deref(), &selector).await?;
    pods.sort_by_key(|p| rank(&p.object));
    let total = pods.len();
    Ok((pods, total))
}

/// The pods a selector chooses.
pub async fn by_selector(ctx: &Ctx, namespace: Option<&str>, selector: &str) -> Result<Vec<Info>> {
    let kind = kind();
    let list = resource::list_all(ctx, &kind.collection(namespace), &[("labelSelector", selector.to_owned())], 500).await?;
    Ok(resource::items_of(&Rc::new(kind), list))
}

/// Assigned, running, ready pods come first.
fn rank(pod: &Value) -> (bool, u8, bool, String) {
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
