//! Which lists merge by which key: data, not code (`schema.txt`).

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// How a field is patched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    /// The type of the value, or of its elements.
    pub child: Type,
    /// Lists are merged instead of replaced.
    pub merge: bool,
    /// Maps are replaced instead of merged.
    pub replace: bool,
    /// A diff says which keys are to stay.
    pub retain_keys: bool,
    /// Merge key of a list of maps, empty for scalars.
    pub key: &'static str,
}

/// A type of the API, as far as patching needs to know it: the default knows nothing special.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Type(usize);

struct Table {
    names: HashMap<&'static str, usize>,
    types: Vec<HashMap<&'static str, Field>>,
}

/// Index of the type that every kind has for its metadata.
const METADATA: &str = "ObjectMeta";

static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(include_str!("schema.txt")));

impl Type {
    /// The type of a kind's objects. Kinds that the table does not name have nothing special but their metadata.
    pub fn of(api_version: &str, kind: &str) -> Type {
        let table = &*TABLE;
        let name = format!("{api_version}.{kind}");
        Type(table.names.get(name.as_str()).or_else(|| table.names.get("*")).copied().unwrap_or_default())
    }

    /// The fields that the table knows, with the type of their values or elements and what the published OpenAPI says of them.
    pub fn published(self) -> impl Iterator<Item = (&'static str, Type, Map<String, Value>)> {
        TABLE.types.get(self.0).into_iter().flatten().map(|(name, field)| (*name, field.child, field.published()))
    }

    pub(super) fn field(self, name: &str) -> Field {
        TABLE.types.get(self.0).and_then(|t| t.get(name)).copied().unwrap_or_default()
    }
}

impl Field {
    /// As OpenAPI extensions.
    fn published(&self) -> Map<String, Value> {
        let strategies: Vec<&str> = [("merge", self.merge), ("replace", self.replace), ("retainKeys", self.retain_keys)]
            .iter()
            .filter(|(_, set)| *set)
            .map(|(name, _)| *name)
            .collect();
        let mut extensions = Map::new();
        if !strategies.is_empty() {
            extensions.insert("x-kubernetes-patch-strategy".into(), strategies.join(",").into());
        }
        if !self.key.is_empty() {
            extensions.insert("x-kubernetes-patch-merge-key".into(), self.key.into());
        }
        extensions
    }
}

impl Table {
    fn parse(text: &'static str) -> Self {
        let lines: Vec<(&str, &str)> =
            text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|l| l.split_once(' ').unwrap_or((l, ""))).collect();
        // Type 0 is `-`; then one more for kinds without a line.
        let mut names: HashMap<&'static str, usize> = HashMap::from([("-", 0), ("*", 1)]);
        names.extend(lines.iter().enumerate().map(|(i, (name, _))| (*name, i + 2)));
        let metadata = names.get(METADATA).map(|at| ("metadata", Field { child: Type(*at), ..Field::default() }));
        let mut types = vec![HashMap::new(), metadata.into_iter().collect()];
        for (name, fields) in lines {
            // Only kinds have a version, and thus a slash or a dotted version, in their names; all of them have metadata.
            let is_kind = name.rsplit_once('.').is_some_and(|(version, _)| version.contains('/') || version == "v1");
            let mut parsed: HashMap<&'static str, Field> = fields.split(' ').filter_map(|f| Self::field(&names, f)).collect();
            parsed.extend(metadata.filter(|_| is_kind));
            types.push(parsed);
        }
        Table { names, types }
    }

    /// `field=type[:strategy[:merge key]]`
    fn field(names: &HashMap<&'static str, usize>, text: &'static str) -> Option<(&'static str, Field)> {
        let (name, rest) = text.split_once('=')?;
        let mut parts = rest.split(':');
        let child = Type(*names.get(parts.next()?)?);
        let strategy = parts.next().unwrap_or_default();
        let has = |wanted: &str| strategy.split('+').any(|s| s == wanted);
        let key = parts.next().unwrap_or_default();
        Some((name, Field { child, merge: has("merge"), replace: has("replace"), retain_keys: has("retainKeys"), key }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_merge_keys() {
        let pod = Type::of("v1", "Pod");
        assert_eq!(pod.field("spec").child.field("containers").key, "name");
        assert_eq!(pod.field("metadata").child.field("ownerReferences").key, "uid");
        let template = Type::of("apps/v1", "Deployment").field("spec").child.field("template").child;
        let container = template.field("spec").child.field("initContainers").child;
        assert_eq!(container.field("ports").key, "containerPort");
        assert_eq!(container.field("volumeMounts").key, "mountPath");
        let volumes = template.field("spec").child.field("volumes");
        assert!(volumes.merge && volumes.retain_keys);
        let job = Type::of("batch/v1", "CronJob").field("spec").child.field("jobTemplate").child.field("spec").child;
        assert_eq!(job.field("template").child.field("spec").child.field("tolerations"), Field::default());
        assert_eq!(job.field("template").child.field("spec").child.field("hostAliases").key, "ip");
        assert_eq!(Type::of("v1", "Service").field("spec").child.field("ports").key, "port");
        assert!(Type::of("policy/v1", "PodDisruptionBudget").field("spec").child.field("selector").replace);
        assert!(Type::of("rbac.authorization.k8s.io/v1", "Role").field("metadata").child.field("finalizers").merge);
    }

    #[test]
    fn every_line_names_types_that_are_there() {
        for line in include_str!("schema.txt").lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            for field in line.split(' ').skip(1) {
                assert!(Table::field(&TABLE.names, field).is_some(), "{line}: {field}");
            }
        }
    }
}
