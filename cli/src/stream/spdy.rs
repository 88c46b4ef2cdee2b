//! As much of SPDY/3.1 as a remote command needs: a stream for each channel, opened by us, and data both ways (`github.com/moby/spdystream`).
//!
//! Owns the frames. Servers of Kubernetes keep no flow-control windows, so none are kept here; pings need no answer.

use std::collections::VecDeque;

use anyhow::{Context, Result, bail};
use reqwest::Upgraded;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::remote::Channel;

/// What the streams mean.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const GO_AWAY: u16 = 7;
/// The flag of a frame that is its stream's last.
const FIN: u8 = 1;
/// Bytes read at a time.
const READ: usize = 32 * 1024;

/// The way out.
pub(super) struct Sender {
    connection: WriteHalf<Upgraded>,
    streams: Vec<Channel>,
}

/// The way in.
pub(super) struct Receiver {
    connection: ReadHalf<Upgraded>,
    /// The channels by their streams, and whether more may come on them.
    streams: Vec<(Channel, bool)>,
    /// What was read of the frame under way: a read may be given up at any byte.
    buffer: Vec<u8>,
    /// Output that came while streams were still being opened.
    early: VecDeque<Frame>,
    outcome: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Data { stream: u32, last: bool, payload: Vec<u8> },
    Control { kind: u16, payload: Vec<u8> },
}

/// A client's streams have odd numbers.
fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or_default() * 2 + 1
}

fn index(stream: u32) -> usize {
    (stream / 2) as usize
}

/// Opens a stream for each channel and waits until the server has taken them all: it drops data that comes earlier.
pub(super) async fn open(connection: Upgraded, channels: &[Channel]) -> Result<(Sender, Receiver)> {
    let (read, write) = tokio::io::split(connection);
    let mut sender = Sender { connection: write, streams: channels.to_vec() };
    let streams = channels.iter().map(|c| (*c, true)).collect();
    let mut receiver = Receiver { connection: read, streams, buffer: Vec::new(), early: VecDeque::new(), outcome: Vec::new() };
    for (at, channel) in channels.iter().enumerate() {
        sender.connection.write_all(&opening(number(at), *channel, at == 0)).await?;
    }
    sender.connection.flush().await?;
    let mut replies = 0;
    while replies < channels.len() {
        match receiver.frame().await?.context("unable to upgrade connection: it ended")? {
            Frame::Control { kind: SYN_REPLY, .. } => replies += 1,
            Frame::Control { kind: RST_STREAM | GO_AWAY, .. } => bail!("unable to upgrade connection: the server refused a stream"),
            frame @ Frame::Data { .. } => receiver.early.push_back(frame),
            Frame::Control { .. } => {}
        }
    }
    Ok((sender, receiver))
}

/// The frame that opens a stream.
fn opening(stream: u32, channel: Channel, first: bool) -> Vec<u8> {
    let kind = match channel {
        Channel::Stdin => "stdin",
        Channel::Stdout => "stdout",
        Channel::Stderr => "stderr",
        Channel::Outcome => "error",
        Channel::Resize => "resize",
    };
    let mut block = 1_u32.to_be_bytes().to_vec();
    for text in ["streamtype", kind] {
        block.extend((text.len() as u32).to_be_bytes());
        block.extend(text.as_bytes());
    }
    // The number of the stream, of the one it belongs to, its priority, and a byte of no use.
    let mut payload = stream.to_be_bytes().to_vec();
    payload.extend([0; 6]);
    payload.extend(stored(&block, first));
    let mut frame = vec![0x80, 3];
    frame.extend(SYN_STREAM.to_be_bytes());
    frame.push(0);
    frame.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    frame.extend(payload);
    frame
}

/// Headers are one zlib stream over the whole connection. Ours is not compressed: a stored block, and an empty one that flushes it.
fn stored(block: &[u8], first: bool) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap_or_default();
    let mut out = if first { vec![0x78, 0x01] } else { Vec::new() };
    out.push(0);
    out.extend(length.to_le_bytes());
    out.extend((!length).to_le_bytes());
    out.extend(block);
    out.extend([0, 0, 0, 0xff, 0xff]);
    out
}

/// The first frame of what has been read, and how long it is; none while it is not whole.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let head: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    let payload = bytes.get(8..8 + length)?.to_vec();
    let frame = if head[0] & 0x80 == 0 {
        Frame::Data { stream: u32::from_be_bytes([head[0], head[1], head[2], head[3]]), last: head[4] & FIN != 0, payload }
    } else {
        Frame::Control { kind: u16::from_be_bytes([head[2], head[3]]), payload }
    };
    Some((frame, 8 + length))
}

impl Sender {
    pub(super) async fn send(&mut self, channel: Channel, bytes: &[u8], last: bool) -> Result<()> {
        let Some(at) = self.streams.iter().position(|c| *c == channel) else { return Ok(()) };
        let mut frame = number(at).to_be_bytes().to_vec();
        frame.push(if last { FIN } else { 0 });
        frame.extend(&(bytes.len() as u32).to_be_bytes()[1..]);
        frame.extend(bytes);
        self.connection.write_all(&frame).await?;
        Ok(self.connection.flush().await?)
    }
}

impl Receiver {
    /// The next bytes. The outcome comes last and whole, once no output can follow; none when the connection ends.
    pub(super) async fn next(&mut self) -> Result<Option<(Channel, Vec<u8>)>> {
        loop {
            if self.over() {
                return Ok(Some((Channel::Outcome, std::mem::take(&mut self.outcome))));
            }
            let frame = match self.early.pop_front() {
                Some(frame) => Some(frame),
                None => self.frame().await?,
            };
            match frame {
                None => return Ok(None),
                Some(Frame::Data { stream, last, payload }) => {
                    let Some((channel, open)) = self.streams.get_mut(index(stream)) else { continue };
                    *open &= !last;
                    match channel {
                        Channel::Outcome => self.outcome.extend(payload),
                        channel if !payload.is_empty() => return Ok(Some((*channel, payload))),
                        _ => {}
                    }
                }
                Some(Frame::Control { kind: RST_STREAM, payload }) => {
                    let stream = payload.first_chunk::<4>().map_or(0, |id| u32::from_be_bytes(*id));
                    if let Some((_, open)) = self.streams.get_mut(index(stream)) {
                        *open = false;
                    }
                }
                Some(Frame::Control { kind: GO_AWAY, .. }) => return Ok(None),
                Some(Frame::Control { .. }) => {}
            }
        }
    }

    /// Whether the outcome is in and no output can follow.
    fn over(&self) -> bool {
        let awaited = |channel: &Channel| matches!(channel, Channel::Outcome | Channel::Stdout | Channel::Stderr);
        self.streams.iter().all(|(channel, open)| !open || !awaited(channel))
    }

    async fn frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some((frame, length)) = parse(&self.buffer) {
                self.buffer.drain(..length);
                return Ok(Some(frame));
            }
            self.buffer.reserve(READ);
            let count = self.connection.read_buf(&mut self.buffer).await.context("error reading from the remote side")?;
            if count == 0 {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_once_they_are_whole() {
        let bytes = [&[0, 0, 0, 5, 1, 0, 0, 2, b'h', b'i'][..], &[0x80, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, 1]].concat();
        assert!((0..10).all(|end| parse(&bytes[..end]).is_none()));
        let (frame, length) = parse(&bytes).unwrap();
        assert_eq!((frame, length), (Frame::Data { stream: 5, last: true, payload: b"hi".to_vec() }, 10));
        assert_eq!(parse(&bytes[10..]).unwrap().0, Frame::Control { kind: SYN_REPLY, payload: vec![0, 0, 0, 1] });
        assert_eq!((index(5), number(2)), (2, 5));
    }

    #[test]
    fn a_stream_is_opened_with_its_kind() {
        let frame = opening(1, Channel::Outcome, true);
        assert_eq!(frame[..8], [0x80, 3, 0, 1, 0, 0, 0, (frame.len() - 8) as u8]);
        assert_eq!(frame[8..18], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let block = b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05error";
        assert_eq!(frame[18..23], [0x78, 0x01, 0, block.len() as u8, 0]);
        assert_eq!(frame[25..25 + block.len()], block[..]);
        assert_eq!(frame[25 + block.len()..], [0, 0, 0, 0xff, 0xff]);
    }
}
