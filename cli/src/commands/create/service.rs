//! `create service`: clusterip, nodeport, loadbalancer and externalname.

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::generate::{CommonArgs, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a service using a specified subcommand
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub kind: Type,
}

/// The types of services.
#[derive(Debug, clap::Subcommand)]
pub enum Type {
    /// Create a ClusterIP service
    Clusterip(ServiceArgs),
    /// Create a NodePort service
    Nodeport(ServiceArgs),
    /// Create a LoadBalancer service
    Loadbalancer(ServiceArgs),
    /// Create an ExternalName service
    Externalname(ServiceArgs),
}

/// The flags of every type; each takes those that mean something to it.
#[derive(Debug, clap::Args)]
pub struct ServiceArgs {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Port pairs can be specified as '<port>:<targetPort>'
    #[arg(long, value_delimiter = ',')]
    pub tcp: Vec<String>,
    /// Assign your own ClusterIP or set to 'None' for a 'headless' service (no loadbalancing)
    #[arg(long, default_value = "")]
    pub clusterip: String,
    /// Port used to expose the service on each node in a cluster
    #[arg(long, default_value_t = 0)]
    pub node_port: i32,
    /// External name of service
    #[arg(long, default_value = "")]
    pub external_name: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.kind {
            Type::Clusterip(args) => args.run(ctx, "ClusterIP").await,
            Type::Nodeport(args) => args.run(ctx, "NodePort").await,
            Type::Loadbalancer(args) => args.run(ctx, "LoadBalancer").await,
            Type::Externalname(args) => args.run(ctx, "ExternalName").await,
        }
    }
}

impl ServiceArgs {
    async fn run(&self, ctx: &Ctx, kind: &str) -> Result<()> {
        let name = one_name(&self.names, &format!("create service {}", kind.to_lowercase()))?;
        let headless = kind == "ClusterIP" && self.clusterip == "None";
        if self.tcp.is_empty() && !headless && kind != "ExternalName" {
            bail!("at least one tcp port specifier must be provided");
        }
        if kind == "ExternalName" && self.external_name.is_empty() {
            bail!("required flag(s) \"external-name\" not set");
        }
        let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        if kind == "ExternalName" && !self.external_name.chars().all(host) {
            bail!("invalid service external name {}", self.external_name);
        }
        let mut ports = Vec::new();
        for text in &self.tcp {
            ports.push(self.port(text, kind)?);
        }
        let mut spec = json!({ "type": kind, "selector": { "app": name } });
        if !ports.is_empty() {
            spec["ports"] = Value::Array(ports);
        }
        if kind == "ClusterIP" && !self.clusterip.is_empty() {
            spec["clusterIP"] = json!(self.clusterip);
        }
        if !self.external_name.is_empty() {
            spec["externalName"] = json!(self.external_name);
        }
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "labels": { "app": name } }, "spec": spec, "status": { "loadBalancer": {} },
        });
        let created = self.common.create(ctx, &Kind::built_in("", "v1", "Service", "services", true), service).await;
        created.map_err(|e| match e.to_string().strip_prefix("failed to create service: ") {
            Some(rest) => anyhow!("failed to create {kind} service: {rest}"),
            None => e,
        })
    }

    fn port(&self, text: &str, kind: &str) -> Result<Value> {
        let (port_text, target) = text.split_once(':').unwrap_or((text, text));
        let port: u16 = port_text.parse().map_err(|_| anyhow!("strconv.ParseUint: parsing {port_text:?}: invalid syntax"))?;
        let target = if target.is_empty() { port_text } else { target };
        if target.parse::<i64>().is_ok_and(|number| !(0..=65535).contains(&number)) {
            bail!("must be between 1 and 65535, inclusive");
        }
        let name = text.replace(':', "-");
        let mut port = json!({ "name": name, "port": port, "protocol": "TCP", "targetPort": super::pdb::number_or_text(target) });
        if kind == "NodePort" && self.node_port != 0 {
            port["nodePort"] = json!(self.node_port);
        }
        Ok(port)
    }
}
