//! The commands: each is one file, and one line in the list below.

pub mod api_resources;
pub mod apply;
pub mod auth;
pub mod autoscale;
pub mod certificate;
pub mod cluster_info;
pub mod complete;
pub mod completion;
pub mod config;
pub mod cp;
pub mod create;
pub mod ctx;
pub mod debug;
pub mod delete;
pub mod describe;
pub mod diff;
pub mod drain;
pub mod edit;
pub mod events;
pub mod exec;
pub mod explain;
pub mod expose;
pub mod get;
pub mod kuberc;
pub mod kustomize;
pub mod label;
pub mod logs;
pub mod ns;
pub mod options;
pub mod patch;
pub mod plugin;
pub mod pods;
pub mod port_forward;
pub mod proxy;
pub mod replace;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
pub mod taint;
pub mod top;
pub mod tree;
pub mod version;
pub mod wait;
pub mod why;

use anyhow::Result;

use crate::app::Ctx;

/// Makes the clap tree and the dispatch from one list.
macro_rules! commands {
    ($($(#[$meta:meta])* $variant:ident($args:ty)),* $(,)?) => {
        // No doc comment: it would become the program's description.
        #[derive(Debug, clap::Subcommand)]
        #[allow(missing_docs)]
        pub enum Command {
            $($(#[$meta])* $variant(Box<$args>),)*
        }
        impl Command {
            /// Adds the command of that name alone; none when there is no such command.
            pub fn augment_named(root: clap::Command, name: &str) -> Option<clap::Command> {
                $(if is_named(stringify!($variant), name) {
                    return Some(root.subcommand(<$args as clap::Args>::augment_args(clap::Command::new(name.to_owned()))));
                })*
                None
            }
            /// Runs the command.
            pub async fn run(&self, ctx: &Ctx) -> Result<()> {
                match self {
                    $(Command::$variant(args) => args.run(ctx).await,)*
                }
            }
        }
    };
}

/// Whether a command's variant, such as `ApiResources`, is typed `api-resources`.
fn is_named(variant: &str, name: &str) -> bool {
    let mut typed = name.chars();
    for (at, c) in variant.chars().enumerate() {
        if c.is_uppercase() && at > 0 && typed.next() != Some('-') {
            return false;
        }
        if typed.next() != Some(c.to_ascii_lowercase()) {
            return false;
        }
    }
    typed.next().is_none()
}

commands! {
    Create(create::Args),
    Expose(expose::Args),
    Run(run::Args),
    Set(set::Args),
    Explain(explain::Args),
    Get(get::Args),
    Edit(edit::Args),
    Delete(delete::Args),
    Rollout(rollout::Args),
    Scale(scale::Args),
    Autoscale(autoscale::Args),
    Certificate(certificate::Args),
    ClusterInfo(cluster_info::Args),
    Top(top::Args),
    Cordon(drain::Cordon),
    Uncordon(drain::Uncordon),
    Drain(drain::Drain),
    Taint(taint::Args),
    Describe(describe::Args),
    Logs(logs::Args),
    Attach(exec::AttachArgs),
    Exec(exec::ExecArgs),
    PortForward(port_forward::Args),
    Proxy(proxy::Args),
    Cp(cp::Args),
    Auth(auth::Args),
    Debug(debug::Args),
    Events(events::Args),
    Diff(diff::Args),
    Apply(apply::Args),
    Patch(patch::Args),
    Replace(replace::Args),
    Wait(wait::Args),
    Kustomize(kustomize::Args),
    Label(label::LabelArgs),
    Annotate(label::AnnotateArgs),
    Completion(completion::Args),
    ApiResources(api_resources::ResourcesArgs),
    ApiVersions(api_resources::VersionsArgs),
    Config(config::Args),
    Kuberc(kuberc::Args),
    Plugin(plugin::Args),
    Version(version::Args),
    Options(options::Args),
    Why(why::Args),
    Tree(tree::Args),
    Ctx(ctx::Args),
    Ns(ns::Args),
}

impl Command {
    /// Whether `--user` names a subject of this command, not the kubeconfig entry to connect with.
    pub fn takes_user(&self) -> bool {
        match self {
            Command::Create(args) => matches!(args.kind, Some(create::Kind::Rolebinding(_) | create::Kind::Clusterrolebinding(_))),
            Command::Set(args) => matches!(args.what, set::What::Subject(_)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Command;
    use clap::Subcommand;

    #[test]
    fn every_command_can_be_built_alone() {
        let all = Command::augment_subcommands(clap::Command::new("kctl"));
        for command in all.get_subcommands() {
            let alone = Command::augment_named(clap::Command::new("kctl"), command.get_name()).unwrap();
            let help = |command: &clap::Command| command.clone().render_long_help().to_string();
            assert_eq!(help(alone.get_subcommands().next().unwrap()), help(command));
        }
        for none in ["", "Get", "get-", "apiresources", "api-resources-", "api--resources"] {
            assert!(Command::augment_named(clap::Command::new("kctl"), none).is_none(), "{none}");
        }
    }
}
