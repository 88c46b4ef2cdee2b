//! Following logs for a person: a container that is restarted is followed on, and pods that join a selector are followed too.
//!
//! Only on a terminal: what a script follows ends when the container does, as it does with kubectl.

use anyhow::Result;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_json::Value;

use super::{Args, Source, copy};
use crate::app::Ctx;
use crate::commands::wait;
use crate::print;
use crate::resource::Info;
use crate::watch::Watch;

/// Pods that are followed when they appear.
pub(super) struct Joining<'a> {
    /// The URL path of pods.
    pub collection: String,
    /// Chooses them.
    pub selector: &'a str,
    /// Whose logs are followed, if not the default container's.
    pub container: Option<&'a str>,
    /// The parameters of their logs.
    pub parameters: &'a [(&'static str, String)],
}

/// Follows logs until all of their containers have ended for good, and none can join.
pub(super) async fn all(ctx: &Ctx, args: &Args, sources: Vec<Source>, joining: Option<Joining<'_>>) -> Result<()> {
    let mut known: Vec<String> = sources.iter().map(|s| s.pod.name.clone()).collect();
    let shared = sources.len() > 1 || joining.is_some();
    let mut running: FuturesUnordered<_> = sources.into_iter().map(|source| one(ctx, source, shared)).collect();
    let mut watch = match &joining {
        Some(joining) => Some(open(ctx, joining).await?),
        None => None,
    };
    loop {
        let joined = tokio::select! {
            Some(ended) = running.next() => {
                match ended {
                    Err(error) if !args.ignore_errors => return Err(error),
                    Err(error) => print::emit(&format!("error: {error}\n"))?,
                    Ok(()) => {}
                }
                None
            }
            pod = next(ctx, &joining, &mut watch), if watch.is_some() => pod?,
            else => return Ok(()),
        };
        if let (Some(joining), Some(pod)) = (&joining, joined) {
            let sources = join(args, joining, &mut known, pod)?;
            running.extend(sources.into_iter().map(|source| one(ctx, source, shared)));
        }
    }
}

async fn open(ctx: &Ctx, joining: &Joining<'_>) -> Result<Watch> {
    Watch::open(ctx, &joining.collection, &[("labelSelector", joining.selector.to_owned())], "", "application/json").await
}

/// The next pod that changed and runs; the server ends watches from time to time.
async fn next(ctx: &Ctx, joining: &Option<Joining<'_>>, watch: &mut Option<Watch>) -> Result<Option<Value>> {
    let (Some(joining), Some(open_watch)) = (joining, watch.as_mut()) else { return Ok(None) };
    loop {
        match open_watch.next().await? {
            Some(event) if matches!(event.kind.as_str(), "ADDED" | "MODIFIED") && event.object["status"]["phase"] == "Running" => {
                return Ok(Some(event.object));
            }
            Some(_) => {}
            None => *open_watch = open(ctx, joining).await?,
        }
    }
}

/// The logs of a pod that was not known so far.
fn join(args: &Args, joining: &Joining<'_>, known: &mut Vec<String>, pod: Value) -> Result<Vec<Source>> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if known.contains(&name) {
        return Ok(Vec::new());
    }
    eprintln!("Following pod/{name}, which is new");
    known.push(name.clone());
    let namespace = pod["metadata"]["namespace"].as_str().map(ToOwned::to_owned);
    let info = Info { kind: std::rc::Rc::new(crate::commands::pods::kind()), namespace, name, object: pod, source: String::new() };
    args.sources(&info, joining.container, joining.parameters)
}

/// Follows one container through its restarts.
async fn one(ctx: &Ctx, mut source: Source, shared: bool) -> Result<()> {
    let mut started = started_at(&source.pod.object, &source.container);
    loop {
        copy(ctx, &source, shared).await?;
        let mut again = None;
        wait::until(ctx, &source.pod, |pod| {
            let Some(pod) = pod else { return true };
            let now = started_at(pod, &source.container);
            if now.is_some() && now != started {
                again = now;
                return true;
            }
            has_ended(pod, &source.container)
        })
        .await?;
        if again.is_none() {
            return Ok(());
        }
        started = again;
        eprintln!("Container {} of pod/{} was restarted", source.container, source.pod.name);
        // Everything that a new container prints is new.
        source.path = format!("{}/log?container={}&follow=true", source.pod.path(), crate::discovery::escape(&source.container));
    }
}

fn status_of<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    lists.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten()).find(|s| s["name"] == container)
}

/// When the container that runs was started.
fn started_at(pod: &Value, container: &str) -> Option<String> {
    status_of(pod, container)?["state"]["running"]["startedAt"].as_str().map(ToOwned::to_owned)
}

/// Whether a container will not be started again.
fn has_ended(pod: &Value, container: &str) -> bool {
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) || !pod["metadata"]["deletionTimestamp"].is_null() {
        return true;
    }
    let Some(ended) = status_of(pod, container).map(|s| &s["state"]["terminated"]).filter(|t| t.is_object()) else { return false };
    match pod["spec"]["restartPolicy"].as_str() {
        Some("Never") => true,
        Some("OnFailure") => ended["exitCode"] == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_ends_for_good_by_its_pods_policy() {
        let pod = |policy: &str, code: i64| {
            json!({
                "spec": { "restartPolicy": policy },
                "status": { "phase": "Running", "containerStatuses": [{ "name": "a", "state": { "terminated": { "exitCode": code } } }] },
            })
        };
        for (policy, code, ended) in [("Never", 1, true), ("OnFailure", 0, true), ("OnFailure", 1, false), ("Always", 0, false)] {
            assert_eq!(has_ended(&pod(policy, code), "a"), ended, "{policy} {code}");
        }
        let mut running = pod("Always", 0);
        running["status"]["containerStatuses"][0]["state"] = json!({ "running": { "startedAt": "t" } });
        assert!(!has_ended(&running, "a"));
        assert_eq!(started_at(&running, "a").as_deref(), Some("t"));
        running["metadata"]["deletionTimestamp"] = json!("t");
        assert!(has_ended(&running, "a"));
    }
}
