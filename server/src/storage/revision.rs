//! The linearizable read of etcd's revision that concurrent readers share.
//!
//! A reader must not use an answer that was already on its way when it asked. So callers queue while a read is under way, and the next
//! read, begun after all of them asked, answers them together.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, KvClient};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::pool::Pool;
use super::{OWN_PREFIX, StorageError};
use crate::tasks::Tasks;

/// How often others are let go first before a read, at most.
const TURNS: usize = 8;

type Answer = oneshot::Sender<Result<i64, StorageError>>;

#[derive(Clone)]
pub(super) struct Shared {
    asks: mpsc::UnboundedSender<Answer>,
}

impl Shared {
    pub(super) fn start(pool: Arc<Pool>, deadline: Duration, tasks: &Tasks) -> Self {
        let (asks, mut queue) = mpsc::unbounded_channel::<Answer>();
        tasks.spawn("storage/revision", async move {
            let mut waiting = Vec::new();
            while queue.recv_many(&mut waiting, usize::MAX).await > 0 {
                gather(&mut queue, &mut waiting).await;
                let answer = read(&pool, deadline).await;
                for ask in waiting.drain(..) {
                    // A caller that has given up needs no answer.
                    let _ = ask.send(answer.clone());
                }
            }
        });
        Shared { asks }
    }

    pub(super) async fn read(&self) -> Result<i64, StorageError> {
        let (answer, receiver) = oneshot::channel();
        let stopped = || StorageError::Unavailable("the server is stopping".into());
        self.asks.send(answer).map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }
}

/// Lets those ask too who are ready to, but for their turn: when there is much to do, a read for each of a few callers would keep etcd and
/// this server from everything else. When there is nothing else to do, one turn tells so.
async fn gather(queue: &mut mpsc::UnboundedReceiver<Answer>, waiting: &mut Vec<Answer>) {
    for _ in 0..TURNS {
        let before = waiting.len();
        tokio::task::yield_now().await;
        while let Ok(ask) = queue.try_recv() {
            waiting.push(ask);
        }
        if waiting.len() == before {
            return;
        }
    }
}

/// Counts one key that never exists: the cheapest read that goes through the leader.
async fn read(pool: &Pool, deadline: Duration) -> Result<i64, StorageError> {
    let key = format!("{OWN_PREFIX}none");
    let key = key.as_str();
    let response =
        pool.retry(Instant::now() + deadline, |mut kv: KvClient| async move { kv.get(key, Some(GetOptions::new().with_count_only())).await }).await?;
    response.header().map(etcd_client::ResponseHeader::revision).ok_or_else(|| StorageError::Other("an answer without a header".into()))
}
