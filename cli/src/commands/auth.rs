//! `auth`: who am I, and what may I do; and RBAC objects brought to what a manifest says.

use anyhow::{Result, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::client::Body;
use crate::errors::{self, Exit};
use crate::manifest::{self, FileArgs, Validation};
use crate::outln;
use crate::print::{self, DryRun, DryRunArgs, OutputArgs, Printer, tabwriter};
use crate::resource::{self, Info, query_string, with_query};

/// Inspect authorization
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

/// What to inspect.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    CanI(CanI),
    Whoami(Whoami),
    Reconcile(Reconcile),
}

/// Check whether an action is allowed
#[derive(Debug, clap::Args)]
pub struct CanI {
    /// VERB, then TYPE, TYPE/NAME or /URL
    #[arg(value_name = "VERB TYPE")]
    pub args: Vec<String>,
    /// If true, check the specified action in all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// If true, prints all allowed actions
    #[arg(long)]
    pub list: bool,
    /// If true, prints allowed actions without headers
    #[arg(long)]
    pub no_headers: bool,
    /// If true, suppress output and just return the exit code
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// SubResource such as pod/log or deployment/scale
    #[arg(long, default_value = "")]
    pub subresource: String,
}

/// Experimental: Check self subject attributes
#[derive(Debug, clap::Args)]
pub struct Whoami {
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Reconciles rules for RBAC role, role binding, cluster role, and cluster role binding objects
#[derive(Debug, clap::Args)]
pub struct Reconcile {
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub dry_run: DryRunArgs,
    /// If true, removes extra permissions added to roles
    #[arg(long)]
    pub remove_extra_permissions: bool,
    /// If true, removes extra subjects added to rolebindings
    #[arg(long)]
    pub remove_extra_subjects: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.what {
            What::CanI(args) => args.run(ctx).await,
            What::Whoami(args) => args.run(ctx).await,
            What::Reconcile(args) => args.run(ctx).await,
        }
    }
}

async fn review(ctx: &Ctx, group: &str, plural: &str, body: &Value) -> Result<Value> {
    let path = format!("/apis/{group}/v1/{plural}");
    ctx.client().await?.json(Method::POST, &path, Some((Body::Json, serde_json::to_vec(body)?))).await
}

const AUTHORIZATION: &str = "authorization.k8s.io";

impl CanI {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.list {
            return self.list(ctx).await;
        }
        let [verb, what] = self.args.as_slice() else {
            bail!("you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'kctl auth can-i -h' for help and examples.");
        };
        let spec = match what.strip_prefix('/') {
            Some(_) => {
                if !self.subresource.is_empty() {
                    bail!("--subresource can not be used with NonResourceURL");
                }
                json!({ "nonResourceAttributes": { "path": what, "verb": verb } })
            }
            None => json!({ "resourceAttributes": self.attributes(ctx, verb, what).await? }),
        };
        let body = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec });
        let status = review(ctx, AUTHORIZATION, "selfsubjectaccessreviews", &body).await?["status"].take();
        let text = |name: &str| status[name].as_str().filter(|t| !t.is_empty()).map(ToOwned::to_owned);
        let allowed = status["allowed"] == true;
        if !self.quiet {
            let mut line = if allowed { "yes".to_owned() } else { "no".to_owned() };
            if let Some(reason) = text("reason").filter(|_| !allowed) {
                line.push_str(&format!(" - {reason}"));
            }
            if let Some(error) = text("evaluationError") {
                line.push_str(&format!(" - {error}"));
            }
            outln!("{line}");
        }
        if allowed { Ok(()) } else { Err(Exit(1).into()) }
    }

    async fn attributes(&self, ctx: &Ctx, verb: &str, what: &str) -> Result<Value> {
        const VERBS: &[&str] = &[
            "get",
            "list",
            "watch",
            "create",
            "update",
            "patch",
            "delete",
            "deletecollection",
            "use",
            "bind",
            "impersonate",
            "*",
            "approve",
            "sign",
            "escalate",
            "attest",
        ];
        if !VERBS.contains(&verb) {
            print::warn(&format!("verb '{verb}' is not a known verb\n"));
        }
        let (word, name) = what.split_once('/').map_or((what, ""), |(w, n)| (w, n));
        let (group, resource) = if word == "*" {
            ("*".to_owned(), "*".to_owned())
        } else {
            match ctx.discovery().await?.find(word) {
                Some(kind) => {
                    if !kind.namespaced && !self.all_namespaces {
                        print::warn(&if kind.group.is_empty() {
                            format!("resource '{}' is not namespace scoped\n", kind.plural)
                        } else {
                            format!("resource '{}' is not namespace scoped in group '{}'\n", kind.plural, kind.group)
                        });
                    }
                    (kind.group.clone(), kind.plural.clone())
                }
                None => {
                    let (resource, group) = word.split_once('.').unwrap_or((word, ""));
                    let place = if group.is_empty() { String::new() } else { format!(" in group '{group}'") };
                    print::warn(&format!("the server doesn't have a resource type '{resource}'{place}\n"));
                    (group.to_owned(), resource.to_owned())
                }
            }
        };
        let namespace = if self.all_namespaces { String::new() } else { ctx.namespace()? };
        let mut attributes = json!({ "verb": verb, "resource": resource, "namespace": namespace });
        for (field, text) in [("group", group), ("name", name.to_owned()), ("subresource", self.subresource.clone())] {
            if !text.is_empty() {
                attributes[field] = json!(text);
            }
        }
        Ok(attributes)
    }

    async fn list(&self, ctx: &Ctx) -> Result<()> {
        let body = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": { "namespace": ctx.namespace()? } });
        let answer = review(ctx, AUTHORIZATION, "selfsubjectrulesreviews", &body).await?;
        if answer["status"]["incomplete"] == true {
            print::warn(&format!("the list may be incomplete: {}", answer["status"]["evaluationError"].as_str().unwrap_or_default()));
        }
        let mut rules = answer["status"]["resourceRules"].as_array().cloned().unwrap_or_default();
        rules.extend(answer["status"]["nonResourceRules"].as_array().cloned().unwrap_or_default());
        let role = json!({ "rules": rules });
        let mut text = if self.no_headers { String::new() } else { "Resources\tNon-Resource URLs\tResource Names\tVerbs\n".to_owned() };
        for line in crate::describe::rule_lines(&role) {
            text.push_str(&line);
        }
        print::emit(&tabwriter::TABLE.align(&text))
    }
}

impl Whoami {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let answer = review(ctx, "authentication.k8s.io", "selfsubjectreviews", &body).await?;
        let mut printer = Printer::new(&self.output, "")?;
        if printer.has_format() {
            return printer.object(&answer);
        }
        let info = &answer["status"]["userInfo"];
        let list = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        let mut text = String::from("ATTRIBUTE\tVALUE\n");
        text.push_str(&format!("Username\t{}\n", info["username"].as_str().unwrap_or_default()));
        if let Some(uid) = info["uid"].as_str().filter(|u| !u.is_empty()) {
            text.push_str(&format!("UID\t{uid}\n"));
        }
        if info["groups"].as_array().is_some_and(|g| !g.is_empty()) {
            text.push_str(&format!("Groups\t[{}]\n", list(&info["groups"])));
        }
        for (key, values) in info["extra"].as_object().into_iter().flatten() {
            text.push_str(&format!("Extra: {key}\t[{}]\n", list(values)));
        }
        print::emit(&tabwriter::TABLE.align(&text))
    }
}

impl Reconcile {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        self.files.required()?;
        let dry_run = self.dry_run.mode()?;
        let mut printer = Printer::new(&self.output, dry_run.suffix())?;
        let mut failures = Vec::new();
        for document in manifest::read(&self.files, Validation::Strict).await? {
            let info = resource::locate(ctx, document, false).await?;
            if info.kind.group != "rbac.authorization.k8s.io" {
                // Upstream passes over what is no RBAC object.
                continue;
            }
            match self.one(ctx, &info, dry_run).await {
                Ok(object) => printer.done(&object, "reconciled")?,
                Err(error) => failures.push(error),
            }
        }
        errors::collect(failures)
    }

    async fn one(&self, ctx: &Ctx, info: &Info, dry_run: DryRun) -> Result<Value> {
        let pairs: Vec<_> = dry_run.query().into_iter().collect();
        let query = query_string(&pairs);
        let client = ctx.client().await?;
        let current = match info.fetch(ctx).await {
            Ok(current) => current,
            Err(error) if errors::is_not_found(&error) => {
                if dry_run == DryRun::Client {
                    return Ok(info.object.clone());
                }
                let path = with_query(&info.kind.collection(info.namespace.as_deref()), &query);
                return client.json(Method::POST, &path, Some((Body::Json, serde_json::to_vec(&info.object)?))).await;
            }
            Err(error) => return Err(error),
        };
        let mut wanted = current.clone();
        let (field, remove) =
            if info.object["rules"].is_array() { ("rules", self.remove_extra_permissions) } else { ("subjects", self.remove_extra_subjects) };
        if field == "subjects" && info.object["roleRef"] != current["roleRef"] {
            bail!("{} refers to another role, and a binding's role cannot change: delete it first", info.printed());
        }
        let given = info.object[field].as_array().cloned().unwrap_or_default();
        let mut all = if remove { Vec::new() } else { current[field].as_array().cloned().unwrap_or_default() };
        all.extend(given.into_iter().filter(|g| !all.contains(g)).collect::<Vec<_>>());
        wanted[field] = Value::Array(all);
        for map in ["labels", "annotations"] {
            for (key, value) in info.object["metadata"][map].as_object().into_iter().flatten() {
                wanted["metadata"][map][key] = value.clone();
            }
        }
        if wanted == current || dry_run == DryRun::Client {
            return Ok(wanted);
        }
        client.json(Method::PUT, &with_query(&info.path(), &query), Some((Body::Json, serde_json::to_vec(&wanted)?))).await
    }
}
