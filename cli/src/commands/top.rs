//! `top`: what nodes and pods use now, from the metrics API.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::Value;
use shared::quantity::Quantity;

use crate::app::Ctx;
use crate::discovery::Kind;
use crate::errors;
use crate::print::{self, tabwriter};
use crate::resource::{list_all, query_string, with_query};

/// Display resource (CPU/memory) usage
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

/// Of what.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Display resource (CPU/memory) usage of nodes
    #[command(aliases = ["nodes", "no"])]
    Node(NodeArgs),
    /// Display resource (CPU/memory) usage of pods
    #[command(aliases = ["pods", "po"])]
    Pod(PodArgs),
}

/// The flags of `top node`.
#[derive(Debug, clap::Args)]
pub struct NodeArgs {
    /// NAME
    #[arg(value_name = "NAME", add = crate::commands::complete::nodes())]
    pub name: Option<String>,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// If present, print output without headers
    #[arg(long)]
    pub no_headers: bool,
    /// If non-empty, sort nodes list using specified field. The field can be either 'cpu' or 'memory'
    #[arg(long, default_value = "")]
    pub sort_by: String,
    /// Print node resources based on Capacity instead of Allocatable of the nodes
    #[arg(long)]
    pub show_capacity: bool,
    /// Enables using protocol-buffers to access Metrics API (kctl always asks for JSON)
    #[arg(long, hide = true)]
    pub use_protocol_buffers: bool,
}

/// The flags of `top pod`.
#[derive(Debug, clap::Args)]
pub struct PodArgs {
    /// NAME
    #[arg(value_name = "NAME", add = crate::commands::complete::pods())]
    pub name: Option<String>,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Selector (field query) to filter on
    #[arg(long)]
    pub field_selector: Option<String>,
    /// If present, list the requested object(s) across all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// If present, print usage of containers within a pod
    #[arg(long)]
    pub containers: bool,
    /// If present, print output without headers
    #[arg(long)]
    pub no_headers: bool,
    /// If non-empty, sort pods list using specified field. The field can be either 'cpu' or 'memory'
    #[arg(long, default_value = "")]
    pub sort_by: String,
    /// Print the sum of the resource usage
    #[arg(long)]
    pub sum: bool,
    /// Enables using protocol-buffers to access Metrics API (kctl always asks for JSON)
    #[arg(long, hide = true)]
    pub use_protocol_buffers: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.what {
            What::Node(args) => args.run(ctx).await,
            What::Pod(args) => args.run(ctx).await,
        }
    }
}

fn metrics(plural: &str, namespaced: bool) -> Kind {
    Kind::built_in("metrics.k8s.io", "v1beta1", "", plural, namespaced)
}

/// CPU in thousandths and memory in bytes.
#[derive(Clone, Copy, Default)]
struct Usage {
    cpu: i64,
    memory: i64,
}

fn usage(value: &Value) -> Usage {
    let amount = |name: &str| value[name].as_str().and_then(|q| q.parse::<Quantity>().ok()).unwrap_or_else(Quantity::zero);
    Usage { cpu: amount("cpu").millis(), memory: amount("memory").value() }
}

impl Usage {
    fn cells(self) -> String {
        format!("{}m\t{}Mi", self.cpu, self.memory / (1024 * 1024))
    }
    fn plus(self, other: Usage) -> Usage {
        Usage { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }
}

fn check_sort(by: &str) -> Result<()> {
    if !matches!(by, "" | "cpu" | "memory") {
        bail!("--sort-by accepts only cpu or memory");
    }
    Ok(())
}

fn sorted<T>(rows: &mut [T], by: &str, usage: impl Fn(&T) -> Usage, name: impl Fn(&T) -> String) {
    match by {
        "cpu" => rows.sort_by_key(|r| std::cmp::Reverse(usage(r).cpu)),
        "memory" => rows.sort_by_key(|r| std::cmp::Reverse(usage(r).memory)),
        _ => rows.sort_by_key(name),
    }
}

async fn items(ctx: &Ctx, kind: &Kind, namespace: Option<&str>, name: Option<&str>, parameters: &[(&str, String)]) -> Result<Vec<Value>> {
    let asked = match name {
        Some(name) => ctx.client().await?.get(&kind.object(namespace, name)).await.map(|o| vec![o]),
        None => list_all(ctx, &kind.collection(namespace), parameters, 0).await.map(|l| l["items"].as_array().cloned().unwrap_or_default()),
    };
    asked.map_err(|error| match error.downcast_ref::<errors::ServerError>() {
        Some(server) if server.to_string().contains("could not find the requested resource") => anyhow::anyhow!("Metrics API not available"),
        _ => error,
    })
}

/// Pods that nobody has measured: new ones will be, old ones should have been.
const NEW: i64 = 120;

/// Whether there are pods of which nothing is known, which is an error.
async fn unmeasured(ctx: &Ctx, namespace: Option<&str>, parameters: &[(&str, String)]) -> Result<()> {
    let pods = items(ctx, &Kind::built_in("", "v1", "Pod", "pods", true), namespace, None, parameters).await?;
    let now = jiff::Timestamp::now().as_second();
    for pod in &pods {
        let created: Option<jiff::Timestamp> = pod["metadata"]["creationTimestamp"].as_str().and_then(|t| t.parse().ok());
        let age = created.map_or(0, |t| now - t.as_second());
        if age > NEW {
            let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
            bail!("Metrics not available for pod {namespace}/{name}, age: {}", shared::age::human_duration(age));
        }
    }
    if pods.is_empty() { Ok(()) } else { bail!("metrics not available yet") }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl NodeArgs {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        check_sort(&self.sort_by)?;
        if self.name.is_some() && self.selector.is_some() {
            bail!("only one of NAME or --selector can be provided");
        }
        let parameters: Vec<(&str, String)> = self.selector.iter().map(|s| ("labelSelector", s.clone())).collect();
        let mut found = items(ctx, &metrics("nodes", false), None, self.name.as_deref(), &parameters).await?;
        if found.is_empty() {
            bail!("metrics not available yet");
        }
        let nodes = ctx.client().await?.get(&with_query("/api/v1/nodes", &query_string(&parameters))).await?;
        let field = if self.show_capacity { "capacity" } else { "allocatable" };
        let all: BTreeMap<String, Usage> =
            nodes["items"].as_array().into_iter().flatten().map(|n| (text(&n["metadata"]["name"]), usage(&n["status"][field]))).collect();
        sorted(&mut found, &self.sort_by, |n| usage(&n["usage"]), |n| text(&n["metadata"]["name"]));
        let mut out = if self.no_headers { String::new() } else { "NAME\tCPU(cores)\tCPU(%)\tMEMORY(bytes)\tMEMORY(%)\n".to_owned() };
        let percent = |part: i64, whole: i64| if whole == 0 { 0 } else { (part as f64 / whole as f64 * 100.0) as i64 };
        for node in &found {
            let (name, used) = (text(&node["metadata"]["name"]), usage(&node["usage"]));
            let whole = all.get(&name).copied().unwrap_or_default();
            out.push_str(&format!(
                "{name}\t{}m\t{}%\t{}Mi\t{}%\n",
                used.cpu,
                percent(used.cpu, whole.cpu),
                used.memory / (1024 * 1024),
                percent(used.memory, whole.memory)
            ));
        }
        // Nodes that are there but not measured.
        if self.name.is_none() {
            for name in all.keys().filter(|n| !found.iter().any(|f| text(&f["metadata"]["name"]) == **n)) {
                out.push_str(&format!("{name}\t<unknown>\t<unknown>\t<unknown>\t<unknown>\n"));
            }
        }
        print::emit(&tabwriter::TABLE.align(&out))
    }
}

impl PodArgs {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        check_sort(&self.sort_by)?;
        if self.name.is_some() && (self.selector.is_some() || self.field_selector.is_some()) {
            bail!("only one of NAME or selector can be provided");
        }
        let namespace = if self.all_namespaces { None } else { Some(ctx.namespace()?) };
        let mut parameters: Vec<(&str, String)> = self.selector.iter().map(|s| ("labelSelector", s.clone())).collect();
        parameters.extend(self.field_selector.iter().map(|s| ("fieldSelector", s.clone())));
        let mut found = items(ctx, &metrics("pods", true), namespace.as_deref(), self.name.as_deref(), &parameters).await?;
        if found.is_empty() {
            unmeasured(ctx, namespace.as_deref(), &parameters).await?;
            match &namespace {
                Some(namespace) => eprintln!("No resources found in {namespace} namespace."),
                None => eprintln!("No resources found"),
            }
            return Ok(());
        }
        let whole = |pod: &Value| pod["containers"].as_array().into_iter().flatten().fold(Usage::default(), |sum, c| sum.plus(usage(&c["usage"])));
        sorted(&mut found, &self.sort_by, whole, |p| format!("{}/{}", text(&p["metadata"]["namespace"]), text(&p["metadata"]["name"])));
        let mut out = String::new();
        if !self.no_headers {
            out.push_str(if self.all_namespaces { "NAMESPACE\t" } else { "" });
            out.push_str(if self.containers { "POD\tNAME\t" } else { "NAME\t" });
            out.push_str("CPU(cores)\tMEMORY(bytes)\n");
        }
        let mut sum = Usage::default();
        for pod in &found {
            let lead = if self.all_namespaces { format!("{}\t", text(&pod["metadata"]["namespace"])) } else { String::new() };
            let name = text(&pod["metadata"]["name"]);
            sum = sum.plus(whole(pod));
            if !self.containers {
                out.push_str(&format!("{lead}{name}\t{}\n", whole(pod).cells()));
                continue;
            }
            let mut containers = pod["containers"].as_array().cloned().unwrap_or_default();
            sorted(&mut containers, &self.sort_by, |c| usage(&c["usage"]), |c| text(&c["name"]));
            for container in &containers {
                out.push_str(&format!("{lead}{name}\t{}\t{}\n", text(&container["name"]), usage(&container["usage"]).cells()));
            }
        }
        if self.sum {
            let blank = "\t".repeat(usize::from(self.all_namespaces) + usize::from(self.containers));
            out.push_str(&format!("{blank}________\t________\n{blank}\t{}\n", sum.cells()));
        }
        print::emit(&tabwriter::TABLE.align(&out))
    }
}
