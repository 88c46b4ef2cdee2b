//! `autoscale`: a horizontal pod autoscaler for what can be scaled.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::create::generate::CommonArgs;
use crate::app::Ctx;
use crate::discovery::Kind;
use crate::errors;
use crate::manifest::FileArgs;
use crate::resource::Query;

/// Auto-scale a deployment, replica set, stateful set, or replication controller
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub common: CommonArgs,
    /// The upper limit for the number of pods that can be set by the autoscaler. Required
    #[arg(long, required = true)]
    pub max: i64,
    /// The lower limit for the number of pods that can be set by the autoscaler
    #[arg(long, default_value_t = -1)]
    pub min: i64,
    /// The target average CPU utilization (represented as a percent of requested CPU) over all the pods
    #[arg(long, default_value_t = -1)]
    pub cpu_percent: i64,
    /// Target CPU utilization over all the pods: a percentage like "70%" or an amount like "500m"
    #[arg(long, default_value = "")]
    pub cpu: String,
    /// Target memory utilization over all the pods: a percentage like "60%" or an amount like "200Mi"
    #[arg(long, default_value = "")]
    pub memory: String,
    /// The name for the newly created object
    #[arg(long, default_value = "")]
    pub name: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.max < 1 {
            bail!("--max=MAXPODS is required and must be at least 1, max: {}", self.max);
        }
        if self.max < self.min {
            bail!("--max=MAXPODS must be larger or equal to --min=MINPODS, max: {}, min: {}", self.max, self.min);
        }
        let metrics = self.metrics()?;
        let query = Query { args: self.args.clone(), files: self.files.clone(), as_written: true, ..Query::default() };
        let (infos, mut failures) = query.infos(ctx).await?;
        for info in infos {
            if !info.kind.subresources.iter().any(|s| s == "scale") {
                let Kind { group, version, plural, kind, .. } = &*info.kind;
                let missing = format!("could not find scale subresource for {group}/{version}, Resource={plural} in discovery information");
                failures.push(anyhow::anyhow!("cannot autoscale a {kind}: {missing}"));
                continue;
            }
            let name = if self.name.is_empty() { &info.name } else { &self.name };
            let mut spec = json!({
                "maxReplicas": self.max,
                "scaleTargetRef": { "apiVersion": info.kind.api_version(), "kind": info.kind.kind, "name": info.name },
            });
            if self.min > 0 {
                spec["minReplicas"] = json!(self.min);
            }
            if !metrics.is_empty() {
                spec["metrics"] = Value::Array(metrics.clone());
            }
            let autoscaler = json!({
                "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": name }, "spec": spec,
                "status": { "currentMetrics": null, "desiredReplicas": 0 },
            });
            let kind = Kind::built_in("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true);
            let mut common = self.common.clone();
            if common.field_manager == "kubectl-create" {
                common.field_manager = "kubectl-autoscale".into();
            }
            if let Err(error) = common.create_as(ctx, &kind, autoscaler, "autoscaled").await {
                failures.push(error);
            }
        }
        errors::collect(failures)
    }

    fn metrics(&self) -> Result<Vec<Value>> {
        let cpu = match (self.cpu.as_str(), self.cpu_percent) {
            ("", percent) if percent > 0 => {
                eprintln!(
                    "Flag --cpu-percent has been deprecated, Use --cpu with percentage or resource quantity format (e.g., '70%' for utilization or '500m' for milliCPU)."
                );
                format!("{percent}%")
            }
            (text, percent) if percent > 0 && !text.is_empty() => bail!("--cpu-percent and --cpu cannot be used together"),
            (text, _) => text.to_owned(),
        };
        let mut metrics = Vec::new();
        for (name, text) in [("cpu", cpu.as_str()), ("memory", self.memory.as_str())] {
            if text.is_empty() {
                continue;
            }
            let target = match text.strip_suffix('%').map(str::parse::<u32>) {
                Some(Ok(percent)) => json!({ "type": "Utilization", "averageUtilization": percent }),
                Some(Err(_)) => bail!("invalid target {text:?} for {name}"),
                None if text.parse::<shared::quantity::Quantity>().is_err() => bail!("invalid resource {name} value: {text}"),
                None => json!({ "type": "AverageValue", "averageValue": text }),
            };
            metrics.push(json!({ "type": "Resource", "resource": { "name": name, "target": target } }));
        }
        Ok(metrics)
    }
}
