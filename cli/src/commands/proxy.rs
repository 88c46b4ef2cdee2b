//! `proxy`: the API server on a local port, with this user's credentials.
//!
//! Speaks HTTP/1.1 itself: requests are read whole, answered through the client, and streamed back.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::app::Ctx;
use crate::outln;

/// Run a proxy to the Kubernetes API server
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The port on which to run the proxy. Set to 0 to pick a random port
    #[arg(short = 'p', long, default_value_t = 8001)]
    pub port: u16,
    /// The IP address on which to serve on
    #[arg(long, default_value = "127.0.0.1")]
    pub address: String,
    /// Prefix to serve the proxied API under
    #[arg(long, default_value = "/")]
    pub api_prefix: String,
    /// If true, disable request filtering in the proxy. This is dangerous, and can leave you vulnerable to XSRF attacks
    #[arg(long)]
    pub disable_filter: bool,
    /// Also serve static files from the given directory (not supported by kctl)
    #[arg(short = 'w', long, hide = true)]
    pub www: Option<String>,
}

impl Args {
    /// Runs the command.
    pub async fn run(&self, ctx: &Ctx) -> Result<()> {
        if self.www.is_some() {
            bail!("--www is not supported: kctl proxy serves the API only");
        }
        let ip = self.address.parse().with_context(|| format!("invalid address {:?}", self.address))?;
        let listener =
            TcpListener::bind(SocketAddr::new(ip, self.port)).await.with_context(|| format!("cannot listen on {}:{}", self.address, self.port))?;
        outln!("Starting to serve on {}", listener.local_addr()?);
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => open.push(self.serve(ctx, accepted?.0)),
                Some(ended) = open.next() => if let Err(error) = ended {
                    let error: anyhow::Error = error;
                    eprintln!("proxy: {error:#}");
                },
                _ = tokio::signal::ctrl_c() => return Ok(()),
            }
        }
    }

    async fn serve(&self, ctx: &Ctx, stream: TcpStream) -> Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Request::read(&mut stream).await? {
            let keep = self.answer(ctx, request, &mut stream).await?;
            if !keep {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn answer(&self, ctx: &Ctx, request: Request, stream: &mut BufReader<TcpStream>) -> Result<bool> {
        let refuse = |code: &str, text: &str| {
            format!("HTTP/1.1 {code}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
        };
        if !self.disable_filter && !self.accepts(&request) {
            stream.write_all(refuse("403 Forbidden", "Forbidden").as_bytes()).await?;
            return Ok(false);
        }
        let prefix = self.api_prefix.trim_end_matches('/');
        let Some(path) = request.path.strip_prefix(prefix).filter(|p| p.starts_with('/')) else {
            stream.write_all(refuse("404 Not Found", "404 page not found\n").as_bytes()).await?;
            return Ok(false);
        };
        let method = request.method.parse().context("invalid method")?;
        let accept = request.header("accept").unwrap_or("application/json");
        let body = (!request.body.is_empty()).then(|| (request.header("content-type").unwrap_or("application/json"), request.body.clone()));
        let mut response = match ctx.client().await?.send(method, path, accept, body).await {
            Ok(response) => response,
            Err(error) => {
                stream.write_all(refuse("502 Bad Gateway", &format!("{error}\n")).as_bytes()).await?;
                return Ok(false);
            }
        };
        let mut head = format!("HTTP/1.1 {}\r\n", response.status());
        for (name, value) in response.headers() {
            if !matches!(name.as_str(), "transfer-encoding" | "connection" | "content-length") {
                head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
            }
        }
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        while let Some(bytes) = response.chunk().await? {
            stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
            stream.write_all(&bytes).await?;
            stream.write_all(b"\r\n").await?;
        }
        stream.write_all(b"0\r\n\r\n").await?;
        Ok(true)
    }

    /// Upstream's default filter: only local names may be asked for, and nothing that opens a shell.
    fn accepts(&self, request: &Request) -> bool {
        let host = request.header("host").unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let local = matches!(name, "localhost" | "127.0.0.1" | "[::1]") || name == self.address;
        let path = request.path.split('?').next().unwrap_or_default();
        let shell = path.contains("/pods/") && (path.ends_with("/exec") || path.ends_with("/attach"));
        local && !shell
    }
}

struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

const MAX_HEAD: u64 = 64 * 1024;
const MAX_BODY: usize = 16 * 1024 * 1024;

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The next request of a connection; none when it is closed.
    async fn read(stream: &mut BufReader<TcpStream>) -> Result<Option<Request>> {
        let mut head = (&mut *stream).take(MAX_HEAD);
        let mut line = String::new();
        if head.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else { bail!("not an HTTP request: {line:?}") };
        let (method, path) = (method.to_owned(), path.to_owned());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            if head.read_line(&mut line).await? == 0 {
                bail!("the request's head ended early");
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_lowercase(), value.trim().to_owned()));
            }
        }
        let mut request = Request { method, path, headers, body: Vec::new() };
        let length: usize = request.header("content-length").unwrap_or("0").parse().context("invalid Content-Length")?;
        if length > MAX_BODY {
            bail!("the request's body is too large: {length} bytes");
        }
        if request.header("transfer-encoding").is_some() {
            bail!("chunked request bodies are not supported");
        }
        request.body = vec![0; length];
        stream.read_exact(&mut request.body).await?;
        Ok(Some(request))
    }
}
