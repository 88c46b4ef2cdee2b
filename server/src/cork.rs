//! A connection that sends what was written to it in one piece, once everybody who is ready to write has done so.
//!
//! An HTTP/2 connection carries many streams. Left alone, its task runs as soon as one stream has something to say: a system call, a TLS
//! record and a wakeup of the other side for every answer. Owns the held bytes; must never wait for anything but the turn of those who are
//! ready already.

use std::future::Future;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes held back at most; more at once is passed on as it comes.
const LIMIT: usize = 64 * 1024;

/// Turns that others are given at most while each brings more to write.
const TURNS: u32 = 8;

/// The connection.
pub struct Corked<S> {
    inner: S,
    held: BytesMut,
    /// The turn that others have now; how many they have had since the flush was asked for, and how much was held at the last.
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    turns: u32,
    seen: usize,
}

impl<S> Corked<S> {
    /// Holds back what is written to `inner` until it is flushed.
    pub fn new(inner: S) -> Self {
        Corked { inner, held: BytesMut::new(), turn: None, turns: 0, seen: 0 }
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Writes what is held.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if self.held.len() + length <= LIMIT {
            pieces.iter().for_each(|piece| self.held.extend_from_slice(piece));
            return Poll::Ready(Ok(length));
        }
        ready!(self.drain(cx))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if let Some(turn) = &mut self.turn {
                ready!(turn.as_mut().poll(cx));
                self.turn = None;
            }
            if self.held.len() <= self.seen || self.turns == TURNS {
                break;
            }
            self.turns += 1;
            self.seen = self.held.len();
            // Not a mere wake: that would rouse another thread, and look at the network only later.
            self.turn = Some(Box::pin(tokio::task::yield_now()));
        }
        ready!(self.drain(cx))?;
        (self.turns, self.seen) = (0, 0);
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_within_a_turn_leaves_together_and_nothing_is_lost() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut corked = Corked::new(near);
        corked.write_all(b"one ").await.unwrap();
        assert!(poll_fn(|cx| Pin::new(&mut corked).poll_flush(cx)).now_or_never().is_none(), "others have their turn first");
        corked.write_all(b"two").await.unwrap();
        assert!(poll_fn(|cx| Pin::new(&mut corked).poll_flush(cx)).now_or_never().is_none(), "and once more, since they brought something");
        assert!(poll_fn(|cx| Pin::new(&mut corked).poll_flush(cx)).now_or_never().is_some(), "but no longer than they do");
        let mut together = [0; 16];
        assert_eq!(far.read(&mut together).await.unwrap(), 7);
        assert_eq!(&together[..7], b"one two");
    }

    #[tokio::test]
    async fn large_and_small_pieces_keep_their_order_whatever_the_other_side_takes() {
        let (near, mut far) = tokio::io::duplex(1000);
        let pieces: Vec<Vec<u8>> = (0..20u8).map(|i| vec![i; if i % 3 == 0 { LIMIT + 1 } else { 10 }]).collect();
        let expected = pieces.concat();
        let writer = tokio::spawn(async move {
            let mut corked = Corked::new(near);
            for piece in pieces {
                corked.write_all(&piece).await.unwrap();
            }
            corked.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
    }
}
