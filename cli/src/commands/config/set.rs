//! `config set-*`, `use-context`, `delete-*`: changing.

use anyhow::{Result, anyhow, bail};
use base64::Engine;
use serde_json::{Map, Value, json};

use super::file::{File, default_path, holding, holding_current, inner, merged};
use crate::app::Ctx;
use crate::client::config;
use crate::errors;
use crate::outln;

/// Set the current-context in a kubeconfig file
#[derive(Debug, clap::Args)]
pub struct UseContext {
    /// CONTEXT_NAME
    #[arg(value_name = "CONTEXT_NAME", add = crate::commands::complete::contexts())]
    pub names: Vec<String>,
}

/// Rename a context from the kubeconfig file
#[derive(Debug, clap::Args)]
pub struct RenameContext {
    /// CONTEXT_NAME NEW_NAME
    #[arg(value_name = "NAME", add = crate::commands::complete::contexts())]
    pub names: Vec<String>,
}

/// Set a context entry in kubeconfig
#[derive(Debug, clap::Args)]
pub struct SetContext {
    /// NAME
    #[arg(value_name = "NAME", add = crate::commands::complete::contexts())]
    pub names: Vec<String>,
    /// Modify the current context
    #[arg(long)]
    pub current: bool,
}

/// Set a cluster entry in kubeconfig
#[derive(Debug, clap::Args)]
pub struct SetCluster {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// embed-certs for the cluster entry in kubeconfig
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub embed_certs: Option<bool>,
    /// proxy-url for the cluster entry in kubeconfig
    #[arg(long)]
    pub proxy_url: Option<String>,
}

/// Set a user entry in kubeconfig
#[derive(Debug, clap::Args)]
pub struct SetCredentials {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Embed client cert/key for the user entry in kubeconfig
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub embed_certs: Option<bool>,
    /// Auth provider for the user entry in kubeconfig
    #[arg(long)]
    pub auth_provider: Option<String>,
    /// 'key=value' arguments for the auth provider
    #[arg(long)]
    pub auth_provider_arg: Vec<String>,
    /// Command for the exec credential plugin for the user entry in kubeconfig
    #[arg(long)]
    pub exec_command: Option<String>,
    /// API version of the exec credential plugin for the user entry in kubeconfig
    #[arg(long)]
    pub exec_api_version: Option<String>,
    /// New arguments for the exec credential plugin command for the user entry in kubeconfig
    #[arg(long)]
    pub exec_arg: Vec<String>,
    /// 'key=value' environment values for the exec credential plugin
    #[arg(long)]
    pub exec_env: Vec<String>,
}

/// Set an individual value in a kubeconfig file
#[derive(Debug, clap::Args)]
pub struct Set {
    /// PROPERTY_NAME PROPERTY_VALUE
    #[arg(value_name = "PROPERTY_NAME PROPERTY_VALUE")]
    pub args: Vec<String>,
    /// When writing a []byte PROPERTY_VALUE, write the given string directly without base64 decoding
    #[arg(long)]
    pub set_raw_bytes: bool,
}

/// Unset an individual value in a kubeconfig file
#[derive(Debug, clap::Args)]
pub struct Unset {
    /// PROPERTY_NAME
    #[arg(value_name = "PROPERTY_NAME")]
    pub args: Vec<String>,
}

/// The flags of the commands that delete.
#[derive(Debug, clap::Args)]
pub struct DeleteArgs {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

fn one<'a>(names: &'a [String], command: &str) -> Result<&'a str> {
    match names {
        [name] if !name.is_empty() => Ok(name),
        _ => Err(errors::usage(&format!("config {command}"), format!("Unexpected args: {names:?}"))),
    }
}

/// Makes a context the current one.
pub fn use_context(ctx: &Ctx, name: &str) -> Result<()> {
    let known = merged(ctx)?["contexts"].as_array().into_iter().flatten().any(|c| c["name"] == name);
    if !known {
        bail!("no context exists with the name: {name:?}");
    }
    let mut file = holding_current(ctx)?;
    file.value["current-context"] = json!(name);
    file.write()
}

/// Sets the namespace of the current context, and returns the context's name.
pub fn set_namespace(ctx: &Ctx, namespace: &str) -> Result<String> {
    let name = current_name(ctx)?;
    let mut file = holding(ctx, "contexts", &name)?;
    file.entry_mut("contexts", &name)["namespace"] = json!(namespace);
    file.write()?;
    Ok(name)
}

fn current_name(ctx: &Ctx) -> Result<String> {
    let current = ctx.global.context.clone().or_else(|| merged(ctx).ok()?["current-context"].as_str().map(ToOwned::to_owned));
    current.filter(|c| !c.is_empty()).ok_or_else(|| anyhow!("no current context is set"))
}

impl UseContext {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one(&self.names, "use-context")?;
        use_context(ctx, name)?;
        outln!("Switched to context {name:?}.");
        Ok(())
    }
}

impl RenameContext {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let [old, new] = self.names.as_slice() else {
            return Err(errors::usage("config rename-context", format!("Unexpected args: {:?}", self.names)));
        };
        let mut file = holding(ctx, "contexts", old)?;
        if file.entry("contexts", old).is_none() {
            bail!("cannot rename the context {old:?}, it's not in {}", file.path.display());
        }
        if merged(ctx)?["contexts"].as_array().into_iter().flatten().any(|c| c["name"] == new.as_str()) {
            bail!("cannot rename the context {old:?}, the context {new:?} already exists in {}", file.path.display());
        }
        if let Some(entry) = file.value["contexts"].as_array_mut().and_then(|l| l.iter_mut().find(|c| c["name"] == old.as_str())) {
            entry["name"] = json!(new);
        }
        file.write()?;
        let mut current = holding_current(ctx)?;
        if current.value["current-context"] == old.as_str() {
            current.value["current-context"] = json!(new);
            current.write()?;
        }
        outln!("Context {old:?} renamed to {new:?}.");
        Ok(())
    }
}

impl SetContext {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = match (self.current, self.names.as_slice()) {
            (true, []) => current_name(ctx)?,
            (true, _) => bail!("you cannot specify both a context name and --current"),
            (false, []) => bail!("you must specify a non-empty context name or --current"),
            (false, names) => one(names, "set-context")?.to_owned(),
        };
        let mut file = holding(ctx, "contexts", &name)?;
        let existed = file.entry("contexts", &name).is_some();
        let settings = file.entry_mut("contexts", &name);
        // The flags are those every command takes; here they are what to write.
        for (field, value) in [("cluster", &ctx.global.cluster), ("user", &ctx.global.user), ("namespace", &ctx.global.namespace)] {
            put(settings, field, value.as_deref());
        }
        if !existed {
            for field in ["cluster", "user"] {
                if settings[field].is_null() {
                    settings[field] = json!("");
                }
            }
        }
        file.write()?;
        outln!("Context {name:?} {}.", if existed { "modified" } else { "created" });
        Ok(())
    }
}

/// Sets a field that was given; an empty value removes it.
fn put(settings: &mut Value, field: &str, value: Option<&str>) {
    let Some(map) = settings.as_object_mut() else { return };
    match value {
        None => {}
        Some("") => {
            map.remove(field);
        }
        Some(text) => {
            map.insert(field.to_owned(), json!(text));
        }
    }
}

/// A file named by a flag: its path, or its content where it is to be embedded.
fn put_file(settings: &mut Value, field: &str, path: Option<&str>, embed: Option<bool>, config: &std::path::Path) -> Result<()> {
    let data = format!("{field}-data");
    match path {
        None => Ok(()),
        Some(path) if embed == Some(true) => {
            std::fs::metadata(path).map_err(|e| anyhow!("could not stat {field} file {path}: {}", errors::io("stat", path, &e)))?;
            let bytes = std::fs::read(path).map_err(|e| anyhow!("could not read {field} data from {path}: {}", errors::reason(&e)))?;
            put(settings, field, Some(""));
            put(settings, &data, Some(&base64::engine::general_purpose::STANDARD.encode(bytes)));
            Ok(())
        }
        Some(path) => {
            let absolute = std::path::absolute(path)?;
            // What lies beside the configuration moves with it.
            let beside = std::path::absolute(config)?.parent().and_then(|d| absolute.strip_prefix(d).ok().map(std::path::Path::to_owned));
            put(settings, field, Some(&beside.unwrap_or(absolute).display().to_string()));
            put(settings, &data, Some(""));
            Ok(())
        }
    }
}

impl SetCluster {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one(&self.names, "set-cluster")?;
        let global = &ctx.global;
        if global.insecure_skip_tls_verify && global.certificate_authority.is_some() {
            bail!("you cannot specify a certificate authority and insecure mode at the same time");
        }
        let mut file = holding(ctx, "clusters", name)?;
        let path = file.path.clone();
        let settings = file.entry_mut("clusters", name);
        put(settings, "server", global.server.as_deref());
        put(settings, "tls-server-name", global.tls_server_name.as_deref());
        put(settings, "proxy-url", self.proxy_url.as_deref());
        if global.insecure_skip_tls_verify {
            settings["insecure-skip-tls-verify"] = json!(true);
            put(settings, "certificate-authority", Some(""));
            put(settings, "certificate-authority-data", Some(""));
        }
        if global.certificate_authority.is_some() {
            put_file(settings, "certificate-authority", global.certificate_authority.as_deref(), self.embed_certs, &path)?;
            put(settings, "insecure-skip-tls-verify", Some(""));
        }
        file.write()?;
        outln!("Cluster {name:?} set.");
        Ok(())
    }
}

impl SetCredentials {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one(&self.names, "set-credentials")?;
        let global = &ctx.global;
        if global.token.is_some() && (global.username.is_some() || global.password.is_some()) {
            bail!("you cannot specify more than one authentication method at the same time: --token, --username/--password");
        }
        let mut file = holding(ctx, "users", name)?;
        let path = file.path.clone();
        let settings = file.entry_mut("users", name);
        put_file(settings, "client-certificate", global.client_certificate.as_deref(), self.embed_certs, &path)?;
        put_file(settings, "client-key", global.client_key.as_deref(), self.embed_certs, &path)?;
        if global.token.is_some() {
            put(settings, "token", global.token.as_deref());
            put(settings, "username", Some(""));
            put(settings, "password", Some(""));
        }
        if global.username.is_some() || global.password.is_some() {
            put(settings, "username", global.username.as_deref());
            put(settings, "password", global.password.as_deref());
            put(settings, "token", Some(""));
        }
        if let Some(provider) = &self.auth_provider {
            settings["auth-provider"]["name"] = json!(provider);
        }
        for argument in &self.auth_provider_arg {
            let (key, value) = argument.split_once('=').ok_or_else(|| anyhow!("invalid --auth-provider-arg {argument:?}: expected key=value"))?;
            settings["auth-provider"]["config"][key] = json!(value);
        }
        self.exec(settings)?;
        file.write()?;
        outln!("User {name:?} set.");
        Ok(())
    }

    fn exec(&self, settings: &mut Value) -> Result<()> {
        if let Some(command) = &self.exec_command {
            settings["exec"]["command"] = json!(command);
            settings["exec"]["provideClusterInfo"] = json!(false);
        }
        if let Some(version) = &self.exec_api_version {
            settings["exec"]["apiVersion"] = json!(version);
        }
        if !self.exec_arg.is_empty() {
            settings["exec"]["args"] = json!(self.exec_arg);
        }
        for pair in &self.exec_env {
            let (key, value) = pair.split_once('=').ok_or_else(|| anyhow!("invalid --exec-env {pair:?}: expected key=value"))?;
            let mut env = settings["exec"]["env"].as_array().cloned().unwrap_or_default();
            env.retain(|e| e["name"] != key);
            env.push(json!({ "name": key, "value": value }));
            settings["exec"]["env"] = Value::Array(env);
        }
        Ok(())
    }
}

/// The fields a kubeconfig has beside its lists.
const FIELDS: &[&str] = &["kind", "apiVersion", "current-context", "preferences", "extensions", "clusters", "contexts", "users"];

/// `users.x.token`: a list, a name that may hold dots, and a field; or a field of the whole.
fn property<'a>(file: &File, name: &'a str) -> Result<(Option<&'static str>, &'a str, Vec<&'a str>)> {
    let head = name.split('.').next().unwrap_or(name);
    if !FIELDS.contains(&head) {
        bail!("unable to parse {name} after [] at api.Config");
    }
    let Some((head, rest)) = name.split_once('.') else { return Ok((None, "", vec![name])) };
    let list = match head {
        "clusters" => "clusters",
        "contexts" => "contexts",
        "users" => "users",
        _ => return Ok((None, "", name.split('.').collect())),
    };
    // The longest known name wins, as names may hold dots.
    let known = file.value[list].as_array().into_iter().flatten().filter_map(|e| e["name"].as_str());
    let best = known.filter(|k| rest == *k || rest.starts_with(&format!("{k}."))).map(str::len).max();
    let length = best.unwrap_or_else(|| rest.find('.').unwrap_or(rest.len()));
    let (entry, fields) = rest.split_at(length);
    Ok((Some(list), entry, fields.trim_start_matches('.').split('.').filter(|f| !f.is_empty()).collect()))
}

fn target(ctx: &Ctx, name: &str) -> Result<File> {
    let files = config::files(&ctx.global);
    for path in &files {
        let file = File::read(path)?;
        if let (Some(list), entry, _) = property(&file, name)?
            && file.entry(list, entry).is_some()
        {
            return Ok(file);
        }
    }
    if name == "current-context" { holding_current(ctx) } else { File::read(&default_path(&files)) }
}

impl Set {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let [name, value] = self.args.as_slice() else { return Err(errors::usage("config set", format!("unexpected args: {:?}", self.args))) };
        let mut file = target(ctx, name)?;
        let (list, entry, fields) = property(&file, name)?;
        let Some((last, path)) = fields.split_last() else { bail!("{name:?} names an entry: a field of it must be given") };
        let value = if last.ends_with("-data") {
            if self.set_raw_bytes {
                json!(base64::engine::general_purpose::STANDARD.encode(value))
            } else {
                base64::engine::general_purpose::STANDARD.decode(value).map_err(|e| anyhow!("error decoding input value: {e}"))?;
                json!(value)
            }
        } else {
            match value.as_str() {
                "true" | "false" => json!(value == "true"),
                text => json!(text),
            }
        };
        let mut slot: &mut Value = match list {
            Some(list) => file.entry_mut(list, entry),
            None => &mut file.value,
        };
        for field in path {
            slot = &mut slot[*field];
        }
        slot[*last] = value;
        if list == Some("contexts") && !slot.is_null() {
            for field in ["cluster", "user"] {
                if slot[field].is_null() {
                    slot[field] = json!("");
                }
            }
        }
        file.write()?;
        outln!("Property {name:?} set.");
        Ok(())
    }
}

impl Unset {
    pub(super) fn run(&self, ctx: &Ctx) -> Result<()> {
        let [name] = self.args.as_slice() else { return Err(errors::usage("config unset", format!("unexpected args: {:?}", self.args))) };
        let mut file = target(ctx, name)?;
        let (list, entry, fields) = property(&file, name)?;
        match (list, fields.split_last()) {
            (Some(list), None) => {
                file.remove(list, entry);
            }
            (None, Some((&"current-context", []))) => file.value["current-context"] = json!(""),
            (list, Some((last, path))) => {
                let mut slot: Option<&mut Value> = match list {
                    Some(list) => {
                        let field = inner(list);
                        file.value[list].as_array_mut().and_then(|l| l.iter_mut().find(|e| e["name"] == entry)).map(|e| &mut e[field])
                    }
                    None => Some(&mut file.value),
                };
                for field in path {
                    slot = slot.and_then(|s| s.get_mut(*field));
                }
                if let Some(map) = slot.and_then(Value::as_object_mut) {
                    let map: &mut Map<String, Value> = map;
                    map.remove(*last);
                }
            }
            (None, None) => {}
        }
        file.write()?;
        outln!("Property {name:?} unset.");
        Ok(())
    }
}

impl DeleteArgs {
    pub(super) fn run(&self, ctx: &Ctx, list: &'static str) -> Result<()> {
        let what = inner(list);
        let name = one(&self.names, &format!("delete-{what}"))?;
        let mut file = holding(ctx, list, name)?;
        let was_current = list == "contexts" && merged(ctx)?["current-context"] == name;
        if !file.remove(list, name) {
            bail!("cannot delete {what} {name}, not in {}", file.path.display());
        }
        file.write()?;
        if was_current {
            eprintln!("warning: this removed your active context, use \"kctl config use-context\" to select a different one");
        }
        outln!("deleted {what} {name} from {}", file.path.display());
        Ok(())
    }
}
