//! `set env`: environment variables of pod templates, given, imported from a configmap or secret, removed or listed.

use std::io::IsTerminal;

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};

use super::change::{ChangeArgs, matches_pattern};
use crate::app::Ctx;
use crate::outln;
use crate::podspec;
use crate::resource::Info;

/// Update environment variables on a pod template
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources, then KEY=VALUE pairs, KEY- to remove, or - to read pairs from stdin
    #[arg(value_name = "RESOURCE/NAME KEY=VALUE", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
    /// The names of containers in the selected pod templates to change - may use wildcards
    #[arg(short = 'c', long, default_value = "*")]
    pub containers: String,
    /// The name of a resource from which to inject environment variables
    #[arg(long, default_value = "", value_name = "configmap/NAME|secret/NAME")]
    pub from: String,
    /// Prefix to append to variable names
    #[arg(long, default_value = "")]
    pub prefix: String,
    /// Comma-separated list of keys to import from specified resource
    #[arg(long, value_delimiter = ',')]
    pub keys: Vec<String>,
    /// Specify a key-value pair for an environment variable to set into each container
    #[arg(short = 'e', long)]
    pub env: Vec<String>,
    /// If true, display the environment and any changes in the standard format
    #[arg(long)]
    pub list: bool,
    /// If true, show secret or configmap references when listing variables
    #[arg(long)]
    pub resolve: bool,
    /// If true, allow environment to be overwritten, otherwise reject updates that overwrite existing environment
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub overwrite: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let (resources, mut pairs) = split(&self.args)?;
        pairs.extend(self.env.iter().cloned());
        if resources.is_empty() && self.change.files.is_empty() {
            bail!("one or more resources must be specified as <resource> <name> or <resource>/<name>");
        }
        if self.list && self.change.output.output.is_some() {
            bail!("--list and --output may not be specified together");
        }
        if !self.keys.is_empty() && self.from.is_empty() {
            bail!("when specifying --keys, a configmap or secret must be provided with --from");
        }
        let (mut set, remove) = parse(&pairs)?;
        if !self.from.is_empty() {
            set.extend(self.imported(ctx).await?);
        }
        let (infos, failures) = self.change.infos(ctx, &resources).await?;
        if infos.is_empty() && failures.is_empty() {
            bail!("no objects passed to set env");
        }
        if self.list {
            for info in &infos {
                self.print(ctx, info, &set, &remove).await?;
            }
            return crate::errors::collect(failures);
        }
        self.change.apply(ctx, infos, failures, "env updated", |object, info| self.apply(object, info, &set, &remove)).await
    }

    fn apply(&self, object: &mut Value, info: &Info, set: &[Value], remove: &[String]) -> Result<()> {
        let kind = info.kind.kind.clone();
        let Some(spec) = podspec::spec_of_mut(object) else { return Err(no_template(info)) };
        let mut chosen: Vec<&mut Value> = podspec::containers_mut(spec);
        chosen.retain(|c| matches_pattern(&self.containers, c["name"].as_str().unwrap_or_default()));
        if chosen.is_empty() {
            eprintln!("Warning: {kind}/{} does not have any containers matching {:?}", info.name, self.containers);
            return Ok(());
        }
        for container in chosen {
            let mut env = container["env"].as_array().cloned().unwrap_or_default();
            if !self.overwrite {
                let taken = env.iter().find(|e| set.iter().any(|s| s["name"] == e["name"]));
                if let Some(taken) = taken {
                    let owner = format!("{}/{}", info.kind.plural, info.name);
                    bail!("{owner} '{}' already has a value ({}), and --overwrite is false", text(&taken["name"]), text(&taken["value"]));
                }
            }
            merge(&mut env, set, remove);
            if env.is_empty() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("env");
                }
            } else {
                container["env"] = Value::Array(env);
            }
        }
        Ok(())
    }

    /// Each key of the source as a variable that refers to it.
    async fn imported(&self, ctx: &Ctx) -> Result<Vec<Value>> {
        let Some((kind, name)) = self.from.split_once('/') else {
            ctx.kind(&self.from).await?;
            bail!("resource(s) were provided, but no name was specified");
        };
        let kind = ctx.kind(kind).await?;
        let object = ctx.client().await?.get(&kind.object(Some(&ctx.namespace()?), name)).await?;
        let reference = match kind.kind.as_str() {
            "ConfigMap" => "configMapKeyRef",
            "Secret" => "secretKeyRef",
            other => bail!("unsupported resource specified in --from: {other}"),
        };
        let keys = object["data"].as_object().into_iter().flatten().map(|(k, _)| k);
        let wanted = |key: &&String| self.keys.is_empty() || self.keys.contains(key);
        let variable = |key: &String| {
            let upper = variable_name(key);
            if upper != *key {
                crate::print::warn(&format!("key {key} transferred to {upper}"));
            }
            let name_of = format!("{}{upper}", self.prefix);
            json!({ "name": name_of, "valueFrom": { reference: { "name": name, "key": key } } })
        };
        Ok(keys.filter(wanted).map(variable).collect())
    }

    async fn print(&self, ctx: &Ctx, info: &Info, set: &[Value], remove: &[String]) -> Result<()> {
        let mut object = info.object.clone();
        let Some(spec) = podspec::spec_of_mut(&mut object) else { return Ok(()) };
        for container in podspec::containers_mut(spec) {
            let name = text(&container["name"]).to_owned();
            if !matches_pattern(&self.containers, &name) {
                continue;
            }
            outln!("# {} {}, container {name}", info.kind.kind, info.name);
            let mut env = container["env"].as_array().cloned().unwrap_or_default();
            merge(&mut env, set, remove);
            for variable in &env {
                let line = self.described(ctx, info, variable, &container["resources"]).await;
                outln!("{line}");
            }
        }
        Ok(())
    }

    async fn described(&self, ctx: &Ctx, info: &Info, variable: &Value, resources: &Value) -> String {
        let (name, source) = (text(&variable["name"]), &variable["valueFrom"]);
        if !source.is_object() {
            return format!("{name}={}", text(&variable["value"]));
        }
        if self.resolve
            && !self.change.local
            && let Some(value) = resolved(ctx, info, source, resources).await
        {
            return format!("{name}={value}");
        }
        let (kind, reference) = match source.as_object().and_then(|o| o.iter().next()) {
            Some((kind, reference)) => (kind.as_str(), reference),
            None => ("", &Value::Null),
        };
        let described = match kind {
            "configMapKeyRef" => format!("configmap {}, key {}", text(&reference["name"]), text(&reference["key"])),
            "secretKeyRef" => format!("secret {}, key {}", text(&reference["name"]), text(&reference["key"])),
            "fieldRef" => format!("field path {}", text(&reference["fieldPath"])),
            "resourceFieldRef" => match text(&reference["containerName"]) {
                "" => format!("resource field {}", text(&reference["resource"])),
                container => format!("resource field {container}.{}", text(&reference["resource"])),
            },
            _ => "invalid valueFrom".into(),
        };
        format!("# {name} from {described}")
    }
}

async fn resolved(ctx: &Ctx, info: &Info, source: &Value, resources: &Value) -> Option<String> {
    use base64::Engine;
    let (kind, reference) = source.as_object()?.iter().next()?;
    let plural = match kind.as_str() {
        "fieldRef" => {
            let path = text(&reference["fieldPath"]).replace('.', "/");
            return info.object.pointer(&format!("/{path}"))?.as_str().map(ToOwned::to_owned);
        }
        "resourceFieldRef" => {
            let (which, resource) = text(&reference["resource"]).split_once('.')?;
            let amount: shared::quantity::Quantity = resources[which][resource].as_str()?.parse().ok()?;
            // Whole units, rounded up: processors or bytes.
            return Some(if resource == "cpu" { (amount.millis() + 999) / 1000 } else { amount.value() }.to_string());
        }
        "configMapKeyRef" => "configmaps",
        "secretKeyRef" => "secrets",
        _ => return None,
    };
    let kinds = crate::discovery::Kind::built_in("", "v1", "", plural, true);
    let object = ctx.client().await.ok()?.get(&kinds.object(info.namespace.as_deref(), text(&reference["name"]))).await.ok()?;
    let value = object["data"][text(&reference["key"])].as_str()?;
    if plural == "configmaps" {
        return Some(value.to_owned());
    }
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value).ok()?).ok()
}

/// Upstream names the Go type of what it was given instead.
pub(super) fn no_template(info: &Info) -> anyhow::Error {
    let Info { kind, name, .. } = info;
    anyhow!("{}/{name} the object is not a pod or does not have a pod template: *{}.{}", kind.plural, kind.version, kind.kind)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `my-key.x` becomes `MY_KEY_X`.
fn variable_name(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn split(args: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let (mut resources, mut pairs) = (Vec::new(), Vec::new());
    for word in args {
        let is_pair = word == "-" || word.contains('=') && !word.starts_with('=') || word.ends_with('-');
        match (is_pair, pairs.is_empty()) {
            (true, _) => pairs.push(word.clone()),
            (false, true) => resources.push(word.clone()),
            (false, false) => bail!("all resources must be specified before environment changes: {word}"),
        }
    }
    Ok((resources, pairs))
}

/// What to set and what to remove; `-` reads pairs from stdin.
fn parse(pairs: &[String]) -> Result<(Vec<Value>, Vec<String>)> {
    let (mut set, mut remove) = (Vec::new(), Vec::new());
    for pair in pairs {
        if pair == "-" {
            if std::io::stdin().is_terminal() {
                eprintln!("reading KEY=VALUE lines from the terminal, end with ^D");
            }
            for line in std::io::read_to_string(std::io::stdin())?.lines() {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let line = line.strip_prefix("export ").unwrap_or(line);
                set.push(variable(line)?);
            }
        } else if pair.contains('=') {
            set.push(variable(pair)?);
        } else {
            remove.push(pair.trim_end_matches('-').to_owned());
        }
    }
    Ok((set, remove))
}

fn variable(pair: &str) -> Result<Value> {
    let (name, value) = pair
        .split_once('=')
        .filter(|(n, _)| !n.is_empty())
        .ok_or_else(|| anyhow!("invalid parameter {pair:?}: environment variables must be of the form key=value"))?;
    crate::commands::create::check_variable_name(name)?;
    Ok(if value.is_empty() { json!({ "name": name }) } else { json!({ "name": name, "value": value }) })
}

/// Replaces variables in place, appends new ones, removes others.
fn merge(env: &mut Vec<Value>, set: &[Value], remove: &[String]) {
    for variable in set {
        match env.iter_mut().find(|e| e["name"] == variable["name"]) {
            Some(existing) => *existing = variable.clone(),
            None => env.push(variable.clone()),
        }
    }
    env.retain(|e| !remove.iter().any(|r| e["name"] == r.as_str()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_place() {
        let mut env = vec![json!({"name": "A", "value": "1"}), json!({"name": "B", "value": "2"}), json!({"name": "C"})];
        merge(&mut env, &[json!({"name": "B", "value": "3"}), json!({"name": "D", "value": "4"})], &["A".into()]);
        assert_eq!(env, [json!({"name": "B", "value": "3"}), json!({"name": "C"}), json!({"name": "D", "value": "4"})]);
        assert_eq!(variable_name("my-key.x"), "MY_KEY_X");
    }
}
