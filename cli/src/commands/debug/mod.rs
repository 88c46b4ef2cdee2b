//! `debug`: a container beside those of a pod, in a copy of it, or on a node (`k8s.io/kubectl/pkg/cmd/debug/debug.go`).

mod generate;
mod profile;

use std::rc::Rc;

use anyhow::{Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::exec::{self, StreamArgs};
use super::{delete, pods, wait};
use crate::app::Ctx;
use crate::client::Body;
use crate::errors;
use crate::manifest::{self, FileArgs};
use crate::print;
use crate::resource::{Info, Query, query_string, with_query};
use generate::{Plan, lacks_privileges};
use profile::{Keep, Profile};

/// Create debugging sessions for troubleshooting workloads and nodes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// POD or TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME", add = crate::commands::complete::pods())]
    pub args: Vec<String>,
    /// The command of the debugging container
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// identifying the resource to debug
    #[arg(short = 'f', long, value_name = "FILE", value_delimiter = ',')]
    pub filename: Vec<String>,
    /// If specified, everything after -- will be passed to the new container as Args instead of Command
    #[arg(long)]
    pub arguments_only: bool,
    /// If true, wait for the container to start running, and then attach to it. Defaults to the value of --stdin
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub attach: Option<bool>,
    /// Container name to use for debug container
    #[arg(short = 'c', long, default_value = "")]
    pub container: String,
    /// Create a copy of the target Pod with this name
    #[arg(long, default_value = "")]
    pub copy_to: String,
    /// Path to a JSON or YAML file containing a partial container spec to customize built-in debug profiles
    #[arg(long, default_value = "", value_name = "FILE")]
    pub custom: String,
    /// Environment variables to set in the container
    #[arg(long, value_name = "KEY=VALUE", value_parser = pairs)]
    pub env: Vec<Pairs>,
    /// Container image to use for debug container
    #[arg(long, default_value = "")]
    pub image: String,
    /// The image pull policy for the container
    #[arg(long, default_value = "")]
    pub image_pull_policy: String,
    /// If true, keep the original pod annotations (only with --copy-to)
    #[arg(long)]
    pub keep_annotations: bool,
    /// Run the init containers for the pod (only with --copy-to)
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub keep_init_containers: bool,
    /// If true, keep the original pod labels (only with --copy-to)
    #[arg(long)]
    pub keep_labels: bool,
    /// If true, keep the original pod liveness probes (only with --copy-to)
    #[arg(long)]
    pub keep_liveness: bool,
    /// If true, keep the original pod readiness probes (only with --copy-to)
    #[arg(long)]
    pub keep_readiness: bool,
    /// If true, keep the original startup probes (only with --copy-to)
    #[arg(long)]
    pub keep_startup: bool,
    /// Options are "general", "baseline", "restricted", "netadmin" or "sysadmin"
    #[arg(long, default_value = "general")]
    pub profile: String,
    /// If true, suppress informational messages
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// When used with '--copy-to', delete the original Pod
    #[arg(long)]
    pub replace: bool,
    /// When used with '--copy-to', schedule the copy of target Pod on the same node
    #[arg(long)]
    pub same_node: bool,
    /// When used with '--copy-to', a list of name=image pairs for changing container images
    #[arg(long, value_name = "CONTAINER=IMAGE", value_parser = pairs)]
    pub set_image: Vec<Pairs>,
    /// When used with '--copy-to', enable process namespace sharing in the copy
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub share_processes: Option<bool>,
    /// Keep stdin open on the container(s) in the pod, even if nothing is attached
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// When using an ephemeral container, target processes in this container name
    #[arg(long, default_value = "")]
    pub target: String,
    /// Allocate a TTY for the debugging container
    #[arg(short = 't', long)]
    pub tty: bool,
}

/// `a=b,c=d` of one flag.
pub type Pairs = Vec<(String, String)>;

/// pflag's `stringToString`: a single pair is taken as it stands, several are parted by commas.
fn pairs(text: &str) -> Result<Pairs, String> {
    let parts = if text.matches('=').count() > 1 { text.split(',').collect() } else { vec![text.trim_matches('"')] };
    let pair = |part: &str| match part.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("{part} must be formatted as key=value")),
    };
    parts.into_iter().map(pair).collect()
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let plan = self.plan()?;
        self.check(&plan)?;
        if !self.args.is_empty() && !self.filename.is_empty() {
            bail!("resource/name arguments cannot be provided when a path is specified");
        }
        let names = self.args.iter().map(|word| if word.contains('/') { word.clone() } else { format!("pods/{word}") }).collect();
        let files = FileArgs { filename: self.filename.clone(), ..FileArgs::default() };
        let query = Query { args: names, files, as_written: true, ..Query::default() };
        let (infos, failures) = query.infos(ctx).await?;
        for info in infos {
            let (pod, container) = if info.kind.is("", "Node") {
                self.on_node(ctx, &plan, &info).await?
            } else if !info.kind.is("", "Pod") {
                bail!("{:?} not supported by debug", format!("{}/{}, Kind={}", info.kind.group, info.kind.version, info.kind.kind));
            } else if self.copy_to.is_empty() {
                add_ephemeral(ctx, &plan, info).await?
            } else {
                self.copy(ctx, &plan, &info).await?
            };
            if let Some(container) = container.filter(|_| self.attach.unwrap_or(self.stdin)) {
                self.attach_to(ctx, pod, &container).await?;
            }
        }
        errors::collect(failures)
    }

    fn plan(&self) -> Result<Plan> {
        let keep = Keep {
            labels: self.keep_labels,
            annotations: self.keep_annotations,
            liveness: self.keep_liveness,
            readiness: self.keep_readiness,
            startup: self.keep_startup,
            init_containers: self.keep_init_containers,
        };
        Ok(Plan {
            container: self.container.clone(),
            image: self.image.clone(),
            pull_policy: self.image_pull_policy.clone(),
            env: self.env.concat().into_iter().collect(),
            words: self.command.clone(),
            arguments_only: self.arguments_only,
            stdin: self.stdin,
            tty: self.tty,
            target: self.target.clone(),
            profile: Profile::parse(&self.profile)?,
            custom: self.custom_container()?,
            keep,
            set_images: self.set_image.concat(),
            share_processes: self.share_processes,
            same_node: self.same_node,
            quiet: self.quiet,
        })
    }

    fn custom_container(&self) -> Result<Option<Value>> {
        if self.custom.is_empty() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&self.custom)
            .map_err(|e| anyhow!("must pass a container spec json file for custom profile: {}", errors::io("open", &self.custom, &e)))?;
        let invalid = |why: &str| anyhow!("{} does not contain a valid container spec: {why}", self.custom);
        let container = manifest::value(&text).map_err(|e| invalid(&e.to_string()))?;
        if !container.is_object() {
            return Err(invalid("it is no map"));
        }
        Ok(Some(container))
    }

    fn check(&self, plan: &Plan) -> Result<()> {
        if self.attach == Some(true) && self.image.is_empty() && self.container.is_empty() {
            bail!("you must specify --container or create a new container using --image in order to attach.");
        }
        if self.copy_to.is_empty() {
            for (flag, given) in [("--replace", self.replace), ("--same-node", self.same_node), ("--set-image", !self.set_image.is_empty())] {
                if given {
                    bail!("{flag} may only be used with --copy-to.");
                }
            }
            if self.image.is_empty() {
                bail!("you must specify --image when not using --copy-to.");
            }
        } else if self.image.is_empty() && self.set_image.is_empty() && self.command.is_empty() {
            bail!("you must specify --image, --set-image or command arguments.");
        } else if !self.command.is_empty() && self.container.is_empty() && self.image.is_empty() {
            bail!("you must specify an existing container or a new image when specifying args.");
        }
        if !self.image.is_empty() && !is_reference(&self.image) {
            bail!("invalid image name {:?}: invalid reference format", self.image);
        }
        if self.args.is_empty() && self.filename.is_empty() {
            bail!("NAME or filename is required for debug");
        }
        if !matches!(self.image_pull_policy.as_str(), "" | "Always" | "IfNotPresent" | "Never") {
            bail!("invalid image pull policy: {}", self.image_pull_policy);
        }
        if let Some((name, image)) = plan.set_images.iter().find(|(_, image)| !is_reference(image)) {
            bail!("invalid image name {image:?} for container {name:?}: invalid reference format");
        }
        if !self.target.is_empty() {
            if !self.copy_to.is_empty() {
                bail!("--target is incompatible with --copy-to. Use --share-processes instead.");
            }
            if !self.quiet {
                print::emit(&format!(
                    "Targeting container {:?}. If you don't see processes from this container it may be because the container runtime doesn't support this feature.\n",
                    self.target
                ))?;
            }
        }
        if self.tty && !self.stdin {
            bail!("-i/--stdin is required for containers with -t/--tty=true");
        }
        let fixed = |custom: &Value| {
            let text = |field: &str| custom[field].as_str().is_some_and(|t| !t.is_empty());
            let list = |field: &str| custom[field].as_array().is_some_and(|l| !l.is_empty());
            text("name") || text("image") || list("command") || list("volumeDevices") || !custom["lifecycle"].is_null()
        };
        if plan.custom.as_ref().is_some_and(fixed) {
            bail!("name, command, image, lifecycle and volume devices are not modifiable via custom profile");
        }
        if plan.profile == Profile::Legacy {
            eprintln!(
                "--profile=legacy is deprecated and planned to be removed in v1.39. It is recommended to specify other profile, for example \"--profile=general\"."
            );
        }
        Ok(())
    }

    async fn on_node(&self, ctx: &Ctx, plan: &Plan, node: &Info) -> Result<(Info, Option<String>)> {
        let (pod, container) = plan.node(&node.name)?;
        Ok((create(ctx, &ctx.namespace()?, pod).await?, Some(container)))
    }

    async fn copy(&self, ctx: &Ctx, plan: &Plan, original: &Info) -> Result<(Info, Option<String>)> {
        let (copy, container) = plan.copy(&original.object, &self.copy_to)?;
        warn_of_user(&copy, copy["spec"]["containers"].as_array().into_iter().flatten().find(|c| c["name"].as_str() == container.as_deref()));
        let namespace = original.namespace.clone().unwrap_or_default();
        let created = create(ctx, &namespace, copy).await?;
        if self.replace {
            delete::by_name(ctx, pods::kind(), &namespace, &original.name, 0).await?;
        }
        Ok((created, container))
    }

    /// Waits until the container runs and attaches to it; of one that has ended, the log is left.
    async fn attach_to(&self, ctx: &Ctx, mut pod: Info, container: &str) -> Result<()> {
        let mut last = None;
        let mut told = String::new();
        wait::until(ctx, &pod, |object| {
            last = object.cloned();
            let Some(state) = object.map(|o| state_of(o, container)) else { return true };
            let message = state["waiting"]["message"].as_str().unwrap_or_default();
            if !self.quiet && !message.is_empty() && message != told {
                print::warn(&format!("container {container}: {message}"));
                told = message.to_owned();
            }
            state["running"].is_object() || state["terminated"].is_object()
        })
        .await?;
        pod.object = last.ok_or_else(|| errors::Plain("Error from server (NotFound): pods \"\" not found".into()))?;
        if state_of(&pod.object, container)["terminated"].is_object() {
            return copy_log(ctx, &pod, container).await;
        }
        let stream =
            StreamArgs { container: Some(container.to_owned()), stdin: self.stdin, tty: self.tty, quiet: self.quiet, ..StreamArgs::default() };
        if let Err(error) = exec::attach(ctx, &pod, &stream).await {
            eprintln!("warning: couldn't attach to pod/{}, falling back to streaming logs: {error}", pod.name);
            return copy_log(ctx, &pod, container).await;
        }
        Ok(())
    }
}

/// The state of a container, whatever its sort.
fn state_of(pod: &Value, container: &str) -> Value {
    let lists = ["initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"];
    let mut statuses = lists.iter().flat_map(|list| pod["status"][*list].as_array().into_iter().flatten());
    statuses.find(|s| s["name"] == container).map(|s| s["state"].clone()).unwrap_or_default()
}

async fn copy_log(ctx: &Ctx, pod: &Info, container: &str) -> Result<()> {
    let path = with_query(&format!("{}/log", pod.path()), &query_string(&[("container", container.to_owned())]));
    let bytes = ctx.client().await?.bytes(Method::GET, &path, "*/*", None).await?;
    std::io::Write::write_all(&mut std::io::stdout(), &bytes)?;
    Ok(())
}

async fn add_ephemeral(ctx: &Ctx, plan: &Plan, mut pod: Info) -> Result<(Info, Option<String>)> {
    let (changed, name) = plan.ephemeral(&pod.object)?;
    let all = changed["spec"]["ephemeralContainers"].as_array().map(Vec::as_slice).unwrap_or_default();
    // A name that is taken means the container that has it, which the server will not have changed.
    let container = all.iter().find(|c| c["name"] == name).cloned().unwrap_or_default();
    warn_of_user(&pod.object, Some(&container));
    let order: Vec<Value> = all.iter().map(|c| json!({ "name": c["name"] })).collect();
    let patch = json!({ "spec": { "$setElementOrder/ephemeralContainers": order, "ephemeralContainers": [container] } });
    let patched = pod.patch_subresource(ctx, "ephemeralcontainers", Body::StrategicPatch, &patch, "").await;
    pod.object = patched.map_err(|error| match error.downcast_ref::<errors::ServerError>() {
        // A server without the subresource has no object to name in its answer.
        Some(server)
            if server.reason() == "NotFound" && server.0.details.as_ref().is_none_or(|d| d.name.as_deref().unwrap_or_default().is_empty()) =>
        {
            anyhow!("ephemeral containers are disabled for this cluster (error from server: {:?})", server.to_string())
        }
        _ => error,
    })?;
    Ok((pod, Some(name)))
}

async fn create(ctx: &Ctx, namespace: &str, object: Value) -> Result<Info> {
    let kind = pods::kind();
    let body = Some((Body::Json, serde_json::to_vec(&object)?));
    let object = ctx.client().await?.json(Method::POST, &kind.collection(Some(namespace)), body).await?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(Info { kind: Rc::new(kind), namespace: Some(namespace.to_owned()), name, object, source: String::new() })
}

fn warn_of_user(pod: &Value, container: Option<&Value>) {
    if container.is_some_and(|c| lacks_privileges(pod, c)) {
        print::warn(
            "Non-root user is configured for the entire target Pod, and some capabilities granted by debug profile may not work. Please consider using \"--custom\" with a custom profile that specifies \"securityContext.runAsUser: 0\".",
        );
    }
}

/// Whether an image name has the form of a reference: `[host[:port]/]path[:tag][@digest]`.
fn is_reference(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let tag_at = name.rfind(':').filter(|at| !name[*at..].contains('/'));
    let (path, tag) = tag_at.map_or((name, None), |at| (&name[..at], Some(&name[at + 1..])));
    let word = |text: &str, more: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    let mut parts: Vec<&str> = path.split('/').collect();
    // A first part with a dot, a port or a capital is a host, whose rules are its own.
    if parts.len() > 1 && word(parts[0], ".-:[]") && (parts[0].contains(['.', ':']) || parts[0].contains(|c: char| c.is_ascii_uppercase())) {
        parts.remove(0);
    }
    let component = |part: &&str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        word(part, "._-") && !part.contains(|c: char| c.is_ascii_uppercase()) && part.starts_with(inner) && part.ends_with(inner)
    };
    parts.iter().all(component)
        && tag.is_none_or(|t| t.len() <= 128 && word(t, "_.-") && !t.starts_with(['.', '-']))
        && digest.is_none_or(|d| d.split_once(':').is_some_and(|(algorithm, hex)| word(algorithm, "+._-") && hex.len() >= 32 && word(hex, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_names_have_a_form() {
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        for good in ["nginx", "nginx:1.25", "a/b/c:T_1", "host.example:5000/a-b/c__d", "localhost/x", "H/x", digest.as_str()] {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "Nginx", "a b", "nginx:", "nginx:-x", "-nginx", "a//b", "nginx@sha256:1", "a:b:c", "nginx@x"] {
            assert!(!is_reference(bad), "{bad}");
        }
    }

    #[test]
    fn pairs_stand_alone_or_between_commas() {
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        assert_eq!(pairs("a=b").unwrap(), [pair("a", "b")]);
        assert_eq!(pairs("a=b,c").unwrap(), [pair("a", "b,c")]);
        assert_eq!(pairs("a=b,c=d=e").unwrap(), [pair("a", "b"), pair("c", "d=e")]);
        assert_eq!(pairs("a").unwrap_err(), "a must be formatted as key=value");
    }
}
