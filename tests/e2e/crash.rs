//! kill -9 of everything, at the worst moment.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::{Cluster, eventually, eventually_within};

use crate::Own;

pub const TESTS: &[Own] = &[
    ("crash::a_rollout_survives_the_death_of_kserver", a_rollout_survives_the_death_of_kserver),
    ("crash::the_server_outlives_etcd", the_server_outlives_etcd),
    ("crash::pods_outlive_containerd", pods_outlive_containerd),
];

pub fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a pid is not 0"), Signal::KILL).expect("the process runs");
}

/// Process id of a child of kserver, by its program's name.
pub fn child(c: &Cluster, name: &str) -> Option<i32> {
    let parent = c.pid().to_string();
    std::fs::read_dir("/proc").expect("Linux").flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        (head.ends_with(&format!("({name}")) && rest.split(' ').nth(2) == Some(&parent)).then_some(pid)
    })
}

pub fn wait_until_gone(pid: i32) {
    eventually("the process is gone", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
    });
}

fn containers(c: &Cluster, selector: &str) -> Vec<String> {
    let ids = c.path(&format!("pods {selector}"), "{range .items[*]}{.metadata.name}{\" \"}{.status.containerStatuses[*].containerID}{\" \"}{.status.containerStatuses[*].restartCount}{\"\\n\"}{end}");
    let mut lines: Vec<String> = ids.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn a_rollout_survives_the_death_of_kserver() {
    let c = Cluster::with_containers();
    c.kctl("create deployment steady --image=nginx:live --replicas=2").ok();
    c.kctl("create deployment rolling --image=guestbook:v1 --replicas=4").ok();
    c.kctl("rollout status deployment steady --timeout=90s").ok();
    c.kctl("rollout status deployment rolling --timeout=90s").ok();
    let before = containers(&c, "-l app=steady");
    c.kctl("set image deployment rolling guestbook=guestbook:v2").ok();
    for i in 0..20 {
        c.kctl(&format!("create configmap acknowledged-{i}")).ok();
    }
    let pid = c.pid();
    kill(pid);
    wait_until_gone(pid);
    c.up().ok();
    c.kctl("rollout status deployment rolling --timeout=120s").ok();
    assert_eq!(containers(&c, "-l app=steady"), before, "a container was restarted");
    assert_eq!(c.kctl("get configmaps -o name").ok().lines().filter(|l| l.contains("acknowledged-")).count(), 20);
    eventually("four pods of the new version and no other", || {
        let images = c.path("pods -l app=rolling", "{.items[*].spec.containers[0].image}");
        if images.split(' ').eq(["guestbook:v2"; 4]) { Ok(()) } else { Err(images) }
    });
    assert!(containers(&c, "-l app=rolling").iter().all(|line| line.ends_with(" 0")), "a container was restarted");
}

fn the_server_outlives_etcd() {
    let c = Cluster::prepare(tests::Start { simulated_nodes: Some(1), ..Default::default() });
    c.up().ok();
    c.kctl("create configmap before").ok();
    let (server, etcd) = (c.pid(), child(&c, "etcd").expect("etcd is a child of kserver"));
    kill_process(Pid::from_raw(etcd).expect("a pid"), Signal::STOP).expect("etcd can be stopped");
    // Frozen, etcd answers nothing: a write must end with a Status, in time.
    let refused = eventually_within(Duration::from_secs(90), "a clear error", || {
        let created = c.kctl("create configmap during --request-timeout=70s");
        if created.code == 0 { Err(created.to_string()) } else { Ok(created.stderr) }
    });
    assert!(refused.contains("no answer from etcd"), "{refused}");
    kill(etcd);
    eventually("writes work again", || {
        let created = c.kctl("create configmap after");
        if created.succeeded() { Ok(()) } else { Err(created.to_string()) }
    });
    assert_eq!(c.pid(), server, "kserver was restarted");
    c.kctl("get configmap before").ok();
    c.kctl("create deployment later --image=x").ok();
    c.kctl("rollout status deployment later --timeout=60s").ok();
}

fn pods_outlive_containerd() {
    let c = Cluster::with_containers();
    c.kctl("create deployment steady --image=nginx:live --replicas=2").ok();
    c.kctl("rollout status deployment steady --timeout=90s").ok();
    let before = containers(&c, "-l app=steady");
    kill(child(&c, "containerd").expect("containerd is a child of kserver"));
    c.kctl("create deployment later --image=nginx:live").ok();
    c.kctl("rollout status deployment later --timeout=90s").ok();
    assert_eq!(containers(&c, "-l app=steady"), before, "a container was restarted");
}
