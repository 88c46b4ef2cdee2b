//! The end-to-end suite: one binary, a file an area, each test a story told through the real programs.
//!
//! Most stories share one cluster and keep to a namespace of their own; those that crash things start their own.

mod admission;
mod api;
mod app;
mod clients;
mod crash;
mod deck;
mod differential;
mod extensions;
mod helm;
mod kinds;
mod kube_rs;
mod kubeconfig;
mod kubectl;
mod lifecycle;
mod network;
mod policy;
mod promises;
mod python;
mod shells;
mod terminal;

use std::sync::{Arc, LazyLock, Mutex};

use libtest_mimic::{Arguments, Trial};
use tests::Cluster;

/// A story on the shared cluster.
type Shared = (&'static str, fn(&Cluster));
/// A story that brings its own.
type Own = (&'static str, fn());

static SHARED: LazyLock<Mutex<Option<Arc<Cluster>>>> = LazyLock::new(Mutex::default);

/// The shared cluster, started by the first story that asks.
fn shared() -> Arc<Cluster> {
    let mut shared = SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    shared.get_or_insert_with(|| Arc::new(Cluster::with_containers())).clone()
}

fn main() {
    let arguments = Arguments::from_args();
    let on_shared = [
        admission::TESTS,
        api::TESTS,
        app::TESTS,
        clients::TESTS,
        deck::TESTS,
        extensions::TESTS,
        helm::TESTS,
        &kube_rs::shared(),
        kubeconfig::TESTS,
        &kubectl::shared(),
        network::TESTS,
        policy::TESTS,
        python::TESTS,
        shells::TESTS,
        terminal::TESTS,
    ]
    .concat();
    let on_own = [crash::TESTS, kinds::TESTS, kubectl::OWN, lifecycle::TESTS, promises::TESTS].concat();
    let mut trials: Vec<Trial> = on_shared
        .into_iter()
        .map(|(name, story): Shared| {
            Trial::test(name, move || {
                story(&shared());
                Ok(())
            })
        })
        .collect();
    trials.extend(on_own.into_iter().map(|(name, story): Own| {
        Trial::test(name, move || {
            story();
            Ok(())
        })
    }));
    trials.extend(differential::trials());
    if !arguments.list {
        assert!(rustix::process::geteuid().is_root(), "the end-to-end tests run containers: run them as root");
        Cluster::remove_stale();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Statics are not dropped: stop the cluster by hand.
    drop(SHARED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take());
    differential::stop();
    conclusion.exit();
}
