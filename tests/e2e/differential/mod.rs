//! The same command lines through kctl and through stock kubectl, on one server, compared byte for byte.
//!
//! The lines are data: `cases/*.txt` hold stories, a story is a namespace (or one for each client) and the lines run in it one after
//! the other. What must differ (names of namespaces, uids, versions, times) is replaced by [`normal`]; what differs on purpose
//! stands with its reason in `deliberate.txt`, and a line there that agrees again fails the test.

mod deliberate;
mod normal;
mod story;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;

use libtest_mimic::{Failed, Trial};
use tests::cluster::Start;
use tests::machine::run;
use tests::{Cluster, Output, bin_dir, eventually, source, stock};

use deliberate::Deliberate;
use normal::Normal;
use story::{Line, Story};

static CLUSTER: LazyLock<Mutex<Option<Arc<Cluster>>>> = LazyLock::new(Mutex::default);

/// The cluster with simulated nodes, started by the first story.
fn cluster() -> Arc<Cluster> {
    let mut cluster = CLUSTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    cluster.get_or_insert_with(|| Arc::new(Cluster::new(Start { simulated_nodes: Some(2), ..Start::default() }))).clone()
}

/// Stops the cluster, if a story started it.
pub fn stop() {
    drop(CLUSTER.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
}

/// One test for each story.
pub fn trials() -> Vec<Trial> {
    let deliberate = Arc::new(Deliberate::read(&directory().join("deliberate.txt")));
    let stories = story::read(&directory().join("cases"));
    deliberate.names_lines_of(&stories);
    stories
        .into_iter()
        .map(|story| {
            let deliberate = deliberate.clone();
            Trial::test(format!("differential::{}", story.name), move || tell(&story, &deliberate))
        })
        .collect()
}

fn directory() -> PathBuf {
    source("e2e/differential")
}

/// One client in its place.
struct Side {
    program: PathBuf,
    namespace: String,
    directory: PathBuf,
    home: PathBuf,
}

impl Side {
    /// A working directory with the files of the tables and a kubeconfig whose context is the namespace.
    fn new(cluster: &Cluster, story: &Story, letter: char, program: PathBuf) -> Side {
        let root = cluster.data_dir().with_file_name("differential");
        // One namespace for both where nothing is changed; else two of equal length, so that tables align alike.
        let namespace = if story.shared { format!("d-{}", story.name) } else { format!("d-{}-{letter}", story.name) };
        let side = Side { program, namespace, directory: root.join(format!("{}-{letter}", story.name)), home: root.join(format!("home-{letter}")) };
        std::fs::create_dir_all(&side.home).expect("the temporary directory can be written");
        std::fs::create_dir_all(&root).expect("the temporary directory can be written");
        run({
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(directory().join("files")).arg(&side.directory);
            copy
        })
        .ok();
        std::fs::copy(cluster.kubeconfig(), side.directory.join("kubeconfig")).expect("the kubeconfig can be copied");
        side.stock(cluster, &format!("config set-context --current --namespace={}", side.namespace)).ok();
        side
    }

    /// The namespace, there and with its service account.
    fn prepare(&self, cluster: &Cluster) {
        self.stock(cluster, &format!("create namespace {}", self.namespace)).ok();
        eventually("the namespace has its service account", || {
            let found = self.stock(cluster, "get serviceaccount/default configmap/kube-root-ca.crt");
            if found.succeeded() { Ok(()) } else { Err(found.to_string()) }
        });
    }

    fn stock(&self, cluster: &Cluster, line: &str) -> Output {
        self.run(cluster, &stock("kubectl"), line)
    }

    /// Runs a line as a shell would; one that hangs is ended.
    fn run(&self, cluster: &Cluster, program: &Path, line: &str) -> Output {
        let line = line.replace("{ns}", &self.namespace).replace("{dir}", &self.directory.to_string_lossy());
        let script = line.strip_prefix("$ ").map_or_else(|| format!("\"$K\" {line}"), ToOwned::to_owned);
        let mut command = cluster.client("timeout".into(), &["30", "sh", "-c", &script]);
        command.current_dir(&self.directory).env("K", program).env("KUBECONFIG", self.directory.join("kubeconfig")).env("HOME", &self.home);
        command.env("LANG", "C.UTF-8").env_remove("EDITOR").env_remove("KUBE_EDITOR").stdin(Stdio::null());
        run(command)
    }
}

/// Runs a story through both clients and lists where they part.
fn tell(story: &Story, deliberate: &Deliberate) -> Result<(), Failed> {
    let cluster = cluster();
    let sides = [Side::new(&cluster, story, 'a', bin_dir().join("kctl")), Side::new(&cluster, story, 'b', stock("kubectl"))];
    let own = if story.shared { &sides[..1] } else { &sides[..] };
    own.iter().for_each(|side| side.prepare(&cluster));
    let mut failures = Vec::new();
    let every = std::env::var_os("DIFFERENTIAL").is_some_and(|v| v == "all");
    for line in &story.lines {
        match line {
            Line::Rare(_) if !every => {}
            Line::Setup(line) => thread::scope(|scope| {
                own.iter().for_each(|side| drop(scope.spawn(|| side.stock(&cluster, line).ok())));
            }),
            Line::Case(line) | Line::Rare(line) => {
                let [ours, theirs] = both(&cluster, story, &sides, line).map(|(output, side)| Normal::of(&output, side, story.shared));
                failures.extend(deliberate.judge(story, line, &ours, &theirs));
            }
        }
    }
    for side in own {
        side.stock(&cluster, &format!("delete namespace {} --wait=false", side.namespace)).ok();
    }
    match failures.len() {
        0 => Ok(()),
        count => Err(format!("{count} of {} lines differ\n{}", story.lines.len(), failures.join("\n")).into()),
    }
}

/// Both clients at once, where each has a namespace and a directory of its own or changes nothing; else in turn.
fn both<'a>(cluster: &Cluster, story: &Story, sides: &'a [Side; 2], line: &str) -> [(Output, &'a Side); 2] {
    if story.in_turn {
        return sides.each_ref().map(|side| (side.run(cluster, &side.program, line), side));
    }
    thread::scope(|scope| {
        let running = sides.each_ref().map(|side| scope.spawn(move || (side.run(cluster, &side.program, line), side)));
        running.map(|thread| thread.join().expect("a client is run to its end"))
    })
}
