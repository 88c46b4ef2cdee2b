//! One printing layer: every command's stdout goes through here.
//!
//! Owns the output formats of `-o`, tables, colours and the writers. Fetches nothing.

pub mod columns;
pub mod kyaml;
pub mod style;
pub mod table;
pub mod tabwriter;
pub mod template;
pub mod yaml;

use std::io::Write;

use anyhow::{Result, anyhow, bail};
use serde_json::{Value, json};
use shared::jsonpath;

pub use columns::Columns;

/// Writes to stdout; a closed pipe ends the command quietly.
pub fn emit(text: &str) -> Result<()> {
    crate::progress::aside(|| {
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    })
}

/// Writes a line to stdout.
#[macro_export]
macro_rules! outln {
    ($($arg:tt)*) => { $crate::print::emit(&format!("{}\n", format_args!($($arg)*)))? };
}

/// Writes a warning to stderr.
pub fn warn(text: &str) {
    note(&style::warning(text));
}

/// Writes a line to stderr while a command is at work.
pub fn note(text: &str) {
    crate::progress::aside(|| eprintln!("{text}"));
}

/// The `-o` flags of a command.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutputArgs {
    /// Output format
    #[arg(short = 'o', long, value_name = "FORMAT")]
    pub output: Option<String>,
    /// Template string or path to a template file for -o=go-template, -o=go-template-file
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// If true, keep the managedFields when printing objects in JSON or YAML format
    #[arg(long)]
    pub show_managed_fields: bool,
    /// If true, ignore any errors in templates when a field or map key is missing in the template
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allow_missing_template_keys: bool,
}

/// A parsed `-o`.
#[derive(Debug)]
pub enum Format {
    /// `name`
    Name,
    /// `json`
    Json,
    /// `yaml`
    Yaml,
    /// `kyaml`
    KYaml,
    /// `jsonpath=`
    JsonPath(jsonpath::Template, String),
    /// `jsonpath-as-json=`
    JsonPathAsJson(jsonpath::Template, String),
    /// `go-template=`
    GoTemplate(template::Template),
    /// `custom-columns=`
    Columns(Columns),
    /// `wide`
    Wide,
}

/// The formats of most commands.
pub const FORMATS: &[&str] = &[
    "go-template",
    "go-template-file",
    "json",
    "jsonpath",
    "jsonpath-as-json",
    "jsonpath-file",
    "kyaml",
    "name",
    "template",
    "templatefile",
    "yaml",
];
/// The formats of `get`.
pub const GET_FORMATS: &[&str] = &[
    "custom-columns",
    "custom-columns-file",
    "go-template",
    "go-template-file",
    "json",
    "jsonpath",
    "jsonpath-as-json",
    "jsonpath-file",
    "kyaml",
    "name",
    "template",
    "templatefile",
    "wide",
    "yaml",
];

impl OutputArgs {
    /// Reads the format, which must be one of those allowed; none means the command's own words.
    pub fn format(&self, allowed: &[&str]) -> Result<Option<Format>> {
        let given = match (&self.output, &self.template) {
            (Some(output), _) if !output.is_empty() => output.as_str(),
            (_, Some(_)) => "go-template",
            _ => return Ok(None),
        };
        let (name, argument) = match given.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (given, None),
        };
        let unknown = || anyhow!("unable to match a printer suitable for the output format {given:?}, allowed formats are: {}", allowed.join(","));
        // Upstream lower-cases the words that take no argument, and only those.
        let lower = given.to_lowercase();
        let name = if argument.is_none() { lower.as_str() } else { name };
        if !allowed.contains(&name) || argument.is_some() && matches!(name, "json" | "yaml" | "kyaml" | "name" | "wide") {
            return Err(unknown());
        }
        let argument = argument.map(ToOwned::to_owned).or_else(|| self.template.clone()).filter(|a| !a.is_empty());
        let required = || argument.clone().ok_or_else(|| anyhow!("template format specified but no template given"));
        Ok(Some(match name {
            "name" => Format::Name,
            "json" => Format::Json,
            "yaml" => Format::Yaml,
            "kyaml" => Format::KYaml,
            "wide" => Format::Wide,
            "jsonpath" => json_path(required()?, Format::JsonPath)?,
            "jsonpath-as-json" => json_path(required()?, Format::JsonPathAsJson)?,
            "jsonpath-file" => json_path(read_template("--template", &required()?)?, Format::JsonPath)?,
            "go-template" | "template" => go_template(&required()?)?,
            "go-template-file" | "templatefile" => go_template(&read_template("--template", &required()?)?)?,
            "custom-columns" => {
                Format::Columns(Columns::parse(&argument.ok_or_else(|| anyhow!("custom-columns format specified but no custom columns given"))?)?)
            }
            "custom-columns-file" => {
                let file = argument.ok_or_else(|| anyhow!("custom-columns format specified but no custom columns given"))?;
                Format::Columns(Columns::parse_file(&read_template("template", &file)?)?)
            }
            _ => return Err(unknown()),
        }))
    }
}

fn read_template(what: &str, file: &str) -> Result<String> {
    std::fs::read_to_string(file).map_err(|e| anyhow!("error reading {what} {file}, {}", crate::errors::io("open", file, &e)))
}

fn json_path(text: String, make: fn(jsonpath::Template, String) -> Format) -> Result<Format> {
    let template = jsonpath::Template::parse(&text).map_err(|e| anyhow!("error parsing jsonpath {text}, {e}"))?;
    Ok(make(template, text))
}

fn go_template(text: &str) -> Result<Format> {
    Ok(Format::GoTemplate(template::Template::parse(text).map_err(|e| anyhow!("error parsing template {text}, {e}"))?))
}

/// Prints the results of a command, one object after the other.
#[derive(Debug)]
pub struct Printer {
    format: Option<Format>,
    show_managed_fields: bool,
    allow_missing: bool,
    /// ` (dry run)` and the like.
    suffix: &'static str,
    printed: usize,
}

impl Printer {
    /// For commands that change objects.
    pub fn new(args: &OutputArgs, suffix: &'static str) -> Result<Printer> {
        Ok(Self::with(args.format(FORMATS)?, args, suffix))
    }
    /// With a format read before.
    pub fn with(format: Option<Format>, args: &OutputArgs, suffix: &'static str) -> Printer {
        Printer { format, show_managed_fields: args.show_managed_fields, allow_missing: args.allow_missing_template_keys, suffix, printed: 0 }
    }
    /// Whether a format was asked for, instead of the command's own words.
    pub fn has_format(&self) -> bool {
        self.format.is_some()
    }
    /// Whether whole objects are printed, not just their names.
    pub fn prints_objects(&self) -> bool {
        !matches!(self.format, None | Some(Format::Name))
    }

    /// Starts over, as if nothing had been printed.
    pub fn forget(&mut self) {
        self.printed = 0;
    }

    /// Prints what was done to an object: `pod/x created`, or the object.
    pub fn done(&mut self, object: &Value, verb: &str) -> Result<()> {
        match &self.format {
            None => {
                let text = format!("{} {verb}{}\n", name_of(object), self.suffix);
                emit(&text)
            }
            Some(_) => self.object(object),
        }
    }

    /// Prints an object in the chosen format; the name where none was chosen.
    pub fn object(&mut self, object: &Value) -> Result<()> {
        let text = self.text(object)?;
        self.printed += 1;
        emit(&text)
    }

    /// The text of an object in the chosen format.
    pub fn text(&self, object: &Value) -> Result<String> {
        let stripped = || if self.show_managed_fields { object.clone() } else { without_managed_fields(object) };
        Ok(match &self.format {
            None | Some(Format::Name | Format::Wide) => match object["items"].as_array() {
                Some(items) => items.iter().map(|item| name_of(item) + "\n").collect(),
                None => name_of(object) + "\n",
            },
            Some(Format::Json) => shared::gojson::indented(&stripped(), "    ") + "\n",
            Some(Format::Yaml) => {
                let separator = if self.printed > 0 { "---\n" } else { "" };
                format!("{separator}{}", yaml::to_string(&stripped()))
            }
            Some(Format::KYaml) => kyaml::to_string(&stripped()),
            Some(Format::JsonPath(template, source)) => {
                template.print(object, self.allow_missing).map_err(|e| json_path_failed(source, &e, object))?
            }
            Some(Format::JsonPathAsJson(template, source)) => {
                let groups = template.find(object, self.allow_missing).map_err(|e| json_path_failed(source, &e, object))?;
                groups.into_iter().map(|group| shared::gojson::indented(&Value::Array(group), "    ") + "\n").collect()
            }
            Some(Format::GoTemplate(template)) => template.run(object, self.allow_missing).or_else(|failed| explained(template, object, &failed))?,
            Some(Format::Columns(columns)) => columns.print(object, self.printed == 0)?,
        })
    }
}

/// What upstream says of a JSONPath that failed, all in the error.
fn json_path_failed(source: &str, error: &jsonpath::Error, object: &Value) -> anyhow::Error {
    anyhow!(
        "error executing jsonpath {source:?}: Error executing template: {error}. Printing more information for debugging the template:\n\ttemplate was:\n\t\t{source}\n\tobject given to jsonpath engine was:\n\t\t{}\n\n\n",
        go_syntax(object)
    )
}

/// What upstream prints of a template that failed: how far it came, and all there is to find the mistake with.
fn explained(template: &template::Template, object: &Value, failed: &template::Failed) -> Result<String> {
    let (printed, error, source) = (&failed.printed, &failed.error, template.source());
    emit(&format!(
        "{printed}Error executing template: {error}. Printing more information for debugging the template:\n\ttemplate was:\n\t\t{source}\n\traw data was:\n\t\t{}\n\tobject given to template engine was:\n\t\t{}\n\n",
        shared::gojson::compact(object),
        template::plain(object)
    ))?;
    Err(anyhow!("error executing template {}: {error}", go_quoted(source)))
}

/// `deployment.apps/x`, from what the object says it is.
pub fn name_of(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let group = object["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(group, _)| group);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let name = if name.is_empty() { "<unknown>" } else { name };
    if group.is_empty() { format!("{kind}/{name}") } else { format!("{kind}.{group}/{name}") }
}

/// Text as Go's `%q` shows it.
fn go_quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        '\n' => "\\n".into(),
        '\r' => "\\r".into(),
        '\t' => "\\t".into(),
        c if c.is_control() => format!("\\x{:02x}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

/// A value as Go's `%#v` shows it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => go_quoted(text),
        Value::Array(items) => format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{}:{}", go_quoted(k), go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", pairs.join(", "))
        }
    }
}

/// The object, or list of objects, without `metadata.managedFields`.
pub fn without_managed_fields(object: &Value) -> Value {
    let mut copy = object.clone();
    let strip = |value: &mut Value| {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut copy);
    if let Some(items) = copy.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip);
    }
    copy
}

/// kubectl's `List` of several objects.
pub fn list_of(items: Vec<Value>) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
}

/// How far a command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DryRun {
    /// For real.
    #[default]
    None,
    /// Nothing is sent.
    Client,
    /// The server checks but keeps nothing.
    Server,
}

impl DryRun {
    /// What follows the verb.
    pub fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }
    /// The query parameter for the server.
    pub fn query(self) -> Option<(&'static str, String)> {
        (self == DryRun::Server).then(|| ("dryRun", "All".to_owned()))
    }
}

/// The `--dry-run` flag.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DryRunArgs {
    /// Must be "none", "server", or "client"
    #[arg(long, value_name = "none|server|client", num_args = 0..=1, require_equals = true, default_missing_value = "unchanged")]
    pub dry_run: Option<String>,
}

impl DryRunArgs {
    /// Reads the flag; a bare `--dry-run` means client, with upstream's warning.
    pub fn mode(&self) -> Result<DryRun> {
        Ok(match self.dry_run.as_deref() {
            None | Some("none") => DryRun::None,
            Some("client") => DryRun::Client,
            Some("server") => DryRun::Server,
            Some("unchanged") => {
                eprintln!("W --dry-run is deprecated and can be replaced with --dry-run=client.");
                DryRun::Client
            }
            Some(value @ ("true" | "false")) => bail!("Invalid dry-run value ({value}). Must be \"none\", \"server\", or \"client\"."),
            Some(value) => bail!("Invalid dry-run value ({value}). Must be \"none\", \"server\", or \"client\"."),
        })
    }
}
