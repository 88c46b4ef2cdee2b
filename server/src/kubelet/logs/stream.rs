//! Streams a container's log, waiting for more by inotify while the container lives.
//!
//! One inotify instance serves every follower of the process: a machine has few of them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::{Options, files, parse, tail_start};
use crate::tasks::Tasks;

/// Longest stored line: 16 KiB of text and its prefix.
const MAX_LINE: usize = 32 << 10;
const CHUNK: usize = 64 << 10;

type Watchers = HashMap<i32, Weak<watch::Sender<u64>>>;

/// Tells when something in a directory changes.
#[derive(Clone)]
pub struct Watcher {
    fd: Arc<AsyncFd<OwnedFd>>,
    watchers: Arc<Mutex<Watchers>>,
}

impl Watcher {
    /// Opens the inotify instance and spawns its reader.
    // Deprecated for types whose descriptor may change behind its back; an `OwnedFd` keeps its own, and the successor is unsafe.
    #[allow(deprecated)]
    pub fn new(tasks: &Tasks) -> io::Result<Self> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let watcher = Watcher { fd: Arc::new(AsyncFd::new(fd)?), watchers: Arc::default() };
        let reader = watcher.clone();
        tasks.spawn("log-watcher", async move {
            if let Err(error) = reader.read().await {
                tracing::error!(%error, "inotify failed");
            }
        });
        Ok(watcher)
    }

    async fn read(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(self.fd.get_ref().as_fd(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => self.tell(event.wd()),
                    Err(rustix::io::Errno::AGAIN) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
        }
    }

    fn tell(&self, descriptor: i32) {
        let sender = self.watchers.lock().get(&descriptor).and_then(Weak::upgrade);
        if let Some(sender) = sender {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Counts the changes in a directory for as long as the sender lives.
    fn watch(&self, dir: &Path) -> io::Result<(Arc<watch::Sender<u64>>, watch::Receiver<u64>)> {
        use inotify::WatchFlags;
        let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let mut watchers = self.watchers.lock();
        self.forget_unused(&mut watchers);
        let descriptor = inotify::add_watch(self.fd.get_ref(), dir, flags)?;
        if let Some(sender) = watchers.get(&descriptor).and_then(Weak::upgrade) {
            let receiver = sender.subscribe();
            return Ok((sender, receiver));
        }
        let sender = Arc::new(watch::Sender::new(0));
        let receiver = sender.subscribe();
        watchers.insert(descriptor, Arc::downgrade(&sender));
        Ok((sender, receiver))
    }

    fn forget_unused(&self, watchers: &mut Watchers) {
        watchers.retain(|descriptor, weak| {
            let used = weak.strong_count() > 0;
            if !used {
                // It is gone already if the directory is.
                let _ = inotify::remove_watch(self.fd.get_ref(), *descriptor);
            }
            used
        });
    }
}

/// A log to be streamed.
pub struct Source {
    /// The pod's log directory.
    pub dir: PathBuf,
    /// File in it.
    pub file: String,
    /// Becomes true when nothing more will be written.
    pub ended: watch::Receiver<bool>,
}

/// Sends the log as it is asked for. Ends when the log does, when the limit is reached, or when nobody listens any more.
pub async fn send(watcher: Watcher, source: Source, options: Options, out: mpsc::Sender<Bytes>) -> io::Result<()> {
    let path = source.dir.join(&source.file);
    let changes = match (options.follow, path.parent()) {
        (true, Some(parent)) => Some(watcher.watch(parent)?),
        _ => None,
    };
    let mut reader = Reader { file: files::open(&source.dir, &source.file)?, pending: Vec::new(), left: options.limit };
    reader.skip(options.tail)?;
    let mut ended = source.ended;
    let Some((_sender, mut changes)) = changes else {
        return reader.drain(&options, &out).await.map(drop);
    };
    loop {
        changes.borrow_and_update();
        let was_over = *ended.borrow_and_update();
        if !reader.drain(&options, &out).await? {
            return Ok(());
        }
        if let Some(new) = reader.replacement(&source.dir, &source.file)? {
            // What was written to the old file until the runtime opened the new one.
            if !reader.drain(&options, &out).await? {
                return Ok(());
            }
            reader.pending.clear();
            reader.file = new;
            continue;
        }
        if was_over {
            return Ok(());
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return Ok(()) },
            changed = ended.changed() => if changed.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

struct Reader {
    file: File,
    /// The beginning of a line whose end is not written yet.
    pending: Vec<u8>,
    left: Option<u64>,
}

impl Reader {
    /// Goes to the last lines.
    fn skip(&mut self, tail: Option<u64>) -> io::Result<()> {
        let Some(count) = tail else { return Ok(()) };
        let size = self.file.metadata()?.len();
        let mut window = CHUNK as u64;
        loop {
            let from = size.saturating_sub(window);
            self.file.seek(SeekFrom::Start(from))?;
            let mut text = Vec::new();
            Read::by_ref(&mut self.file).take(size - from).read_to_end(&mut text)?;
            let start = tail_start(&text, count);
            // A tail that starts at the window's edge may go on before it.
            if start > 0 || from == 0 {
                self.file.seek(SeekFrom::Start(from + start as u64))?;
                return Ok(());
            }
            window = window.saturating_mul(4);
        }
    }

    /// Sends what is there; false when nothing more is wanted.
    async fn drain(&mut self, options: &Options, out: &mpsc::Sender<Bytes>) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = self.file.read(&mut buffer)?;
            if count == 0 {
                return Ok(true);
            }
            self.pending.extend_from_slice(&buffer[..count]);
            let mut text = Vec::new();
            let mut from = 0;
            while let Some(at) = self.pending[from..].iter().position(|b| *b == b'\n') {
                if let Some(line) = parse(&self.pending[from..from + at]) {
                    options.render(&line, &mut text);
                }
                from += at + 1;
            }
            self.pending.drain(..from);
            if self.pending.len() > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "log line too long"));
            }
            let more = self.cut(&mut text);
            if (!text.is_empty() && out.send(Bytes::from(text)).await.is_err()) || !more {
                return Ok(false);
            }
        }
    }

    /// Enforces the byte limit; false when it is used up.
    fn cut(&mut self, text: &mut Vec<u8>) -> bool {
        let Some(left) = &mut self.left else { return true };
        text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= text.len() as u64;
        *left > 0
    }

    /// The new file, if the one that is read has been set aside.
    fn replacement(&self, dir: &Path, file: &str) -> io::Result<Option<File>> {
        match files::open(dir, file) {
            Ok(new) if new.metadata()?.ino() != self.file.metadata()?.ino() => Ok(Some(new)),
            Ok(_) => Ok(None),
            // Between the renaming and the reopening.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    async fn next(receiver: &mut mpsc::Receiver<Bytes>) -> Option<String> {
        let got = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await.expect("no log in time");
        got.map(|b| String::from_utf8(b.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn following_sees_new_lines_and_survives_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c/0.log");
        std::fs::create_dir(dir.path().join("c")).unwrap();
        std::fs::write(&path, "t stdout F a\nt stdout F b\n").unwrap();
        let tasks = Tasks::new();
        let watcher = Watcher::new(&tasks).unwrap();
        let (over, ended) = watch::channel(false);
        let (sender, mut receiver) = mpsc::channel(8);
        let source = Source { dir: dir.path().into(), file: "c/0.log".into(), ended };
        let options = Options { follow: true, tail: Some(1), ..Options::default() };
        let task = tokio::spawn(send(watcher, source, options, sender));
        assert_eq!(next(&mut receiver).await.as_deref(), Some("b\n"));
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"t stdout F c\n").unwrap();
        assert_eq!(next(&mut receiver).await.as_deref(), Some("c\n"));
        std::fs::rename(&path, dir.path().join("c/0.log.1")).unwrap();
        std::fs::write(&path, "t stdout F d\n").unwrap();
        assert_eq!(next(&mut receiver).await.as_deref(), Some("d\n"));
        over.send_replace(true);
        assert_eq!(next(&mut receiver).await, None);
        task.await.unwrap().unwrap();
        tasks.shutdown(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn the_byte_limit_cuts_the_log() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.log"), "t stdout F hello\nt stdout F world\n").unwrap();
        let tasks = Tasks::new();
        let watcher = Watcher::new(&tasks).unwrap();
        let (sender, mut receiver) = mpsc::channel(8);
        let source = Source { dir: dir.path().into(), file: "x.log".into(), ended: watch::channel(true).1 };
        send(watcher, source, Options { limit: Some(7), ..Options::default() }, sender).await.unwrap();
        assert_eq!(next(&mut receiver).await.as_deref(), Some("hello\nw"));
        tasks.shutdown(Duration::from_secs(5)).await;
    }
}
