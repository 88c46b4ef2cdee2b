//! `logs`: what containers print.

mod follow;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use futures::stream::{FuturesUnordered, StreamExt};

use super::pods::{self, Purpose};
use crate::app::Ctx;
use crate::errors;
use crate::print;
use crate::resource::{Info, query_string, with_query};
use crate::watch::Lines;

/// Print the logs for a container in a pod
#[derive(Debug, clap::Args)]
pub struct Args {
    /// POD or TYPE/NAME, then perhaps a container
    #[arg(value_name = "POD | TYPE/NAME", add = crate::commands::complete::pods())]
    pub args: Vec<String>,
    /// Print the logs of this container
    #[arg(short = 'c', long)]
    pub container: Option<String>,
    /// Specify if the logs should be streamed
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// If true, print the logs for the previous instance of the container in a pod if it exists
    #[arg(short = 'p', long)]
    pub previous: bool,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Get all containers' logs in the pod(s)
    #[arg(long)]
    pub all_containers: bool,
    /// Get logs from all pod(s). Sets prefix to true
    #[arg(long)]
    pub all_pods: bool,
    /// Prefix each log line with the log source (pod name and container name)
    #[arg(long)]
    pub prefix: bool,
    /// Only return logs newer than a relative duration like 5s, 2m, or 3h
    #[arg(long, default_value = "0s", value_parser = crate::duration::checked)]
    pub since: String,
    /// Only return logs after a specific date (RFC3339)
    #[arg(long)]
    pub since_time: Option<String>,
    /// Lines of recent log file to display. Defaults to -1 with no selector, showing all log lines otherwise 10
    #[arg(long, default_value_t = -1)]
    pub tail: i64,
    /// Include timestamps on each line in the log output
    #[arg(long)]
    pub timestamps: bool,
    /// Maximum bytes of logs to return. Defaults to no limit
    #[arg(long, default_value_t = 0)]
    pub limit_bytes: i64,
    /// If watching / following pod logs, allow for any errors that occur to be non-fatal
    #[arg(long)]
    pub ignore_errors: bool,
    /// Specify maximum number of concurrent logs to follow when using by a selector
    #[arg(long, default_value_t = 5)]
    pub max_log_requests: usize,
    /// The length of time to wait until at least one pod is running
    #[arg(long, default_value = "20s", value_parser = crate::duration::checked)]
    pub pod_running_timeout: String,
    /// Skip verifying the identity of the kubelet that logs are requested from
    #[arg(long)]
    pub insecure_skip_tls_verify_backend: bool,
}

/// One container's log.
struct Source {
    pod: Info,
    container: String,
    path: String,
    prefix: String,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let by_selector = self.selector.as_ref().is_some_and(|s| !s.is_empty());
        let usage = "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command";
        let (word, mut container) = match self.args.as_slice() {
            [] if !by_selector => return Err(errors::usage("logs", usage)),
            [] => (String::new(), None),
            [_] | [_, _] if by_selector => return Err(errors::usage("logs", "only a selector (-l) or a POD name is allowed")),
            [word] => (word.clone(), None),
            [word, container] => (word.clone(), Some(container.clone())),
            _ => return Err(errors::usage("logs", usage)),
        };
        container = container.or_else(|| self.container.clone());
        if self.all_containers && container.is_some() {
            bail!("--all-containers=true should not be specified with container name {}", container.unwrap_or_default());
        }
        if self.tail < -1 {
            bail!("--tail must be greater than or equal to -1");
        }
        let since = crate::duration::parse(&self.since).map_err(|e| anyhow!("{e}"))?;
        if self.since_time.is_some() && !since.is_zero() {
            bail!("at most one of `sinceTime` or `sinceSeconds` may be specified");
        }
        if let Some(time) = self.since_time.as_deref().filter(|t| t.parse::<jiff::Timestamp>().is_err()) {
            let year = time.chars().take(4).all(|c| c.is_ascii_digit());
            let (rest, part) = if year { (time, "-") } else { (time, "2006") };
            bail!("parsing time {time:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {rest:?} as {part:?}");
        }
        if self.limit_bytes < 0 {
            bail!("--limit-bytes must be greater than 0");
        }
        let limit = pods::running_timeout(&self.pod_running_timeout)?;
        let found = if by_selector {
            pods::by_selector(ctx, Some(&ctx.namespace()?), self.selector.as_deref().unwrap_or_default()).await?
        } else if self.all_pods {
            pods::find_all(ctx, &word, Purpose::Logs, limit).await?
        } else {
            vec![pods::find(ctx, &word, Purpose::Logs, limit).await.map_err(|error| self.absent(ctx, error))?]
        };
        if found.is_empty() {
            eprintln!("No resources found in {} namespace.", ctx.namespace()?);
            return Ok(());
        }
        let parameters = self.parameters(since, by_selector);
        let mut sources = Vec::new();
        for pod in &found {
            sources.extend(self.sources(pod, container.as_deref(), &parameters)?);
        }
        if self.follow && sources.len() <= self.max_log_requests && !self.previous && std::io::stdout().is_terminal() {
            let collection = pods::kind().collection(Some(&ctx.namespace()?));
            let selector = self.selector.as_deref().unwrap_or_default();
            let joining = by_selector.then_some(follow::Joining { collection, selector, container: container.as_deref(), parameters: &parameters });
            return follow::all(ctx, self, sources, joining).await;
        }
        if self.follow && sources.len() > 1 {
            if sources.len() > self.max_log_requests {
                bail!(
                    "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
                    sources.len(),
                    self.max_log_requests
                );
            }
            return self.follow_all(ctx, sources).await;
        }
        for source in &sources {
            if let Err(error) = copy(ctx, source, false).await {
                if !self.ignore_errors {
                    return Err(error);
                }
                print::emit(&format!("error: {error}\n"))?;
            }
        }
        Ok(())
    }

    /// Upstream says where it looked in vain.
    fn absent(&self, ctx: &Ctx, error: anyhow::Error) -> anyhow::Error {
        if !errors::is_not_found(&error) {
            return error;
        }
        anyhow!("error from server (NotFound): {error} in namespace {:?}", ctx.namespace().unwrap_or_default())
    }

    fn parameters(&self, since: Duration, by_selector: bool) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        for (name, on) in [
            ("follow", self.follow),
            ("previous", self.previous),
            ("timestamps", self.timestamps),
            ("insecureSkipTLSVerifyBackend", self.insecure_skip_tls_verify_backend),
        ] {
            if on {
                pairs.push((name, "true".to_owned()));
            }
        }
        if let Some(time) = &self.since_time {
            pairs.push(("sinceTime", time.clone()));
        }
        if !since.is_zero() {
            // A part of a second still counts as one.
            pairs.push(("sinceSeconds", since.as_secs_f64().ceil().to_string()));
        }
        match self.tail {
            -1 if by_selector && !self.all_pods => pairs.push(("tailLines", "10".to_owned())),
            -1 => {}
            lines => pairs.push(("tailLines", lines.to_string())),
        }
        if self.limit_bytes > 0 {
            pairs.push(("limitBytes", self.limit_bytes.to_string()));
        }
        pairs
    }

    fn sources(&self, pod: &Info, container: Option<&str>, parameters: &[(&'static str, String)]) -> Result<Vec<Source>> {
        let names = if self.all_containers {
            let spec = &pod.object["spec"];
            let of = |field: &str| {
                spec[field].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str().map(ToOwned::to_owned)).collect::<Vec<_>>()
            };
            [of("initContainers"), of("containers"), of("ephemeralContainers")].concat()
        } else {
            match container {
                Some(name) => vec![pods::container(&pods::typed(pod)?, Some(name), false)?],
                None => vec![pods::container(&pods::typed(pod)?, None, false)?],
            }
        };
        let source = |name: String| {
            let mut pairs = vec![("container", name.clone())];
            pairs.extend_from_slice(parameters);
            let prefix = if self.prefix || self.all_pods { format!("[pod/{}/{name}] ", pod.name) } else { String::new() };
            let path = with_query(&format!("{}/log", pod.path()), &query_string(&pairs));
            Source { pod: pod.clone(), container: name, path, prefix }
        };
        Ok(names.into_iter().map(source).collect())
    }

    async fn follow_all(&self, ctx: &Ctx, sources: Vec<Source>) -> Result<()> {
        let mut running: FuturesUnordered<_> = sources.iter().map(|s| copy(ctx, s, true)).collect();
        while let Some(ended) = running.next().await {
            if let Err(error) = ended {
                if !self.ignore_errors {
                    return Err(error);
                }
                print::emit(&format!("error: {error}\n"))?;
            }
        }
        Ok(())
    }
}

/// Copies one log to stdout; whole lines at a time when others write there too.
async fn copy(ctx: &Ctx, source: &Source, shared: bool) -> Result<()> {
    let mut response = ctx.client().await?.stream(&source.path, "*/*").await?;
    if source.prefix.is_empty() && !shared {
        while let Some(bytes) = response.chunk().await? {
            write(&bytes)?;
        }
        return Ok(());
    }
    let mut lines = Lines::default();
    while let Some(bytes) = response.chunk().await? {
        lines.push(&bytes);
        while let Some(line) = lines.next_line() {
            write(&[source.prefix.as_bytes(), &line].concat())?;
        }
    }
    let rest = lines.rest();
    if !rest.is_empty() {
        write(&[source.prefix.as_bytes(), &rest].concat())?;
    }
    Ok(())
}

fn write(bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}
