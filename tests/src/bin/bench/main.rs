//! `make bench`: kserver's pace as ratios to what lies beneath or beside it, all measured in one run on one machine.
//!
//! Owns two clusters on a machine of its own (a network namespace): one with simulated nodes for the API's figures, one with a
//! real node for pods. Prints one Markdown table. `bench SECTION…` measures some of it.

mod api;
mod pods;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::{Cluster, Start, stock};

/// A row of the table.
pub struct Row {
    what: String,
    ours: String,
    theirs: String,
    ratio: String,
}

impl Row {
    /// A figure of ours beside another's, and ours over theirs.
    pub fn ratio(what: impl Into<String>, (ours, theirs): (f64, f64), unit: &str) -> Self {
        Row { what: what.into(), ours: format!("{ours:.0} {unit}"), theirs: format!("{theirs:.0} {unit}"), ratio: format!("{:.2}", ours / theirs) }
    }
    /// A figure that has nothing beside it.
    pub fn alone(what: impl Into<String>, ours: impl Into<String>) -> Self {
        Row { what: what.into(), ours: ours.into(), theirs: String::new(), ratio: String::new() }
    }
}

/// The middle one of some durations.
pub fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [inner @ ("api" | "floor" | "pods"), data, sections @ ..] = &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        // Inside the machine: the part that talks to the cluster itself.
        let rows = tokio::runtime::Runtime::new()?.block_on(async {
            match *inner {
                "api" => api::run(data.as_ref(), sections).await,
                "floor" => api::serve_floor(data.as_ref()).await.map(|()| Vec::new()),
                _ => pods::run(data.as_ref()).await,
            }
        })?;
        for row in rows {
            println!("{}\t{}\t{}\t{}", row.what, row.ours, row.theirs, row.ratio);
        }
        return Ok(());
    }
    let known = || api::SECTIONS.into_iter().chain(["clients", "pods"]);
    if let Some(unknown) = arguments.iter().find(|a| known().all(|k| k != a.as_str())) {
        anyhow::bail!("there is no section {unknown:?}; there are: {}", known().collect::<Vec<_>>().join(", "));
    }
    let wanted = |section: &str| arguments.is_empty() || arguments.iter().any(|a| a == section);
    ensure!(rustix::process::geteuid().is_root(), "run it as root: it starts containers");
    Cluster::remove_stale();
    let mut rows = Vec::new();
    let sections: Vec<&str> = api::SECTIONS.into_iter().filter(|s| wanted(s)).collect();
    if !sections.is_empty() || wanted("clients") {
        eprintln!("bench: the API, on a cluster with a simulated node");
        let cluster = Cluster::prepare(Start { simulated_nodes: Some(1), ..Start::default() });
        let begun = Instant::now();
        cluster.up().ok();
        rows.push(Row::alone("first start, from exec to ready (new etcd, new keys)", format!("{:.2} s", begun.elapsed().as_secs_f64())));
        if wanted("clients") {
            rows.push(clients(&cluster));
        }
        if !sections.is_empty() {
            rows.extend(inner(&cluster, "api", &sections)?);
        }
    }
    if wanted("pods") {
        eprintln!("bench: pods, on a cluster with a real node");
        let cluster = Cluster::with_containers();
        cluster.kserver(&["down"]).ok();
        let begun = Instant::now();
        cluster.up().ok();
        rows.push(Row::alone("later start, from exec to node Ready (containers too)", format!("{:.2} s", begun.elapsed().as_secs_f64())));
        rows.extend(inner(&cluster, "pods", &[])?);
    }
    println!("| | kserver | beside it | ratio |\n|---|---|---|---|");
    for row in rows {
        println!("| {} | {} | {} | {} |", row.what, row.ours, row.theirs, row.ratio);
    }
    Ok(())
}

/// Runs this program on the cluster's machine and reads its rows.
fn inner(cluster: &Cluster, part: &str, sections: &[&str]) -> Result<Vec<Row>> {
    let mut command: Command = cluster.machine.command(std::env::current_exe()?);
    command.arg(part).arg(cluster.data_dir()).args(sections);
    let output = tests::machine::run(command);
    eprint!("{}", output.stderr);
    let text = output.ok();
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut cells = line.split('\t').map(str::to_owned);
            Some(Row { what: cells.next()?, ours: cells.next()?, theirs: cells.next()?, ratio: cells.next()? })
        })
        .collect())
}

/// `kctl get pods` beside `kubectl get pods`, both warm, alternating.
fn clients(cluster: &Cluster) -> Row {
    let time = |kctl: bool| {
        let begun = Instant::now();
        let output = if kctl { cluster.kctl("get pods") } else { cluster.kubectl("get pods") };
        output.ok();
        begun.elapsed()
    };
    stock("kubectl");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..22 {
        let (a, b) = (time(true), time(false));
        if round >= 2 {
            ours.push(a);
            theirs.push(b);
        }
    }
    Row::ratio("`kctl get pods`, warm, beside stock kubectl", (median(ours).as_secs_f64() * 1e3, median(theirs).as_secs_f64() * 1e3), "ms")
}
