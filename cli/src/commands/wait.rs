//! `wait`: until objects have a condition, a value, exist, or are gone.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use shared::jsonpath;

use crate::app::Ctx;
use crate::errors;
use crate::manifest::FileArgs;
use crate::outln;
use crate::print::{OutputArgs, Printer};
use crate::resource::{Info, Query, SelectorArgs, Target};
use crate::watch::Watch;

/// Experimental: Wait for a specific condition on one or many resources
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub selector: SelectorArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Select all resources in the namespace of the specified resource types
    #[arg(long)]
    pub all: bool,
    /// The condition to wait on: [create|delete|condition=NAME[=VALUE]|jsonpath='{PATH}'=VALUE]
    #[arg(long = "for", default_value = "", value_name = "CONDITION")]
    pub condition: String,
    /// If true, annotations will NOT contact api-server but run locally
    #[arg(long, hide = true)]
    pub local: bool,
    /// The length of time to wait before giving up. Zero means check once and don't wait, negative means wait for a week
    #[arg(long, default_value = "30s", value_parser = crate::duration::checked)]
    pub timeout: String,
}

/// What is waited for.
#[derive(Debug)]
enum Goal {
    Create,
    Delete,
    Condition { name: String, value: String },
    Path { template: jsonpath::Template, value: Option<String> },
}

impl Goal {
    fn parse(text: &str) -> Result<Goal> {
        let lower = text.to_lowercase();
        if lower == "delete" {
            return Ok(Goal::Delete);
        }
        if lower == "create" {
            return Ok(Goal::Create);
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(Goal::Condition { name: name.to_owned(), value: value.to_owned() });
        }
        if let Some(path) = text.strip_prefix("jsonpath=") {
            if path.is_empty() {
                bail!("jsonpath expression cannot be empty");
            }
            // The value stands behind the last `=` outside the braces.
            let end = path.rfind('}').map_or(path.find('=').unwrap_or(path.len()), |at| at + 1);
            let (expression, rest) = path.split_at(end);
            let value = match rest.trim_start_matches(['\'', '"']).strip_prefix('=') {
                Some("") => bail!("jsonpath wait has to have a value after equal sign"),
                Some(value) => Some(value.trim_matches(['\'', '"']).to_owned()),
                None if rest.trim_matches(['\'', '"']).is_empty() => None,
                None => {
                    bail!("jsonpath wait format must be --for=jsonpath='{{.status.readyReplicas}}'=3 or --for=jsonpath='{{.status.readyReplicas}}'")
                }
            };
            let relaxed = jsonpath::relaxed(expression.trim_matches(['\'', '"']))
                .map_err(|e| anyhow!("{}", e.to_string().split(" (got ").next().unwrap_or_default()))?;
            let template = jsonpath::Template::parse(&relaxed).map_err(|e| anyhow!("error parsing jsonpath {relaxed}, {e}"))?;
            return Ok(Goal::Path { template, value });
        }
        match text {
            "" => bail!("unrecognized condition: []"),
            _ => bail!("unrecognized condition: {text:?}"),
        }
    }

    fn is_met(&self, object: Option<&Value>) -> Result<bool> {
        Ok(match (self, object) {
            (Goal::Delete, object) => object.is_none(),
            (Goal::Create, object) => object.is_some(),
            (_, None) => false,
            (Goal::Condition { name, value }, Some(object)) => has_condition(object, name, value),
            (Goal::Path { template, value }, Some(object)) => {
                let found: Vec<Value> = template.find(object, true).map_err(|e| anyhow!("{e}"))?.into_iter().flatten().collect();
                match (found.as_slice(), value) {
                    ([], _) => false,
                    (_, None) => true,
                    ([Value::Array(_) | Value::Object(_)], Some(_)) => {
                        bail!("jsonpath leads to a nested object or list, which cannot be compared with a value")
                    }
                    ([one], Some(wanted)) => jsonpath::to_text(one).trim() == wanted.trim(),
                    _ => bail!("given jsonpath expression matches more than one value"),
                }
            }
        })
    }
}

fn has_condition(object: &Value, name: &str, value: &str) -> bool {
    let generation = object["metadata"]["generation"].as_i64();
    object["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
        let is_it = condition["type"].as_str().is_some_and(|t| t.eq_ignore_ascii_case(name));
        // A condition about an older generation says nothing about this one.
        let observed = condition["observedGeneration"].as_i64().or_else(|| object["status"]["observedGeneration"].as_i64());
        let current = generation.is_none_or(|g| observed.is_none_or(|o| o >= g));
        is_it && current && condition["status"].as_str().is_some_and(|s| s.eq_ignore_ascii_case(value))
    })
}

/// A job that failed will not complete any more.
fn hopeless(object: &Value, goal: &Goal) -> Option<String> {
    let wants_success = matches!(goal, Goal::Condition { name, value } if value.eq_ignore_ascii_case("true") && (name.eq_ignore_ascii_case("complete") || name.eq_ignore_ascii_case("successcriteriamet")));
    if object["kind"] != "Job" || !wants_success {
        return None;
    }
    let failed = object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Failed" && c["status"] == "True")?;
    Some(format!("{}: {}", failed["reason"].as_str().unwrap_or_default(), failed["message"].as_str().unwrap_or_default()))
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let goal = Goal::parse(&self.condition)?;
        let negative = self.timeout.starts_with('-');
        let timeout =
            if negative { Duration::from_secs(7 * 24 * 3600) } else { crate::duration::parse(&self.timeout).map_err(|e| anyhow!("{e}"))? };
        let deadline = tokio::time::Instant::now() + timeout;
        let mut printer = Printer::new(&self.output, "")?;
        let (infos, mut failures) = self.infos(ctx, &goal, deadline).await?;
        if infos.is_empty() && failures.is_empty() {
            if matches!(goal, Goal::Delete) {
                return Ok(());
            }
            bail!("no matching resources found");
        }
        for info in infos {
            match self.one(ctx, &info, &goal, deadline, timeout.is_zero(), &mut printer).await {
                Ok(()) => {}
                Err(error) => failures.push(error),
            }
        }
        errors::collect(failures)
    }

    async fn infos(&self, ctx: &Ctx, goal: &Goal, deadline: tokio::time::Instant) -> Result<(Vec<Info>, Vec<anyhow::Error>)> {
        let mut query = Query { args: self.args.clone(), files: self.files.clone(), all: self.all, ..Query::default() }.select(&self.selector);
        query.ignore_not_found = matches!(goal, Goal::Delete);
        if !matches!(goal, Goal::Create) || !self.files.is_empty() {
            return query.infos(ctx).await;
        }
        // What is to be created need not be there yet.
        let mut infos = Vec::new();
        for target in query.targets(ctx).await? {
            match target {
                Target::One { kind, namespace, name } => infos.push(Info { kind, namespace, name, object: Value::Null, source: String::new() }),
                Target::List { .. } => loop {
                    let found = query.fetch(ctx, &target).await?;
                    if !found.is_empty() {
                        infos.extend(found);
                        break;
                    }
                    let Target::List { kind, namespace } = &target else { break };
                    let next = async {
                        let mut watch = Watch::open(ctx, &kind.collection(namespace.as_deref()), &query.parameters(), "", "application/json").await?;
                        watch.next().await
                    };
                    tokio::time::timeout_at(deadline, next)
                        .await
                        .map_err(|_| anyhow!("timed out waiting for the condition on {}", kind.resource()))??;
                },
            }
        }
        Ok((infos, Vec::new()))
    }

    async fn one(&self, ctx: &Ctx, info: &Info, goal: &Goal, deadline: tokio::time::Instant, once: bool, printer: &mut Printer) -> Result<()> {
        let mut last = info.object.clone();
        let mut trouble: Option<anyhow::Error> = None;
        let waiting = until(ctx, info, |object| {
            if let Some(object) = object {
                last = object.clone();
                if let Some(reason) = hopeless(object, goal) {
                    trouble = Some(anyhow!("{} failed and will not complete: {reason}", info.printed()));
                    return true;
                }
            }
            match goal.is_met(object) {
                Ok(met) => met || once,
                Err(error) => {
                    trouble = Some(error);
                    true
                }
            }
        });
        let timed_out = || match goal {
            Goal::Create => anyhow!("timed out waiting for the condition"),
            _ => anyhow!("timed out waiting for the condition on {}/{}", info.kind.plural, info.name),
        };
        if once {
            waiting.await?;
            let current = info.fetch(ctx).await.map(Some).or_else(|e| if errors::is_not_found(&e) { Ok(None) } else { Err(e) })?;
            if !goal.is_met(current.as_ref())? {
                bail!("condition not met for {}/{}", info.kind.plural, info.name);
            }
        } else {
            tokio::time::timeout_at(deadline, waiting).await.map_err(|_| timed_out())??;
        }
        if let Some(error) = trouble {
            return Err(error);
        }
        if printer.has_format() {
            return printer.object(&last);
        }
        outln!("{} condition met", info.printed());
        Ok(())
    }
}

/// Waits until a predicate holds of an object: looked at now, then at every change; none means it is gone.
pub async fn until(ctx: &Ctx, info: &Info, mut holds: impl FnMut(Option<&Value>) -> bool) -> Result<()> {
    let fields = [("fieldSelector", format!("metadata.name={}", info.name))];
    let collection = info.kind.collection(info.namespace.as_deref());
    loop {
        let list = ctx.client().await?.get(&crate::resource::with_query(&collection, &crate::resource::query_string(&fields))).await?;
        let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        let found = crate::resource::items_of(&info.kind, list).into_iter().next();
        if holds(found.as_ref().map(|i| &i.object)) {
            return Ok(());
        }
        let mut watch = match Watch::open(ctx, &collection, &fields, &version, "application/json").await {
            Ok(watch) => watch,
            Err(error) if is_expired(&error) => continue,
            Err(error) => return Err(error),
        };
        // The server ends watches from time to time: then look again from the start.
        loop {
            match watch.next().await {
                Ok(Some(event)) if event.kind == "DELETED" => {
                    if holds(None) {
                        return Ok(());
                    }
                }
                Ok(Some(event)) if event.kind == "BOOKMARK" => {}
                Ok(Some(event)) => {
                    if holds(Some(&event.object)) {
                        return Ok(());
                    }
                }
                Ok(None) => break,
                Err(error) if is_expired(&error) => break,
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_expired(error: &anyhow::Error) -> bool {
    error.downcast_ref::<errors::ServerError>().is_some_and(|e| matches!(e.reason(), "Expired" | "Gone"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn goals_are_judged_as_kubectl_does() {
        let ready = json!({"metadata": {"generation": 2}, "status": {"phase": "Running", "n": 3, "conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "True", "observedGeneration": 1}]}});
        for (goal, met) in [
            ("condition=Ready", true),
            ("condition=ready=TRUE", true),
            ("condition=Ready=false", false),
            ("condition=Old", false),
            ("condition=Nope", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.phase}'=Running", true),
            ("jsonpath={.status.phase}=Pending", false),
            ("jsonpath={.status.n}=3", true),
            ("jsonpath=.status.n=3", true),
            ("jsonpath={.status.phase}", true),
            ("jsonpath={.status.nope}", false),
            ("jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True", true),
            ("create", true),
            ("delete", false),
        ] {
            assert_eq!(Goal::parse(goal).unwrap().is_met(Some(&ready)).unwrap(), met, "{goal}");
        }
        assert!(Goal::parse("delete").unwrap().is_met(None).unwrap());
        assert_eq!(Goal::parse("nonsense").unwrap_err().to_string(), "unrecognized condition: \"nonsense\"");
    }
}
