//! `kserver token-key`: changes the keys that sign and verify ServiceAccount tokens, of an instance that runs or not.
//!
//! Owns telling the running process, and waiting until it has taken them up.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use super::instance::Instance;
use super::{down, progress, status};
use crate::pki::token_keys;

/// How long the process may take to use the keys that are in the files.
const TAKE_UP_LIMIT: Duration = Duration::from_secs(20);

/// Makes a new signing key; the old ones go on verifying.
///
/// # Errors
/// There is no cluster in the directory, or the running one does not take the key up.
pub async fn rotate(instance: &Instance) -> Result<()> {
    token_keys::rotate(&keys(instance)?)?;
    take_up(instance).await?;
    println!("new tokens are signed by a new key; earlier ones stay valid until they expire, or until `kserver token-key revoke{}`", instance.flag());
    Ok(())
}

/// Forgets every key but the one that signs.
///
/// # Errors
/// As for [`rotate`].
pub async fn revoke(instance: &Instance) -> Result<()> {
    token_keys::revoke(&keys(instance)?)?;
    take_up(instance).await?;
    println!("tokens of earlier keys are refused; pods that hold one get another when it is renewed, or are to be made anew");
    Ok(())
}

/// The directory of an instance's keys.
fn keys(instance: &Instance) -> Result<PathBuf> {
    let dir = instance.data.join("pki");
    ensure!(dir.join("sa.key").exists(), "there is no cluster in {}: name its directory with --data-dir", instance.data.display());
    Ok(dir)
}

/// Has the running process, if there is one, use what the files hold, and waits until it publishes the same keys.
async fn take_up(instance: &Instance) -> Result<()> {
    let Some(record) = instance.running()? else { return Ok(()) };
    down::signal(record.pid, Signal::USR1);
    progress::until(TAKE_UP_LIMIT, || async { published(instance).await.unwrap_or(false) })
        .await
        .with_context(|| format!("kserver (pid {}) has not taken the keys up yet; its log is {}", record.pid, instance.log_file().display()))
}

/// Whether the running process publishes the keys that are in the files.
async fn published(instance: &Instance) -> Result<bool> {
    let request = http::Request::get("/openid/v1/jwks").body(Vec::new())?;
    let in_use: serde_json::Value = status::client(instance).await?.request(request).await?;
    Ok(in_use == token_keys::issuer(&keys(instance)?)?.jwks())
}
