//! `kuberc set`

use anyhow::{Result, anyhow, bail};

use crate::app::Ctx;
use crate::errors;
use crate::kuberc::{self, Alias, Allowed, Defaults, Flag, Preference};

/// Set values in the kuberc configuration file
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Section to modify: 'defaults', 'aliases', or 'credentialplugin'
    #[arg(long, required = true)]
    pub section: String,
    /// Command to configure (e.g., 'get', 'create', 'set env')
    #[arg(long, default_value = "")]
    pub command: String,
    /// Alias name (required for --section=aliases)
    #[arg(long, default_value = "")]
    pub name: String,
    /// Flag option in the form flag=value (can be specified multiple times)
    #[arg(long, value_name = "FLAG=VALUE")]
    pub option: Vec<String>,
    /// Argument to prepend to the command (can be specified multiple times, for aliases only)
    #[arg(long)]
    pub prependarg: Vec<String>,
    /// Argument to append to the command (can be specified multiple times, for aliases only)
    #[arg(long)]
    pub appendarg: Vec<String>,
    /// Plugin policy to use for exec credential plugins, must be one of 'AllowAll', 'DenyAll' or 'Allowlist'
    #[arg(long, default_value = "")]
    pub policy: String,
    /// Allowlist entry the form field=value (can be specified multiple times)
    #[arg(long, value_name = "FIELD=VALUE")]
    pub allowlist_entry: Vec<String>,
    /// Allow overwriting existing entries
    #[arg(long)]
    pub overwrite: bool,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let Some((file, _)) = kuberc::path(ctx.global.kuberc.as_deref())? else { bail!("KUBERC is disabled via KUBERC=off environment variable") };
        self.check()?;
        let mut preference = if file.exists() { kuberc::read(&file)?.unwrap_or_else(Preference::empty) } else { Preference::empty() };
        let options = self.options()?;
        match self.section.as_str() {
            "defaults" => self.set_defaults(&mut preference, options)?,
            "aliases" => self.set_alias(&mut preference, options)?,
            _ => {
                if self.policy == "Allowlist" {
                    preference.credential_plugin_allowlist = Some(self.allowed()?);
                }
                preference.credential_plugin_policy.clone_from(&self.policy);
            }
        }
        preference.write(&file)
    }

    fn check(&self) -> Result<()> {
        match self.section.as_str() {
            "aliases" if self.name.is_empty() => bail!("--name is required when --section=aliases"),
            "defaults" if !self.name.is_empty() => bail!("--name should not be specified when --section=defaults"),
            "defaults" if !self.prependarg.is_empty() || !self.appendarg.is_empty() => {
                bail!("--prependarg and --appendarg are only valid for --section=aliases")
            }
            "defaults" | "aliases" if self.command.is_empty() => bail!("--command is required when --section=aliases or --section=defaults"),
            "defaults" | "aliases" => Ok(()),
            "credentialplugin" => match self.policy.as_str() {
                "" => bail!("--policy is required when --section=credentialplugin"),
                "AllowAll" | "DenyAll" if !self.allowlist_entry.is_empty() => {
                    bail!("--allowlist-entry may only be used when --section=credentialplugin and --policy=Allowlist")
                }
                "Allowlist" if self.allowlist_entry.is_empty() => {
                    bail!("--allowlist-entry is required when --section=credentialplugin and --policy=Allowlist")
                }
                "AllowAll" | "DenyAll" | "Allowlist" => Ok(()),
                other => bail!(" --policy must be  \"AllowAll\", \"DenyAll\", or \"Allowlist\", got: {other}"),
            },
            other => bail!("--section must be \"defaults\", \"aliases\", or \"credentialplugin\", got: {other}"),
        }
    }

    fn options(&self) -> Result<Vec<Flag>> {
        let flag = |text: &String| match text.split_once('=') {
            Some((name, value)) => Ok(Flag { name: name.trim_start_matches('-').to_owned(), default: value.to_owned() }),
            None => Err(anyhow!("invalid option format {text:?}, expected flag=value")),
        };
        self.option.iter().map(flag).collect()
    }

    /// What is not given anew stays as it was.
    fn set_defaults(&self, preference: &mut Preference, options: Vec<Flag>) -> Result<()> {
        match preference.defaults.iter_mut().find(|d| d.command == self.command) {
            Some(_) if !self.overwrite => bail!("defaults for command {:?} already exist, use --overwrite to replace", self.command),
            Some(_) if options.is_empty() => {}
            Some(defaults) => defaults.options = options,
            None => preference.defaults.push(Defaults { command: self.command.clone(), options }),
        }
        Ok(())
    }

    fn set_alias(&self, preference: &mut Preference, options: Vec<Flag>) -> Result<()> {
        let existing = preference.aliases.iter().position(|a| a.name == self.name);
        if existing.is_some() && !self.overwrite {
            bail!("alias {:?} already exists, use --overwrite to replace", self.name);
        }
        let old = existing.map(|at| preference.aliases[at].clone()).unwrap_or_default();
        let or = |new: &[String], old: Vec<String>| if new.is_empty() { old } else { new.to_vec() };
        let alias = Alias {
            name: self.name.clone(),
            command: self.command.clone(),
            prepend_args: or(&self.prependarg, old.prepend_args),
            append_args: or(&self.appendarg, old.append_args),
            options: if options.is_empty() { old.options } else { options },
        };
        match existing {
            Some(at) => preference.aliases[at] = alias,
            None => preference.aliases.push(alias),
        }
        Ok(())
    }

    fn allowed(&self) -> Result<Vec<Allowed>> {
        let (mut entries, mut failures) = (Vec::new(), Vec::new());
        for pair in self.allowlist_entry.iter().flat_map(|entry| entry.split(',')) {
            match pair.split_once('=') {
                None => failures.push(anyhow!("improperly formatted allowlist entry: {pair:?}")),
                Some(("name", _)) => failures.push(anyhow!("allowlist entry field \"name\" is deprecated, use \"command\" instead")),
                Some(("command", value)) if value.trim().is_empty() => failures.push(anyhow!("empty value in allowlist entry for field \"command\"")),
                Some(("command", value)) => entries.push(Allowed { command: value.to_owned(), name: String::new() }),
                Some((field, _)) => failures.push(anyhow!("unrecognized allowlist entry field: {field:?}")),
            }
        }
        errors::collect(failures)?;
        Ok(entries)
    }
}
