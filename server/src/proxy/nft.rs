//! Runs `nft`. Must know nothing of Services.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why a transaction was not applied; nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `nft` cannot be started.
    #[error("nft cannot be started (is nftables installed?): {0}")]
    Start(#[source] std::io::Error),
    /// Its input or output broke off.
    #[error("talking to nft: {0}")]
    Pipe(#[source] std::io::Error),
    /// It refused the transaction.
    #[error("nft: {0}")]
    Refused(String),
}

/// Whether the kernel has a table of this name.
///
/// # Errors
/// See [`Error`].
pub async fn has_table(name: &str) -> Result<bool, Error> {
    let output = Command::new("nft").args(["list", "tables", "ip"]).stdin(Stdio::null()).output().await.map_err(Error::Start)?;
    if !output.status.success() {
        return Err(Error::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(is_listed(&String::from_utf8_lossy(&output.stdout), name))
}

fn is_listed(tables: &str, name: &str) -> bool {
    tables.lines().any(|line| line.strip_prefix("table ip ") == Some(name))
}

/// Applies a ruleset text as one transaction.
///
/// # Errors
/// See [`Error`]; the kernel's tables are then as they were.
pub async fn apply(text: &str) -> Result<(), Error> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Start)?;
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin.take() {
            stdin.write_all(text.as_bytes()).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    // It may report an error before it has read everything, so both go on together.
    let (written, output) = tokio::join!(write, child.wait_with_output());
    let output = output.map_err(Error::Pipe)?;
    if !output.status.success() {
        let text: String = String::from_utf8_lossy(&output.stderr).chars().take(2000).collect();
        return Err(Error::Refused(text.trim().to_owned()));
    }
    written.map_err(Error::Pipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_by_its_whole_name() {
        let listed = "table ip nat\ntable ip kserver-0123\n";
        assert!(is_listed(listed, "kserver-0123") && is_listed(listed, "nat"));
        assert!(!is_listed(listed, "kserver") && !is_listed("", "nat"));
    }
}
