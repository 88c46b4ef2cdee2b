//! From parsed arguments to a running process: logging, the async runtime, signals, and the way out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::tasks::Tasks;
use crate::up::progress::{Progress, Sink};
use crate::up::{self, Options, cluster, detach, instance::Instance};

/// How long the tasks may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs a short command.
///
/// # Errors
/// The command's.
pub fn block_on(command: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// `kserver up`.
///
/// # Errors
/// The cluster did not come up, or a part of it failed for good.
pub fn up(options: Options, detach: bool, detached_child: bool) -> Result<()> {
    let instance = Instance::new(options.place.data_dir()?);
    if detach {
        // What can be told at once is told in this process, with its exit code.
        cluster::check(&options, &instance)?;
        return detach::run(&instance);
    }
    init_logging(&options)?;
    let progress = Arc::new(Progress::new(if detached_child { Sink::Pipe } else { Sink::Terminal }));
    if detached_child {
        detach::leave_session();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(&options, &instance, &progress));
    if let Err(error) = &outcome {
        progress.failed(format!("{error:#}"));
    }
    // Blocking threads that still wait for a child or a file must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Why the process ends.
enum End {
    /// Ctrl-C: the pods go too.
    Interrupt,
    /// SIGTERM: the pods stay.
    Terminate,
    /// A task panicked.
    Failed(Arc<str>),
}

async fn serve(options: &Options, instance: &Instance, progress: &Progress) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Left to its default, a closed terminal would end the process without a word.
    let mut hangup = signal(SignalKind::hangup())?;
    let tasks = Tasks::new();
    let mut started = None;
    let end = tokio::select! {
        biased;
        _ = interrupt.recv() => End::Interrupt,
        _ = terminate.recv() => End::Terminate,
        _ = hangup.recv() => End::Terminate,
        name = tasks.failed() => End::Failed(name),
        outcome = run(options, instance, &tasks, progress, &mut started) => return Err(match outcome {
            Err(error) => error,
            Ok(never) => match never {},
        }),
    };
    tracing::info!("stopping");
    tasks.shutdown(DRAIN).await;
    if let Some(children) = started.take() {
        tokio::task::spawn_blocking(move || cluster::Children::stop(children)).await?;
    }
    match end {
        End::Interrupt => {
            println!();
            up::down::down(instance).await
        }
        End::Terminate => Ok(()),
        End::Failed(name) => bail!("the task {name} failed; the log says why. Start it again with `kserver up --detach{}`", instance.flag()),
    }
}

/// Starts everything and then waits for ever; the children are handed out as soon as they run, so that they are stopped in order.
async fn run(
    options: &Options,
    instance: &Instance,
    tasks: &Tasks,
    progress: &Progress,
    children: &mut Option<cluster::Children>,
) -> Result<std::convert::Infallible> {
    cluster::start(options, instance, tasks, progress, children).await?;
    std::future::pending().await
}

fn init_logging(options: &Options) -> Result<()> {
    let filter = if options.log_level.contains(['=', ',']) {
        EnvFilter::try_new(&options.log_level)
    } else {
        // Libraries speak up only when something is wrong.
        EnvFilter::try_new(format!("warn,kserver={}", options.log_level))
    };
    let filter = filter.with_context(|| format!("--log-level {:?}", options.log_level))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        up::options::LogFormat::Text => builder.with_ansi(false).init(),
        up::options::LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
