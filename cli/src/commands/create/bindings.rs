//! `create rolebinding` and `create clusterrolebinding`

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::generate::{CommonArgs, metadata, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Whom a role is given to.
#[derive(Debug, clap::Args)]
pub struct SubjectArgs {
    /// Usernames to bind to the role. The flag can be repeated to add multiple users
    #[arg(long)]
    pub user: Vec<String>,
    /// Groups to bind to the role. The flag can be repeated to add multiple groups
    #[arg(long)]
    pub group: Vec<String>,
    /// Service accounts to bind to the role, in the format <namespace>:<name>
    #[arg(long)]
    pub serviceaccount: Vec<String>,
}

/// Create a role binding for a particular role or cluster role
#[derive(Debug, clap::Args)]
pub struct RoleBindingArgs {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub subjects: SubjectArgs,
    /// ClusterRole this RoleBinding should reference
    #[arg(long)]
    pub clusterrole: Option<String>,
    /// Role this RoleBinding should reference
    #[arg(long)]
    pub role: Option<String>,
}

/// Create a cluster role binding for a particular cluster role
#[derive(Debug, clap::Args)]
pub struct ClusterRoleBindingArgs {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub subjects: SubjectArgs,
    /// ClusterRole this ClusterRoleBinding should reference
    #[arg(long, required = true)]
    pub clusterrole: String,
}

const GROUP: &str = "rbac.authorization.k8s.io";

impl SubjectArgs {
    fn subjects(&self) -> Result<Vec<Value>> {
        let named = |kind: &str, names: &[String]| names.iter().map(|n| json!({ "apiGroup": GROUP, "kind": kind, "name": n })).collect::<Vec<_>>();
        let mut subjects = named("User", &self.user);
        subjects.extend(named("Group", &self.group));
        for account in &self.serviceaccount {
            let Some((namespace, name)) = account.split_once(':').filter(|(n, a)| !n.is_empty() && !a.is_empty() && !a.contains(':')) else {
                bail!("serviceaccount must be <namespace>:<name>");
            };
            subjects.push(json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace }));
        }
        Ok(subjects)
    }
}

fn binding(kind: &str, name: &str, role_kind: &str, role: &str, subjects: Vec<Value>) -> Value {
    let mut binding = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata(name), "roleRef": { "apiGroup": GROUP, "kind": role_kind, "name": role },
    });
    if !subjects.is_empty() {
        binding["subjects"] = Value::Array(subjects);
    }
    binding
}

impl RoleBindingArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create rolebinding")?;
        let (role_kind, role) = match (&self.clusterrole, &self.role) {
            (Some(role), None) => ("ClusterRole", role),
            (None, Some(role)) => ("Role", role),
            _ => bail!("exactly one of clusterrole or role must be specified"),
        };
        let object = binding("RoleBinding", &name, role_kind, role, self.subjects.subjects()?);
        self.common.create(ctx, &Kind::built_in(GROUP, "v1", "RoleBinding", "rolebindings", true), object).await
    }
}

impl ClusterRoleBindingArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create clusterrolebinding")?;
        let object = binding("ClusterRoleBinding", &name, "ClusterRole", &self.clusterrole, self.subjects.subjects()?);
        self.common.create(ctx, &Kind::built_in(GROUP, "v1", "ClusterRoleBinding", "clusterrolebindings", false), object).await
    }
}
