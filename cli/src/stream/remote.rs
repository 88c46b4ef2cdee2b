//! How the streams of a remote command are carried: numbered channels of a WebSocket (`v5.channel.k8s.io`), or streams of SPDY where a
//! server or the runtime behind it knows no WebSocket on which stdin can end.
//!
//! Owns the choice between the two. Knows nothing of terminals and of what is done with the bytes.

use anyhow::{Result, bail};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use reqwest::Upgraded;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::spdy;
use crate::client::{Client, Socket};
use crate::errors::ServerError;

/// The only WebSocket protocol on which stdin can end.
const WEB_SOCKET: &str = "v5.channel.k8s.io";
const CLOSE: u8 = 255;

/// What a piece of bytes belongs to; the numbers are those of the WebSocket protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Outcome = 3,
    Resize = 4,
}

impl Channel {
    fn numbered(number: u8) -> Option<Channel> {
        [Channel::Stdin, Channel::Stdout, Channel::Stderr, Channel::Outcome, Channel::Resize].into_iter().find(|c| *c as u8 == number)
    }
}

/// An open connection.
pub(super) enum Remote {
    Socket(WebSocketStream<Upgraded>),
    Spdy(spdy::Sender, spdy::Receiver),
}

/// Its way out.
pub(super) enum Sender {
    Socket(SplitSink<WebSocketStream<Upgraded>, Message>),
    Spdy(spdy::Sender),
}

/// Its way in.
pub(super) enum Receiver {
    Socket(SplitStream<WebSocketStream<Upgraded>>),
    Spdy(spdy::Receiver),
}

/// Opens the streams that the path's query asks for.
pub(super) async fn open(client: &Client, path: &str) -> Result<Remote> {
    let refused = match client.socket(path, WEB_SOCKET).await {
        Ok(Socket { stream, protocol }) if protocol == WEB_SOCKET => return Ok(Remote::Socket(stream)),
        Ok(Socket { protocol, .. }) => anyhow::anyhow!("unable to upgrade connection: the server speaks {protocol:?}"),
        Err(error) => error,
    };
    // Whatever it was that the server refused, upstream asks once more, and tells that answer.
    if !refused.is::<ServerError>() {
        return Err(refused);
    }
    let connection = client.spdy(path, spdy::PROTOCOL).await?;
    let (sender, receiver) = spdy::open(connection, &asked(path)).await?;
    Ok(Remote::Spdy(sender, receiver))
}

/// The streams that a query asks for, in the order upstream opens them.
fn asked(path: &str) -> Vec<Channel> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let on = |name: &str| query.split('&').any(|pair| pair.strip_prefix(name) == Some("=true"));
    let wanted = [
        (true, Channel::Outcome),
        (on("stdin"), Channel::Stdin),
        (on("stdout"), Channel::Stdout),
        (on("stderr") && !on("tty"), Channel::Stderr),
        (on("tty"), Channel::Resize),
    ];
    wanted.into_iter().filter(|(on, _)| *on).map(|(_, channel)| channel).collect()
}

impl Remote {
    pub(super) fn split(self) -> (Sender, Receiver) {
        match self {
            Remote::Socket(socket) => {
                let (sink, source) = socket.split();
                (Sender::Socket(sink), Receiver::Socket(source))
            }
            Remote::Spdy(sender, receiver) => (Sender::Spdy(sender), Receiver::Spdy(receiver)),
        }
    }
}

impl Sender {
    pub(super) async fn send(&mut self, channel: Channel, bytes: &[u8]) -> Result<()> {
        match self {
            Sender::Socket(sink) => Ok(sink.send(Message::Binary([&[channel as u8], bytes].concat().into())).await?),
            Sender::Spdy(sender) => sender.send(channel, bytes, false).await,
        }
    }

    /// Says that no more stdin will come.
    pub(super) async fn end_stdin(&mut self) -> Result<()> {
        match self {
            Sender::Socket(sink) => Ok(sink.send(Message::Binary(vec![CLOSE, Channel::Stdin as u8].into())).await?),
            Sender::Spdy(sender) => sender.send(Channel::Stdin, &[], true).await,
        }
    }
}

impl Receiver {
    /// The next bytes; none when the connection ends.
    pub(super) async fn next(&mut self) -> Result<Option<(Channel, Vec<u8>)>> {
        match self {
            Receiver::Spdy(receiver) => receiver.next().await,
            Receiver::Socket(source) => loop {
                match source.next().await {
                    Some(Ok(Message::Binary(frame))) => {
                        let Some((number, bytes)) = frame.split_first() else { continue };
                        if let Some(channel) = Channel::numbered(*number) {
                            return Ok(Some((channel, bytes.to_vec())));
                        }
                    }
                    Some(Ok(Message::Close(_))) | None => return Ok(None),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => bail!("error reading from the remote side: {error}"),
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Channel, asked};

    #[test]
    fn a_terminal_has_no_stderr_of_its_own_but_a_size() {
        let path = "/exec?command=stdin%3Dtrue&container=a&stdin=true&stdout=true&stderr=true&tty=";
        assert_eq!(asked(&format!("{path}false")), [Channel::Outcome, Channel::Stdin, Channel::Stdout, Channel::Stderr]);
        assert_eq!(asked(&format!("{path}true")), [Channel::Outcome, Channel::Stdin, Channel::Stdout, Channel::Resize]);
        assert_eq!(asked("/exec?command=x&stdout=true"), [Channel::Outcome, Channel::Stdout]);
    }
}
