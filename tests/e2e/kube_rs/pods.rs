//! What goes into containers: logs, exec, attach, forwarded ports; and evictions.

use anyhow::{Context, Result};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{AttachParams, EvictParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::conditions;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde_json::json;
use tests::Cluster;
use tests::wait::eventually_async;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{object, refused, tell};
use crate::Shared;

pub const TESTS: &[Shared] = &[("kube_rs::enters_pods_and_evicts_them", enters_pods_and_evicts_them)];

async fn text(stream: Option<impl AsyncRead + Unpin>) -> Result<String> {
    let mut text = String::new();
    stream.context("the stream is there")?.read_to_string(&mut text).await?;
    Ok(text)
}

fn enters_pods_and_evicts_them(c: &Cluster) {
    let n = c.namespace("rs-pods");
    tell(c, async |client| {
        let pods: Api<Pod> = Api::namespaced(client.clone(), n);
        let script = "echo one; httpd -p 80 -h /var/www; until test -e /tmp/go; do sleep 0.1; done; echo two; exec sleep 1d";
        let container = json!({"name": "main", "image": "nginx:live", "command": ["sh", "-c", script]});
        let manifest =
            json!({"metadata": {"name": "p", "labels": {"app": "p"}}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}});
        pods.create(&PostParams::default(), &object(manifest)).await?;
        let running = await_condition(pods.clone(), "p", conditions::is_pod_running()).await?.context("the pod is there")?;

        let mut log = pods.log_stream("p", &LogParams { follow: true, ..LogParams::default() }).await?.lines();
        assert_eq!(log.try_next().await?.as_deref(), Some("one"));
        let both = AttachParams::default();
        let mut process = pods.exec("p", ["sh", "-c", "touch /tmp/go; echo to-stdout; echo to-stderr >&2; exit 7"], &both).await?;
        let (stdout, stderr, status) = (process.stdout(), process.stderr(), process.take_status());
        let (stdout, stderr) = futures::try_join!(text(stdout), text(stderr))?;
        assert_eq!((stdout.as_str(), stderr.as_str()), ("to-stdout\n", "to-stderr\n"));
        let status = status.context("a status")?.await.context("a status")?;
        assert_eq!((status.status.as_deref(), status.reason.as_deref()), (Some("Failure"), Some("NonZeroExitCode")));
        let code = status.details.and_then(|d| d.causes?.into_iter().find(|c| c.reason.as_deref() == Some("ExitCode"))?.message);
        assert_eq!(code.as_deref(), Some("7"));
        process.join().await?;
        assert_eq!(log.try_next().await?.as_deref(), Some("two"), "the log goes on");

        let mut process = pods.exec("p", ["sh", "-c", "read word; echo got $word"], &AttachParams::default().stdin(true)).await?;
        process.stdin().context("a stdin")?.write_all(b"something\n").await?;
        assert_eq!(text(process.stdout()).await?, "got something\n");
        process.join().await?;
        let mut process = pods.exec("p", ["sh", "-c", "test -t 1 && echo terminal"], &AttachParams::interactive_tty()).await?;
        assert_eq!(text(process.stdout()).await?, "terminal\r\n");
        process.join().await?;

        for _ in 0..2 {
            let mut ports = pods.portforward("p", &[80]).await?;
            let mut stream = ports.take_stream(80).context("a stream")?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            assert!(text(Some(stream)).await?.contains("Welcome to nginx!"));
            // The server has closed already, so that kube-rs cannot say goodbye.
            ports.abort();
        }

        let look = json!({"name": "look", "image": "busybox:1", "stdin": true, "command": ["sh", "-c", "while read word; do echo got $word; done"]});
        let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [look]}}));
        pods.patch_ephemeral_containers("p", &PatchParams::default(), &patch).await?;
        eventually_async("the ephemeral container runs", async || {
            let status = pods.get("p").await?.status.and_then(|s| s.ephemeral_container_statuses);
            anyhow::ensure!(status.iter().flatten().any(|s| s.state.as_ref().is_some_and(|s| s.running.is_some())), "{status:?}");
            Ok(())
        })
        .await;
        let mut process = pods.attach("p", &AttachParams::default().stdin(true).container("look")).await?;
        // Its end would end the whole attachment, as this container's input is open for more than one.
        let mut input = process.stdin().context("a stdin")?;
        input.write_all(b"a word\n").await?;
        let mut answer = [0; 11];
        process.stdout().context("a stdout")?.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"got a word\n");
        process.abort();

        // No eviction while a budget forbids it.
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client, n);
        let budget = json!({"metadata": {"name": "kept"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}}});
        budgets.create(&PostParams::default(), &object(budget)).await?;
        eventually_async("the budget knows its pod", async || {
            let status = budgets.get_status("kept").await?.status.context("no status")?;
            anyhow::ensure!(status.current_healthy == Some(1), "{status:?}");
            Ok(())
        })
        .await;
        let message = refused(pods.evict("p", &EvictParams::default()).await, 429, "TooManyRequests");
        assert_eq!(message, "Cannot evict pod as it would violate the pod's disruption budget.");
        budgets.delete("kept", &Default::default()).await?;
        pods.evict("p", &EvictParams::default()).await?;
        let uid = running.uid().context("a uid")?;
        await_condition(pods.clone(), "p", conditions::is_deleted(&uid)).await?;
        assert!(pods.get_opt("p").await?.is_none());
        Ok(())
    });
}
