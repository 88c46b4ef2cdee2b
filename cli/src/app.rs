//! The command line as a whole: global flags, the clap tree, and what every command is given to work with.

use std::cell::{OnceCell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::client::{Client, Settings, config};
use crate::commands;
use crate::discovery::{Discovery, Kind};

/// A parsed command line.
#[derive(Debug)]
pub struct App {
    /// Flags of every command.
    pub global: Global,
    /// What to do.
    pub command: commands::Command,
}

impl App {
    /// From what clap understood of the arguments.
    pub fn from_arg_matches(matches: &ArgMatches) -> Result<App, clap::Error> {
        Ok(App { global: Global::from_arg_matches(matches)?, command: commands::Command::from_arg_matches(matches)? })
    }
}

/// kctl controls the Kubernetes cluster.
#[derive(Debug, Parser)]
#[command(name = "kctl", disable_version_flag = true, disable_help_subcommand = false, infer_subcommands = false, max_term_width = 110)]
#[command(
    after_help = "Use \"kctl <command> --help\" for more information about a given command.\nUse \"kctl options\" for a list of global command-line options (applies to all commands)."
)]
struct Root {
    /// Flags of every command.
    #[command(flatten)]
    global: Global,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// If present, the namespace scope for this CLI request
    #[arg(short = 'n', long, global = true, hide_short_help = true)]
    pub namespace: Option<String>,
    /// The name of the kubeconfig context to use
    #[arg(long, global = true, hide_short_help = true)]
    pub context: Option<String>,
    /// The name of the kubeconfig cluster to use
    #[arg(long, global = true, hide_short_help = true)]
    pub cluster: Option<String>,
    /// The name of the kubeconfig user to use
    #[arg(long, global = true, hide_short_help = true)]
    pub user: Option<String>,
    /// Path to the kubeconfig file to use for CLI requests
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub kubeconfig: Option<String>,
    /// The address and port of the Kubernetes API server
    #[arg(short = 's', long, global = true, hide_short_help = true)]
    pub server: Option<String>,
    /// Bearer token for authentication to the API server
    #[arg(long, global = true, hide_short_help = true)]
    pub token: Option<String>,
    /// Username for basic authentication to the API server
    #[arg(long, global = true, hide_short_help = true)]
    pub username: Option<String>,
    /// Password for basic authentication to the API server
    #[arg(long, global = true, hide_short_help = true)]
    pub password: Option<String>,
    /// Path to a cert file for the certificate authority
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub certificate_authority: Option<String>,
    /// Path to a client certificate file for TLS
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub client_certificate: Option<String>,
    /// Path to a client key file for TLS
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub client_key: Option<String>,
    /// If true, the server's certificate will not be checked for validity
    #[arg(long, global = true, hide_short_help = true)]
    pub insecure_skip_tls_verify: bool,
    /// Server name to use for server certificate validation
    #[arg(long, global = true, hide_short_help = true)]
    pub tls_server_name: Option<String>,
    /// Username to impersonate for the operation
    #[arg(long = "as", global = true, hide_short_help = true, value_name = "USER")]
    pub as_user: Option<String>,
    /// Group to impersonate for the operation, this flag can be repeated to specify multiple groups
    #[arg(long, global = true, hide_short_help = true, value_name = "GROUP")]
    pub as_group: Vec<String>,
    /// UID to impersonate for the operation
    #[arg(long, global = true, hide_short_help = true, value_name = "UID")]
    pub as_uid: Option<String>,
    /// User extras to impersonate for the operation, this flag can be repeated
    #[arg(long, global = true, hide_short_help = true, value_name = "KEY=VALUE")]
    pub as_user_extra: Vec<String>,
    /// The length of time to wait before giving up on a single server request
    #[arg(long, global = true, hide_short_help = true, value_name = "DURATION")]
    pub request_timeout: Option<String>,
    /// Path to the kuberc file to use for preferences; KUBERC=off turns them off
    #[arg(long, global = true, hide_short_help = true, value_name = "FILE")]
    pub kuberc: Option<String>,
    /// Default cache directory
    #[arg(long, global = true, hide_short_help = true, value_name = "DIR")]
    pub cache_dir: Option<String>,
    /// Number for the log level verbosity
    #[arg(short = 'v', long = "v", global = true, hide_short_help = true, default_value_t = 0, value_name = "LEVEL")]
    pub verbosity: u8,
    /// Treat warnings received from the server as errors and exit with a non-zero exit code
    #[arg(long, global = true, hide_short_help = true)]
    pub warnings_as_errors: bool,
    /// Require server version to match client version
    #[arg(long, global = true, hide = true)]
    pub match_server_version: bool,
    /// Accepted for scripts that give it; kctl profiles nothing
    #[arg(long, global = true, hide = true)]
    pub profile: Option<String>,
    /// Accepted for scripts that give it; kctl profiles nothing
    #[arg(long, global = true, hide = true)]
    pub profile_output: Option<String>,
    /// Accepted for scripts that give it; kctl buffers no log
    #[arg(long, global = true, hide = true, value_parser = crate::duration::checked)]
    pub log_flush_frequency: Option<String>,
    /// What the kuberc file says.
    #[arg(skip)]
    pub preference: Option<crate::kuberc::Preference>,
    /// If true, opt-out of response compression for all requests to the server
    #[arg(long, global = true, hide = true)]
    pub disable_compression: bool,
}

/// The clap tree with pflag's habits: `--flag=false`, values that start with a dash, a repeated flag's last value wins.
pub fn command() -> Command {
    whole(commands::Command::augment_subcommands(Root::command()))
}

/// The clap tree with only the command of that name: enough to run it, and quicker to build.
pub fn command_named(name: &str) -> Option<Command> {
    commands::Command::augment_named(Root::command(), name).map(whole)
}

/// The root with no subcommands.
pub fn root() -> Command {
    Root::command()
}

fn whole(root: Command) -> Command {
    like_pflag(root.subcommand_required(true).arg_required_else_help(true))
}

fn like_pflag(command: Command) -> Command {
    command.args_override_self(true).mut_args(relax).mut_subcommands(like_pflag)
}

fn relax(arg: Arg) -> Arg {
    if arg.is_positional() {
        return arg;
    }
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_parser(go_bool)
            .hide_default_value(true)
            .value_name("true|false")
            .hide_possible_values(true),
        ArgAction::Set | ArgAction::Append if !arg.is_require_equals_set() => arg.allow_hyphen_values(true),
        _ => arg,
    }
}

/// Go's `strconv.ParseBool`.
fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")),
    }
}

/// What a command works with; nothing is read or connected before it is asked for.
pub struct Ctx {
    /// The global flags.
    pub global: Global,
    settings: OnceCell<Settings>,
    client: tokio::sync::OnceCell<Client>,
    discovery: RefCell<Option<Rc<Discovery>>>,
}

impl Ctx {
    /// For one run.
    pub fn new(global: Global) -> Ctx {
        Ctx { global, settings: OnceCell::new(), client: tokio::sync::OnceCell::new(), discovery: RefCell::new(None) }
    }

    /// The connection's settings.
    pub fn settings(&self) -> Result<&Settings> {
        if self.settings.get().is_none() {
            let loaded = config::load(&self.global)?;
            return Ok(self.settings.get_or_init(|| loaded));
        }
        Ok(self.settings.get_or_init(Settings::default))
    }

    /// The connection.
    pub async fn client(&self) -> Result<&Client> {
        self.client.get_or_try_init(|| async { Client::new(self.settings()?.clone(), self.global.verbosity).await }).await
    }

    /// The namespace to work in.
    pub fn namespace(&self) -> Result<String> {
        Ok(self.settings()?.namespace.clone())
    }

    /// Where caches live.
    pub fn cache_dir(&self) -> PathBuf {
        match (&self.global.cache_dir, std::env::var_os("KUBECACHEDIR").filter(|d| !d.is_empty())) {
            (Some(directory), _) => PathBuf::from(directory),
            (None, Some(directory)) => PathBuf::from(directory),
            (None, None) => config::home().join(".kube/cache"),
        }
    }

    /// The server's kinds, from the cache when it is recent.
    pub async fn discovery(&self) -> Result<Rc<Discovery>> {
        if let Some(found) = self.discovery.borrow().as_ref() {
            return Ok(found.clone());
        }
        let loaded = Rc::new(Discovery::load(self.client().await?, &self.cache_dir()).await?);
        *self.discovery.borrow_mut() = Some(loaded.clone());
        Ok(loaded)
    }

    /// The server's kinds, asked for anew.
    pub async fn fresh_discovery(&self) -> Result<Rc<Discovery>> {
        if let Some(found) = self.discovery.borrow().as_ref().filter(|d| d.is_fresh()) {
            return Ok(found.clone());
        }
        let loaded = Rc::new(Discovery::fetch(self.client().await?, &self.cache_dir()).await?);
        *self.discovery.borrow_mut() = Some(loaded.clone());
        Ok(loaded)
    }

    /// The kind a word names; the server is asked again before a word is given up on.
    pub async fn kind(&self, word: &str) -> Result<Rc<Kind>> {
        if let Some(kind) = self.discovery().await?.find(word) {
            return Ok(kind);
        }
        let fresh = self.fresh_discovery().await?;
        fresh.find(word).ok_or_else(|| {
            let near = fresh.suggestions(word);
            if let Some(first) = near.first() {
                crate::print::style::hint(&format!("hint: did you mean {first:?}?"));
            }
            crate::discovery::unknown(word)
        })
    }

    /// The kind an object says it is.
    pub async fn kind_of(&self, api_version: &str, kind: &str) -> Result<Option<Rc<Kind>>> {
        if let Some(found) = self.discovery().await?.find_exact(api_version, kind) {
            return Ok(Some(found));
        }
        Ok(self.fresh_discovery().await?.find_exact(api_version, kind))
    }
}
