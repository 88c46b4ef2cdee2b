//! A set of fields as a tree, with its algebra and its JSON, `fieldsV1` (`fieldpath/set.go`, `serialize.go`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::path::{Path, PathElement};
use super::schema::Node;

/// A set of paths. A path can be a member whether or not longer ones are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    members: BTreeSet<PathElement>,
    /// None of them is empty.
    children: BTreeMap<PathElement, Set>,
}

/// `fieldsV1` that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid fieldsV1: {0}")]
pub struct BadFields(String);

impl Set {
    /// The set of one path of fields.
    pub fn of_fields(names: &[&str]) -> Self {
        let mut set = Set::default();
        set.insert(&names.iter().map(|n| PathElement::field(n)).collect::<Path>());
        set
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds a path; the root itself cannot be a member.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => drop(self.members.insert(last.clone())),
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Whether one step is a member.
    pub fn has_member(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    /// What lies below one step.
    pub fn below(&self, element: &PathElement) -> Option<&Set> {
        self.children.get(element)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        let mut union = self.clone();
        union.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            match union.children.get_mut(element) {
                Some(own) => *own = own.union(child),
                None => drop(union.children.insert(element.clone(), child.clone())),
            }
        }
        union
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let members = self.members.intersection(&other.members).cloned().collect();
        let child = |(element, own): (&PathElement, &Set)| Some((element.clone(), own.intersection(other.children.get(element)?)));
        Set { members, children: self.children.iter().filter_map(child).filter(|(_, c)| !c.is_empty()).collect() }
    }

    /// What is only in this one.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        let members = self.members.difference(&other.members).cloned().collect();
        let child = |(element, own): (&PathElement, &Set)| {
            (element.clone(), other.children.get(element).map_or_else(|| own.clone(), |other| own.difference(other)))
        };
        Set { members, children: self.children.iter().map(child).filter(|(_, c)| !c.is_empty()).collect() }
    }

    /// What is only in this one and not below a member of the other.
    #[must_use]
    pub fn recursive_difference(&self, other: &Set) -> Set {
        let members = self.members.difference(&other.members).cloned().collect();
        let child = |(element, own): (&PathElement, &Set)| {
            if other.members.contains(element) {
                return None;
            }
            Some((element.clone(), other.children.get(element).map_or_else(|| own.clone(), |other| own.recursive_difference(other))))
        };
        Set { members, children: self.children.iter().filter_map(child).filter(|(_, c)| !c.is_empty()).collect() }
    }

    /// The same with all fields of structs that lead to a member as members too, but not keys of maps and items of lists.
    #[must_use]
    pub(super) fn with_named_fields(&self, node: Node) -> Set {
        let named = |e: &&PathElement| matches!(e, PathElement::Field(_)) && !node.is_map();
        let members = self.members.iter().chain(self.children.keys().filter(named)).cloned().collect();
        let children = self.children.iter().map(|(e, c)| (e.clone(), c.with_named_fields(node.child(e)))).collect();
        Set { members, children }
    }

    /// Its paths: those of one level before those below it.
    pub fn paths(&self) -> Vec<Path> {
        fn collect(set: &Set, prefix: &mut Path, found: &mut Vec<Path>) {
            for member in &set.members {
                found.push(prefix.iter().cloned().chain([member.clone()]).collect());
            }
            for (element, child) in &set.children {
                prefix.push(element.clone());
                collect(child, prefix, found);
                prefix.pop();
            }
        }
        let mut found = Vec::new();
        collect(self, &mut Vec::new(), &mut found);
        found
    }

    /// As `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for member in &self.members {
            map.insert(member.encode(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            let mut value = child.to_value();
            if self.members.contains(element) {
                value["."] = Value::Object(Map::new());
            }
            map.insert(element.encode(), value);
        }
        Value::Object(map)
    }

    /// From `fieldsV1`.
    ///
    /// # Errors
    /// It has a key of another form, or a value that is no object.
    pub fn from_value(value: &Value) -> Result<Set, BadFields> {
        let map = value.as_object().ok_or_else(|| BadFields(value.to_string()))?;
        let mut set = Set::default();
        for (key, below) in map.iter().filter(|(key, _)| *key != ".") {
            let element = PathElement::decode(key).ok_or_else(|| BadFields(key.clone()))?;
            let child = Set::from_value(below)?;
            if child.is_empty() || below.get(".").is_some() {
                set.members.insert(element.clone());
            }
            if !child.is_empty() {
                set.children.insert(element, child);
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: &Value) -> Set {
        Set::from_value(value).unwrap()
    }

    #[test]
    fn fields_v1_survives_a_round_trip() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {".": {}, "v:\"x\"": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:replicas": {}},
        });
        assert_eq!(set(&fields).to_value(), fields);
        let paths: Vec<String> = set(&fields).paths().iter().map(|p| p.iter().map(ToString::to_string).collect()).collect();
        assert!(paths.contains(&".metadata.labels".to_owned()) && paths.contains(&".metadata.labels.app".to_owned()), "{paths:?}");
        assert!(paths.contains(&".spec.containers[name=\"a\"].image".to_owned()) && !paths.contains(&".spec".to_owned()), "{paths:?}");
        for bad in [json!([]), json!({"spec": {}}), json!({"f:a": 1})] {
            assert!(Set::from_value(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_algebra_is_that_of_paths() {
        let a = set(&json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}}));
        let b = set(&json!({"f:b": {"f:c": {}}, "f:e": {}}));
        assert_eq!(a.union(&b).to_value(), json!({"f:a": {}, "f:b": {".": {}, "f:c": {}, "f:d": {}}, "f:e": {}}));
        assert_eq!(a.intersection(&b).to_value(), json!({"f:b": {"f:c": {}}}));
        assert_eq!(a.difference(&b).to_value(), json!({"f:a": {}, "f:b": {".": {}, "f:d": {}}}));
        assert_eq!(b.difference(&a).to_value(), json!({"f:e": {}}));
        assert!(a.difference(&a).is_empty());
        let whole = set(&json!({"f:b": {}}));
        assert_eq!(a.difference(&whole).to_value(), json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}}));
        assert_eq!(a.recursive_difference(&whole).to_value(), json!({"f:a": {}}));
    }
}
