//! `exec` and `attach`: a command, or the main process, of a container.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};

use super::pods::{self, Purpose};
use crate::app::Ctx;
use crate::discovery::escape;
use crate::errors;
use crate::manifest::{self, FileArgs, Validation};
use crate::podspec;
use crate::resource::{self, Info};
use crate::stream::{self, Streams};

/// Execute a command in a container
#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// POD or TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME", add = crate::commands::complete::pods())]
    pub args: Vec<String>,
    /// The command
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    #[command(flatten)]
    pub stream: StreamArgs,
    /// to use to exec into the resource
    #[arg(short = 'f', long, value_name = "FILE")]
    pub filename: Vec<String>,
}

/// Attach to a process that is already running inside an existing container
#[derive(Debug, clap::Args)]
pub struct AttachArgs {
    /// POD or TYPE/NAME
    #[arg(value_name = "POD | TYPE/NAME", add = crate::commands::complete::pods())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub stream: StreamArgs,
}

/// The flags of both.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StreamArgs {
    /// Container name. If omitted, use the default container or the first container in the pod
    #[arg(short = 'c', long)]
    pub container: Option<String>,
    /// Pass stdin to the container
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Stdin is a TTY
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Only print output from the remote session
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// The length of time to wait until at least one pod is running
    #[arg(long, default_value = "1m0s")]
    pub pod_running_timeout: String,
}

impl StreamArgs {
    /// A terminal is only asked for where there is one.
    fn tty(&self) -> bool {
        use std::io::IsTerminal;
        if self.tty && !std::io::stdin().is_terminal() {
            if !self.quiet {
                eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
            }
            return false;
        }
        self.tty
    }
    fn query(&self, container: &str, tty: bool) -> String {
        format!("container={}&stdin={}&stdout=true&stderr={}&tty={tty}", escape(container), self.stdin, !tty)
    }
}

impl ExecArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.args.is_empty() && self.filename.is_empty() {
            bail!("pod, type/name or --filename must be specified");
        }
        if self.args.len() > 1 {
            bail!("exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead\nSee 'kctl exec -h' for help and examples");
        }
        if self.command.is_empty() {
            bail!("you must specify at least one command for the container");
        }
        let limit = pods::running_timeout(&self.stream.pod_running_timeout).map_err(|e| errors::usage("exec", e))?;
        let pod = match self.args.first() {
            Some(word) => pods::find(ctx, word, Purpose::Attach, limit).await?,
            None => from_file(ctx, &self.filename, limit).await?,
        };
        let typed = pods::typed(&pod)?;
        let phase = typed.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
        if matches!(phase.as_str(), "Succeeded" | "Failed") {
            bail!("cannot exec into a container in a completed pod; current phase is {phase}");
        }
        let container = pods::container(&typed, self.stream.container.as_deref(), self.stream.quiet)?;
        let tty = self.stream.tty();
        exec(ctx, &pod, &self.command, &self.stream.query(&container, tty), Streams::own(self.stream.stdin, tty)).await
    }
}

async fn from_file(ctx: &Ctx, files: &[String], limit: Duration) -> Result<Info> {
    let files = FileArgs { filename: files.to_vec(), ..FileArgs::default() };
    let document = manifest::read(&files, Validation::Ignore).await?.into_iter().next().ok_or_else(|| anyhow!("no objects passed to exec"))?;
    let info = resource::locate(ctx, document, false).await?;
    pods::find(ctx, &format!("{}/{}", info.kind.resource(), info.name), Purpose::Attach, limit).await
}

/// Runs a command in a container of a pod.
pub async fn exec(ctx: &Ctx, pod: &Info, command: &[String], query: &str, streams: Streams<'_>) -> Result<()> {
    let words: String = command.iter().map(|word| format!("command={}&", escape(word))).collect();
    stream::run(ctx, &format!("{}/exec?{words}{query}", pod.path()), streams).await
}

impl AttachArgs {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let [word] = self.args.as_slice() else {
            return Err(match self.args.len() {
                0 => anyhow!("at least 1 argument is required for attach"),
                _ => errors::usage("attach", format!("expected POD, TYPE/NAME, or TYPE NAME, (at most 1 argument), got {:?}", self.args)),
            });
        };
        let limit = pods::running_timeout(&self.stream.pod_running_timeout).map_err(|e| errors::usage("attach", e))?;
        let pod = pods::find(ctx, word, Purpose::Attach, limit).await?;
        attach(ctx, &pod, &self.stream).await
    }
}

/// Attaches to a container of a pod.
pub async fn attach(ctx: &Ctx, pod: &Info, args: &StreamArgs) -> Result<()> {
    let typed = pods::typed(pod)?;
    let phase = typed.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
    if matches!(phase.as_str(), "Succeeded" | "Failed") {
        bail!("cannot attach a container in a completed pod; current phase is {phase}");
    }
    let container = pods::container(&typed, args.container.as_deref(), args.quiet)?;
    let spec = podspec::container(&pod.object["spec"], &container).cloned().unwrap_or_default();
    let mut tty = args.tty();
    if tty && spec["tty"] != true {
        tty = false;
        if !args.quiet {
            eprintln!("error: Unable to use a TTY - container {container} did not allocate one");
        }
    } else if !tty && spec["tty"] == true && args.stdin {
        // The container has a terminal, so raw mode is what it expects.
        tty = true;
    }
    if args.stdin && !args.quiet && tty {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let path = format!("{}/attach?{}", pod.path(), args.query(&container, tty));
    stream::run(ctx, &path, Streams::own(args.stdin, tty)).await?;
    if args.stdin && tty && !args.quiet && pod.object["spec"]["restartPolicy"] == "Always" {
        let again = format!("'kctl attach {} -c {container} -i -t'", pod.name);
        let ephemeral = podspec::names(&pod.object["spec"], "ephemeralContainers").contains(&container);
        match ephemeral {
            true => {
                eprintln!("Session ended, the ephemeral container will not be restarted but may be reattached using {again} if it is still running")
            }
            false => eprintln!("Session ended, resume using {again} command when the pod is running"),
        }
    }
    Ok(())
}
