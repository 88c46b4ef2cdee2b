//! Charges every write to the quotas of its namespace, in the write's own transaction
//! (`k8s.io/apiserver/pkg/admission/plugin/resourcequota`).
//!
//! The new use is written under the condition that the quota is still at the revision it was computed from, so it can never be exceeded at
//! any revision, whoever writes at the same time. Within this process, writes that a quota concerns take turns per namespace, and each
//! starts from what the one before it wrote, so that turns do not wait for the watch and do not collide.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;
use parking_lot::Mutex;
use shared::status::ApiError;
use tokio::sync::OwnedMutexGuard;

use super::{Attributes, Context, Operation, Plugin, forbidden};
use crate::registry::admit::Held;
use crate::registry::quota::{Item, Request, charge, matches};
use crate::registry::{Object, RESOURCES};
use crate::storage::{Expect, Write};

type Versioned = (i64, Arc<ResourceQuota>);

/// What this process knows of a namespace's quotas beyond the cache.
#[derive(Default)]
struct Turn {
    /// Our own last writes, by name, until the cache shows them.
    written: HashMap<String, Versioned>,
    /// The last turn ended without a commit: someone else may have written, so the cache has to catch up first.
    unsure: bool,
}

#[derive(Default)]
pub(super) struct QuotaPlugin {
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Turn>>>>,
}

/// A turn, held until the transaction's outcome is known.
struct Taken {
    turn: OwnedMutexGuard<Turn>,
    charged: Vec<(String, ResourceQuota)>,
    done: bool,
}

impl Held for Taken {
    fn committed(mut self: Box<Self>, revision: i64) {
        self.done = true;
        for (name, quota) in std::mem::take(&mut self.charged) {
            self.turn.written.insert(name, (revision, Arc::new(quota)));
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if !self.done {
            self.turn.unsure = true;
        }
    }
}

/// Upstream's limit on waiting for a turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// Kinds that are not counted (`pkg/quota/v1/install/registry.go`).
const IGNORED: &[(&str, &str)] = &[
    ("", "bindings"),
    ("", "componentstatuses"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
];

#[async_trait]
impl Plugin for QuotaPlugin {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let (group, plural) = (attributes.resource.group, attributes.resource.plural);
        if attributes.namespace.is_empty() || attributes.object.is_none() || IGNORED.contains(&(group, plural)) {
            return false;
        }
        match (attributes.operation, attributes.subresource) {
            (Operation::Create, "") => true,
            // Only what can grow is charged on updates.
            (Operation::Update, "") => group.is_empty() && matches!(plural, "services" | "persistentvolumeclaims"),
            (Operation::Update, "resize") => group.is_empty() && plural == "pods",
            _ => false,
        }
    }

    async fn validate(&self, context: &Context, attributes: &mut Attributes<'_>) -> Result<(), ApiError> {
        if !concerned(context, attributes)? {
            return Ok(());
        }
        let turn = self.turns.lock().entry(attributes.namespace.to_owned()).or_default().clone();
        let timed_out = |_| ApiError::internal("resource quota evaluation timed out");
        let mut turn = tokio::time::timeout(TURN_TIMEOUT, turn.lock_owned()).await.map_err(timed_out)?;
        if turn.unsure {
            context.reader.objects().refresh().await?;
            turn.written.clear();
            turn.unsure = false;
        }
        let mut outcome = decide(context, attributes, &mut turn)?;
        if outcome.is_err() {
            // Use may have been given back since the cache last heard: nobody is refused on old news.
            context.reader.objects().refresh().await?;
            outcome = decide(context, attributes, &mut turn)?;
        }
        let charged = outcome.map_err(|text| forbidden(attributes, &text))?;
        if charged.is_empty() || attributes.dry_run {
            return Ok(());
        }
        let mut named = Vec::new();
        for (revision, quota) in charged {
            attributes.writes.push(write(attributes.namespace, revision, &quota)?);
            named.push((quota.metadata.name.clone().unwrap_or_default(), quota));
        }
        attributes.held.push(Box::new(Taken { turn, charged: named, done: false }));
        Ok(())
    }
}

/// Whether any quota of the namespace says something about this kind of object. Most namespaces have none.
fn concerned(context: &Context, attributes: &Attributes<'_>) -> Result<bool, ApiError> {
    let Some(item) = attributes.object.as_deref().map(Item::of) else { return Ok(false) };
    let quotas = context.reader.list::<ResourceQuota>(attributes.namespace)?;
    Ok(quotas.iter().any(|q| matches(q, attributes.resource.group, attributes.resource.plural, item)))
}

/// The quotas as they are now: the cache's, or our own last write where that is newer.
fn current(context: &Context, namespace: &str, turn: &mut Turn) -> Result<Vec<Versioned>, ApiError> {
    let mut quotas = context.reader.list_revisions::<ResourceQuota>(namespace)?;
    let mut written = std::mem::take(&mut turn.written);
    for (revision, quota) in &mut quotas {
        let Some(name) = &quota.metadata.name else { continue };
        if let Some((ours, value)) = written.remove(name)
            && ours > *revision
        {
            *revision = ours;
            *quota = value.clone();
            turn.written.insert(value.metadata.name.clone().unwrap_or_default(), (ours, value));
        }
    }
    quotas.sort_by(|(_, a), (_, b)| a.metadata.name.cmp(&b.metadata.name));
    Ok(quotas)
}

type Charged = Result<Vec<(i64, ResourceQuota)>, String>;

fn decide(context: &Context, attributes: &Attributes<'_>, turn: &mut Turn) -> Result<Charged, ApiError> {
    let Some(object) = attributes.object.as_deref() else { return Ok(Ok(Vec::new())) };
    let quotas = current(context, attributes.namespace, turn)?;
    let request = Request {
        group: attributes.resource.group,
        plural: attributes.resource.plural,
        item: Item::of(object),
        old: attributes.old.map(Item::of),
        now: Timestamp::now(),
    };
    let plain: Vec<&ResourceQuota> = quotas.iter().map(|(_, q)| q.as_ref()).collect();
    Ok(charge(&plain, &request).map(|changed| changed.into_iter().map(|(index, quota)| (quotas[index].0, quota)).collect()))
}

/// The quota's new state, on condition that it has not changed since.
fn write(namespace: &str, revision: i64, quota: &ResourceQuota) -> Result<Write, ApiError> {
    let resource = RESOURCES.of::<ResourceQuota>().ok_or_else(|| ApiError::internal("resourcequotas are not served"))?;
    let mut stored = quota.clone();
    // Stored JSON carries no resourceVersion: the key's revision is it.
    stored.metadata.resource_version = None;
    let name = stored.metadata.name.clone().unwrap_or_default();
    let value = Object::new(stored).encode().map_err(ApiError::internal)?;
    Ok(Write { key: resource.key(namespace, &name), expect: Expect::Revision(revision), value: Some(value.into()), lease: 0 })
}
