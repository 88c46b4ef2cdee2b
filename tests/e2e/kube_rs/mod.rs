//! kube-rs' own client and runtime, as programs and operators use them.
//!
//! A file an area: `objects` for typed and dynamic reads and writes, `following` for watchers, reflectors and a controller, `pods` for
//! what goes into containers.

mod following;
mod objects;
mod pods;

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tests::Cluster;

use crate::Shared;

/// Stories on the shared cluster.
pub fn shared() -> Vec<Shared> {
    [following::TESTS, objects::TESTS, pods::TESTS].concat()
}

/// Tells a story with a client on the cluster's machine.
fn tell(c: &Cluster, story: impl AsyncFnOnce(Client) -> Result<()> + Send) {
    let enter = c.machine.entrance();
    let told = std::thread::scope(|scope| {
        let story = scope.spawn(|| {
            enter();
            // All on this thread: others would be on another machine.
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts").block_on(async {
                let kubeconfig = Kubeconfig::read_from(c.kubeconfig())?;
                let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
                // A refusal is to be seen, not waited out.
                config.default_retry = false;
                let story = story(Client::try_from(config)?);
                tokio::time::timeout(Duration::from_secs(60), story).await.context("the story does not end")?
            })
        });
        story.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    told.unwrap_or_else(|e| panic!("{e:?}"));
}

/// An object from what would be its manifest.
fn object<K: serde::de::DeserializeOwned>(manifest: Value) -> K {
    serde_json::from_value(manifest.clone()).unwrap_or_else(|e| panic!("{e}: {manifest}"))
}

fn map(name: &str, data: Value) -> ConfigMap {
    object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"a": "map"}}, "data": data}))
}

/// Fails unless the server has answered with this code and reason.
#[track_caller]
fn refused<T>(answer: kube::Result<T>, code: u16, reason: &str) -> String {
    match answer {
        Err(kube::Error::Api(status)) if (status.code, status.reason.as_str()) == (code, reason) => status.message,
        Err(e) => panic!("should have been refused with {code} {reason}, not {e:?}"),
        Ok(_) => panic!("should have been refused with {code} {reason}"),
    }
}
