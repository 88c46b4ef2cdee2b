//! One HTTP/2 connection to an etcd member, made at the first call and anew when it has broken.
//!
//! The caller puts its request on the connection itself, with no task between, and requests of callers that are ready together leave
//! together. Owns connections and whether a failed call may have reached the member; must never try again.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::Channel;
use h2::client::{Connection, SendRequest};
use h2::{Ping, RecvStream, SendStream};
use http::uri::{PathAndQuery, Uri};
use http_body::Frame;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

use crate::cork::Corked;

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How often the member is asked whether it is still there, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(10);
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The call cannot have reached the member: nothing of it was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotSent(String);

type Error = tower::BoxError;

/// Where a member is.
#[derive(Clone)]
pub(super) struct Target {
    origin: Uri,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Reads `http://host:port` or `https://host:port`; certificates are for the latter.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub(super) fn new(url: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Self, String> {
        let origin: Uri = url.parse().map_err(|error| format!("{error}"))?;
        let host = origin.host().filter(|h| !h.is_empty()).ok_or("it names no host")?.trim_matches(['[', ']']).to_owned();
        let (port, tls) = match (origin.scheme_str(), tls) {
            (Some("https"), Some(config)) => {
                let mut config = ClientConfig::clone(config);
                config.alpn_protocols = vec![b"h2".to_vec()];
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                (443, Some((TlsConnector::from(Arc::new(config)), name)))
            }
            (Some("https"), None) => return Err("it is https, but no certificate authority is given".into()),
            (Some("http"), None) => (80, None),
            (Some("http"), Some(_)) => return Err("certificates are given but it is not https".into()),
            _ => return Err("it must begin with http:// or https://".into()),
        };
        Ok(Target { port: origin.port_u16().unwrap_or(port), origin, host, tls })
    }

    async fn connect(&self, open: &Arc<AtomicUsize>) -> std::io::Result<SendRequest<Bytes>> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => start(stream, open.clone()).await,
            Some((connector, name)) => start(connector.connect(name.clone(), stream).await?, open.clone()).await,
        }
    }
}

/// Begins HTTP/2 and leaves the connection to a task, which ends with the last of its users or when the member has gone.
async fn start<S>(stream: S, open: Arc<AtomicUsize>) -> std::io::Result<SendRequest<Bytes>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, connection) = builder.handshake(Corked::new(stream)).await.map_err(std::io::Error::other)?;
    tokio::spawn(drive(connection, open));
    Ok(sender)
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin>(mut connection: Connection<S, Bytes>, open: Arc<AtomicUsize>) {
    let mut pings = connection.ping_pong();
    let silent = async {
        let Some(pings) = &mut pings else { return std::future::pending().await };
        loop {
            tokio::time::sleep(PING_INTERVAL).await;
            // Etcd ends connections that ask while nothing is under way.
            if open.load(Ordering::Relaxed) == 0 {
                continue;
            }
            match tokio::time::timeout(PING_LIMIT, pings.ping(Ping::opaque())).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return std::future::pending().await,
                Err(_) => return,
            }
        }
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended { tracing::debug!(%error, "a connection to etcd ended") },
        () = silent => tracing::debug!("a connection to etcd was cut: it no longer answers"),
    }
}

/// The connection; clones share it.
#[derive(Clone)]
struct Member(Arc<Shared>);

struct Shared {
    target: Target,
    sender: Mutex<Option<SendRequest<Bytes>>>,
    /// Held while a connection is made: one at a time, for all who wait.
    connecting: tokio::sync::Mutex<()>,
    /// Calls under way.
    open: Arc<AtomicUsize>,
}

/// One call under way.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Open(open.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A channel to a member for [`etcd_client::Client`]. Connects when it is first used.
pub(super) fn channel(target: &Target) -> Channel {
    let (sender, connecting, open) = (Mutex::new(None), tokio::sync::Mutex::new(()), Arc::default());
    let shared = Shared { target: target.clone(), sender, connecting, open };
    Channel::Custom(BoxCloneSyncService::new(Member(Arc::new(shared))))
}

impl tower::Service<http::Request<Body>> for Member {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { shared.call(request).await })
    }
}

impl Shared {
    async fn call(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Error> {
        let waited = tokio::time::timeout(CONNECT_LIMIT, self.ready()).await;
        let mut sender = waited.map_err(|_| NotSent("connecting took too long".into()))?.map_err(|error| NotSent(error.to_string()))?;
        let open = Open::new(&self.open);
        let (mut parts, mut body) = request.into_parts();
        parts.uri = self.absolute(&parts.uri)?;
        parts.version = http::Version::HTTP_2;
        // The one message of most calls is at hand; so it leaves with the headers, and with the end of the stream.
        let first = body.frame().await.transpose()?;
        let rest = futures::poll!(body.frame());
        let (response, mut stream) = sender.send_request(http::Request::from_parts(parts, ()), first.is_none()).map_err(Error::from)?;
        if let Some(data) = first.and_then(|frame| frame.into_data().ok()) {
            stream.send_data(data, matches!(rest, Poll::Ready(None)))?;
        }
        match rest {
            Poll::Ready(None) => {}
            Poll::Ready(Some(next)) => drop(tokio::spawn(send(stream, Some(next?), body))),
            Poll::Pending => drop(tokio::spawn(send(stream, None, body))),
        }
        Ok(response.await?.map(|body| Body::new(Answer { body, ended: false, _open: open })))
    }

    fn absolute(&self, path: &Uri) -> Result<Uri, http::Error> {
        let mut builder = Uri::builder().path_and_query(path.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
        if let Some(scheme) = self.target.origin.scheme() {
            builder = builder.scheme(scheme.clone());
        }
        if let Some(authority) = self.target.origin.authority() {
            builder = builder.authority(authority.clone());
        }
        builder.build()
    }

    /// The connection, when it takes another request.
    async fn ready(&self) -> std::io::Result<SendRequest<Bytes>> {
        if let Some(ready) = self.current().await {
            return Ok(ready);
        }
        let _alone = self.connecting.lock().await;
        // Who waited finds what the one before has made.
        if let Some(ready) = self.current().await {
            return Ok(ready);
        }
        let sender = self.target.connect(&self.open).await?;
        *self.sender.lock() = Some(sender.clone());
        sender.ready().await.map_err(std::io::Error::other)
    }

    /// The connection there is, unless it has broken.
    async fn current(&self) -> Option<SendRequest<Bytes>> {
        let sender = self.sender.lock().clone()?;
        sender.ready().await.ok()
    }
}

/// Sends the messages of a call that has more than one, as they come. Whoever reads the answer is told what broke.
async fn send(mut stream: SendStream<Bytes>, first: Option<Frame<Bytes>>, mut body: Body) {
    let mut next = match first {
        Some(frame) => Some(Ok(frame)),
        None => body.frame().await,
    };
    while let Some(Ok(frame)) = next {
        if stream.send_data(frame.into_data().unwrap_or_default(), false).is_err() {
            return;
        }
        next = body.frame().await;
    }
    match next {
        Some(_) => stream.send_reset(h2::Reason::CANCEL),
        None => drop(stream.send_data(Bytes::new(), true)),
    }
}

/// A call's answer as it arrives.
struct Answer {
    body: RecvStream,
    /// All data has come; trailers are next.
    ended: bool,
    _open: Open,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.ended {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.body.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.ended = true,
            }
        }
        let trailers = ready!(self.body.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;

    use crate::storage::testing::Etcd;
    use crate::storage::{Config, Storage, StorageError};
    use crate::tasks::Tasks;

    /// A storage whose one member is at this address, and what a read of it comes to within half a second.
    async fn read(address: std::net::SocketAddr) -> StorageError {
        let config = Config { deadline: Duration::from_millis(500), ..Config::new(vec![format!("http://{address}")]) };
        Storage::connect(&config, &Tasks::new()).await.unwrap().get("/registry/x").await.unwrap_err()
    }

    #[tokio::test]
    async fn a_call_that_was_not_sent_is_told_from_one_that_may_have_been_carried_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let refused = read(address).await;
        assert!(matches!(refused, StorageError::Unavailable(_)), "{refused}");

        // A member that reads each call and is gone before it answers.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                drop(connection.accept().await);
            }
        });
        let broken = read(address).await;
        assert!(matches!(broken, StorageError::Unknown(_)), "{broken}");
    }

    #[tokio::test]
    async fn a_connection_is_made_anew_when_the_member_comes_back() {
        let mut etcd = Etcd::start().await;
        let storage = Storage::connect(&etcd.config(), &Tasks::new()).await.unwrap();
        storage.revision().await.unwrap();
        etcd.kill();
        etcd.restart();
        storage.revision().await.unwrap();
    }

    #[test]
    fn an_address_that_makes_no_sense_is_refused_with_the_reason() {
        for (url, part) in [("localhost:2379", "http://"), ("ftp://x", "http://"), ("https://x:2379", "certificate authority"), ("http://", "")] {
            let error = super::Target::new(url, None).err().unwrap_or_else(|| panic!("{url} should be refused"));
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}
