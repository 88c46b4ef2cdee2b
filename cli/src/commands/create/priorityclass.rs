//! `create priorityclass`

use anyhow::Result;
use serde_json::{Value, json};

use super::generate::{CommonArgs, metadata, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a priority class with the specified name, value, globalDefault and description
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// The value of this priority class
    #[arg(long, default_value_t = 0)]
    pub value: i32,
    /// Whether this PriorityClass should be considered as the default priority
    #[arg(long)]
    pub global_default: bool,
    /// An arbitrary string that usually provides guidelines on when this priority class should be used
    #[arg(long, default_value = "")]
    pub description: String,
    /// The policy for preempting pods with lower priority
    #[arg(long, default_value = "PreemptLowerPriority")]
    pub preemption_policy: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create priorityclass")?;
        let mut class = json!({
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": metadata(&name),
            "value": self.value,
            "preemptionPolicy": self.preemption_policy,
        });
        if self.global_default {
            class["globalDefault"] = Value::Bool(true);
        }
        if !self.description.is_empty() {
            class["description"] = Value::String(self.description.clone());
        }
        self.common.create(ctx, &Kind::built_in("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", false), class).await
    }
}
