//! `rollout history`: the revisions of a workload, or one of them in full.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;

use super::{Revision, RolloutArgs, plain_template, revisions};
use crate::app::Ctx;
use crate::describe;
use crate::errors;
use crate::outln;
use crate::podspec;
use crate::print::{self, Printer, tabwriter};

/// The flags of `rollout history`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub rollout: RolloutArgs,
    /// See the details, including podTemplate of the revision specified
    #[arg(long, default_value_t = 0)]
    pub revision: i64,
}

const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.revision < 0 {
            bail!("revision must be a positive integer: {}", self.revision);
        }
        let (infos, mut failures) = self.rollout.infos(ctx).await?;
        for info in infos {
            if !matches!(info.kind.kind.as_str(), "Deployment" | "DaemonSet" | "StatefulSet") {
                failures.push(anyhow::anyhow!(
                    "error retrieving history for {:?}, no visitor method exists for {{{} {}}}",
                    info.kind.kind,
                    info.kind.group,
                    info.kind.kind
                ));
                continue;
            }
            let all = revisions(ctx, &info).await?;
            let chosen = all.iter().find(|r| r.number == self.revision);
            let mut printer = Printer::new(&self.rollout.output, "")?;
            if printer.has_format() {
                match chosen.or_else(|| all.last().filter(|_| self.revision == 0)) {
                    Some(revision) => printer.object(&revision.keeper)?,
                    None => bail!("unable to find the specified revision"),
                }
                continue;
            }
            let head = info.printed();
            if self.revision == 0 {
                outln!("{head} \n{}", table(&all));
                continue;
            }
            let Some(revision) = chosen else { bail!("unable to find the specified revision") };
            outln!("{head} with revision #{}", self.revision);
            let mut template: PodTemplateSpec = serde_json::from_value(revision.template.clone())?;
            if let Some(cause) = revision.keeper["metadata"]["annotations"][CHANGE_CAUSE].as_str().filter(|c| !c.is_empty()) {
                let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
                annotations.insert(CHANGE_CAUSE.into(), cause.into());
            }
            let mut description = describe::Writer::new();
            description.pod_template(&template);
            // Upstream aligns this on nothing: its tabs reach the pipe.
            print::emit(&if std::io::stdout().is_terminal() { description.finish() } else { description.raw() + "\n" })?;
        }
        errors::collect(failures)
    }
}

fn table(revisions: &[Revision]) -> String {
    let mut text = String::from("REVISION\tCHANGE-CAUSE\n");
    let mut previous: Option<&Revision> = None;
    for revision in revisions {
        let annotated = revision.keeper["metadata"]["annotations"][CHANGE_CAUSE].as_str().filter(|c| !c.is_empty());
        let cause = match annotated {
            Some(cause) => cause.to_owned(),
            // On a terminal nobody compares bytes, and a made-up cause beats none.
            None if print::style::on_stdout() => {
                previous.and_then(|p| difference(&p.template, &revision.template)).unwrap_or_else(|| "<none>".into())
            }
            None => "<none>".into(),
        };
        text.push_str(&format!("{}\t{cause}\n", revision.number));
        previous = Some(revision);
    }
    tabwriter::DESCRIBE.align(&text)
}

/// `image php-redis → 3.0.5`, or whatever else tells two templates apart.
fn difference(before: &Value, after: &Value) -> Option<String> {
    let images = |template: &Value| -> BTreeMap<String, String> {
        let containers = template["spec"]["containers"].as_array().into_iter().flatten();
        containers.map(|c| (c["name"].as_str().unwrap_or_default().to_owned(), c["image"].as_str().unwrap_or_default().to_owned())).collect()
    };
    let (old, new) = (images(before), images(after));
    let mut changes: Vec<String> = Vec::new();
    for (name, image) in &new {
        match old.get(name) {
            None => changes.push(format!("container {name} added")),
            Some(was) if was != image => changes.push(format!("image {name} → {}", image.rsplit_once(':').map_or(image.as_str(), |(_, tag)| tag))),
            Some(_) => {}
        }
    }
    changes.extend(old.keys().filter(|n| !new.contains_key(*n)).map(|n| format!("container {n} removed")));
    let (a, b) = (plain_template(before), plain_template(after));
    if changes.is_empty() && a != b {
        let restarted = "kubectl.kubernetes.io/restartedAt";
        if a["metadata"]["annotations"][restarted] != b["metadata"]["annotations"][restarted] {
            return Some("restarted".into());
        }
        let names = podspec::container_names(&b["spec"]);
        let env = names.iter().any(|n| {
            let of = |t: &Value| t["spec"]["containers"].as_array().into_iter().flatten().find(|c| c["name"] == n.as_str()).map(|c| c["env"].clone());
            of(&a) != of(&b)
        });
        return Some(if env { "environment changed".into() } else { "template changed".into() });
    }
    (!changes.is_empty()).then(|| changes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::difference;
    use serde_json::json;

    #[test]
    fn a_change_is_named() {
        let template = |image: &str, env: &str| json!({"metadata": {}, "spec": {"containers": [{"name": "php-redis", "image": image, "env": [{"name": "A", "value": env}]}]}});
        assert_eq!(difference(&template("r:5000/x:2", "1"), &template("r:5000/x:3.0.5", "1")).unwrap(), "image php-redis → 3.0.5");
        assert_eq!(difference(&template("x", "1"), &template("x", "2")).unwrap(), "environment changed");
        assert_eq!(difference(&template("x", "1"), &template("x", "1")), None);
    }
}
