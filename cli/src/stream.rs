//! Remote commands over WebSocket: numbered channels for stdin, stdout, stderr, the outcome and the terminal's size
//! (`k8s.io/client-go/tools/remotecommand/websocket.go`).
//!
//! Owns the protocol and the terminal's raw mode. Who is talked to is the commands' business.

use std::io::IsTerminal;

use anyhow::{Context, Result, anyhow, bail};
use futures::{SinkExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use crate::app::Ctx;
use crate::client::Socket;
use crate::errors::{Exit, ServerError};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const OUTCOME: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// The protocols offered, the best first.
pub const PROTOCOLS: &str = "v5.channel.k8s.io, v4.channel.k8s.io";

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
    let socket = ctx.client().await?.socket(path, PROTOCOLS).await?;
    let _raw = if streams.tty { RawMode::enter()? } else { None };
    talk(socket, streams).await.map_err(|error| match error.downcast::<Ended>() {
        Ok(ended) => {
            eprintln!("{ended}");
            Exit(u8::try_from(ended.0 & 0xff).unwrap_or(1)).into()
        }
        Err(error) => error,
    })
}

/// Runs a command for its code alone.
pub async fn test(ctx: &Ctx, path: &str, streams: Streams<'_>) -> Result<i32> {
    let socket = ctx.client().await?.socket(path, PROTOCOLS).await?;
    match talk(socket, streams).await {
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

async fn talk(socket: Socket, mut streams: Streams<'_>) -> Result<()> {
    let may_close = socket.protocol.starts_with("v5");
    let (mut sink, mut source) = socket.stream.split();
    let mut resized = signal(SignalKind::window_change()).context("cannot watch the terminal's size")?;
    if streams.tty {
        send_size(&mut sink).await?;
    }
    let mut buffer = vec![0u8; 32 * 1024];
    let mut reading = streams.stdin.is_some();
    loop {
        let stdin = &mut streams.stdin;
        let read = async {
            match stdin {
                Some(stdin) if reading => stdin.read(&mut buffer).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            message = source.next() => match message {
                Some(Ok(Message::Binary(frame))) => {
                    let Some((channel, bytes)) = frame.split_first() else { continue };
                    match *channel {
                        STDOUT => {
                            streams.stdout.write_all(bytes).await?;
                            streams.stdout.flush().await?;
                        }
                        STDERR => {
                            streams.stderr.write_all(bytes).await?;
                            streams.stderr.flush().await?;
                        }
                        OUTCOME => return outcome(bytes),
                        _ => {}
                    }
                }
                Some(Ok(Message::Ping(payload))) => sink.send(Message::Pong(payload)).await?,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => bail!("error reading from the remote side: {error}"),
            },
            count = read => match count.context("error reading stdin")? {
                0 => {
                    reading = false;
                    // Older protocols cannot say that stdin has ended.
                    if may_close {
                        sink.send(Message::Binary(vec![CLOSE, STDIN].into())).await?;
                    }
                }
                count => {
                    let mut frame = Vec::with_capacity(count + 1);
                    frame.push(STDIN);
                    frame.extend_from_slice(&buffer[..count]);
                    sink.send(Message::Binary(frame.into())).await?;
                }
            },
            _ = resized.recv(), if streams.tty => send_size(&mut sink).await?,
        }
    }
}

async fn send_size(sink: &mut (impl SinkExt<Message, Error = tokio_tungstenite::tungstenite::Error> + Unpin)) -> Result<()> {
    let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout()) else { return Ok(()) };
    let mut frame = vec![RESIZE];
    frame.extend_from_slice(format!("{{\"Width\":{},\"Height\":{}}}", size.ws_col, size.ws_row).as_bytes());
    sink.send(Message::Binary(frame.into())).await?;
    Ok(())
}

/// The `Status` at the end of a remote command.
fn outcome(bytes: &[u8]) -> Result<()> {
    let status: Status = serde_json::from_slice(bytes).map_err(|_| anyhow!("{}", String::from_utf8_lossy(bytes)))?;
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    let causes = status.details.as_ref().and_then(|d| d.causes.clone()).unwrap_or_default();
    let code = causes.iter().find(|c| c.reason.as_deref() == Some("ExitCode")).and_then(|c| c.message.as_ref()?.parse::<i32>().ok());
    match code {
        Some(code) if status.reason.as_deref() == Some("NonZeroExitCode") => Err(Ended(code).into()),
        _ => Err(ServerError(Box::new(status)).into()),
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
