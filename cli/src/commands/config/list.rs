//! `config view`, `get-contexts` and their like: reading.

use anyhow::{Result, anyhow, bail};
use base64::Engine;
use serde_json::{Value, json};

use super::file::{inner, merged};
use crate::app::Ctx;
use crate::outln;
use crate::print::{self, FORMATS, Format, OutputArgs, Printer, tabwriter};

/// Display merged kubeconfig settings or a specified kubeconfig file
#[derive(Debug, clap::Args)]
pub struct View {
    #[command(flatten)]
    pub output: OutputArgs,
    /// Flatten the resulting kubeconfig file into self-contained output
    #[arg(long)]
    pub flatten: bool,
    /// Remove all information not used by current-context from the output
    #[arg(long)]
    pub minify: bool,
    /// Display raw byte data and sensitive data
    #[arg(long)]
    pub raw: bool,
    /// Merge the full hierarchy of kubeconfig files
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub merge: bool,
}

/// Describe one or many contexts
#[derive(Debug, clap::Args)]
pub struct GetContexts {
    /// NAME
    #[arg(value_name = "NAME", add = crate::commands::complete::contexts())]
    pub names: Vec<String>,
    /// When using the default output format, don't print headers
    #[arg(long)]
    pub no_headers: bool,
    /// Output format. One of: (name)
    #[arg(short = 'o', long, default_value = "")]
    pub output: String,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn entries<'a>(config: &'a Value, list: &str) -> Vec<&'a Value> {
    let mut found: Vec<&Value> = config[list].as_array().into_iter().flatten().collect();
    found.sort_by(|a, b| text(&a["name"]).cmp(text(&b["name"])));
    found
}

impl View {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let mut config = merged(ctx)?;
        if self.minify {
            minify(ctx, &mut config)?;
        }
        if self.flatten {
            flatten(&mut config)?;
        }
        if !self.raw && !self.flatten {
            hide(&mut config);
        }
        for list in ["clusters", "contexts", "users"] {
            let sorted: Vec<Value> = entries(&config, list).into_iter().cloned().collect();
            config[list] = if sorted.is_empty() { Value::Null } else { Value::Array(sorted) };
        }
        if config["current-context"].is_null() {
            config["current-context"] = json!("");
        }
        match self.output.format(FORMATS)? {
            None => print::emit(&print::yaml::to_string(&config)),
            Some(Format::Json) => print::emit(&(shared::gojson::indented_by(&config, "    ", rank) + "\n")),
            Some(format) => Printer::with(Some(format), &self.output, "").object(&config),
        }
    }
}

/// The order in which Go writes the fields of a kubeconfig.
fn rank(field: &str) -> usize {
    const ORDER: &[&str] = &[
        "kind",
        "apiVersion",
        "preferences",
        "name",
        "clusters",
        "users",
        "contexts",
        "current-context",
        "cluster",
        "user",
        "context",
        "namespace",
        "server",
        "tls-server-name",
        "insecure-skip-tls-verify",
        "certificate-authority",
        "certificate-authority-data",
        "proxy-url",
        "disable-compression",
        "client-certificate",
        "client-certificate-data",
        "client-key",
        "client-key-data",
        "token",
        "tokenFile",
        "as",
        "as-uid",
        "as-groups",
        "as-user-extra",
        "username",
        "password",
        "auth-provider",
        "exec",
        "command",
        "args",
        "env",
        "value",
        "installHint",
        "provideClusterInfo",
        "interactiveMode",
        "extensions",
    ];
    ORDER.iter().position(|f| *f == field).unwrap_or(ORDER.len())
}

fn minify(ctx: &Ctx, config: &mut Value) -> Result<()> {
    let current = ctx.global.context.clone().unwrap_or_else(|| text(&config["current-context"]).to_owned());
    if current.is_empty() {
        bail!("current-context must exist in order to minify");
    }
    let context = entries(config, "contexts")
        .into_iter()
        .find(|c| text(&c["name"]) == current)
        .cloned()
        .ok_or_else(|| anyhow!("cannot locate context {current}"))?;
    let keep = |list: &str, name: &str| entries(config, list).into_iter().filter(|e| text(&e["name"]) == name).cloned().collect::<Vec<_>>();
    let (clusters, users) = (keep("clusters", text(&context["context"]["cluster"])), keep("users", text(&context["context"]["user"])));
    config["clusters"] = Value::Array(clusters);
    config["users"] = Value::Array(users);
    config["contexts"] = json!([context]);
    config["current-context"] = json!(current);
    Ok(())
}

/// Files become data.
fn flatten(config: &mut Value) -> Result<()> {
    for (list, field) in [("clusters", "certificate-authority"), ("users", "client-certificate"), ("users", "client-key")] {
        for entry in config[list].as_array_mut().into_iter().flatten() {
            let Some(settings) = entry[inner(list)].as_object_mut() else { continue };
            let Some(path) = settings.get(field).and_then(Value::as_str).filter(|p| !p.is_empty()).map(ToOwned::to_owned) else { continue };
            let bytes = std::fs::read(&path).map_err(|e| anyhow!("open {path}: {e}"))?;
            settings.remove(field);
            settings.insert(format!("{field}-data"), json!(base64::engine::general_purpose::STANDARD.encode(bytes)));
        }
    }
    Ok(())
}

/// Secrets are not for every screen.
fn hide(config: &mut Value) {
    for (list, field, shown) in [
        ("clusters", "certificate-authority-data", "DATA+OMITTED"),
        ("users", "client-certificate-data", "DATA+OMITTED"),
        ("users", "client-key-data", "DATA+OMITTED"),
        ("users", "token", "REDACTED"),
        ("users", "password", "REDACTED"),
    ] {
        for entry in config[list].as_array_mut().into_iter().flatten() {
            if let Some(settings) = entry[inner(list)].as_object_mut()
                && settings.get(field).and_then(Value::as_str).is_some_and(|v| !v.is_empty())
            {
                settings.insert(field.to_owned(), json!(shown));
            }
        }
    }
}

impl GetContexts {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let config = merged(ctx)?;
        let current = ctx.global.context.clone().unwrap_or_else(|| text(&config["current-context"]).to_owned());
        let all = entries(&config, "contexts");
        let mut missing = Vec::new();
        let chosen: Vec<&&Value> = if self.names.is_empty() {
            all.iter().collect()
        } else {
            missing
                .extend(self.names.iter().filter(|n| !all.iter().any(|c| text(&c["name"]) == n.as_str())).map(|n| anyhow!("context {n} not found")));
            all.iter().filter(|c| self.names.iter().any(|n| text(&c["name"]) == n)).collect()
        };
        if self.output == "name" {
            for context in &chosen {
                outln!("{}", text(&context["name"]));
            }
            return crate::errors::collect(missing);
        }
        if !self.output.is_empty() {
            bail!("output must be one of '' or 'name': {}", self.output);
        }
        let mut table = if self.no_headers { String::new() } else { "CURRENT\tNAME\tCLUSTER\tAUTHINFO\tNAMESPACE\n".to_owned() };
        for context in &chosen {
            let (name, settings) = (text(&context["name"]), &context["context"]);
            let mark = if name == current { "*" } else { "" };
            table.push_str(&format!(
                "{mark}\t{name}\t{}\t{}\t{}\n",
                text(&settings["cluster"]),
                text(&settings["user"]),
                text(&settings["namespace"])
            ));
        }
        print::emit(&tabwriter::TABLE.align(&table))?;
        crate::errors::collect(missing)
    }
}

pub(super) fn names(ctx: &Ctx, list: &str) -> Result<()> {
    let config = merged(ctx)?;
    outln!("NAME");
    for entry in entries(&config, list) {
        outln!("{}", text(&entry["name"]));
    }
    Ok(())
}

pub(super) fn current(ctx: &Ctx) -> Result<()> {
    let config = merged(ctx)?;
    match text(&config["current-context"]) {
        "" => bail!("current-context is not set"),
        name => outln!("{name}"),
    }
    Ok(())
}
