//! Carries bytes between two connections.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

/// Carries bytes both ways until each side has said all it had. A side that takes nothing more may still have something to say: the rest of
/// a command's output, after its input was closed. So what breaks one direction ends that direction alone.
pub async fn both_ways<A, B>(a: A, b: B)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let ((a_read, a_write), (b_read, b_write)) = (tokio::io::split(a), tokio::io::split(b));
    tokio::join!(one_way(a_read, b_write), one_way(b_read, a_write));
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    if let Err(error) = tokio::io::copy(&mut from, &mut to).await {
        tracing::debug!(%error, "a stream broke off");
    }
    // The other side learns of the end, however it came.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn output_arrives_although_its_writer_takes_no_input_any_more() {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let relay = tokio::spawn(super::both_ways(near, far));
        // Larger than any socket's buffer, and never read: the relay is in the middle of writing when the other side resets.
        let flood = tokio::spawn(async move {
            let _ = client.write_all(&vec![0; 32 << 20]).await;
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.map(|_| heard)
        });
        server.write_all(b"the last words").await.unwrap();
        server.shutdown().await.unwrap();
        let mut taken = vec![0; 1 << 16];
        while server.read(&mut taken).await.unwrap_or(0) > 0 {}
        assert_eq!(flood.await.unwrap().unwrap(), b"the last words");
        relay.await.unwrap();
    }
}
