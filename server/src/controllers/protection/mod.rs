//! Lets storage objects that are being deleted go once nobody uses them, and keeps them until then. Admission gives each a finalizer
//! when it is made; these controllers give it to those that lack it, and take it away.
//!
//! Owns the `…-protection` finalizers. Must never take one off on the cache's word alone where pods are concerned.

pub mod claim;
pub mod class;
pub mod volume;

use std::future::Future;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use serde::Serialize;

use super::error::found;
use super::queue::{Key, Queue};
use super::{Context, Error, synced};
use crate::informers::{Change, Informer, Watchable};

fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

/// Whether the finalizer is to be added (`protectionutil.NeedToAddFinalizer`) or perhaps to be removed (`IsDeletionCandidate`).
fn is_of_interest(meta: &ObjectMeta, finalizer: &str) -> bool {
    has(meta, finalizer) == meta.deletion_timestamp.is_some()
}

/// Queues what may be in need of a change, now and at each resync.
fn follow<K: Watchable>(ctx: &Context, informer: &Informer<K>, queue: &Queue<Key>, finalizer: &'static str) {
    let all = informer.clone();
    let resync = move || all.list().iter().filter(|o| is_of_interest(o.metadata(), finalizer)).map(|o| Key::of(&**o)).collect();
    queue.set_resync(ctx.config.resync, resync);
    let into = queue.clone();
    ctx.on(informer, move |change| {
        let object = change.object();
        if !matches!(change, Change::Deleted(_)) && is_of_interest(object.metadata(), finalizer) {
            into.add(Key::of(&**object));
        }
    });
}

/// Works the queue: adds the finalizer where it is missing, removes it where the object is going and `used` says no.
fn work<K, F, Fut>(ctx: &Context, informer: Informer<K>, queue: &Queue<Key>, finalizer: &'static str, api: fn(&Context, &Key) -> Api<K>, used: F)
where
    K: Watchable + Serialize,
    F: Fn(Arc<K>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<bool, Error>> + Send,
{
    let (context, ready, used) = (ctx.clone(), vec![synced(&informer)], Arc::new(used));
    ctx.work(queue, 2, ready, move |key| {
        let (context, informer, used) = (context.clone(), informer.clone(), used.clone());
        async move {
            let Some(object) = informer.get(&key.namespace, &key.name).filter(|o| is_of_interest(o.metadata(), finalizer)) else { return Ok(()) };
            let leaving = object.metadata().deletion_timestamp.is_some();
            if leaving && used(object.clone()).await? {
                return Ok(());
            }
            let mut changed = (*object).clone();
            let finalizers = changed.metadata_mut().finalizers.get_or_insert_default();
            if leaving {
                finalizers.retain(|f| f != finalizer);
            } else {
                finalizers.push(finalizer.to_owned());
            }
            found(api(&context, &key).replace(&key.name, &PostParams::default(), &changed).await)?;
            Ok(())
        }
    });
}
