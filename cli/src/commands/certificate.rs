//! `certificate`: the verdict on a certificate signing request (`k8s.io/kubectl/pkg/cmd/certificates/certificates.go`).

use anyhow::{Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::Ctx;
use crate::client::Body;
use crate::discovery::Kind;
use crate::errors;
use crate::manifest::FileArgs;
use crate::print::{OutputArgs, Printer};
use crate::resource::{Info, Query};

/// Modify certificate resources
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub what: What,
}

/// The verdicts.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// Approve a certificate signing request
    Approve(VerdictArgs),
    /// Deny a certificate signing request
    Deny(VerdictArgs),
}

/// The flags of both.
#[derive(Debug, clap::Args)]
pub struct VerdictArgs {
    /// Names of certificate signing requests
    #[arg(value_name = "NAME", add = crate::commands::complete::certificate_requests())]
    pub names: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Update the CSR even if it has the verdict already
    #[arg(long)]
    pub force: bool,
}

/// What a verdict writes, and which one rules it out.
struct Verdict {
    condition: &'static str,
    excluded_by: &'static str,
    reason: &'static str,
    message: &'static str,
    verb: &'static str,
}

const APPROVED: Verdict = Verdict {
    condition: "Approved",
    excluded_by: "Denied",
    reason: "KubectlApprove",
    message: "This CSR was approved by kubectl certificate approve.",
    verb: "approved",
};
const DENIED: Verdict = Verdict {
    condition: "Denied",
    excluded_by: "Approved",
    reason: "KubectlDeny",
    message: "This CSR was denied by kubectl certificate deny.",
    verb: "denied",
};

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        match &self.what {
            What::Approve(args) => args.run(ctx, &APPROVED).await,
            What::Deny(args) => args.run(ctx, &DENIED).await,
        }
    }
}

impl VerdictArgs {
    async fn run(&self, ctx: &Ctx, verdict: &Verdict) -> Result<()> {
        let mut printer = Printer::new(&self.output, "")?;
        if self.names.is_empty() && self.files.is_empty() {
            bail!("one or more CSRs must be specified as <name> or -f <filename>");
        }
        if !self.names.is_empty() && !self.files.is_empty() {
            bail!("resource/name arguments cannot be provided when a path is specified");
        }
        let named = |n: &String| if n.contains('/') { n.clone() } else { format!("certificatesigningrequests/{n}") };
        let mut queries: Vec<Query> = self.names.iter().map(|n| Query { args: vec![named(n)], ..Query::default() }).collect();
        if !self.files.is_empty() {
            queries.push(Query { files: self.files.clone(), ..Query::default() });
        }
        let mut failures = Vec::new();
        for query in queries {
            let (infos, missing) = query.infos(ctx).await?;
            failures.extend(missing);
            for info in infos {
                match judge(ctx, &info, verdict, self.force).await {
                    Ok(()) => printer.done(&info.object, verdict.verb)?,
                    Err(error) => failures.push(error),
                }
            }
        }
        errors::collect(failures)
    }
}

/// Writes the verdict; another writer in between is read again, up to ten times.
async fn judge(ctx: &Ctx, info: &Info, verdict: &Verdict, force: bool) -> Result<()> {
    if !info.kind.is("certificates.k8s.io", "CertificateSigningRequest") {
        bail!("can only handle CertificateSigningRequest.certificates.k8s.io objects, got {}", group_kind(&info.kind));
    }
    let client = ctx.client().await?;
    for attempt in 0.. {
        let mut request = client.get(&info.path()).await.map_err(|error| match errors::is_not_found(&error) {
            true => anyhow!("could not find v1 version of {}: {error}", info.name),
            false => error,
        })?;
        if add(&mut request, verdict)? && !force {
            return Ok(());
        }
        let body = Some((Body::Json, serde_json::to_vec(&request)?));
        match client.json(Method::PUT, &format!("{}/approval", info.path()), body).await {
            Err(error) if errors::is_conflict(&error) && attempt < 10 => {}
            outcome => return outcome.map(drop),
        }
    }
    Ok(())
}

/// Adds the condition; says whether it was there before.
fn add(request: &mut Value, verdict: &Verdict) -> Result<bool> {
    let there = |kind: &str| request["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == kind);
    if there(verdict.excluded_by) {
        bail!("certificate signing request {:?} is already {}", request["metadata"]["name"].as_str().unwrap_or_default(), verdict.excluded_by);
    }
    if there(verdict.condition) {
        return Ok(true);
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": verdict.condition, "status": "True", "reason": verdict.reason, "message": verdict.message, "lastUpdateTime": now,
    });
    match request["status"]["conditions"].as_array_mut() {
        Some(conditions) => conditions.push(condition),
        None => request["status"]["conditions"] = json!([condition]),
    }
    Ok(false)
}

/// `Deployment.apps`, as Go prints a `GroupKind`.
fn group_kind(kind: &Kind) -> String {
    if kind.group.is_empty() { kind.kind.clone() } else { format!("{}.{}", kind.kind, kind.group) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_written_once_and_rules_the_other_out() {
        let mut request = json!({ "metadata": { "name": "r" } });
        assert!(!add(&mut request, &APPROVED).unwrap());
        assert_eq!(request["status"]["conditions"][0]["reason"], "KubectlApprove");
        assert!(add(&mut request, &APPROVED).unwrap());
        assert_eq!(request["status"]["conditions"].as_array().map(Vec::len), Some(1));
        assert_eq!(add(&mut request, &DENIED).unwrap_err().to_string(), "certificate signing request \"r\" is already Approved");
    }
}
