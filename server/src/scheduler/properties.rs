//! What holds for any sequence of pods and nodes.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::decide::pick;
use super::testing::{cluster, node, pod};

#[derive(Clone, Debug)]
enum Action {
    Schedule { cpu: i64, memory: i64, port: Option<i32> },
    Delete(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let port = proptest::option::weighted(0.2, 8000..8003i32);
    prop_oneof![
        4 => (0..2500i64, 0..4000i64, port).prop_map(|(cpu, memory, port)| Action::Schedule { cpu, memory, port }),
        1 => (0..40usize).prop_map(Action::Delete),
    ]
}

proptest! {
    #[test]
    fn no_node_is_ever_given_more_than_it_has(actions in proptest::collection::vec(action(), 1..60), nodes in 1..5usize, seed: u64) {
        let mut cluster = cluster((0..nodes).map(|i| node(&format!("n{i}")).allocatable("pods", "8")));
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut start = 0;
        for (i, action) in actions.into_iter().enumerate() {
            match action {
                Action::Schedule { cpu, memory, port } => {
                    let builder = pod(&format!("p{i}")).cpu(&format!("{cpu}m")).request("memory", &format!("{memory}Mi"));
                    let info = match port { Some(port) => builder.host_port(port), None => builder }.info();
                    let fits = |n: &super::node_info::NodeInfo| {
                        n.pods.len() < 8
                            && n.requested.milli_cpu + cpu <= 4000
                            && n.requested.memory + (memory << 20) <= 8 << 30
                            && port.is_none_or(|p| n.ports.iter().all(|taken| taken.port != p))
                    };
                    let possible = cluster.nodes().any(fits);
                    match pick(&info, &mut cluster, &mut start, &mut rng) {
                        Ok(node) => {
                            prop_assert!(cluster.node(&node).is_some_and(fits));
                            cluster.place(info, &node);
                        }
                        Err(_) => prop_assert!(!possible, "a pod that fits was refused"),
                    }
                }
                Action::Delete(i) => {
                    cluster.displace(&format!("default/p{i}"));
                }
            }
            for n in cluster.nodes() {
                let (cpu, memory) = n.pods.iter().fold((0, 0), |(c, m), p| (c + p.requests.milli_cpu, m + p.requests.memory));
                prop_assert_eq!((cpu, memory), (n.requested.milli_cpu, n.requested.memory), "sums drift");
                prop_assert!(cpu <= 4000 && memory <= 8 << 30 && n.pods.len() <= 8);
            }
        }
    }

    #[test]
    fn equal_nodes_are_chosen_by_the_seed_alone(seed: u64) {
        let choose = || {
            let mut cluster = cluster((0..5).map(|i| node(&format!("n{i}"))));
            pick(&pod("p").cpu("1").info(), &mut cluster, &mut 0, &mut SmallRng::seed_from_u64(seed)).unwrap()
        };
        prop_assert_eq!(choose(), choose());
    }
}

#[test]
fn equal_nodes_are_all_chosen_sometimes() {
    let mut rng = SmallRng::seed_from_u64(1);
    let mut cluster = cluster((0..5).map(|i| node(&format!("n{i}"))));
    let chosen: std::collections::BTreeSet<_> = (0..200).map(|_| pick(&pod("p").cpu("1").info(), &mut cluster, &mut 0, &mut rng).unwrap()).collect();
    assert_eq!(chosen.len(), 5);
}

/// Prints how fast decisions are; fails only when something has become quadratic.
#[test]
fn five_thousand_pods_find_their_places_on_a_hundred_nodes() {
    let mut cluster = cluster((0..100).map(|i| node(&format!("n{i}")).label("kubernetes.io/hostname", &format!("n{i}"))));
    cluster.workloads.insert(("Service", ("default".into(), "web".into())), shared::selector::Selector::parse("app=web").unwrap());
    let mut rng = SmallRng::seed_from_u64(1);
    let pods: Vec<_> = (0..5000).map(|i| pod(&format!("p{i}")).label("app", "web").cpu("10m").info()).collect();
    let mut start = 0;
    let begun = std::time::Instant::now();
    for pod in pods {
        let node = pick(&pod, &mut cluster, &mut start, &mut rng).unwrap();
        cluster.place(pod, &node);
    }
    let elapsed = begun.elapsed();
    println!("{:.0} decisions/s", 5000.0 / elapsed.as_secs_f64());
    let counts: Vec<usize> = cluster.nodes().map(|n| n.pods.len()).collect();
    assert!(counts.iter().all(|c| (49..=51).contains(c)), "spread evenly: {counts:?}");
    assert!(elapsed < std::time::Duration::from_secs(60), "{elapsed:?}");
}
