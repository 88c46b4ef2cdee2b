//! `create role` and `create clusterrole`

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::generate::{CommonArgs, metadata, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;
use crate::errors::Plain;

/// What a rule allows on which resources.
#[derive(Debug, clap::Args)]
pub struct RuleArgs {
    /// Verb that applies to the resources contained in the rule
    #[arg(long, value_delimiter = ',')]
    pub verb: Vec<String>,
    /// Resource that the rule applies to
    #[arg(long, value_delimiter = ',')]
    pub resource: Vec<String>,
    /// Resource in the white list that the rule applies to, repeat this flag for multiple items
    #[arg(long)]
    pub resource_name: Vec<String>,
}

/// Create a role with single rule
#[derive(Debug, clap::Args)]
pub struct RoleArgs {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rule: RuleArgs,
}

/// Create a cluster role
#[derive(Debug, clap::Args)]
pub struct ClusterRoleArgs {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub rule: RuleArgs,
    /// A partial url that user should have access to
    #[arg(long = "non-resource-url", value_delimiter = ',')]
    pub non_resource_url: Vec<String>,
    /// An aggregation label selector for combining ClusterRoles
    #[arg(long, default_value = "")]
    pub aggregation_rule: String,
}

/// The verbs resources have; others are allowed, for those who know better.
const VERBS: &[&str] = &[
    "*",
    "get",
    "delete",
    "list",
    "create",
    "update",
    "patch",
    "watch",
    "proxy",
    "deletecollection",
    "use",
    "bind",
    "approve",
    "sign",
    "escalate",
    "impersonate",
];
/// The verbs of paths that are no resources.
const PATH_VERBS: &[&str] = &["get", "put", "post", "head", "options", "delete", "patch", "*"];

const GROUP: &str = "rbac.authorization.k8s.io";

impl RuleArgs {
    fn verbs(&self) -> Vec<&str> {
        if self.verb.iter().any(|v| v == "*") {
            return vec!["*"];
        }
        let mut verbs: Vec<&str> = Vec::new();
        for verb in &self.verb {
            if !verbs.contains(&verb.as_str()) {
                verbs.push(verb);
            }
        }
        verbs
    }

    /// One rule for each API group among the resources, in the order they first appear.
    async fn rules(&self, ctx: &Ctx) -> Result<Vec<Value>> {
        if self.verb.is_empty() {
            bail!("at least one verb must be specified");
        }
        if self.resource.is_empty() {
            bail!("at least one resource must be specified");
        }
        for verb in self.verb.iter().filter(|v| !VERBS.contains(&v.as_str())) {
            crate::print::warn(&format!("'{verb}' is not a standard resource verb"));
        }
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for text in &self.resource {
            let (resource, sub) = text.split_once('/').map_or((text.as_str(), None), |(r, s)| (r, Some(s)));
            let (group, mut name) = if resource == "*" {
                (String::new(), "*".to_owned())
            } else if let Some(group) = resource.strip_prefix("*.") {
                (group.to_owned(), "*".to_owned())
            } else {
                let kind =
                    ctx.discovery().await?.find(resource).ok_or_else(|| Plain(format!("the server doesn't have a resource type {resource:?}")))?;
                (kind.group.clone(), kind.plural.clone())
            };
            if let Some(sub) = sub {
                name = format!("{name}/{sub}");
            }
            match groups.iter_mut().find(|(g, _)| *g == group) {
                Some((_, names)) if !names.contains(&name) => names.push(name),
                Some(_) => {}
                None => groups.push((group, vec![name])),
            }
        }
        let rule = |(group, names): (String, Vec<String>)| {
            let mut rule = json!({ "apiGroups": [group], "resources": names, "verbs": self.verbs() });
            if !self.resource_name.is_empty() {
                rule["resourceNames"] = json!(self.resource_name);
            }
            rule
        };
        Ok(groups.into_iter().map(rule).collect())
    }
}

impl RoleArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create role")?;
        let role = json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "Role", "metadata": metadata(&name), "rules": self.rule.rules(ctx).await? });
        self.common.create(ctx, &Kind::built_in(GROUP, "v1", "Role", "roles", true), role).await
    }
}

impl ClusterRoleArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create clusterrole")?;
        let mut role = json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata(&name) });
        if !self.aggregation_rule.is_empty() {
            if !self.rule.verb.is_empty() || !self.rule.resource.is_empty() || !self.non_resource_url.is_empty() {
                bail!("aggregation rule must be specified without nonResourceURLs, resources or verbs");
            }
            if self.aggregation_rule.split(',').any(|p| !p.contains('=')) {
                let flag = "See 'kctl create clusterrole --help' for usage.";
                let text = format!("malformed pair, expect string=string\n{flag}");
                return Err(Plain(format!("error: invalid argument {:?} for \"--aggregation-rule\" flag: {text}", self.aggregation_rule)).into());
            }
            let labels = super::generate::pairs(&self.aggregation_rule.split(',').map(String::from).collect::<Vec<_>>(), "aggregation rule")?;
            role["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": super::generate::object_of(labels) }] });
            role["rules"] = Value::Null;
        } else {
            role["rules"] = Value::Array(self.rules(ctx).await?);
        }
        self.common.create(ctx, &Kind::built_in(GROUP, "v1", "ClusterRole", "clusterroles", false), role).await
    }

    async fn rules(&self, ctx: &Ctx) -> Result<Vec<Value>> {
        if self.rule.verb.is_empty() {
            bail!("at least one verb must be specified");
        }
        if !self.non_resource_url.is_empty()
            && let Some(verb) = self.rule.verb.iter().find(|v| !PATH_VERBS.contains(&v.as_str()))
        {
            bail!("invalid verb: '{verb}' for nonResourceURL");
        }
        let mut rules = if self.rule.resource.is_empty() && !self.non_resource_url.is_empty() { Vec::new() } else { self.rule.rules(ctx).await? };
        if !self.non_resource_url.is_empty() {
            let mut rule = Map::new();
            rule.insert("verbs".into(), json!(self.rule.verbs()));
            rule.insert("nonResourceURLs".into(), json!(self.non_resource_url));
            rules.push(Value::Object(rule));
        }
        Ok(rules)
    }
}
