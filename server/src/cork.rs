//! An HTTP/2 connection's stream that sends what was written to it in one piece, once the tasks that are ready have had their turn.
//!
//! A connection carries many streams. Left alone, its task runs as soon as one of them has something to say: a system call, a TLS record and
//! a wakeup of the other side for every answer. Here a flush only asks to be woken when the worker has nothing else to run; what has been
//! written by then leaves together. So it suits nobody but those who flush again whenever they are woken, as `h2` does, and it must not be
//! handed on to others: they would wait for bytes that are held.

use std::io::{IoSlice, Result};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::{Buf, BytesMut};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes held back at most; more at once is passed on as it comes.
const LIMIT: usize = 64 * 1024;
/// Room that an idle connection keeps.
const KEPT: usize = 4 * 1024;

/// The stream.
pub struct Corked<S> {
    inner: S,
    held: BytesMut,
    /// A turn has been asked for, at whose end what is held is sent.
    asked: bool,
    turn: Arc<Turn>,
}

/// Others' turn.
#[derive(Default)]
struct Turn {
    over: AtomicBool,
    connection: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.over.store(true, Ordering::Release);
        self.connection.wake();
    }
}

impl<S> Corked<S> {
    /// Holds back what is written to `inner` until the turn after it is flushed.
    pub fn new(inner: S) -> Self {
        Corked { inner, held: BytesMut::new(), asked: false, turn: Arc::default() }
    }

    /// Whether the others' turn is over; asks for it first.
    fn due(&mut self, cx: &mut Context<'_>) -> bool {
        self.turn.connection.register(cx.waker());
        if !self.asked {
            self.asked = true;
            // Not a mere wake, which would rouse another thread, and look at the network only later.
            let waker = Waker::from(self.turn.clone());
            return pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker)).is_ready();
        }
        self.turn.over.load(Ordering::Acquire)
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
        if self.held.capacity() > KEPT {
            self.held = BytesMut::new();
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

    /// Is done at once, although what is held leaves only at the end of the turn.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if !self.held.is_empty() && !self.due(cx) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.drain(cx))?;
        if self.asked && self.turn.over.swap(false, Ordering::AcqRel) {
            self.asked = false;
        }
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

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Flushes whenever it is woken, until the other side has so many bytes.
    async fn carry(corked: &mut Corked<tokio::io::DuplexStream>, far: &mut tokio::io::DuplexStream, bytes: usize) -> Vec<u8> {
        let mut got = vec![0; bytes];
        let mut filled = ReadBuf::new(&mut got);
        poll_fn(|cx| {
            assert!(Pin::new(&mut *corked).poll_flush(cx).is_ready());
            while filled.remaining() > 0 {
                ready!(Pin::new(&mut *far).poll_read(cx, &mut filled)).unwrap();
            }
            Poll::Ready(())
        })
        .await;
        got
    }

    #[tokio::test]
    async fn what_is_written_within_a_turn_leaves_together_and_without_another_wakeup() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut corked = Corked::new(near);
        for round in 0..3 {
            corked.write_all(b"one ").await.unwrap();
            corked.flush().await.unwrap();
            assert_eq!(corked.held.len(), 4, "round {round}: others have their turn first");
            corked.write_all(b"two").await.unwrap();
            assert_eq!(carry(&mut corked, &mut far, 7).await, b"one two");
            assert!(corked.held.is_empty());
        }
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
