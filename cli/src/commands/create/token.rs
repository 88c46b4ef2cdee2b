//! `create token`: a bound service-account token, printed bare.

use anyhow::{Result, anyhow, bail};
use reqwest::Method;
use serde_json::{Value, json};

use super::generate::one_name;
use crate::app::Ctx;
use crate::client::Body;
use crate::discovery::Kind;
use crate::outln;
use crate::print::{OutputArgs, Printer};

/// Request a service account token
#[derive(Debug, clap::Args)]
pub struct Args {
    /// SERVICE_ACCOUNT_NAME
    #[arg(value_name = "SERVICE_ACCOUNT_NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Audience of the requested token. May be repeated
    #[arg(long)]
    pub audience: Vec<String>,
    /// Requested lifetime of the issued token
    #[arg(long, default_value = "0s", value_parser = crate::duration::checked)]
    pub duration: String,
    /// Kind of an object to bind the token to. Supported kinds are Node, Pod, Secret
    #[arg(long, default_value = "")]
    pub bound_object_kind: String,
    /// Name of an object to bind the token to
    #[arg(long, default_value = "")]
    pub bound_object_name: String,
    /// UID of an object to bind the token to
    #[arg(long, default_value = "")]
    pub bound_object_uid: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create token")?;
        let mut spec = json!({ "audiences": if self.audience.is_empty() { Value::Null } else { json!(self.audience) } });
        let duration = crate::duration::parse(&self.duration).map_err(|e| anyhow!("{e}"))?;
        if duration.as_secs() > 0 {
            spec["expirationSeconds"] = json!(duration.as_secs());
        }
        match self.bound_object_kind.as_str() {
            "" if !self.bound_object_name.is_empty() => bail!("--bound-object-name can only be set if --bound-object-kind is provided"),
            "" if !self.bound_object_uid.is_empty() => bail!("--bound-object-uid can only be set if --bound-object-kind is provided"),
            "" => {}
            kind @ ("Node" | "Pod" | "Secret") => {
                if self.bound_object_name.is_empty() {
                    bail!("--bound-object-name is required if --bound-object-kind is provided");
                }
                spec["boundObjectRef"] = json!({ "kind": kind, "apiVersion": "v1", "name": self.bound_object_name });
                if !self.bound_object_uid.is_empty() {
                    spec["boundObjectRef"]["uid"] = json!(self.bound_object_uid);
                }
            }
            _ => bail!("supported --bound-object-kind values are Node, Pod, Secret"),
        }
        let request = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
        let accounts = Kind::built_in("", "v1", "ServiceAccount", "serviceaccounts", true);
        let path = format!("{}/token", accounts.object(Some(&ctx.namespace()?), &name));
        let sent = ctx.client().await?.json(Method::POST, &path, Some((Body::Json, serde_json::to_vec(&request)?))).await;
        let answer = sent.map_err(|error| match error.is::<crate::errors::ServerError>() {
            true => anyhow!("failed to create token: {error}"),
            false => error,
        })?;
        let mut printer = Printer::new(&self.output, "")?;
        if printer.has_format() {
            return printer.object(&answer);
        }
        match answer["status"]["token"].as_str().filter(|t| !t.is_empty()) {
            Some(token) => outln!("{token}"),
            None => bail!("failed to create token: no token in server response"),
        }
        Ok(())
    }
}
