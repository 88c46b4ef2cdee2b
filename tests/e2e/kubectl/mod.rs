//! Stock kubectl, command by command: each does what it says, and what it says is so.
//!
//! A file an area: `objects` for what only reads and writes, `reading` for what is shown, `pods` for containers, `rollouts` for what
//! controllers follow, `nodes` for what takes a cluster of its own, `older` for clients of earlier versions.

mod nodes;
mod objects;
mod older;
mod pods;
mod reading;
mod rollouts;

use std::path::PathBuf;

use tests::machine::run;
use tests::{Cluster, Output, Running, eventually, stock};

use crate::{Own, Shared};

/// Stories on the shared cluster.
pub fn shared() -> Vec<Shared> {
    [objects::TESTS, reading::TESTS, pods::TESTS, rollouts::TESTS, older::TESTS].concat()
}

/// Stories on their own.
pub const OWN: &[Own] = nodes::TESTS;

/// A kubectl in a namespace.
struct Kubectl<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    program: PathBuf,
}

impl<'a> Kubectl<'a> {
    /// The stock one, in a new namespace.
    fn new(cluster: &'a Cluster, namespace: &'a str) -> Self {
        Kubectl { cluster, namespace: cluster.namespace(namespace), program: stock("kubectl") }
    }
    fn line(&self, line: &str) -> String {
        format!("-n {} {line}", self.namespace)
    }
    /// Runs it.
    #[track_caller]
    fn run(&self, line: &str) -> Output {
        self.pipe(line, "")
    }
    /// Runs it with input.
    #[track_caller]
    fn pipe(&self, line: &str, input: &str) -> Output {
        self.cluster.pipe(self.program.clone(), &self.line(line), input)
    }
    /// Runs it with an editor: a shell command that is given the file.
    #[track_caller]
    fn edit(&self, line: &str, editor: &str) -> Output {
        let script = self.cluster.file(&format!("editor-{}", self.namespace), editor);
        let line = self.line(line);
        let mut command = self.cluster.client(self.program.clone(), &line.split(' ').collect::<Vec<_>>());
        command.env("KUBE_EDITOR", format!("sh {}", script.display()));
        run(command)
    }
    /// Starts it, to go on.
    fn start(&self, line: &str) -> Running {
        self.cluster.start(self.program.clone(), &self.line(line))
    }
    /// Starts it on a terminal.
    fn start_on_terminal(&self, line: &str) -> Running {
        self.cluster.start_on_terminal(&self.program, &self.line(line))
    }
    /// A JSONPath of objects.
    #[track_caller]
    fn path(&self, resource: &str, path: &str) -> String {
        self.run(&format!("get {resource} -o 'jsonpath={path}'")).ok()
    }
    /// Waits until a JSONPath of objects is this.
    #[track_caller]
    fn becomes(&self, resource: &str, path: &str, wanted: &str) {
        eventually(&format!("{path} of {resource} is {wanted:?}"), || {
            let found = self.run(&format!("get {resource} -o 'jsonpath={path}'"));
            if found.succeeded() && found.stdout == wanted { Ok(()) } else { Err(found.to_string()) }
        });
    }
    /// Removes the namespace and does not wait: the cluster goes on with other stories.
    fn leave(self) {
        self.run(&format!("delete namespace {} --wait=false", self.namespace)).ok();
    }
}
