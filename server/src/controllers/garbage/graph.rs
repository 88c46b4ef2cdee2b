//! Who owns whom, over all kinds (`pkg/controller/garbagecollector/graph_builder.go`). Pure: events in, uids to look at out.
//!
//! Keeps only what can matter: the uid of every object, and the metadata of those that have owners or wait for their dependents.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::controllers::metadata::{Meta, Resource};

/// The owner goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The owner goes and its dependents stay.
pub const ORPHAN: &str = "orphan";

/// A uid, packed: most of what is kept is uids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uid(u128);

impl Uid {
    /// From its text; uids are UUIDs, and what is none is hashed.
    pub fn of(text: &str) -> Self {
        let digits = text.bytes().filter(|b| *b != b'-').count();
        let packed = text.bytes().filter(|b| *b != b'-').try_fold(0u128, |n, b| char::from(b).to_digit(16).map(|d| n << 4 | u128::from(d)));
        match packed {
            Some(packed) if digits == 32 => Uid(packed),
            _ => Uid(u128::from(hash(text))),
        }
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// An object that matters.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its kind.
    pub resource: Arc<Resource>,
    /// It.
    pub meta: Arc<Meta>,
}

impl Node {
    /// It is being deleted and must outlive its dependents.
    pub fn waits_for_dependents(&self) -> bool {
        self.meta.deleting && self.meta.finalizers.iter().any(|f| f == FOREGROUND)
    }
    /// It is being deleted and must let its dependents go first.
    pub fn orphans_dependents(&self) -> bool {
        self.meta.deleting && self.meta.finalizers.iter().any(|f| f == ORPHAN)
    }
}

/// The graph.
#[derive(Default)]
pub struct Graph {
    /// Every object there is, with its namespace, hashed; 0 for none.
    present: HashMap<Uid, u64>,
    nodes: HashMap<Uid, Node>,
    /// By the owner's uid, which need not be present.
    dependents: HashMap<Uid, HashSet<Uid>>,
}

impl Graph {
    /// An object that matters.
    pub fn node(&self, uid: Uid) -> Option<&Node> {
        self.nodes.get(&uid)
    }

    /// What an object owns.
    pub fn dependents(&self, uid: Uid) -> Vec<Node> {
        self.dependents.get(&uid).into_iter().flatten().filter_map(|d| self.nodes.get(d).cloned()).collect()
    }

    /// Whether the owner is there, in the namespace of the dependent or outside of all.
    pub fn has_owner(&self, dependent: &Meta, owner: &str) -> bool {
        self.present.get(&Uid::of(owner)).is_some_and(|ns| *ns == 0 || *ns == hash(&dependent.namespace))
    }

    /// Notes an object. Returns what is to be looked at now.
    pub fn applied(&mut self, resource: &Arc<Resource>, meta: &Arc<Meta>) -> Vec<Uid> {
        let uid = Uid::of(&meta.uid);
        self.present.insert(uid, if meta.namespace.is_empty() { 0 } else { hash(&meta.namespace) });
        let node = Node { resource: resource.clone(), meta: meta.clone() };
        let (waits, orphans) = (node.waits_for_dependents(), node.orphans_dependents());
        let mut todo = Vec::new();
        let before = if meta.owners.is_empty() && !waits && !orphans { self.nodes.remove(&uid) } else { self.nodes.insert(uid, node) };
        if let Some(before) = &before
            && (before.meta.owners != meta.owners || before.meta.deleting != meta.deleting)
        {
            for owner in before.meta.owners.iter() {
                self.unlink(Uid::of(&owner.uid), uid);
                todo.extend(self.waiting(&owner.uid));
            }
        }
        for owner in meta.owners.iter() {
            self.dependents.entry(Uid::of(&owner.uid)).or_default().insert(uid);
        }
        let waiting_owner = |g: &Self| meta.owners.iter().any(|o| g.waiting(&o.uid).is_some());
        if meta.owners.iter().any(|o| !self.has_owner(meta, &o.uid)) || waiting_owner(self) {
            todo.push(uid);
        }
        if waits {
            todo.extend(self.dependents.get(&uid).into_iter().flatten());
        }
        if waits || orphans {
            todo.push(uid);
        }
        todo
    }

    /// Forgets an object. Returns what is to be looked at now.
    pub fn deleted(&mut self, meta: &Meta) -> Vec<Uid> {
        let uid = Uid::of(&meta.uid);
        self.present.remove(&uid);
        let mut todo: Vec<Uid> = self.dependents.get(&uid).into_iter().flatten().copied().collect();
        if let Some(node) = self.nodes.remove(&uid) {
            for owner in node.meta.owners.iter() {
                self.unlink(Uid::of(&owner.uid), uid);
                todo.extend(self.waiting(&owner.uid));
            }
        }
        todo
    }

    fn waiting(&self, owner: &str) -> Option<Uid> {
        let uid = Uid::of(owner);
        self.nodes.get(&uid).filter(|n| n.waits_for_dependents()).map(|_| uid)
    }

    fn unlink(&mut self, owner: Uid, dependent: Uid) {
        if let Some(dependents) = self.dependents.get_mut(&owner) {
            dependents.remove(&dependent);
            if dependents.is_empty() {
                self.dependents.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::core::ApiResource;

    use super::*;

    fn resource() -> Arc<Resource> {
        Arc::new(Resource { api: ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&()), namespaced: true, verbs: Vec::new() })
    }

    fn meta(namespace: &str, uid: &str, owners: &[&str]) -> Meta {
        let owner = |uid: &&str| OwnerReference { uid: (*uid).to_owned(), ..OwnerReference::default() };
        Meta { namespace: namespace.into(), name: uid.into(), uid: uid.into(), owners: owners.iter().map(owner).collect(), ..Meta::default() }
    }

    #[test]
    fn uids_are_packed_without_loss() {
        let text = "5b5c1f66-6b43-4a8f-8d0c-0d1fdd3e8a11";
        assert_eq!(Uid::of(text), Uid(0x5b5c_1f66_6b43_4a8f_8d0c_0d1f_dd3e_8a11));
        assert_ne!(Uid::of("a"), Uid::of("b"));
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes_or_was_never_there() {
        let (mut graph, resource) = (Graph::default(), resource());
        assert!(graph.applied(&resource, &Arc::new(meta("ns", "owner", &[]))).is_empty());
        assert!(graph.applied(&resource, &Arc::new(meta("ns", "child", &["owner"]))).is_empty());
        assert_eq!(graph.applied(&resource, &Arc::new(meta("other", "stranger", &["owner"]))), [Uid::of("stranger")]);
        assert_eq!(graph.applied(&resource, &Arc::new(meta("ns", "lost", &["absent"]))), [Uid::of("lost")]);
        let mut gone = graph.deleted(&meta("ns", "owner", &[]));
        gone.sort_by_key(|u| u.0);
        let mut expected = vec![Uid::of("child"), Uid::of("stranger")];
        expected.sort_by_key(|u| u.0);
        assert_eq!(gone, expected);
        assert_eq!(graph.dependents(Uid::of("owner")).len(), 2);
        graph.deleted(&meta("ns", "child", &["owner"]));
        graph.deleted(&meta("other", "stranger", &["owner"]));
        assert!(graph.dependents.keys().all(|k| *k == Uid::of("absent")));
    }

    #[test]
    fn an_owner_that_waits_is_looked_at_with_each_dependent_that_goes() {
        let (mut graph, resource) = (Graph::default(), resource());
        graph.applied(&resource, &Arc::new(meta("ns", "owner", &[])));
        graph.applied(&resource, &Arc::new(meta("ns", "child", &["owner"])));
        let waiting = Meta { deleting: true, finalizers: vec![FOREGROUND.to_owned()].into(), ..meta("ns", "owner", &[]) };
        let todo = graph.applied(&resource, &Arc::new(waiting));
        assert!(todo.contains(&Uid::of("child")) && todo.contains(&Uid::of("owner")));
        assert_eq!(graph.deleted(&meta("ns", "child", &["owner"])), [Uid::of("owner")]);
    }

    #[test]
    fn objects_without_owners_cost_only_their_uid() {
        let (mut graph, resource) = (Graph::default(), resource());
        graph.applied(&resource, &Arc::new(meta("ns", "a", &["b"])));
        graph.applied(&resource, &Arc::new(meta("ns", "a", &[])));
        assert!(graph.nodes.is_empty() && graph.dependents.is_empty());
        assert_eq!(graph.present.len(), 1);
    }
}
