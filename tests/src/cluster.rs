//! A cluster under test: `kserver` on a machine of its own, with both clients pointed at it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::machine::run;
use crate::{Machine, Output, Running, bin_dir, source, stock};

/// How a cluster is started.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Nodes without containers, in place of a real one.
    pub simulated_nodes: Option<u32>,
    /// Further flags.
    pub flags: Vec<String>,
}

/// A running cluster. Stopped and removed when dropped.
pub struct Cluster {
    /// Where it runs.
    pub machine: Machine,
    home: TempDir,
    start: Start,
}

/// Directories of clusters begin with this, followed by the test process's id.
const PREFIX: &str = "kserver-test-";

impl Cluster {
    /// Starts a cluster with one real node and the test images.
    pub fn with_containers() -> Self {
        let cluster = Self::new(Start::default());
        let images = cluster.home.path().join("images.tar");
        run({
            let mut command = Command::new(source("images/build"));
            command.arg(&images);
            command
        })
        .ok();
        cluster.kserver(&["image", "import", &images.to_string_lossy()]).ok();
        cluster
    }

    /// Starts a cluster.
    pub fn new(start: Start) -> Self {
        let cluster = Self::prepare(start);
        cluster.up().ok();
        cluster
    }

    /// A cluster that is not started yet.
    pub fn prepare(start: Start) -> Self {
        let home = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir().expect("a temporary directory");
        Cluster { machine: Machine::new(), home, start }
    }

    /// Removes what clusters of test processes that are gone have left.
    pub fn remove_stale() {
        let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
        for path in entries.flatten().map(|e| e.path()) {
            let pid = path.file_name().and_then(|n| n.to_str()?.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = Command::new(bin_dir().join("kserver")).args(["reset", "--data-dir"]).arg(path.join("data")).stdout(Stdio::null()).status();
                let _ = std::fs::remove_dir_all(&path);
            }
        }
        Machine::remove_stale();
    }

    /// `kserver up --detach`.
    pub fn up(&self) -> Output {
        let mut args = vec!["up".to_owned(), "--detach".into(), "--kubeconfig".into(), self.kubeconfig().to_string_lossy().into_owned()];
        if let Some(n) = self.start.simulated_nodes {
            args.push(format!("--simulated-nodes={n}"));
        }
        args.extend(self.start.flags.iter().cloned());
        self.kserver(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// A place for a test's files.
    pub fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, contents).expect("the temporary directory can be written");
        path
    }

    /// The kubeconfig that `up` merges its context into.
    pub fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("kubeconfig")
    }

    /// Runs kserver on this cluster's data directory.
    pub fn kserver(&self, args: &[&str]) -> Output {
        let mut command = self.client(bin_dir().join("kserver"), args);
        command.arg("--data-dir").arg(self.data_dir());
        run(command)
    }

    /// Process id of the running kserver.
    pub fn pid(&self) -> i32 {
        let record = std::fs::read_to_string(self.data_dir().join("instance.json")).expect("a started cluster has a record");
        let record: serde_json::Value = serde_json::from_str(&record).expect("the record is JSON");
        i32::try_from(record["pid"].as_i64().expect("the record has a pid")).expect("a pid fits")
    }

    /// A command with this cluster's kubeconfig and a home of its own.
    pub fn client(&self, program: PathBuf, args: &[&str]) -> Command {
        let mut command = self.machine.command(program);
        command.args(args).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.home.path()).env_remove("XDG_CACHE_HOME").env_remove("KUBECACHEDIR");
        command
    }

    /// Runs our client. Words are separated by spaces; `'…'` keeps some together.
    pub fn kctl(&self, line: &str) -> Output {
        run(self.client(bin_dir().join("kctl"), &words(line).iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// Runs the stock client.
    pub fn kubectl(&self, line: &str) -> Output {
        run(self.client(stock("kubectl"), &words(line).iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// Runs both clients one after the other: for what only reads.
    pub fn both(&self, line: &str) -> [Output; 2] {
        [self.kctl(line), self.kubectl(line)]
    }

    /// Feeds a manifest to `kctl create -f -`.
    pub fn create(&self, manifest: &str) -> Output {
        self.pipe(bin_dir().join("kctl"), "create -f -", manifest)
    }

    /// Feeds text to a client.
    pub fn pipe(&self, program: PathBuf, line: &str, input: &str) -> Output {
        let args = words(line);
        let mut command = self.client(program, &args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the client starts");
        // A client that fails early closes its end; its exit code tells.
        let _ = child.stdin.take().expect("stdin is a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("the client ends");
        Output {
            command: line.to_owned(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Starts a client that goes on by itself.
    pub fn start(&self, program: PathBuf, line: &str) -> Running {
        Running::start(self.client(program, &words(line).iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// Starts a client on a terminal, which `script` gives it. The line is read by a shell.
    pub fn start_on_terminal(&self, program: &Path, line: &str) -> Running {
        Running::start(self.client("script".into(), &["-qefc", &format!("{} {line}", program.display()), "/dev/null"]))
    }

    /// Creates a namespace for a test and returns its name.
    pub fn namespace<'a>(&self, name: &'a str) -> &'a str {
        self.kctl(&format!("create namespace {name}")).prints(&format!("namespace/{name} created\n"));
        name
    }

    /// A JSONPath of an object, empty while it is not there.
    pub fn path(&self, resource: &str, jsonpath: &str) -> String {
        let mut args = words(&format!("get {resource} -o"));
        args.push(format!("jsonpath={jsonpath}"));
        run(self.client(bin_dir().join("kctl"), &args.iter().map(String::as_str).collect::<Vec<_>>())).stdout
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data_dir().join("logs/kserver.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the end of kserver.log\n{}\n---", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let output = self.kserver(&["reset"]);
        if output.code != 0 {
            eprintln!("{output}");
        }
    }
}

/// Splits a line at spaces, keeping what stands between single quotes together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quoted, mut open) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                open = true;
            }
            ' ' if !quoted => {
                if open || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                open = false;
            }
            c => word.push(c),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}
