//! `api-resources` and `api-versions`: what the server has.

use std::rc::Rc;

use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;

use crate::app::Ctx;
use crate::discovery::Kind;
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
        if !matches!(self.output.as_str(), "" | "wide" | "name" | "json" | "yaml" | "kyaml") {
            bail!("unable to match a printer suitable for the output format {:?}, allowed formats are: json,kyaml,name,wide,yaml", self.output);
        }
        let discovery = if self.cached { ctx.discovery().await? } else { ctx.fresh_discovery().await? };
        let mut kinds: Vec<_> = Vec::new();
        for kind in &discovery.kinds {
            let repeated = kinds.iter().any(|k: &&Rc<Kind>| k.group == kind.group && k.plural == kind.plural);
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
        if matches!(self.output.as_str(), "json" | "yaml" | "kyaml") {
            return print_list(&kinds, &self.output);
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

/// `APIResourceList`, its fields in the order of the Go type.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    kind: &'static str,
    api_version: &'static str,
    group_version: &'static str,
    /// None when nothing is listed: Go prints a nil slice as null.
    resources: Option<Vec<Resource<'a>>>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource<'a> {
    name: &'a str,
    singular_name: &'a str,
    namespaced: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'a str,
    kind: &'a str,
    verbs: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    short_names: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    categories: &'a [String],
}

impl Resource<'_> {
    fn of(kind: &Kind) -> Resource<'_> {
        Resource {
            name: &kind.plural,
            singular_name: &kind.singular,
            namespaced: kind.namespaced,
            group: &kind.group,
            version: &kind.version,
            kind: &kind.kind,
            verbs: &kind.verbs,
            short_names: &kind.short_names,
            categories: &kind.categories,
        }
    }
}

fn print_list(kinds: &[&Rc<Kind>], format: &str) -> Result<()> {
    let resources: Vec<Resource<'_>> = kinds.iter().map(|kind| Resource::of(kind)).collect();
    let list = List { kind: "APIResourceList", api_version: "v1", group_version: "", resources: Some(resources).filter(|r| !r.is_empty()) };
    match format {
        "json" => {
            let mut bytes = Vec::new();
            list.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))?;
            print::emit(&format!("{}\n", String::from_utf8_lossy(&bytes)))
        }
        "yaml" => print::emit(&print::yaml::to_string(&serde_json::to_value(&list)?)),
        _ => print::emit(&print::kyaml::to_string(&serde_json::to_value(&list)?)),
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
