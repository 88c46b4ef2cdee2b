//! What must hold of everything that was seen. Pure: the record in, a count of each kind of breach out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::load::item;
use super::observe::{Event, Log, Segment};
use super::{Done, Item, Record};

type State = BTreeMap<String, Item>;

/// Fails with all breaches, or prints what was checked.
pub fn all(record: &Record, listed: &Value) {
    let watches = record.watches.lock();
    let mut breaches: Vec<String> = Vec::new();
    let finally: State = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|o| (o["metadata"]["name"].as_str().unwrap_or_default().to_owned(), item(o)))
        .filter(|(name, _)| name != "kube-root-ca.crt")
        .collect();
    for log in watches.iter() {
        breaches.extend(order(log));
    }
    let whole: Vec<&Log> = watches.iter().filter(|l| l.query.is_empty()).collect();
    for log in &whole {
        breaches.extend(state(log, &finally));
        breaches.extend(writes(log, &record.done.lock()));
        breaches.extend(counter(log));
    }
    for log in watches.iter().filter(|l| !l.query.is_empty()) {
        breaches.extend(selection(log, whole[0]));
    }
    let lists = record.lists.lock();
    let compared = lists.iter().filter(|list| compare_list(list, &whole, &mut breaches)).count();
    let (increments, unknown) = (record.increments.load(Ordering::Relaxed) as i64, record.unknown.load(Ordering::Relaxed) as i64);
    let counted = finally.get("counter").map_or(-1, |i| i.count);
    if counted < increments || counted > increments + unknown {
        breaches.push(format!("the counter is {counted} after {increments} answered and {unknown} unknown increments"));
    }
    let events: usize = watches.iter().flat_map(|l| &l.segments).map(|s| s.events.len()).sum();
    let gone: usize = watches.iter().map(|l| l.segments.len() - 1).sum();
    let reconnections: usize = watches.iter().map(|l| l.reconnections).sum();
    println!(
        "{} answered writes, {events} events to {} watchers over {reconnections} reconnections and {gone} relists, {compared} of {} paged lists compared, \
         counter {counted} = {increments} answered + at most {unknown} unknown; {} breaches",
        record.done.lock().len(),
        watches.len(),
        lists.len(),
        breaches.len()
    );
    assert!(breaches.is_empty(), "{} breaches:\n{}", breaches.len(), breaches[..breaches.len().min(20)].join("\n"));
    assert!(compared > 0 && increments > 0, "too little happened to say anything");
}

/// Revisions only grow: nothing doubled, nothing out of order, nothing from before the list.
fn order(log: &Log) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut last = 0;
    for segment in &log.segments {
        if segment.revision < last {
            breaches.push(format!("{:?}: a list at {} after an event at {last}", log.query, segment.revision));
        }
        last = segment.revision;
        for event in &segment.events {
            if event.item.revision <= last {
                breaches.push(format!("{:?}: {} {} at {} after {last}", log.query, event.kind, event.name, event.item.revision));
            }
            last = event.item.revision;
        }
    }
    breaches
}

/// Applies an event; says what is wrong with it.
fn apply(state: &mut State, event: &Event) -> Option<String> {
    let before = state.get(&event.name);
    let fits = match event.kind.as_str() {
        "ADDED" => before.is_none(),
        "MODIFIED" => before.is_some_and(|b| b.uid == event.item.uid),
        // The last state, at the deletion's revision.
        "DELETED" => before.is_some_and(|b| Item { revision: event.item.revision, ..b.clone() } == event.item),
        _ => false,
    };
    let breach = (!fits).then(|| format!("{event:?} with {before:?} before"));
    if event.kind == "DELETED" {
        state.remove(&event.name);
    } else {
        state.insert(event.name.clone(), event.item.clone());
    }
    breach
}

/// Every event fits what was before, and all of them lead to what there is.
fn state(log: &Log, finally: &State) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut state = State::new();
    for segment in &log.segments {
        state = segment.objects.clone();
        breaches.extend(segment.events.iter().filter_map(|event| apply(&mut state, event)));
    }
    state.remove("kube-root-ca.crt");
    if state != *finally {
        breaches.push(format!("the events lead to {state:?}, there is {finally:?}"));
    }
    breaches
}

/// Whether a segment tells of everything that happened at a revision.
fn covers(segment: &Segment, revision: i64) -> bool {
    segment.revision < revision && revision <= segment.reached
}

/// Every answered write has its event, wherever the watch was there to see it.
fn writes(log: &Log, done: &[Done]) -> Vec<String> {
    let events = || log.segments.iter().flat_map(|s| &s.events);
    let seen: BTreeSet<(i64, &str)> = events().map(|e| (e.item.revision, e.name.as_str())).collect();
    let deleted: BTreeSet<&str> = events().filter(|e| e.kind == "DELETED").map(|e| e.item.uid.as_str()).collect();
    let relisted = log.segments.len() > 1;
    let lost = |done: &&Done| match done {
        Done::Wrote(name, item) => log.segments.iter().any(|s| covers(s, item.revision)) && !seen.contains(&(item.revision, name)),
        // Its revision is not in the answer, so after a relist it may have fallen into the gap.
        Done::Deleted { uid } => !relisted && !deleted.contains(uid.as_str()),
    };
    done.iter().filter(lost).map(|d| format!("{d:?} was answered and has no event")).collect()
}

/// No increment is lost: each change of the counter adds one.
fn counter(log: &Log) -> Vec<String> {
    let mut breaches = Vec::new();
    for segment in &log.segments {
        let mut before = segment.objects.get("counter").map(|i| i.count);
        for event in segment.events.iter().filter(|e| e.name == "counter") {
            let count = event.item.count;
            // The farewell changes an annotation only.
            if before.is_some_and(|b| count != b + 1 && count != b) {
                breaches.push(format!("the counter went from {before:?} to {count} at {}", event.item.revision));
            }
            before = Some(count);
        }
    }
    breaches
}

fn selects(query: &str, name: &str, item: &Item) -> bool {
    match query {
        "labelSelector=side%3Da" => item.side == "a",
        "labelSelector=side%21%3Da" => item.side != "a",
        _ => name == "counter",
    }
}

/// A watch with a selector sees exactly what follows from all events: objects come and go as they begin and cease to match.
fn selection(log: &Log, whole: &Log) -> Vec<String> {
    let mut breaches = Vec::new();
    for all in &whole.segments {
        let mut state = all.objects.clone();
        let mut expected: Vec<(i64, &str, &str)> = Vec::new();
        for event in &all.events {
            let before = state.get(&event.name).is_some_and(|i| selects(log.query, &event.name, i));
            apply(&mut state, event);
            let now = state.get(&event.name).is_some_and(|i| selects(log.query, &event.name, i));
            let kind = match (before, now) {
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
                (false, false) => continue,
            };
            expected.push((event.item.revision, kind, &event.name));
        }
        for own in &log.segments {
            let both = |revision: i64| covers(all, revision) && covers(own, revision);
            let expected: Vec<_> = expected.iter().filter(|(r, ..)| both(*r)).copied().collect();
            let seen: Vec<_> =
                own.events.iter().filter(|e| both(e.item.revision)).map(|e| (e.item.revision, e.kind.as_str(), e.name.as_str())).collect();
            if expected != seen {
                let odd = expected.iter().zip(&seen).find(|(a, b)| a != b);
                breaches.push(format!("{:?}: {} events expected, {} seen; first difference {odd:?}", log.query, expected.len(), seen.len()));
            }
        }
    }
    breaches
}

/// Compares a list that was read in pages with the state its revision had. Returns whether that could be told.
fn compare_list((revision, listed): &(i64, Vec<(String, i64)>), whole: &[&Log], breaches: &mut Vec<String>) -> bool {
    let Some(segment) = whole.iter().flat_map(|l| &l.segments).find(|s| covers(s, *revision)) else { return false };
    let mut state = segment.objects.clone();
    for event in segment.events.iter().take_while(|e| e.item.revision <= *revision) {
        apply(&mut state, event);
    }
    let expected: Vec<(String, i64)> = state.iter().map(|(name, item)| (name.clone(), item.revision)).collect();
    if expected != *listed {
        breaches.push(format!("the list at {revision} has {listed:?}, not {expected:?}"));
    }
    true
}
