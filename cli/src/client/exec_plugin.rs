//! Credential plugins (`client.authentication.k8s.io`): a program that prints an `ExecCredential`.

use std::io::IsTerminal;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Settings;
use super::auth::Credentials;
use super::kubeconfig::Exec;
use crate::errors::ConnectError;

const NOT_INSTALLED: &str = "
It looks like you are trying to use a client-go credential plugin that is not installed.

To learn more about this feature, consult the documentation available at:
      https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins";

fn hint(plugin: &Exec) -> String {
    plugin.install_hint.as_deref().filter(|h| !h.is_empty()).map_or_else(String::new, |hint| format!("\n\n{hint}"))
}

/// Upstream asks for credentials while it connects, and says so.
fn refused(why: String) -> anyhow::Error {
    ConnectError::Other(format!("getting credentials: exec: {why}")).into()
}

pub(super) async fn run(plugin: &Exec, settings: &Settings) -> Result<Credentials> {
    let version = plugin.api_version.as_deref().unwrap_or("client.authentication.k8s.io/v1");
    let command = plugin.command.as_str();
    if command.is_empty() {
        bail!("exec plugin: command must be specified");
    }
    if let Some(preference) = settings.preference.as_ref().filter(|p| !p.allows(command)) {
        bail!("getting credentials: plugin {command:?} not allowed: policy set to {:?}", preference.credential_plugin_policy);
    }
    let terminal = std::io::stdin().is_terminal();
    let interactive = match plugin.interactive_mode.as_deref() {
        Some("Never") => false,
        Some("Always") if !terminal => bail!("exec plugin cannot support interactive mode: standard input is not a terminal"),
        _ => terminal,
    };
    let mut spec = json!({ "interactive": interactive });
    if plugin.provide_cluster_info {
        let mut cluster = json!({ "server": settings.server, "insecure-skip-tls-verify": settings.insecure });
        for (name, value) in [
            ("certificate-authority-data", &settings.cluster.certificate_authority_data),
            ("tls-server-name", &settings.tls_server_name),
            ("proxy-url", &settings.proxy),
        ] {
            if let Some(value) = value {
                cluster[name] = Value::String(value.clone());
            }
        }
        if let Some(own) = settings.cluster.extensions.iter().find(|e| e.name == "client.authentication.k8s.io/exec") {
            cluster["config"] = own.extension.clone();
        }
        spec["cluster"] = cluster;
    }
    let request = json!({ "kind": "ExecCredential", "apiVersion": version, "spec": spec });
    let mut process = tokio::process::Command::new(command);
    process.args(&plugin.args).env("KUBERNETES_EXEC_INFO", request.to_string());
    process.envs(plugin.env.iter().map(|variable| (&variable.name, &variable.value)));
    process.stdin(if interactive { Stdio::inherit() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let output = process.output().await.map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => refused(format!("executable {command} not found\n{NOT_INSTALLED}{}", hint(plugin))),
        _ => refused(format!("fork/exec {command}: {}", crate::errors::reason(&e))),
    })?;
    if !output.status.success() {
        return Err(refused(format!("executable {command} failed with exit code {}", output.status.code().unwrap_or(-1))));
    }
    let answer: Value = serde_json::from_slice(&output.stdout).context("getting credentials: decoding stdout of the exec plugin")?;
    if answer["apiVersion"] != version {
        bail!(
            "getting credentials: exec plugin is configured to use API version {version}, plugin returned version {}",
            answer["apiVersion"].as_str().unwrap_or_default()
        );
    }
    let text = |name: &str| answer["status"][name].as_str().map(ToOwned::to_owned);
    let certificate = match (text("clientCertificateData"), text("clientKeyData")) {
        (Some(certificate), Some(key)) => Some((certificate.into_bytes(), key.into_bytes())),
        _ => None,
    };
    let credentials = Credentials { certificate, token: text("token") };
    if credentials.certificate.is_none() && credentials.token.is_none() {
        bail!("getting credentials: exec plugin didn't return a token or cert/key pair");
    }
    Ok(credentials)
}
