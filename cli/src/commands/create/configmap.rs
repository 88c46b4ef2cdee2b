//! `create configmap`

use anyhow::Result;
use base64::Engine;
use serde_json::{Map, Value, json};

use super::generate::{CommonArgs, one_name};
use super::keys::{self, KeyArgs};
use crate::app::Ctx;
use crate::discovery::Kind;

/// Create a config map from a local file, directory or literal value
#[derive(Debug, clap::Args)]
pub struct Args {
    /// NAME
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub common: CommonArgs,
    #[command(flatten)]
    pub keys: KeyArgs,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        let name = one_name(&self.names, "create configmap")?;
        let (mut data, mut binary) = (Map::new(), Map::new());
        for (key, bytes) in keys::read(&self.keys, &format!("ConfigMap {name:?}"))? {
            match String::from_utf8(bytes) {
                Ok(text) => data.insert(key, Value::String(text)),
                Err(error) => binary.insert(key, Value::String(base64::engine::general_purpose::STANDARD.encode(error.as_bytes()))),
            };
        }
        let mut final_name = name.clone();
        if self.keys.append_hash {
            let mut content = json!({ "kind": "ConfigMap", "name": name, "data": data });
            if !binary.is_empty() {
                content["binaryData"] = Value::Object(binary.clone());
            }
            final_name = format!("{name}-{}", keys::hash(&content));
        }
        let mut configmap = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": final_name } });
        if !data.is_empty() {
            configmap["data"] = Value::Object(data);
        }
        if !binary.is_empty() {
            configmap["binaryData"] = Value::Object(binary);
        }
        self.common.create(ctx, &Kind::built_in("", "v1", "ConfigMap", "configmaps", true), configmap).await
    }
}
