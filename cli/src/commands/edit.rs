//! `edit`: objects in the user's editor, and what changed sent back.

use std::io::Write;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::app::Ctx;
use crate::errors;
use crate::manifest::{self, Document, FileArgs, Validation};
use crate::print::{self, OutputArgs, Printer};
use crate::resource::{Query, SelectorArgs, query_string};

/// Edit a resource on the server
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources
    #[arg(value_name = "TYPE NAME", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub selector: SelectorArgs,
    #[command(flatten)]
    pub output: OutputArgs,
    /// Output the patch if the resource is edited
    #[arg(long)]
    pub output_patch: bool,
    /// If specified, edit will operate on the subresource of the requested object
    #[arg(long, default_value = "")]
    pub subresource: String,
    /// Name of the manager used to track field ownership
    #[arg(long, default_value = "kubectl-edit")]
    pub field_manager: String,
    /// Must be one of: strict (or true), warn, ignore (or false)
    #[arg(long, default_value = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "strict")]
    pub validate: String,
    /// If true, the configuration of current object will be saved in its annotation
    #[arg(long)]
    pub save_config: bool,
}

const HEADER: &str = "# Please edit the object below. Lines beginning with a '#' will be ignored,\n# and an empty file will abort the edit. If an error occurs while saving this file will be\n# reopened with the relevant failures.\n#\n";

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let validation = Validation::parse(&self.validate)?;
        let query = Query { args: self.args.clone(), files: self.files.clone(), ..Query::default() }.select(&self.selector);
        let (infos, failures) = query.infos(ctx).await?;
        errors::collect(failures)?;
        if infos.is_empty() {
            bail!("edit cancelled, no objects found");
        }
        let mut printer = Printer::new(&self.output, "")?;
        for info in infos {
            let before = if self.subresource.is_empty() {
                info.object.clone()
            } else {
                ctx.client().await?.get(&format!("{}/{}", info.path(), self.subresource)).await?
            };
            let shown = print::without_managed_fields(&before);
            let mut text = format!("{HEADER}{}", print::yaml::to_string(&shown));
            loop {
                let edited = in_editor(&text, "kctl-edit-")?;
                let Some(mut after) = parsed(&edited, &mut text)? else {
                    eprintln!("Edit cancelled, saved file was empty.");
                    break;
                };
                if after == Value::Null {
                    continue;
                }
                if after == shown {
                    eprintln!("Edit cancelled, no changes made.");
                    break;
                }
                if self.save_config {
                    crate::apply::save_config(&mut after);
                }
                let (body, patch) = crate::apply::two_way(&shown, &after, &info.kind);
                if self.output_patch {
                    print::emit(&format!("Patch: {}\n", shared::gojson::compact(&patch)))?;
                }
                let pairs = [("fieldManager", self.field_manager.clone()), ("fieldValidation", validation.query().to_owned())];
                match info.patch_subresource(ctx, &self.subresource, body, &patch, &query_string(&pairs)).await {
                    Ok(done) => {
                        printer.done(&done, "edited")?;
                        break;
                    }
                    Err(error) if error.is::<errors::ServerError>() => {
                        let told: String = errors::message(&error).lines().map(|l| format!("# {l}\n")).collect();
                        eprintln!("{}", errors::message(&error));
                        let again = format!("{HEADER}{told}#\n{}", without_comments(&edited));
                        if again == text {
                            return Err(keep(&edited)?);
                        }
                        text = again;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// The edited object; null when the text must be edited again, none when it is empty.
fn parsed(edited: &str, text: &mut String) -> Result<Option<Value>> {
    let body = without_comments(edited);
    if body.trim().is_empty() {
        return Ok(None);
    }
    match manifest::parse("the edited file", edited) {
        Ok(mut documents) if documents.len() == 1 => Ok(documents.pop().map(|d| d.object)),
        Ok(_) => bail!("the edited file must hold one object"),
        Err(error) => {
            let told: String = error.to_string().lines().map(|l| format!("# {l}\n")).collect();
            let again = format!("{HEADER}{told}#\n{body}");
            if again == *text {
                return Err(keep(edited)?);
            }
            *text = again;
            Ok(Some(Value::Null))
        }
    }
}

fn without_comments(text: &str) -> String {
    text.lines().skip_while(|l| l.starts_with('#')).map(|l| format!("{l}\n")).collect()
}

/// Nothing a user typed is thrown away.
fn keep(text: &str) -> Result<anyhow::Error> {
    let mut file = tempfile::Builder::new().prefix("kctl-edit-").suffix(".yaml").tempfile()?;
    file.write_all(text.as_bytes())?;
    let (_, path) = file.keep()?;
    Ok(anyhow!("Edit cancelled, no valid changes were saved.\nA copy of your changes has been stored to {:?}", path.display().to_string()))
}

/// Opens a text in `$KUBE_EDITOR`, `$EDITOR` or vi, and returns what was saved.
fn in_editor(text: &str, prefix: &str) -> Result<String> {
    let mut file = tempfile::Builder::new().prefix(prefix).suffix(".yaml").tempfile()?;
    file.write_all(text.as_bytes())?;
    file.flush()?;
    let editor = ["KUBE_EDITOR", "EDITOR"].iter().find_map(|n| std::env::var(n).ok().filter(|v| !v.is_empty())).unwrap_or_else(|| "vi".into());
    // Editors come with flags: let the shell split them.
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(file.path())
        .status()
        .with_context(|| format!("unable to launch the editor {editor:?}"))?;
    if !status.success() {
        bail!("there was a problem with the editor {editor:?}");
    }
    Ok(std::fs::read_to_string(file.path())?)
}

/// Edits a value; none when nothing changed.
pub fn value(before: &Value, title: &str) -> Result<Option<Value>> {
    let text = format!("# {title}\n{}", print::yaml::to_string(before));
    let edited = in_editor(&text, "kctl-edit-")?;
    let mut again = String::new();
    match parsed(&edited, &mut again)? {
        Some(Value::Null) => Err(keep(&edited)?),
        Some(after) if after != *before => Ok(Some(after)),
        _ => Ok(None),
    }
}

/// Edits manifests before they are created.
pub fn documents(documents: Vec<Document>, validation: Validation) -> Result<Vec<Document>> {
    let mut text = String::from(HEADER);
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        text.push_str(&print::yaml::to_string(&document.object));
    }
    let edited = in_editor(&text, "kctl-create-")?;
    let parsed = manifest::parse("the edited file", &edited)?;
    if validation == Validation::Strict
        && let Some(problem) = parsed.iter().flat_map(|d| &d.problems).next()
    {
        bail!("{problem}");
    }
    Ok(parsed)
}
