//! `create ingress`

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::generate::{CommonArgs, object_of, one_name, pairs};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create an ingress with the specified name
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Rule in format host/path=service:port[,tls=secretname]. Paths containing the leading character '*' are considered pathType=Prefix
    #[arg(long)]
    pub rule: Vec<String>,
    /// Default service for backend, in format of svcname:port
    #[arg(long)]
    pub default_backend: Option<String>,
    /// Ingress Class to be used
    #[arg(long, default_value = "")]
    pub class: String,
    /// Annotation to insert in the ingress object, in the format annotation=value
    #[arg(long)]
    pub annotation: Vec<String>,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create ingress")?;
        if self.rule.is_empty() && self.default_backend.is_none() {
            bail!(
                "not enough information provided: every ingress has to either specify a default-backend (which catches all traffic) or a list of rules (which catch specific paths)"
            );
        }
        let mut spec = json!({});
        if !self.class.is_empty() {
            spec["ingressClassName"] = json!(self.class);
        }
        if let Some(text) = &self.default_backend {
            spec["defaultBackend"] = backend(text)?;
        }
        let (rules, tls) = rules(&self.rule)?;
        if !rules.is_empty() {
            spec["rules"] = Value::Array(rules);
        }
        if !tls.is_empty() {
            spec["tls"] = Value::Array(tls);
        }
        let mut metadata = json!({ "name": name });
        if !self.annotation.is_empty() {
            metadata["annotations"] = object_of(pairs(&self.annotation, "annotation")?);
        }
        let ingress =
            json!({ "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": metadata, "spec": spec, "status": { "loadBalancer": {} } });
        self.common.create(ctx, &Kind::built_in("networking.k8s.io", "v1", "Ingress", "ingresses", true), ingress).await
    }
}

fn backend(text: &str) -> Result<Value> {
    let Some((service, port)) = text.split_once(':').filter(|(s, p)| !s.is_empty() && !p.is_empty()) else {
        bail!("default-backend should be in format servicename:serviceport");
    };
    let port = port.parse::<i32>().map_or_else(|_| json!({ "name": port }), |n| json!({ "number": n }));
    Ok(json!({ "service": { "name": service, "port": port } }))
}

fn rules(texts: &[String]) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut hosts: Vec<(String, Vec<Value>)> = Vec::new();
    let mut tls: Vec<(String, Vec<String>)> = Vec::new();
    for text in texts {
        let invalid = || anyhow::anyhow!("rule {text} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]");
        let (left, right) = text.split_once('=').ok_or_else(invalid)?;
        let (host, path) = left.split_once('/').ok_or_else(invalid)?;
        let (service, option) = right.split_once(',').map_or((right, None), |(s, o)| (s, Some(o)));
        if !service.contains(':') {
            return Err(invalid());
        }
        let (path, path_type) = match path.strip_suffix('*') {
            Some(prefix) => (format!("/{prefix}"), "Prefix"),
            None => (format!("/{path}"), "Exact"),
        };
        let entry = json!({ "path": path, "pathType": path_type, "backend": backend(service)? });
        match hosts.iter_mut().find(|(h, _)| h == host) {
            Some((_, paths)) => paths.push(entry),
            None => hosts.push((host.to_owned(), vec![entry])),
        }
        if let Some(option) = option {
            let secret = match option.split_once('=') {
                Some(("tls", secret)) => secret,
                None if option == "tls" => "",
                _ => return Err(invalid()),
            };
            match tls.iter_mut().find(|(s, _)| s == secret) {
                Some((_, hosts)) if !hosts.iter().any(|h| h == host) => hosts.push(host.to_owned()),
                Some(_) => {}
                None => tls.push((secret.to_owned(), if host.is_empty() { vec![] } else { vec![host.to_owned()] })),
            }
        }
    }
    let rules = hosts.into_iter().map(|(host, paths)| {
        let mut rule = json!({ "http": { "paths": paths } });
        if !host.is_empty() {
            rule["host"] = json!(host);
        }
        rule
    });
    let tls = tls.into_iter().map(|(secret, hosts)| {
        let mut entry = json!({});
        if !hosts.is_empty() {
            entry["hosts"] = json!(hosts);
        }
        if !secret.is_empty() {
            entry["secretName"] = json!(secret);
        }
        entry
    });
    Ok((rules.collect(), tls.collect()))
}
