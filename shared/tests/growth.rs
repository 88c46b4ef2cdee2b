//! Twice the input takes twice the work, not four times. Work is counted in bytes allocated, which is the same on every machine, instead of
//! being timed; that is why this is a program of its own.

use std::alloc::System;

use serde_json::{Value, json};
use shared::managed::{self, Manager, Managers, Operation, Set};
use shared::patch::{json as json_patch, strategic};
use shared::selector::Selector;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes that a piece of work allocates.
fn work<T>(run: impl FnOnce() -> T) -> usize {
    let region = Region::new(ALLOCATOR);
    let kept = run();
    let allocated = region.change().bytes_allocated;
    drop(kept);
    allocated
}

/// Twice the input may take twice the work, and a little more.
fn grows_with_its_input(what: &str, run: impl Fn(usize) -> usize) {
    let (small, large) = (run(400), run(800));
    assert!(large < small * 3, "{what}: {small} bytes, then {large} for twice the input");
}

fn manager(name: &str) -> Manager {
    Manager { name: name.into(), operation: Operation::Update, api_version: "v1".into(), subresource: String::new() }
}

fn pod(containers: usize, image: &str) -> Value {
    let containers: Vec<Value> = (0..containers).map(|i| json!({"name": format!("c{i}"), "image": image})).collect();
    json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
}

#[test]
fn a_longer_list_takes_proportionally_more_work() {
    let kind = strategic::Type::of("v1", "Pod");
    grows_with_its_input("strategic merge", |n| work(|| strategic::apply(pod(n, "x"), pod(n, "y"), kind).unwrap()));
    grows_with_its_input("strategic diff", |n| {
        let (a, b) = (pod(n, "x"), pod(n, "y"));
        work(|| strategic::two_way(&a, &b, kind).unwrap())
    });
    grows_with_its_input("merge patch", |n| {
        let patch = pod(n, "y").to_string();
        work(|| json_patch::apply_merge_patch(pod(n, "x"), patch.as_bytes()).unwrap())
    });
    let of = managed::Type::of("v1", "Pod");
    grows_with_its_input("ownership", |n| {
        let (a, b) = (pod(n, "x"), pod(n, "y"));
        let mut managers = Managers::new();
        work(|| managed::update(of, &a, &b, &mut managers, &manager("a"), "v1", &Set::default()))
    });
    grows_with_its_input("selector", |n| {
        let text = (0..n).map(|i| format!("k{i} in (a,b)")).collect::<Vec<_>>().join(",");
        work(|| Selector::parse(&text).unwrap())
    });
}
