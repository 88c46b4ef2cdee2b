//! `set image`

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use super::change::{ChangeArgs, split_pairs};
use crate::app::Ctx;
use crate::podspec;
use crate::resource::Info;

/// Update the image of a pod template
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Resources, then CONTAINER=IMAGE pairs; `*` stands for every container
    #[arg(value_name = "TYPE NAME CONTAINER=IMAGE", add = crate::commands::complete::resources())]
    pub args: Vec<String>,
    #[command(flatten)]
    pub change: ChangeArgs,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let (resources, pairs) = split_pairs(&self.args);
        let mut problems = Vec::new();
        if resources.is_empty() && self.change.files.is_empty() {
            problems.push("one or more resources must be specified as <resource> <name> or <resource>/<name>");
        }
        if pairs.is_empty() {
            problems.push("at least one image update is required");
        }
        let images = parse(&pairs)?;
        if images.len() > 1 && images.iter().any(|(c, _)| c == "*") {
            problems.push("all containers are already specified by *, but saw more than one container_name=container_image pairs");
        }
        if !resources.is_empty() && (self.change.local || pairs.is_empty()) {
            self.change.infos(ctx, &resources).await?;
        }
        if !problems.is_empty() {
            crate::errors::collect(problems.into_iter().map(|p| anyhow!("{p}")).collect())?;
        }
        let (infos, failures) = self.change.infos(ctx, &resources).await?;
        let change = ChangeArgs { what: Some("image update to pod template:"), ..self.change.clone() };
        change.apply(ctx, infos, failures, "image updated", |object, info| apply(object, &images, info)).await
    }
}

fn parse(pairs: &[String]) -> Result<Vec<(String, String)>> {
    pairs
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((container, image)) if !container.is_empty() => Ok((container.to_owned(), image.to_owned())),
            _ => bail!("invalid image pair {pair:?}: expected container=image"),
        })
        .collect()
}

fn apply(object: &mut Value, images: &[(String, String)], info: &Info) -> Result<()> {
    let Some(spec) = podspec::spec_of_mut(object) else { return Err(super::env::no_template(info)) };
    let mut containers = podspec::containers_mut(spec);
    let mut missing = Vec::new();
    for (name, image) in images {
        let mut found = false;
        for container in containers.iter_mut().filter(|c| name == "*" || c["name"] == name.as_str()) {
            container["image"] = Value::String(image.clone());
            found = true;
        }
        if !found {
            missing.push(anyhow!("unable to find container named {name:?}"));
        }
    }
    crate::errors::collect(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn info() -> Info {
        let kind = std::rc::Rc::new(crate::discovery::Kind::built_in("apps", "v1", "Deployment", "deployments", true));
        Info { kind, namespace: None, name: "x".into(), object: Value::Null, source: String::new() }
    }

    #[test]
    fn containers_are_found_by_name_or_star() {
        let deployment = json!({"kind": "Deployment", "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1"}], "initContainers": [{"name": "i", "image": "1"}]}}}});
        for (pairs, images) in [(vec!["a=2"], ["2", "1"]), (vec!["*=3"], ["3", "3"]), (vec!["i=4"], ["1", "4"])] {
            let mut object = deployment.clone();
            let pairs: Vec<String> = pairs.into_iter().map(String::from).collect();
            apply(&mut object, &parse(&pairs).unwrap(), &info()).unwrap();
            let spec = &object["spec"]["template"]["spec"];
            assert_eq!([spec["containers"][0]["image"].as_str().unwrap(), spec["initContainers"][0]["image"].as_str().unwrap()], images);
        }
        assert!(
            apply(&mut deployment.clone(), &[("z".into(), "x".into())], &info())
                .unwrap_err()
                .to_string()
                .contains("unable to find container named \"z\"")
        );
        assert!(apply(&mut json!({"kind": "Service"}), &[("z".into(), "x".into())], &info()).is_err());
    }
}
