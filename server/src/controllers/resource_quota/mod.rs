//! Recounts what a namespace uses against its ResourceQuotas (`pkg/controller/resourcequota`). The API server charges creations
//! itself; this gives back what is deleted, and takes up changed limits.
//!
//! Owns the quotas' status. Must never write a count that is older than the quota it is written to: a lower count than the truth lets
//! somebody in who should not be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use shared::quantity::{Format, Quantity};

use super::control::Namespaced;
use super::error::found;
use super::metadata::{Event, Resource};
use super::queue::{Key, Queue};
use super::{Context, Error, now, pods, synced};
use crate::informers::{Change, Informer};

pub mod evaluate;

use evaluate::{Counter, Usage};

const WORKERS: usize = 5;
/// Deletions come in numbers; one count serves them all.
const GATHER: Duration = Duration::from_millis(50);

/// Starts the controller.
pub fn start(ctx: Context) {
    let queue = Queue::new();
    let controller = Arc::new(Controller {
        client: ctx.client.clone(),
        quotas: ctx.informers.get(),
        pods: ctx.informers.get(),
        services: ctx.informers.get(),
        claims: ctx.informers.get(),
        kinds: Mutex::default(),
        queue: queue.clone(),
    });
    let all = controller.quotas.clone();
    queue.set_resync(ctx.config.resync, move || all.list().iter().map(|q| Key::of(&**q)).collect());
    let into = queue.clone();
    ctx.on(&controller.quotas, move |change| {
        // Our own status writes, and the API server's charges, need no recount.
        let same = |old: &ResourceQuota, new: &ResourceQuota| {
            old.spec == new.spec && old.status.as_ref().map(|s| &s.hard) == new.status.as_ref().map(|s| &s.hard)
        };
        if !matches!(&change, Change::Deleted(_)) && !matches!(&change, Change::Updated { old, new } if same(old, new)) {
            into.add(Key::of(&**change.object()));
        }
    });
    let again = Again { quotas: controller.quotas.clone(), queue: queue.clone() };
    let recount = again.clone();
    ctx.on(&controller.pods, move |change| {
        let grace = |p: &Pod| (p.metadata.deletion_timestamp.clone(), p.metadata.deletion_grace_period_seconds);
        let spent = |p: &Pod| (pods::is_terminal(p), grace(p), evaluate::pod_resources(p, false), evaluate::pod_resources(p, true));
        match &change {
            Change::Deleted(_) => recount.namespace(&change, &Counter::Pods),
            Change::Updated { old, new } if spent(old) != spent(new) => recount.namespace(&change, &Counter::Pods),
            _ => {}
        }
    });
    let recount = again.clone();
    ctx.on(&controller.services, move |change| match &change {
        Change::Deleted(_) => recount.namespace(&change, &Counter::Services),
        Change::Updated { old, new } if evaluate::service_usage(old) != evaluate::service_usage(new) => {
            recount.namespace(&change, &Counter::Services)
        }
        _ => {}
    });
    let recount = again.clone();
    ctx.on(&controller.claims, move |change| match &change {
        Change::Deleted(_) => recount.namespace(&change, &Counter::Claims),
        Change::Updated { old, new } if evaluate::claim_usage(old) != evaluate::claim_usage(new) => recount.namespace(&change, &Counter::Claims),
        _ => {}
    });
    let (mut events, kinds) = (ctx.metadata.subscribe(), controller.clone());
    ctx.tasks.spawn("resourcequota-controller/deletions", async move {
        while let Some(event) = events.recv().await {
            match event {
                Event::Deleted(resource, meta) if resource.namespaced => again.of(&meta.namespace, &Counter::Objects(resource.group_resource())),
                Event::Kinds(all) => {
                    *kinds.kinds.lock() = all;
                    // Counts of kinds that were not known so far.
                    again.everywhere();
                }
                _ => {}
            }
        }
    });
    let ready = vec![synced(&controller.quotas), synced(&controller.pods), synced(&controller.services), synced(&controller.claims)];
    ctx.work(&queue, WORKERS, ready, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
}

/// Asks for recounts.
#[derive(Clone)]
struct Again {
    quotas: Informer<ResourceQuota>,
    queue: Queue<Key>,
}

impl Again {
    fn namespace<K: Namespaced>(&self, change: &Change<K>, counter: &Counter) {
        self.of(change.object().metadata().namespace.as_deref().unwrap_or_default(), counter);
    }

    /// Every quota of a namespace that limits what `counter` counts.
    fn of(&self, namespace: &str, counter: &Counter) {
        for quota in self.quotas.list_namespaced(namespace) {
            if hard(&quota).keys().any(|name| evaluate::counter(name).as_ref() == Some(counter)) {
                self.queue.add_after(Key::of(&*quota), GATHER);
            }
        }
    }

    fn everywhere(&self) {
        for quota in self.quotas.list() {
            if hard(&quota).keys().any(|name| matches!(evaluate::counter(name), Some(Counter::Objects(_)))) {
                self.queue.add_after(Key::of(&*quota), GATHER);
            }
        }
    }
}

fn hard(quota: &ResourceQuota) -> BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity> {
    quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default()
}

struct Controller {
    client: Client,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    claims: Informer<PersistentVolumeClaim>,
    kinds: Mutex<Arc<Vec<Arc<Resource>>>>,
    queue: Queue<Key>,
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<(), Error> {
        let Some(cached) = self.quotas.get(&key.namespace, &key.name) else { return Ok(()) };
        self.come_back(key, &cached);
        // Counting in the cache costs no request. Only if that says something new is it worth asking.
        let from_cache = self.usage(&cached, false).await?;
        if !is_news(&cached, &from_cache) {
            return Ok(());
        }
        // The quota is read before what it limits, and written only if it is still the same: whatever is created in between is charged
        // to it, which changes it, and then this count is thrown away.
        let api: Api<ResourceQuota> = Api::namespaced(self.client.clone(), &key.namespace);
        let Some(quota) = self.fresh(&api, key, &cached).await? else { return Ok(()) };
        let usage = self.usage(&quota, true).await?;
        if !is_news(&quota, &usage) {
            return Ok(());
        }
        let mut changed = quota.clone();
        let status = changed.status.get_or_insert_default();
        status.hard = Some(hard(&quota));
        status.used = Some(used(&quota, &usage));
        match api.replace_status(&key.name, &PostParams::default(), &changed).await.map_err(Error::from) {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A pod that outlives its grace is no longer counted, and nothing tells of that moment.
    fn come_back(&self, key: &Key, quota: &ResourceQuota) {
        if hard(quota).keys().any(|name| evaluate::counter(name) == Some(Counter::Pods)) {
            let now = now();
            let waits = self.pods.list_namespaced(&key.namespace).into_iter().filter_map(|p| evaluate::counts_for(&p, &now));
            if let Some(wait) = waits.min() {
                self.queue.add_after(key.clone(), wait);
            }
        }
    }

    /// The quota as it is now. Upstream's role does not allow a get, only lists.
    async fn fresh(&self, api: &Api<ResourceQuota>, key: &Key, cached: &ResourceQuota) -> Result<Option<ResourceQuota>, Error> {
        let only = ListParams::default().fields(&format!("metadata.name={}", key.name));
        let quota = found(api.list(&only).await)?.and_then(|list| list.items.into_iter().next());
        Ok(quota.filter(|q| q.metadata.uid == cached.metadata.uid))
    }

    async fn usage(&self, quota: &ResourceQuota, live: bool) -> Result<Usage, Error> {
        let namespace = quota.metadata.namespace.as_deref().unwrap_or_default();
        let (scopes, now) = (evaluate::scopes(quota), now());
        let mut total = Usage::new();
        let counters: BTreeSet<Counter> = hard(quota).keys().filter_map(|name| evaluate::counter(name)).collect();
        for counter in counters {
            match counter {
                Counter::Pods => {
                    let pods = self.objects(&self.pods, namespace, live).await?;
                    let within = pods.iter().filter(|p| evaluate::pod_in_scopes(p, &scopes));
                    within.for_each(|p| evaluate::add(&mut total, &evaluate::pod_usage(p, &now)));
                }
                Counter::Claims => {
                    let claims = self.objects(&self.claims, namespace, live).await?;
                    let within = claims.iter().filter(|c| evaluate::claim_in_scopes(c, &scopes));
                    within.for_each(|c| evaluate::add(&mut total, &evaluate::claim_usage(c)));
                }
                // Scopes are about pods and claims; a quota with any counts nothing else.
                Counter::Services | Counter::Objects(_) if !scopes.is_empty() => {}
                Counter::Services => {
                    let services = self.objects(&self.services, namespace, live).await?;
                    services.iter().for_each(|s| evaluate::add(&mut total, &evaluate::service_usage(s)));
                }
                Counter::Objects(kind) => {
                    if let Some(count) = self.count(namespace, &kind).await? {
                        let count = Quantity::from_units(count, Format::DecimalSI);
                        total.insert(format!("count/{kind}"), count);
                        total.insert(kind, count);
                    }
                }
            }
        }
        Ok(total)
    }

    async fn objects<K: Namespaced>(&self, cache: &Informer<K>, namespace: &str, live: bool) -> Result<Vec<Arc<K>>, Error> {
        if !live {
            return Ok(cache.list_namespaced(namespace));
        }
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        Ok(api.list(&ListParams::default()).await?.items.into_iter().map(Arc::new).collect())
    }

    /// The number of objects of a kind, `None` while the kind is not known.
    async fn count(&self, namespace: &str, kind: &str) -> Result<Option<i64>, Error> {
        let known = self.kinds.lock().iter().find(|r| r.namespaced && r.group_resource() == kind).cloned();
        let Some(resource) = known else { return Ok(None) };
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource.api);
        let (mut count, mut page) = (0, ListParams::default().limit(1));
        loop {
            let list = api.list_metadata(&page).await?;
            count += i64::try_from(list.items.len()).unwrap_or(i64::MAX);
            if let Some(rest) = list.metadata.remaining_item_count {
                return Ok(Some(count + rest));
            }
            match list.metadata.continue_.filter(|c| !c.is_empty()) {
                Some(token) => page = ListParams::default().limit(500).continue_token(&token),
                None => return Ok(Some(count)),
            }
        }
    }
}

/// What `status.used` should say: a count for every limit that something counts.
fn used(quota: &ResourceQuota, usage: &Usage) -> BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity> {
    let before = quota.status.as_ref().and_then(|s| s.used.clone()).unwrap_or_default();
    let entry = |name: String| match usage.get(&name) {
        Some(amount) => Some((name, amount.to_wire())),
        // Kinds that are not served just now keep what they had.
        None if matches!(evaluate::counter(&name), Some(Counter::Objects(_))) => before.get(&name).map(|old| (name.clone(), old.clone())),
        None => evaluate::counter(&name).map(|_| (name, Quantity::zero().to_wire())),
    };
    hard(quota).into_keys().filter_map(entry).collect()
}

fn is_news(quota: &ResourceQuota, usage: &Usage) -> bool {
    let amounts = |list: &BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>| -> Usage {
        list.iter().map(|(name, amount)| (name.clone(), Quantity::of(amount))).collect()
    };
    let status = quota.status.clone().unwrap_or_default();
    amounts(&status.hard.unwrap_or_default()) != amounts(&hard(quota)) || amounts(&status.used.unwrap_or_default()) != amounts(&used(quota, usage))
}
