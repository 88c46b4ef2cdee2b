//! `set subject`: whom a binding gives its role to.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::change::ChangeArgs;
use crate::app::Ctx;

/// Update the user, group, or service account in a role binding or cluster role binding
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// Usernames to bind to the role
    #[arg(long)]
    pub user: Vec<String>,
    /// Groups to bind to the role
    #[arg(long)]
    pub group: Vec<String>,
    /// Service accounts to bind to the role
    #[arg(long)]
    pub serviceaccount: Vec<String>,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        const GROUP: &str = "rbac.authorization.k8s.io";
        let mut subjects: Vec<Value> = Vec::new();
        subjects.extend(self.user.iter().map(|n| json!({ "apiGroup": GROUP, "kind": "User", "name": n })));
        subjects.extend(self.group.iter().map(|n| json!({ "apiGroup": GROUP, "kind": "Group", "name": n })));
        for account in &self.serviceaccount {
            let Some((namespace, name)) = account.split_once(':').filter(|(n, a)| !n.is_empty() && !a.is_empty()) else {
                bail!("serviceaccount must be <namespace>:<name>");
            };
            subjects.push(json!({ "kind": "ServiceAccount", "namespace": namespace, "name": name }));
        }
        if subjects.is_empty() {
            bail!("you must specify at least one value of user, group or serviceaccount");
        }
        let (infos, failures) = self.change.infos(ctx, &self.args).await?;
        self.change
            .apply(ctx, infos, failures, "subjects updated", |object, info| {
                if !matches!(info.kind.kind.as_str(), "RoleBinding" | "ClusterRoleBinding") {
                    bail!("{}/{} setting subjects is only supported for RoleBinding/ClusterRoleBinding", info.kind.plural, info.name);
                }
                let mut all = object["subjects"].as_array().cloned().unwrap_or_default();
                for subject in &subjects {
                    let same = |s: &Value| s["kind"] == subject["kind"] && s["name"] == subject["name"] && s["namespace"] == subject["namespace"];
                    if !all.iter().any(same) {
                        all.push(subject.clone());
                    }
                }
                object["subjects"] = Value::Array(all);
                Ok(())
            })
            .await
    }
}
