//! Keys of secrets and configmaps: `--from-file`, `--from-literal`, `--from-env-file`, and the hash `--append-hash` puts behind a name.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The flags that fill an object with keys.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KeyArgs {
    /// Key files can be specified using their file path, or key=path; a directory stands for its files
    #[arg(long, value_name = "[KEY=]PATH", value_delimiter = ',')]
    pub from_file: Vec<String>,
    /// Specify a key and literal value to insert (i.e. mykey=somevalue)
    #[arg(long, value_name = "KEY=VALUE")]
    pub from_literal: Vec<String>,
    /// Specify the path to a file to read lines of key=val pairs
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub from_env_file: Vec<String>,
    /// Append a hash of the object to its name
    #[arg(long)]
    pub append_hash: bool,
}

/// Reads every source; `owner` is how a repeated key's error names the object.
pub fn read(args: &KeyArgs, owner: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    if !args.from_env_file.is_empty() && (!args.from_file.is_empty() || !args.from_literal.is_empty()) {
        bail!("from-env-file cannot be combined with from-file or from-literal");
    }
    let mut keys = BTreeMap::new();
    for literal in &args.from_literal {
        let (key, value) =
            literal.split_once('=').filter(|(k, _)| !k.is_empty()).ok_or_else(|| anyhow!("invalid literal source {literal}, expected key=value"))?;
        add(&mut keys, key, value.as_bytes().to_vec(), owner)?;
    }
    for source in &args.from_file {
        from_file(source, &mut keys, owner)?;
    }
    for file in &args.from_env_file {
        for (key, value) in env_file(file)? {
            add(&mut keys, &key, value.into_bytes(), owner)?;
        }
    }
    Ok(keys)
}

fn add(keys: &mut BTreeMap<String, Vec<u8>>, key: &str, value: Vec<u8>, owner: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || key.len() > 253 || key == "." || key.starts_with("..") || !key.chars().all(allowed) {
        bail!(
            "{key:?} is not a valid key name for a {}: a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            owner.split(' ').next().unwrap_or(owner)
        );
    }
    if keys.contains_key(key) {
        bail!("cannot add key {key:?}, another key by that name already exists in Data for {owner}");
    }
    keys.insert(key.to_owned(), value);
    Ok(())
}

fn from_file(source: &str, keys: &mut BTreeMap<String, Vec<u8>>, owner: &str) -> Result<()> {
    let parts: Vec<&str> = source.split('=').collect();
    let (key, path) = match parts.as_slice() {
        [path] => (None, *path),
        ["", _] => bail!("key name for file path {} missing", parts[1]),
        [key, ""] => bail!("file path for key name {key} missing"),
        [key, path] => (Some(*key), *path),
        _ => bail!("key names or file paths cannot contain '='"),
    };
    let info = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => anyhow!("error reading {path}: no such file or directory"),
        _ => anyhow!("error reading {path}: {e}"),
    })?;
    let read = |path: &Path| std::fs::read(path).map_err(|e| anyhow!("error reading {}: {e}", path.display()));
    if !info.is_dir() {
        let name = Path::new(path).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        return add(keys, key.unwrap_or(&name), read(Path::new(path))?, owner);
    }
    if key.is_some() {
        bail!("cannot give a key name for a directory path");
    }
    let mut files: Vec<_> = std::fs::read_dir(path)?.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| p.is_file()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        add(keys, &name, read(&file)?, owner)?;
    }
    Ok(())
}

/// Refuses what no shell and no container would take as a variable's name.
pub fn check_variable_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(allowed) || name.starts_with(|c: char| c.is_ascii_digit()) {
        bail!(
            "{name:?} is not a valid key name: a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit (e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[-._a-zA-Z][-._a-zA-Z0-9]*')"
        );
    }
    Ok(())
}

/// `KEY=value` lines; a bare `KEY` takes its value from the environment.
pub fn env_file(file: &str) -> Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(file).map_err(|e| anyhow!("error reading {file}: {}", crate::errors::reason(&e)))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let mut pairs = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => (line, std::env::var(line).unwrap_or_default()),
        };
        check_variable_name(key)?;
        pairs.push((key.to_owned(), value));
    }
    Ok(pairs)
}

/// The ten letters upstream makes of an object's hash (`k8s.io/kubectl/pkg/util/hash`).
pub fn hash(content: &Value) -> String {
    let hex: String = Sha256::digest(shared::gojson::compact(content)).iter().map(|b| format!("{b:02x}")).collect();
    hex.chars()
        .take(10)
        .map(|c| match c {
            '0' => 'g',
            '1' => 'h',
            '3' => 'k',
            'a' => 'm',
            'e' => 't',
            c => c,
        })
        .collect()
}
