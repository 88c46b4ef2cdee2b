//! Bodies of requests and responses: shared bytes where they are known, a stream where they are not.
//!
//! Owns how bytes are held on the API path. Must never copy an object's bytes that are already encoded.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use shared::status::ApiError;

/// Why a body broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The largest request body, on every verb (upstream: `MaxRequestBodyBytes`, 3 MiB).
pub const LIMIT: usize = 3 * 1024 * 1024;
/// What is read beyond that and thrown away, before the client is cut off.
const DRAINED: usize = 8 * LIMIT;

/// A body; [`Default`] is empty.
#[derive(Default)]
pub struct Body(Kind);

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    /// Chunks in order, with the number of bytes left.
    Chunks(VecDeque<Bytes>, u64),
    /// Chunks that are made as they are taken, with the number of bytes left. The mutexes are never locked: they make what they hold `Sync`,
    /// which warp asks of bodies.
    Made(Mutex<Box<dyn Iterator<Item = Bytes> + Send>>, u64),
    Stream(Mutex<Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>>),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Body(Kind::Empty)
    }
    /// Chunks that go out one after the other, with a known length.
    pub fn chunks(chunks: impl Into<VecDeque<Bytes>>) -> Self {
        let chunks = chunks.into();
        let length = chunks.iter().map(|c| c.len() as u64).sum();
        Body(Kind::Chunks(chunks, length))
    }
    /// Chunks that are made only when they are sent: together they have `length` bytes.
    pub fn made(chunks: impl Iterator<Item = Bytes> + Send + 'static, length: u64) -> Self {
        Body(Kind::Made(Mutex::new(Box::new(chunks)), length))
    }
    /// A stream that ends when it is dropped.
    pub fn stream(stream: impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Self {
        Body(Kind::Stream(Mutex::new(Box::pin(stream))))
    }
    /// Any other body.
    pub fn wrap<B>(body: B) -> Self
    where
        B: http_body::Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BodyError>,
    {
        let frames = http_body_util::BodyStream::new(body);
        Body::stream(frames.filter_map(|frame| {
            let data = match frame {
                Ok(frame) => frame.into_data().ok().map(|mut data| Ok(data.copy_to_bytes(data.remaining()))),
                Err(error) => Some(Err(error.into())),
            };
            std::future::ready(data)
        }))
    }
    /// The bytes, when all are here already.
    pub fn as_full(&self) -> Option<&Bytes> {
        match &self.0 {
            Kind::Full(bytes) => Some(bytes),
            _ => None,
        }
    }
    /// The length, when it is known.
    pub fn length(&self) -> Option<u64> {
        match &self.0 {
            Kind::Empty => Some(0),
            Kind::Full(bytes) => Some(bytes.len() as u64),
            Kind::Chunks(_, length) | Kind::Made(_, length) => Some(*length),
            Kind::Stream(_) => None,
        }
    }
    /// The chunks of a body that is here already; nothing of a stream.
    pub fn into_chunks(self) -> VecDeque<Bytes> {
        match self.0 {
            Kind::Full(bytes) => VecDeque::from([bytes]),
            Kind::Chunks(chunks, _) => chunks,
            Kind::Made(chunks, _) => chunks.into_inner().collect(),
            Kind::Empty | Kind::Stream(_) => VecDeque::new(),
        }
    }
    /// Reads all of a request's body.
    ///
    /// # Errors
    /// 413 beyond [`LIMIT`], 400 when the client breaks off.
    pub async fn read(self) -> Result<Bytes, ApiError> {
        if self.length().is_some_and(|l| l > LIMIT as u64) {
            return Err(ApiError::too_large(LIMIT));
        }
        let mut stream = match self.0 {
            Kind::Empty => return Ok(Bytes::new()),
            Kind::Full(bytes) => return Ok(bytes),
            Kind::Chunks(chunks, _) => return Ok(chunks.iter().flatten().copied().collect()),
            Kind::Made(chunks, _) => return Ok(chunks.into_inner().flatten().collect()),
            Kind::Stream(stream) => stream.into_inner(),
        };
        // Most bodies are one frame, which is then passed on as it is.
        let mut first = Bytes::new();
        let mut all = Vec::new();
        while let Some(frame) = stream.next().await {
            let frame = frame.map_err(|e| ApiError::bad_request(format!("the request's body broke off: {e}")))?;
            if first.len() + all.len() + frame.len() > LIMIT {
                drain(stream).await;
                return Err(ApiError::too_large(LIMIT));
            }
            if first.is_empty() && all.is_empty() {
                first = frame;
                continue;
            }
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&frame);
        }
        Ok(if all.is_empty() { first } else { all.into() })
    }
}

/// Lets a client that sends too much come to its end, within reason: many do not look for an answer before.
async fn drain(mut stream: impl Stream<Item = Result<Bytes, BodyError>> + Unpin) {
    let mut left = DRAINED;
    while let Some(Ok(frame)) = stream.next().await {
        left = left.saturating_sub(frame.len());
        if left == 0 {
            return;
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Body::empty() } else { Body(Kind::Full(bytes)) }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({:?})", self.length())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = match &mut self.0 {
            Kind::Empty => None,
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Some(Ok(bytes))
            }
            Kind::Chunks(chunks, left) => {
                let chunk = chunks.pop_front();
                *left -= chunk.as_ref().map_or(0, |c| c.len() as u64);
                chunk.map(Ok)
            }
            Kind::Made(chunks, left) => {
                let chunk = chunks.get_mut().next();
                *left -= chunk.as_ref().map_or(0, |c| c.len() as u64);
                chunk.map(Ok)
            }
            Kind::Stream(stream) => match stream.get_mut().as_mut().poll_next(cx) {
                Poll::Ready(next) => next,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(next.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.length() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.length().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The data frames, as warp wants a streamed reply.
impl Stream for Body {
    type Item = Result<Bytes, BodyError>;
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        http_body::Body::poll_frame(self, cx).map(|frame| frame.map(|f| f.map(|f| f.into_data().unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streamed(chunks: &[&'static [u8]]) -> Body {
        let chunks: Vec<_> = chunks.iter().map(|c| Ok(Bytes::from_static(c))).collect();
        Body::stream(futures::stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_body_reads_the_same_however_it_is_held() {
        let bodies = [
            Body::from("hello world"),
            Body::chunks(vec![Bytes::from("hello"), Bytes::new(), Bytes::from(" world")]),
            Body::made([Bytes::from("hello"), Bytes::from(" world")].into_iter(), 11),
            streamed(&[b"hello world"]),
            streamed(&[b"", b"hello", b"", b" ", b"world"]),
            Body::wrap(http_body_util::Full::new(Bytes::from("hello world"))),
        ];
        for body in bodies {
            assert_eq!(body.read().await.unwrap(), "hello world");
        }
        assert!(Body::empty().read().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_413_whether_its_length_is_known_or_not() {
        let half = vec![b'x'; LIMIT / 2 + 1];
        let known = Body::from(vec![b'x'; LIMIT + 1]);
        let unknown = Body::stream(futures::stream::iter([Ok(Bytes::from(half.clone())), Ok(Bytes::from(half))]));
        for body in [known, unknown] {
            assert_eq!(body.read().await.unwrap_err().code(), 413);
        }
        assert_eq!(Body::from(vec![b'x'; LIMIT]).read().await.unwrap().len(), LIMIT);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_a_bad_request() {
        let body = Body::stream(futures::stream::iter([Ok(Bytes::from("x")), Err("reset".into())]));
        assert_eq!(body.read().await.unwrap_err().code(), 400);
    }
}
