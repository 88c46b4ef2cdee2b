//! Remote commands: stdin, stdout, stderr, the outcome and the terminal's size over one connection (`k8s.io/client-go/tools/remotecommand`).
//!
//! Owns what flows and the terminal's raw mode; how it is carried is [`remote`]'s. Who is talked to is the commands' business.

mod remote;
mod spdy;

use std::io::IsTerminal;

use anyhow::{Context, Result, anyhow};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::Ctx;
use crate::errors::Exit;
use remote::{Channel, Receiver, Remote, Sender};

/// Where the streams of a remote command lead.
pub struct Streams<'a> {
    /// What is sent; none sends nothing.
    pub stdin: Option<Box<dyn AsyncRead + Unpin + 'a>>,
    /// Where the output goes.
    pub stdout: Box<dyn AsyncWrite + Unpin + 'a>,
    /// Where the error output goes.
    pub stderr: Box<dyn AsyncWrite + Unpin + 'a>,
    /// Whether the remote side has a terminal that wants to know its size.
    pub tty: bool,
}

impl Streams<'_> {
    /// This process's own streams.
    pub fn own(stdin: bool, tty: bool) -> Streams<'static> {
        Streams {
            stdin: if stdin { Some(Box::new(tokio::io::stdin())) } else { None },
            stdout: Box::new(tokio::io::stdout()),
            stderr: Box::new(tokio::io::stderr()),
            tty,
        }
    }
}

/// Runs until the remote side ends.
///
/// # Errors
/// [`Exit`] with the remote command's code when it is not zero.
pub async fn run(ctx: &Ctx, path: &str, streams: Streams<'_>) -> Result<()> {
    let remote = remote::open(ctx.client().await?, path).await?;
    let _raw = if streams.tty { RawMode::enter()? } else { None };
    talk(remote, streams).await.map_err(|error| match error.downcast::<Ended>() {
        Ok(ended) => {
            eprintln!("{ended}");
            Exit(u8::try_from(ended.0 & 0xff).unwrap_or(1)).into()
        }
        Err(error) => error,
    })
}

/// Runs a command for its code alone.
pub async fn test(ctx: &Ctx, path: &str, streams: Streams<'_>) -> Result<i32> {
    let remote = remote::open(ctx.client().await?, path).await?;
    match talk(remote, streams).await {
        Ok(()) => Ok(0),
        Err(error) => match error.downcast::<Ended>() {
            Ok(Ended(code)) => Ok(code),
            Err(error) => Err(error),
        },
    }
}

/// A remote command that ended with a code other than zero.
#[derive(Debug, thiserror::Error)]
#[error("command terminated with exit code {0}")]
struct Ended(i32);

async fn talk(remote: Remote, mut streams: Streams<'_>) -> Result<()> {
    let (sender, receiver) = remote.split();
    // Both ways at once: a command that answers while it is still being fed must not wait for us to have said all.
    tokio::select! {
        done = receive(receiver, &mut streams.stdout, &mut streams.stderr) => done,
        failed = send(sender, streams.stdin, streams.tty) => failed,
    }
}

/// Writes what comes in, until the remote side ends.
async fn receive(mut remote: Receiver, stdout: &mut (dyn AsyncWrite + Unpin), stderr: &mut (dyn AsyncWrite + Unpin)) -> Result<()> {
    while let Some((channel, bytes)) = remote.next().await? {
        match channel {
            Channel::Stdout => {
                stdout.write_all(&bytes).await?;
                stdout.flush().await?;
            }
            Channel::Stderr => {
                stderr.write_all(&bytes).await?;
                stderr.flush().await?;
            }
            Channel::Outcome => return outcome(&bytes),
            Channel::Stdin | Channel::Resize => {}
        }
    }
    Ok(())
}

/// Sends stdin and the terminal's size. Ends only when stdin cannot be read: that the remote side hears no more is told by what it says.
async fn send(mut remote: Sender, mut stdin: Option<Box<dyn AsyncRead + Unpin + '_>>, tty: bool) -> Result<()> {
    let mut resized = signal(SignalKind::window_change()).context("cannot watch the terminal's size")?;
    let mut buffer = vec![0u8; 32 * 1024];
    let mut sent = if tty { send_size(&mut remote).await } else { Ok(()) };
    while sent.is_ok() {
        let read = async {
            match &mut stdin {
                Some(stdin) => stdin.read(&mut buffer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            count = read => sent = match count.context("error reading stdin")? {
                0 => {
                    stdin = None;
                    remote.end_stdin().await
                }
                count => remote.send(Channel::Stdin, &buffer[..count]).await,
            },
            _ = resized.recv(), if tty => sent = send_size(&mut remote).await,
        }
    }
    std::future::pending().await
}

async fn send_size(remote: &mut Sender) -> Result<()> {
    let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) else { return Ok(()) };
    remote.send(Channel::Resize, format!("{{\"Width\":{},\"Height\":{}}}", size.ws_col, size.ws_row).as_bytes()).await
}

/// The `Status` at the end of a remote command.
fn outcome(bytes: &[u8]) -> Result<()> {
    // Older servers say nothing when all went well.
    if bytes.is_empty() {
        return Ok(());
    }
    let status: Status =
        serde_json::from_slice::<Value>(bytes).and_then(serde_json::from_value).map_err(|_| anyhow!("{}", String::from_utf8_lossy(bytes)))?;
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let causes = status.details.as_ref().and_then(|d| d.causes.clone()).unwrap_or_default();
    let code = causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode")).and_then(|c| c.message.as_ref()?.parse::<i32>().ok());
    match code {
        Some(code) if status.reason.as_deref() == Some("NonZeroExitCode") => Err(Ended(code).into()),
        _ => Err(anyhow!("{}", status.message.unwrap_or_default())),
    }
}

/// The terminal in raw mode; back to what it was when dropped.
pub struct RawMode(rustix::termios::Termios);

impl RawMode {
    /// Enters raw mode when stdin is a terminal.
    pub fn enter() -> Result<Option<RawMode>> {
        if !std::io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = rustix::termios::tcgetattr(std::io::stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &raw).context("cannot set the terminal's mode")?;
        Ok(Some(RawMode(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _restored = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, outcome};

    #[test]
    fn the_remote_code_is_ours() {
        assert!(outcome(br#"{"status":"Success"}"#).is_ok());
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"x","details":{"causes":[{"reason":"ExitCode","message":"42"}]}}"#;
        assert_eq!(outcome(failed).unwrap_err().downcast::<Ended>().unwrap().0, 42);
        assert!(outcome(br#"{"status":"Failure","message":"container not found"}"#).unwrap_err().to_string().contains("container not found"));
        assert_eq!(outcome(b"plain words").unwrap_err().to_string(), "plain words");
    }
}
