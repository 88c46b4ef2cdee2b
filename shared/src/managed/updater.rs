//! What a write changes of who owns what (`merge/update.go`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::merge::{merge, remove};
use super::path::Path;
use super::schema::Type;
use super::set::Set;
use super::walk::fields_of_stored;

/// How fields came to a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// It applied a configuration: what it leaves out the next time goes.
    Apply,
    /// It wrote them.
    Update,
}

/// Somebody who owns fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    /// Name, e.g. `kubectl`.
    pub name: String,
    /// How it owns them.
    pub operation: Operation,
    /// Version it wrote in; empty for appliers, which are the same whatever their version.
    pub api_version: String,
    /// Subresource it wrote to, or empty.
    pub subresource: String,
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The fields.
    pub set: Set,
    /// The version they are named in.
    pub api_version: String,
}

/// Everybody who owns fields of an object.
pub type Managers = BTreeMap<Manager, Owned>;

/// A field that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who.
    pub manager: Manager,
    /// The field.
    pub path: Path,
}

/// As messages name a manager (`managedfields/internal/conflict.go`, `printManager`).
impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Update => write!(f, " using {}", self.api_version),
            Operation::Apply => Ok(()),
        }
    }
}

/// What nobody owns, because the server decides it (`managedfields/internal/stripmeta.go`).
static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
    let metadata = ["creationTimestamp", "generation", "managedFields", "name", "namespace", "resourceVersion", "selfLink", "uid"];
    let below = metadata.iter().map(|name| Set::of_fields(&["metadata", name]));
    below.fold(["apiVersion", "kind", "metadata"].iter().map(|n| Set::of_fields(&[n])).fold(Set::default(), |a, b| a.union(&b)), |a, b| a.union(&b))
});

/// What `writer` owns after an update from `old` to `new`: what it changed, and what it had. Others lose what was changed or removed.
/// Fields in `ignored` are nobody's.
///
/// Returns whether the writer changed anything.
pub fn update(of: Type, old: &Value, new: &Value, managers: &mut Managers, writer: &Manager, api_version: &str, ignored: &Set) -> bool {
    let changes = compare(of, old, new).without(ignored);
    for owned in managers.values_mut() {
        release(owned, &changes);
    }
    managers.retain(|_, owned| !owned.set.is_empty());
    let taken = changes.modified.union(&changes.added).difference(&NOBODYS);
    if taken.is_empty() {
        return false;
    }
    let owned = managers.entry(writer.clone()).or_insert_with(|| Owned { set: Set::default(), api_version: api_version.to_owned() });
    *owned = Owned { set: owned.set.union(&taken), api_version: api_version.to_owned() };
    true
}

fn release(owned: &mut Owned, changes: &Comparison) {
    owned.set = owned.set.difference(&changes.modified).difference(&changes.added).difference(&changes.removed);
}

/// Applies a configuration: what it says is merged into the object and is the applier's from now on; what the applier had before and
/// nobody else has goes.
///
/// # Errors
/// Others own fields that the configuration changes, unless it is forced.
#[allow(clippy::too_many_arguments)]
pub fn apply(
    of: Type,
    object: &Value,
    (config, fields): (&Value, &Set),
    managers: &mut Managers,
    applier: &Manager,
    api_version: &str,
    ignored: &Set,
    force: bool,
) -> Result<Value, Vec<Conflict>> {
    let merged = merge(of, object, config);
    let fields = fields.recursive_difference(ignored).difference(&NOBODYS);
    let last = managers.insert(applier.clone(), Owned { set: fields, api_version: api_version.to_owned() });
    let result = match last {
        Some(last) if !last.set.is_empty() => prune(of, &merged, managers, &last.set),
        _ => merged,
    };
    let changes = compare(of, object, &result).without(ignored);
    let taken = changes.modified.union(&changes.added);
    let others = || managers.iter().filter(|(manager, _)| *manager != applier);
    if !force {
        let conflicts = |(manager, owned): (&Manager, &Owned)| -> Vec<Conflict> {
            let paths = owned.set.intersection(&taken).paths();
            paths.into_iter().map(|path| Conflict { manager: manager.clone(), path }).collect()
        };
        let conflicts: Vec<Conflict> = others().flat_map(conflicts).collect();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    for (_, owned) in managers.iter_mut().filter(|(manager, _)| *manager != applier) {
        release(owned, &changes);
    }
    managers.retain(|_, owned| !owned.set.is_empty());
    Ok(result)
}

/// Takes out what the applier had applied before and does not any more, unless somebody owns it.
fn prune(of: Type, merged: &Value, managers: &Managers, last: &Set) -> Value {
    let named = |set: &Set| set.with_named_fields(of.root());
    let last = named(last);
    let pruned = remove(of, merged, &last);
    // What others own, or the new configuration, comes back with all that it is in.
    let owned = managers.values().fold(Set::default(), |all, owned| all.union(&owned.set));
    let all = named(&fields_of_stored(of, merged));
    let kept = named(&fields_of_stored(of, &pruned)).union(&named(&owned));
    let pruned = remove(of, merged, &all.difference(&kept));
    // What nobody owns comes back, because the applier had not applied it.
    let left = named(&fields_of_stored(of, &pruned));
    remove(of, merged, &all.difference(&left).intersection(&last))
}
