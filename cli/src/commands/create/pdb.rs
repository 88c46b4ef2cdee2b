//! `create poddisruptionbudget`

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::generate::{CommonArgs, metadata, one_name};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a pod disruption budget with the specified name, selector, and desired minimum available pods
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// The minimum number or percentage of available pods this budget requires
    #[arg(long)]
    pub min_available: Option<String>,
    /// The maximum number or percentage of unavailable pods this budget requires
    #[arg(long)]
    pub max_unavailable: Option<String>,
    /// A label selector to use for this budget. Only equality-based selector requirements are supported
    #[arg(long, default_value = "")]
    pub selector: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create poddisruptionbudget")?;
        if self.selector.is_empty() {
            bail!("a selector must be specified");
        }
        let mut spec = json!({ "selector": match_labels(&self.selector)? });
        for (name, value) in [("min-available", &self.min_available), ("max-unavailable", &self.max_unavailable)] {
            let number = |text: &String| text.strip_suffix('%').unwrap_or(text).parse::<u32>().is_ok();
            if !value.as_ref().is_none_or(number) {
                bail!("invalid format specified for {name}");
            }
        }
        match (&self.min_available, &self.max_unavailable) {
            (None, None) => bail!("one of min-available or max-unavailable must be specified"),
            (Some(_), Some(_)) => bail!("min-available and max-unavailable cannot be both specified"),
            (Some(min), None) => spec["minAvailable"] = number_or_text(min),
            (None, Some(max)) => spec["maxUnavailable"] = number_or_text(max),
        }
        let budget = json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(&name),
            "spec": spec,
            "status": { "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0 },
        });
        self.common.create(ctx, &Kind::built_in("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true), budget).await
    }
}

/// An integer where the text is one.
pub fn number_or_text(text: &str) -> Value {
    text.parse::<i32>().map_or_else(|_| Value::String(text.to_owned()), Value::from)
}

/// A label selector object from `a=b,c in (d)`.
pub fn match_labels(text: &str) -> Result<Value> {
    if text.contains('(') || text.contains('!') {
        return expressions(text);
    }
    let mut labels = serde_json::Map::new();
    for part in text.split(',') {
        let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')).filter(|(k, _)| !k.ends_with('!')) else {
            bail!("couldn't parse the selector string {text:?}: only equality-based requirements are supported");
        };
        labels.insert(key.trim().to_owned(), Value::String(value.trim().to_owned()));
    }
    Ok(json!({ "matchLabels": labels }))
}

/// The requirements that need more than equality.
fn expressions(text: &str) -> Result<Value> {
    let (mut labels, mut expressions) = (serde_json::Map::new(), Vec::new());
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = match (rest.find(','), rest.find('('), rest.find(')')) {
            (Some(comma), Some(open), Some(close)) if open < comma => close + 1,
            (Some(comma), ..) => comma,
            (None, ..) => rest.len(),
        };
        let part = rest[..end].trim();
        rest = rest[end..].trim_start_matches([',', ' ']);
        let operator = |word: &str| part.split_once(word).map(|(key, values)| (key.trim().to_owned(), values.trim_matches([' ', '(', ')'])));
        let list = |values: &str| values.split(',').map(|v| v.trim().to_owned()).collect::<Vec<_>>();
        if let Some((key, values)) = operator(" notin ") {
            expressions.push(json!({ "key": key, "operator": "NotIn", "values": list(values) }));
        } else if let Some((key, values)) = operator(" in ") {
            expressions.push(json!({ "key": key, "operator": "In", "values": list(values) }));
        } else if let Some((key, value)) = operator("!=") {
            expressions.push(json!({ "key": key, "operator": "NotIn", "values": [value] }));
        } else if let Some(key) = part.strip_prefix('!') {
            expressions.push(json!({ "key": key, "operator": "DoesNotExist" }));
        } else if let Some((key, value)) = operator("==").or_else(|| operator("=")) {
            labels.insert(key, Value::String(value.to_owned()));
        } else {
            expressions.push(json!({ "key": part, "operator": "Exists" }));
        }
    }
    let mut selector = json!({});
    if !labels.is_empty() {
        selector["matchLabels"] = Value::Object(labels);
    }
    if !expressions.is_empty() {
        selector["matchExpressions"] = Value::Array(expressions);
    }
    Ok(selector)
}
