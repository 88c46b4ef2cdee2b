//! A real etcd for tests: its own directory and ports, killed when dropped.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Config, Storage};
use crate::tasks::Tasks;

/// A running etcd.
pub struct Etcd {
    child: Child,
    dir: tempfile::TempDir,
    client: u16,
    peer: u16,
}

/// Two ports that were free a moment ago.
fn free_ports() -> (u16, u16) {
    let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (a, b) = (bind(), bind());
    (a.local_addr().unwrap().port(), b.local_addr().unwrap().port())
}

impl Etcd {
    /// Starts one on an empty directory and waits until it answers.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (client, peer) = free_ports();
        let child = Self::spawn(dir.path(), client, peer);
        let etcd = Etcd { child, dir, client, peer };
        etcd.ready().await;
        etcd
    }

    fn spawn(dir: &std::path::Path, client: u16, peer: u16) -> Child {
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        Command::new("etcd")
            .args(["--name", "t", "--data-dir"])
            .arg(dir)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client, "--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("t={peer}"), "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("tests need etcd in PATH")
    }

    async fn ready(&self) {
        let tasks = Tasks::new();
        let storage = Storage::connect(&Config { deadline: Duration::from_secs(30), ..self.config() }, &tasks).await.unwrap();
        storage.revision().await.expect("etcd answers within 30 s");
        tasks.cancel();
    }

    /// How to reach it.
    pub fn config(&self) -> Config {
        Config::new(vec![format!("http://127.0.0.1:{}", self.client)])
    }

    /// A connection to it.
    pub async fn storage(&self, tasks: &Tasks) -> Storage {
        Storage::connect(&self.config(), tasks).await.unwrap()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Throws its data away; it must be dead.
    pub fn wipe(&mut self) {
        self.dir = tempfile::tempdir().unwrap();
    }

    /// Starts it again on the same directory and ports, without waiting.
    pub fn restart(&mut self) {
        self.child = Self::spawn(self.dir.path(), self.client, self.peer);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition holds; panics after 30 s.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
