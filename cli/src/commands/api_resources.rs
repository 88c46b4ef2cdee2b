//! `api-resources` and `api-versions`: what the server has.

use anyhow::{Result, bail};

use crate::app::Ctx;
use crate::outln;
use crate::print::{self, tabwriter};

/// Print the supported API resources on the server
#[derive(Debug, clap::Args)]
pub struct ResourcesArgs {
    /// Limit to resources in the specified API group
    #[arg(long)]
    pub api_group: Option<String>,
    /// Use the cached list of resources if available
    #[arg(long)]
    pub cached: bool,
    /// Limit to resources that belong to the specified categories
    #[arg(long, value_delimiter = ',')]
    pub categories: Vec<String>,
    /// If false, non-namespaced resources will be returned, otherwise returning namespaced resources by default
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub namespaced: Option<bool>,
    /// When using the default or custom-column output format, don't print headers
    #[arg(long)]
    pub no_headers: bool,
    /// Output format. One of: (json, yaml, name, wide)
    #[arg(short = 'o', long, default_value = "")]
    pub output: String,
    /// If non-empty, sort list of resources using specified field. One of (name, kind)
    #[arg(long, default_value = "")]
    pub sort_by: String,
    /// Limit to resources that support the specified verbs
    #[arg(long, value_delimiter = ',')]
    pub verbs: Vec<String>,
}

/// Print the supported API versions on the server, in the form of "group/version"
#[derive(Debug, clap::Args)]
pub struct VersionsArgs {}

impl ResourcesArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if !matches!(self.output.as_str(), "" | "wide" | "name") {
            bail!("unable to match a printer suitable for the output format {:?}, allowed formats are: json,kyaml,name,wide,yaml", self.output);
        }
        let discovery = if self.cached { ctx.discovery().await? } else { ctx.fresh_discovery().await? };
        let mut kinds: Vec<_> = Vec::new();
        for kind in &discovery.kinds {
            let repeated = kinds.iter().any(|k: &&std::rc::Rc<crate::discovery::Kind>| k.group == kind.group && k.plural == kind.plural);
            let wanted = self.api_group.as_ref().is_none_or(|g| *g == kind.group)
                && self.namespaced.is_none_or(|n| n == kind.namespaced)
                && self.verbs.iter().all(|v| kind.verbs.contains(v))
                && self.categories.iter().all(|c| kind.categories.contains(c));
            if wanted && !repeated && !kind.verbs.is_empty() {
                kinds.push(kind);
            }
        }
        match self.sort_by.as_str() {
            "" => kinds.sort_by(|a, b| a.group.cmp(&b.group).then_with(|| a.plural.cmp(&b.plural))),
            "name" => kinds.sort_by(|a, b| a.plural.cmp(&b.plural)),
            "kind" => kinds.sort_by(|a, b| a.kind.cmp(&b.kind)),
            _ => bail!("--sort-by accepts only name or kind"),
        }
        if self.output == "name" {
            for kind in kinds {
                outln!("{}", kind.resource());
            }
            return Ok(());
        }
        let wide = self.output == "wide";
        let mut text = String::new();
        if !self.no_headers {
            text.push_str("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND");
            text.push_str(if wide { "\tVERBS\tCATEGORIES\n" } else { "\n" });
        }
        for kind in kinds {
            text.push_str(&format!("{}\t{}\t{}\t{}\t{}", kind.plural, kind.short_names.join(","), kind.api_version(), kind.namespaced, kind.kind));
            if wide {
                text.push_str(&format!("\t{}\t{}", kind.verbs.join(","), kind.categories.join(",")));
            }
            text.push('\n');
        }
        print::emit(&tabwriter::TABLE.align(&text))
    }
}

impl VersionsArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let discovery = ctx.fresh_discovery().await?;
        let mut versions = discovery.versions.clone();
        versions.sort();
        versions.dedup();
        for version in versions {
            outln!("{version}");
        }
        Ok(())
    }
}
