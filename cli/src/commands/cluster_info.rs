//! `cluster-info`: where the control plane answers, or everything about the cluster for a post-mortem.

use std::path::Path;

use anyhow::Result;

use crate::app::Ctx;
use crate::outln;
use crate::print;
use crate::resource::list_all;

/// Display cluster information
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub sub: Option<Sub>,
}

/// More than addresses.
#[derive(Debug, clap::Subcommand)]
pub enum Sub {
    Dump(DumpArgs),
}

/// Dump relevant information for debugging and diagnosis
#[derive(Debug, clap::Args)]
pub struct DumpArgs {
    /// Where to output the files. If empty or '-' uses stdout, otherwise creates a directory hierarchy in that directory
    #[arg(long, default_value = "-")]
    pub output_directory: String,
    /// If true, dump all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// A comma separated list of namespaces to dump
    #[arg(long, value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Output format. One of: (json, yaml)
    #[arg(short = 'o', long, default_value = "json")]
    pub output: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if let Some(Sub::Dump(dump)) = &self.sub {
            return dump.run(ctx).await;
        }
        let client = ctx.client().await?;
        let services = client.get("/api/v1/namespaces/kube-system/services?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue").await?;
        let green = |text: &str| if print::style::on_stdout() { format!("\u{1b}[0;32m{text}\u{1b}[0m") } else { text.to_owned() };
        let yellow = |text: &str| if print::style::on_stdout() { format!("\u{1b}[0;33m{text}\u{1b}[0m") } else { text.to_owned() };
        outln!("{} is running at {}", green("Kubernetes control plane"), yellow(client.url()));
        for service in services["items"].as_array().into_iter().flatten() {
            let meta = &service["metadata"];
            let name = meta["name"].as_str().unwrap_or_default();
            let label = meta["labels"]["kubernetes.io/name"].as_str().filter(|n| !n.is_empty()).unwrap_or(name);
            let port = &service["spec"]["ports"][0];
            let scheme = if port["name"] == "https" || port["port"] == 443 { "https:" } else { "" };
            let port_name = port["name"].as_str().map_or_else(String::new, |n| format!(":{n}"));
            let url = format!("{}/api/v1/namespaces/kube-system/services/{scheme}{name}{port_name}/proxy", client.url());
            outln!("{} is running at {}", green(label), yellow(&url));
        }
        outln!("\nTo further debug and diagnose cluster problems, use 'kctl cluster-info dump'.");
        Ok(())
    }
}

impl DumpArgs {
    async fn run(&self, ctx: &Ctx) -> Result<()> {
        self.write("nodes", &list_all(ctx, "/api/v1/nodes", &[], 0).await?)?;
        let namespaces = if self.all_namespaces {
            let list = list_all(ctx, "/api/v1/namespaces", &[], 0).await?;
            list["items"].as_array().into_iter().flatten().filter_map(|n| n["metadata"]["name"].as_str().map(ToOwned::to_owned)).collect()
        } else if self.namespaces.is_empty() {
            vec!["kube-system".to_owned(), ctx.namespace()?]
        } else {
            self.namespaces.clone()
        };
        for namespace in namespaces {
            for (root, plural) in [
                ("/api/v1", "events"),
                ("/api/v1", "replicationcontrollers"),
                ("/api/v1", "services"),
                ("/apis/apps/v1", "daemonsets"),
                ("/apis/apps/v1", "deployments"),
                ("/apis/apps/v1", "replicasets"),
                ("/api/v1", "pods"),
            ] {
                let list = list_all(ctx, &format!("{root}/namespaces/{namespace}/{plural}"), &[], 0).await?;
                self.write(&format!("{namespace}/{plural}"), &list)?;
                if plural == "pods" {
                    self.logs(ctx, &namespace, &list).await?;
                }
            }
        }
        if self.output_directory != "-" && !self.output_directory.is_empty() {
            outln!("Cluster info dumped to {}", self.output_directory);
        }
        Ok(())
    }

    async fn logs(&self, ctx: &Ctx, namespace: &str, list: &serde_json::Value) -> Result<()> {
        for pod in list["items"].as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            for container in pod["spec"]["containers"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()) {
                let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log?container={container}");
                // A pod that never ran has no log to dump.
                let log = ctx
                    .client()
                    .await?
                    .bytes(reqwest::Method::GET, &path, "*/*", None)
                    .await
                    .unwrap_or_else(|e| format!("Request log error: {e}\n").into_bytes());
                let text = format!(
                    "==== START logs for container {container} of pod {namespace}/{name} ====\n{}==== END logs for container {container} of pod {namespace}/{name} ====\n",
                    String::from_utf8_lossy(&log)
                );
                self.put(&format!("{namespace}/{name}/logs.txt"), &text)?;
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, value: &serde_json::Value) -> Result<()> {
        let shown = print::without_managed_fields(value);
        if self.output == "yaml" {
            self.put(&format!("{name}.yaml"), &print::yaml::to_string(&shown))
        } else {
            self.put(&format!("{name}.json"), &(shared::gojson::indented(&shown, "    ") + "\n"))
        }
    }

    fn put(&self, name: &str, text: &str) -> Result<()> {
        if self.output_directory == "-" || self.output_directory.is_empty() {
            return print::emit(text);
        }
        let file = Path::new(&self.output_directory).join(name);
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        Ok(std::fs::write(file, text)?)
    }
}
