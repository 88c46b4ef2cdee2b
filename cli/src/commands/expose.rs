//! `expose`: a service in front of what runs already.

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::create::generate::{CommonArgs, object_of, pairs};
use crate::app::Ctx;
use crate::discovery::Kind;
use crate::errors;
use crate::manifest::FileArgs;
use crate::podspec;
use crate::resource::{Info, Query};

/// Take a replication controller, service, deployment or pod and expose it as a new Kubernetes service
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub common: CommonArgs,
    /// The name for the newly created object
    #[arg(long, default_value = "")]
    pub name: String,
    /// The port that the service should serve on. Copied from the resource being exposed, if unspecified
    #[arg(long, default_value = "")]
    pub port: String,
    /// Name or number for the port on the container that the service should direct traffic to
    #[arg(long, default_value = "")]
    pub target_port: String,
    /// The network protocol for the service to be created. Default is 'TCP'
    #[arg(long, default_value = "")]
    pub protocol: String,
    /// Type for this service: ClusterIP, NodePort, LoadBalancer, or ExternalName
    #[arg(long = "type", default_value = "")]
    pub kind: String,
    /// A label selector to use for this service
    #[arg(long, default_value = "")]
    pub selector: String,
    /// Labels to apply to the service created by this call
    #[arg(short = 'l', long, value_delimiter = ',')]
    pub labels: Vec<String>,
    /// Additional external IP address (not managed by Kubernetes) to accept for the service
    #[arg(long, default_value = "")]
    pub external_ip: String,
    /// IP to assign to the LoadBalancer
    #[arg(long, default_value = "")]
    pub load_balancer_ip: String,
    /// ClusterIP to be assigned to the service. Set to 'None' to create a headless service
    #[arg(long, default_value = "")]
    pub cluster_ip: String,
    /// If non-empty, set the session affinity for the service to this; legal values: 'None', 'ClientIP'
    #[arg(long, default_value = "")]
    pub session_affinity: String,
    /// An inline JSON override for the generated object
    #[arg(long, default_value = "")]
    pub overrides: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let query = Query { args: self.args.clone(), files: self.files.clone(), as_written: true, ..Query::default() };
        let (infos, mut failures) = query.infos(ctx).await?;
        for info in infos {
            let mut common = self.common.clone();
            common.plain_errors = true;
            if common.field_manager == "kubectl-create" {
                common.field_manager = "kubectl-expose".into();
            }
            let done = async {
                let service = self.service(&info)?;
                common.create_as(ctx, &Kind::built_in("", "v1", "Service", "services", true), service, "exposed").await.map(drop)
            };
            if let Err(error) = done.await {
                failures.push(error);
            }
        }
        errors::collect(failures)
    }

    fn service(&self, info: &Info) -> Result<Value> {
        if !matches!(info.kind.kind.as_str(), "Pod" | "Service" | "ReplicationController" | "Deployment" | "ReplicaSet") {
            bail!("cannot expose a {}", info.kind.kind);
        }
        let selector = self.selector(&info.object)?;
        let ports = self.ports(&info.object)?;
        let name = if self.name.is_empty() { &info.name } else { &self.name };
        let mut spec = json!({ "ports": ports, "selector": selector });
        for (field, text) in [
            ("type", &self.kind),
            ("clusterIP", &self.cluster_ip),
            ("loadBalancerIP", &self.load_balancer_ip),
            ("sessionAffinity", &self.session_affinity),
        ] {
            // Only a load balancer asks for an address of its own.
            if !text.is_empty() && (field != "loadBalancerIP" || self.kind == "LoadBalancer") {
                spec[field] = json!(text);
            }
        }
        if !self.external_ip.is_empty() {
            spec["externalIPs"] = json!([self.external_ip]);
        }
        let mut metadata = json!({ "name": name });
        let labels = if self.labels.is_empty() { info.object["metadata"]["labels"].clone() } else { object_of(pairs(&self.labels, "label")?) };
        if labels.as_object().is_some_and(|l| !l.is_empty()) {
            metadata["labels"] = labels;
        }
        let mut service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, "status": { "loadBalancer": {} } });
        if !self.overrides.is_empty() {
            let patch = crate::manifest::value(&self.overrides).map_err(|e| anyhow!("error parsing overrides: {e}"))?;
            json_patch::merge(&mut service, &patch);
        }
        Ok(service)
    }

    fn selector(&self, object: &Value) -> Result<Value> {
        if !self.selector.is_empty() {
            return Ok(object_of(pairs(&self.selector.split(',').map(String::from).collect::<Vec<_>>(), "selector")?));
        }
        let labels = match object["kind"].as_str().unwrap_or_default() {
            "Pod" => &object["metadata"]["labels"],
            "Service" | "ReplicationController" => &object["spec"]["selector"],
            _ => {
                if object["spec"]["selector"]["matchExpressions"].as_array().is_some_and(|e| !e.is_empty()) {
                    bail!(
                        "couldn't retrieve selectors via --selector flag or introspection: cannot convert expressions - \"{}\" to a map-based selector format",
                        podspec::pod_selector(object).unwrap_or_default()
                    );
                }
                &object["spec"]["selector"]["matchLabels"]
            }
        };
        if labels.as_object().is_none_or(serde_json::Map::is_empty) {
            let what = if object["kind"] == "Pod" { "the pod has no labels and cannot be exposed" } else { "the object has no selector" };
            bail!("couldn't retrieve selectors via --selector flag or introspection: {what}");
        }
        Ok(labels.clone())
    }

    fn ports(&self, object: &Value) -> Result<Vec<Value>> {
        let mut found: Vec<(u64, String)> = Vec::new();
        if self.port.is_empty() {
            let declared: Vec<Value> = if object["kind"] == "Service" {
                object["spec"]["ports"].as_array().cloned().unwrap_or_default()
            } else {
                let containers = podspec::spec_of(object).and_then(|s| s["containers"].as_array().cloned()).unwrap_or_default();
                containers.iter().flat_map(|c| c["ports"].as_array().cloned().unwrap_or_default()).collect()
            };
            found.extend(declared.iter().filter_map(|p| {
                Some((p["port"].as_u64().or_else(|| p["containerPort"].as_u64())?, p["protocol"].as_str().unwrap_or("TCP").to_owned()))
            }));
        } else {
            for text in self.port.split(',') {
                let number = text.parse::<u32>().map_err(|_| anyhow!("strconv.Atoi: parsing {text:?}: invalid syntax"))?;
                found.push((u64::from(number), "TCP".into()));
            }
        }
        if found.is_empty() {
            bail!("couldn't find port via --port flag or introspection");
        }
        let several = found.len() > 1;
        let protocol = |own: String| if self.protocol.is_empty() { own } else { self.protocol.clone() };
        Ok(found
            .into_iter()
            .enumerate()
            .map(|(index, (number, own))| {
                let target = if self.target_port.is_empty() {
                    json!(number)
                } else {
                    self.target_port.parse::<u16>().map_or_else(|_| json!(self.target_port), |n| json!(n))
                };
                let mut port = json!({ "port": number, "protocol": protocol(own), "targetPort": target });
                if several {
                    port["name"] = json!(format!("port-{}", index + 1));
                }
                port
            })
            .collect())
    }
}

/// The service `run --expose` makes.
pub fn simple_service(name: &str, port: u16, labels: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "ports": [{ "port": port, "protocol": "TCP", "targetPort": port }], "selector": labels },
        "status": { "loadBalancer": {} },
    })
}
