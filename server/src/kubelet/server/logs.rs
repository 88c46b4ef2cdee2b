//! `/containerLogs`: which file of which container, and what to say when there is none.

use std::sync::Arc;

use http::Response;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::{Body, Refusal, find, streamed};
use crate::kubelet::Kubelet;
use crate::kubelet::logs::stream::{self, Source};
use crate::kubelet::logs::{Options, files};
use crate::kubelet::pods::mailbox::Mailbox;
use crate::kubelet::pods::{sandbox, spec};
use crate::kubelet::runtime::observe::{Container, Observed, State};

/// Answers a request for logs.
pub async fn serve(kubelet: &Arc<Kubelet>, namespace: &str, pod: &str, container: &str, query: &str) -> Result<Response<Body>, Refusal> {
    let options = Options::parse(query, Timestamp::now()).map_err(Refusal::bad_request)?;
    let (found, mailbox) = find(kubelet, namespace, pod)?;
    let Some((kind, declared)) = spec::container(&found, container) else {
        return Err(Refusal::not_found(format!("container \"{container}\" not found in pod \"{pod}\"")));
    };
    let observed = mailbox.observed().borrow().clone();
    let restarts = |ended: &Container| spec::should_restart(&found, kind, &declared, ended.exit_code);
    let chosen = choose(&observed, pod, container, options.previous, restarts)?;
    let dir = sandbox::log_directory(&kubelet.logs_dir(), &found);
    let file = format!("{container}/{}.log", chosen.restart_count);
    // Says now, not in the middle of the answer, that there is no file.
    files::open(&dir, &file).map_err(|e| Refusal::internal(format!("failed to open log of container \"{container}\": {e}")))?;
    let (over, ended) = watch::channel(false);
    let (sender, receiver) = mpsc::channel(16);
    let (watcher, id) = (kubelet.log_watcher.clone(), chosen.id.clone());
    kubelet.tasks.spawn(format!("logs/{namespace}/{pod}/{container}"), async move {
        let work = stream::send(watcher, Source { dir, file, ended }, options, sender);
        tokio::select! {
            result = work => if let Err(error) = result {
                tracing::debug!(%error, "log stream ended");
            },
            () = follow_end(&mailbox, &id, over) => {}
        }
    });
    let mut response = Response::new(streamed(ReceiverStream::new(receiver)));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// Tells when the container runs no more; then waits to be dropped.
async fn follow_end(mailbox: &Mailbox, id: &str, over: watch::Sender<bool>) {
    let mut observed = mailbox.observed();
    loop {
        let runs = observed.borrow_and_update().containers.iter().any(|c| c.id == id && c.state == State::Running);
        over.send_if_modified(|o| std::mem::replace(o, !runs) == runs);
        // The mailbox lives as long as this borrow of it, so this never fails.
        if observed.changed().await.is_err() {
            return;
        }
    }
}

/// The container whose log is wanted.
fn choose<'a>(
    observed: &'a Observed,
    pod: &str,
    name: &str,
    previous: bool,
    restarts: impl Fn(&Container) -> bool,
) -> Result<&'a Container, Refusal> {
    let mut made = observed.containers.iter().filter(|c| c.name == name);
    let latest = made.next().filter(|c| !c.id.is_empty());
    let missing = || Refusal::bad_request(format!("container \"{name}\" in pod \"{pod}\" is waiting to start: ContainerCreating"));
    if !previous {
        return latest.ok_or_else(missing);
    }
    let dead = |c: &&Container| c.state == State::Exited && !c.id.is_empty();
    // While a crashed container waits for its restart, it is itself the last one that terminated. One that has ended for good is not
    // the previous one of anything (`validateContainerLogStatus` in `pkg/kubelet/kubelet_pods.go`).
    latest
        .filter(|c| dead(c) && restarts(c))
        .or_else(|| made.find(dead))
        .ok_or_else(|| Refusal::bad_request(format!("previous terminated container \"{name}\" in pod \"{pod}\" not found")))
}
