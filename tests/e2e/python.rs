//! Python's `kubernetes` package: its story is told in Python, by `python.py`.

use tests::machine::run;
use tests::{Cluster, source, stock};

use crate::Shared;

pub const TESTS: &[Shared] = &[("python::its_kubernetes_package_works_unmodified", its_kubernetes_package_works_unmodified)];

fn its_kubernetes_package_works_unmodified(c: &Cluster) {
    let n = c.namespace("python");
    run(c.client(stock("python"), &[&source("e2e/python.py").to_string_lossy(), n])).prints("done\n");
    c.kubectl(&format!("delete namespace {n} --wait=false")).ok();
}
