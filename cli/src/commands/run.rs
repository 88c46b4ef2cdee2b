//! `run`: one pod with one image; `--generator=deployment/apps.v1` still makes the deployment it made in 2019.

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::create::generate::{CommonArgs, object_of, pairs};
use super::exec::{self, StreamArgs};
use super::{delete, expose, pods};
use crate::app::Ctx;
use crate::discovery::Kind;
use crate::errors::{self, Exit};
use crate::print::{self, DryRun};
use crate::resource::Info;

/// Run a particular image on the cluster
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME, then perhaps the arguments of the container
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// The arguments (with --command: the command) of the container
    #[arg(last = true, value_name = "COMMAND")]
    pub words: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// The image for the container to run
    #[arg(long, required = true)]
    pub image: String,
    /// Environment variables to set in the container
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// The port that this container exposes
    #[arg(long, default_value = "")]
    pub port: String,
    /// Comma separated labels to apply to the pod
    #[arg(short = 'l', long, value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Annotations to apply to the pod
    #[arg(long, value_delimiter = ',')]
    pub annotations: Vec<String>,
    /// The restart policy for this Pod. Legal values [Always, OnFailure, Never]
    #[arg(long, default_value = "Always")]
    pub restart: String,
    /// The image pull policy for the container
    #[arg(long, default_value = "")]
    pub image_pull_policy: String,
    /// If true and extra arguments are present, use them as the 'command' field in the container
    #[arg(long)]
    pub command: bool,
    /// Keep stdin open on the container in the pod, even if nothing is attached
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Allocate a TTY for the container in the pod
    #[arg(short = 't', long)]
    pub tty: bool,
    /// If true, wait for the Pod to start running, and then attach to the Pod
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub attach: Option<bool>,
    /// If the pod is started in interactive mode, leave stdin open after the first attach completes
    #[arg(long)]
    pub leave_stdin_open: bool,
    /// If true, delete the pod after it exits. Only valid when attaching to the container
    #[arg(long)]
    pub rm: bool,
    /// If true, suppress prompt messages
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// If true, create a ClusterIP service associated with the pod. Requires `--port`
    #[arg(long)]
    pub expose: bool,
    /// An inline JSON override for the generated object
    #[arg(long, default_value = "")]
    pub overrides: String,
    /// The method used to override the generated object: json, merge, or strategic
    #[arg(long, default_value = "merge")]
    pub override_type: String,
    /// If true, run the container in privileged mode
    #[arg(long)]
    pub privileged: bool,
    /// What to make: run-pod/v1 (the default) or deployment/apps.v1, which is what `run` made before Kubernetes 1.18
    #[arg(long, default_value = "run-pod/v1")]
    pub generator: String,
    /// Number of replicas (with --generator=deployment/apps.v1)
    #[arg(short = 'r', long, default_value_t = 1)]
    pub replicas: i64,
    /// The length of time to wait until at least one pod is running
    #[arg(long, default_value = "1m0s", value_parser = crate::duration::checked)]
    pub pod_running_timeout: String,
    /// Period of time in seconds given to the resource to terminate gracefully (with --rm)
    #[arg(long, default_value_t = -1)]
    pub grace_period: i64,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let Some((name, more)) = self.names.split_first() else { return Err(errors::usage("run", "NAME is required for run")) };
        let words = [more, &self.words].concat();
        let dry_run = self.common.dry_run.mode()?;
        let attach = self.attach.unwrap_or(self.stdin || self.tty);
        self.check(dry_run, attach)?;
        let port = match self.port.as_str() {
            "" => None,
            text => Some(text.parse::<u16>().map_err(|_| anyhow!("strconv.Atoi: parsing {text:?}: invalid syntax"))?),
        };
        let pod_kind = pods::kind();
        let deployment = Kind::built_in("apps", "v1", "Deployment", "deployments", true);
        let (kind, mut object) = match self.generator.as_str() {
            "run-pod/v1" => (pod_kind, self.pod(name, port, &words)?),
            "deployment/apps.v1" => (deployment, self.deployment(name, port, &words)?),
            other => bail!("generator {other:?} not found: run makes run-pod/v1 or deployment/apps.v1"),
        };
        if !self.overrides.is_empty() {
            self.override_with(&mut object, &kind)?;
        }
        let mut common = self.common.clone();
        if common.field_manager == "kubectl-create" {
            common.field_manager = "kubectl-run".into();
        }
        let quiet = self.quiet || (attach && dry_run == DryRun::None);
        if self.expose {
            // Upstream makes the service first, so that a pod never runs unannounced.
            let port = port.ok_or_else(|| anyhow!("--port must be set when exposing a service"))?;
            let labels = object["metadata"]["labels"].clone();
            common.create(ctx, &Kind::built_in("", "v1", "Service", "services", true), expose::simple_service(name, port, &labels)).await?;
            if common.output.output.as_deref() == Some("yaml") {
                print::emit("---\n---\n")?;
            }
        }
        let created = if quiet && common.output.output.is_none() {
            self.create_quietly(ctx, &common, &kind, object).await?
        } else {
            common.create_as(ctx, &kind, object, "created").await?
        };
        if attach && dry_run == DryRun::None {
            return self.attach_to(ctx, &kind, created).await;
        }
        Ok(())
    }

    fn check(&self, dry_run: DryRun, attach: bool) -> Result<()> {
        if dry_run != DryRun::None && (self.attach == Some(true) || self.stdin || self.tty) {
            return Err(errors::usage(
                "run",
                "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
            ));
        }
        if self.tty && !self.stdin {
            return Err(errors::usage("run", "-i/--stdin is required for containers with -t/--tty=true"));
        }
        if self.rm && !attach {
            return Err(errors::usage("run", "--rm should only be used for attached containers"));
        }
        if self.expose && self.port.is_empty() {
            return Err(errors::usage("run", "--port must be set when exposing a service"));
        }
        if !matches!(self.restart.as_str(), "Always" | "OnFailure" | "Never") {
            return Err(errors::usage("run", format!("invalid restart policy: {}", self.restart)));
        }
        if !matches!(self.image_pull_policy.as_str(), "" | "Always" | "IfNotPresent" | "Never") {
            bail!("invalid image pull policy: {}", self.image_pull_policy);
        }
        if self.image.is_empty() {
            bail!("--image is required");
        }
        if self.image.contains(char::is_whitespace) {
            bail!("Invalid image name {:?}: invalid reference format", self.image);
        }
        Ok(())
    }

    fn container(&self, name: &str, port: Option<u16>, words: &[String], attached: bool) -> Result<Value> {
        let mut container = json!({ "name": name, "image": self.image, "resources": {} });
        if !words.is_empty() {
            container[if self.command { "command" } else { "args" }] = json!(words);
        }
        if !self.env.is_empty() {
            let mut env = Vec::new();
            for text in &self.env {
                let (key, value) = text.split_once('=').filter(|(k, _)| !k.is_empty()).ok_or_else(|| anyhow!("invalid env: {text}"))?;
                env.push(if value.is_empty() { json!({ "name": key }) } else { json!({ "name": key, "value": value }) });
            }
            container["env"] = Value::Array(env);
        }
        if let Some(port) = port {
            container["ports"] = json!([{ "containerPort": port }]);
        }
        if !self.image_pull_policy.is_empty() {
            container["imagePullPolicy"] = json!(self.image_pull_policy);
        }
        if self.privileged {
            container["securityContext"] = json!({ "privileged": true });
        }
        if attached && self.stdin {
            container["stdin"] = json!(true);
            if !self.leave_stdin_open {
                container["stdinOnce"] = json!(true);
            }
        }
        if self.tty {
            container["tty"] = json!(true);
        }
        Ok(container)
    }

    fn labels(&self, default: &str, name: &str) -> Result<Value> {
        if self.labels.is_empty() {
            Ok(json!({ default: name }))
        } else {
            if let Some(bad) = self.labels.iter().find(|l| !l.contains('=')) {
                bail!("unexpected label spec: {bad}");
            }
            Ok(object_of(pairs(&self.labels, "label")?))
        }
    }

    fn pod(&self, name: &str, port: Option<u16>, words: &[String]) -> Result<Value> {
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": self.labels("run", name)? },
            "spec": { "containers": [self.container(name, port, words, true)?], "dnsPolicy": "ClusterFirst", "restartPolicy": self.restart },
            "status": {},
        });
        if !self.annotations.is_empty() {
            pod["metadata"]["annotations"] = object_of(pairs(&self.annotations, "annotation")?);
        }
        Ok(pod)
    }

    fn deployment(&self, name: &str, port: Option<u16>, words: &[String]) -> Result<Value> {
        let labels = self.labels("run", name)?;
        let mut deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": name, "labels": labels },
            "spec": {
                "replicas": self.replicas,
                "selector": { "matchLabels": labels },
                "strategy": {},
                "template": { "metadata": { "labels": labels }, "spec": { "containers": [self.container(name, port, words, false)?] } },
            },
            "status": {},
        });
        if !self.annotations.is_empty() {
            deployment["metadata"]["annotations"] = object_of(pairs(&self.annotations, "annotation")?);
        }
        Ok(deployment)
    }

    fn override_with(&self, object: &mut Value, kind: &Kind) -> Result<()> {
        let patch = crate::manifest::value(&self.overrides).map_err(|e| anyhow!("error parsing overrides: {e}"))?;
        if !patch.is_object() && self.override_type != "json" {
            bail!("Invalid JSON Patch");
        }
        match self.override_type.as_str() {
            "merge" => json_patch::merge(object, &patch),
            "strategic" => crate::apply::local::merge(object, &patch, &kind.kind),
            "json" => {
                let operations: json_patch::Patch = serde_json::from_value(patch).map_err(|e| anyhow!("error parsing overrides: {e}"))?;
                json_patch::patch(object, &operations).map_err(|e| anyhow!("{e}"))?;
            }
            other => bail!("invalid override type: {other}"),
        }
        Ok(())
    }

    async fn create_quietly(&self, ctx: &Ctx, common: &CommonArgs, kind: &Kind, object: Value) -> Result<Value> {
        let path = format!("{}?fieldManager={}", kind.collection(Some(&ctx.namespace()?)), common.field_manager);
        ctx.client().await?.json(reqwest::Method::POST, &path, Some((crate::client::Body::Json, serde_json::to_vec(&object)?))).await
    }

    async fn attach_to(&self, ctx: &Ctx, kind: &Kind, created: Value) -> Result<()> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (name, namespace) = (text(&created["metadata"]["name"]), text(&created["metadata"]["namespace"]));
        let info = Info {
            kind: std::rc::Rc::new(kind.clone()),
            namespace: Some(namespace.clone()),
            name: name.clone(),
            object: created,
            source: String::new(),
        };
        let limit = crate::duration::parse(&self.pod_running_timeout).map_err(|e| anyhow!("{e}"))?;
        let mut pod =
            if kind.kind == "Pod" { info.clone() } else { pods::find(ctx, &format!("deployment/{name}"), pods::Purpose::Attach, limit).await? };
        let mut last = Value::Null;
        let started = super::wait::until(ctx, &pod, |object| {
            let Some(object) = object else { return true };
            last = object.clone();
            matches!(object["status"]["phase"].as_str(), Some("Running" | "Succeeded" | "Failed"))
        });
        tokio::time::timeout(limit, started).await.map_err(|_| anyhow!("timed out waiting for the condition"))??;
        pod.object = last;
        let ended = matches!(pod.object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let attached = if ended {
            self.print_logs(ctx, &pod).await
        } else {
            let stream = StreamArgs { stdin: self.stdin, tty: self.tty, quiet: self.quiet, ..StreamArgs::default() };
            exec::attach(ctx, &pod, &stream).await
        };
        let code = if self.restart == "Never" && attached.is_ok() { exit_code(ctx, &pod).await? } else { 0 };
        if self.rm {
            delete::by_name(ctx, kind.clone(), &namespace, &name, self.grace_period).await?;
            eprintln!("{} {name:?} deleted from {namespace} namespace", kind.printed());
        }
        attached?;
        if code != 0 {
            return Err(Exit(u8::try_from(code & 0xff).unwrap_or(1)).into());
        }
        Ok(())
    }

    /// A container that ended before we came has said what it had to say.
    async fn print_logs(&self, ctx: &Ctx, pod: &Info) -> Result<()> {
        let bytes = ctx.client().await?.bytes(reqwest::Method::GET, &format!("{}/log", pod.path()), "*/*", None).await?;
        std::io::Write::write_all(&mut std::io::stdout(), &bytes)?;
        Ok(())
    }
}

/// Waits until the pod has ended and gives its container's code.
async fn exit_code(ctx: &Ctx, pod: &Info) -> Result<i64> {
    let mut code = 0;
    super::wait::until(ctx, pod, |object| {
        let Some(object) = object else { return true };
        let ended = &object["status"]["containerStatuses"][0]["state"]["terminated"];
        code = ended["exitCode"].as_i64().unwrap_or(0);
        matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
    })
    .await?;
    Ok(code)
}
